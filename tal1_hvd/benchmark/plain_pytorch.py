"""The published network as PyTorch's tutorials would train it, where PyTorch is installed.

``python -m tal1_hvd.benchmark.plain_pytorch --data DIR --epochs N --out JSON`` (internal; the
benchmark command starts it): one-hot float32 input, a `DataLoader` that shuffles, all cores; of the
validation split only the accuracy, where the others compute more.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from tal1_hvd.benchmark.baseline import BATCH, Course, main
from tal1_hvd.data.dataset import Dataset
from tal1_hvd.published import FILTER_WIDTH, FILTERS, POOL_WIDTH


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
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(seed)
    windows = (dataset.length - FILTER_WIDTH + 1) // POOL_WIDTH
    model = nn.Sequential(
        nn.Conv1d(4, FILTERS, FILTER_WIDTH),
        nn.ReLU(),
        nn.MaxPool1d(POOL_WIDTH),
        nn.Flatten(),
        nn.Linear(windows * FILTERS, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.BCEWithLogitsLoss()

    def batches(split: str, shuffle: bool) -> DataLoader:
        rows = dataset.rows(split)
        one_hot = np.eye(5, 4, dtype=np.float32)[dataset.sequences[rows]].transpose(0, 2, 1)
        labels = dataset.labels[rows].astype(np.float32)[:, None]
        examples = TensorDataset(
            torch.from_numpy(np.ascontiguousarray(one_hot)), torch.from_numpy(labels)
        )
        return DataLoader(examples, batch_size=BATCH, shuffle=shuffle)

    def accuracy(validation: DataLoader) -> float:
        model.eval()
        with torch.no_grad():
            right = sum(int(((model(x) > 0) == (y > 0.5)).sum()) for x, y in validation)
        return right / len(validation.dataset)

    training, validation = batches("train", True), batches("validation", False)
    began: list[float] = []
    course: Course = {"accuracy": [], "seconds": []}
    for _ in range(epochs):
        model.train()
        for x, y in training:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()
            # As with the other contestants, the clock runs from the end of the first step.
            if not began:
                began.append(time.monotonic())
        course["accuracy"].append(accuracy(validation))
        course["seconds"].append(time.monotonic() - began[0])
    return course


if __name__ == "__main__":
    sys.exit(main(train))
