"""A part of a network's filters for each rank: what model parallelism trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tal1_hvd.distributed.communicator import Communicator


class DenseOverRanks(keras.layers.Dense):
    """A dense layer whose inputs lie on several ranks, a part on each.

    The products with each rank's part are summed over ranks. The gradient needs no communication:
    the loss, and so its slope by the sum, is the same on every rank, and so is the bias's.

    Parameters
    ----------
    all_reduce_sum : callable
        From a tensor to its sum over ranks.
    """

    def __init__(self, all_reduce_sum: Callable[[tf.Tensor], tf.Tensor], **options: Any):
        super().__init__(**options)
        self._all_reduce_sum = all_reduce_sum
        # Horovod's collectives have no XLA kernels.
        self.supports_jit = False

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the layer's output, the same on every rank."""

        @tf.custom_gradient
        def total(part: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return self._all_reduce_sum(part), lambda slope: slope

        return self.activation(total(tf.matmul(inputs, self.kernel)) + self.bias)


def make_part(model: keras.Model, communicator: Communicator) -> keras.Model:
    """Build this rank's part of a network that ends in a dense unit over pooled filters.

    Parameters
    ----------
    model : keras.Model
        Of layers ``convolution``, a max-pooling, a flattening and ``probability``, as `paper`
        builds; at least as many filters as ranks.
    communicator : Communicator

    Returns
    -------
    keras.Model
        Equal input and, on all ranks together, equal output; it holds about a rank's share of the
        filters, and of the last layer's weights those on them.
    """
    own = len(_own_filters(model.get_layer("convolution").filters, communicator))

    def part_of(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if layer.name == "convolution":
            return keras.layers.Conv2D.from_config({**settings, "filters": own})
        if layer.name == "probability":
            return DenseOverRanks(communicator.all_reduce_sum, **settings)
        return type(layer).from_config(settings)

    part = keras.models.clone_model(model, clone_function=part_of)
    for variable, value in zip(part.trainable_variables, split(model, communicator), strict=True):
        variable.assign(value)
    return part


def split(model: keras.Model, communicator: Communicator) -> list[np.ndarray]:
    """Return the weights of this rank's part of a network that `make_part` takes."""
    *by_filter, bias = _filters_first([np.array(v) for v in model.trainable_variables])
    own = _own_filters(len(by_filter[0]), communicator)
    return _filters_last([*(array[own] for array in by_filter), bias])


def join(part: Sequence[Any], communicator: Communicator) -> list[np.ndarray]:
    """Return the weights of the whole network from all ranks' parts; called by all ranks.

    Parameters
    ----------
    part : sequence of array or keras.Variable
        This rank's, in the order of `make_part`'s trainable variables.
    communicator : Communicator
    """
    *by_filter, bias = _filters_first([np.array(variable) for variable in part])
    return _filters_last([*(communicator.all_gather(array) for array in by_filter), bias])


def _own_filters(filters: int, communicator: Communicator) -> np.ndarray:
    return np.array_split(np.arange(filters), communicator.size)[communicator.rank]


def _filters_first(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Bring the axis of filters to the front, in C order."""
    kernel, filter_bias, last, bias = weights
    filters = len(filter_bias)
    # Flattening made windows the slow axis, filters the fast one.
    by_filter = last.reshape(-1, filters, last.shape[-1]).swapaxes(0, 1)
    arrays = (np.moveaxis(kernel, -1, 0), filter_bias, by_filter, bias)
    return [np.ascontiguousarray(array) for array in arrays]


def _filters_last(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Undo `_filters_first`."""
    kernel, filter_bias, by_filter, bias = weights
    last = by_filter.swapaxes(0, 1).reshape(-1, by_filter.shape[-1])
    return [np.moveaxis(kernel, 0, -1), filter_bias, last, bias]
