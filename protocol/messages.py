"""Lists of messages: reading them, and bending them to what a server can take.

OpenAI's API reference, "Create chat completion", `messages`. A list may hold dicts and objects (a
completion's message, those of other libraries); a text is one message, the user's. A caller's lists and
messages are never changed: every function but `as_messages` gives a new list, which holds the messages
that stay as they are, and new dicts in place of the others.

A content is a text, nothing, or a list of parts. Parts that are not text (images, audio) are media; they
stand before the text that speaks of them, as vendors advise.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from .encoding import check, plain
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# OpenAI renamed "system" to "developer" for its reasoning models; they mean the same.
_SYSTEM = frozenset({"system", "developer"})

# "function" is the older one.
_TOOLS = frozenset({"tool", "function"})


def as_messages(messages: Any) -> list[Any]:
    """Messages as a list: a text becomes the user's, a list is given back itself, any other iterable is read.

    Raises `ConfigurationError` for what is no list of messages, and for what JSON can't say in it.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, (dict, bytes)) or not hasattr(messages, "__iter__"):
        raise ConfigurationError(f"messages must be a list of messages or a str, not {type(messages).__name__}")
    listed = messages if type(messages) is list else list(messages)
    if not _are_texts(listed):
        for message in listed:
            if isinstance(message, str):
                raise ConfigurationError("messages must hold dicts such as {'role': 'user', 'content': ...}, not str")
            check(message, "messages")
    return listed


_content = operator.itemgetter("content")


def _are_texts(messages: list[Any]) -> bool:
    """Whether all contents are texts, as in nearly all lists; told at the speed of C."""
    try:
        "".join(map(_content, messages))
    except (TypeError, LookupError):
        return False
    return True


# --- Reading ---------------------------------------------------------------------------------------


def last_user_text(messages: Any) -> str:
    """The text of the last user message, its text parts joined by line breaks.

    Raises `ConfigurationError` when there is no user message, or no text in the last one.
    """
    plains = _plains(as_messages(messages))
    position = last_user(plains)
    if position is None:
        raise ConfigurationError("the messages hold none of the user's: add one, or pass prompt=")
    text = _text(plains[position])
    if not text:
        raise ConfigurationError("the last user message holds no text: add some, or pass prompt=")
    return text


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """The messages as new dicts, whatever they were."""
    return _plains(as_messages(messages))


def as_texts(messages: Any) -> list[dict[str, str]]:
    """The role and the text of each message, for servers that read nothing else; text parts are joined by line breaks.

    Raises `ConfigurationError` for media, and for what tools are called with and say: such servers would never know.
    """
    texts = []
    for message in _plains(as_messages(messages)):
        if message["role"] in _TOOLS or message.get("tool_calls") or message.get("function_call"):
            raise ConfigurationError(
                "the messages hold tool calls, or what a tool said: the server takes texts only; leave them out, or "
                "make one text of all messages (render_history, or supports_message_history = False of the provider)"
            )
        if media := _media(message):
            kind = media[0].get("type")
            raise ConfigurationError(f"a message holds a part of type {kind!r}: the server takes texts only")
        texts.append({"role": message["role"], "content": _text(message)})
    return texts


def _plains(messages: Iterable[Any]) -> list[dict[str, Any]]:
    plains = []
    for message in messages:
        copy = plain(message, "messages")
        if not isinstance(copy, dict) or not isinstance(copy.get("role"), str):
            raise ConfigurationError("messages must hold dicts such as {'role': 'user', 'content': ...}")
        if isinstance(copy.get("content"), tuple):
            copy["content"] = list(copy["content"])
        if not isinstance(copy.get("content"), (str, list, type(None))):
            raise ConfigurationError("the content of a message must be a str, a list of parts, or None")
        plains.append(copy)
    return plains


def last_user(plains: Sequence[Mapping[str, Any]]) -> int | None:
    """Where the last message of the user stands among messages that are dicts; None without one."""
    return next((at for at in reversed(range(len(plains))) if plains[at]["role"] == "user"), None)


def _parts(message: dict[str, Any]) -> list[Any]:
    """The content as parts; an empty text is none."""
    content = message.get("content")
    return content if isinstance(content, list) else [_text_part(content)] if content else []


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _text_of(part: Any) -> str | None:
    """The text of a part, or None when it is media. (A refusal is what the assistant said, too.)"""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise ConfigurationError("the parts of a content must be dicts such as {'type': 'text', 'text': ...}")
    text = part.get("refusal") if part.get("type") == "refusal" else part.get("text")
    return text if isinstance(text, str) else None


def _text(message: dict[str, Any]) -> str:
    return "\n".join(text for text in map(_text_of, _parts(message)) if text)


def _media(message: dict[str, Any]) -> list[Any]:
    return [part for part in _parts(message) if _text_of(part) is None]


def _joined(media: list[Any], text: str) -> Any:
    """The shortest content that holds both."""
    return [*media, *([_text_part(text)] if text else [])] if media else text


# --- Adding ----------------------------------------------------------------------------------------


def with_prompt(messages: Any, prompt: str) -> list[Any]:
    """The messages, the last of which is the user's and says this: it is appended unless it stands there already."""
    if not isinstance(prompt, str):
        raise ConfigurationError(f"prompt must be a str, not {type(prompt).__name__}")
    listed = list(as_messages(messages))
    last = _plains(listed[-1:])
    if last and last[0]["role"] == "user" and _text(last[0]) == prompt:
        return listed
    return [*listed, {"role": "user", "content": prompt}]


def with_media(messages: Any, parts: Iterable[Any]) -> list[Any]:
    """The messages, with these parts before the content of the last user message.

    What its content held stays, in its order. Without a user message the parts make one, at the end.
    """
    listed, parts = list(as_messages(messages)), list(parts)
    if not parts:
        return listed
    plains = _plains(listed)
    position = last_user(plains)
    if position is None:
        return [*listed, {"role": "user", "content": parts}]
    listed[position] = {**plains[position], "content": [*parts, *_parts(plains[position])]}
    return listed


# --- For servers that take less --------------------------------------------------------------------


def fold_system(messages: Any) -> list[Any]:
    """The messages without system messages, for servers that take none.

    Their texts (and those of developer messages), in order and with blank lines between, stand before the
    text of the first user message, or make a user message of their own, the first one, where there is none.
    """
    listed = list(as_messages(messages))
    plains = _plains(listed)
    system = [message for message in plains if message["role"] in _SYSTEM]
    if not system:
        return listed
    kept = [position for position, message in enumerate(plains) if message["role"] not in _SYSTEM]
    listed, plains = [listed[position] for position in kept], [plains[position] for position in kept]
    text = "\n\n".join(filter(None, map(_text, system)))
    media = [part for message in system for part in _media(message)]
    if not text and not media:
        return listed
    position = next((at for at, message in enumerate(plains) if message["role"] == "user"), None)
    if position is None:
        return [{"role": "user", "content": _joined(media, text)}, *listed]
    first = plains[position]
    if media or isinstance(first.get("content"), list):
        first["content"] = [*(_joined(media, text) if media else [_text_part(text)]), *_parts(first)]
    else:
        first["content"] = "\n\n".join(filter(None, (text, first.get("content"))))
    listed[position] = first
    return listed


def render_history(messages: Any) -> list[Any]:
    """One user message that says all of the messages, for servers that take no history.

    A single user message stays as it is. Of others it is a transcript: a paragraph a message, such as
    "User: Hi" (with a name: "User Ann: Hi"), tool calls as ``Calls add({"a": 1}) [call_1]``, their results as
    "Tool [call_1]: 1". Media are kept, those of a message right before its paragraph; messages that say nothing
    are left out. (Nothing in a transcript is escaped: a text may pretend to be several messages.)
    """
    listed = list(as_messages(messages))
    plains = _plains(listed)
    if len(plains) == 1 and plains[0]["role"] == "user":
        return listed
    parts: list[Any] = []
    paragraphs: list[str] = []
    for message in plains:
        media = _media(message)
        if media and paragraphs:
            parts.append(_text_part("\n\n".join(paragraphs)))
            paragraphs = []
        parts += media
        paragraphs.append(_paragraph(message, media))
    content = _joined(parts, "\n\n".join(filter(None, paragraphs)))
    return [{"role": "user", "content": content}] if content else []


def _paragraph(message: dict[str, Any], media: list[Any]) -> str:
    said = [text for text in (_text(message), message.get("refusal")) if isinstance(text, str) and text]
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, (list, tuple)) else ():
        call = call if isinstance(call, dict) else {}
        said += [_call(call.get("function") or call.get("custom"), call.get("id"))]
    if message.get("function_call"):
        said.append(_call(message["function_call"], None))
    if not said:
        # Its media speak for themselves.
        return f"{_speaker(message)}:" if media else ""
    return f"{_speaker(message)}: " + "\n".join(said)


def _speaker(message: dict[str, Any]) -> str:
    name, call = message.get("name"), message.get("tool_call_id")
    role: str = message["role"].capitalize()
    return role + (f" {name}" if name else "") + (f" [{call}]" if call else "")


def _call(function: Any, id_: Any) -> str:
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments") or function.get("input") or ""
    return f"Calls {function.get('name') or 'a tool'}({arguments})" + (f" [{id_}]" if id_ else "")
