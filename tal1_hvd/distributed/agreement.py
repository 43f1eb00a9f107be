"""Errors that all ranks learn of together, so that none waits for one that has given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tal1_hvd.distributed.communicator import Communicator
from tal1_hvd.errors import InputError

T = TypeVar("T")


class AgreedError(InputError):
    """Bad input that every rank knows of and stops for."""


def together(communicator: Communicator, action: Callable[[], T]) -> T:
    """Do something on every rank, and fail on every rank if it failed on any.

    Parameters
    ----------
    communicator : Communicator
    action : callable
        Without collectives of its own.

    Returns
    -------
    object
        What `action` returned on this rank.

    Raises
    ------
    AgreedError
        `action` raised InputError on some rank; the text is the lowest such rank's.
    """
    value: T | None = None
    error: str | None = None
    try:
        value = action()
    except InputError as raised:
        error = str(raised)
    errors = communicator.all_gather_json(error)
    failed = [rank for rank, text in enumerate(errors) if text is not None]
    if failed:
        everywhere = len(set(errors)) == 1
        where = "" if everywhere or failed[0] == 0 else f"rank {failed[0]}: "
        raise AgreedError(where + errors[failed[0]])
    return value  # type: ignore[return-value]
