"""Layer-wise adaptive rate scaling, for large batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tal1_hvd")
class Lars(keras.optimizers.Optimizer):
    """Momentum whose step on each weight array is in proportion to the array (You et al. 2017).

    The gradient of an array of weights w is scaled to the norm of w, so the learning rate is about
    the relative change in a step (the paper's trust coefficient is part of it). Biases, which start
    at zero, are not scaled.

    Parameters
    ----------
    learning_rate : float or keras.optimizers.schedules.LearningRateSchedule
    momentum : float
    name : str
    **options
        Of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        momentum: float = 0.9,
        name: str = "lars",
        **options: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.momentum = momentum

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the momenta."""
        if self.built:
            return
        super().build(variables)
        self._momenta = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable and its momentum."""
        ops = keras.ops
        rate = ops.cast(learning_rate, gradient.dtype)
        if len(variable.shape) > 1:
            weights, slope = (ops.norm(ops.reshape(a, [-1])) for a in (variable, gradient))
            both = ops.logical_and(weights > 0, slope > 0)
            # Not divided by zero, in what is not chosen either.
            ratio = ops.where(both, weights / ops.where(both, slope, 1), 1)
            gradient = gradient * ratio
        momentum = self._momenta[self._get_variable_index(variable)]
        step = ops.cast(self.momentum, gradient.dtype) * momentum + rate * gradient
        self.assign(momentum, step)
        self.assign_sub(variable, step)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "momentum": self.momentum}
