"""The soak of `Client`: threads that block, and share clients."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import threading
import time
from concurrent import futures
from typing import Any

from acts import HEADER, Act, acts, judge, judge_failure
from soaking import ROUTE_OPTIONS, Soak, delta

from deltawire import Client, OpenaiTemplate, RetryProvider
from deltawire.transports import HTTPCoreTransport, WireTransport

HI = "Hi"

MANNERS = {
    "read": 6, "ask": 3, "models": 2, "close": 2, "drop": 2, "cycle": 1, "with": 1, "raise": 1, "generator": 1,
    "closed elsewhere": 2, "client closed": 1, "client dropped": 1, "fail over": 1,
}  # fmt: skip
WORKERS = 8


class Threads:
    """Clients, and workers that share them."""

    def __init__(self, soak: Soak) -> None:
        self._soak = soak
        kind = {"httpcore": HTTPCoreTransport, "wire": WireTransport}[soak.transport]
        self._few = kind(verify=soak.peers.authority, max_connections=WORKERS // 2)
        self.clients = {route: self._client(route) for route in soak.peers.routes}
        bases = [soak.peers.routes[name][0] for name in ("direct", "tls")]
        self._both = RetryProvider([OpenaiTemplate(api_base=base) for base in bases], shuffle=False)
        self._workers = [(random.Random(f"{soak.seed} {each}"), itertools.count()) for each in range(WORKERS)]

    def _client(self, route: str) -> Client:
        options: dict[str, Any] = {"transport": self._few} if route == "few" else self._soak.connection_options()
        base, proxy = self._soak.peers.routes[route]
        return Client(base_url=base, proxies=proxy, **ROUTE_OPTIONS, **options)

    def round(self, until: float) -> None:
        """All workers work, and come to rest."""
        with futures.ThreadPoolExecutor(WORKERS, "worker") as pool:
            for each in [pool.submit(self._work, worker, until) for worker in range(WORKERS)]:
                each.result()
        gc.collect()
        deadline = time.monotonic() + 5
        for route, client in self.clients.items():
            connections = client.transport.connections  # type: ignore[attr-defined]
            # What was dropped may be in the hands of a collection that another thread has begun: then ours did nothing.
            while (busy := connections()[0]) and time.monotonic() < deadline:
                time.sleep(0.01)
                gc.collect()
            self._soak.check(busy == 0, f"{busy} connections of {route!r} are busy, and nobody is")

    def close(self) -> None:
        """The end of it all."""
        for client in self.clients.values():
            client.close()
        self._few.close()

    def _work(self, worker: int, until: float) -> None:
        dice, numbers = self._workers[worker]
        while time.monotonic() < until and not self._soak.failed:
            with self._soak.noting():
                act = acts(f"{self._soak.seed}.{worker}", dice, MANNERS, next(numbers))
                self._soak.done(self._do(act))

    def _do(self, act: Act) -> str:
        """Do it; gives its outcome."""
        call = getattr(self, "_" + act.manner.replace(" ", "_"))
        heard: list[str] = []
        error: Exception | None = None
        ended = False
        try:
            ended = call(act, heard)
        except Exception as raised:
            error = raised
        text = "".join(heard)
        outcome = judge(act, text, error, ended=ended)
        if act.manner in ("read", "ask", "models", "fail over"):
            judge_failure(act, text, error)
        return outcome

    def _start(self, act: Act, client: Client | None = None) -> Any:
        return (client or self.clients[act.route]).chat.completions.create(HI, stream=True, **act.options())

    def _read(self, act: Act, heard: list[str]) -> bool:
        heard.extend(map(delta, self._start(act)))
        return True

    def _ask(self, act: Act, heard: list[str]) -> bool:
        found = self.clients[act.route].chat.completions.create(HI, **act.options())
        heard.append(found.choices[0].message.content)
        return True

    def _models(self, act: Act, heard: list[str]) -> bool:
        options = act.options()
        del options["model"]
        heard.extend(each.id for each in self.clients[act.route].models.list(**options).data)
        return True

    def _fail_over(self, act: Act, heard: list[str]) -> bool:
        options = {**act.options(), "provider": self._both, "extra_headers": {HEADER: act.script.header()}}
        del options["max_retries"]
        heard.extend(map(delta, self.clients["tls"].chat.completions.create(HI, stream=True, **options)))
        return True

    def _close(self, act: Act, heard: list[str]) -> bool:
        stream = self._start(act)
        heard.extend(map(delta, itertools.islice(stream, act.after)))
        stream.close()
        assert list(stream) == []
        return False

    def _drop(self, act: Act, heard: list[str]) -> bool:
        heard.extend(map(delta, itertools.islice(self._start(act), act.after)))
        return False

    def _cycle(self, act: Act, heard: list[str]) -> bool:
        stream = self._start(act)
        stream.itself = stream
        heard.extend(map(delta, itertools.islice(stream, act.after)))
        return False

    def _with(self, act: Act, heard: list[str]) -> bool:
        with self._start(act) as stream:
            heard.extend(map(delta, itertools.islice(stream, act.after)))
        return False

    def _raise(self, act: Act, heard: list[str]) -> bool:
        with contextlib.suppress(ZeroDivisionError):
            for chunk in self._start(act):
                heard.append(delta(chunk))
                if len(heard) > act.after:
                    raise ZeroDivisionError
        return False

    def _generator(self, act: Act, heard: list[str]) -> bool:
        def words() -> Any:
            yield from map(delta, self._start(act))

        heard.extend(itertools.islice(words(), act.after))
        return False

    def _closed_elsewhere(self, act: Act, heard: list[str]) -> bool:
        """Another thread closes the stream while this one reads."""
        stream = self._start(act)
        return self._until_closed(act, stream, stream.close, heard)

    def _client_closed(self, act: Act, heard: list[str]) -> bool:
        """Another thread closes the client, which is this one's alone."""
        client = self._client("direct" if act.route == "few" else act.route)
        try:
            return self._until_closed(act, self._start(act, client), client.close, heard)
        finally:
            client.close()

    def _until_closed(self, act: Act, stream: Any, close: Any, heard: list[str]) -> bool:
        timer = threading.Timer(act.seconds, close)
        timer.start()
        try:
            heard.extend(map(delta, stream))
        finally:
            timer.join()
        # It may have been closed before its end, which is an end, too.
        return "".join(heard) == act.script.text and not act.cannot_be_whole

    def _client_dropped(self, act: Act, heard: list[str]) -> bool:
        """A client of its own, of which nothing is kept but the stream."""
        stream = self._start(act, self._client("direct" if act.route == "few" else act.route))
        heard.extend(map(delta, stream))
        return True
