"""``rdpbench figure``: a paper's figure or table from published numbers, from runs, or from both.

Beside the presets of ``conf/figure`` there are two of no paper: ``curves``, what runs measured beside what was
published of the same, and ``examples``, images that a run kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.errors import ConfigError, MissingNeed, UnknownName
from rdpbench.figures.presets import PAPERS, Panel, Preset, Series, presets
from rdpbench.figures.style import STYLES, paper_style
from rdpbench.paths import RUNS, available, experiment, write_file

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from rdpbench.figures.data import Filled, Run
    from rdpbench.results.store.store import Contents, Store

OWN = {
    "curves": "what runs measured beside what was published of the same codecs",
    "examples": "images that a run kept, with bpp and scores below each",
}
MOST_SCORES = 3
"""Below an example image, unless metrics are named."""


@dataclass(frozen=True)
class Loaded:
    """A run as figures need it."""

    store: Store
    contents: Contents
    run: Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench figure``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a preset, several, all; or curves, or examples")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument(
        "--run", dest="runs", action="append", default=[], metavar="RUN", help="its points, or those of an experiment"
    )
    parser.add_argument(
        "--root", metavar="FOLDER", default=RUNS, help="where runs lie; or root=FOLDER (default: %(default)s)"
    )
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--published-only", action="store_true", help="nothing of runs")
    side.add_argument("--measured-only", action="store_true", help="nothing that was published")
    parser.add_argument("--out", type=Path, default=Path("results/figures"), metavar="FOLDER", help="(%(default)s)")
    parser.add_argument("--style", default="default", metavar="|".join(STYLES), help="fonts and widths")
    parser.add_argument("--width", default="", metavar="single|double", help="of a column, or of the page")
    parser.add_argument(
        "--bpp", default="", metavar="LOW,HIGH", help="only these rates; of examples the rate: --bpp 0.1"
    )
    parser.add_argument("--all-sources", action="store_true", help="all published curves of a codec, not one of them")
    parser.add_argument("--random", action="store_true", help="points of random weights, too; watermarked")
    parser.add_argument(
        "--codec", default="", metavar="A,B", help="of curves and examples: these (default: of the run)"
    )
    parser.add_argument("--metric", default="", metavar="M,N", help="of curves and examples: these")
    parser.add_argument("--dataset", default="", metavar="NAME", help="of curves without a run")
    parser.add_argument(
        "--image", default="", metavar="A,B", help="of examples: these images (default: the first three)"
    )
    parser.add_argument("--crop", default="auto", metavar="x,y,w,h", help="of examples: a window, auto, or none")


def run(options: argparse.Namespace, console: Console) -> int:
    """Draw what was asked for and say where it is; returns the exit code.

    Raises:
        UnknownName: no such preset, run, style, codec or dataset.
        ConfigError: options that contradict one another.
        StoreUnwritable: the folder cannot be written.
    """
    if options.list or not options.names:
        console.print("\n".join(listing()), highlight=False, markup=False, soft_wrap=True)
        return 0
    paper_style(options.style)
    loaded = [] if options.published_only else [one for name in options.runs for one in _load(name, options.root)]
    if options.measured_only and not loaded:
        raise ConfigError("--measured-only needs runs: --run NAME")
    for preset in _chosen(options, loaded):
        _make(preset, options, loaded, console)
    return 0


def listing() -> list[str]:
    """The presets, paper by paper, and the two of no paper.

    >>> len([line for line in listing() if "taco-7" in line])
    1
    """
    lines = []
    known = presets()
    for paper, title in PAPERS.items():
        of = [one for one in known if one.paper == paper]
        lines += [title, *(f"  {one.name:28} {one.figure:14} {one.kind:9} {one.title}" for one in of), ""]
    lines += ["Of no paper", *(f"  {name:28} {'':14} {'':9} {text}" for name, text in OWN.items())]
    return lines


def _load(name: str, root: str) -> list[Loaded]:
    """A run by its name or folder, or the runs that an experiment of that name leaves, as far as they are there."""
    from rdpbench.figures.data import read_run
    from rdpbench.results.store.store import Store

    places = [[Path(root) / name], [Path(name)]]
    places += [[Path(root) / run for run in runs_named(name)]] if name in available("experiment") else []
    for folders in places:
        stores = [store for folder in folders if (store := Store(folder)).exists()]
        if stores:
            read = [(store, store.read()) for store in stores]
            return [Loaded(store, of, read_run(store.folder.resolve().name, of)) for store, of in read]
    runs = [path.name for path in Path(root).iterdir() if Store(path).exists()] if Path(root).is_dir() else []
    hint = f"; rdpbench run experiment={name} makes it" if len(places) > 2 else ""
    raise UnknownName("run", name, runs, f"looked in {root}; root=FOLDER looks elsewhere{hint}")


def runs_named(experiment_name: str) -> list[str]:
    """The run folders that an experiment leaves: as it says, or named after its datasets.

    >>> len(runs_named("taco-a1"))
    3
    """
    found = []
    for lines in experiment(experiment_name):
        said = dict(line.split("=", 1) for line in lines)
        found.append(said.get("run") or said.get("data", "").replace(",", "+"))
    return list(dict.fromkeys(found))


def _chosen(options: argparse.Namespace, loaded: Sequence[Loaded]) -> list[Preset]:
    known = {one.name: one for one in presets()}
    out = []
    for name in options.names:
        if name == "all":
            out += list(known.values())
        elif name in OWN:
            out.append(_curves(options, loaded) if name == "curves" else _examples(options, loaded))
        elif name in known:
            out.append(known[name])
        else:
            raise UnknownName("figure", name, [*known, *OWN, "all"], "rdpbench figure --list says what each is")
    return out


def _curves(options: argparse.Namespace, loaded: Sequence[Loaded]) -> Preset:
    """A panel for each dataset and metric of the runs, a curve for each codec."""
    rows = [row for one in loaded for row in one.run.points.rows]
    sets = list(dict.fromkeys((row.dataset, row.protocol) for row in rows)) or [(options.dataset, "as-is")]
    found = [str(name) for one in loaded for name in one.run.frame["metric"] if name]
    first = ["psnr", "psnr-pooled", "ms-ssim"]
    ordered = sorted(set(found), key=lambda name: (first.index(name) if name in first else len(first), name))
    metrics = _split(options.metric) or ordered
    codecs = _split(options.codec) or list(dict.fromkeys(row.codec for row in rows))
    if not (sets[0][0] and metrics and codecs):
        raise ConfigError("figure curves needs --run RUN; or without one --dataset NAME --metric M --codec A,B")
    panels = [Panel(dataset, protocol, "bpp", metric) for dataset, protocol in sets for metric in metrics]
    title = ", ".join(dict.fromkeys(dataset for dataset, _ in sets))
    return Preset("curves", "", "", title, "curves", (), tuple(panels), tuple(Series(one, one) for one in codecs))


def _examples(options: argparse.Namespace, loaded: Sequence[Loaded]) -> Preset:
    rows = [row for one in loaded for row in one.run.points.rows]
    if not rows:
        raise ConfigError("figure examples needs a run that kept its reconstructions: --run RUN, made with keep=all")
    sets = dict.fromkeys((row.dataset, row.protocol) for row in rows)
    codecs = _split(options.codec) or list(dict.fromkeys(row.codec for row in rows))
    series = tuple(Series(one, one) for one in codecs)
    panels = tuple(Panel(dataset, protocol) for dataset, protocol in sets)
    return Preset("examples", "", "", "Reconstructions beside the original", "images", (), panels, series)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _make(preset: Preset, options: argparse.Namespace, loaded: Sequence[Loaded], console: Console) -> None:
    if preset.kind == "diagram":
        console.print(f"{preset.name}: a diagram, nothing to measure", highlight=False)
        return
    makers = {"images": _draw_images, "heat-map": _draw_maps, "table": _write_table}
    written, lines = makers.get(preset.kind, _draw_curves)(preset, options, loaded, console)
    for path in written:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _frames(options: argparse.Namespace, loaded: Sequence[Loaded]) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Measured and published points, as far as they were asked for; random weights never beside published ones."""
    from rdpbench.figures.data import measured
    from rdpbench.results.published import published

    own = measured([one.run for one in loaded], random=options.random) if loaded else None
    return own, None if options.measured_only or options.random else published()


def _filled(preset: Preset, options: argparse.Namespace, loaded: Sequence[Loaded]) -> list[Filled]:
    from rdpbench.figures.data import between, fill

    filled = fill(preset, *_frames(options, loaded), every=options.all_sources)
    low, high = _range(options.bpp)
    return between(filled, low, high) if options.bpp else filled


def _range(text: str) -> tuple[float, float]:
    try:
        ends = [float(part) for part in text.split(",")] if text else [0.0, float("inf")]
    except ValueError:
        ends = []
    if len(ends) != 2 or not 0 <= ends[0] < ends[1]:
        raise ConfigError(f"--bpp {text} is not LOW,HIGH, such as --bpp 0.02,1")
    return ends[0], ends[1]


def _page(
    preset: Preset, filled: Sequence[Filled], options: argparse.Namespace, *lines: str, drawn: bool = False
) -> Path:
    """Write the notes beside the figure."""
    from rdpbench.figures import notes

    words = ["rdpbench figure", preset.name, *(f"--run {name}" for name in options.runs)]
    words += [f"root={options.root}"] if options.runs and str(options.root) != RUNS else []
    words += [f"--bpp {options.bpp}"] if options.bpp else []
    words += [f"--{flag.replace('_', '-')}" for flag in _FLAGS if getattr(options, flag)]
    usual = ("", "auto", "default")
    words += [f"--{name} {getattr(options, name)}" for name in _WORDS if getattr(options, name) not in usual]
    path: Path = options.out / f"{preset.name}.md"
    text = notes.page(preset, filled, style=options.style, command=" ".join(words), lines=lines, drawn=drawn)
    write_file(path, text)
    return path


_FLAGS = ("published_only", "measured_only", "all_sources", "random")
_WORDS = ("width", "codec", "metric", "dataset", "image", "crop", "style")


def _draw_curves(
    preset: Preset, options: argparse.Namespace, loaded: Sequence[Loaded], _: Console
) -> tuple[list[Path], list[str]]:
    from rdpbench.figures import curves

    filled = _filled(preset, options, loaded)
    lines = [f"Only points of {options.bpp.replace(',', ' to ')} bpp are drawn."] if options.bpp else []
    columns = options.width or ("single" if len(preset.panels) == 1 else "double")
    sides = (bool(loaded), not (options.measured_only or options.random))
    stem, style = options.out / preset.name, paper_style(options.style)
    drawn = curves.draw(preset, filled, stem, style, columns=columns, sides=sides, lines=lines)
    return [*drawn, _page(preset, filled, options, *lines)], []


def _draw_maps(
    preset: Preset, options: argparse.Namespace, loaded: Sequence[Loaded], _: Console
) -> tuple[list[Path], list[str]]:
    from rdpbench.figures import heatmap, notes
    from rdpbench.figures.data import measured

    rows = heatmap.maps(preset, measured([one.run for one in loaded], random=options.random))
    style = paper_style(options.style)
    drawn = heatmap.draw(preset, rows, options.out / preset.name, style, columns=options.width or "double")
    filled = _filled(preset, options, loaded)
    lines = [] if rows else [line.strip() for line in notes.to_run(preset, filled) if line]
    return [*drawn, _page(preset, filled, options, *(heatmap.notes(preset, rows) if rows else ()))], lines


def _write_table(
    preset: Preset, options: argparse.Namespace, loaded: Sequence[Loaded], console: Console
) -> tuple[list[Path], list[str]]:
    from rdpbench.figures.tables import table as table_of
    from rdpbench.results import tables
    from rdpbench.results.tables import latex

    made = table_of(preset, _filled(preset, options, loaded))
    console.print(tables.terminal(made))
    paths = [options.out / f"{preset.name}.{ending}" for ending in ("md", "tex")]
    for path, text in zip(paths, (tables.markdown(made), latex(made)), strict=True):
        write_file(path, text)
    return paths, []


def _draw_images(
    preset: Preset, options: argparse.Namespace, loaded: Sequence[Loaded], _: Console
) -> tuple[list[Path], list[str]]:
    """A figure from each run that kept images of the preset's codecs; else what to run."""
    from rdpbench.figures import notes

    filled = _filled(preset, argparse.Namespace(**{**vars(options), "bpp": ""}), loaded)
    written: list[Path] = []
    why = []
    for one in loaded:
        name = f"{preset.name}-{one.run.name}" if len(loaded) > 1 else preset.name
        try:
            paths, said = _grid(preset, options, one, name)
            written += paths
            why += said
        except MissingNeed as error:
            why.append(str(error))
    why += [] if loaded else ["Nothing to show without a run that kept its reconstructions: --run RUN"]
    lines = [] if written else [*why, *(line.strip() for line in notes.to_run(preset, filled) if line)]
    return [*written, _page(preset, filled, options, *why, drawn=bool(written))], lines


def _grid(preset: Preset, options: argparse.Namespace, one: Loaded, name: str) -> tuple[list[Path], list[str]]:
    from rdpbench.figures import examples
    from rdpbench.figures.data import trained_label
    from rdpbench.results.stats.meanings import meaning as points_meaning

    labels: dict[str, str] = {}
    here = {(panel.dataset, panel.protocol) for panel in preset.panels}
    for series in preset.series:
        for row in one.run.points.rows:
            same = (trained_label(row.codec) if options.random else row.codec) in series.labels
            if same and (row.dataset, row.protocol) in here and (options.random or row.weights != "random"):
                labels[row.codec] = series.label
    if not labels:
        wanted = ", ".join(series.codec for series in preset.series)
        raise MissingNeed(f"run {one.run.name} has none of {wanted} on {', '.join(sorted({d for d, _ in here}))}")
    scored = [metric for metric in one.run.points.metrics if points_meaning(metric).kind != "set"]
    rows = examples.kept(one.store, one.run.points, list(labels))
    rate = float(options.bpp) if options.bpp and options.bpp.replace(".", "", 1).isdigit() else None
    if options.bpp and not rate:
        raise ConfigError(f"--bpp {options.bpp}: for images it is one rate, such as --bpp 0.1")
    found = examples.examples(
        one.store,
        one.run.points,
        examples.choose(rows, rate),
        images=_split(options.image),
        metrics=_split(options.metric) or scored[:MOST_SCORES],
        crop=options.crop,
    )
    style = paper_style(options.style)
    drawn = examples.draw(found, labels, options.out / name, style, columns=options.width or "double")
    windows = [f"{example.image}: window {example.crop}." for example in found if example.crop is not None]
    return drawn, [*examples.notes(found), *windows]
