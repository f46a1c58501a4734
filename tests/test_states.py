"""states.py: the table of a reply's moves is one of a machine that ends. (That `Reply` keeps to it: test_reply.py.)"""

from __future__ import annotations

import pytest

from deltawire.protocol import TRANSITIONS, State

VERBS = ("start", "receive", "end", "fail")


def test_verbs_and_states_are_those_that_there_are() -> None:
    for (state, verb), following in TRANSITIONS.items():
        assert isinstance(state, State)
        assert verb in VERBS
        assert following
        assert following <= set(State)
    assert {state for state, _ in TRANSITIONS} == set(State)


def test_only_a_reply_that_nothing_has_come_of_can_start() -> None:
    assert [state for state, verb in TRANSITIONS if verb == "start"] == [State.IDLE]
    assert (State.IDLE, "receive") not in TRANSITIONS


@pytest.mark.parametrize("verb", ["end", "fail"])
def test_a_reply_may_end_at_any_time_and_has_its_verdict_then(verb: str) -> None:
    """Both are idempotent: there is no state in which they are out of turn, or lead on."""
    assert {state: TRANSITIONS[state, verb] for state in State} == dict.fromkeys(State, frozenset({State.DONE}))


def test_the_verdict_is_final() -> None:
    for verb in ("receive", "end", "fail"):
        assert TRANSITIONS[State.DONE, verb] == {State.DONE}


def test_every_state_can_be_reached_and_how_a_body_is_read_is_decided_once() -> None:
    reached, more = {State.IDLE}, {State.IDLE}
    while more:
        more = {
            after for (state, _), following in TRANSITIONS.items() if state in more for after in following
        } - reached
        reached |= more
    assert reached == set(State)
    for state in (State.EVENTS, State.DOCUMENT, State.ERROR_BODY, State.UNEXPECTED):
        assert TRANSITIONS[state, "receive"] == {state, State.DONE}
    assert TRANSITIONS[State.SNIFFING, "receive"] == set(State) - {State.IDLE, State.ERROR_BODY}
    assert TRANSITIONS[State.IDLE, "start"] == {State.IDLE, State.SNIFFING, State.ERROR_BODY, State.DONE}


def test_each_state_says_what_it_is() -> None:
    """The words of a UsageError: "can't be called now: ..."."""
    said = [state.value for state in State]
    assert len(set(said)) == len(said) == 7
    assert said[0] == "nothing has come yet"
    assert said[-1] == "the verdict is given"
