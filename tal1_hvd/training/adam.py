"""Adam with one TensorFlow kernel a variable and step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tal1_hvd")
class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam (Kingma and Ba 2015), its update computed by TensorFlow's ``ApplyAdam``.

    Keras builds the update of a variable from a dozen operations, which on small models cost more
    to start than to compute. Results differ from Keras's by rounding only.
    """

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        """Update a variable and its two moments.

        Parameters
        ----------
        gradient : tf.Tensor
        variable : tf.Variable or keras.Variable
        learning_rate : tf.Tensor, shape=()

        Raises
        ------
        ValueError
            With ``amsgrad``, which the kernel does not know.
        """
        if self.amsgrad:
            raise ValueError("amsgrad: not known to the fused kernel; use keras.optimizers.Adam")
        index = self._get_variable_index(variable)
        dtype = gradient.dtype
        step = keras.ops.cast(self.iterations, dtype) + 1
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )


def _handle(variable: Any) -> tf.Tensor:
    """Return the resource behind a variable; Keras hands over its own or TensorFlow's."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
