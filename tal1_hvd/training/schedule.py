"""The learning rate: grows with the global batch, warmed up over the first examples."""

from __future__ import annotations

from typing import Any

import keras

from tal1_hvd.training.settings import RATE_SCALINGS

REFERENCE_BATCH = 64


@keras.saving.register_keras_serializable(package="tal1_hvd")
class ScaledWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from a base rate to that of the global batch and stays there.

    Goyal et al. 2017 (Accurate, Large Minibatch SGD): the rate grows with the batch, and starts
    from the rate of the small one. At a global batch of 64 it is constant.

    Parameters
    ----------
    base_rate : float
        The rate for a global batch of 64.
    global_batch : int
        Examples a step.
    warmup_examples : int
        Examples over which it rises; 0 for none.
    scaling : {"linear", "sqrt", "none"}
        The rate grows by the global batch over 64, or by the square root of that (Krizhevsky 2014,
        One weird trick for parallelizing convolutional neural networks), or not at all.
    examples_before : int
        What is to be added to the examples of the steps so far, where earlier ones had another
        global batch.
    """

    def __init__(
        self,
        base_rate: float,
        global_batch: int,
        warmup_examples: int,
        scaling: str = "linear",
        examples_before: int = 0,
    ):
        super().__init__()
        self.examples_before = examples_before
        self.scaling = scaling
        self.base_rate = base_rate
        self.global_batch = global_batch
        self.warmup_examples = warmup_examples

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, from 0."""
        scale = (self.global_batch / REFERENCE_BATCH) ** RATE_SCALINGS[self.scaling]
        if self.warmup_examples == 0:
            return keras.ops.convert_to_tensor(self.base_rate * scale)
        seen = keras.ops.cast(step, "float32") * self.global_batch + self.examples_before
        progress = keras.ops.minimum(seen / self.warmup_examples, 1.0)
        return self.base_rate * (1.0 + (scale - 1.0) * progress)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "base_rate": self.base_rate,
            "global_batch": self.global_batch,
            "warmup_examples": self.warmup_examples,
            "scaling": self.scaling,
            "examples_before": self.examples_before,
        }
