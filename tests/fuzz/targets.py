"""All targets by name."""

from __future__ import annotations

from collections.abc import Callable

from . import connections, proxies, replies, requests, streams, times, values

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    "sse": streams.sse,
    "openai": replies.openai,
    "document": replies.document,
    "opchatgpts": replies.opchatgpts,
    "session": replies.session,
    "page": replies.page,
    "models": replies.models,
    "images": replies.images,
    "refusal": replies.refusal,
    "coded": replies.coded,
    "http1": connections.http1,
    "http_connect": connections.http_connect,
    "socks5": connections.socks5,
    "deadlines": times.deadlines,
    "retry_after": times.retry_after,
    "proxy_url": proxies.proxy_url,
    "no_proxy": proxies.no_proxy,
    "requests": requests.requests,
    "json": values.lenient_json,
    "media": values.media,
    "base64": values.base_64,
}
