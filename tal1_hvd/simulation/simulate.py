"""Simulated datasets: blocks of sequences made by simdna in parallel, equal for equal seeds.

A block has its own random streams, derived from the seed, the class and the block's number, so the
bytes do not depend on how many processes share the work.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tal1_hvd.data.dataset_writer import DatasetWriter, create_dataset
from tal1_hvd.data.files import require_vacant
from tal1_hvd.data.sites import Site
from tal1_hvd.data.splits import stratified_split
from tal1_hvd.simulation.settings import SimulationSettings

if TYPE_CHECKING:
    from simdna.synthetic import Embedding

    from tal1_hvd.simulation.tasks import Planting

_BLOCK = 500


@dataclass(frozen=True)
class _Block:
    label: int
    index: int
    first_row: int
    count: int


def simulate(
    settings: SimulationSettings,
    out: str | Path,
    jobs: int = 1,
    progress: Callable[[int], None] = lambda count: None,
) -> Path:
    """Simulate a dataset.

    Parameters
    ----------
    settings : SimulationSettings
    out : str or Path
        Must not exist, or be an empty folder.
    jobs : int
        Processes; the result does not depend on it.
    progress : callable
        Called with the number of sequences that were just finished.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        A motif is unknown, the sites do not fit, the classes are too small to split, or `out`
        exists.
    """
    # simdna takes a third of a second to import, which asking for help should not cost.
    from tal1_hvd.simulation.motifs import load_motifs
    from tal1_hvd.simulation.tasks import embedders

    out = Path(out)
    require_vacant(out)
    motifs = load_motifs(settings.motifs, settings.motif_file)
    planting = embedders(settings, motifs)
    count = settings.positives + settings.negatives
    labels = np.repeat(np.uint8([1, 0]), [settings.positives, settings.negatives])
    blocks = list(_blocks(settings))
    with create_dataset(out, count, settings.length) as writer, _workers(jobs, blocks) as run:
        made = run(partial(_simulate_block, settings, planting, writer), blocks)
        # Other processes are at work by now, while this one imports what splits.
        splits = stratified_split(labels, settings.seed)
        writer.finish(
            labels=labels,
            splits=splits,
            ids=[sequence_id(label, i) for label, i in _numbered(settings)],
            task=settings.task,
            parameters=asdict(settings),
            seed=settings.seed,
            sites=_sites(blocks, made, progress),
        )
    return out


def sequence_id(label: int, index: int) -> str:
    """Return the id of the class's sequence number `index`, from 0.

    Examples
    --------
    >>> sequence_id(1, 7), sequence_id(0, 0)
    ('positive_7', 'negative_0')
    """
    return f"{'positive' if label else 'negative'}_{index}"


def _sites(
    blocks: Iterable[_Block], made: Iterable[list[Site]], progress: Callable[[int], None]
) -> Iterator[Site]:
    """Yield the sites of all blocks as these are finished."""
    for block, found in zip(blocks, made, strict=True):
        yield from found
        progress(block.count)


def _numbered(settings: SimulationSettings) -> Iterator[tuple[int, int]]:
    for label, count in ((1, settings.positives), (0, settings.negatives)):
        for index in range(count):
            yield label, index


def _blocks(settings: SimulationSettings) -> Iterator[_Block]:
    row = 0
    for label, count in ((1, settings.positives), (0, settings.negatives)):
        for index, start in enumerate(range(0, count, _BLOCK)):
            size = min(_BLOCK, count - start)
            yield _Block(label, index, row, size)
            row += size


@contextlib.contextmanager
def _workers(jobs: int, blocks: list[_Block]) -> Iterator[Callable[..., Iterable[list[Site]]]]:
    """Yield a function like ``map``, over processes if there are to be several."""
    if jobs == 1:
        yield map
        return
    # Processes are started afresh: a fork copies whatever threads and locks the caller holds.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(blocks)), context, _end_with_parent) as pool:
        try:
            yield pool.map
        except BaseException:
            # Otherwise it would wait for blocks that nobody wants any more.
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Have this process end when the one that started it does, even if that is killed."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _simulate_block(
    settings: SimulationSettings, planting: Planting, writer: DatasetWriter, block: _Block
) -> list[Site]:
    """Make a block's sequences, have them written, and return its sites."""
    import simdna
    from simdna.synthetic import StringEmbeddable

    from tal1_hvd.simulation.background import NumpyBackground
    from tal1_hvd.simulation.embedding import embed

    streams = np.random.SeedSequence(settings.seed, spawn_key=(block.label, block.index)).spawn(2)
    background = NumpyBackground(
        settings.length, settings.gc, block.count, np.random.default_rng(streams[0])
    )
    positives, negatives = planting
    sites: list[Site] = []
    # simdna draws from a random state of its own module, and prints when it retries a position.
    state = simdna.random.get_state()
    simdna.random.seed(streams[1].generate_state(8))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for i in range(block.count):
                planted = embed(
                    background.generateBackground(), positives if block.label else negatives
                )
                name = sequence_id(block.label, block.index * _BLOCK + i)
                sites += [
                    _site(name, embedding)
                    for embedding in planted
                    if isinstance(embedding.what, StringEmbeddable)
                ]
    finally:
        simdna.random.set_state(state)
    writer.put(block.first_row, background.codes)
    return sites


def _site(sequence_id: str, embedding: Embedding) -> Site:
    description = embedding.what.getDescription()
    motif = description.removeprefix("revComp-")
    return Site(
        sequence_id,
        embedding.startPos,
        embedding.startPos + len(embedding.what),
        motif,
        "+" if motif == description else "-",
    )
