"""What a session leaves for those who look on: the run's events, and each rank's log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tal1_hvd.distributed.horovod_communicator import is_lost_rank
from tal1_hvd.distributed.rank_log import LOG, rank_log
from tal1_hvd.errors import InputError
from tal1_hvd.machine import process_began, process_namespace
from tal1_hvd.training.event_log import EventLog
from tal1_hvd.training.interruptions import Left, RanksChanged, Stopped
from tal1_hvd.training.meeting import Meeting
from tal1_hvd.training.reporters import Both, Reporter

_OF_THE_MANIFEST = ("world_size", "global_batch_size", "strategy", "ranks")


@contextmanager
def recorded(meeting: Meeting) -> Iterator[Reporter]:
    """Record a session from its beginning to its end, however that comes.

    Parameters
    ----------
    meeting : Meeting

    Yields
    ------
    Reporter
        On rank 0, one that writes events too.

    Raises
    ------
    InputError
        The files cannot be made.
    """
    communicator, settings = meeting.communicator, meeting.plan.goal.settings
    rank, manifest, reporter = communicator.rank, meeting.manifest, meeting.reporter
    with rank_log(meeting.folder.logs, rank, communicator.size):
        LOG.info("one of %d ranks: %s, %s", communicator.size, meeting.device, sys.executable)
        if rank == 0:
            reporter = Both(reporter, EventLog(meeting.folder.events))
        place = manifest["ranks"][rank]
        reporter.record(
            "session",
            host=place["host"],
            process=place["process"],
            began=process_began(place["process"]),
            namespace=process_namespace(),
            model=settings.model,
            epochs=settings.epochs,
            **{key: manifest[key] for key in _OF_THE_MANIFEST},
        )
        with _end_noted(reporter, elastic=meeting.memory is not None):
            yield reporter


@contextmanager
def _end_noted(reporter: Reporter, elastic: bool) -> Iterator[None]:
    def note(event: str, text: str, error: BaseException | None = None) -> None:
        LOG.log(logging.ERROR if error else logging.INFO, "%s: %s", event, text, exc_info=error)
        # Where that cannot be written, how the block ended says more.
        with suppress(InputError):
            reporter.record(event, text=text)

    try:
        yield
    except (Left, RanksChanged):
        note("left", "ranks come or go")
        raise
    except Stopped as stopped:
        note("stopped", f"go on with: {stopped}")
        raise
    except KeyboardInterrupt:
        note("stopped", "interrupted")
        raise
    except BaseException as error:
        if elastic and isinstance(error, Exception) and is_lost_rank(error):
            note("left", "a rank was lost")
        else:
            note("failed", f"{type(error).__name__}: {error}", error)
        raise
    note("finished", "all epochs are done")
