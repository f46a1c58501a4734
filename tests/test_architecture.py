"""The three rooms: who may import whom, what an import costs, and the size of things."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import deltawire.protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"protocol": "deltawire.protocol", "transports": "deltawire.transports", "client": "deltawire"}

# What touches the world, or a clock, or chance: nothing for a pure machine.
IMPURE = {
    "_socket", "_ssl", "_thread", "asyncio", "concurrent", "datetime", "email", "http", "logging", "multiprocessing",
    "os", "random", "sched", "secrets", "select", "selectors", "signal", "socket", "socketserver", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib.request", "uuid",
}  # fmt: skip

# The libraries that a module may import beside those of its room. In the transports ssl, asyncio, trio and
# socket count as libraries: each has its place.
WORLD = {"asyncio", "h11", "select", "selectors", "socket", "ssl", "trio"}
PROTOCOL_LIBRARIES = {"msgspec"}
TRANSPORT_LIBRARIES = {"httpcore", "anyio"}
EXCEPTIONS: dict[str, set[str]] = {
    "protocol/http1.py": {"h11"},
    "transports/_curl.py": {"curl_cffi"},
    "transports/_curl_request.py": {"certifi", "curl_cffi", "msgspec", "ssl"},
    "transports/_curl_words.py": {"curl_cffi", "ssl"},
    "transports/_lifetime.py": {"asyncio"},
    "transports/_options.py": {"msgspec"},
    "transports/_tls.py": {"certifi", "ssl"},
    "transports/impersonate.py": {"curl_cffi"},
    # The stream layer: the code that waits, and what it waits on.
    "transports/streams/blocking.py": {"selectors", "socket"},
    "transports/streams/layers.py": {"selectors", "socket", "ssl"},
    "transports/streams/on_asyncio.py": {"asyncio", "socket", "ssl"},
    "transports/streams/on_trio.py": {"socket", "trio"},
    "transports/streams/opening.py": {"msgspec", "socket", "ssl"},
    "transports/streams/overseeing.py": {"trio"},
    "transports/streams/racing.py": {"socket"},
    "transports/streams/waiting.py": {"asyncio"},
    "transports/wire/feeding.py": {"asyncio"},
    "transports/streams/words.py": {"ssl"},
    "client/aclient.py": {"anyio"},
    # Generators of one's own, in programs that block: an event loop for each answer.
    "client/blocking.py": {"asyncio"},
    "client/calls.py": {"msgspec"},
    "client/drivers.py": {"anyio"},
    "client/learning.py": {"anyio"},
    "client/generated.py": {"anyio"},
    "client/generating.py": {"anyio"},
    "client/replay.py": {"h11"},
    "client/settings.py": {"msgspec"},
    "client/targets.py": {"msgspec"},
}


class Import(NamedTuple):
    module: str
    """The whole name of what is imported; "deltawire.protocol.errors" for ``from .errors import x``."""
    line: int
    for_types: bool
    """Whether it stands below ``if TYPE_CHECKING``."""

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


def files(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_of(path: Path) -> str:
    """The package that a file's relative imports start from."""
    room, *inner = path.relative_to(ROOT).parts[:-1]
    return ".".join([PACKAGES[room], *inner])


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package_of(path).split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                # ``from package import module`` may name a module, too.
                yield Import(f"{base}.{alias.name}", node.lineno, id(node) in for_types)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def every(room: str) -> list[Any]:
    return [pytest.param(path, id=name_of(path)) for path in files(room)]


def check(path: Path, own: set[str], libraries: set[str], guarded: set[str]) -> None:
    """Every import of the file is of these packages of ours, these libraries, or the standard library."""
    allowed = EXCEPTIONS.get(name_of(path), set())
    for each in imports(path):
        where = f"{name_of(path)}:{each.line} imports {each.module}"
        if each.root == "deltawire":
            assert any(within(each.module, package) for package in own), where
        elif each.root in guarded or each.root not in sys.stdlib_module_names:
            # A type checker's imports cost nothing and do nothing.
            for_types = each.for_types and each.root in guarded | {"typing_extensions"}
            assert each.root in libraries | allowed or for_types, where


# --- Who imports whom ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", every("protocol"))
def test_the_protocol_imports_nothing_but_pure_things(path: Path) -> None:
    check(path, {"deltawire.protocol"}, PROTOCOL_LIBRARIES, set())
    for each in imports(path):
        assert not any(within(each.module, impure) for impure in IMPURE), f"{name_of(path)}:{each.line}: {each.module}"


@pytest.mark.parametrize("path", every("protocol"))
def test_the_protocol_does_nothing_to_the_world(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            assert node.id not in {"open", "print", "input", "breakpoint", "__import__", "exec", "eval"}, node.lineno


@pytest.mark.parametrize("path", every("transports"))
def test_the_transports_import_the_protocol_and_their_libraries(path: Path) -> None:
    check(path, {"deltawire.protocol", "deltawire.transports"}, TRANSPORT_LIBRARIES, WORLD)


@pytest.mark.parametrize("path", every("client"))
def test_the_client_imports_the_rooms_below(path: Path) -> None:
    if "testing" in path.relative_to(ROOT).parts:
        check(path, {"deltawire.testing"}, {"h11"}, set())
        return
    check(path, {"deltawire"}, set(), WORLD)
    uses_testing = any(within(each.module, "deltawire.testing") for each in imports(path))
    assert not uses_testing or path.name == "demo.py", "only the demonstration runs servers"


def test_the_exceptions_are_still_needed() -> None:
    for name, libraries in EXCEPTIONS.items():
        path = ROOT / name
        if path.exists():
            unused = libraries - {each.root for each in imports(path)}
            assert not unused, f"{name} no longer imports {unused}"


def test_relative_imports_are_understood() -> None:
    # The tests above stand on this.
    path = ROOT / "protocol" / "dialects" / "openai.py"
    found = {each.module for each in imports(path)}
    assert "deltawire.protocol.chunks.Delta" in found
    assert any(each.for_types for each in imports(path))
    assert package_of(ROOT / "client" / "testing" / "x.py") == "deltawire.testing"
    assert package_of(ROOT / "client" / "x.py") == "deltawire"


# --- What an import loads --------------------------------------------------------------------------

HEAVY = ["httpcore", "anyio", "trio", "h11", "asyncio", "ssl", "socket", "json", "threading", "difflib", "email"]


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    return set(run.stdout.split())


def test_importing_the_protocol_loads_little() -> None:
    # What msgspec itself loads is not ours to choose: on Python 3.10, threading is among it.
    loaded = loaded_by("import deltawire.protocol") - loaded_by("import msgspec")
    assert "deltawire.protocol.sse" in loaded
    assert "deltawire.transports" not in loaded
    assert "deltawire.testing" not in loaded
    assert sorted(loaded.intersection(HEAVY)) == []


def test_importing_the_package_loads_no_transport() -> None:
    loaded = loaded_by("import deltawire") - loaded_by("")
    heavy = {"httpcore", "anyio", "trio", "h11", "asyncio", "ssl", "deltawire.testing"}
    assert sorted(loaded & heavy) == []


def test_the_usual_reply_loads_no_json_module() -> None:
    code = """
from deltawire.protocol import Reply
reply = Reply()
reply.start(200, [(b"content-type", b"text/event-stream")])
reply.receive(b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}\\n\\n')
assert reply.receive(b"data: [DONE]\\n\\n")
"""
    assert "json" not in loaded_by(code) - loaded_by("")


# --- The size of things ----------------------------------------------------------------------------

ALL_FILES = [param for room in PACKAGES for param in every(room)]


@pytest.mark.parametrize("path", ALL_FILES)
def test_modules_and_functions_stay_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} (line {node.lineno})"


@pytest.mark.parametrize("path", ALL_FILES)
def test_modules_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree)


# --- What is public --------------------------------------------------------------------------------


# What needs h11, which takes as long to load as all the rest of the protocol.
LAZY = {"HTTP1_TRANSITIONS", "HTTP1Exchange", "HTTP1State"}


def test_all_names_exist_and_are_sorted() -> None:
    names = deltawire.protocol.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(deltawire.protocol, name)
        assert not name.startswith("_")


def test_all_public_names_are_in_all() -> None:
    public = {
        name
        for name, value in vars(deltawire.protocol).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name not in {"annotations", "TYPE_CHECKING", "Any"}
    }
    # Those of h11 come on demand, and stay out of the module.
    assert LAZY.isdisjoint(public)
    public |= LAZY
    # accumulate is a function and a module; the function is what the name means.
    assert public == set(deltawire.protocol.__all__)
    assert callable(deltawire.protocol.accumulate)


def described(thing: Any) -> bool:
    """Has it a docstring of its own (not a base class's, not one that is made up)?"""
    return bool((vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__) or "")


@pytest.mark.parametrize("name", deltawire.protocol.__all__)
def test_what_is_public_is_described(name: str) -> None:
    thing = getattr(deltawire.protocol, name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    assert described(thing), name
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            if not member.startswith("_") and isinstance(
                value, (types.FunctionType, property, classmethod, staticmethod)
            ):
                assert value.__doc__, f"{name}.{member}"


def test_names_that_must_hold() -> None:
    # DESIGN.md, "Names that must hold": tests outside the repository use these.
    assert list(inspect.signature(deltawire.protocol.SSEDecoder).parameters) == ["limits"]
    reply = inspect.signature(deltawire.protocol.Reply).parameters
    assert list(reply) == ["dialect", "stream", "limits", "context", "stop"]
    assert (reply["dialect"].default, reply["stream"].default) == ("openai", True)
    assert all(reply[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("stream", "limits", "context", "stop"))
    assert list(inspect.signature(deltawire.protocol.accumulate).parameters) == ["chunks"]
    timeout = deltawire.protocol.Timeout()
    assert (timeout.connect, timeout.first_content, timeout.idle, timeout.total) == (10, 600, 120, None)


def test_this_file_sees_the_whole_project() -> None:
    assert len(files("protocol")) > 20
    configured = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for room, package in PACKAGES.items():
        assert json.dumps(package) + " = " + json.dumps(room) in configured
