"""messages.py: lists of messages are read and bent, and the caller's stay as they are."""

from __future__ import annotations

import copy
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from feeding import QUICK
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deltawire.protocol import (
    ChatRequest,
    ConfigurationError,
    Function,
    Message,
    ToolCall,
    as_messages,
    fold_system,
    last_user_text,
    render_history,
    with_media,
    with_prompt,
)
from deltawire.protocol.messages import as_texts, plain_messages

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = {"type": "image_url", "image_url": {"url": "https://s/a.png"}}
OTHER = {"type": "image_url", "image_url": {"url": "https://s/b.png"}}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


class Model:
    """A message as pydantic's models are."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, *, mode: str, exclude_unset: bool) -> dict[str, Any]:
        assert (mode, exclude_unset) == ("json", True)
        return self.fields


FUNCTIONS: list[Callable[[Any], Any]] = [
    as_messages,
    last_user_text,
    lambda messages: with_prompt(messages, "go on"),
    lambda messages: with_media(messages, [IMAGE]),
    fold_system,
    render_history,
]
each_function = pytest.mark.parametrize(
    "function", FUNCTIONS, ids=["as_messages", "last", "prompt", "media", "system", "history"]
)


# --- All of them -----------------------------------------------------------------------------------


@each_function
@pytest.mark.parametrize("messages", [None, 5, user("x"), b"hi", ["hi"], [user("a"), "b"], [{"content": b"x"}]])
def test_what_are_no_messages(function: Callable[[Any], Any], messages: Any) -> None:
    with pytest.raises(ConfigurationError, match="messages"):
        function(messages)


@pytest.mark.parametrize("function", [FUNCTIONS[1], FUNCTIONS[3], FUNCTIONS[4], FUNCTIONS[5]])
@pytest.mark.parametrize(
    "message", [["role"], {"content": "x"}, {"role": None}, {"role": 5, "content": ""}, 5, object()]
)
def test_messages_without_a_role_are_none(function: Callable[[Any], Any], message: Any) -> None:
    with pytest.raises(ConfigurationError, match="messages"):
        function([message])


@pytest.mark.parametrize("function", [FUNCTIONS[1], FUNCTIONS[3], FUNCTIONS[4], FUNCTIONS[5]])
@pytest.mark.parametrize("content", [5, {"type": "text", "text": "x"}, True])
def test_a_content_of_no_known_kind(function: Callable[[Any], Any], content: Any) -> None:
    with pytest.raises(ConfigurationError, match="content"):
        function([user(content)])


@pytest.mark.parametrize("function", [FUNCTIONS[1], FUNCTIONS[5]])
def test_a_part_that_is_no_part(function: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigurationError, match="parts"):
        function([system("x"), user([5])])


def test_what_never_ends() -> None:
    endless: dict[str, Any] = {"role": "user"}
    endless["content"] = [endless]
    with pytest.raises(ConfigurationError):
        last_user_text([endless])


LISTS: list[list[Any]] = [
    [],
    [user("a")],
    [system("s"), user("a"), assistant("b"), user([text("c"), IMAGE])],
    [user([text("a")]), {"role": "developer", "content": [text("d"), OTHER]}, assistant(None, tool_calls=[])],
]


@each_function
@pytest.mark.parametrize("messages", LISTS)
def test_the_callers_messages_stay_as_they_are(function: Callable[[Any], Any], messages: list[Any]) -> None:
    before, held = copy.deepcopy(messages), list(messages)
    try:
        new = function(messages)
    except ConfigurationError:
        new = None
    if function is not as_messages and isinstance(new, list):
        assert new is not messages
        # What is done to the new list is not done to the caller's.
        new.append(user("more"))
        for message in new:
            if not any(message is each for each in held) and isinstance(message["content"], list):
                message["content"].append(text("more"))
    assert messages == before
    assert all(one is other for one, other in zip(messages, held, strict=True))


@each_function
def test_what_is_made_can_be_sent(function: Callable[[Any], Any]) -> None:
    made = function(LISTS[2])
    ChatRequest(messages=made, model="m").encode()


# --- as_messages -----------------------------------------------------------------------------------


def test_a_text_is_the_users() -> None:
    assert as_messages("hi") == [user("hi")]


def test_a_list_is_given_back_and_an_iterable_is_read() -> None:
    messages = [user("a")]
    assert as_messages(messages) is messages
    assert as_messages(message for message in messages) == messages
    assert as_messages(tuple(messages)) == messages


# --- last_user_text --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ("hi", "hi"),
        ([user("a"), assistant("b"), user("c"), assistant("d")], "c"),
        ([user([text("a"), IMAGE, "b", text("")])], "a\nb"),
        ([MappingProxyType(user("a"))], "a"),
        ([Model(role="user", content=[text("a")])], "a"),
        ([user((text("a"), text("b")))], "a\nb"),
        ([user([Model(type="text", text="a")])], "a"),
        ([Message(role="user", content="a")], "a"),
        ([user("a"), Message(role="assistant", content="b")], "a"),
        ([user("\ud83d")], "\ud83d"),
    ],
)
def test_the_last_user_text(messages: Any, found: str) -> None:
    assert last_user_text(messages) == found


@pytest.mark.parametrize("messages", [[], [system("s")], [assistant("a")]])
def test_no_user_message(messages: Any) -> None:
    with pytest.raises(ConfigurationError, match="none of the user's"):
        last_user_text(messages)


@pytest.mark.parametrize("content", ["", None, [], [IMAGE], [text("")]])
def test_no_text_in_the_last_user_message(content: Any) -> None:
    with pytest.raises(ConfigurationError, match="holds no text"):
        last_user_text([user("earlier"), user(content)])


# --- as_texts --------------------------------------------------------------------------------------


def test_messages_as_texts() -> None:
    parts = [text("a"), text(""), "b", {"type": "refusal", "refusal": "c"}]
    messages = [system(None), assistant(parts, name="me", tool_calls=[]), Message(role="assistant", content="d")]
    assert as_texts(messages) == [
        {"role": "system", "content": ""},
        {"role": "assistant", "content": "a\nb\nc"},
        {"role": "assistant", "content": "d"},
    ]


def test_media_are_no_texts() -> None:
    with pytest.raises(ConfigurationError, match=r"'image_url'.*texts only"):
        as_texts([user([text("a"), IMAGE]), user("b")])


# --- with_prompt -----------------------------------------------------------------------------------


def test_a_prompt_is_appended() -> None:
    messages = [user("a"), assistant("b")]
    assert with_prompt(messages, "c") == [*messages, user("c")]
    assert with_prompt([], "c") == [user("c")]
    assert with_prompt("a", "c") == [user("a"), user("c")]
    assert with_prompt([assistant("c")], "c") == [assistant("c"), user("c")]


@pytest.mark.parametrize("last", [user("c"), user([text("c"), IMAGE]), Message(role="user", content="c")])
def test_a_prompt_that_stands_there(last: Any) -> None:
    messages = [assistant("b"), last]
    assert with_prompt(messages, "c") == messages


def test_a_prompt_that_stood_there_earlier() -> None:
    messages = [user("c"), assistant("b")]
    assert with_prompt(messages, "c") == [*messages, user("c")]


@pytest.mark.parametrize("prompt", [None, b"x", 5, ["x"]])
def test_a_prompt_is_a_text(prompt: Any) -> None:
    with pytest.raises(ConfigurationError, match="prompt must be a str"):
        with_prompt("a", prompt)


# --- with_media ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "made"),
    [
        ("a", [user([IMAGE, OTHER, text("a")])]),
        ([user("a"), assistant("b")], [user([IMAGE, OTHER, text("a")]), assistant("b")]),
        ([user("a"), user("b")], [user("a"), user([IMAGE, OTHER, text("b")])]),
        ([user([text("a"), IMAGE, "b"])], [user([IMAGE, OTHER, text("a"), IMAGE, "b"])]),
        ([user("a", name="Ann", x=1)], [user([IMAGE, OTHER, text("a")], name="Ann", x=1)]),
        ([user("")], [user([IMAGE, OTHER])]),
        ([user(None)], [user([IMAGE, OTHER])]),
        ([{"role": "user"}], [user([IMAGE, OTHER])]),
        ([system("s")], [system("s"), user([IMAGE, OTHER])]),
        ([], [user([IMAGE, OTHER])]),
        ([Message(role="user", content="a")], [user([IMAGE, OTHER, text("a")])]),
    ],
)
def test_media_stand_before_the_last_text_of_the_user(messages: Any, made: Any) -> None:
    assert with_media(messages, iter([IMAGE, OTHER])) == made


def test_no_media_change_nothing() -> None:
    messages = [user("a")]
    assert with_media(messages, []) == messages


# --- fold_system -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "made"),
    [
        ("a", [user("a")]),
        ([], []),
        ([assistant("b"), user("a")], [assistant("b"), user("a")]),
        ([system("s"), user("a"), user("b")], [user("s\n\na"), user("b")]),
        (
            [user("a"), system("s"), assistant("b"), {"role": "developer", "content": "d"}],
            [user("s\n\nd\n\na"), assistant("b")],
        ),
        ([system([text("s"), text("t")]), user("a")], [user("s\nt\n\na")]),
        ([system("s"), user([IMAGE, text("a")])], [user([text("s"), IMAGE, text("a")])]),
        ([system("s"), user("")], [user("s")]),
        ([system("s"), user(None)], [user("s")]),
        ([system("s"), user("a", name="Ann")], [user("s\n\na", name="Ann")]),
        ([system("s"), assistant("b")], [user("s"), assistant("b")]),
        ([system("s")], [user("s")]),
        ([system(""), user("a")], [user("a")]),
        ([system(None)], []),
        ([system([text("s"), IMAGE]), user("a")], [user([IMAGE, text("s"), text("a")])]),
        ([system([IMAGE]), user([text("a")])], [user([IMAGE, text("a")])]),
        ([system([text("s"), IMAGE])], [user([IMAGE, text("s")])]),
        ([Message(role="system", content="s"), Message(role="user", content="a")], [user("s\n\na")]),
    ],
)
def test_system_messages_fold_into_the_first_of_the_user(messages: Any, made: Any) -> None:
    assert fold_system(messages) == made


# --- render_history --------------------------------------------------------------------------------


CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        ("a", "a"),
        ([user([text("a"), IMAGE], name="Ann")], [text("a"), IMAGE]),
        ([system("s"), user("a")], "System: s\n\nUser: a"),
        ([user("a"), assistant("b\nc"), user("d")], "User: a\n\nAssistant: b\nc\n\nUser: d"),
        ([user("a", name="Ann"), {"role": "developer", "content": "d"}], "User Ann: a\n\nDeveloper: d"),
        ([assistant("a")], "Assistant: a"),
        ([user("a"), assistant(""), assistant(None), user("b")], "User: a\n\nUser: b"),
        (
            [user("a"), assistant("b", tool_calls=[CALL]), {"role": "tool", "tool_call_id": "call_1", "content": "2"}],
            'User: a\n\nAssistant: b\nCalls add({"a": 1}) [call_1]\n\nTool [call_1]: 2',
        ),
        (
            [user("a"), assistant(None, tool_calls=[CALL, {**CALL, "id": "call_2"}])],
            'User: a\n\nAssistant: Calls add({"a": 1}) [call_1]\nCalls add({"a": 1}) [call_2]',
        ),
        (
            [
                user("a"),
                assistant(None, function_call={"name": "f", "arguments": "{}"}),
                {"role": "function", "name": "f", "content": "1"},
            ],
            "User: a\n\nAssistant: Calls f({})\n\nFunction f: 1",
        ),
        (
            [
                user("a"),
                assistant(None, tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "g", "input": "x"}}]),
            ],
            "User: a\n\nAssistant: Calls g(x) [c]",
        ),
        ([user("a"), assistant(None, tool_calls=[{}, 5])], "User: a\n\nAssistant: Calls a tool()\nCalls a tool()"),
        ([user("a"), assistant("b", tool_calls=5)], "User: a\n\nAssistant: b"),
        ([user("a"), assistant(None, refusal="no")], "User: a\n\nAssistant: no"),
        ([user("a"), assistant([{"type": "refusal", "refusal": "no"}])], "User: a\n\nAssistant: no"),
        (
            [user("a"), user([text("b"), IMAGE]), assistant("c"), user([OTHER])],
            [text("User: a"), IMAGE, text("User: b\n\nAssistant: c"), OTHER, text("User:")],
        ),
        ([user([IMAGE, text("a")]), assistant("b")], [IMAGE, text("User: a\n\nAssistant: b")]),
    ],
)
def test_a_history_is_one_message(messages: Any, content: Any) -> None:
    [made] = render_history(messages)
    assert made["role"] == "user"
    assert made["content"] == content


@pytest.mark.parametrize("messages", [[], [system("")], [assistant(None), user("")]])
def test_a_history_of_nothing(messages: Any) -> None:
    assert render_history(messages) == []


def test_the_messages_of_our_completions_are_rendered() -> None:
    said = Message(role="assistant", tool_calls=[ToolCall(id="c", function=Function(name="f", arguments="{}"))])
    assert render_history([user("a"), said]) == [user("User: a\n\nAssistant: Calls f({}) [c]")]


CONTENTS = st.none() | st.text(max_size=5) | st.lists(st.sampled_from([IMAGE, OTHER]) | st.text(max_size=3).map(text))
MESSAGES: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(dict, role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]), content=CONTENTS),
    max_size=6,
)


def media_of(messages: list[Any]) -> list[Any]:
    parts = (part for message in messages if isinstance(message["content"], list) for part in message["content"])
    return [part for part in parts if part in (IMAGE, OTHER)]


@QUICK
@given(MESSAGES)
def test_nothing_is_lost(messages: list[Any]) -> None:
    before = copy.deepcopy(messages)
    texts = [
        part if isinstance(part, str) else part.get("text") or ""
        for message in messages
        for part in ([message["content"]] if isinstance(message["content"], str) else message["content"] or [])
    ]
    for function in (fold_system, render_history):
        made = function(messages)
        assert sorted(map(str, media_of(made))) == sorted(map(str, media_of(messages)))
        said = json.dumps(made)
        assert all(json.dumps(each)[1:-1] in said for each in texts)
    assert not any(message["role"] in ("system", "developer") for message in fold_system(messages))
    assert len(render_history(messages)) <= 1
    assert media_of(render_history(messages)) == media_of(messages)
    assert messages == before


# --- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [None, 5, {"role": "user"}, b"hi", object()])
def test_what_is_no_list(messages: Any) -> None:
    words = refused(as_messages, messages)
    assert words == f"messages must be a list of messages or a str, not {type(messages).__name__}"


def test_texts_among_messages() -> None:
    """A list of texts is a mistake: whose would they be?"""
    for messages in (["hi"], [user("a"), "b"]):
        assert refused(as_messages, messages).endswith("such as {'role': 'user', 'content': ...}, not str")


def test_what_json_can_not_say_is_refused_at_once() -> None:
    assert refused(as_messages, [user(b"hi")]).startswith("messages holds bytes")
    assert refused(as_messages, [user("a"), user([{"x": float("nan")}])]).startswith("messages must hold finite")


def test_the_list_itself_is_given_back() -> None:
    """Nothing is copied on the way of nearly all calls."""
    for listed in ([user("a"), assistant("b")], [user([text("a")])], [Model(role="user", content="x")], []):
        assert as_messages(listed) is listed
    given = (user("a"),)
    assert as_messages(given) == [*given]
    assert as_messages("hi") == [user("hi")]


def test_nobody_can_say_what_was_asked() -> None:
    assert refused(last_user_text, []) == "the messages hold none of the user's: add one, or pass prompt="
    assert refused(last_user_text, [assistant("a")]).startswith("the messages hold none of the user's")
    for content in ("", None, [], [IMAGE], [text("")]):
        assert refused(last_user_text, [user("a"), user(content)]) == (
            "the last user message holds no text: add some, or pass prompt="
        )
    assert last_user_text([user("a"), user("b"), assistant("c")]) == "b"
    assert last_user_text([user([text("a"), IMAGE, "b", text("")])]) == "a\nb"


def test_messages_as_new_dicts() -> None:
    given: Any = [Model(role="user", content=("a", IMAGE)), user(None)]
    made = plain_messages(given)
    assert made == [user(["a", IMAGE]), user(None)]
    assert plain_messages("hi") == [user("hi")]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "5", "tool_call_id": "c"},
        {"role": "function", "content": "5", "name": "f"},
        assistant("a", tool_calls=[{"id": "c"}]),
        assistant("a", function_call={"name": "f"}),
    ],
)
def test_tools_are_no_texts(message: dict[str, Any]) -> None:
    assert refused(as_texts, [user("a"), message]).startswith("the messages hold tool calls, or what a tool said")
    assert as_texts([assistant("a", tool_calls=[], function_call=None)]) == [assistant("a")]
