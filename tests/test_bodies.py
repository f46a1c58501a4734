"""bodies.py: Content-Encoding undone within limits, and the first bytes of a body."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
from feeding import (
    DONE,
    FINISH,
    JSON,
    QUICK,
    SSE,
    at_every_cut,
    delta,
    each_byte,
    ended,
    failure,
    pieces,
    read,
    same,
    splits,
    sse,
    text,
    ways,
)
from hypothesis import given
from hypothesis import strategies as st

from deltawire.protocol import (
    InternalServerError,
    LimitExceededError,
    Limits,
    Reply,
    StreamEnded,
    TruncatedStreamError,
    UnexpectedReplyError,
)
from deltawire.protocol.bodies import ContentDecoder, Sniffer, _until_wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from feeding import Headers

MIB = 1024 * 1024
EVENTS = sse(delta("hé"), FINISH, DONE)
DOCUMENT = json.dumps({"choices": [{"index": 0, "message": {"content": "hé"}, "finish_reason": "stop"}]}).encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"gzip", gzip.compress),
    (b"x-gzip", gzip.compress),
    (b"GZip", gzip.compress),
    (b" identity , gzip ", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", raw_deflate),
    (b"gzip", lambda data: gzip.compress(data[:40]) + gzip.compress(data[40:])),
]


def coded(coding: bytes, kind: Headers = SSE) -> Headers:
    return [*kind, (b"Content-Encoding", coding)]


def flushed(*parts: bytes) -> list[bytes]:
    """Each part as gzip gives it when it's flushed, as streaming servers do."""
    packer = zlib.compressobj(wbits=31)
    return [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]


# --- Undoing a coding ------------------------------------------------------------------------------


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
@pytest.mark.parametrize(("body", "kind"), [(EVENTS, SSE), (DOCUMENT, JSON)])
def test_codings(coding: bytes, pack: Callable[[bytes], bytes], body: bytes, kind: Headers) -> None:
    whole = read(body, headers=kind)
    assert text(whole) == "hé"
    packed = pack(body)
    for _, parts in ways(packed, range(1, len(packed), 3)):
        same(parts, whole, headers=coded(coding, kind))


@pytest.mark.parametrize("coding", [b"", b"identity", b"Identity", b" , ", b"identity, identity"])
def test_no_coding(coding: bytes) -> None:
    assert ContentDecoder.for_codings(coding) is None
    assert text(read(EVENTS, headers=coded(coding))) == "hé"


def test_events_come_as_soon_as_they_are_there() -> None:
    parts = flushed(sse(delta("a")), sse(delta("b")), sse(DONE))
    reply = Reply()
    reply.start(200, coded(b"gzip"))
    assert [len(reply.receive(part)) for part in parts] == [1, 1, 1]


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"compress", b"gzip, br", b"gzip, gzip", b"rot13", b"\xff"])
def test_an_unknown_coding_fails_at_the_head(coding: bytes) -> None:
    reply = Reply()
    error = failure(reply.start(200, coded(coding)))
    assert isinstance(error, UnexpectedReplyError)
    assert "Content-Encoding" in str(error)
    assert coding.decode("latin-1") in str(error)
    assert reply.receive(b"x") == reply.end() == []


def test_two_fields_are_one_list() -> None:
    headers = [*SSE, (b"content-encoding", b"gzip"), (b"content-encoding", b"br")]
    assert isinstance(failure(Reply().start(200, headers)), UnexpectedReplyError)


def test_an_unknown_coding_of_an_error_leaves_its_status() -> None:
    error = failure(Reply().start(503, coded(b"br")))
    assert isinstance(error, InternalServerError)
    assert error.status_code == 503


def test_a_coded_error_body() -> None:
    body = gzip.compress(b'{"error": {"message": "boom"}}')
    for _, parts in ways(body, [10]):
        error = failure(read(parts, status=500, headers=coded(b"gzip", JSON)))
        assert isinstance(error, InternalServerError)
        assert "boom" in str(error)


@pytest.mark.parametrize("status", [400, 500])
def test_a_broken_coding_of_an_error_leaves_its_status(status: int) -> None:
    for body in (b"plain words", gzip.compress(b"words")[:-12] + b"\xff" * 12):
        error = failure(read(body, status=status, headers=coded(b"gzip", JSON)))
        assert getattr(error, "status_code", None) == status


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_what_is_not_what_it_claims(coding: bytes) -> None:
    for _, parts in at_every_cut(b"\xff" + EVENTS[:40]):
        error = failure(read(parts, headers=coded(coding)))
        assert isinstance(error, UnexpectedReplyError)
        assert "Content-Encoding" in str(error)


def test_good_events_before_corruption_are_delivered_however_it_is_cut() -> None:
    good = b"".join(flushed(sse(delta("a"), delta("b"))))
    body = good + b"\xff" * 20
    whole = read(pieces(body, [len(good)]), headers=coded(b"gzip"))
    assert text(whole) == "ab"
    assert isinstance(failure(whole), UnexpectedReplyError)
    for _, parts in ways(body, [20, len(good) - 1, len(good) + 1]):
        same(parts, whole, headers=coded(b"gzip"))


def test_a_wrong_checksum_after_the_verdict_does_no_harm_however_it_is_cut() -> None:
    packed = gzip.compress(EVENTS)
    body = packed[:-8] + b"\0" * 8
    for _, parts in ways(body, [len(body) - 8, len(body) - 9]):
        assert ended(read(parts, headers=coded(b"gzip"))).finished


def test_a_coded_body_that_is_cut_off() -> None:
    body = b"".join(flushed(sse(delta("a")), sse(FINISH, DONE)))
    for stop in range(len(body)):
        events = read(body[:stop], headers=coded(b"gzip"))
        if not isinstance(events[-1], StreamEnded):
            assert isinstance(failure(events), TruncatedStreamError)
    packed = gzip.compress(DOCUMENT)
    assert isinstance(failure(read(packed[:-20], headers=coded(b"gzip", JSON))), TruncatedStreamError)


def test_what_follows_the_end_of_the_coding_is_ignored() -> None:
    for junk in (b"\0" * 50, b"junk", b"\x1f", b"\x1fx"):
        packed = gzip.compress(DOCUMENT) + junk
        whole = read(packed, headers=coded(b"gzip", JSON))
        assert text(whole) == "hé"
        for _, parts in ways(packed, [len(packed) - 1, len(packed) - len(junk)]):
            same(parts, whole, headers=coded(b"gzip", JSON))


@QUICK
@given(
    st.binary(max_size=60).flatmap(lambda data: st.tuples(st.just(data), splits(data))),
    st.sampled_from([b"gzip", b"deflate"]),
    st.integers(0, 90),
)
def test_any_coded_bytes_never_raise(data: tuple[bytes, list[bytes]], coding: bytes, keep: int) -> None:
    head = gzip.compress(EVENTS)[:keep] if coding == b"gzip" else zlib.compress(EVENTS)[:keep]
    whole = read(head + data[0], headers=coded(coding))
    parts = read([head, *data[1]], headers=coded(coding))
    assert type(whole[-1]) is type(parts[-1])


@QUICK
@given(st.binary(max_size=400), st.randoms(use_true_random=False))
def test_any_document_comes_out_as_it_went_in(data: bytes, chance: random.Random) -> None:
    for coding, pack in ((b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"deflate", raw_deflate)):
        decoder = ContentDecoder.for_codings(coding)
        assert decoder is not None
        packed = pack(data)
        cuts = [chance.randrange(len(packed)) for _ in range(3)]
        assert b"".join(piece for part in pieces(packed, cuts) for piece in decoder.receive(part)) == data


# --- Bombs -----------------------------------------------------------------------------------------


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("start", "kind", "status", "limits", "name"),
    [
        (b"data: ", SSE, 200, Limits(line=MIB), "line"),
        (b": x\n" * 300_000, SSE, 200, Limits(event=MIB), "event"),
        (b"\n" * MIB, SSE, 200, Limits(reply=MIB), "reply"),
        (b"{", JSON, 200, Limits(document=MIB), "document"),
    ],
)
def test_a_zip_bomb_meets_the_limits(start: bytes, kind: Headers, status: int, limits: Limits, name: str) -> None:
    packer = zlib.compressobj(9, wbits=31)
    fill = b"\n" if name == "reply" else b" "
    body = packer.compress(start) + b"".join(packer.compress(fill * MIB) for _ in range(64)) + packer.flush()
    assert len(body) < MIB // 4
    for parts in ([body], pieces(body, range(0, len(body), 4096))):
        reply = Reply(limits=limits)
        reply.start(status, coded(b"gzip", kind))

        def work(reply: Reply = reply, parts: list[bytes] = parts) -> None:
            error = failure([event for part in parts for event in reply.receive(part)])
            assert isinstance(error, LimitExceededError)
            assert error.limit_name == name

        assert peak_of(work) < 4 * MIB


def test_a_zip_bomb_of_an_error_is_cut() -> None:
    body = gzip.compress(b"boom " * 10_000_000)
    reply = Reply()
    reply.start(500, coded(b"gzip", JSON))

    def work() -> None:
        error = failure(reply.receive(body))
        assert isinstance(error, InternalServerError)
        assert isinstance(error.body, str)
        assert len(error.body) == Limits().error_body

    assert peak_of(work) < 2 * MIB


def test_junk_after_the_end_of_the_coding_is_not_kept() -> None:
    # Bytes that decode to nothing count for no limit: so nothing may hold on to them.
    reply = Reply()
    reply.start(200, coded(b"gzip", JSON))
    reply.receive(gzip.compress(DOCUMENT))
    junk = b"\0" * (64 * 1024)

    def work() -> None:
        for _ in range(128):
            assert reply.receive(junk) == []

    assert peak_of(work) < MIB
    assert text(reply.end()) == "hé"


# --- What a body is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "kind"),
    [
        (b"text/event-stream", b"{", "document"),
        (b"text/event-stream", b"[", "document"),
        (b"text/event-stream", b"<br>", "events"),
        (b"text/event-stream", b"x", "events"),
        (b"TEXT/Event-Stream ; charset=utf-8", b"x", "events"),
        (b"text/event-streams", b"x", "neither"),
        (b"application/json", b"data:", "events"),
        (b"application/json", b"event:x", "events"),
        (b"", b"id:", "events"),
        (b"", b"retry: 5", "events"),
        (b"", b":", "events"),
        (b"", b"datas:", "neither"),
        (b"", b"data", None),
        (b"", b"e", None),
        (b"", b"x", "neither"),
        (b"", b"", None),
        (b"", b" \r\n\t ", None),
        (b"", b" \r\n\t {", "document"),
        (b"", b"\xef\xbb\xbf{", "document"),
        (b"", b"\xef\xbb\xbf\n data:", "events"),
        (b"", b"\xef\xbb", None),
        (b"", b"\xef\xbbx", "neither"),
        (b"", b"\n\xef\xbb\xbf{", "neither"),
    ],
)
def test_the_sniffer(content_type: bytes, body: bytes, kind: str | None) -> None:
    assert Sniffer(content_type).receive(body) == kind
    sniffer = Sniffer(content_type)
    found = None
    for part in each_byte(body):
        found = sniffer.receive(part)
        if found is not None:
            break
    assert found == kind


def test_the_sniffer_keeps_what_counts() -> None:
    sniffer = Sniffer(b"")
    assert sniffer.receive(b"\xef\xbb\xbf  \n") is None
    assert sniffer.receive(b"\n dat") is None
    assert sniffer.receive(b"a: x\n") == "events"
    assert sniffer.seen == b"data: x\n"


def test_blanks_for_ever_are_not_kept() -> None:
    sniffer = Sniffer(b"")
    for _ in range(1000):
        assert sniffer.receive(b" \n" * 500) is None
        assert sniffer.seen == b""
    error = failure(read([b" " * 1000] * 100, limits=Limits(reply=50_000)))
    assert isinstance(error, LimitExceededError)


def test_byte_by_byte_up_to_the_one_that_is_wrong() -> None:
    whole = gzip.compress(b"abc")
    assert b"".join(_until_wrong(zlib.decompressobj(47), whole)) == b"abc"
    wrong = _until_wrong(zlib.decompressobj(47), whole[:-8] + b"????????")
    assert next(wrong) == b"a"
    with pytest.raises(ValueError, match="incorrect data check"):
        list(wrong)


def test_what_comes_at_once_is_undone_in_steps() -> None:
    # As good as random, so that it stays longer than several steps.
    plain = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(3000))
    for coding, packed in ((b"gzip", gzip.compress(plain)), (b"deflate", zlib.compress(plain))):
        decoder = ContentDecoder.for_codings(coding)
        assert decoder is not None
        assert b"".join(decoder.receive(packed)) == plain


def test_a_coding_that_was_not_asked_for() -> None:
    with pytest.raises(ValueError, match="Content-Encoding") as caught:
        ContentDecoder.for_codings(b"b" * 200)
    shown = repr("b" * 100)
    assert str(caught.value) == (
        f"the body has the Content-Encoding {shown}, which was not asked for and can't be undone"
    )
