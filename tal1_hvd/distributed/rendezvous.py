"""How ranks of an elastic job come together before Horovod connects them.

Horovod's ranks connect as soon as horovodrun has dealt them their places, and die, in C++, if one
of them does not come in time: a new one on a host that cannot be reached, or that is slow to start,
ends the whole job. Here they wait for each other before that.

horovodrun answers the question for a place (``horovod/runner/elastic`` of 0.28.1) only when all
whom it has dealt one before have asked too, or have failed, whose hosts it leaves out. It deals
anew then, with hosts that are new, and empties its store. So after each dealing ranks call the roll
by the store: if all are there, rank 0 says so, and Horovod connects them; if not, as new ones have
yet to start, all ask again, which waits for these.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tal1_hvd.errors import InputError, LostRanksError

# Seconds in which rank 0 sees those that are there; ranks that are not take longer to start. The
# machine may be too busy for that: each time it has twice as many...
_ROLL_CALL = 1.0
# ...up to much less than those after which others take it for lost.
_LONGEST_ROLL_CALL, _LONGEST_SILENCE = 4.0, 10.0
_BETWEEN_LOOKS = 0.02
# Seconds for one that starts, and above --stall-timeout, after which a stopped one is lost.
_START, _MARGIN = 55.0, 15.0
_ADDRESS, _PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"
_QUESTION, _ROLL = "rank_and_size", "tal1_hvd_roll"


class Place(NamedTuple):
    """A rank's place among those of a job; in the order in which horovodrun tells it."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


class Dealer:
    """What horovodrun's server tells one process.

    Parameters
    ----------
    server : str
        HOST:PORT.
    host : str
        This process's, as horovodrun calls it.
    number : str
        Of the process on its host.
    """

    def __init__(self, server: str, host: str, number: str):
        self._server, self._host, self._number = server, host, number
        # Not by a proxy: Horovod asks directly, too.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(
        self, method: str, path: str, data: bytes | None = None, wait: float | None = None
    ) -> tuple[int, bytes]:
        """Return the status and the content of an answer."""
        request = urllib.request.Request(f"http://{self._server}{path}", data, method=method)
        try:
            with self._opener.open(request, timeout=wait) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    def ask(self, wait: float | None) -> Place:
        """Wait until all have asked; return this process's place.

        Raises
        ------
        LostRanksError
            Some did not come.
        InputError
            Its host was taken out, or horovodrun has ended.
        """
        try:
            _, answer = self.send("GET", f"/{_QUESTION}/{self._host}:{self._number}", wait=wait)
            place = Place(*map(int, answer.decode().split(",")))
        except TimeoutError:
            raise LostRanksError(
                f"elastic: some ranks did not come within {wait:.0f} s; go on with --resume"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"elastic: horovodrun at {self._server} gives no answer ({error})"
            ) from None
        if place.rank < 0:
            raise InputError(
                f"elastic: host {self._host} was taken out of the job; this rank leaves it"
            )
        return place

    def all_are_there(self, place: Place, roll_call: float) -> bool:
        """Call the roll of those that were dealt places; all of them get the same answer.

        Rank 0 waits for them for `roll_call` seconds.
        """
        self.send("PUT", f"/{_ROLL}/{place.rank}", b"here", _LONGEST_SILENCE)
        if place.rank == 0:
            missing = set(range(place.size))
            until = time.monotonic() + roll_call
            while missing and time.monotonic() < until:
                missing = {rank for rank in missing if not self._read(str(rank))}
                time.sleep(_BETWEEN_LOOKS if missing else 0)
            word = b"again" if missing else b"go"
            self.send("PUT", f"/{_ROLL}/word", word, _LONGEST_SILENCE)
            return not missing
        until = time.monotonic() + _LONGEST_SILENCE
        while time.monotonic() < until:
            if word := self._read("word"):
                return word == b"go"
            time.sleep(_BETWEEN_LOOKS)
        return False

    def _read(self, key: str) -> bytes:
        return self.send("GET", f"/{_ROLL}/{key}", wait=_LONGEST_SILENCE)[1]


def settle(dealer: Dealer, wait: float | None) -> Place:
    """Return this process's place when all that have one are there."""
    roll_call = _ROLL_CALL
    while True:
        place = dealer.ask(wait)
        try:
            if dealer.all_are_there(place, roll_call):
                return place
        except OSError as error:
            raise InputError(f"elastic: horovodrun is gone ({error})") from None
        roll_call = min(2 * roll_call, _LONGEST_ROLL_CALL)


@contextmanager
def come_together(stall_timeout: float) -> Iterator[None]:
    """Wait until every rank that horovodrun counts on is there; the block lets Horovod connect.

    Parameters
    ----------
    stall_timeout : float
        Seconds after which a stopped rank is ended; 0 for never.

    Raises
    ------
    InputError
        See `Dealer.ask`.
    """
    server = ":".join(os.environ[name] for name in (_ADDRESS, _PORT))
    dealer = Dealer(server, os.environ["HOROVOD_HOSTNAME"], os.environ["HOROVOD_LOCAL_RANK"])
    place = settle(dealer, max(_START, stall_timeout + _MARGIN) if stall_timeout else None)
    for name, value in place._asdict().items():
        os.environ[f"HOROVOD_{name.upper()}"] = str(value)
    with _answering(dealer, place):
        yield


@contextmanager
def _answering(dealer: Dealer, place: Place) -> Iterator[None]:
    """Answer Horovod's own question for a place in the block, which would wait for all to ask."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            if self.path.startswith(f"/{_QUESTION}/"):
                status, content = 200, ",".join(map(str, place)).encode()
            else:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                try:
                    status, content = dealer.send(self.command, self.path, data, _LONGEST_SILENCE)
                except OSError:
                    status, content = 503, b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 (http.server's names)

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    before = {name: os.environ[name] for name in (_ADDRESS, _PORT)}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        os.environ.update({_ADDRESS: "127.0.0.1", _PORT: str(server.server_port)})
        try:
            yield
        finally:
            os.environ.update(before)
            server.shutdown()
            thread.join()
