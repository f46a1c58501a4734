"""The command line: ``deltawire`` and ``python -m deltawire``.

Exit status: 0 when all went well; 1 when the server or its reply was at fault; 2 when the command line or the
settings were; 3 when there was no way to the server (connection, proxy, timeout); 130 after Ctrl-C; 141 when
nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from deltawire.protocol import APIError, ConfigurationError, DeltawireError, MissingAuthError, Timeout, TransportError

from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OK, FAILED, USAGE, UNREACHABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141

# What a model writes must not move the cursor, clear the screen or set the window's title.
_CONTROLS = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code not in (0x09, 0x0A)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; gives the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that can't show a character should show a question mark, not a traceback.
            stream.reconfigure(errors="replace")
    try:
        with _records() if options.debug else contextlib.nullcontext():
            run: Callable[[Any], int] = options.run
            status = run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python would flush at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except (DeltawireError, OSError, UnicodeError) as error:
        if options.debug:
            raise
        print(f"deltawire: {_one_line(str(error) or type(error).__name__)}", file=sys.stderr)
        return _status(error)


@contextlib.contextmanager
def _records() -> Iterator[None]:
    """Show what the library tells its loggers, on standard error."""
    import logging

    logger = logging.getLogger("deltawire")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _status(error: Exception) -> int:
    if isinstance(error, TransportError):
        return UNREACHABLE
    if isinstance(error, APIError) and not isinstance(error, MissingAuthError):
        return FAILED
    return USAGE


def _one_line(text: str) -> str:
    return " ".join(text.split()).translate(_CONTROLS)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show what is done, and the traceback of an error")
    server = argparse.ArgumentParser(add_help=False, parents=[common])
    server.add_argument("--base-url", metavar="URL", help="default: $OPENAI_BASE_URL, else https://api.openai.com/v1")
    server.add_argument(
        "--proxy",
        metavar="URL",
        help="http://[user:password@]host:port, or https://, socks5://, socks5h://; default: the environment's",
    )
    server.add_argument("--uds", metavar="PATH", help="the Unix domain socket to connect to, whatever the URL's host")
    server.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="to the first content, and between contents"
    )
    server.add_argument("--max-retries", type=int, metavar="N", default=2, help="extra attempts (default: %(default)s)")

    parser = argparse.ArgumentParser(
        prog="deltawire",
        description="Chat with any OpenAI-compatible server. The API key comes from $OPENAI_API_KEY.",
        epilog="Exit status: 0 good, 1 the server failed, 2 usage, 3 no way to the server, 130 Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"deltawire {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    chat = commands.add_parser("chat", parents=[server], help="ask a model; the answer streams to the terminal")
    chat.add_argument("prompt", nargs="?", default="-", help="what to ask; '-' or nothing reads standard input")
    chat.add_argument("--model", default=os.environ.get("OPENAI_MODEL") or "gpt-4o-mini", help="default: %(default)s")
    chat.add_argument("--system", metavar="TEXT", help="the system message")
    chat.add_argument("--no-stream", action="store_true", help="wait for the whole answer")
    chat.add_argument("--json", action="store_true", help="print what comes as JSON, a line a chunk")
    chat.set_defaults(run=_chat)

    models = commands.add_parser("models", parents=[server], help="list the server's models")
    models.add_argument("--json", action="store_true", help="print the whole list as JSON")
    models.set_defaults(run=_models)

    demo = commands.add_parser(
        "demo", parents=[common], help="stream a chat from a local server through a local proxy: no key, no network"
    )
    demo.add_argument("--json", action="store_true", help="print what server and proxy logged, and when tokens arrived")
    demo.add_argument("--stop-proxy", action="store_true", help="stop the proxy first, to see the error")
    demo.set_defaults(run=_demo)

    replay = commands.add_parser("replay", parents=[common], help="feed a recorded reply to the machines")
    replay.add_argument(
        "file", help="a body, or a whole HTTP/1.1 response as it stood on the wire; '-': standard input"
    )
    replay.add_argument("--content-type", default="", help="of a bare body; without it the body is looked at")
    replay.add_argument(
        "--dialect", default="openai", metavar="NAME", help="openai, opchatgpts, models... (default: %(default)s)"
    )
    replay.add_argument("--split", type=int, default=0, metavar="N", help="feed N bytes at a time")
    replay.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    replay.set_defaults(run=_replay)
    return parser


def _seconds(text: str) -> float:
    try:
        Timeout(idle=float(text))
    except (ValueError, ConfigurationError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0") from None
    return float(text)


def _client(options: argparse.Namespace) -> Any:
    from .client import Client

    return Client(
        base_url=options.base_url,
        proxies=options.proxy,
        timeout=options.timeout,
        max_retries=options.max_retries,
        uds=options.uds,
    )


def _chat(options: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    if not prompt.strip():
        raise ConfigurationError("there is nothing to ask: give a prompt, or pipe one in")
    messages = [{"role": "user", "content": prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    with _client(options) as client:
        if options.no_stream:
            completion = client.chat.completions.create(messages, options.model)
            if options.json:
                print(completion.to_json(indent=None))
            else:
                for choice in completion.choices:
                    print(shown(choice.message.content or choice.message.refusal or ""))
            return OK
        with client.chat.completions.create(messages, options.model, stream=True) as stream:
            return _print_stream(stream, as_json=options.json)


def _print_stream(stream: Any, *, as_json: bool) -> int:
    ends_line = True
    try:
        for chunk in stream:
            if as_json:
                print(chunk.to_json(indent=None), flush=True)
                continue
            text = "".join(choice.delta.content or choice.delta.refusal or "" for choice in chunk.choices)
            if text:
                # Noted before it is so: Ctrl-C may come in between.
                ends_line = text.endswith("\n")
                print(shown(text), end="", flush=True)
    finally:
        # Also before an error: it should begin on a line of its own.
        if not ends_line:
            print(flush=True)
    return OK


def shown(text: str) -> str:
    """A peer's text as it may go to standard output: on a terminal without control characters."""
    return text.translate(_CONTROLS) if sys.stdout.isatty() else text


def _models(options: argparse.Namespace) -> int:
    with _client(options) as client:
        models = client.models.list()
    if options.json:
        print(models.to_json(indent=None))
    else:
        for model in models:
            print(shown(model.id))
    return OK


def _demo(options: argparse.Namespace) -> int:
    from .demo import run

    return run(as_json=options.json, stop_proxy=options.stop_proxy)


def _replay(options: argparse.Namespace) -> int:
    from .replay import run

    return run(
        options.file,
        content_type=options.content_type,
        dialect=options.dialect,
        split=options.split,
        as_json=options.json,
    )
