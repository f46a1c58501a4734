"""site.py: the requests to a WordPress site with AI Engine."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from feeding import SSE, sse, text
from make_expected import SITE_RECORDINGS

from deltawire.protocol import (
    ChatRequest,
    ConfigurationError,
    HTTPRequest,
    Limits,
    Message,
    Proxy,
    Site,
    State,
    chat_id_of,
    render_history,
)
from deltawire.protocol.site import site_options

if TYPE_CHECKING:
    from collections.abc import Mapping

HISTORY = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
]
MESSAGES = [*HISTORY, {"role": "user", "content": "And the water? 水"}]


def body_of(request: HTTPRequest) -> dict[str, Any]:
    decoded = json.loads(request.body)
    assert isinstance(decoded, dict)
    return decoded


def submit(site: Site | None = None, messages: Any = "hi", **how: Any) -> HTTPRequest:
    return (site or Site.at("https://x.org")).submit(messages, stream=how.pop("stream", True), **how)


def recorded(name: str) -> tuple[dict[bytes, bytes], dict[str, Any]]:
    """The header fields and the body of a recorded request."""
    head, _, body = (SITE_RECORDINGS / f"{name}.request").read_bytes().partition(b"\r\n\r\n")
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in lines}, json.loads(body)


# --- Today's requests ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["01_stream_with_history", "02_nostream_with_history", "07_first_no_history_stream"])
def test_the_request_is_the_front_end_s(name: str) -> None:
    fields, body = recorded(name)
    stream = body["stream"]
    messages = [*body["messages"], {"role": "user", "content": body["newMessage"]}]
    request = Site.at(f"http://{fields[b'host'].decode()}").submit(
        messages,
        stream=stream,
        nonce="ad3ef53988",
        chat_id=body["chatId"],
        session_id=body["session"],
    )
    # The front end keeps more of its own beside role and content; the site reads none of it.
    body["messages"] = [{"role": each["role"], "content": each["content"]} for each in body["messages"]]
    assert body_of(request) == body
    assert list(body_of(request)) == list(body)
    sent = dict(request.headers)
    assert request.method == "POST"
    assert request.url == f"http://{fields[b'host'].decode()}/wp-json/mwai-ui/v1/chats/submit"
    assert sent[b"content-length"] == b"%d" % len(request.body)
    for field in (b"host", b"x-wp-nonce", b"content-type"):
        assert sent[field] == fields[field]
    assert sent[b"accept"] == (fields[b"accept"] if stream else b"application/json")


def test_the_history_goes_without_the_new_message() -> None:
    body = body_of(submit(messages=MESSAGES))
    assert body["messages"] == HISTORY
    assert body["newMessage"] == "And the water? 水"
    body = body_of(submit(Site.at("https://x.org", history_with_last=True), MESSAGES))
    assert body["messages"] == MESSAGES
    assert body["newMessage"] == "And the water? 水"


def test_the_new_message_is_the_user_s_last() -> None:
    ends = [*MESSAGES, {"role": "assistant", "content": "It is blue."}]
    for messages in (ends, [*MESSAGES, {"role": "system", "content": "In French."}], ends[-1:]):
        with pytest.raises(ConfigurationError) as caught:
            submit(messages=messages)
        assert str(caught.value) == (
            "the site takes the user's message after all others: end the messages with it (or give newMessage), or "
            "make one text of them all (render_history, or supports_message_history = False of the provider)"
        )
    # Given apart, it comes after them all.
    body = body_of(submit(messages=ends, options={"newMessage": "Why?"}))
    assert body["messages"] == ends
    assert body["newMessage"] == "Why?"
    (whole,) = render_history(ends)
    assert body_of(submit(messages=[whole]))["newMessage"].endswith("Assistant: It is blue.")


CALL = {"id": "1", "type": "function", "function": {"name": "w", "arguments": "{}"}}


@pytest.mark.parametrize("historical", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": "x", "function_call": {"name": "w", "arguments": "{}"}},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
        {"role": "function", "name": "w", "content": "rain"},
    ],
)
def test_tools_are_not_passed_over(message: dict[str, Any], historical: bool) -> None:
    messages = [message, {"role": "user", "content": "And now?"}]
    site = Site.at("https://x.org", historical=historical)
    with pytest.raises(ConfigurationError, match=r"tool calls.*render_history"):
        submit(site, messages)
    assert body_of(submit(site, render_history(messages)))["newMessage"].endswith("User: And now?")


def test_the_forms_of_messages() -> None:
    assert body_of(submit(messages="hi"))["newMessage"] == "hi"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]
    assert body_of(submit(messages=({"role": "user", "content": parts},)))["newMessage"] == "a\nb\nc"
    said = Message(role="assistant", content="yes")
    called: dict[str, object] = {"role": "assistant", "content": None, "tool_calls": []}
    body = body_of(submit(messages=[said, called, {"role": "user", "content": "x", "name": "me"}]))
    assert body["messages"] == [{"role": "assistant", "content": "yes"}, {"role": "assistant", "content": ""}]


BLANK = r"^the site takes no blank message: the last message of the user must hold text \(or give newMessage\)$"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("", BLANK),
        (" \n", BLANK),
        ([], BLANK),
        ([{"role": "user", "content": None}], BLANK),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}], "image_url"),
        ([{"role": "user", "content": [5]}], "parts of a content"),
        ([{"role": "user", "content": 5}], "must be a str, a list"),
        ([{"content": "x"}], "must hold dicts"),
        (["hi"], "must hold dicts"),
        ({"role": "user"}, "must be a list"),
        ([{"role": "user", "content": b"x"}], "bytes"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_is_refused(messages: Any, words: str) -> None:
    for site in (Site.at("https://x.org"), Site.at("https://x.org", historical=True)):
        with pytest.raises(ConfigurationError, match=words):
            submit(site, messages)


def test_options_win() -> None:
    options = {"botId": "mine", "maxTokens": 4, "messages": [], "contextId": None, "stream": False}
    body = body_of(submit(messages=MESSAGES, options=options))
    assert {key: body[key] for key in options} == options
    assert body["newMessage"] == "And the water? 水"
    # A shortcut needs no message.
    assert body_of(submit(messages="", options={"shortcutId": "x"}))["newMessage"] == ""
    assert body_of(submit(messages="", options={"newMessage": "y"}))["newMessage"] == "y"


@pytest.mark.parametrize("value", [b"x", float("nan"), object()])
def test_options_that_json_can_t_say(value: object) -> None:
    with pytest.raises(ConfigurationError):
        submit(options={"a": value})


def test_the_session() -> None:
    assert body_of(submit())["session"] is None
    assert body_of(submit(Site.at("https://x.org", session="mine")))["session"] == "mine"
    assert body_of(submit(Site.at("https://x.org", session="mine"), session_id="s"))["session"] == "s"
    # A page may not tell.
    assert body_of(submit(Site.at("https://x.org", session="mine"), session_id=""))["session"] == "mine"


def test_the_bot() -> None:
    body = body_of(submit(Site.at("https://x.org", bot_id=None, custom_id="c1", context_id=7)))
    assert (body["botId"], body["customId"], body["contextId"]) == (None, "c1", 7)
    with pytest.raises(ConfigurationError, match=r"^a site is asked for one of its bots: give bot_id or custom_id$"):
        Site.at("https://x.org", bot_id="")


def test_a_site_stays_as_it_is() -> None:
    with pytest.raises(AttributeError):
        Site.at("https://x.org").bot_id = "b"  # type: ignore[misc]


def test_no_nonce_no_field() -> None:
    assert b"x-wp-nonce" not in dict(submit().headers)
    assert dict(submit(nonce="n1").headers)[b"x-wp-nonce"] == b"n1"
    with pytest.raises(ConfigurationError, match="x-wp-nonce"):
        submit(nonce="a\r\nb")


# --- The historical client -------------------------------------------------------------------------


def test_the_historical_request() -> None:
    site = Site.at("https://opchatgpts.net", historical=True)
    request = submit(site, MESSAGES, chat_id="k3p9w1abcd")
    assert (
        request.body
        == json.dumps(
            {
                "botId": "default",
                "chatId": "k3p9w1abcd",
                "contextId": 28,
                "customId": None,
                "messages": MESSAGES,
                "newMessage": "And the water? 水",
                "session": "N/A",
                "stream": True,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
    )
    fields = dict(request.headers)
    assert request.url == "https://opchatgpts.net/wp-json/mwai-ui/v1/chats/submit"
    assert fields.pop(b"user-agent").startswith(b"Mozilla/5.0 (Windows NT 10.0; Win64; x64)")
    assert fields == {
        b"host": b"opchatgpts.net",
        b"accept-encoding": b"identity",
        b"accept": b"*/*",
        b"accept-language": b"de,en-US;q=0.7,en;q=0.3",
        b"origin": b"https://opchatgpts.net",
        b"referer": b"https://opchatgpts.net/chatgpt-free-use/",
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(request.body),
    }
    assert site.nonce_from is None
    assert body_of(submit(site, stream=False))["stream"] is True


def test_the_historical_siblings() -> None:
    site = Site.at(
        "http://x.org/blog/", historical=True, context_id=9, session="s", history_with_last=False, nonce_from="page",
        custom_id="c", user_agent="ua", page_path="/chat/",
    )  # fmt: skip
    assert site.nonce_from == "page"
    assert site.page().url == "http://x.org/blog/chat/"
    request = submit(site, MESSAGES, nonce="n", options={"newImageId": None, "stream": False})
    body = body_of(request)
    assert (body["contextId"], body["session"], body["customId"]) == (9, "s", "c")
    assert body["messages"] == HISTORY
    assert body["newImageId"] is None
    assert body["stream"] is False
    fields = dict(request.headers)
    assert fields[b"user-agent"] == b"ua"
    assert fields[b"x-wp-nonce"] == b"n"
    assert fields[b"origin"] == b"http://x.org"
    assert fields[b"referer"] == b"http://x.org/blog/chat/"


def test_the_historical_messages_go_as_they_are() -> None:
    messages = [{"role": "user", "content": "a", "name": "me"}]
    assert body_of(submit(Site.at("https://x.org", historical=True), messages))["messages"] == messages


# --- Sessions and pages ----------------------------------------------------------------------------


def test_the_request_for_a_session() -> None:
    request = Site.at("https://x.org").start_session()
    assert (request.method, request.body) == ("POST", b"")
    assert request.url == "https://x.org/wp-json/mwai/v1/start_session"
    assert dict(request.headers) == {
        b"host": b"x.org",
        b"accept-encoding": b"identity",
        b"user-agent": b"deltawire",
        b"accept": b"application/json",
        b"content-length": b"0",
    }


def test_the_request_for_a_page() -> None:
    request = Site.at("https://x.org").page(extra_headers={"Cookie": "a=b"})
    assert (request.method, request.url, request.body) == ("GET", "https://x.org/", b"")
    fields = dict(request.headers)
    assert fields[b"accept"] == b"text/html"
    assert fields[b"cookie"] == b"a=b"
    assert b"content-length" not in fields


# --- URLs and fields -------------------------------------------------------------------------------


SUBMIT = "/wp-json/mwai-ui/v1/chats/submit"
SESSION = "/wp-json/mwai/v1/start_session"
ROUTE, START = "rest_route=/mwai-ui/v1/chats/submit", "rest_route=/mwai/v1/start_session"
PLAIN = {"path": "/?rest_route=/a", "session_path": "/index.php?rest_route=/c"}


@pytest.mark.parametrize(
    ("url", "how", "submits", "starts", "page"),
    [
        ("https://x.org", {}, SUBMIT, SESSION, "/"),
        ("https://x.org/", {}, SUBMIT, SESSION, "/"),
        ("https://x.org/blog//", {}, "/blog" + SUBMIT, "/blog" + SESSION, "/blog/"),
        ("https://x.org" + SUBMIT, {}, SUBMIT, SESSION, "/"),
        ("https://x.org/b?l=1", {"path": "/s", "page_path": "/p"}, "/b/s?l=1", f"/b{SESSION}?l=1", "/b/p?l=1"),
        ("https://x.org", PLAIN, "/?rest_route=/a", "/index.php?rest_route=/c", "/"),
        (
            "https://x.org/b?l=1",
            {**PLAIN, "default_query": {"k": "v"}},
            "/b/?l=1&rest_route=/a&k=v",
            "/b/index.php?l=1&rest_route=/c&k=v",
            "/b/?l=1&k=v",
        ),
        # The session's path has the form of the other one.
        ("https://x.org/b", {"path": "/?" + ROUTE}, "/b/?" + ROUTE, "/b/?" + START, "/b/"),
        ("https://x.org", {"path": "/?l=1&rest_route=%2Fa"}, "/?l=1&rest_route=%2Fa", "/?l=1&" + START, "/"),
        ("https://x.org", {"path": "/index.php" + SUBMIT}, "/index.php" + SUBMIT, "/index.php" + SESSION, "/"),
        ("https://x.org", {"path": "/?no_rest_route=1"}, "/?no_rest_route=1", SESSION, "/"),
        # As does a URL that holds the route.
        ("https://x.org?" + ROUTE, {}, "/?" + ROUTE, "/?" + START, "/"),
        (f"https://x.org/b/?{ROUTE}&l=1#top", {}, "/b/?l=1&" + ROUTE, "/b/?l=1&" + START, "/b/?l=1"),
        ("https://x.org/index.php?" + ROUTE, {}, "/index.php?" + ROUTE, "/index.php?" + START, "/"),
        ("https://x.org/?" + ROUTE, {"path": "/s"}, "/s", SESSION, "/"),
    ],
)
def test_urls(url: str, how: Mapping[str, Any], submits: str, starts: str, page: str) -> None:
    site = Site.at(url, **how)
    found = [submit(site).url, site.start_session().url, site.page().url]
    assert found == ["https://x.org" + target for target in (submits, starts, page)]


@pytest.mark.parametrize(
    ("url", "how", "words"),
    [
        ("x.org", {}, "url must begin with http"),
        ("https://u:p@x.org", {}, "credentials"),
        (5, {}, "url must be a str"),
        ("https://x.org", {"path": "submit"}, "a path of a site begins with '/', not as 'submit' does"),
        ("https://x.org", {"path": None}, "a path of a site begins with '/', not as None does"),
        ("https://x.org", {"session_path": None}, "a path of a site begins with '/', not as None does"),
        ("https://x.org", {"path": "/a b"}, "character"),
        ("https://x.org", {"page_path": "/a?b\r\nX: y"}, "character"),
        ("https://x.org", {"nonce_from": "air"}, "nonce_from must be 'start_session', 'page' or None, not 'air'"),
        ("https://x.org", {"default_headers": {"a b": "x"}}, "header name"),
        ("https://x.org", {"default_headers": {"Content-Length": "5"}}, "content-length"),
        ("https://x.org", {"user_agent": "a\nb"}, "user-agent"),
    ],
)
def test_bad_sites(url: Any, how: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        Site.at(url, **how)
    if words.startswith(("a path", "nonce_from")):
        assert str(caught.value) == words


def test_header_fields_of_the_caller_win() -> None:
    site = Site.at(
        "https://x.org", default_headers={"Accept": "a/b", "User-Agent": None, "X-A": "1", "X-WP-Nonce": "mine"}
    )
    fields = submit(site, nonce="n", extra_headers={"X-A": "2", "Content-Type": None}).headers
    assert len({name for name, _ in fields}) == len(fields)
    sent = dict(fields)
    assert (sent[b"accept"], sent[b"x-a"], sent[b"x-wp-nonce"]) == (b"a/b", b"2", b"mine")
    assert not {b"user-agent", b"content-type"} & sent.keys()
    assert dict(site.page().headers)[b"x-a"] == b"1"


def test_no_site_shows_credentials() -> None:
    site = Site.at(
        "https://x.org",
        default_headers={"Authorization": "Basic s3cret", "Cookie": "s3cret"},
        default_query={"k": "s3cret"},
    )
    assert repr(site) == str(site) == "Site('https://x.org/wp-json/mwai-ui/v1/chats/submit')"


# --- With the machine for the reply ----------------------------------------------------------------


@pytest.mark.parametrize("stream", [None, False, True])
def test_prepared(stream: bool | None) -> None:
    site = Site.at("https://x.org", default_query={"v": "secret-in-query"})
    chat = ChatRequest(
        messages=MESSAGES,
        model="m",
        stream=stream,
        params={"max_tokens": 4, "temperature": 0.5, "top_p": None, "stop": "lo"},
        extra_body={"botId": "mine", "temperature": 1},
        extra_headers={"X-A": "1"},
    )
    proxy, limits = Proxy.parse("http://me:pass-word@p:3128"), Limits(head=100)
    session = {"nonce": "n0nce-n0nce", "chat_id": "abc", "session_id": "s1"}
    request, reply = site.prepare(chat, **session, proxy=proxy, limits=limits)
    assert request == site.submit(
        MESSAGES,
        stream=bool(stream),
        options={"maxTokens": 4, "temperature": 1, "botId": "mine"},
        extra_headers={"X-A": "1"},
        **session,
    )
    assert (reply.dialect, reply.stream, reply.limits, reply.state) == ("opchatgpts", bool(stream), limits, State.IDLE)
    context = reply.context
    assert context.url == "https://x.org/wp-json/mwai-ui/v1/chats/submit"
    assert (context.proxy, context.key_name) == ("http://p:3128", "")
    assert {"n0nce-n0nce", "secret-in-query", "pass-word"} <= set(context.secrets)
    # Sites know no stop words: the reply does.
    reply.start(200, SSE)
    assert text(reply.receive(sse(*({"type": "live", "data": word} for word in ("Hel", "lo", " you"))))) == "Hel"


def test_prepared_without_more() -> None:
    site = Site.at("https://x.org")
    request, reply = site.prepare(ChatRequest(messages="hi", model=None))
    assert request == submit(site, stream=False)
    assert reply.limits == Limits()
    assert (reply.context.proxy, reply.context.secrets) == ("", ())
    reply.start(200, SSE)
    assert text(reply.receive(sse({"type": "live", "data": "lo"}))) == "lo"


def test_prepared_with_a_query() -> None:
    chat = ChatRequest(messages="hi", model="m", extra_query={"a": 1, "k": "secret-in-query"})
    for url, wanted in (
        ("https://x.org", "/wp-json/mwai-ui/v1/chats/submit?a=1&k=secret-in-query"),
        ("https://x.org/?rest_route=/mwai-ui/v1/chats/submit&v=2", None),
    ):
        request, reply = Site.at(url).prepare(chat)
        plain = Site.at(url).prepare(ChatRequest(messages="hi", model="m"))[0]
        mark = "&" if "?" in plain.url else "?"
        assert request == plain.to(f"{plain.url}{mark}a=1&k=secret-in-query")
        assert wanted in (None, request.parts.target)
        assert "secret-in-query" in reply.context.secrets
    slash = Site.at("https://x.org", path="/chat/").prepare(chat)[0]
    assert slash.parts.target == "/chat/?a=1&k=secret-in-query"


def test_prepared_for_what_can_not_be_sent() -> None:
    with pytest.raises(ConfigurationError, match="blank"):
        Site.at("https://x.org").prepare(ChatRequest(messages=" ", model="m"))
    with pytest.raises(ConfigurationError):
        Site.at("https://x.org").prepare(ChatRequest(messages="hi", model="m", params={"stop": [""]}))


@pytest.mark.parametrize(
    ("params", "extra_body", "options"),
    [
        ({}, None, {}),
        ({"stop": "x", "seed": None, "top_p": 0, "user": ""}, {}, {"top_p": 0, "user": ""}),
        ({"max_tokens": 4}, None, {"maxTokens": 4}),
        ({"max_completion_tokens": 5}, None, {"maxTokens": 5}),
        ({"max_tokens": 4}, {"maxTokens": 6}, {"maxTokens": 6}),
        # What goes into the body as it is, does.
        ({"temperature": 1}, {"stop": "x", "max_tokens": 4, "temperature": None},
         {"stop": "x", "max_tokens": 4, "temperature": None}),
    ],
)  # fmt: skip
def test_parameters_as_a_site_takes_them(params: Any, extra_body: Any, options: Any) -> None:
    assert site_options(params, extra_body) == options


# --- Names of conversations ------------------------------------------------------------------------


def test_names_of_conversations() -> None:
    assert chat_id_of(bytes(16)) == "a" * 10
    assert chat_id_of(b"\xff" * 16) != chat_id_of(b"\xfe" * 16)
    names = {chat_id_of(bytes([0, each] * 8)) for each in range(256)}
    assert len(names) == 256
    assert all(re.fullmatch("[a-z0-9]{10}", name) for name in names)
    assert len(chat_id_of(b"12345678")) == 10
    with pytest.raises(ConfigurationError, match=r"^chat_id_of needs at least 8 random bytes$"):
        chat_id_of(b"1234567")
