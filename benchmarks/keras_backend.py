"""Compares the published network between Keras's backends: scores, one training step, speed.

KERAS_BACKEND=tensorflow python benchmarks/keras_backend.py write reference.npz
KERAS_BACKEND=jax python benchmarks/keras_backend.py compare reference.npz

The file can be carried to another machine, with a GPU and without TensorFlow, say: what runs there
needs Keras 3, NumPy and this folder (PYTHONPATH=.). Exit code: 0 if scores before and after the
step agree to 1e-4 and the new weights to 1e-5; else 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import keras
import numpy as np

from tal1_hvd.models.paper import paper

LENGTH = 1500
BATCH = 64
EXAMPLES = 6_400
SCORES, WEIGHTS = 1e-4, 1e-5


def make_examples(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return random codes, shape (examples, length), some of them N, and labels, (examples, 1)."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 5, (EXAMPLES, LENGTH), dtype=np.uint8)
    return codes, random.integers(0, 2, (EXAMPLES, 1)).astype(np.float32)


def make_model() -> keras.Model:
    """Return the network, ready for training."""
    model = paper(LENGTH)
    model.compile(keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    return model


def run(weights: list[np.ndarray] | None) -> dict[str, np.ndarray]:
    """Score a batch, train on it once from the given weights, and score it again."""
    codes, labels = (array[:BATCH] for array in make_examples())
    model = make_model()
    if weights is not None:
        # Backends draw other numbers from the same seed.
        model.set_weights(weights)
    found = {f"start_{i}": array for i, array in enumerate(model.get_weights())}
    found["before"] = model.predict_on_batch(codes)
    model.train_on_batch(codes, labels)
    found["after"] = model.predict_on_batch(codes)
    return found | {f"end_{i}": array for i, array in enumerate(model.get_weights())}


def speed() -> tuple[float, float]:
    """Return the sequences a second of training and of scoring, in batches, without the first."""
    codes, labels = make_examples()
    model = make_model()
    rates = []
    for act in (
        lambda: model.fit(codes, labels, batch_size=BATCH, verbose=0),
        lambda: model.predict(codes, batch_size=1024, verbose=0),
    ):
        act()
        began = time.perf_counter()
        act()
        rates.append(EXAMPLES / (time.perf_counter() - began))
    return rates[0], rates[1]


def furthest(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], start: str) -> float:
    """Return the largest difference between the arrays whose names begin so."""
    names = [name for name in wanted if name.startswith(start)]
    return float(np.max([np.abs(found[name] - wanted[name]).max() for name in names]))


def main() -> int:
    """Write what one backend computes, or compare another with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("act", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    devices = ", ".join(keras.distribution.list_devices())
    print(f"Keras {keras.__version__}, {keras.backend.backend()}: {devices}")
    if args.act == "write":
        np.savez(args.file, **run(None))
        agree = True
    else:
        with np.load(args.file) as reference:
            wanted = dict(reference)
        starts = [name for name in wanted if name.startswith("start_")]
        found = run([wanted[f"start_{i}"] for i in range(len(starts))])
        off = {name: furthest(found, wanted, name) for name in ("before", "after", "end_")}
        print(
            f"largest difference: scores {off['before']:.1e}, after a step {off['after']:.1e}, "
            f"weights after it {off['end_']:.1e}"
        )
        agree = max(off["before"], off["after"]) <= SCORES and off["end_"] <= WEIGHTS
    training, scoring = speed()
    print(f"{training:,.0f} sequences a second in training, {scoring:,.0f} in scoring")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
