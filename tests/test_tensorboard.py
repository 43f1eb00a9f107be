"""The history as TensorBoard sees it, where it cannot be written."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tal1_hvd.errors import InputError
from tal1_hvd.training.tensorboard import TensorBoardLog


def test_reason_in_a_line(tmp_path, monkeypatch):
    """As TensorFlow 2.18 says it of a full disk, which needs root to be had."""
    full = (
        "{{function_node __wrapped__FlushSummaryWriter_device_/job:localhost/device:CPU:0}} "
        f"{tmp_path}/events.v2; No space left on device\n\tFailed to flush 1 events to {tmp_path}"
    )
    log = TensorBoardLog(tmp_path)

    def flush():
        raise tf.errors.ResourceExhaustedError(None, None, full)

    monkeypatch.setattr(log._writer, "flush", flush)
    with pytest.raises(InputError) as caught:
        log.write([{"epoch": 1, "loss": 0.5, "auroc": None}])
    assert str(caught.value) == f"{tmp_path}: cannot be written: No space left on device"
    log.close()
