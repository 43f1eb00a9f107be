"""A trained model as a Python object: ``tal1_hvd.load(run).predict(sequences)``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
import numpy as np

from tal1_hvd.data.encoding import UNKNOWN, encode, reverse_complement
from tal1_hvd.data.files import require_stored
from tal1_hvd.errors import InputError
from tal1_hvd.models.first_layer import fuse_first_layer
from tal1_hvd.models.scoring import Scorer
from tal1_hvd.training.run_folder import RunFolder

_AT_ONCE = 4096
_PARTS = ("metadata.json", "config.json", "model.weights.h5")


class TrainedModel:
    """The best model of a run.

    Parameters
    ----------
    model : keras.Model
        Input uint8 codes, shape (batch, length); output shape (batch, 1).

    Attributes
    ----------
    model : keras.Model
    length : int
        Of the sequences it takes, in bp.

    Examples
    --------
    >>> from tal1_hvd.models.registry import build_model
    >>> untrained = TrainedModel(build_model("paper", length=60, seed=0))
    >>> untrained.predict(["ACGT" * 15, "n" * 60, "R" * 60]).shape
    (3,)
    >>> untrained.predict(["N" * 60])
    array([0.5], dtype=float32)
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self._score = Scorer(fuse_first_layer(model))
        self.length = self._score.length

    def predict(
        self, sequences: Sequence[str] | np.ndarray, both_strands: bool = False
    ) -> np.ndarray:
        """Score sequences.

        Parameters
        ----------
        sequences : sequence of str, or np.ndarray, shape=(n, length), dtype=uint8
            Letters (any case, IUPAC codes count as N), or codes A C G T N = 0 1 2 3 4.
        both_strands : bool
            Mean over the sequence and its reverse complement.

        Returns
        -------
        np.ndarray, shape=(n,), dtype=float32 or float64
            Probability of a positive; the same whatever else is scored with a sequence.

        Raises
        ------
        InputError
            A sequence has another length, or a letter that is no nucleotide code.
        """
        codes = self._codes(sequences)
        scores = self._score(codes)
        return (scores + self._score(reverse_complement(codes))) / 2 if both_strands else scores

    def predict_rows(
        self, sequences: np.ndarray, rows: np.ndarray, both_strands: bool = False
    ) -> np.ndarray:
        """Score rows of a dataset, reading a few at a time.

        Parameters
        ----------
        sequences : np.ndarray, shape=(n, length), dtype=uint8
            May be a memory map.
        rows : np.ndarray, shape=(m,), dtype=int64
        both_strands : bool

        Returns
        -------
        np.ndarray, shape=(m,), dtype=float32 or float64
        """
        parts = [
            self.predict(sequences[rows[start : start + _AT_ONCE]], both_strands)
            for start in range(0, len(rows), _AT_ONCE)
        ]
        return np.concatenate(parts) if parts else self.predict([])

    def _codes(self, sequences: Sequence[str] | np.ndarray) -> np.ndarray:
        if isinstance(sequences, str):
            raise InputError("sequences: expected a list of strings, got one string")
        if not isinstance(sequences, Sequence | np.ndarray):
            raise InputError(
                f"sequences: expected a list of strings or an array, got {type(sequences).__name__}"
            )
        if isinstance(sequences, np.ndarray) and sequences.dtype.kind not in "US":
            if sequences.ndim != 2 or sequences.shape[1] != self.length:
                raise InputError(
                    f"sequences: expected shape (n, {self.length}), got {sequences.shape}"
                )
            if sequences.dtype != np.uint8 or sequences.max(initial=0) > UNKNOWN:
                raise InputError(
                    f"sequences: expected uint8 codes 0 to {UNKNOWN}, got {sequences.dtype} up to "
                    f"{sequences.max(initial=0)}"
                )
            return sequences
        codes = np.empty((len(sequences), self.length), dtype=np.uint8)
        for i, sequence in enumerate(sequences):
            if not isinstance(sequence, str):
                kind = type(sequence).__name__
                raise InputError(f"sequences: number {i} is no string but {kind}")
            if len(sequence) != self.length:
                raise InputError(
                    f"sequences: number {i} has {len(sequence)} bp, the model takes {self.length}"
                )
            try:
                codes[i] = encode(sequence)
            except InputError as error:
                raise InputError(f"sequences: number {i}: {error}") from None
        return codes


def load(run: str | Path) -> TrainedModel:
    """Load the best model of a run.

    Parameters
    ----------
    run : str or Path
        Run folder.

    Returns
    -------
    TrainedModel

    Raises
    ------
    InputError
        There is no run, it is not finished, or its model cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from tal1_hvd.models.registry import build_model
    >>> with tempfile.TemporaryDirectory() as run:
    ...     build_model("paper", length=60, seed=0).save(f"{run}/model.keras")
    ...     model = load(run)
    >>> model.length
    60
    """
    folder = RunFolder(Path(run))
    folder.require_model()
    path = folder.model
    try:
        _require_plain(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras reports damaged files with whatever its parsers stumble over.
    except Exception as error:
        raise InputError(f"{path}: not a Keras model, or damaged ({error})") from None
    if not isinstance(model, keras.Model) or not _takes_codes(model):
        raise InputError(
            f"{path}: not a model of sequences: it should take uint8 codes of shape "
            "(batch, length) and give one probability"
        )
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise InputError(f"{path}: holds weights that are no finite numbers")
    return TrainedModel(model)


def _require_plain(path: Path) -> None:
    """Raise ValueError if a model holds more files, or larger ones, than ours do."""
    with zipfile.ZipFile(path) as archive:
        require_stored(archive)
        for name in archive.namelist():
            if name not in _PARTS:
                raise ValueError(f"holds {name!r}")
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        file.visititems(_require_whole)


def _require_whole(name: str, item: h5py.Group | h5py.Dataset) -> None:
    if isinstance(item, h5py.Dataset) and (
        item.external or item.is_virtual or item.nbytes > item.id.get_storage_size()
    ):
        raise ValueError(f"does not hold all of {name}")


def _takes_codes(model: keras.Model) -> bool:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return False
    codes, probability = model.inputs[0], model.outputs[0]
    shape = tuple(codes.shape)
    return (
        len(shape) == 2
        and shape[1] is not None
        and codes.dtype == "uint8"
        and tuple(probability.shape[1:]) == (1,)
    )
