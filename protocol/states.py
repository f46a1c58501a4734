"""The states of a reply, and its legal moves: data, which the machine, its tests and its readers share."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a reply stands."""

    IDLE = "nothing has come yet"
    SNIFFING = "a good head has come; how to read the body is not decided"
    EVENTS = "the body is an event stream"
    DOCUMENT = "the body is one JSON document"
    ERROR_BODY = "the head says that it failed; the body may say why"
    UNEXPECTED = "the body is no chat reply; its first bytes are kept to be shown"
    DONE = "the verdict is given"


# (state, verb) -> the states that the verb may lead to.
TRANSITIONS: dict[tuple[State, str], frozenset[State]] = {
    (State.IDLE, "start"): frozenset({State.IDLE, State.SNIFFING, State.ERROR_BODY, State.DONE}),
    (State.IDLE, "end"): frozenset({State.DONE}),
    (State.IDLE, "fail"): frozenset({State.DONE}),
    (State.SNIFFING, "receive"): frozenset(
        {State.SNIFFING, State.EVENTS, State.DOCUMENT, State.UNEXPECTED, State.DONE}
    ),
    (State.SNIFFING, "end"): frozenset({State.DONE}),
    (State.SNIFFING, "fail"): frozenset({State.DONE}),
    (State.EVENTS, "receive"): frozenset({State.EVENTS, State.DONE}),
    (State.EVENTS, "end"): frozenset({State.DONE}),
    (State.EVENTS, "fail"): frozenset({State.DONE}),
    (State.DOCUMENT, "receive"): frozenset({State.DOCUMENT, State.DONE}),
    (State.DOCUMENT, "end"): frozenset({State.DONE}),
    (State.DOCUMENT, "fail"): frozenset({State.DONE}),
    (State.ERROR_BODY, "receive"): frozenset({State.ERROR_BODY, State.DONE}),
    (State.ERROR_BODY, "end"): frozenset({State.DONE}),
    (State.ERROR_BODY, "fail"): frozenset({State.DONE}),
    (State.UNEXPECTED, "receive"): frozenset({State.UNEXPECTED, State.DONE}),
    (State.UNEXPECTED, "end"): frozenset({State.DONE}),
    (State.UNEXPECTED, "fail"): frozenset({State.DONE}),
    (State.DONE, "receive"): frozenset({State.DONE}),
    (State.DONE, "end"): frozenset({State.DONE}),
    (State.DONE, "fail"): frozenset({State.DONE}),
}
