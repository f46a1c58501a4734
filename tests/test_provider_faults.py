"""Faults x providers x {sync, asyncio, trio}, streamed and whole: how many requests arrive where, what is raised, and
what text the caller sees. All of it is said beforehand, in provider_matrix.py."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import itertools
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import trio
from driving import HI, MODEL, SOON, Driver, Heard, causes
from provider_matrix import (
    CASES,
    DEADLINE,
    FAULTS,
    KEY,
    OF_SESSIONS,
    SHAPES,
    TOKENS,
    Case,
    Expected,
    Fault,
    Shape,
    arrivals,
    chat_class,
    expected,
)
from ways import PASSWORD, USER, assert_no_secret

from deltawire import (
    APIError,
    EmptyReplyError,
    ProxyError,
    RetryNoProviderError,
    RetryPolicy,
    RetryProvider,
    RetryProviderError,
    Timeout,
    TimeoutError,
    TransportError,
)
from deltawire.testing import Answer, ChatServer, ProxyServer

pytestmark = pytest.mark.usefixtures("_tidy")

WRONG = "the-wrong-password"
# Longer than any test takes, where nothing stalls.
PATIENT = Timeout(connect=30, first_content=30, idle=30)
QUICK = Timeout(connect=30, first_content=DEADLINE, idle=DEADLINE)


class Mending(RetryPolicy, frozen=True, kw_only=True):
    """Retries without the waits; tells when an attempt has failed."""

    initial: float = 0.001
    mend: Callable[[], object]

    def delay(self, error: Exception, retries: int, *, now: float, jitter: float) -> float | None:
        self.mend()
        return super().delay(error, retries, now=now, jitter=jitter)


# --- One call -------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """Two servers, a proxy if there is one, and what makes the fault go away that does not go by itself."""

    servers: dict[str, ChatServer]
    proxy: ProxyServer | None
    proxy_url: str | None
    mend: Callable[[], object]

    def places(self, shape: Shape) -> dict[str, str]:
        return {name: server.site_url if name in shape.sites else server.url for name, server in self.servers.items()}

    def arrived(self) -> list[str]:
        """The requests to all servers, in order."""
        log = [(each.arrived, name, each.path) for name, server in self.servers.items() for each in server.requests]
        return [f"{name} {'session' if path.endswith('/start_session') else 'chat'}" for _, name, path in sorted(log)]


@contextlib.contextmanager
def scene(fault: Fault, shape: Shape, lasts: bool, *, session: bool = False) -> Iterator[Scene]:
    """Where this fault happens: to all attempts, or to the first one alone."""
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as passing:
        servers = {name: stack.enter_context(ChatServer(tokens=TOKENS[name])) for name in "AB"}
        proxy, proxy_url = None, None
        for name in shape.sites:
            # Each message comes on a connection of its own: one that was kept is nobody's fault when it dies.
            if not session:
                servers[name].plan(Answer(to="/start_session", headers=[("connection", "close")]))
        for name in servers if lasts else "A":
            if fault.at == "port":
                (stack if lasts else passing).enter_context(servers[name].refuse_connections())
            elif fault.at == "answer":
                servers[name].plan(*[_answer(fault, name in shape.sites, session)] * (9 if lasts else 1))
        if fault.at == "proxy":
            proxy = stack.enter_context(ProxyServer(username=USER, password=PASSWORD))
            proxy_url = proxy.url
            if lasts:
                proxy_url = proxy.address.replace("//", f"//{USER}:{WRONG}@")
            else:
                proxy.refuse(407)
                passing.callback(proxy.refuse, None)
        yield Scene(servers, proxy, proxy_url, passing.close)


def _answer(fault: Fault, of_a_site: bool, session: bool) -> Answer:
    answer = fault.site if of_a_site else fault.chat
    assert answer is not None
    return dataclasses.replace(answer, to="/start_session") if of_a_site and session else answer


def heard_of(driver: Driver, provider: Any, case: Case, **options: Any) -> Heard:
    """Make the call."""
    if case.surface == "create":
        parameters = {"provider": provider, "stream": case.stream, **options}
        return driver.call({}, parameters)
    arguments = {"stream": case.stream, **options}
    if driver.name == "sync":
        return _pieces(provider, arguments)
    return (asyncio.run if driver.name == "asyncio" else trio.run)(*_started(driver, provider, arguments))


def _started(driver: Driver, provider: Any, arguments: dict[str, Any]) -> Any:
    return (_apieces(provider, arguments),) if driver.name == "asyncio" else (_apieces, provider, arguments)


def _pieces(provider: Any, arguments: dict[str, Any]) -> Heard:
    heard = Heard()
    try:
        for piece in provider.create_generator(MODEL, HI, **arguments):
            heard.text += str(piece)
    except Exception as error:
        heard.error = error
    return heard


async def _apieces(provider: Any, arguments: dict[str, Any]) -> Heard:
    heard = Heard()
    try:
        async for piece in provider.create_async_generator(MODEL, HI, **arguments):
            heard.text += str(piece)
    except Exception as error:
        heard.error = error
    return heard


# --- What is looked at ----------------------------------------------------------------------------------


def play(driver: Driver, fault: Fault, shape: Shape, case: Case, *, session: bool = False) -> None:
    """One cell of the matrix."""
    ends = expected(fault, shape, case)
    with scene(fault, shape, case.lasts, session=session) as at:
        places = at.places(shape)
        provider = shape.make(places)
        options: dict[str, Any] = {
            "max_retries": Mending(mend=at.mend),
            "timeout": QUICK if fault.stalls else PATIENT,
        }
        if at.proxy_url is not None:
            options["proxy"] = at.proxy_url
        heard = heard_of(driver, provider, case, **options)
        assert at.arrived() == arrivals(fault, shape, ends, session=session)
        check_waits(at, fault)
        if at.proxy is not None:
            assert len(at.proxy.requests) == ends.failed + len(at.arrived())
    assert heard.text == ends.text, heard.error
    if shape.several:
        assert provider.last_provider is provider.providers["AB".index(ends.asked[-1])]
    if ends.raised is None:
        assert heard.error is None
        if case.surface == "create" and case.stream:
            assert heard.reply.retries_taken == ends.failed
        elif case.surface == "create":
            assert heard.reply.provider == shape.names[ends.asked[-1]]
        return
    assert heard.error is not None
    check_error(heard.error, fault, shape, ends, places)


def check_waits(at: Scene, fault: Fault) -> None:
    for server in at.servers.values():
        arrived = [each.arrived for each in server.requests if each.status == 429]
        assert all(later - earlier >= fault.waits for earlier, later in itertools.pairwise(arrived))


def check_error(error: BaseException, fault: Fault, shape: Shape, ends: Expected, places: dict[str, str]) -> None:
    """The error says all that is known, and no secret."""
    assert_no_secret(error, KEY, WRONG)
    assert type(error) is ends.raised, repr(error)
    if isinstance(error, RetryProviderError):
        errors = error.errors
        assert len(errors) == ends.failed
        assert error.__cause__ is errors[-1]
    elif isinstance(error, RetryNoProviderError):
        errors = [each for each in reversed(causes(error)) if isinstance(each, EmptyReplyError)]
    else:
        errors = [error]
    shown = causes(error)
    first = ends.failed - len(errors)
    for number, each in enumerate(errors):
        assert any(each is other for other in shown), "a traceback shows them all"
        check_one(each, fault, shape.names[ends.asked[first + number]], first + number)
        if fault.at != "proxy":
            assert places[ends.asked[first + number]] in str(each)


def check_one(error: BaseException, fault: Fault, provider: str, retries: int) -> None:
    """The error of one attempt."""
    assert type(error) is fault.error, repr(error)
    assert isinstance(error, (APIError, TransportError))
    assert error.retries_taken == retries
    assert provider in str(error)
    partial = error.partial.choices[0].message.content or "" if error.partial is not None else ""
    assert partial == fault.said
    if isinstance(error, TimeoutError):
        assert (error.deadline, error.seconds) == ("idle" if fault.said else "first_content", DEADLINE)
    if isinstance(error, ProxyError):
        assert error.status_code == 407


# --- The matrix -----------------------------------------------------------------------------------------


def play_all(driver: Driver, cells: list[tuple[Fault, Shape, Case]], *, threads: int, session: bool = False) -> None:
    """Play them all, some at a time, since they wait more than they do; name those that went wrong."""
    wrong: list[str] = []

    def one(cell: tuple[Fault, Shape, Case]) -> None:
        try:
            play(driver, *cell, session=session)
        except AssertionError as error:
            wrong.append(f"{cell[1].turns} {cell[2]}: {error}")

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, cells))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fault", [name for name, fault in FAULTS.items() if not fault.stalls])
def test_a_fault(driver: Driver, fault: str, shape: str) -> None:
    play_all(driver, [(FAULTS[fault], SHAPES[shape], case) for case in CASES], threads=4)


@pytest.mark.parametrize("fault", ["stall before content", "stall after content"])
def test_a_stall(driver: Driver, fault: str) -> None:
    """All providers at once."""
    play_all(driver, [(FAULTS[fault], shape, case) for shape in SHAPES.values() for case in CASES], threads=10)


@pytest.mark.parametrize("shape", [name for name, shape in SHAPES.items() if shape.sites])
@pytest.mark.parametrize("fault", OF_SESSIONS)
def test_a_fault_of_the_session(driver: Driver, fault: str, shape: str) -> None:
    """The request for a session that a site wants first."""
    play_all(driver, [(FAULTS[fault], SHAPES[shape], case) for case in CASES], threads=4, session=True)


# --- Faults one after the other -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fault", ["truncation after content", "error after content"])
@pytest.mark.parametrize("surface", ["create", "generator"])
def test_a_fault_after_content_of_the_second_attempt(driver: Driver, surface: Any, fault: str, shape: str) -> None:
    """It ends the call like one of the first, and tells of that."""
    declared = SHAPES[shape]
    second = declared.turns[1]
    with scene(FAULTS["500"], declared, lasts=False) as at:
        at.servers[second].plan(_answer(FAULTS[fault], second in declared.sites, session=False))
        provider = declared.make(at.places(declared))
        options = {"max_retries": SOON, "timeout": PATIENT}
        heard = heard_of(driver, provider, Case(surface, stream=True, lasts=False), **options)
        assert [each for each in at.arrived() if "chat" in each] == ["A chat", f"{second} chat"]
    assert heard.text == FAULTS[fault].said
    assert heard.error is not None
    check_one(heard.error, FAULTS[fault], declared.names[second], 1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("surface", ["create", "generator"])
def test_each_attempt_another_fault(driver: Driver, surface: Any, stream: bool) -> None:
    """The errors stand in the order of the attempts, in the list, in the words and in the traceback."""
    names = ("reset before the head", "503", "truncation before content", "error before content", "empty reply")
    with ChatServer() as server:
        server.plan(*[_answer(FAULTS[name], of_a_site=False, session=False) for name in names])
        single = chat_class("Alpha", server.url)
        provider = RetryProvider([single], single_provider_retry=True, max_retries=len(names))
        error = heard_of(driver, provider, Case(surface, stream, lasts=True), max_retries=SOON).error
        assert len(server.requests) == len(names)
    assert isinstance(error, RetryProviderError)
    assert_no_secret(error, KEY)
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    for number, (each, name) in enumerate(zip(error.errors, names, strict=True)):
        check_one(each, FAULTS[name], "Alpha", number)
        assert f"{number + 1}. {type(each).__name__}: {each}" in str(error)
    places = [shown.index(f"{type(each).__name__}: {each}") for each in error.errors]
    assert places == sorted(places)
