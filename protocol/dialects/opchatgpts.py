"""The Opchatgpts dialect of replies: what WordPress sites with the AI Engine plugin send.

A stream is unnamed events, each a JSON object with a ``type``:

- ``live``: ``data`` is a piece of the answer, unless a ``subtype`` other than "content" says that it is a line
  of the site's event log ("Thinking...", "Calling get_weather..."): a `StatusChunk`.
- ``end``: the reply is over. ``data`` is a JSON object, encoded once more as a string: ``success``, ``reply`` (the
  whole text, trimmed; after a tool call only its last turn), ``usage``, ``responseId`` and more.
- ``error``: the reply has failed, ``data`` says why. No ``end`` follows.
- Any other type is a status line: later versions may add some.

A whole document is what ``end`` holds. Success without text, images, actions and blocks is how the plugin
hides failures of the model behind it (a 502, an empty stream, a context that is too long): it is empty.

The wire has no finish reason; the last chunk says "stop".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from .._json import NOT_TYPED, clean, join_surrogates, loads, loads_keeping_surrogates
from ..chunks import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    Message,
    StatusChunk,
    Usage,
)
from ..errors import APIStatusError
from ..events import SessionStarted
from ..lenient import HalfJoiner, build
from ..objects import Object, with_extra
from ..status import NONCE_CODES, ErrorObject, error_object
from .signals import DONE, EMPTY, BadEvent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from ..accumulate import Accumulator
    from ..stopping import StopWords
    from .signals import Signal


class _Event(msgspec.Struct):
    type: str
    data: Any = None
    subtype: str | None = None


class _Told(Object):
    """What of a ``live`` event stands in its chunk; the rest are vendor fields."""

    type: str | None = None
    data: str | None = None


_decode = msgspec.json.Decoder(_Event).decode


class OpchatgptsEvents:
    """Reads the events of one reply, one after the other, and folds their chunks as it goes."""

    __slots__ = ("_accumulator", "_halves", "_said", "_stop")

    def __init__(self, accumulator: Accumulator, stop: StopWords | None = None) -> None:
        self._accumulator = accumulator
        self._stop = stop
        self._halves: HalfJoiner | None = None
        # Whether any text of the answer has come.
        self._said = False

    def read(self, payloads: Iterable[bytes], into: list[Any], event: bytes = b"") -> Signal | None:
        """Read the data of events of this name, in order, and append their chunks.

        Gives what stopped the reading, if anything did: the end, an error, or that the reply is empty.
        """
        for data in payloads:
            try:
                told = _decode(data)
            except NOT_TYPED:
                signal = self._read_odd(data, event, into)
            else:
                signal = self._take(told, data, into)
            if signal is not None:
                return signal
        return None

    def flush(self, into: list[Any]) -> None:
        """The reply has ended: append a chunk with the text that was held back, if there is any."""
        text = ""
        if self._halves:
            text = "".join(delta.content or "" for _, delta in self._halves.flush())
        if self._stop is not None:
            text = self._stop.receive(text) + self._stop.flush()
        if text:
            self._add(_piece(text), into)

    def _read_odd(self, data: bytes, event: bytes, into: list[Any]) -> Signal | None:
        """Data that the typed decoder does not take: a keep-alive, odd or broken JSON."""
        if not data.strip():
            return None
        # As it stood on the wire, where each event is one such line.
        line = b"data: " + data
        try:
            value = loads_keeping_surrogates(data)
        except ValueError as error:
            return BadEvent(line, f"is no JSON ({error})")
        if not isinstance(value, dict):
            return BadEvent(line, "is no JSON object")
        kind, subtype = value.get("type"), value.get("subtype")
        if not isinstance(kind, str):
            found = error_object(clean(value), flat=event == b"error")
            return found or BadEvent(line, 'has no "type"')
        if self._halves is None:
            self._halves = HalfJoiner()
        named = subtype if subtype is None or isinstance(subtype, str) else "unknown"
        return self._take(_Event(kind, value.get("data"), named), data, into)

    def _take(self, told: _Event, data: bytes, into: list[Any]) -> Signal | None:
        kind, text = told.type, told.data
        if kind == "live" and type(text) is str and (not told.subtype or told.subtype == "content"):
            return self._say(text, data, into)
        if kind in ("end", "error"):
            try:
                value = loads(data)
            except ValueError as error:
                return BadEvent(b"data: " + data, f"can't be read ({error})")
            held = value.get("data")
            if kind == "error":
                return _error(held, value)
            inside = _inside(held)
            if inside is None:
                return BadEvent(b"data: " + data, "ends the reply with what is no JSON object")
            return self._end(inside, value, into)
        # It is no part of the answer: what has come so far stays as it is.
        status = StatusChunk()
        status._raw = data
        into.append(status)
        return None

    def _say(self, text: str, data: bytes, into: list[Any]) -> Signal | None:
        """A piece of the answer."""
        chunk = _piece(text)
        chunk._raw = (data, (), _Told)
        if text:
            self._said = True
        if self._halves is not None:
            self._halves.join(chunk)
        stop = self._stop
        if stop is not None:
            delta = chunk.choices[0].delta
            delta.content = stop.receive(delta.content or "")
            if stop.stopped:
                self._add(chunk, into)
                self._add(_last({}, {}), into)
                return DONE
        into.append(chunk)
        self._accumulator.add_text(chunk)
        return None

    def _end(self, value: dict[str, Any], around: dict[str, Any], into: list[Any]) -> Signal | None:
        if _failed(value):
            return error_object(value, flat=True)
        reply = _reply(value)
        if not self._said:
            if not _answers(value):
                return EMPTY
            text = reply if self._stop is None else self._stop.receive(reply)
            if text:
                self._add(_piece(text), into)
        self.flush(into)
        self._add(_last(value, around), into)
        return DONE

    def _add(self, chunk: ChatCompletionChunk, into: list[Any]) -> None:
        into.append(chunk)
        self._accumulator.add(chunk)


def read_document(body: bytes) -> ChatCompletion | ErrorObject | Literal["empty"] | None:
    """A whole reply; the error that it is; that it is empty; or None when it is JSON and none of these.

    Raises ``ValueError`` when it is no JSON.
    """
    value = loads(body)
    if not isinstance(value, dict):
        return None
    if _failed(value):
        return error_object(value, flat=True)
    if not _answers(value):
        return EMPTY if "reply" in value else error_object(value, flat="message" in value)
    whole = ChatCompletion(
        id=_text(value, "responseId"),
        choices=[Choice(message=Message(role="assistant", content=_reply(value) or None), finish_reason="stop")],
        usage=_usage(value),
    )
    return with_extra(whole, _vendor_fields(ChatCompletion, value))


def cut(whole: ChatCompletion, stop: StopWords) -> None:
    """End the text of a whole reply at its first stop word, in place."""
    for choice in whole.choices:
        choice.message.content = (stop.receive(choice.message.content or "") + stop.flush()) or None


def new_token(last: Object | None) -> str | None:
    """The nonce to go on with, from the last chunk of a reply; near the end of a nonce's life there is one.

    (WordPress sends one in the head of each reply, too, ``X-WP-Nonce``. It is not needed: this comes in good time, and
    who hears nothing for so long that his nonce is refused fetches another.)
    """
    return None if last is None else _nonce(last.model_extra.get("new_token"))


def is_stale_nonce(error: Exception) -> bool:
    """Whether the site has refused the nonce (none, a wrong one, an old one): worth one more try with a new one.

    WordPress' REST API: "Cookie check failed" (403), or what a permission callback refuses (401 or 403). A 403
    that refuses the message, or comes from a gateway, has no such code.
    """
    if not isinstance(error, APIStatusError) or error.status_code not in (401, 403):
        return False
    return isinstance(error.code, str) and error.code in NONCE_CODES


def read_session(body: bytes) -> SessionStarted | ErrorObject | None:
    """The reply to ``POST .../start_session``; None when there is no nonce in it.

    Raises ``ValueError`` when it is no JSON.
    """
    value = loads(body)
    if not isinstance(value, dict):
        return None
    if _failed(value):
        return error_object(value, flat=True)
    return _session(value) or error_object(value, flat="message" in value)


# Quoted as HTML 13.1.2.3 allows; without quotes it could not hold JSON. (Compiled on first use: few ever read a page.)
_SYSTEM = rb"""[\s"']data-system\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)')"""


def read_page(body: bytes) -> SessionStarted | None:
    """The session in a page with a chatbot: JSON in the attribute ``data-system``; None when no such attribute
    holds a nonce."""
    # Only for sites that are asked so: it loads a large table.
    import html

    for found in re.finditer(_SYSTEM, body, re.IGNORECASE):
        text = html.unescape((found[1] or found[2] or b"").decode("utf-8", "replace"))
        try:
            value = loads(join_surrogates(text).encode())
        except ValueError:
            continue
        session = _session(value) if isinstance(value, dict) else None
        if session is not None:
            return session
    return None


def _session(value: dict[str, Any]) -> SessionStarted | None:
    nonce = _nonce(value.get("restNonce"))
    return None if nonce is None else SessionStarted(_text(value, "sessionId"), nonce)


def _nonce(value: Any) -> str | None:
    """What may be sent as a nonce: it becomes a header field."""
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        return None
    return value if value.isascii() and value.isprintable() and " " not in value else None


def _piece(text: str) -> ChatCompletionChunk:
    return ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content=text))])


def _last(value: dict[str, Any], around: dict[str, Any]) -> ChatCompletionChunk:
    """The chunk that ends a reply, from what ``end`` holds and what stands around it."""
    chunk = ChatCompletionChunk(
        id=_text(value, "responseId"),
        choices=[ChunkChoice(finish_reason="stop")],
        usage=_usage(value),
    )
    more = {name: item for name, item in around.items() if name not in ("type", "data")}
    return with_extra(chunk, _vendor_fields(ChatCompletionChunk, more | value))


def _inside(held: Any) -> dict[str, Any] | None:
    """What ``end`` holds: JSON in a string, or the object itself. A word that was never meant as JSON ("bye") says
    nothing; None when it is broken, for what is lost may be that the reply has failed."""
    if held is None:
        return {}
    if isinstance(held, str):
        try:
            held = loads(held.encode())
        except ValueError:
            return None if held.lstrip().startswith(("{", "[")) else {}
    return held if isinstance(held, dict) else None


def _error(held: Any, event: dict[str, Any]) -> ErrorObject:
    """What an ``error`` event says: its data is the message, as far as anybody has seen."""
    if isinstance(held, str):
        return ErrorObject(held, body=event)
    return error_object(held, flat=True) or ErrorObject("", body=event)


def _failed(value: dict[str, Any]) -> bool:
    success = value.get("success")
    return success is not None and not success


def _answers(value: dict[str, Any]) -> bool:
    """Does a reply hold anything? (Shortcuts are the site's own, and no answer.)"""
    return bool(_reply(value) or value.get("images") or value.get("actions") or value.get("blocks"))


def _reply(value: dict[str, Any]) -> str:
    return _text(value, "reply")


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _usage(value: dict[str, Any]) -> Usage | None:
    found = value.get("usage")
    if not isinstance(found, dict) or not found:
        return None
    return with_extra(build(Usage, found), _vendor_fields(Usage, found))


def _vendor_fields(cls: type[Object], value: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in cls.__struct_fields__}
