"""Example images as papers show them: the original, and beside it what codecs made of it, with bpp and scores below.

Taken from the reconstructions that a run kept (``keep=all``), each checked against the hash in its row. A window is
shown enlarged, the same for all codecs: one that the user names, or where the codecs differ most from the original.

Heat maps are drawn here, too: a metric over two settings of a codec, such as two guidance scales, with a row of maps
for each run and rate. Bright is better whichever way the metric goes; a cell that was not measured is hatched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rdpbench import registry
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ConfigError, MissingNeed, StoreCorrupt
from rdpbench.figures.curves import below
from rdpbench.figures.data import HeatMap
from rdpbench.figures.style import WATERMARK, PaperStyle, new_figure, plain, watermark
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.provenance import command
from rdpbench.results.names import Names, meaning
from rdpbench.results.stats.points import Points, grouped
from rdpbench.results.store.bitstreams import reconstruction_path
from rdpbench.results.store.calls import codec_named, original_path
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.setting import USUAL, Presentation, digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

MOST = 3
"""Images that are shown, unless some are named."""
SHARE = 0.3
"""Side of the automatic window, of the image's shorter side."""


@dataclass(frozen=True)
class Window:
    """A window of an image, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: Image) -> Image:
        """The window's pixels.

        Raises:
            ConfigError: it is not inside the image.

        >>> Window(1, 2, 3, 4).of(np.zeros((10, 10, 3), np.uint8)).shape
        (4, 3, 3)
        """
        tall, wide = image.shape[:2]
        if not (self.x >= 0 <= self.y and 0 < self.width <= wide - self.x and 0 < self.height <= tall - self.y):
            raise ConfigError(f"crop {self} is not inside an image of {wide} x {tall}: x,y,width,height in pixels")
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True)
class Example:
    """One image: what codecs made of it, the most compressed first as asked."""

    image: str
    original: Image
    rows: tuple[Row, ...]
    decoded: tuple[Image, ...]
    crop: Window | None
    automatic: bool
    scores: tuple[tuple[tuple[str, float], ...], ...]
    """Of each reconstruction the metrics that were asked for, where there is a value."""


def parse_crop(text: str) -> Window:
    """A window as it is typed.

    Raises:
        ConfigError: not four whole numbers.

    >>> parse_crop("10,20,64,48").width
    64
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--crop {text} is not x,y,width,height in pixels, such as 100,50,128,128; or auto, or none")
    return Window(*(int(part) for part in parts))


def worst_window(original: Image, decoded: Sequence[Image], share: float = SHARE) -> Window:
    """The square in which the mean squared error, over all reconstructions, is largest; the upper left of equals.

    >>> flat = np.zeros((40, 60, 3), np.uint8)
    >>> other = flat.copy()
    >>> other[20:26, 41:47] = 255
    >>> worst_window(flat, [other], share=0.25).width
    10
    """
    side = max(1, round(share * min(original.shape[:2])))
    base = original.astype(np.float64)
    error = sum((np.square(base - image).mean(axis=2) for image in decoded), np.zeros(original.shape[:2]))
    sums = np.pad(error, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    # Rounded, so that the order of additions does not choose between equal windows.
    y, x = np.unravel_index(int(np.round(windows, 3).argmax()), windows.shape)
    return Window(int(x), int(y), side, side)


def kept(store: Store, points: Points, codecs: Sequence[str] = ()) -> dict[str, list[Row]]:
    """Rows of these codecs, or of all, whose reconstruction is on the disk, by codec.

    Raises:
        MissingNeed: there is none of any of them.
    """
    good = [row for point in points.points if point.codec in (codecs or (point.codec,)) for row in point.good]
    rows = grouped((row for row in good if reconstruction_path(store, row).is_file()), lambda row: row.codec)
    if not rows:
        which = f" of {', '.join(codecs)}" if codecs else ""
        names = dict.fromkeys(_typed(store, row) for row in good)
        data = dict.fromkeys(row.dataset for row in good)
        again = command([f"codec={','.join(names) or 'NAME'}", f"data={','.join(data) or 'NAME'}", "keep=all"])
        raise MissingNeed(
            f"{store.folder} has no reconstructions{which}. Type what made it again with keep=all, such as\n  {again}\n"
            "and rate= or bpp= as before; what is coded already is only decoded again"
        )
    return {codec: rows[codec] for codec in codecs or rows if codec in rows}


def _typed(store: Store, row: Row) -> str:
    """What is typed for the codec of a row: a class of the user's has no name of its own."""
    use, _ = codec_named(store.folder, row) or (row.use, {})
    own = registry.parse(use)
    return f"{own.where}:{own.name}" if ":" in use else row.codec.partition("[")[0]


def choose(rows: Mapping[str, Sequence[Row]], bpp: float | None = None) -> dict[str, list[Row]]:
    """Of each codec and seed the setting whose mean rate is nearest to a rate on a log axis.

    Without a rate it is the lowest that all codecs reach. Settings are chosen for all images alike: an image's own rate
    may differ, and stands below it.
    """
    groups = {codec: list(grouped(along, lambda row: row.setting).values()) for codec, along in rows.items()}
    target = bpp or max(min(map(mean_rate, along)) for along in groups.values())
    return {codec: min(along, key=lambda g: abs(math.log(mean_rate(g) / target))) for codec, along in groups.items()}


def mean_rate(rows: Sequence[Row]) -> float:
    """Bits per pixel, mean over rows."""
    return math.fsum(row.bpp or math.nan for row in rows) / len(rows)


def examples(
    store: Store,
    points: Points,
    chosen: Mapping[str, Sequence[Row]],
    *,
    images: Sequence[str] = (),
    metrics: Sequence[str] = (),
    crop: str = "auto",
) -> list[Example]:
    """Read the images: those named, or the first that all codecs have.

    Raises:
        MissingNeed: an image is not here, or no image is there for all codecs.
        StoreCorrupt: a kept reconstruction is not what was decoded.
        ConfigError: a crop that is none, or lies outside.
    """
    ordered = (row for rows in chosen.values() for row in sorted(rows, key=lambda row: row.seed))
    by_image = grouped(ordered, lambda row: row.image)
    whole = [image for image, rows in sorted(by_image.items()) if {row.codec for row in rows} == set(chosen)]
    if missing := [image for image in images if image not in whole]:
        raise MissingNeed(f"no reconstruction by each codec of {', '.join(missing)}; there is of: {', '.join(whole)}")
    if not whole:
        raise MissingNeed(f"no image was kept for all of {', '.join(chosen)}; run them with keep=all")
    read = []
    for image in images or whole[:MOST]:
        rows = by_image[image]
        original, decoded = original_of(store, rows[0]), [reconstruction_of(store, row) for row in rows]
        window = None
        if crop != "none":
            window = worst_window(original, decoded) if crop == "auto" else parse_crop(crop)
            window.of(original)
        values = ([(name, points.value(row, name)) for name in metrics] for row in rows)
        scores = tuple(tuple((name, value) for name, value in own if value is not None) for own in values)
        read.append(Example(image, original, tuple(rows), tuple(decoded), window, crop == "auto", scores))
    return read


def original_of(store: Store, row: Row) -> Image:
    """What a row's codec and metrics saw, checked against the hash in the row.

    Raises:
        MissingNeed: the file is no longer there.
        StoreCorrupt: it changed since.
    """
    path = original_path(store, row)
    if not path.is_file():
        raise MissingNeed(f"the original of {row.image} is no longer at {path}; run the same command to fetch it")
    pixels = load_under(row.protocol, path).pixels
    if pixel_sha256(pixels) != row.pixel_sha256:
        raise StoreCorrupt(f"{path} changed since it was coded; run the same command again to code it anew")
    return pixels


def reconstruction_of(store: Store, row: Row) -> Image:
    """A row's reconstruction as it was kept, checked against the hash in the row.

    Raises:
        StoreCorrupt: it is not what was decoded.
    """
    path = reconstruction_path(store, row)
    pixels = read_image(path).pixels
    if pixel_sha256(pixels) != row.reconstruction_sha256:
        raise StoreCorrupt(f"{path} is not what was decoded; delete it, and the run with keep=all makes it again")
    return pixels


def compose(
    shown: Sequence[Example], labels: Mapping[str, str], style: PaperStyle, show: Presentation = USUAL
) -> Figure:
    """A row for each image, under the ``labels`` of the codecs; call it as `compose_maps`."""
    width = style.width(show.size)
    grid: list[list[Image]] = []
    for example in shown:
        own = [example.original, *example.decoded]
        grid.append(own if example.crop is None else [example.original, *map(example.crop.of, own)])
    across = max(len(row) for row in grid)
    lines = 1 + max((len(scores) for example in shown for scores in example.scores), default=0)
    # Width over height of each column's widest image.
    ratios = [max(r[n].shape[1] / r[n].shape[0] for r in grid if n < len(r)) for n in range(across)]
    text = lines * style.small * 1.25 / 72 + 0.05
    gap = 0.03
    free = (width - gap * (across - 1)) / sum(ratios)
    head = style.size * 1.5 / 72
    heights = [max(free * ratios[n] * image.shape[0] / image.shape[1] for n, image in enumerate(row)) for row in grid]
    tall = head + sum(heights) + len(shown) * text
    figure = new_figure(width, tall, layout=None)
    top = tall - head
    texts: list[list[Text]] = []
    for number, (example, row, height) in enumerate(zip(shown, grid, heights, strict=True)):
        left = 0.0
        for column, pixels in enumerate(row):
            place = (left / width, (top - height) / tall, free * ratios[column] / width, height / tall)
            axis = figure.add_axes(place)
            axis.imshow(pixels, interpolation="nearest")
            axis.set_anchor("N")
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_visible(False)
            which = column - len(row) + len(example.rows)
            named = labels, Names(show.labels)
            texts.append(_words(axis, example, which, style, named, head=number == 0, column=column))
            left += free * ratios[column] + gap
        top -= height + text
    _fit(texts, ratios, free)
    below(figure, {}, notes(shown) if show.notes else (), style)
    if any(row.weights == "random" for example in shown for row in example.rows):
        watermark(figure)
    return figure


def _words(
    axis: Axes,
    example: Example,
    which: int,
    style: PaperStyle,
    named: tuple[Mapping[str, str], Names],
    *,
    head: bool,
    column: int,
) -> list[Text]:
    """The name above the first row, rate and scores below each image; the frame of the window in the original."""
    from matplotlib.patches import Rectangle

    (labels, names), crop, title, lines = named, example.crop, "", [""]
    if column == 0:
        title, lines = "original", [example.image]
        for colour, wide in (("white", 1.4), ("black", 0.7)):
            if crop is not None:
                size = (crop.x - 0.5, crop.y - 0.5), crop.width, crop.height
                axis.add_patch(Rectangle(*size, fill=False, edgecolor=colour, linewidth=wide))
    elif which < 0:
        title, lines = "its window", [str(crop)]
    if which >= 0:
        row = example.rows[which]
        several = len({other.seed for other in example.rows if other.codec == row.codec}) > 1
        title = labels.get(row.codec, names.codec(row.codec)) + (f", seed {row.seed}" if several else "")
        lines = [f"{row.bpp:.4f} bpp"]
        for name, value in example.scores[which]:
            text = f"{value:.2f} dB" if meaning(name).unit == "dB" else f"{value:.4f}"
            lines.append(f"{names.metric(name)} {text}")
    above = axis.set_title(plain(title) if head else "", fontsize=style.small, pad=3)
    beneath = axis.text(
        *(0.5, -0.02, plain("\n".join(lines))),
        transform=axis.transAxes,
        ha="center",
        va="top",
        fontsize=style.small,
        linespacing=1.15,
    )
    return [above, beneath]


def _fit(texts: Sequence[Sequence[Text]], ratios: Sequence[float], height: float) -> None:
    """Make all letters as small as the narrowest column asks for."""
    shares = [1.0]
    for number, pair in enumerate(texts):
        room = 0.97 * ratios[number % len(ratios)] * height
        for text in pair:
            figure = text.get_figure(root=True)
            assert figure is not None
            shares.append(room / max(text.get_window_extent().width / figure.dpi, 1e-6))
    for text in (text for pair in texts for text in pair):
        text.set_fontsize(float(text.get_fontsize()) * min(shares))


def notes(shown: Sequence[Example]) -> list[str]:
    """What the windows are, and what the settings were."""
    lines = []
    if any(example.crop is not None and example.automatic for example in shown):
        lines.append("Window (x,y,width,height): where the mean squared error over the codecs shown is largest.")
    rows = [row for example in shown for row in example.rows]
    settings = set()
    for row in rows:
        native = f"{row.rate_field} {digits(row.rate)}" if row.rate is not None else "one setting"
        settings.add((row.codec, native if row.target_bpp is None else f"searched for {digits(row.target_bpp)} bpp"))
    lines.append(f"Settings: {'; '.join(f'{codec} at {point}' for codec, point in sorted(settings))}.")
    sets = dict.fromkeys(f"{row.dataset}, {row.protocol}" for row in rows)
    return [*lines, f"Images: {'; '.join(sets)}. Rates are of the image shown, scores of all of it."]


# Heat maps

COLOURS = "cividis"
"""Told apart by all kinds of vision, and brighter along the scale."""


def compose_maps(rows: Sequence[Sequence[HeatMap]], style: PaperStyle, show: Presentation = USUAL) -> Figure:
    """The maps of a preset of kind ``heat-map``; call it inside `drawing`, or by `rdpbench.figures.style.write`."""
    width = style.width(show.size)
    # Of a column's width two side by side, so that values can be read in the cells.
    across = min(2, len(rows[0])) if show.size == "column" else len(rows[0])
    flat = [part for row in rows for part in row]
    down = -(-len(flat) // across)
    side = width / across
    figure = new_figure(width, down * (side * 0.95 + 0.1))
    axes = figure.subplots(down, across, squeeze=False)
    for axis, part in zip(axes.flat, flat, strict=False):
        _draw_map(axis, part, style, Names(show.labels))
    for axis in axes.flat[len(flat) :]:
        axis.set_axis_off()
    below(figure, {}, notes_of_maps(rows) if show.notes else (), style)
    if any(part.random for part in flat):
        watermark(figure)
    return figure


def notes_of_maps(rows: Sequence[Sequence[HeatMap]]) -> list[str]:
    """What must be said of the maps; nothing, if there is none."""
    if not rows:
        return []
    titles = list(dict.fromkeys(row[0].title for row in rows))
    several, flat = len(titles) > 1, [part for row in rows for part in row]
    lines = [f"{WATERMARK}."] if any(part.random for part in flat) else []
    lines += [f"{f'Row {number}: ' if several else ''}{title}." for number, title in enumerate(titles, start=1)]
    if any(not np.isfinite(part.values).all() for part in flat):
        lines.append("Hatched: not measured.")
    return [*lines, "Bright is better."]


def _draw_map(axis: Axes, part: HeatMap, style: PaperStyle, names: Names) -> None:
    better = meaning(part.panel.value).higher_is_better
    axis.set_title(plain(names.axis(part.panel.value)), loc="left", fontsize=style.small)
    axis.set_xlabel(plain(names.axis(part.panel.x)), fontsize=style.small)
    axis.set_ylabel(plain(names.axis(part.panel.y)), fontsize=style.small)
    axis.grid(visible=False)
    if not part.values.size:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="0.5")
        return
    axis.patch.set(hatch="////", edgecolor="0.8")
    image = axis.imshow(part.values, cmap=COLOURS if better else f"{COLOURS}_r", origin="lower", aspect="auto")
    axis.set_xticks(range(len(part.xs)), [f"{x:g}" for x in part.xs])
    axis.set_yticks(range(len(part.ys)), [f"{y:g}" for y in part.ys])
    _values(axis, part, image, style)


def _values(axis: Axes, part: HeatMap, image: object, style: PaperStyle) -> None:
    """The number in each cell, black on bright and white on dark; as small as the cells ask for."""
    shade = image.to_rgba(part.values)  # type: ignore[attr-defined]  # an AxesImage
    digits = 2 if meaning(part.panel.value).unit == "dB" else 3
    figure = axis.get_figure(root=True)
    assert figure is not None
    room = figure.get_figwidth() / axis.get_gridspec().ncols * 0.62 * 72 / max(1, len(part.xs))  # type: ignore[union-attr]
    longest = max(len(f"{value:.{digits}f}") for value in part.values[np.isfinite(part.values)])
    size = min(style.small, room / (0.62 * longest))
    for (row, column), value in np.ndenumerate(part.values):
        if np.isfinite(value):
            bright = float(shade[row, column, :3] @ np.array([0.2126, 0.7152, 0.0722])) > 0.5
            axis.text(
                *(column, row, f"{value:.{digits}f}"),
                ha="center",
                va="center",
                fontsize=size,
                color="black" if bright else "white",
            )
