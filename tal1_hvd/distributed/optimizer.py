"""A Keras 3 optimizer that sums or averages gradients over ranks before it applies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tal1_hvd.distributed.communicator import Communicator, connect

# Keras decides from local gradients whether a step is skipped, so ranks would fall out of step.
_NO_LOSS_SCALING = (
    "dynamic loss scaling (mixed_float16) does not go with several ranks; use mixed_bfloat16, "
    "which needs none"
)


@keras.saving.register_keras_serializable(package="tal1_hvd")
class DistributedOptimizer(keras.optimizers.Optimizer):
    """Wraps any Keras 3 optimizer for synchronous data parallelism.

    Each rank computes gradients on its part of the batch; one all-reduce of one flat tensor a step
    (and dtype) combines them, and every rank applies the same update. It works with
    ``model.compile`` and ``fit``, and in loops of one's own; Horovod's own Keras layer knows only
    Keras 2.

    Parameters
    ----------
    inner_optimizer : keras.optimizers.Optimizer
    communicator : Communicator, optional
        Default: the ranks this process was started with.
    op : {"average", "sum"}
        Average suits losses that are means over the rank's batch; sum suits losses that are
        already divided by the global batch.
    compression : {"none", "fp16"}
        Float16 halves what is sent, and its rounding enters the gradients.
    backward_passes_per_step : int
        Accumulate this many calls of `apply` locally, then reduce and apply once; with
        ``op="average"`` they are averaged too.
    name : str, optional

    Raises
    ------
    ValueError
        An argument is none of its allowed values, or loss scaling is dynamic (mixed_float16).

    Notes
    -----
    Every rank must make the same number of steps. Horovod's collectives have no XLA kernels, so
    compile with ``jit_compile=False`` (Keras turns it on by itself on GPUs).

    Examples
    --------
    >>> import keras
    >>> from tal1_hvd import DistributedOptimizer
    >>> optimizer = DistributedOptimizer(keras.optimizers.Adam(1e-3))
    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer, loss="mse", jit_compile=False)
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        communicator: Communicator | None = None,
        *,
        op: str = "average",
        compression: str = "none",
        backward_passes_per_step: int = 1,
        name: str | None = None,
    ):
        for argument, value, allowed in (
            ("op", op, ("average", "sum")),
            ("compression", compression, ("none", "fp16")),
        ):
            if value not in allowed:
                raise ValueError(f"{argument} must be one of {allowed}, got {value!r}")
        if backward_passes_per_step < 1:
            raise ValueError(
                f"backward_passes_per_step must be at least 1, got {backward_passes_per_step}"
            )
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(_NO_LOSS_SCALING)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = keras.optimizers.get(inner_optimizer)
        self.communicator = connect() if communicator is None else communicator
        self.op = op
        self.compression = compression
        self.backward_passes_per_step = backward_passes_per_step

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the inner optimizer's state, and accumulators where they are needed."""
        self.inner_optimizer.build(variables)
        super().build(variables)
        self._accumulators = []
        if self.backward_passes_per_step > 1:
            self._passes = self.add_variable((), dtype="int32", name="passes")
            self._accumulators = self.add_optimizer_variables(variables, "accumulator")

    def apply(
        self,
        grads: Sequence[tf.Tensor | None],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Reduce gradients over ranks and let the inner optimizer apply them.

        Parameters
        ----------
        grads : sequence of tf.Tensor or None
            One a variable; None where a variable got no gradient, on every rank alike.
        trainable_variables : sequence of keras.Variable, optional
            Those the optimizer was built with, if left out.
        """
        if keras.config.dtype_policy().compute_dtype == "float16" and self.communicator.size > 1:
            raise ValueError(_NO_LOSS_SCALING)
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        if not self.built:
            self.build(trainable_variables)
        if self.backward_passes_per_step == 1:
            self.inner_optimizer.apply(self._reduce(grads), trainable_variables)
            return
        for accumulator, grad in zip(self._accumulators, grads, strict=True):
            if grad is not None:
                accumulator.assign_add(tf.convert_to_tensor(grad))
        self._passes.assign_add(1)
        missing = [grad is None for grad in grads]
        tf.cond(
            tf.equal(self._passes.value, self.backward_passes_per_step),
            lambda: self._apply_accumulated(missing, trainable_variables),
            lambda: None,
        )

    def _apply_accumulated(
        self, missing: Sequence[bool], variables: Sequence[keras.Variable]
    ) -> None:
        sums = [
            None if absent else tf.convert_to_tensor(accumulator.value)
            for absent, accumulator in zip(missing, self._accumulators, strict=True)
        ]
        self.inner_optimizer.apply(self._reduce(sums), variables)
        self._passes.assign(0)
        for accumulator in self._accumulators:
            accumulator.assign(tf.zeros_like(accumulator.value))

    def _reduce(self, grads: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """All-reduce gradients as one flat tensor for each dtype."""
        dense = [None if grad is None else tf.convert_to_tensor(grad) for grad in grads]
        if self.communicator.reduced_by_keras:
            return [None if grad is None else self._scale(grad) for grad in dense]
        reduced = list(dense)
        for dtype in dict.fromkeys(grad.dtype for grad in dense if grad is not None):
            members = [i for i, g in enumerate(dense) if g is not None and g.dtype == dtype]
            flat = tf.concat([tf.reshape(dense[i], [-1]) for i in members], axis=0)
            parts = tf.split(
                self._all_reduce(flat), [tf.size(dense[i]) for i in members], num=len(members)
            )
            for i, part in zip(members, parts, strict=True):
                reduced[i] = tf.reshape(part, dense[i].shape)
        return reduced

    def _all_reduce(self, flat: tf.Tensor) -> tf.Tensor:
        if self.compression == "fp16" and self.communicator.size > 1:
            total = tf.cast(self.communicator.all_reduce_sum(tf.cast(flat, tf.float16)), flat.dtype)
        else:
            total = self.communicator.all_reduce_sum(flat)
        return self._scale(total)

    def _scale(self, total: tf.Tensor) -> tf.Tensor:
        parts = self.communicator.size * self.backward_passes_per_step
        return total / parts if self.op == "average" and parts > 1 else total

    @property
    def variables(self) -> list[keras.Variable]:
        """Own and inner optimizer's variables: all that a checkpoint must hold."""
        return self._variables + self.inner_optimizer.variables

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    @property
    def iterations(self) -> keras.Variable:
        """Updates applied by the inner optimizer."""
        return self.inner_optimizer.iterations

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[keras.Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Tell the inner optimizer which variables do not decay; before `build`."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Scale the loss as the inner optimizer wants it."""
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Let the inner optimizer set final values (moving averages)."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs; the communicator is found anew."""
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "op": self.op,
            "compression": self.compression,
            "backward_passes_per_step": self.backward_passes_per_step,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> DistributedOptimizer:
        """Build from `get_config`'s dictionary."""
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(inner, **{k: v for k, v in config.items() if k != "inner_optimizer"})
