"""Targets: `Reply`, in each dialect, against the oracles that read whole bodies."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import site_reader
import whole_reader
from feeding import JSON, SSE, chunks, read, said, text
from test_recordings import told, verdict

from deltawire.protocol import (
    ImagesResponse,
    LimitExceededError,
    Limits,
    ModelList,
    ReadError,
    Reply,
    SessionStarted,
    StreamEnded,
    StreamFailed,
    accumulate,
)
from deltawire.protocol.catalogue import catalogue

from .common import COMPARED, DOCUMENTED, READERS, Dice, cuttings
from .regular import is_regular

if TYPE_CHECKING:
    from feeding import Headers

    from deltawire.protocol import ChatCompletion, Event

HEADERS: tuple[Headers, ...] = (
    SSE,
    JSON,
    [(b"content-type", b"text/plain")],
    [],
    [(b"CONTENT-TYPE", b" Text/Event-Stream ;charset=x")],
    [(b"content-type", b"text/html"), (b"x-request-id", b"req-1")],
)
LIMITS = (
    None,
    Limits(line=100, event=100),
    Limits(event=300, reply=500),
    Limits(reply=1),
    Limits(document=30, error_body=30),
    Limits(line=1000, event=60),
)


class How:
    """How a reply is fed, as the first bytes of the data say."""

    def __init__(self, dice: Dice, dialect: str) -> None:
        self.dialect = dialect
        self.headers = dice.pick(HEADERS)
        self.limits = dice.pick(LIMITS)
        self.breaks = dice.byte() % 2 == 1

    @property
    def plain(self) -> bool:
        """Whether the oracle knows this case: no limits, and the bytes end in good order."""
        return self.limits is None and not self.breaks

    def options(self) -> dict[str, Any]:
        fail = ReadError("the connection broke") if self.breaks else None
        return {"dialect": self.dialect, "headers": self.headers, "limits": self.limits, "fail": fail}


def checked(body: bytes, how: How, **more: Any) -> list[Event]:
    """The reply's events, after all that holds for any of them has been checked."""
    options = how.options() | more
    events = read(body, **options)
    shown = [said(event) for event in events]
    for parts in cuttings(body):
        assert step_by_step(parts, text(events), options) == shown
    completion = accumulate(chunks(events))
    last = events[-1]
    if isinstance(last, StreamFailed):
        str(last.error)
        partial = getattr(last.error, "partial", None)
        # (A deadline's error, and whatever else ends a reply, has what came before it.)
        assert (told(partial) if partial else []) == told(completion)
    return events


def step_by_step(parts: list[bytes], final: str, options: dict[str, Any]) -> list[tuple[object, ...]]:
    """What these reads give, in a form that compares. Between any two of them there is the beginning of what there is
    in the end, in bounded buffers."""
    reply = Reply(options["dialect"], limits=options["limits"], stop=options.get("stop"))
    limits, seen = reply.limits, ""
    events = reply.start(options.get("status", 200), options["headers"])
    for part in parts:
        came = reply.receive(part)
        if came:
            events += came
            seen += text(came)
            assert final.startswith(seen)
            assert first_text(reply.partial()) == seen
        assert part or not came
        assert len(reply._splitter.rest) <= limits.event + 1
        assert len(reply._body) <= max(limits.document, limits.error_body, 2001)
        assert len(reply._sniffer.seen) <= 6 or reply.state.name != "SNIFFING" or reply._sniffer.seen in part
    events += reply.end() if options["fail"] is None else reply.fail(options["fail"])
    return [said(event) for event in events]


def first_text(completion: ChatCompletion | None) -> str:
    found = [choice for choice in completion.choices if choice.index == 0] if completion else []
    return (found[0].message.content or "") if found else ""


# --- OpenAI ------------------------------------------------------------------------------------------


def compare(name: str, body: bytes, how: How, events: list[Event]) -> None:
    """The oracle says the same, where it has an opinion."""
    content_type = next((value for key, value in how.headers if key.lower() == b"content-type"), b"").decode()
    if not READERS or not how.plain or not is_regular(body):
        return
    wanted = whole_reader.read_body(body, content_type) | {"status": 200}
    error, _ = wanted.pop("error"), wanted.pop("terminated")
    for choice in wanted["choices"]:
        del choice["role"], choice["logprobs"]
    if error is not None and not isinstance(error.get("code"), str | int | None):
        return
    COMPARED[name] += 1
    assert verdict(events, wanted) == wanted


def openai(data: bytes) -> None:
    """A chat's reply, of whatever kind it turns out to be."""
    dice = Dice(data)
    how = How(dice, "openai")
    compare("openai", dice.rest, how, checked(dice.rest, how))


def document(data: bytes) -> None:
    """The same, when it is one JSON document: a change to its first byte is no way out."""
    dice = Dice(data)
    how = How(dice, "openai")
    body = b"{" + dice.rest
    events = checked(body, how)
    compare("document", body, how, events)
    last = events[-1]
    if how.limits is not None and len(body) > min(how.limits.document, how.limits.reply):
        assert isinstance(last, StreamFailed)
        assert isinstance(last.error, LimitExceededError)
    if isinstance(last, StreamEnded):
        assert last.completion is not None
        assert told(last.completion) == told(accumulate(chunks(events)))


def refusal(data: bytes) -> None:
    """The body of an error status: whatever is in it, the error is the status's."""
    dice = Dice(data)
    how = How(dice, dice.pick(("openai", "opchatgpts", "models", "images", "session", "page")))
    status = dice.pick((400, 401, 403, 404, 407, 408, 409, 418, 422, 429, 500, 502, 503, 529, 599, 101, 302, 307, 304))
    events = checked(dice.rest, how, status=status)
    assert len(events) == 1
    assert isinstance(events[0], StreamFailed)
    error = events[0].error
    wanted = "ProxyError" if status == 407 else whole_reader.class_of_status(status)
    COMPARED["refusal"] += 1
    assert type(error).__name__ in (wanted, "MissingAuthError")
    assert vars(error)["status_code"] == status


def coded(data: bytes) -> None:
    """A body in a Content-Encoding, whole, cut, or no such thing."""
    dice = Dice(data)
    how = How(dice, "openai")
    coding = dice.pick((b"gzip", b"deflate", b"x-gzip", b"identity", b"br"))
    plain = list(how.headers)
    how.headers = [*plain, (b"content-encoding", coding)]
    events = checked(dice.rest, how)
    if coding in (b"br", b"identity") or not how.plain:
        return
    decoder = zlib.decompressobj(47)
    try:
        inflated = decoder.decompress(dice.rest)
    except zlib.error:
        return
    if decoder.eof and not decoder.unused_data:
        COMPARED["coded"] += 1
        assert [said(event) for event in read(inflated, headers=plain)] == [said(event) for event in events]


# --- Sites ---------------------------------------------------------------------------------------------


def opchatgpts(data: bytes) -> None:
    """The reply of a site, with and without stop words."""
    dice = Dice(data)
    how = How(dice, "opchatgpts")
    stop = dice.pick((None, None, None, "e", ["lo", "Wor"], "\n", ["aa", "aab"]))
    events = checked(dice.rest, how, stop=stop)
    words = [stop] if isinstance(stop, str) else stop or []
    whole = text(events)
    assert not any(word in whole for word in words), "what comes of a stop word is cut"
    if not READERS or not how.plain or words or how.headers is not SSE:
        return
    try:
        wanted = whole_reader.mend(site_reader.read_body(200, dice.rest))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # no reply as sites write them: of those the oracle knows nothing
    COMPARED["opchatgpts"] += 1
    last = events[-1]
    name = type(last.error).__name__ if isinstance(last, StreamFailed) else "ended"
    assert (name, whole) == (wanted["verdict"], wanted["text"])


def session(data: bytes) -> None:
    """The session that a site gives."""
    found("session", data, site_reader.read_session)


def page(data: bytes) -> None:
    """The same, from a page."""
    found("page", data, site_reader.read_page)


def found(name: str, data: bytes, oracle: Any) -> None:
    dice = Dice(data)
    how = How(dice, name)
    events = checked(dice.rest, how)
    started = [event for event in events if isinstance(event, SessionStarted)]
    for event in started:
        # It becomes a header field.
        assert event.nonce.isascii()
        assert event.nonce.isprintable()
        assert repr(event) == f"SessionStarted(session_id={event.session_id!r}, nonce='***')"
    if READERS and how.limits is None and not how.breaks:
        COMPARED[name] += 1
        assert [(event.session_id, event.nonce) for event in started] == oracle(dice.rest)


# --- Lists -----------------------------------------------------------------------------------------------


def models(data: bytes) -> None:
    """A list of models, and what it says of them."""
    dice = Dice(data)
    how = How(dice, "models")
    for event in checked(dice.rest, how):
        if isinstance(event, ModelList):
            for sort in (True, False):
                listed = catalogue(event, sort=sort)
                assert len(set(listed.names)) == len(listed.names)
                assert {*listed.image_models, *listed.vision_models} <= set(listed.names)
            assert catalogue(event).names == sorted({model.id for model in event.data} - {""})
    if how.plain and how.headers is JSON:
        try:
            value = json.loads(dice.rest)
            wanted = [model["id"] for model in value["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if all(isinstance(each, str) and each and each.isascii() for each in wanted) and not value.get("error"):
            COMPARED["models"] += 1
            event = read(dice.rest, **how.options())[0]
            assert isinstance(event, ModelList)
            assert [model.id for model in event.data] == wanted


def images(data: bytes) -> None:
    """Images that a server has made."""
    dice = Dice(data)
    how = How(dice, "images")
    for event in checked(dice.rest, how):
        if isinstance(event, ImagesResponse):
            COMPARED["images"] += 1
            assert event.data
            for image in event:
                assert image.url or image.b64_json
                try:
                    assert isinstance(image.data, bytes)
                    assert image.src
                except DOCUMENTED["media"]:
                    pass
                except Exception as error:
                    assert type(error).__name__ == "UnexpectedReplyError", error
