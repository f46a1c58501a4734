"""The wheel as people install it, outside the checkout; and what importing costs and gives."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import deltawire
import deltawire.transports
from deltawire.protocol import DeltawireError, errors
from deltawire.testing import ChatServer

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("client", "protocol", "transports", "pyproject.toml", "README.md", "LICENSE")


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """What Python prints, away from the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves its traces where it builds, and finds there what earlier builds left."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    arguments = ("wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(source))
    python("-m", "pip", *arguments, cwd=place)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel), cwd=target)
    return target


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0] for name in names} == {
        "deltawire",
        f"deltawire-{deltawire.__version__}.dist-info",
    }
    assert "deltawire/py.typed" in names
    wanted = {
        name
        for folder, package in (("client", ""), ("protocol", "protocol/"), ("transports", "transports/"))
        for file in (ROOT / folder).rglob("*.py")
        for name in [f"deltawire/{package}{file.relative_to(ROOT / folder).as_posix()}"]
    }
    assert {name for name in names if name.endswith(".py")} == wanted


def test_top_level_names(installed: Path) -> None:
    found = {entry.name for entry in installed.iterdir()} - {"bin", "__pycache__"}
    assert found == {"deltawire", f"deltawire-{deltawire.__version__}.dist-info"}


def test_the_command_is_declared(installed: Path) -> None:
    points = configparser.ConfigParser()
    points.read(installed / f"deltawire-{deltawire.__version__}.dist-info" / "entry_points.txt")
    assert dict(points["console_scripts"]) == {"deltawire": "deltawire.cli:main"}


def test_it_runs_elsewhere(installed: Path, tmp_path: Path) -> None:
    program = """
import deltawire, deltawire.protocol, deltawire.protocol.dialects.opchatgpts, deltawire.transports, deltawire.testing
from deltawire.transports import HTTPCoreTransport, AsyncHTTPCoreTransport
with deltawire.testing.ChatServer(tokens=["Hel", "lo"]) as server:
    with deltawire.Client(base_url=server.url, trust_env=False) as client:
        stream = client.chat.completions.create("Hi", "m", stream=True)
        print("".join(chunk.choices[0].delta.content or "" for chunk in stream))
print(deltawire.__file__)
"""
    said, place = python("-W", "error", "-c", program, cwd=tmp_path, path=installed).splitlines()
    assert said == "Hello"
    assert Path(place).is_relative_to(installed)


def test_the_command_runs_elsewhere(installed: Path, tmp_path: Path) -> None:
    said = python("-W", "error", "-m", "deltawire", "--version", cwd=tmp_path, path=installed)
    assert said == f"deltawire {deltawire.__version__}\n"


def test_in_the_checkout_too(tmp_path: Path) -> None:
    """No folder there is in the way of the installed package."""
    said = python("-c", "import deltawire; print(deltawire.__version__)", cwd=ROOT)
    assert said.strip() == deltawire.__version__
    assert not (ROOT / "deltawire").exists()


# --- Importing ----------------------------------------------------------------------------------------

HEAVY = ("httpcore", "anyio", "h11", "trio", "asyncio", "ssl", "socket", "http", "email")


def loaded_by(module: str, cwd: Path) -> set[str]:
    program = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    return set(python("-c", program, cwd=cwd).split())


def test_importing_loads_no_network(tmp_path: Path) -> None:
    assert loaded_by("deltawire", tmp_path) & {"httpcore", "anyio", "h11", "trio"} == set()


def test_importing_the_protocol_loads_less(tmp_path: Path) -> None:
    assert loaded_by("deltawire.protocol", tmp_path) & {"httpcore", "anyio", "h11", "trio", "asyncio", "ssl"} == set()


def test_transports_load_on_use(tmp_path: Path) -> None:
    assert loaded_by("deltawire.transports", tmp_path) & {"httpcore", "anyio", "trio"} == set()
    program = "import deltawire.transports as t; t.HTTPCoreTransport; import sys; print('anyio' in sys.modules)"
    python("-W", "error", "-c", program, cwd=tmp_path)
    with pytest.raises(AttributeError, match="Pigeon"):
        deltawire.transports.Pigeon  # noqa: B018


def test_a_sync_program_needs_no_trio(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["trio"] = sys.modules["h2"] = None
import asyncio, deltawire
assert deltawire.Client().transport
async def main():
    async with deltawire.AsyncClient(base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        try:
            await client.models.list()
        except deltawire.ConnectError:
            print("refused")
asyncio.run(main())
"""
    assert python("-W", "error", "-c", program, cwd=tmp_path) == "refused\n"


ON_THE_WIRE = """
import sys
from deltawire import AsyncClient, Client

OPTIONS = {"transport": "wire", "base_url": sys.argv[1], "max_retries": 0}

def sync():
    with Client(**OPTIONS) as client:
        return "".join(each.choices[0].delta.content or "" for each in ask(client))

async def main():
    async with AsyncClient(**OPTIONS) as client:
        return "".join([each.choices[0].delta.content or "" async for each in ask(client)])

def ask(client):
    return client.chat.completions.create("Hi", "m", stream=True)

"""


@pytest.mark.parametrize(
    ("run", "needed"),
    [
        pytest.param("sync()", set(), id="sync"),
        pytest.param("__import__('asyncio').run(main())", {"anyio", "asyncio"}, id="asyncio"),
        pytest.param("__import__('trio').run(main)", {"anyio", "asyncio", "trio"}, id="trio"),
    ],
)
def test_the_wire_needs_no_http_client(tmp_path: Path, run: str, needed: set[str]) -> None:
    """From the import to the last token: no httpcore; for programs that block no event loop either. (anyio brings
    asyncio along.)"""
    heavy = {"httpcore", "anyio", "trio", "asyncio"}
    program = f"{ON_THE_WIRE}print({run}, *({heavy!r}.intersection(sys.modules)))"
    with ChatServer(tokens=["Hel", "lo"]) as server:
        text, *loaded = python("-W", "error", "-c", program, server.url, cwd=tmp_path).split()
    assert text == "Hello"
    assert set(loaded) == needed


# --- Names --------------------------------------------------------------------------------------------

# The design's own list.
NAMES = (
    "Client", "AsyncClient", "parse_stream", "aparse_stream", "__version__", "Messages", "Timeout", "Limits",
    "DeltawireError", "APIError", "APIStatusError", "BadRequestError", "AuthenticationError", "MissingAuthError",
    "PermissionDeniedError", "NotFoundError", "ConflictError", "UnprocessableEntityError", "RateLimitError",
    "InternalServerError", "StreamError", "TruncatedStreamError", "MalformedEventError", "LimitExceededError",
    "UnexpectedReplyError", "EmptyReplyError", "RedirectError", "TransportError", "ConnectError", "ProxyError",
    "TimeoutError", "ReadError", "RetryProviderError", "RetryNoProviderError", "ConfigurationError",
)  # fmt: skip


def test_all_names_exist() -> None:
    for module in (deltawire, deltawire.protocol, deltawire.transports):
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name) is not None


@pytest.mark.parametrize("name", NAMES)
def test_names_that_must_hold(name: str) -> None:
    assert name in deltawire.__all__
    assert hasattr(deltawire, name)


def test_every_error_is_exported() -> None:
    classes = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, DeltawireError) and not name.startswith("_")
    }
    assert classes <= set(deltawire.__all__)
    assert classes <= set(deltawire.protocol.__all__)
