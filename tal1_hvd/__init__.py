"""Train DNA-motif CNNs with Keras 3 and Horovod, and use them on real DNA.

Importing the package imports neither TensorFlow nor Horovod; they come with the first object that
needs them.

Examples
--------
>>> import tal1_hvd
>>> tal1_hvd.load("no/such/run")
Traceback (most recent call last):
...
tal1_hvd.errors.InputError: no/such/run: no such run folder

See `tal1_hvd.load` and `tal1_hvd.TrainedModel.predict` for what it does with a run.
"""

from __future__ import annotations

from typing import Any

from tal1_hvd._version import __version__
from tal1_hvd.errors import InputError

__all__ = [
    "AverageLogs",
    "BroadcastInitialState",
    "DistributedOptimizer",
    "DnaConvPool",
    "InputError",
    "TrainedModel",
    "__version__",
    "load",
    "open_dataset",
]

_LAZY = {
    "AverageLogs": "tal1_hvd.distributed.callbacks",
    "BroadcastInitialState": "tal1_hvd.distributed.callbacks",
    "DistributedOptimizer": "tal1_hvd.distributed.optimizer",
    "DnaConvPool": "tal1_hvd.models.first_layer",
    "TrainedModel": "tal1_hvd.inference.trained_model",
    "load": "tal1_hvd.inference.trained_model",
    "open_dataset": "tal1_hvd.data.dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tal1_hvd' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
