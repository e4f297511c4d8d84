"""How figures look, a codec's curve the same in all of them, and how they are written; each run writes the same bytes.

A paper style sets the font, its size and the widths of a column and of the page as the venue's author kit has them, so
that a figure is included at its size and its letters are those of the text.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench.errors import check_names
from rdpbench.paths import file_name, records, write_file, written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#6A51A3", "#7A7A7A"),
)
"""Okabe and Ito's colours for all kinds of vision, without the yellow that white paper swallows, and three more. In the
order of the report's ``--c0`` to ``--c9``, which are darker on white and lighter on black."""
MARKERS = "osD^vPXph*"
"""In the order of the report's ``SYMBOLS``."""
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: publishers refuse type 3 fonts
    "svg.hashsalt": "rdpbench",  # ids in SVG are random without it
    "svg.fonttype": "path",
}
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "rdpbench"}},
    "svg": {"metadata": {"Date": None, "Creator": "rdpbench"}},
}
WATERMARK = "random weights: not results"


@dataclass(frozen=True)
class PaperStyle:
    """Widths in inches, letters in points (1/72 inch)."""

    single: float
    """One column."""
    double: float
    """The page between its margins."""
    fonts: tuple[str, ...] = ("DejaVu Sans",)
    """The first that has a letter draws it; all of them come with matplotlib, so that no machine draws others."""
    size: float = 8.0
    small: float = 6.0
    """Legends and notes."""

    def width(self, size: str) -> float:
        """Of a figure as wide as a ``column`` or a ``page``, or for a ``slide``, whose style `of_size` gives.

        >>> STYLES["icml"].width("column")
        3.25
        """
        return self.single if size == "column" else self.double

    def of_size(self, size: str) -> PaperStyle:
        """The same with the letters of a slide, for one.

        >>> STYLES["icml"].of_size("slide").width("slide")
        12.0
        """
        return self if size != "slide" else replace(self, single=6.0, double=12.0, size=16.0, small=13.0)


_TIMES = ("STIXGeneral", "DejaVu Sans")
STYLES = {
    "default": PaperStyle(3.5, 7.2),
    "icml": PaperStyle(3.25, 6.75, _TIMES, 8.0, 6.5),
    "neurips": PaperStyle(2.7, 5.5, _TIMES, 8.0, 6.5),
    "cvpr": PaperStyle(3.25, 6.875, _TIMES, 8.0, 6.5),
}
"""By venue: text of 6.75, 5.5 and 6.875 inches; NeurIPS has one column, whose half is ``single``."""


def paper_style(name: str) -> PaperStyle:
    """The style of that name.

    Raises:
        UnknownName: no such style.

    >>> paper_style("neurips").double
    5.5
    """
    check_names("style", [name], STYLES)
    return STYLES[name]


@contextlib.contextmanager
def drawing(style: PaperStyle | None = None) -> Iterator[None]:
    """matplotlib as figures of rdpbench need it, whatever the user's own settings; without a style that of runs."""
    import matplotlib as mpl

    own = dict(STYLE)
    if style is not None:
        small = dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), style.small)
        own |= {"font.family": list(style.fonts), "font.size": style.size, "axes.titlesize": style.size, **small}
        own |= {"axes.labelsize": style.size, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(own)  # type: ignore[arg-type]  # keys are a closed set of literals in the stubs
        yield


def new_figure(width: float, height: float, *, layout: str | None = "constrained") -> Figure:
    """An empty figure of so many inches, apart from pyplot and its windows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as New

    engine = _steady_layout() if layout == "constrained" else layout
    figure = New(figsize=(width, height), layout=engine, dpi=FORMATS["png"]["dpi"])  # type: ignore[arg-type]  # a closed set of literals
    FigureCanvasAgg(figure)
    return figure


def _steady_layout() -> LayoutEngine:
    """Matplotlib's constrained layout, which places the panels in every process to the same digits."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    class Steady(ConstrainedLayoutEngine):
        def execute(self, fig: Figure) -> Any:
            solved = super().execute(fig)
            # Its solver adds up in the order of addresses in memory, so the last digits of a place are chance.
            for axes in fig.axes:
                for which in ("original", "active"):
                    place = axes.get_position(original=which == "original")
                    place.set_points(place.get_points().round(9))
                    # set_position() would take the panel out of the layout.
                    axes._set_position(place, which=which)  # type: ignore[attr-defined]
            return solved

    return Steady()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write PNG, PDF and SVG without dates; each is swapped in whole.

    Raises:
        StoreUnwritable: the folder cannot be written.
    """
    paths = []
    for ending, options in FORMATS.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        with written_whole(path) as beside:
            figure.savefig(beside, format=ending, **options)
        figure.set_layout_engine("none")  # the panels lie where the first format has them: finding that out takes long
        paths.append(path)
    return paths


def write(
    compose: Callable[[PaperStyle], Figure], stem: Path, style: PaperStyle, size: str, title: str, lines: Iterable[str]
) -> list[Path]:
    """Draw a figure and `save` it; beside it, as a text file, its caption: the title and what must be said."""
    text, sized = stem.with_name(f"{stem.name}.txt"), style.of_size(size)
    with drawing(sized):
        paths = save(compose(sized), stem)
    write_file(text, "".join(f"{line}\n" for line in (f"{title.rstrip('.')}.", *lines)))
    return [*paths, text]


def plain(name: str) -> str:
    """A name as it is: matplotlib reads dollars as formulas, and hides what begins with an underscore.

    >>> plain("5$"), len(plain("_a"))
    ('5\\\\$', 3)
    """
    return name.replace("$", r"\$") if not name.startswith("_") else f" {name}".replace("$", r"\$")


def safe(name: str) -> str:
    """As part of a file's name.

    >>> safe("fid/taco-299/whole"), len(safe("a/b"))
    ('fid-taco-299-whole', 3)
    """
    return file_name("".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name), fill="-")


def log_ticks(low: float, high: float, most: int = 99) -> list[float]:
    """Round numbers between two rates for a logarithmic axis, as dense as ``most`` allows.

    >>> log_ticks(0.02, 3.0, most=5)
    [0.03, 0.1, 0.3, 1.0, 3.0]
    """
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{m}e{d}") for d in decades for m in digits if low <= float(f"{m}e{d}") <= high]
        if len(ticks) <= most:
            break
    return ticks


def rate_axis(axis: Axes, low: float, high: float, most: int = 99) -> None:
    """Label the axis of rates: logarithmic where they span more than a factor of ten, else linear from zero."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    if high > 10 * low > 0:
        axis.set_xscale("log")
        axis.set_xlim(low / 1.25, high * 1.25)
        axis.xaxis.set_major_locator(FixedLocator(log_ticks(low / 1.25, high * 1.25, most)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(0, high * 1.08)
        few_ticks(axis, min(most, 6))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def few_ticks(axis: Axes, most: int) -> None:
    """At most so many ticks below a linear axis."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(most))


def watermark(figure: Figure) -> None:
    """Say across the figure that it shows networks that nobody trained."""
    figure.text(
        *(0.5, 0.5, WATERMARK),
        ha="center",
        va="center",
        rotation=25,
        fontsize=min(40.0, 4.2 * figure.get_figwidth()),
        color="#D00000",  # seen on white and on the dark end of a colour scale
        alpha=0.3,
        zorder=10,
        gid="watermark",
    )


def is_bound(label: str) -> bool:
    """Does the preset behind a label say ``role: bound``? Such a codec says how good others can get, at any rate.

    >>> is_bound("sd-vae[weights=random]"), is_bound("jpeg")
    (True, False)
    """
    return label.partition("[")[0] in _bounds()


@cache
def _bounds() -> frozenset[str]:
    return frozenset(str(record["name"]) for record in records("codec") if record.get("role") == "bound")
