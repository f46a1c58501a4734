"""``deltawire demo``: the main job on one machine, with nothing but loopback."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from .client import Client
from .testing import Answer, ChatServer, ProxyServer

_TOKENS = (
    "Each", " of", " these", " words", " crossed", " a", " proxy", ",", " one", " by", " one", ",",
    " after", " a", " first", " attempt", " that", " failed", ".",
)  # fmt: skip
_PACE = 0.05


def run(*, as_json: bool, stop_proxy: bool) -> int:
    """Stream a chat through the local proxy, the first attempt answered 503. Gives the exit status."""
    with (
        ChatServer(tokens=_TOKENS, pace=_PACE) as server,
        ProxyServer(username="demo", password="local only") as proxy,
        Client(base_url=server.url, proxies=proxy.url, trust_env=False) as client,
    ):
        server.plan(Answer.error(503, "The demo asked for this failure.", retry_after=0.1))
        _say(f"server {server.url}, behind proxy {proxy.address}; it will answer 503 once", as_json)
        if stop_proxy:
            proxy.stop()
            _say("the proxy is stopped", as_json)
        begin = time.monotonic()
        arrived: list[dict[str, Any]] = []
        with client.chat.completions.create("Say something.", "local-model", stream=True) as stream:
            _say(f"connected after {stream.retries_taken} retry; tokens as they come:", as_json)
            for chunk in stream:
                text = "".join(choice.delta.content or "" for choice in chunk.choices)
                if text:
                    arrived.append({"text": text, "at": round(time.monotonic() - begin, 4)})
                    if not as_json:
                        print(text, end="", flush=True)
        if not as_json:
            print()
        report = _report(server, proxy, arrived)
    if as_json:
        print(json.dumps(report))
    good = report["through_proxy"] and [each["status"] for each in report["server"]] == [503, 200]
    _say(f"{len(report['server'])} requests, {len(report['proxy'])} of them through the proxy", as_json)
    return 0 if good and "".join(each["text"] for each in arrived) == "".join(_TOKENS) else 1


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        print(f"[demo] {text}", file=sys.stderr, flush=True)


def _report(server: ChatServer, proxy: ProxyServer, arrived: list[dict[str, Any]]) -> dict[str, Any]:
    """What server and proxy logged. A request went through the proxy if the proxy's mark (Via) is on it."""
    seen = [
        {"method": each.method, "path": each.path, "status": each.status, "via": each.header("via")}
        for each in server.requests
    ]
    passed = [
        {"method": each.method, "target": each.target, "status": each.status, "authorized": each.authorized}
        for each in proxy.requests
    ]
    through = len(seen) == len(passed) and all(each["via"] for each in seen)
    return {"server": seen, "proxy": passed, "through_proxy": through, "tokens": arrived}
