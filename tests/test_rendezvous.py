"""How ranks of an elastic job come together; a stand-in for horovodrun deals as it does."""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tal1_hvd.distributed import rendezvous
from tal1_hvd.distributed.rendezvous import Dealer, Place, come_together, settle
from tal1_hvd.errors import InputError


class Horovodrun:
    """Deals places: anew when all that have one have asked for it, or failed.

    Parameters
    ----------
    deals : list of lists of str
        Hosts, each in the order of their ranks; the first is made at the start, the last again
        and again.
    started : callable, optional
        Called with each host that is new in a deal.
    """

    def __init__(self, deals: list[list[str]], started: Callable[[str], None] = lambda host: None):
        self._deals, self._started = deals, started
        self.dealt = 0
        self._ready: set[str] = set()
        self._store: dict[str, bytes] = {}
        self._condition = threading.Condition()
        run = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(run.get(self.path))

            def do_PUT(self) -> None:
                run.put(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(b"")

            def _answer(self, content: bytes | None) -> None:
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *words: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever)

    def __enter__(self) -> Horovodrun:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.thread.join()

    def dealer(self, host: str) -> Dealer:
        return Dealer(f"127.0.0.1:{self.http.server_port}", host, "0")

    def get(self, path: str) -> bytes | None:
        _, scope, key = path.split("/")
        if scope != "rank_and_size":
            with self._condition:
                return self._store.get(path)
        host = key.partition(":")[0]
        with self._condition:
            before = self.dealt
            self.ready(host)
            self._condition.wait_for(lambda: self.dealt > before)
            there = self._hosts
        if host not in there:
            return b"-1,-1,-1,-1,-1,-1"
        return f"{there.index(host)},{len(there)},0,1,0,1".encode()

    def put(self, path: str, data: bytes) -> None:
        with self._condition:
            self._store[path] = data

    def ready(self, host: str) -> None:
        """Note that a host's rank has asked, or failed; upon the last one it deals anew."""
        with self._condition:
            before = self._hosts
            self._ready.add(host)
            if self._ready >= set(before):
                self.dealt += 1
                self._ready.clear()
                self._store.clear()
                for new in [host for host in self._hosts if host not in before]:
                    self._started(new)
                self._condition.notify_all()

    @property
    def _hosts(self) -> list[str]:
        return self._deals[min(self.dealt, len(self._deals) - 1)]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr(rendezvous, "_ROLL_CALL", 0.2)


def places(settled: dict[str, Future[Place]]) -> dict[str, tuple[int, int]]:
    """Return each host's rank and the number of ranks."""
    return {host: future.result(timeout=30)[:2] for host, future in settled.items()}


def test_all_start(pool):
    with Horovodrun([["a", "b", "c"]]) as run:
        settled = {host: pool.submit(settle, run.dealer(host), 30) for host in "abc"}
        assert places(settled) == {"a": (0, 3), "b": (1, 3), "c": (2, 3)}
        assert run.dealt == 1


def test_one_fails_as_it_starts(pool):
    with Horovodrun([["a", "b", "c"], ["b", "c"]]) as run:
        settled = {host: pool.submit(settle, run.dealer(host), 30) for host in "bc"}
        run.ready("a")
        assert places(settled) == {"b": (0, 2), "c": (1, 2)}


def test_a_new_one_is_waited_for(pool):
    """It starts once the others have called the roll without it."""
    begun, settled = threading.Event(), {}
    with Horovodrun([["a", "b"], ["a", "b", "c"]], lambda host: begun.set()) as run:
        settled = {host: pool.submit(settle, run.dealer(host), 30) for host in "ab"}
        assert begun.wait(30)
        while not run._ready:
            assert not any(future.done() for future in settled.values())
        settled["c"] = pool.submit(settle, run.dealer("c"), 30)
        assert places(settled) == {"a": (0, 3), "b": (1, 3), "c": (2, 3)}


def test_a_new_one_fails_and_another_takes_its_place(pool):
    """As many as before, but not the same."""
    settled, events = {}, {"x": threading.Event(), "d": threading.Event()}
    deals = [["a", "b"], ["a", "b", "x"], ["a", "b", "d"]]
    with Horovodrun(deals, lambda host: events[host].set()) as run:
        settled = {host: pool.submit(settle, run.dealer(host), 30) for host in "ab"}
        assert events["x"].wait(30)
        run.ready("x")
        assert events["d"].wait(30)
        settled["d"] = pool.submit(settle, run.dealer("d"), 30)
        assert places(settled) == {"a": (0, 3), "b": (1, 3), "d": (2, 3)}


def test_one_is_taken_out(pool):
    with Horovodrun([["a", "b"], ["a"]]) as run:
        settled = {host: pool.submit(settle, run.dealer(host), 30) for host in "ab"}
        with pytest.raises(InputError, match="host b was taken out of the job; this rank leaves"):
            settled["b"].result(timeout=30)
        assert places({"a": settled["a"]}) == {"a": (0, 1)}


def test_some_do_not_come():
    with (
        Horovodrun([["a", "b"]]) as run,
        pytest.raises(InputError, match="some ranks did not come within 0 s"),
    ):
        settle(run.dealer("a"), 0.2)


def test_horovodrun_has_ended():
    with pytest.raises(InputError, match=r"horovodrun at 127\.0\.0\.1:1 gives no answer"):
        settle(Dealer("127.0.0.1:1", "a", "0"), 1)


def test_horovod_is_answered_in_its_place(monkeypatch):
    """It asks for its place by itself, which would wait for all others; all else is handed on."""
    with Horovodrun([["a"]]) as run:
        port = str(run.http.server_port)
        for name, value in {
            "HOSTNAME": "a",
            "LOCAL_RANK": "0",
            "GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
            "GLOO_RENDEZVOUS_PORT": port,
        }.items():
            monkeypatch.setenv(f"HOROVOD_{name}", value)
        for name in ("RANK", "SIZE", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE"):
            monkeypatch.setenv(f"HOROVOD_{name}", "7")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        with come_together(stall_timeout=40):
            here = os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]
            assert here != port
            horovod = Dealer(f"127.0.0.1:{here}", "a", "0")
            assert horovod.ask(1) == (0, 1, 0, 1, 0, 1)
            assert horovod.send("PUT", "/global_/0", b"address") == (200, b"")
            assert horovod.send("GET", "/global_/0") == (200, b"address")
            assert horovod.send("GET", "/global_/1")[0] == 404
            assert run.dealt == 1
        assert run.get("/global_/0") == b"address"
        assert os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"] == port
        assert [os.environ[f"HOROVOD_{name}"] for name in ("RANK", "SIZE")] == ["0", "1"]
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{here}/global_/0", timeout=5)
