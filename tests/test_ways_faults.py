"""All that may go wrong before there is a way to the server: refusals, and faults at every byte of every handshake.

Through `Client` and `AsyncClient`, sync, on asyncio and on trio. What must be said follows from the byte alone at which
a connection fails: up to the last byte of a handshake it is that handshake that has failed, and whose it is, is known;
behind it the faults are those of an exchange (see faults.py).
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import functools
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import anyio
import pytest
import trio
from driving import HI, MODEL, SOON, SOON_ONCE, Driver, Route, free_port, usual
from small_tls import small_tls
from ways import BY_NAME, PASSWORD, USER, Way, assert_no_secret, laid

from deltawire import (
    AsyncClient,
    Client,
    ConnectError,
    DeltawireError,
    ProxyError,
    ReadError,
    Timeout,
    TimeoutError,
    TransportError,
    TruncatedStreamError,
)
from deltawire.testing import ChatServer, Fault

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

KEY = "sk-secret-key"
ENDINGS = ("close", "reset", "stall", "garbage")


# --- Handshakes whose every byte is known ---------------------------------------------------------------


class Contexts(NamedTuple):
    """A server's side of TLS, a client's, and the records of the server's part of the handshake."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    records: tuple[int, ...]
    tickets: int
    """How many bytes the server says of its own accord when the handshake is over."""

    @property
    def length(self) -> int:
        return sum(self.records)


def _record_lengths(data: bytes) -> Iterator[int]:
    while data:
        length = 5 + int.from_bytes(data[3:5], "big")
        yield length
        data = data[length:]


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[tuple[int, ...], int]:
    """The lengths of the server's records in the handshake, and how long what it says after it is."""
    down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname="127.0.0.1")
    to_server, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, from_server, server_side=True)
    with contextlib.suppress(ssl.SSLWantReadError):
        ours.do_handshake()
    to_server.write(up.read())
    with contextlib.suppress(ssl.SSLWantReadError):
        theirs.do_handshake()
    flight = from_server.read()
    down.write(flight)
    ours.do_handshake()
    to_server.write(up.read())
    theirs.do_handshake()
    return tuple(_record_lengths(flight)), len(from_server.read())


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    """TLS whose handshakes are all of one length."""
    server, client = small_tls()
    seen = {_handshake(server, client) for _ in range(20)}
    assert len(seen) == 1, "the handshakes differ in length"
    return Contexts(server, client, *seen.pop())


class Phase(NamedTuple):
    """A part of a way: the bytes towards the client, from the first to before the last, and what is said of it."""

    name: str
    first: int
    last: int
    waiting: str
    """What a `TimeoutError` says that was waited for."""
    edges: tuple[int, ...] = ()
    """Where its records end."""

    @property
    def tls(self) -> bool:
        return bool(self.edges)

    def positions(self, all_of_them: bool) -> list[int]:
        """Where to fail: at each byte, or at the first hundred, round the records' ends, and here and there."""
        each = range(self.first, self.last)
        if all_of_them or not self.tls:
            return list(each)
        chosen = {*each[:100], *each[::23], each[-1]}
        for edge in self.edges:
            chosen |= {edge + near for near in range(-2, 3)} & set(each)
        return sorted(chosen)


CONNECT_ANSWER = len(b"HTTP/1.1 200 Connection established\r\n\r\n")
# The method chosen; the password taken; the reply, with an IPv4 address.
SOCKS_ANSWERS = 2 + 2 + 10
# A record's head, its true type, and the tag of AES-GCM or ChaCha20.
RECORD_EXTRA = 5 + 1 + 16

OPENS_NO_TUNNEL = "no answer in time"
WITH_SERVER, WITH_PROXY = "the TLS handshake with 127.0.0.1 does not end", "the TLS handshake with the proxy"


def phases_of(way: Way, contexts: Contexts) -> list[Phase]:
    """The parts of a way, one after the other."""
    lengths: list[tuple[str, str, tuple[int, ...], bool]] = []
    if way.through == "https":
        lengths.append(("TLS with the proxy", WITH_PROXY, contexts.records, True))
    if way.through.startswith("socks"):
        lengths.append(("SOCKS", OPENS_NO_TUNNEL, (SOCKS_ANSWERS,), False))
    elif way == BY_NAME["https by http"]:
        lengths.append(("CONNECT", OPENS_NO_TUNNEL, (CONNECT_ANSWER,), False))
    elif way == BY_NAME["https by https"]:
        answer = (contexts.tickets, CONNECT_ANSWER + RECORD_EXTRA)
        lengths.append(("CONNECT in TLS", OPENS_NO_TUNNEL, answer, True))
    if way.target == "https":
        # In a tunnel through TLS the server's records make one of the proxy's.
        records = (contexts.length + RECORD_EXTRA,) if way.through == "https" else contexts.records
        lengths.append(("TLS with the server", WITH_SERVER, records, True))
    found, at = [], 0
    for name, waiting, records, tls in lengths:
        edges = tuple(at + sum(records[: number + 1]) for number in range(len(records)))
        found.append(Phase(name, at, edges[-1], waiting, edges if tls else ()))
        at = edges[-1]
    return found


PHASES = [
    (way, number)
    for way, count in (
        ("https", 1),
        ("http by https", 1),
        ("https by https", 3),
        ("https by http", 2),
        ("http by socks5h", 1),
        ("https by socks5", 2),
    )
    for number in range(count)
]


# --- Cells ----------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """One call, and how it ended."""

    position: int
    text: str
    error: BaseException | None
    seconds: float


Cells = Callable[[Route, Timeout, "list[int]", int], "list[Cell]"]


def _options(route: Route, timeout: Timeout, transport: Any) -> dict[str, Any]:
    # The transport has been told whom to trust.
    return route.options(timeout=timeout, max_retries=0, api_key=KEY, transport=transport, verify=True)


def _sync_call(client: Client) -> tuple[str, BaseException | None]:
    text = ""
    try:
        for chunk in client.chat.completions.create(HI, MODEL, stream=True):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    except Exception as error:
        return text, error
    return text, None


def _sync_cells(route: Route, timeout: Timeout, positions: list[int], at_once: int) -> list[Cell]:
    transport = usual().blocking(verify=route.trusting, max_keepalive_connections=0)
    with Client(**_options(route, timeout, transport)) as client:

        def cell(position: int) -> Cell:
            begin = time.monotonic()
            text, error = _sync_call(client)
            return Cell(position, text, error, time.monotonic() - begin)

        if at_once == 1:
            found = [cell(position) for position in positions]
        else:
            with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
                found = list(pool.map(cell, positions))
        assert transport.connections() == (0, 0)
    return found


async def _async_cells(route: Route, timeout: Timeout, positions: list[int], at_once: int) -> list[Cell]:
    found: list[Cell] = []
    left = deque(positions)
    transport = usual().asynchronous(verify=route.trusting, max_keepalive_connections=0)
    async with AsyncClient(**_options(route, timeout, transport)) as client:

        async def worker() -> None:
            while left:
                position, begin, text = left.popleft(), time.monotonic(), ""
                error: BaseException | None = None
                try:
                    async for chunk in client.chat.completions.create(HI, MODEL, stream=True):
                        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                except Exception as caught:
                    error = caught
                found.append(Cell(position, text, error, time.monotonic() - begin))

        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(worker)
        assert transport.connections() == (0, 0)
    return found


CELLS: dict[str, Cells] = {
    "sync": _sync_cells,
    "asyncio": lambda *given: asyncio.run(_async_cells(*given)),
    "trio": lambda *given: trio.run(_async_cells, *given),
}

# How long a cell may take that is to fail by itself, and one that is to run into the deadline.
PATIENT, QUICK = 10.0, 0.1
AT_ONCE = 32

# No record of TLS, and more than any record is long: whatever is being read, it shows at once.
LONG_GARBAGE = b"\xff" * 2048


@contextlib.contextmanager
def faulty(way: Way, contexts: Contexts) -> Iterator[Route]:
    server = ChatServer(tokens=["Hel", "lo"], ssl_context=contexts.server if way.target == "https" else None)
    with laid(way, contexts.server, contexts.client, server=server) as route:
        yield route


def run_cells(
    name: str, route: Route, positions: Iterable[int], ending: Any, timeout: Timeout, *, at_once: int = 1, **more: Any
) -> list[Cell]:
    """A call for each position, on a connection that fails there. With several at once, which call meets which fault
    is left open."""
    positions = list(positions)
    faults = [Fault(position, ending, raw=True, **more) for position in positions]
    front = route.server if route.between is None else route.between
    before = front.connections
    front.plan_faults(*faults)
    found = CELLS[name](route, timeout, positions, at_once)
    # Each had its own, none was tried again, and all of them are over at both ends. (On a busy machine a deadline may
    # pass before there is a connection at all.)
    assert len(found) == len(positions)
    missed = sum("takes no connection" in str(cell.error) for cell in found)
    assert missed == 0 or at_once > 1
    front.wait_connections(before + len(positions) - missed)
    front.wait_closed(1)
    assert before + len(positions) - missed <= front.connections <= before + len(positions)
    route.server.wait_closed(1)
    front.clear_faults()
    return found


def assert_failed(way: Way, phase: Phase, cell: Cell, ending: str, deadline: float) -> None:
    """That the cell failed as a fault in this phase must."""
    error, where = cell.error, f"{way.name}, {phase.name}, {ending} at {cell.position}: {cell.error!r}"
    assert cell.text == "", where
    assert isinstance(error, TransportError), where
    assert error.partial is None, where
    assert_no_secret(error, KEY, traced=not phase.tls or cell.position % 16 == 0)
    assert cell.seconds < deadline + 1, where
    if isinstance(error, TimeoutError):
        assert ending in ("stall", "garbage"), where
        assert (error.deadline, error.seconds) == ("connect", deadline), where
        assert way.through == "" or f"{way.through}://127.0.0.1" in str(error), where
        return
    assert ending != "stall", where
    assert type(error) is (ProxyError if way.through else ConnectError), where
    if isinstance(error, ProxyError):
        assert error.proxy is not None, where
        assert error.proxy.startswith(f"{way.through}://127.0.0.1:"), where
        assert error.proxy in str(error), where


def run_stalls(name: str, route: Route, phase: Phase, positions: list[int]) -> Iterator[tuple[Cell, float]]:
    """The cells, many at once, and their deadlines. On a busy machine some may run into theirs before they come to the
    fault: then they are run again, with more time and fewer at once."""
    for start in range(0, len(positions), AT_ONCE):
        some, at_once, seconds = positions[start : start + AT_ONCE], AT_ONCE, QUICK
        while True:
            limits = Timeout(connect=seconds, first_content=seconds)
            cells = run_cells(name, route, some, "stall", limits, at_once=at_once)
            if at_once == 1 or all(phase.waiting in str(cell.error) for cell in cells):
                break
            at_once, seconds = at_once // 4 or 1, seconds * 2
        for cell in cells:
            assert phase.waiting in str(cell.error), (phase.name, cell)
            yield cell, seconds


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("name", "number"), PHASES, ids=str)
def test_each_byte_of_each_handshake(driver: Driver, name: str, number: int, ending: str, contexts: Contexts) -> None:
    way = BY_NAME[name]
    phase = phases_of(way, contexts)[number]
    # But where it is the same bytes of the same code as in "http by https"; and in TLS in TLS, which takes longest:
    # the end comes at every byte there, too, and no other ending leaves more behind.
    spared = name == "https by https" and (number == 0 or ending != "close")
    positions = phase.positions(driver.name == "sync" and not spared)
    with faulty(way, contexts) as route:
        run = functools.partial(run_cells, driver.name, route, positions, ending)
        if ending == "stall":
            found = list(run_stalls(driver.name, route, phase, positions))
        elif ending == "garbage" and not phase.tls:
            # It may be taken for the beginning of something.
            limits = Timeout(connect=QUICK, first_content=QUICK)
            found = [(cell, QUICK) for cell in run(limits, at_once=AT_ONCE)]
        else:
            more: dict[str, Any] = {"garbage": LONG_GARBAGE} if ending == "garbage" else {}
            found = [(cell, PATIENT) for cell in run(Timeout(connect=PATIENT), **more)]
        for cell, limit in found:
            if name == "http by socks5h" and ending == "garbage" and isinstance(cell.error, ReadError):
                # The address in the proxy's reply may be any, and what comes behind it is taken for the server's.
                assert_no_secret(cell.error, KEY)
            else:
                assert_failed(way, phase, cell, ending, limit)
        kinds = Counter(type(cell.error).__name__ for cell, _ in found)
        print(f"{driver.name}: {name}, {phase.name}, {ending}: {len(found)} cells, {dict(kinds)}")
        assert len(found) == len(positions) >= min(100, phase.last - phase.first)
        assert kinds["ReadError"] <= 6, "as many bytes as there are of such an address"
        if ending == "stall":
            assert set(kinds) == {"TimeoutError"}
        # And then all is well again.
        (good,) = run_cells(driver.name, route, [10**9], "close", Timeout(connect=PATIENT))
        assert (good.text, good.error) == ("Hello", None)


def test_the_chain_of_causes_ends(driver: Driver, contexts: Contexts) -> None:
    """Whoever follows it, as error reporters do, comes to an end."""
    with faulty(BY_NAME["https"], contexts) as route:
        (cell,) = run_cells(driver.name, route, [10], "reset", Timeout(connect=PATIENT))
    seen = cell.error
    for _ in range(20):
        if seen is None:
            return
        seen = seen.__cause__ or seen.__context__
    pytest.fail(f"{cell.error!r} has causes without end")


# --- Behind the handshake -------------------------------------------------------------------------------

BEHIND = (0, 1, 10, 100, 250, 400, 550, 700, 850, 1000, 1200, 1500, 2000, 5000, 10**6, 10**7, 10**8, 10**9)


@pytest.mark.parametrize("ending", ["close", "reset", "stall"])
@pytest.mark.parametrize("name", sorted({name for name, _ in PHASES}))
def test_behind_the_handshakes(driver: Driver, name: str, ending: str, contexts: Contexts) -> None:
    """From there on a fault is one of the exchange (see faults.py); behind its end it is none."""
    way = BY_NAME[name]
    end = phases_of(way, contexts)[-1].last
    with faulty(way, contexts) as route:
        limits = Timeout(connect=PATIENT, first_content=0.2, idle=0.2)
        at_once = len(BEHIND) if ending == "stall" else 1
        cells = run_cells(driver.name, route, [end + more for more in BEHIND], ending, limits, at_once=at_once)
        kinds = Counter(type(cell.error).__name__ for cell in cells)
        print(f"{driver.name}: {name}, behind the handshakes, {ending}: {len(cells)} cells, {dict(kinds)}")
        for cell in cells:
            if cell.error is None:
                assert cell.text == "Hello", cell
                continue
            assert "Hello".startswith(cell.text), cell
            errors: set[type[DeltawireError]] = (
                {TimeoutError} if ending == "stall" else {ReadError, TruncatedStreamError}
            )
            if ending == "reset" and cell.position == end:
                # What was not read yet when RST came is lost: here that may be the last of the handshake.
                errors.add(ProxyError if way.through else ConnectError)
            assert type(cell.error) in errors, (way.name, ending, cell)
            assert_no_secret(cell.error, KEY)
            if isinstance(cell.error, TimeoutError):
                assert cell.error.deadline in ("first_content", "idle"), cell
        good = kinds["NoneType"]
        # The last four are far behind the end of any reply, the first four before its head.
        assert 4 <= good <= len(cells) - 4


# --- Refusals -------------------------------------------------------------------------------------------

TUNNELS = [
    "https by http",
    "https by https",
    "http by socks5",
    "https by socks5",
    "http by socks5h",
    "https by socks5h",
]


@pytest.mark.parametrize("given", ["wrong password", "wrong user", "none"])
@pytest.mark.parametrize("name", ["http by http", "http by https", *TUNNELS])
def test_other_credentials(driver: Driver, name: str, given: str, contexts: Contexts) -> None:
    way = BY_NAME[name]
    userinfo = {"wrong password": f"{USER}:else-secret@", "wrong user": f"else-secret:{PASSWORD}@", "none": ""}[given]
    with faulty(way, contexts) as route:
        assert route.between is not None
        address = route.between.address.replace("socks5:", f"{way.through}:")
        proxies = address.replace("//", f"//{userinfo.replace(PASSWORD, quote(PASSWORD, safe=''))}")
        error = driver.stream(route.options(proxies=proxies, max_retries=SOON, api_key=KEY)).error
        assert isinstance(error, ProxyError), repr(error)
        assert (error.transient, error.retries_taken, error.proxy) == (False, 0, address)
        assert error.status_code == (None if route.socks is not None else 407)
        assert address in str(error)
        assert "user:password" in str(error) or "user and password" in str(error), "what to do about it"
        assert_no_secret(error, KEY, "else-secret")
        assert route.between.connections == 1, "asking again does not help"
        assert [each.authorized for each in route.between.requests] == [False]
        route.between.wait_closed(1)
        assert route.server.connections == 0


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 7, 8, 9, 91, 255])
@pytest.mark.parametrize("name", ["http by socks5h", "https by socks5"])
def test_socks_reply_codes(driver: Driver, name: str, code: int, contexts: Contexts) -> None:
    way = BY_NAME[name]
    with faulty(way, contexts) as route:
        assert route.socks is not None
        route.socks.refuse(code)
        error = driver.stream(route.options(max_retries=SOON_ONCE, api_key=KEY)).error
        assert isinstance(error, ProxyError), repr(error)
        assert error.reply_code == code
        assert f"SOCKS reply {code}" in str(error)
        assert error.proxy == f"{way.through}://127.0.0.1:{route.socks.port}"
        # A policy, a missing command, another type of address stay; the rest may pass.
        assert error.transient == (code not in (2, 7, 8))
        assert len(route.socks.requests) == (2 if error.transient else 1)
        assert_no_secret(error, KEY)
        route.socks.wait_closed(1)
        assert route.server.connections == 0
        route.socks.refuse(None)
        assert driver.stream(route.options()).text == "Hello"


@pytest.mark.parametrize("status", [403, 407, 502])
@pytest.mark.parametrize("name", ["https by http", "https by https"])
def test_http_refusals(driver: Driver, name: str, status: int, contexts: Contexts) -> None:
    way = BY_NAME[name]
    # It says the password back, as it is and as it was sent.
    basic = base64.b64encode(f"{USER}:echoed-secret".encode()).decode()
    with laid(way, contexts.server, contexts.client, password="echoed-secret") as route:
        assert route.proxy is not None
        route.proxy.refuse(status, f"Not for {USER} with echoed-secret, {basic}")
        error = driver.stream(route.options(max_retries=SOON_ONCE, api_key=KEY)).error
        assert isinstance(error, ProxyError), repr(error)
        assert (error.status_code, error.proxy) == (status, route.proxy.address)
        assert error.transient == (status == 502)
        assert len(route.proxy.requests) == (2 if error.transient else 1)
        assert_no_secret(error, KEY, "echoed-secret")
        assert "Not for me with" in str(error)
        route.proxy.wait_closed(1)
        assert route.server.connections == 0
        route.proxy.refuse(None)
        assert driver.stream(route.options()).text == "Hello"


@pytest.mark.parametrize("name", TUNNELS)
def test_a_server_that_is_not_there(driver: Driver, name: str, contexts: Contexts) -> None:
    """Behind the proxy nobody listens: it says so, in its own way."""
    way = BY_NAME[name]
    with faulty(way, contexts) as route:
        assert route.between is not None
        url = f"{way.target}://127.0.0.1:{free_port()}/v1"
        error = driver.stream(route.options(base_url=url, max_retries=SOON_ONCE, api_key=KEY)).error
        assert isinstance(error, ProxyError)
        assert (error.reply_code, error.status_code) == ((5, None) if route.socks is not None else (None, 502))
        assert error.transient
        assert len(route.between.requests) == 2
        assert_no_secret(error, KEY)


WRONG_PROXIES = [("socks5", "http"), ("socks5h", "https"), ("http", "socks5"), ("https", "socks5"), ("https", "http")]


@pytest.mark.parametrize(("said", "true"), WRONG_PROXIES)
def test_a_proxy_of_another_kind(driver: Driver, said: str, true: str, contexts: Contexts) -> None:
    with faulty(Way("https", true), contexts) as route:
        assert route.proxies is not None
        proxies = route.proxies.replace(f"{true}:", f"{said}:", 1)
        limits = Timeout(connect=0.3)
        error = driver.stream(route.options(proxies=proxies, max_retries=0, timeout=limits, api_key=KEY)).error
        assert isinstance(error, (ProxyError, TimeoutError)), repr(error)
        assert f"{said}://127.0.0.1" in str(error)
        assert_no_secret(error, KEY)
        assert route.between is not None
        route.between.wait_closed(1.5)
        assert route.server.connections == 0


def test_an_http_proxy_that_is_asked_for_tls_the_other_way_round(driver: Driver, contexts: Contexts) -> None:
    """An https:// proxy that is taken for an http:// one: it gets no HTTP, and no password."""
    with faulty(BY_NAME["https by https"], contexts) as route:
        assert route.proxies is not None
        proxies = route.proxies.replace("https:", "http:", 1)
        error = driver.stream(route.options(proxies=proxies, max_retries=0, api_key=KEY)).error
        assert isinstance(error, ProxyError), repr(error)
        assert_no_secret(error, KEY)


def test_a_proxy_whose_certificate_is_not_trusted(driver: Driver, contexts: Contexts, trusting: ssl.SSLContext) -> None:
    with faulty(BY_NAME["https by https"], contexts) as route:
        assert route.proxy is not None
        error = driver.stream(route.options(verify=trusting, max_retries=SOON, api_key=KEY)).error
        assert isinstance(error, ProxyError)
        assert (error.transient, error.retries_taken, error.proxy) == (False, 0, route.proxy.address)
        assert f"certificate of the proxy {route.proxy.address} is not trusted" in str(error)
        assert route.proxy.connections == 1
        assert route.proxy.requests == [], "nothing is said to a stranger"
        assert_no_secret(error, KEY)


@pytest.mark.parametrize("name", ["https by https", "https by socks5"])
def test_a_server_behind_a_proxy_whose_certificate_is_not_trusted(
    driver: Driver, name: str, contexts: Contexts, server_context: ssl.SSLContext
) -> None:
    way = BY_NAME[name]
    with (
        ChatServer(ssl_context=server_context) as server,
        laid(way, contexts.server, contexts.client, server=server) as route,
    ):
        error = driver.stream(route.options(max_retries=SOON, api_key=KEY)).error
        assert type(error) is ConnectError, repr(error)
        assert (error.transient, error.retries_taken) == (False, 0)
        assert "certificate of 127.0.0.1 is not trusted" in str(error)
        assert_no_secret(error, KEY)
        assert server.requests == []
