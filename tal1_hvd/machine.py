"""The machine this process runs on, and how TensorFlow uses it."""

from __future__ import annotations

import os

from tal1_hvd.errors import InputError


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def start_tensorflow(threads: int, local_rank: int = 0) -> str:
    """Import TensorFlow, give this rank its device and threads, and make results repeatable.

    Call it before anything else touches TensorFlow.

    Parameters
    ----------
    threads : int
        Compute threads.
    local_rank : int
        Rank among those on this machine; it takes the GPU of that number, where there are GPUs.

    Returns
    -------
    str
        The device, such as ``CPU (1 thread)`` or ``GPU 0``.

    Raises
    ------
    InputError
        There are GPUs, but fewer than ranks on this machine.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # The graph is a chain: more than one operation at a time has nothing to do.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"CPU ({threads} thread{'s' if threads > 1 else ''})"
    if local_rank >= len(gpus):
        raise InputError(
            f"local rank {local_rank} has no GPU: this machine has {len(gpus)}; start at most "
            "that many ranks on it, or hide the GPUs with CUDA_VISIBLE_DEVICES=''"
        )
    tf.config.set_visible_devices(gpus[local_rank], "GPU")
    # Otherwise the first process on a GPU takes all of its memory.
    tf.config.experimental.set_memory_growth(gpus[local_rank], True)
    return f"GPU {local_rank}"
