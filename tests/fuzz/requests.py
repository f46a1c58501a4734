"""Targets: requests of any parts: what goes out is one request, with the fields that it should have, or nothing."""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import parse_qs

from deltawire import Opchatgpts, OpenaiTemplate
from deltawire.protocol import (
    ChatRequest,
    Endpoint,
    HTTP1Exchange,
    HTTPRequest,
    ImageRequest,
    Proxy,
    Reply,
    Site,
)

from .common import COMPARED, DOCUMENTED, Dice

PROXY = Proxy.parse("http://user:password@proxy:3128")


NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
FRAMING = ("content-length", "transfer-encoding")


class Head(NamedTuple):
    """One request, as `naive_heads` finds it."""

    line: str
    fields: list[tuple[str, bytes]]
    body: bytes

    @property
    def names(self) -> list[str]:
        return sorted(name for name, _ in self.fields)


def naive_heads(sent: bytes) -> list[Head]:
    """All requests in these bytes: read by lines, as any server may; no line holds what could be another's end."""
    found = []
    while sent:
        head, blank, sent = sent.partition(b"\r\n\r\n")
        assert blank
        line, *rest = head.split(b"\r\n")
        assert not re.search(rb"[\x00\r\n]", line + b"".join(rest))
        assert re.fullmatch(rb"[A-Z]+ [!-~]+ HTTP/1\.1", line), line
        fields = []
        for each in rest:
            name, colon, value = each.partition(b": ")
            assert colon
            assert re.fullmatch(NAME, name), name
            assert re.fullmatch(VALUE, value), value
            fields.append((name.decode().lower(), value))
        assert len({name for name, _ in fields}) == len(fields), "no field stands twice"
        length = int(dict(fields).get("content-length", b"0"))
        body, sent = sent[:length], sent[length:]
        assert len(body) == length
        found.append(Head(line.decode(), fields, body))
    return found


class Parts:
    """What a caller gives, from the fuzzer's bytes."""

    def __init__(self, dice: Dice) -> None:
        self.what = dice.pick(("chat", "models", "images", "template", "submit", "session", "page", "opchatgpts"))
        flags = dice.byte()
        self.keyed, self.proxied, self.removes = flags & 1, flags & 2, flags & 4
        self.stream, self.base_given = bool(flags & 8), flags & 16
        (
            base, self.key, self.model, self.words, self.name, self.value, self.query, self.queried, self.agent,
            self.organization, self.nonce,
        ) = dice.texts(11)  # fmt: skip
        self.base = base if self.base_given else "http://h.example/v1"
        self.headers = {self.name: None if self.removes else self.value} if self.name else None
        self.extra_query = {self.query: self.queried} if self.query else None

    def chat(self) -> ChatRequest:
        return ChatRequest(
            messages=self.words,
            model=self.model,
            stream=self.stream,
            extra_headers=self.headers,
            extra_query=self.extra_query,
        )

    def request(self) -> HTTPRequest:
        """Raises ConfigurationError, or MissingAuthError, which is told apart by its class."""
        key = self.key if self.keyed else None
        if self.what in ("chat", "models", "images"):
            endpoint = Endpoint.at(
                self.base, user_agent=self.agent or "deltawire", organization=self.organization or None, needs_key=False
            )
            if self.what == "chat":
                return endpoint.prepare(self.chat(), api_key=key)[0]
            if self.what == "models":
                return endpoint.models(api_key=key, extra_headers=self.headers)
            return endpoint.images(
                ImageRequest(
                    prompt=self.words, model=self.model, extra_headers=self.headers, extra_query=self.extra_query
                ),
                api_key=key,
            )
        if self.what == "template":
            return OpenaiTemplate(api_base=self.base, api_key=key or "none").prepare(self.chat())[0]
        if self.what == "opchatgpts":
            return Opchatgpts(url=self.base, nonce=self.nonce or "n").prepare(self.chat())[0]
        site = Site.at(self.base, user_agent=self.agent or None)
        if self.what == "session":
            return site.start_session(extra_headers=self.headers)
        if self.what == "page":
            return site.page(extra_headers=self.headers)
        return site.prepare(self.chat(), nonce=self.nonce or None, chat_id=self.model, session_id=self.organization)[0]

    def wanted(self) -> set[str]:
        """The names of the fields that are to be there."""
        names = {"host", "accept-encoding", "user-agent", "accept"}
        if self.what in ("chat", "images", "template", "submit", "opchatgpts"):
            names |= {"content-type", "content-length"}
        if self.what == "session":
            names.add("content-length")
        if self.what in ("chat", "models", "images"):
            names |= {"authorization"} if self.keyed and self.key else set()
            names |= {"openai-organization"} if self.organization else set()
        if self.what == "template":
            names.add("authorization")
        if self.what == "opchatgpts" or (self.what == "submit" and self.nonce):
            names.add("x-wp-nonce")
        if self.name:
            names = names - {self.name.lower()} if self.removes else names | {self.name.lower()}
        return names


def requests(data: bytes) -> None:
    """Any URL, key, model, message, header field, query, user agent, nonce."""
    dice = Dice(data)
    parts = Parts(dice)
    try:
        request = parts.request()
        check_request(parts, request)
        exchange = HTTP1Exchange(request, Reply(), proxy=PROXY if parts.proxied else None)
    except DOCUMENTED["requests"] as error:
        # (A key that is a word of ours tells nothing.)
        assert (
            parts.key not in str(error)
            or len(parts.key) < 8
            or re.fullmatch("[A-Za-z -]+", parts.key)
            or parts.key in repr((parts.base, parts.words, parts.name))
        )
        return
    except DOCUMENTED["key"]:
        assert not (parts.keyed and parts.key)
        return
    COMPARED["requests"] += 1
    (sent,) = naive_heads(exchange.data_to_send())
    check_head(parts, sent, request)
    check_body(parts, sent)


def check_request(parts: Parts, request: HTTPRequest) -> None:
    """What other transports get, which may check nothing."""
    assert not re.search(r"[\x00-\x20\x7f]", parts.base), "no blank and no control is dropped from a URL"
    assert parts.name.lower() not in FRAMING
    assert sorted(name.decode() for name, _ in request.headers) == sorted(parts.wanted())
    for name, value in request.headers:
        assert re.fullmatch(NAME, name)
        assert re.fullmatch(VALUE, value)
        assert value == value.strip()
    place = re.split("[/?#]", parts.base.partition("://")[2])[0].lower()
    if place and place.isascii():
        standard = ":443" if parts.base.lower().startswith("https") else ":80"
        assert request.parts.authority == re.sub(":0*([0-9]+)$", r":\1", place).removesuffix(standard).removesuffix(":")


def check_head(parts: Parts, sent: Head, request: HTTPRequest) -> None:
    method, target, _ = sent.line.split(" ")
    assert method == ("GET" if parts.what in ("models", "page") else "POST")
    absolute = bool(parts.proxied) and request.parts.scheme == "http"
    assert target.startswith("http://" if absolute else "/")
    wanted = parts.wanted() | ({"proxy-authorization"} if absolute else set())
    assert sent.names == sorted(wanted)
    fields = dict(sent.fields)
    if (parts.name or "").lower() != "host":
        assert fields["host"].decode() == request.parts.authority
        assert re.fullmatch(rb"[a-z0-9._~-]+(:\d+)?|\[[0-9a-z:.%_~-]+\](:\d+)?", fields["host"]), fields["host"]
    if parts.name and not parts.removes:
        hidden = absolute and parts.name.lower() == "proxy-authorization"
        assert hidden or fields[parts.name.lower()] == parts.value.encode("latin-1")
    elif parts.keyed and "authorization" in wanted and parts.name.lower() != "authorization":
        assert fields["authorization"] == b"Bearer " + (parts.key or "none").encode("latin-1")
    if parts.query and parts.what in ("chat", "images", "template", "submit", "opchatgpts") and parts.queried:
        given = parse_qs(target.partition("?")[2], keep_blank_values=True)
        assert given[parts.query][-1:] == [parts.queried]


def check_body(parts: Parts, sent: Head) -> None:
    if parts.what in ("chat", "images", "template"):
        told = json.loads(sent.body)
        assert told["model"] == parts.model or (parts.what == "template" and not parts.model)
        assert (told["prompt"] if parts.what == "images" else told["messages"][-1]["content"]) == parts.words
    elif parts.what in ("submit", "opchatgpts"):
        assert json.loads(sent.body)["newMessage"] == parts.words
    else:
        assert sent.body == b""
