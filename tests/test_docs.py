"""What stands in README.md and docs/ is true: every block of Python is run, and prints what the block after it says."""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import inspect
import re
import runpy
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import trustme
from driving import Peer, free_port, full_listener

import deltawire
from deltawire.protocol import (
    ConfigurationError,
    ConnectError,
    Deadlines,
    Endpoint,
    HTTP1Exchange,
    Proxy,
    ProxyError,
    ReadError,
    Timeout,
)
from deltawire.protocol.urls import parse_url
from deltawire.testing import ChatServer, ProxyServer, SocksServer
from deltawire.testing._images import png

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

# These stand for themselves: they need libraries that we don't, or bytes that nobody has.
ONLY_COMPILED = (
    "from deltawire import aparse_stream, parse_stream",
    "from deltawire.protocol import ChatCompletionChunk, ChatRequest",
    "from deltawire.protocol import HTTP1Exchange\n",
    "machine, events = tunnel(",
)

_BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    source: str
    printed: str | None
    """None: whatever it likes."""
    line: int


# The blocks of these are one program from the first to the last.
ONE_PROGRAM = ("sans-io",)


class Section(NamedTuple):
    """What stands below a heading, or in a whole document: its blocks are one program."""

    title: str
    blocks: list[Block]


def sections(document: Path) -> Iterator[Section]:
    text = document.read_text(encoding="utf-8")
    ends = [found.start() for found in re.finditer(r"^## ", text, re.MULTILINE)]
    if document.stem in ONE_PROGRAM:
        ends = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        title = text[start:end].partition("\n")[0].strip("# ")
        blocks = [
            Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)
            for found in _BLOCK.finditer(text, start, end)
        ]
        if blocks:
            yield Section(f"{document.stem}: {title}", blocks)


SECTIONS = [section for document in DOCUMENTS for section in sections(document)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the documents' names of servers stand for; the environment and the directory are as a reader's may be."""
    (tmp_path / "cat.png").write_bytes(png(0))
    monkeypatch.chdir(tmp_path)
    with (
        ChatServer(tokens=["Hello", " there", "."], models=["local-model", {"id": "painter", "image": True}]) as server,
        ProxyServer(username="user", password="password") as proxy,
        SocksServer() as socks,
    ):
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-reader")
        yield {
            "http://user:password@proxy.example:3128": proxy.url,
            "http://user:password@host:3128": proxy.url,
            "socks5h://other:1080": socks.remote_url,
            "https://llm.example/v1": server.url,
            "http://localhost:8000/v1": server.url,
            "https://shop.example": server.site_url,
        }


def run(block: Block, namespace: dict[str, Any], where: str) -> None:
    # So that what it raises shows the line in the document.
    source = "\n" * block.line + block.source
    code = compile(source, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if block.source.startswith(ONLY_COMPILED):
        return
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)


def check(section: Section, names: dict[str, str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run it as one program. Returns what it has defined."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in section.blocks:
        for name, stands_for in names.items():
            block = block._replace(source=block.source.replace(name, stands_for))
        run(block, namespace, section.title)
        printed = capsys.readouterr()
        assert printed.err == ""
        if block.printed is not None:
            assert printed.out.rstrip("\n") == block.printed.rstrip("\n")
    return namespace


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_the_blocks_run(section: Section, names: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    check(section, names, capsys)


# --- Driving the machines ---------------------------------------------------------------------------

(DRIVING,) = [each for each in SECTIONS if each.title.startswith("sans-io")]


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' authority is one that OpenSSL trusts by itself."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


@pytest.mark.usefixtures("trusted")
def test_driving_the_machines_with_tls(
    names: dict[str, str], capsys: pytest.CaptureFixture[str], server_context: ssl.SSLContext
) -> None:
    """The same program for a server that wants TLS, to which proxies give tunnels."""
    with ChatServer(tokens=["Hello", " there", "."], ssl_context=server_context) as server:
        check(DRIVING, {**names, "http://localhost:8000/v1": server.url}, capsys)
        # Two each on connections that are kept: to the server, and through either proxy.
        assert [each.connection for each in server.requests] == [1, 2, 2, 3, 3, 4, 4, 5]


@pytest.fixture
def driving(names: dict[str, str], capsys: pytest.CaptureFixture[str]) -> SimpleNamespace:
    """What the guide's program has defined when it is over."""
    return SimpleNamespace(**check(DRIVING, names, capsys))


def deadlines(connect: float = 5) -> Deadlines:
    return Deadlines(Timeout(connect=connect), time.monotonic())


def test_a_server_that_says_nothing_to_tls(driving: SimpleNamespace) -> None:
    with Peer() as server, pytest.raises(TimeoutError, match=r"within 0\.2 s \(Timeout\.connect\) \(127\.0\.0\.1:"):
        driving.connect(parse_url(f"https://127.0.0.1:{server.port}/"), deadlines(0.2))


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_says_nothing(scheme: str, driving: SimpleNamespace) -> None:
    url = parse_url("https://server.example/")
    with Peer() as silent, pytest.raises(TimeoutError, match=r"Timeout\.connect.* via the proxy ") as raised:
        driving.connect_through(Proxy.parse(f"{scheme}://127.0.0.1:{silent.port}"), url, deadlines(0.2))
    assert isinstance(raised.value, deltawire.protocol.TimeoutError)


def test_a_proxy_that_does_not_finish_its_refusal(driving: SimpleNamespace) -> None:
    with Peer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nNo") as proxy, pytest.raises(ProxyError) as raised:
        driving.connect_through(
            Proxy.parse(f"http://127.0.0.1:{proxy.port}"), parse_url("https://server.example/"), deadlines(0.2)
        )
    assert raised.value.status_code == 403


def test_a_proxy_that_nobody_reaches(driving: SimpleNamespace) -> None:
    url = parse_url("https://server.example/")
    with full_listener() as port, pytest.raises(TimeoutError, match="no connection within"):
        driving.connect_through(Proxy.parse(f"http://127.0.0.1:{port}"), url, deadlines(0.2))
    with pytest.raises(ConnectError, match="via the proxy http://127"):
        driving.connect_through(Proxy.parse(f"http://127.0.0.1:{free_port()}"), url, deadlines())


def test_tls_that_fails_behind_a_tunnel(driving: SimpleNamespace, proxy: ProxyServer, tls_server: ChatServer) -> None:
    with pytest.raises(ConnectError, match="certificate verify failed"):
        driving.connect_through(Proxy.parse(proxy.url), parse_url(tls_server.url), deadlines())
    assert [each.method for each in proxy.requests] == ["CONNECT"]


@pytest.mark.usefixtures("trusted")
def test_a_proxy_that_wants_tls(driving: SimpleNamespace, tls_proxy: ProxyServer, server: ChatServer) -> None:
    proxy = Proxy.parse(tls_proxy.url)
    with contextlib.closing(driving.LineThrough(proxy)) as line:
        for _ in range(2):
            line.ask(*Endpoint.at(server.url).prepare(driving.chat, api_key="sk-of-the-reader", proxy=proxy))
    assert [each.connection for each in tls_proxy.requests] == [1, 1]
    with pytest.raises(ConfigurationError, match="TLS inside TLS"):
        driving.connect_through(proxy, parse_url("https://server.example/"), deadlines())


def test_no_time_left_to_connect(driving: SimpleNamespace, server: ChatServer) -> None:
    """A timeout of 0 would be a socket that does not block."""
    late = Deadlines(Timeout(total=1), time.monotonic(), total_at=time.monotonic())
    with pytest.raises(TimeoutError, match=r"Timeout\.total"):
        driving.connect(parse_url(server.url), late)


def test_what_is_lost_before_it_stands(driving: SimpleNamespace) -> None:
    """Why it is to be told as a `ConnectError`."""

    def told(verb: str, *arguments: Exception) -> type[Exception]:
        exchange = HTTP1Exchange.chat(driving.chat, driving.endpoint, api_key="sk-of-the-reader")
        (event,) = getattr(exchange, verb)(*arguments)
        return type(event.error)

    assert told("fail", ConnectError("no connection")) is ConnectError
    assert told("fail", OSError("reset")) is ReadError
    assert told("end") is ReadError


# --- The documents themselves -----------------------------------------------------------------------


def test_the_diagrams_are_those_of_the_machines() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "diagrams.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_diagrams_that_are_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        diagrams = runpy.run_path(str(ROOT / "scripts" / "diagrams.py"), run_name="diagrams")
    text = (ROOT / "docs" / "sans-io.md").read_text(encoding="utf-8")
    copy = tmp_path / "sans-io.md"
    copy.write_text(text.replace("    HEAD --> BODY : receive\n", ""), encoding="utf-8")
    assert diagrams["main"](copy, check=True) == 1
    assert "run scripts/diagrams.py" in capsys.readouterr().err
    assert diagrams["main"](copy, check=False) == 0
    assert copy.read_text(encoding="utf-8") == text
    copy.write_text(text.replace("<!-- TRANSITIONS", "<!-- "), encoding="utf-8")
    with pytest.raises(ValueError, match="has 0 places for TRANSITIONS"):
        diagrams["main"](copy, check=True)


def test_all_blocks_are_found() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        blocks = [block for section in sections(document) for block in section.blocks]
        assert text.count("```python") == len(blocks) > 0
        assert text.count("```text") == sum(block.printed is not None for block in blocks)


def test_what_is_only_compiled_is_there() -> None:
    sources = [block.source for section in SECTIONS for block in section.blocks]
    for beginning in ONLY_COMPILED:
        assert [source.startswith(beginning) for source in sources].count(True) == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings], target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_that_are_imported_in_tables_exist(document: Path) -> None:
    """``from deltawire... import a, b`` in a line of text."""
    for statement in re.findall(r"`(from deltawire\S* import [\w, ]+\w)[^`]*`", document.read_text(encoding="utf-8")):
        exec(statement, {})


# --- Tables -----------------------------------------------------------------------------------------


def rows(document: str, beginning: str) -> list[list[str]]:
    """The rows of each table whose first line begins so."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    tables = re.findall(rf"^{re.escape(beginning)}.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tables, beginning
    return [[cell.strip() for cell in row.strip("|").split("|")] for table in tables for row in table.splitlines()]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`(\**\w+)`", cell)


@pytest.mark.parametrize(("document", "beginning"), [("from-g4f.md", "| in g4f |"), ("from-openai.md", "| the SDK |")])
def test_the_exceptions_exist(document: str, beginning: str) -> None:
    found = rows(document, beginning)
    names = {name for _, here, *_ in found for name in quoted(here)}
    names |= {name for theirs, here, *_ in found if here.startswith("the same") for name in quoted(theirs)}
    errors = {name for name in names if name.endswith("Error")}
    assert len(errors) > 12
    assert {name for name in errors if not hasattr(deltawire, name) and not hasattr(builtins, name)} == set()


def test_the_attributes_exist() -> None:
    for names, *_ in rows("from-g4f.md", "| attribute |"):
        for name in quoted(names):
            assert hasattr(deltawire.OpenaiTemplate, name), name


def test_the_parameters_are_all() -> None:
    told = [name.strip("*") for names, *_ in rows("from-g4f.md", "| parameter of") for name in quoted(names)]
    assert sorted(told) == sorted(inspect.signature(deltawire.OpenaiTemplate.create_async_generator).parameters)


def test_the_clients_arguments_exist() -> None:
    told = {name for names, *_ in rows("from-g4f.md", "| argument |") for name in re.findall(r"`(\w+)=`", names)}
    assert told
    assert told <= set(inspect.signature(deltawire.Client).parameters)


# --- Promises ---------------------------------------------------------------------------------------


def test_the_promises_have_tests() -> None:
    """Each row of docs/reliability.md names tests; they exist, and are no mere names."""
    test = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
    promises = rows("reliability.md", "| promise |")
    assert len(promises) > 50
    assert [promise for promise, held_by in promises if not test.search(held_by)] == []
    named = set(test.findall((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")))
    there = set()
    for file in {file for file, _ in named}:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        there |= {(file, each.name) for each in tree.body if isinstance(each, ast.FunctionDef)}
    assert named - there == set()
