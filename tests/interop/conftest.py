"""The real programs, as fixtures. ``python scripts/interop.py`` installs them and runs these tests.

Those of ``tests/conftest.py`` are there, too: all but the tests of HTTP/2 are run on both transports (``transports``).
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import interop_counts
import interop_servers
import pytest
import trustme
from interop_calls import FLAVOURS
from interop_proxies import PROXIES, PROXYS_NAME, ProxyProgram, Route, StartProxy, owner, part_of, start
from interop_servers import (
    Authority,
    Server,
    StartLlama,
    StartServer,
    free_port,
    open_directory,
    parts,
    variable,
)

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "interop(part): needs this part of the interop suite")
    for part in parts():
        variable(f"_{part.upper()}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "flavour" in metafunc.fixturenames:
        metafunc.parametrize("flavour", FLAVOURS)
    if "route" in metafunc.fixturenames:
        ways: list[Any] = ["direct"]
        # A module may choose among the proxies.
        proxies = getattr(metafunc.module, "ROUTES", PROXIES)
        ways += [pytest.param(proxy, marks=pytest.mark.interop(part_of(proxy))) for proxy in proxies]
        metafunc.parametrize("route", ways, indirect=True)
    if "proxy" in metafunc.fixturenames:
        named = [pytest.param(proxy, marks=pytest.mark.interop(part_of(proxy))) for proxy in PROXIES]
        metafunc.parametrize("proxy", named, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = set(parts())
    kept = [item for item in items if interop_counts.parts_of(item) <= chosen]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[SIZES] = {server: server.size() for server in interop_servers.running}
    item.stash[interop_counts.OUTCOMES] = []
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[interop_counts.OUTCOMES].append(report.outcome)
    if report.failed:
        for server in interop_servers.running:
            said = server.tail(item.stash[SIZES].get(server, 0))
            report.sections.append((f"{server.name} on {server.address} said", said or "(nothing)"))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    interop_counts.write(session.items)


SIZES = pytest.StashKey[dict[Server, int]]()


@pytest.fixture(scope="session")
def start_proxy(authority: Authority) -> Iterator[StartProxy]:
    """Starts a proxy program; whoever calls it may stop it, else it ends with the session."""
    with contextlib.ExitStack() as stack:

        def start_one(name: str) -> tuple[ProxyProgram, list[Server]]:
            program, servers = start(name, stack.enter_context(open_directory(owner(name))), authority)
            for server in servers:
                stack.callback(server.stop)
            return program, servers

        yield start_one


@pytest.fixture(scope="session")
def proxies(start_proxy: StartProxy) -> Callable[[str], ProxyProgram]:
    """The session's proxies, each started when it is first needed."""
    started: dict[str, ProxyProgram] = {}

    def get(name: str) -> ProxyProgram:
        if name not in started:
            started[name] = start_proxy(name)[0]
        return started[name]

    return get


@pytest.fixture
def proxy(request: pytest.FixtureRequest, proxies: Callable[[str], ProxyProgram]) -> ProxyProgram:
    """Each proxy in turn."""
    return proxies(request.param)


@pytest.fixture
def route(request: pytest.FixtureRequest, proxies: Callable[[str], ProxyProgram]) -> Iterator[Route]:
    """Direct, and through each proxy. Whoever takes a proxy's must also be seen by the proxy."""
    if request.param == "direct":
        yield Route("direct", None)
        return
    program = proxies(request.param)
    before = len(program.requests())
    yield Route(program.name, program)
    program.wait_requests(before + 1)


# TLS


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1", "::1", "localhost", PROXYS_NAME)
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(directory / "certificate.pem"), append=number > 0)
    context = server_context(certificate)
    ca_file, certificate_file, key_file = (str(directory / f"{name}.pem") for name in ("ca", "certificate", "key"))
    return Authority(
        context, ca_file, certificate_file, key_file, issue=lambda name: server_context(ca.issue_cert(name))
    )


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


# Servers


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """``start_server(name, lambda port, directory: command)``: a server that ends with the session."""
    servers: list[Server] = []

    def start(
        name: str,
        command: Callable[[int, Path], list[str | Path]],
        environment: dict[str, str] | None = None,
    ) -> Server:
        directory = tmp_path_factory.mktemp(name)
        server = Server(name, free_port(), directory / "output.log")
        server.start(command(server.port, directory), environment)
        servers.append(server)
        return server

    yield start
    for server in reversed(servers):
        server.stop()


@pytest.fixture(scope="session")
def llama_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, in llama.cpp's format."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    command = [variable("_LLAMA"), str(HERE / "make_model.py"), str(path)]
    made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="session")
def start_llama(start_server: StartServer, llama_model: Path) -> StartLlama:
    """``start_llama(name, *options)``: a llama-cpp-python server with that model, called "tiny"."""

    def start(name: str, *options: str) -> Server:
        def command(port: int, directory: Path) -> list[str | Path]:
            server = [variable("_LLAMA"), "-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", str(port)]
            model = ["--model", str(llama_model), "--model_alias", "tiny", "--n_ctx", "8192", "--n_threads", "1"]
            return [*server, *model, *options]

        return start_server(name, command)

    return start


@pytest.fixture(scope="session")
def patient(start_llama: StartLlama) -> Server:
    """A llama-cpp-python server that lets one reply end before it begins the next."""
    return start_llama("llama", "--interrupt_requests", "false")
