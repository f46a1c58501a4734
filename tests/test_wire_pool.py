"""pool.py of the wire transport: its promises, after any sequence of steps."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
from feeding import QUICK
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deltawire.protocol import Proxy
from deltawire.transports.wire.pool import Line, Pool, Ticket, Todo, key_of


class Stream:
    """Can be closed."""

    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


class Event:
    """Can be set."""

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True


class Waiter(NamedTuple):
    """Somebody who has asked."""

    ticket: Ticket
    event: Event

    @property
    def served(self) -> bool:
        return self.ticket.served


class Owner:
    """A pool, and whoever asks it: does at once what it wants done."""

    def __init__(
        self, max_connections: int | None = None, max_idle: int | None = None, expiry: float | None = None
    ) -> None:
        self.pool = Pool(max_connections, max_idle, expiry)
        self.now = 0.0

    def ask(self, key: str = "a") -> Waiter:
        waiter = Waiter(Ticket(key), Event())
        waiter.ticket.event = waiter.event
        self.do(self.pool.ask, waiter.ticket, self.now)
        assert not waiter.event.is_set, "who is served at once is not woken"
        return waiter

    def do(self, step: Any, *given: Any) -> Todo:
        todo = Todo()
        step(*given, todo)
        todo.do()
        return todo

    def line(self, key: str = "a") -> Line:
        """A new one, which somebody has."""
        waiter = self.ask(key)
        assert waiter.served
        assert waiter.ticket.line is None
        line = Line(key, Stream())
        self.pool.opened(line)
        return line

    def back(self, *lines: Line) -> None:
        for line in lines:
            self.do(self.pool.give_back, line, self.now)

    def drop(self, line: Line) -> None:
        self.do(self.pool.drop, line)

    def withdraw(self, waiter: Waiter) -> None:
        self.do(self.pool.withdraw, waiter.ticket, self.now)

    @property
    def counts(self) -> tuple[int, int]:
        return self.pool.busy, self.pool.idle


def closed(line: Line) -> bool:
    aborted: int = line.stream.aborted
    assert aborted <= 1
    return aborted == 1


# --- By hand ----------------------------------------------------------------------------------------


def test_without_bounds() -> None:
    owner = Owner()
    lines = [owner.line() for _ in range(50)]
    assert owner.counts == (50, 0)
    assert owner.pool.bound == math.inf
    owner.back(*lines)
    assert owner.counts == (0, 50)
    owner.now = 1e9
    assert owner.ask().ticket.line is lines[-1]
    assert owner.counts == (1, 49)
    assert not any(map(closed, lines))


def test_the_one_that_was_given_back_last_is_taken_first() -> None:
    owner = Owner()
    first, other, second, third = (owner.line(key) for key in "abaa")
    owner.back(second, first, other, third)
    assert [owner.ask().ticket.line for _ in range(4)] == [third, first, second, None]
    assert owner.ask("b").ticket.line is other
    assert owner.ask("b").ticket.line is None


def test_a_line_leads_where_it_leads() -> None:
    owner = Owner()
    owner.back(owner.line("a"))
    assert owner.ask("b").ticket.line is None
    assert owner.counts == (1, 1)


def test_who_waits_is_served_in_the_order_of_coming() -> None:
    owner = Owner(2)
    assert owner.pool.bound == 2
    first, second = owner.line(), owner.line()
    waiters = [owner.ask() for _ in range(4)]
    assert not any(waiter.served for waiter in waiters)
    owner.back(first)
    assert [waiter.served for waiter in waiters] == [True, False, False, False]
    assert waiters[0].ticket.line is first
    assert waiters[0].event.is_set
    owner.drop(second)
    assert waiters[1].served
    assert waiters[1].ticket.line is None, "he may open one"
    # It is dropped by whoever closes it.
    assert not closed(second)
    owner.do(owner.pool.not_opened)
    assert [waiter.served for waiter in waiters] == [True, True, True, False]
    assert owner.counts == (2, 0)
    late = owner.ask()
    owner.back(first)
    assert waiters[3].served
    assert not late.served


def test_a_line_that_leads_elsewhere_is_closed_for_him_whose_turn_it_is() -> None:
    owner = Owner(1)
    line = owner.line("a")
    other, same = owner.ask("b"), owner.ask("a")
    owner.back(line)
    assert (other.served, other.ticket.line, same.served) == (True, None, False)
    assert closed(line)
    assert owner.counts == (1, 0)
    assert list(owner.pool.lines()) == []


def test_an_idle_line_gives_way_to_one_that_is_needed() -> None:
    owner = Owner(3)
    lines = [owner.line() for _ in range(3)]
    owner.back(lines[1], lines[0])
    assert owner.ask("b").served
    assert list(map(closed, lines)) == [False, True, False], "the one that has been idle for longest"
    assert owner.counts == (2, 1)
    # No more of them than need be; and none where there is room.
    assert owner.ask("c").served
    assert list(map(closed, lines)) == [True, True, False]
    roomy = Owner(3)
    line = roomy.line()
    roomy.back(line)
    assert roomy.ask("b").served
    assert roomy.ask("c").served
    assert not closed(line)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_so_many_are_kept(most: int) -> None:
    owner = Owner(None, most)
    lines = [owner.line() for _ in range(3)]
    owner.back(*lines)
    assert owner.counts == (0, most)
    assert list(map(closed, lines)) == [True] * (3 - most) + [False] * most


def test_they_grow_old() -> None:
    owner = Owner(None, None, 10.0)
    lines = [owner.line() for _ in range(3)]
    for line in lines:
        owner.back(line)
        owner.now += 4
    # Idle since 0, 4 and 8.
    owner.now = 9.999
    assert owner.ask("b").served
    assert not any(map(closed, lines))
    owner.now = 10
    assert owner.ask("b").served
    assert list(map(closed, lines)) == [True, False, False]
    owner.now = 17
    assert owner.ask().ticket.line is lines[2]
    assert list(map(closed, lines)) == [True, True, False]
    # What was of use is young again.
    owner.now = 40
    owner.back(lines[2])
    owner.now = 49
    assert owner.ask().ticket.line is lines[2]


def test_an_old_one_makes_room() -> None:
    owner = Owner(1, None, 10.0)
    line = owner.line()
    owner.back(line)
    owner.now = 11
    assert owner.line() is not line
    assert closed(line)


def test_in_place_of_one_that_was_dead() -> None:
    owner = Owner(1)
    line = owner.line()
    owner.back(line)
    assert owner.ask().ticket.line is line
    waiting = owner.ask()
    owner.pool.replaced(line)
    assert owner.counts == (1, 0)
    assert not waiting.served, "his place is taken by the other line"
    owner.drop(line)
    assert owner.counts == (1, 0), "it is known no longer"
    new = Line("a", Stream())
    owner.pool.opened(new)
    assert list(owner.pool.lines()) == [new]
    owner.back(new)
    assert waiting.ticket.line is new


def test_idle_lines_that_are_as_dead() -> None:
    owner = Owner()
    same, other, held = owner.line("a"), owner.line("b"), owner.line("a")
    owner.back(same, other)
    assert [owner.pool.is_idle(line) for line in (same, other, held)] == [True, True, False]
    owner.do(owner.pool.forget_idle, "a")
    assert [closed(line) for line in (same, other, held)] == [True, False, False]
    assert owner.counts == (1, 1)
    assert set(owner.pool.lines()) == {other, held}


def test_dropping_an_idle_line() -> None:
    owner = Owner()
    line = owner.line()
    owner.back(line)
    for _ in range(2):
        owner.drop(line)
        assert owner.counts == (0, 0)
    assert not closed(line)


def test_who_goes_before_his_turn() -> None:
    owner = Owner(1)
    line = owner.line()
    first, second = owner.ask(), owner.ask()
    for _ in range(2):
        owner.withdraw(first)
    owner.back(line)
    assert (first.served, second.ticket.line) == (False, line)
    assert not first.event.is_set


@pytest.mark.parametrize("opened", [True, False])
def test_who_goes_when_his_turn_has_come(opened: bool) -> None:
    owner = Owner(1)
    line = owner.line()
    first, second, third = owner.ask(), owner.ask(), owner.ask()
    if opened:
        owner.back(line)
    else:
        owner.drop(line)
    assert first.served
    for _ in range(2):
        # Twice, and nobody but the second is served for it.
        owner.withdraw(first)
        assert (first.served, second.served, third.served) == (False, True, False)
    assert second.ticket.line is (line if opened else None)
    assert second.event.is_set
    assert owner.counts == (1, 0)


def test_closing() -> None:
    owner = Owner(3)
    idle, held, leave = owner.line(), owner.line(), owner.ask()
    assert leave.served
    owner.back(idle)
    taken, waiting = owner.ask("a"), owner.ask("b")
    assert taken.ticket.line is idle
    owner.withdraw(waiting)
    waiting = owner.ask("b")
    owner.do(owner.pool.close)
    assert closed(idle)
    assert closed(held)
    assert (waiting.event.is_set, waiting.served) == (True, False)
    # What comes back is not kept.
    owner.drop(held)
    owner.do(owner.pool.not_opened)
    todo = Todo()
    owner.pool.give_back(idle, 0.0, todo)
    assert todo.close == [idle]
    assert owner.counts == (0, 0)
    assert list(owner.pool.lines()) == []


def test_a_line_that_is_replaced_when_all_were_closed() -> None:
    """He counts again, until he says that he has opened none."""
    owner = Owner()
    line = owner.line()
    owner.do(owner.pool.close)
    assert owner.counts == (0, 0)
    owner.pool.replaced(line)
    assert owner.counts == (1, 0)
    owner.do(owner.pool.not_opened)
    assert owner.counts == (0, 0)
    # Who held it may say so late.
    owner.drop(line)
    assert owner.counts == (0, 0)


def test_how_many_wait() -> None:
    owner = Owner(max_connections=1)
    line = owner.line()
    owner.ask()
    owner.ask()
    assert owner.pool.waiting == 2
    owner.back(line)
    assert owner.pool.waiting == 1


def test_closing_what_is_idle() -> None:
    owner = Owner()
    lines = [owner.line() for _ in range(3)]
    owner.back(*lines)
    for _ in range(2):
        owner.do(owner.pool.close)
        assert all(map(closed, lines))
        assert owner.counts == (0, 0)


def test_nobody_need_be_woken() -> None:
    """A ticket whose owner does not wait has no event yet."""
    owner = Owner(1)
    line = owner.line()
    ticket = Ticket("a")
    owner.do(owner.pool.ask, ticket, 0.0)
    owner.back(line)
    assert ticket.line is line


def test_where_lines_lead() -> None:
    http, tls = Proxy.parse("http://p.example"), Proxy.parse("https://p.example")
    socks, again = Proxy.parse("socks5://p.example"), Proxy.parse("http://p.example")
    other = Proxy.parse("http://user:pass@p.example")
    assert key_of("http", "a", 80, None) == key_of("http", "a", 80, None)
    assert len({key_of(*where, None) for where in [("http", "a", 80), ("http", "b", 80), ("http", "a", 81)]}) == 3
    assert key_of("http", "a", 80, None) != key_of("https", "a", 80, None)
    # One line to a proxy serves all servers, for requests that are put to it itself.
    assert key_of("http", "a", 80, http) == key_of("http", "b", 81, again)
    assert len({key_of("http", "a", 80, proxy) for proxy in (None, http, tls, socks, other)}) == 5
    for proxy in (http, tls, socks):
        assert key_of("https", "a", 443, proxy) != key_of("https", "b", 443, proxy)
        assert key_of("https", "a", 443, proxy) != key_of("https", "a", 443, None)
        assert key_of("https", "a", 443, proxy) != key_of("http", "a", 443, proxy)
    assert key_of("http", "a", 80, socks) != key_of("http", "b", 80, socks)
    assert key_of("https", "a", 443, http) != key_of("https", "a", 443, other)


# --- Any sequence ------------------------------------------------------------------------------------

bounds = st.none() | st.integers(1, 4)
keys = st.sampled_from("abc")


class Steps(RuleBasedStateMachine):
    """Everybody's steps, in any order, beside a model of who has what."""

    owner: Owner

    def __init__(self) -> None:
        super().__init__()
        # Who waits, in the order of coming; who may open a line; the lines that are held, and by whose ticket.
        self.waiting: list[Waiter] = []
        self.leaves: list[Waiter] = []
        self.held: dict[Line, Waiter] = {}
        # The order in which they were given back, and when.
        self.idle: dict[Line, float] = {}
        self.gone: dict[Line, None] = {}
        self.is_closed = False

    @initialize(most=bounds, idle=st.none() | st.integers(0, 3), expiry=st.sampled_from([None, 0.0, 5.0, 10.0]))
    def begin(self, most: int | None, idle: int | None, expiry: float | None) -> None:
        self.owner = Owner(most, idle, expiry)
        self.most = math.inf if most is None else most
        self.most_idle = math.inf if idle is None else idle
        self.expiry = math.inf if expiry is None else expiry

    # What each step should do, as the theory has it.

    def close(self, line: Line) -> None:
        assert line not in self.gone
        self.gone[line] = None

    def serve_next(self, line: Line | None = None) -> None:
        """A place is free, and perhaps a line with it."""
        if not self.waiting:
            if line is not None:
                self.keep(line)
            return
        waiter = self.waiting.pop(0)
        if line is not None and line.key == waiter.ticket.key:
            self.held[line] = waiter
        else:
            self.leaves.append(waiter)
            if line is not None:
                self.close(line)
        assert waiter.event.is_set

    def keep(self, line: Line) -> None:
        self.idle[line] = self.owner.now
        while len(self.idle) > self.most_idle:
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            self.close(oldest)

    # The steps.

    @rule(seconds=st.sampled_from([1.0, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.owner.now += seconds

    @precondition(lambda self: not self.is_closed)
    @rule(key=keys)
    def ask(self, key: str) -> None:
        waiter = self.owner.ask(key)
        for line, since in list(self.idle.items()):
            if self.owner.now - since >= self.expiry:
                del self.idle[line]
                self.close(line)
        found = next((line for line in reversed(self.idle) if line.key == key), None)
        if found is not None:
            del self.idle[found]
            self.held[found] = waiter
        elif len(self.held) + len(self.leaves) < self.most:
            assert not self.waiting
            if len(self.held) + len(self.leaves) + len(self.idle) == self.most:
                oldest = next(iter(self.idle))
                del self.idle[oldest]
                self.close(oldest)
            self.leaves.append(waiter)
        else:
            self.waiting.append(waiter)
        assert waiter.served is (waiter not in self.waiting)
        assert waiter.ticket.line is found

    @precondition(lambda self: self.leaves)
    @rule(data=st.data())
    def opened(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.leaves))
        self.leaves.remove(waiter)
        line = Line(waiter.ticket.key, Stream())
        self.held[line] = waiter
        self.owner.pool.opened(line)

    @precondition(lambda self: self.leaves)
    @rule(data=st.data())
    def not_opened(self, data: st.DataObject) -> None:
        self.leaves.remove(data.draw(st.sampled_from(self.leaves)))
        self.owner.do(self.owner.pool.not_opened)
        self.serve_next()

    @precondition(lambda self: self.held and not self.is_closed)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(list(self.held)))
        del self.held[line]
        self.owner.back(line)
        self.serve_next(line)

    @precondition(lambda self: self.held or self.idle or self.gone)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Also of lines that the pool has closed already: their owners don't know."""
        known = [*self.held, *self.idle]
        line = data.draw(st.sampled_from([*known, *self.gone]))
        self.owner.drop(line)
        if line in self.idle:
            del self.idle[line]
        elif line in self.held:
            del self.held[line]
            self.serve_next()
        if line in known and line not in self.gone:
            line.stream.abort()
            self.close(line)

    @precondition(lambda self: self.held and not self.is_closed)
    @rule(data=st.data())
    def replaced(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(list(self.held)))
        self.leaves.append(self.held.pop(line))
        self.owner.pool.replaced(line)
        line.stream.abort()
        self.close(line)

    @precondition(lambda self: not self.is_closed and (self.waiting or self.leaves or self.held))
    @rule(data=st.data(), twice=st.booleans())
    def withdraw(self, data: st.DataObject, twice: bool) -> None:
        of_lines = {id(waiter): line for line, waiter in self.held.items() if waiter.ticket.line is line}
        served = [waiter for waiter in self.held.values() if id(waiter) in of_lines]
        everybody = [*self.waiting, *self.leaves, *served]
        if not everybody:
            return
        waiter = data.draw(st.sampled_from(everybody))
        had_line, waited = waiter.ticket.line, waiter in self.waiting
        if waiter in self.leaves and had_line is not None:
            # He has had a line and opens another in its place: he is past withdrawing.
            return
        for _ in range(1 + twice):
            self.owner.withdraw(waiter)
        assert not waiter.served
        if waited:
            self.waiting.remove(waiter)
        elif had_line is not None:
            del self.held[had_line]
            self.serve_next(had_line)
        else:
            self.leaves.remove(waiter)
            self.serve_next()

    @rule(key=keys)
    def forget_idle(self, key: str) -> None:
        self.owner.do(self.owner.pool.forget_idle, key)
        for line in [line for line in self.idle if line.key == key]:
            del self.idle[line]
            self.close(line)

    @precondition(lambda self: not self.is_closed)
    @rule(sure=st.integers(0, 5))
    def close_all(self, sure: int) -> None:
        if sure:
            return
        self.is_closed = True
        waiting, self.waiting = self.waiting, []
        self.owner.do(self.owner.pool.close)
        assert all(waiter.event.is_set and not waiter.served for waiter in waiting)
        for line in [*self.idle, *self.held]:
            self.close(line)
        self.idle.clear()

    # What always holds.

    @invariant()
    def who_has_what(self) -> None:
        pool = self.owner.pool
        assert pool.busy == len(self.held) + len(self.leaves)
        assert pool.idle == len(self.idle)
        assert set(pool.lines()) == self.held.keys() | self.idle.keys()
        assert all(pool.is_idle(line) for line in self.idle)
        assert not any(pool.is_idle(line) for line in self.held)

    @invariant()
    def the_bounds(self) -> None:
        assert self.owner.pool.busy + self.owner.pool.idle <= self.most
        assert self.owner.pool.idle <= self.most_idle

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        assert not any(waiter.served or waiter.event.is_set for waiter in self.waiting)
        if self.waiting:
            assert not self.idle
            assert self.owner.pool.busy == self.most

    @invariant()
    def each_line_is_closed_once(self) -> None:
        assert all(closed(line) for line in self.gone)
        assert not any(closed(line) for line in [*self.held, *self.idle] if line not in self.gone)

    def teardown(self) -> None:
        """When everybody has gone no place is taken."""
        while self.leaves or self.held:
            if self.leaves:
                self.leaves.pop()
                self.owner.do(self.owner.pool.not_opened)
                self.serve_next()
            else:
                line, _ = self.held.popitem()
                self.owner.drop(line)
                self.serve_next()
        assert not self.waiting
        assert self.owner.pool.busy == 0


def test_any_sequence_of_steps() -> None:
    run_state_machine_as_test(Steps, settings=settings(QUICK, stateful_step_count=40))
