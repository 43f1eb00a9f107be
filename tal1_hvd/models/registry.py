"""Names of the networks; listing them does not import Keras."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from tal1_hvd.errors import InputError
from tal1_hvd.published import FILTERS, SHORTEST_INPUT

if TYPE_CHECKING:
    import keras


class _Entry(NamedTuple):
    module: str
    builder: str
    shortest: int
    filters: int
    summary: str


_MODELS = {
    "paper": _Entry(
        "tal1_hvd.models.paper",
        "paper",
        SHORTEST_INPUT,
        FILTERS,
        "the published CNN, 1,246 parameters at 1,500 bp",
    ),
}

PRECISIONS = {"float32": "float32", "float64": "float64", "mixed": "mixed_bfloat16"}


def model_summaries() -> dict[str, str]:
    """Return each model's name and what it is, in one line."""
    return {name: entry.summary for name, entry in _MODELS.items()}


def build_model(name: str, length: int, seed: int, precision: str = "float32") -> keras.Model:
    """Build a network by name.

    Parameters
    ----------
    name : str
        One of `model_summaries`.
    length : int
        Of the sequences, in bp.
    seed : int
        Of the initial weights.
    precision : {"float32", "float64", "mixed"}
        Mixed computes in bfloat16 and keeps float32 weights; it needs no loss scaling.

    Returns
    -------
    keras.Model
        Input uint8 codes, shape (batch, length); output shape (batch, 1), in [0, 1].

    Raises
    ------
    InputError
        There is no such model, or it does not take this length.
    """
    require_length(name, length)
    entry = _MODELS[name]
    return getattr(import_module(entry.module), entry.builder)(length, seed, PRECISIONS[precision])


def require_length(name: str, length: int) -> None:
    """Raise InputError if there is no such model, or it does not take sequences so short.

    Parameters
    ----------
    name : str
    length : int
        In bp.
    """
    if name not in _MODELS:
        raise InputError(f"--model: {name!r} is none of {', '.join(_MODELS)}")
    shortest = _MODELS[name].shortest
    if length < shortest:
        raise InputError(
            f"--model: {name} needs sequences of at least {shortest} bp, these have {length} bp"
        )


def require_filters(name: str, ranks: int) -> None:
    """Raise InputError if a model's first layer cannot be split over so many ranks."""
    filters = _MODELS[name].filters
    if ranks > filters:
        raise InputError(
            f"--aggregation model-parallel: the {filters} filters of {name} cannot be split over "
            f"{ranks} ranks; start fewer ranks"
        )
