"""The published network as TensorFlow's guide to distributed Keras would train it.

``python -m tal1_hvd.benchmark.plain_keras --data DIR --epochs N --out JSON`` (internal; the
benchmark command starts it): one-hot float32 input, ``tf.data`` with cache, shuffle and batch,
`MirroredStrategy`, ``compile`` and ``fit`` with validation.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from tal1_hvd.benchmark.baseline import BATCH, Course, main
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.published import FILTER_WIDTH, FILTERS, POOL_WIDTH

_SHUFFLE_BUFFER = 10_000


def train(dataset: Dataset, epochs: int, seed: int) -> Course:
    """Train the published network.

    Parameters
    ----------
    dataset : Dataset
    epochs : int
    seed : int

    Returns
    -------
    dict
        `accuracy` on the validation split after each epoch, and `seconds` since the first step.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.layers.Input((1, dataset.length, 4)),
                keras.layers.Conv2D(FILTERS, (1, FILTER_WIDTH), activation="relu"),
                keras.layers.MaxPooling2D((1, POOL_WIDTH)),
                keras.layers.Flatten(),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        )
        model.compile("adam", loss="binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])

    def batches(split: str, shuffle: bool) -> tf.data.Dataset:
        rows = dataset.rows(split)
        one_hot = np.eye(5, 4, dtype=np.float32)[dataset.sequences[rows]][:, None]
        examples = tf.data.Dataset.from_tensor_slices((one_hot, dataset.labels[rows])).cache()
        if shuffle:
            examples = examples.shuffle(_SHUFFLE_BUFFER, seed=seed)
        return examples.batch(BATCH * strategy.num_replicas_in_sync).prefetch(tf.data.AUTOTUNE)

    training, validation = batches("train", True), batches("validation", False)
    # The first batch's end is the first moment: what is before it is mostly tracing.
    began: list[float] = []
    ended: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: began or began.append(time.monotonic()),
        on_epoch_end=lambda epoch, logs: ended.append(time.monotonic()),
    )
    history = model.fit(
        training, validation_data=validation, epochs=epochs, verbose=0, callbacks=[clock]
    )
    seconds = [end - began[0] for end in ended]
    return {"accuracy": history.history["val_accuracy"], "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main(train))
