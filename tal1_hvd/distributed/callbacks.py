"""Callbacks for ``fit`` on several ranks, to go with `DistributedOptimizer`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tal1_hvd.distributed.communicator import Communicator, connect


class BroadcastInitialState(keras.callbacks.Callback):
    """Starts all ranks from rank 0's weights and optimizer state.

    Parameters
    ----------
    communicator : Communicator, optional
        Default: the ranks this process was started with.
    """

    def __init__(self, communicator: Communicator | None = None):
        super().__init__()
        self._communicator = connect() if communicator is None else communicator
        self._pending = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Broadcast before the first step, if the model has its variables by then."""
        # All ranks must broadcast at the same moment.
        self._pending = not all(self._communicator.all_gather_json(self.model.built))
        if not self._pending:
            self._broadcast()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Broadcast after the first step, which has made the variables of a model built late."""
        if self._pending:
            self._pending = False
            self._broadcast()

    def _broadcast(self) -> None:
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        # Weights only: ranks that were seeded apart keep their own random states.
        self._communicator.broadcast_variables([*self.model.weights, *optimizer.variables])


class AverageLogs(keras.callbacks.Callback):
    """Replaces an epoch's logs by their means over ranks, so that all ranks decide alike.

    Put it before callbacks that read logs (EarlyStopping, ReduceLROnPlateau). The mean over ranks
    is right for means over equally many examples, such as loss and accuracy; the mean of AUCs is
    not the AUC of the whole, which needs all scores in one place.

    Parameters
    ----------
    communicator : Communicator, optional
        Default: the ranks this process was started with.
    """

    def __init__(self, communicator: Communicator | None = None):
        super().__init__()
        self._communicator = connect() if communicator is None else communicator

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Average in place: Keras hands the same dictionary to the callbacks that follow."""
        if not logs:
            return
        names = sorted(logs)
        values = np.array([[float(logs[name]) for name in names]])
        means = self._communicator.all_gather(values).mean(axis=0)
        logs.update(zip(names, means.tolist(), strict=True))
