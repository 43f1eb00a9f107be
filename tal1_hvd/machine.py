"""The machine this process runs on, and how TensorFlow uses it."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tal1_hvd.errors import InputError

# Imported by Keras alone, where they are installed, to plot with one and wrap models for the other.
_ONLY_FOR_KERAS = ("matplotlib", "matplotlib.pyplot", "sklearn")


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def processor_name() -> str:
    """Return what the processor calls itself, or its architecture where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


@contextlib.contextmanager
def quick_keras_import() -> Iterator[None]:
    """Import TensorFlow, and Keras with it, without scikit-learn and Matplotlib.

    These take 1.7 of 4.2 seconds; and no garbage is collected meanwhile, as there is little,
    which takes another 0.2. In a process that imports Keras inside this block,
    ``keras.wrappers`` and Keras's plots of images do not work; the packages themselves can be
    imported afterwards. For the main thread, before there are others that import.
    """
    collecting = gc.isenabled()
    gc.disable()
    hidden = [name for name in _ONLY_FOR_KERAS if name not in sys.modules]
    # As the import system notes a module that must not be imported.
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        if collecting:
            gc.enable()


def resident_bytes() -> int:
    """Return how much memory this process takes (`man 5 proc_pid_statm`); 0 where nobody tells."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def device_bytes() -> int:
    """Return how much of its GPU's memory TensorFlow takes; 0 without one."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return sum(tf.config.experimental.get_memory_info(gpu.name)["current"] for gpu in gpus)


def process_began(process: int) -> int | None:
    """Return when a process of this machine started, in ticks since that did; None if none has it.

    A number is given anew to another process; both together are not (`man 5 proc_pid_stat`).
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return None
    # The name is in parentheses and may hold some itself; the 22nd field is the 20th after it.
    return int(stat.rpartition(b")")[2].split()[19])


def process_namespace() -> str:
    """Return what tells whether process numbers mean the same: a container has its own."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def why_gpu_expected(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what tells that a GPU is to be trained on, or None if nothing does."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # GPUs after the first that is none are hidden (CUDA C++ Programming Guide, environment
        # variables); schedulers write -1, NoDevFiles or nothing.
        first = visible.partition(",")[0].strip()
        shown = first.isdigit() or first.startswith(("GPU-", "MIG-"))
        return f"CUDA_VISIBLE_DEVICES is {visible}" if shown else None
    # As tensorflow[and-cuda] brings it.
    if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.cudnn"):
        return "this environment has CUDA's libraries"
    return None


def start_tensorflow(
    threads: int,
    local_rank: int = 0,
    replicas: int = 1,
    deterministic: bool = True,
    graphs: int = 1,
) -> str:
    """Import TensorFlow, give this process its devices and threads, and make results repeatable.

    Call it before anything else touches TensorFlow.

    Parameters
    ----------
    threads : int
        Compute threads a rank.
    local_rank : int
        Number of this process among those on this machine; it takes the GPU of that number, where
        there are GPUs.
    replicas : int
        Ranks of this process; each takes a GPU or, where there are none, a logical CPU device.
    deterministic : bool
        Let TensorFlow refuse what could give other bits the next time. XLA then refuses the
        gradient of max-pooling, on whatever device.
    graphs : int
        How many a rank runs at a time, where one may wait for another.

    Returns
    -------
    str
        The device, such as ``CPU (1 thread)`` or ``GPU 0``.

    Raises
    ------
    InputError
        There are GPUs, but fewer than ranks on this machine; or none where one is expected.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quick_keras_import():
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # A graph is a chain: more than one operation at a time has nothing to do.
    tf.config.threading.set_inter_op_parallelism_threads(replicas * graphs)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        if reason := why_gpu_expected():
            raise InputError(
                f"TensorFlow sees no GPU, but {reason}; look at what nvidia-smi says, or train on "
                "the CPU: CUDA_VISIBLE_DEVICES=''"
            )
        if replicas > 1:
            devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], devices
            )
        return f"CPU ({threads} thread{'s' if threads > 1 else ''})"
    own = gpus[local_rank : local_rank + replicas]
    if len(own) < replicas:
        raise InputError(
            f"rank {local_rank + len(own)} of this machine has no GPU: there are {len(gpus)}; "
            "start at most that many ranks on it, or hide the GPUs with CUDA_VISIBLE_DEVICES=''"
        )
    tf.config.set_visible_devices(own, "GPU")
    for gpu in own:
        # Otherwise the first process on a GPU takes all of its memory.
        tf.config.experimental.set_memory_growth(gpu, True)
    return f"GPU {local_rank}" if replicas == 1 else f"GPUs 0 to {replicas - 1}"
