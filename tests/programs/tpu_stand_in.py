"""``train_tpu`` on a stand-in for a TPU: its resolver and system answer, CPU devices compute.

Arguments: those of ``tal1_hvd.train_tpu``.
"""

import os
import sys
from types import SimpleNamespace
from unittest import mock

os.environ["TAL1_HVD_SIMD"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import tensorflow as tf

from tal1_hvd.cli.main import main

CORES = 8


class Resolver:
    """Knows a TPU of 8 cores on this machine."""

    def __init__(self, tpu):
        assert tpu == "local"

    def master(self):
        """Return no address: it is this machine."""
        return ""


def strategy(resolver):
    """Return logical CPU devices for the TPU that was found."""
    assert isinstance(resolver, Resolver)
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(CORES)])


tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in range(CORES)],
)
topology = SimpleNamespace(num_tasks=1, num_tpus_per_task=CORES)
with (
    mock.patch.object(tf.distribute.cluster_resolver, "TPUClusterResolver", Resolver),
    mock.patch.object(tf.config, "experimental_connect_to_cluster"),
    mock.patch.object(tf.tpu.experimental, "initialize_tpu_system", return_value=topology),
    mock.patch.object(tf.distribute, "TPUStrategy", strategy),
):
    sys.exit(main(["train", "--strategy", "tpu", *sys.argv[1:]]))
