"""Figures, drawn from numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from tal1_hvd.evaluation.curves import Calibration, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; the yellow is too light for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
_CURVES_BESIDE_LEGEND = 4
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.8,
    "font.size": 10,
    "font.family": "sans-serif",
    "legend.frameon": False,
    # A dollar sign is one.
    "text.parse_math": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
}


@contextmanager
def _canvas(width: float = 5.2, height: float = 3.6) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure, sizes in inches, and its axes; what is drawn gets `_STYLE`."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    # Colours come again with another stroke.
    cycle = cycler(linestyle=["-", "--"]) * cycler(color=_COLOURS)
    with mpl.rc_context({**_STYLE, "axes.prop_cycle": cycle}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def learning_curve(
    curves: Mapping[str, Sequence[float]], what: str, best_epoch: int | None = None
) -> Figure:
    """Draw what changes over epochs.

    Parameters
    ----------
    curves : dict
        By name, a value for each epoch from 1.
    what : str
        Name of the vertical axis.
    best_epoch : int, optional
        Marked by a line.
    """
    with _canvas() as (figure, axes):
        for name, values in curves.items():
            alone = "o" if len(values) == 1 else None
            axes.plot(np.arange(1, len(values) + 1), values, label=name, marker=alone)
        if best_epoch is not None:
            label = f"epoch {best_epoch}, kept"
            axes.axvline(best_epoch, color="#7F7F7F", linestyle=":", linewidth=1.2, label=label)
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, axes)
    return figure


def roc(curve: Curve, area: float) -> Figure:
    """Draw a receiver operating characteristic."""
    with _canvas(4.2, 3.9) as (figure, axes):
        _band(axes, curve, f"auROC {area:.4f}")
        axes.plot([0, 1], [0, 1], color="#7F7F7F", linestyle=":", linewidth=1.2, label="chance")
        axes.set(xlabel="false positive rate", ylabel="recall")
        _unit_square(axes, "lower right")
    return figure


def precision_recall(curve: Curve, area: float, positives: float) -> Figure:
    """Draw precision over recall; `positives` is their share, which chance reaches."""
    with _canvas(4.2, 3.9) as (figure, axes):
        _band(axes, curve, f"auPRC {area:.4f}")
        axes.axhline(positives, color="#7F7F7F", linestyle=":", linewidth=1.2, label="chance")
        axes.set(xlabel="recall", ylabel="precision")
        _unit_square(axes, "lower left")
    return figure


def calibration(found: Calibration, error: float) -> Figure:
    """Draw how often examples with like scores are positive."""
    with _canvas(4.2, 3.9) as (figure, axes):
        axes.plot([0, 1], [0, 1], color="#7F7F7F", linestyle=":", linewidth=1.2, label="perfect")
        # Rounding can leave an end of an interval a hair inside.
        spread = [
            np.maximum(found.frequency - found.low, 0),
            np.maximum(found.high - found.frequency, 0),
        ]
        axes.errorbar(
            found.score,
            found.frequency,
            yerr=spread,
            fmt="o-",
            markersize=4,
            capsize=2,
            label=f"calibration error {error:.4f}",
        )
        axes.set(xlabel="mean score", ylabel="share of positives")
        _unit_square(axes, "lower right")
    return figure


def bars(values: Mapping[str, float], what: str, spread: Mapping[str, Sequence[float]]) -> Figure:
    """Draw a bar for each name, and single measurements as points on it.

    Parameters
    ----------
    values : dict
    what : str
        Name of the horizontal axis.
    spread : dict
        By name, single measurements.
    """
    with _canvas(6.4, 0.9 + 0.34 * len(values)) as (figure, axes):
        axes.barh(list(values), list(values.values()), color=_COLOURS[4], height=0.65)
        for place, (name, value) in enumerate(values.items()):
            points = spread.get(name, ())
            axes.plot(points, [place] * len(points), "o", color="#1b1f23", markersize=3, zorder=3)
            end = (max(value, *points) if len(points) else value, place)
            axes.annotate(f"{value:,.1f}", end, (8, 0), textcoords="offset points", va="center")
        axes.set(xlabel=what)
        axes.margins(x=0.15)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
    return figure


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    across: str,
    up: str,
    *,
    markers: bool = True,
    logarithmic: bool = False,
    dotted: Sequence[str] = (),
) -> Figure:
    """Draw lines through points.

    Parameters
    ----------
    curves : dict
        By name, places and heights.
    across, up : str
        Names of the axes.
    markers : bool
        Mark the points.
    logarithmic : bool
        Of the horizontal axis.
    dotted : sequence of str
        Names of what was not measured.
    """
    with _canvas() as (figure, axes):
        for name, (places, heights) in curves.items():
            measured = {"marker": "o" if markers else None, "markersize": 4}
            style = {"linestyle": ":", "linewidth": 1.2} if name in dotted else measured
            axes.plot(places, heights, label=name, **style)
        axes.set(xlabel=across, ylabel=up)
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    """Name the curves; below the axes where they are many."""
    if len(axes.get_legend_handles_labels()[1]) <= _CURVES_BESIDE_LEGEND:
        axes.legend()
        return
    figure.set_figheight(figure.get_figheight() + 1)
    figure.legend(
        loc="outside lower center", ncols=2, fontsize="x-small", handlelength=1.4, columnspacing=1
    )


def _band(axes: Axes, curve: Curve, label: str) -> None:
    (line,) = axes.plot(curve.x, curve.y, label=label)
    axes.fill_between(
        curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0,
        label="95 % of resamples",
    )  # fmt: skip


def _unit_square(axes: Axes, legend: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc=legend)
