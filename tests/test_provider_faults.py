"""Faults x providers x {sync, asyncio, trio}, streamed and whole: how many requests arrive where, what is raised, and
what text the caller sees. All of it is said beforehand, in provider_matrix.py."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import itertools
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
import trio
from driving import HI, MODEL, SOON, Driver, Heard, causes
from provider_matrix import (
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
    applies,
    arrivals,
    cases_of,
    chat_class,
    expected,
)
from ways import PASSWORD, USER, assert_no_secret

from deltawire import (
    APIError,
    EmptyReplyError,
    ProxyError,
    ReadError,
    RetryNoProviderError,
    RetryPolicy,
    RetryProvider,
    RetryProviderError,
    Timeout,
    TimeoutError,
    TransportError,
    TruncatedStreamError,
)
from deltawire.testing import Answer, ChatServer, ProxyServer, RecordedRequest

pytestmark = pytest.mark.usefixtures("_tidy", "transports")

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


Servers = dict[str, ChatServer]


@contextlib.contextmanager
def both() -> Iterator[Servers]:
    """The servers, for one scene after the other."""
    with ChatServer(tokens=TOKENS["A"]) as first, ChatServer(tokens=TOKENS["B"]) as second:
        yield {"A": first, "B": second}


class Scene(NamedTuple):
    """The servers, a proxy if there is one, and what makes a fault go away that does not go by itself."""

    servers: Servers
    before: int
    """How many requests had come before."""
    proxy: ProxyServer | None
    proxy_url: str | None
    mend: Callable[[], object]

    def places(self, shape: Shape) -> dict[str, str]:
        return {name: server.site_url if name in shape.sites else server.url for name, server in self.servers.items()}

    def arrived(self) -> list[str]:
        """The requests to both servers, in order."""
        return [f"{name} {_KINDS[each.path.rpartition('/')[2]]}" for name, each in self.log()]

    def log(self) -> list[tuple[str, RecordedRequest]]:
        """The requests themselves, each with the name of its server."""
        found = [(name, each) for name, server in self.servers.items() for each in server.requests]
        return sorted(found, key=lambda each: each[1].arrived)[self.before :]


_KINDS = {"completions": "chat", "submit": "chat", "start_session": "session"}


@contextlib.contextmanager
def scene(servers: Servers, fault: Fault, shape: Shape, ends: Expected, *, session: bool = False) -> Iterator[Scene]:
    """Where this fault happens: to those attempts that have to fail, and to no further one."""
    failing = ends.asked[: ends.failed]
    passes = ends.failed < len(ends.asked)
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as fault_stands:
        before = sum(len(server.requests) for server in servers.values())
        proxy, proxy_url = None, None
        if fault.at == "port":
            for name in set(failing):
                fault_stands.enter_context(servers[name].refuse_connections())
        elif fault.at == "answer":
            for name in shape.sites if not session else "":
                # Each message comes on a connection of its own: one that was kept is nobody's fault when it dies.
                servers[name].plan(Answer(to="/start_session", headers=[("connection", "close")]))
            for name in failing:
                servers[name].plan(answer_of(fault, name in shape.sites, session=session))
        else:
            proxy = stack.enter_context(ProxyServer(username=USER, password=PASSWORD))
            proxy_url = proxy.url
            if fault.at == "port of the proxy":
                fault_stands.enter_context(proxy.refuse_connections())
            elif passes:
                proxy.refuse(407)
                fault_stands.callback(proxy.refuse, None)
            else:
                proxy_url = proxy.address.replace("//", f"//{USER}:{WRONG}@")
        yield Scene(servers, before, proxy, proxy_url, fault_stands.close if passes else bool)


def answer_of(fault: Fault, of_a_site: bool = False, *, session: bool = False) -> Answer:
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
    if driver.name == "asyncio":
        return asyncio.run(_apieces(provider, arguments))
    return trio.run(_apieces, provider, arguments)


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


def play(driver: Driver, servers: Servers, fault: Fault, shape: Shape, case: Case, *, session: bool = False) -> None:
    """One cell of the matrix."""
    ends = expected(fault, shape, case)
    with scene(servers, fault, shape, ends, session=session) as at:
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
        for name in servers:
            requests = [each for server, each in at.log() if server == name]
            for earlier, later in itertools.pairwise(requests):
                assert later.arrived - earlier.arrived >= fault.waits or earlier.status != 429
        if at.proxy is not None:
            refused = ends.failed if fault.at == "proxy" else 0
            assert len(at.proxy.requests) == refused + len(at.arrived())
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
        assert (error.deadline, error.seconds) == ("idle" if fault.content else "first_content", DEADLINE)
    if isinstance(error, ProxyError):
        assert error.status_code == (407 if fault.at == "proxy" else None)


# --- The matrix -----------------------------------------------------------------------------------------


SITES = [name for name, shape in SHAPES.items() if shape.sites]


def play_all(driver: Driver, cells: list[tuple[Fault, Shape, Case]], *, session: bool = False) -> None:
    """Play them all, and name those that went wrong."""
    wrong: list[str] = []
    with both() as servers:
        for fault, shape, case in cells:
            try:
                play(driver, servers, fault, shape, case, session=session)
            except AssertionError as error:
                wrong.append(f"{shape.turns} {case}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("fault", "shape"),
    [
        (name, shape)
        for name, fault in FAULTS.items()
        for shape in SHAPES
        if applies(fault, SHAPES[shape]) and not fault.stalls
    ],
)
def test_a_fault(driver: Driver, fault: str, shape: str) -> None:
    play_all(driver, [(FAULTS[fault], SHAPES[shape], case) for case in cases_of(shape)])


@pytest.mark.parametrize("shape", SITES)
@pytest.mark.parametrize("fault", [name for name in OF_SESSIONS if not FAULTS[name].stalls])
def test_a_fault_of_the_session(driver: Driver, fault: str, shape: str) -> None:
    """The request for a session that a site wants first."""
    play_all(driver, [(FAULTS[fault], SHAPES[shape], case) for case in cases_of(shape)], session=True)


@pytest.mark.parametrize(
    ("fault", "shapes", "session"),
    [
        ("stall before content", SHAPES, False),
        ("stall after content", SHAPES, False),
        ("stall before the head", SITES, True),
    ],
)
def test_a_stall(driver: Driver, fault: str, shapes: Iterable[str], session: bool) -> None:
    """All cases at once, and all providers: most of the time they wait."""
    cells = [(FAULTS[fault], SHAPES[shape], case) for shape in shapes for case in cases_of(shape)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        for done in [pool.submit(play_all, driver, [cell], session=session) for cell in cells]:
            done.result()


# --- Faults one after the other -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fault", ["truncation after content", "error after content"])
@pytest.mark.parametrize("surface", ["create", "generator"])
def test_a_fault_after_content_of_the_second_attempt(driver: Driver, surface: Any, fault: str, shape: str) -> None:
    """It ends the call like one of the first, and tells of that."""
    declared = SHAPES[shape]
    second = declared.turns[1]
    ends = Expected("A" + second, 1, None, "")
    with both() as servers, scene(servers, FAULTS["500"], declared, ends) as at:
        at.servers[second].plan(answer_of(FAULTS[fault], second in declared.sites))
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
        server.plan(*[answer_of(FAULTS[name]) for name in names])
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


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("surface", ["create", "generator"])
@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("shape", ["class", "Opchatgpts"])
def test_a_reply_that_ends_anywhere(driver: Driver, shape: str, ending: Any, surface: Any, stream: bool) -> None:
    """Wherever that is: the text is whole, or the error says what there is of it and nothing is asked again."""
    declared, whole = SHAPES[shape], "".join(TOKENS["A"])
    outcomes: set[str] = set()
    with both() as servers:
        server = servers["A"]
        provider = declared.make({"A": server.site_url if declared.sites else server.url, "B": "http://nowhere"})
        arguments = {"max_retries": SOON, "timeout": PATIENT}
        heard_of(driver, provider, Case(surface, stream, lasts=False), **arguments)
        # Short steps, no divisor of anything: through the head, the events and the end.
        for cut in range(1, 2000, 61):
            before = len(server.requests)
            server.plan(Answer(cut_after=cut, ending=ending))
            heard = heard_of(driver, provider, Case(surface, stream, lasts=False), **arguments)
            asked = len(server.requests) - before
            if heard.error is None:
                assert (heard.text, asked <= 2) == (whole, True), cut
                outcomes.add(f"whole, asked {asked}")
                continue
            assert isinstance(heard.error, (TruncatedStreamError, ReadError)), cut
            assert heard.error.partial is not None
            assert heard.text == heard.error.partial.choices[0].message.content, cut
            assert whole.startswith(heard.text)
            assert (heard.text != "", asked) == (True, 1), cut
            outcomes.add("broken off")
    assert outcomes == {"whole, asked 1", "whole, asked 2"} | ({"broken off"} if stream else set())
