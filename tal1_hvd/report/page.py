"""A self-contained HTML page: figures inside it, nothing loaded from elsewhere, no scripts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tal1_hvd._version import __version__
from tal1_hvd.data.files import atomic_file
from tal1_hvd.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table of words.

    Attributes
    ----------
    head : sequence of str
        May be empty.
    rows : sequence of sequence of str
        The first cell of each is its title.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes
    ----------
    title : str
    text : sequence of str
        Paragraphs.
    tables : sequence of Table
    figures : dict
        By the name of their files, a caption and a figure.
    """

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Mapping[str, tuple[str, Figure]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes
    ----------
    title, subtitle : str
    highlights : dict
        By what it is, a figure that readers look for first.
    sections : sequence of Section
    """

    title: str
    subtitle: str
    highlights: Mapping[str, str]
    sections: Sequence[Section]


@dataclass(frozen=True)
class Drawing:
    """A figure ready for a page.

    Attributes
    ----------
    svg : str
    width : float
        In inches, at which letters have their size.
    """

    svg: str
    width: float


def write_page(page: Page, path: Path, figures: Path) -> None:
    """Write a page, and its figures as PNG and SVG files.

    Parameters
    ----------
    page : Page
    path : Path
        The HTML file; replaced if it exists.
    figures : Path
        Folder of the figures; made if it is not there.

    Raises
    ------
    InputError
        Something cannot be written.
    """
    try:
        figures.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{figures}: cannot be written: {error.strerror}") from None
    drawings = {}
    for section in page.sections:
        for name, (_, figure) in section.figures.items():
            svg = _svg(figure, name)
            drawings[name] = Drawing(svg, figure.get_figwidth())
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=150)
            for suffix, content in (("svg", svg.encode()), ("png", png.getvalue())):
                with atomic_file(figures / f"{name}.{suffix}", "wb") as handle:
                    handle.write(content)
    with atomic_file(path) as handle:
        handle.write(render(page, drawings))


def render(page: Page, drawings: Mapping[str, Drawing]) -> str:
    """Return a page as HTML; everything but the drawings is escaped.

    Parameters
    ----------
    page : Page
    drawings : dict
        By the name of their files.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tal1_hvd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    return template.render(page=page, drawings=drawings, version=__version__)


def _svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element; identifiers it refers to are its own among others."""
    import matplotlib as mpl

    text = io.StringIO()
    # Text stays text; identifiers are the same each time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]
