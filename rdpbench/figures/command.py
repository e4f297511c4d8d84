"""``rdpbench figure``, a paper's figure or table, and ``rdpbench show`` and ``bd``, the tables and figures of a run.

A figure is of published numbers, of runs, or of both. Beside the presets of ``conf/figure`` there are two of no paper:
``curves``, what runs measured beside what was published of the same, and ``examples``, images that a run kept.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.errors import ConfigError, MissingNeed, UnknownName, check_names
from rdpbench.figures import curves, examples, notes
from rdpbench.figures.data import (
    PAPERS,
    DrawnCurve,
    FigurePreset,
    Filled,
    Panel,
    Run,
    Series,
    between,
    fill,
    heat_maps,
    measured,
    presented,
    presets,
    read_runs,
    trained_label,
)
from rdpbench.figures.style import STYLES, PaperStyle, paper_style, safe, write
from rdpbench.paths import RUNS, available, experiment, write_file
from rdpbench.results import tables
from rdpbench.results.names import Names, published_name
from rdpbench.results.published import published
from rdpbench.results.read import open_run
from rdpbench.results.stats import against
from rdpbench.results.stats.bd import METHODS
from rdpbench.results.stats.current import PROVEN, of_store, read_grades
from rdpbench.results.stats.meanings import meaning, metric_order
from rdpbench.results.stats.points import Point, Points, titles
from rdpbench.results.stats.summary import PLACE, compared, frame, tidy
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.records import used
from rdpbench.results.store.store import Store
from rdpbench.results.tables import say
from rdpbench.setting import PRESENTED, SIZES, USUAL, Presentation, split_label, split_list

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

OWN = {
    "curves": "what runs measured beside what was published of the same codecs",
    "examples": "images that a run kept, with bpp and scores below each",
}
MOST_SCORES = 3
"""Below an example image, unless metrics are named."""


def _option(default: Any, metavar: str, text: str) -> Any:
    return field(default=default, metadata={"metavar": metavar, "help": text})


@dataclass(frozen=True)
class FigureOptions:
    """What was asked for of figures, as the command line has it, and in its order."""

    runs: tuple[str, ...] = _option((), "RUN", "its points, or those of an experiment")
    root: str = _option(RUNS, "FOLDER", "where runs lie; or root=FOLDER (default: %(default)s)")
    bpp: str = _option("", "LOW,HIGH", "only these rates; of examples the rate: --bpp 0.1")
    published_only: bool = _option(False, "", "nothing of runs")
    measured_only: bool = _option(False, "", "nothing that was published")
    all_sources: bool = _option(False, "", "all published curves of a codec, not one of them")
    grades: str = _option(",".join(PROVEN), "A,B", "of rates: decoded, joint, reported (default: %(default)s)")
    random: bool = _option(False, "", "points of random weights, too; watermarked")
    codec: str = _option("", "A,B", "of curves and examples: these (default: of the run)")
    metric: str = _option("", "M,N", "of curves and examples: these")
    dataset: str = _option("", "NAME", "of curves without a run")
    image: str = _option("", "A,B", "of examples: these images (default: the first three)")
    crop: str = _option("auto", "x,y,w,h", "of examples: a window, auto, or none")
    style: str = _option("default", "|".join(STYLES), "fonts and widths")
    size: str = _option("", "|".join(SIZES), "how wide; or size=...")
    labels: str = _option("", "NAME=TEXT,...", "of codecs, metrics, sets; or a YAML file; or labels=...")
    order: str = _option("", "A,B", "codecs that come first; or order=...")
    panels: str = _option("", "M,N", "of these metrics or datasets, in this order; or panels=...")
    notes: bool = _option(False, "", "the caption in the picture, too; or notes=true")
    over: str = _option("", "METRIC", "of curves: metrics over this one, at the rate --bpp 0.4, not over the rate")
    anchor: str = _option("", "CODEC", "BD-rates against it in the legend; or anchor=...")
    siunitx: bool = _option(False, "", "of tables: numbers aligned by siunitx; or siunitx=true")
    out: Path = field(default=Path("results/figures"), metadata={"metavar": "FOLDER", "help": "(%(default)s)"})

    @property
    def show(self) -> Presentation:
        """How results are shown. Raises as `Presentation.read`."""
        return Presentation.read({name: getattr(self, name) for name in PRESENTED})

    def command(self, name: str) -> str:
        """What is typed to draw a figure so."""
        words = ["rdpbench figure", name, *(f"--run {run}" for run in self.runs)]
        words += [f"root={self.root}"] if self.runs and self.root != RUNS else []
        for each in fields(self)[2:-1]:
            value = getattr(self, each.name)
            if value != each.default:
                words.append(f"--{each.name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(value)}"))
        return " ".join(words)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench figure``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a preset, several, all; or curves, or examples")
    parser.add_argument("--list", action="store_true", help="list all figures and tables")
    side = parser.add_mutually_exclusive_group()
    for each in fields(FigureOptions):
        flag, text = f"--{each.name.replace('_', '-')}", each.metadata["help"]
        if each.name == "runs":
            parser.add_argument("--run", dest="runs", action="append", default=[], metavar="RUN", help=text)
        elif each.default is False:
            (side if flag.endswith("-only") else parser).add_argument(flag, action="store_true", help=text)
        else:
            kind, metavar = Path if each.name == "out" else str, each.metadata["metavar"]
            parser.add_argument(flag, type=kind, default=each.default, metavar=metavar, help=text)


def add_presentation(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench show``: how results are shown."""
    for each in (each for each in fields(FigureOptions) if each.name in PRESENTED):
        how: dict[str, Any] = (
            {"action": "store_true"} if each.default is False else {"metavar": each.metadata["metavar"]}
        )
        parser.add_argument(f"--{each.name}", default=each.default, help=each.metadata["help"], **how)


def run(options: argparse.Namespace, console: Console) -> int:
    """Draw what was typed, or list what there is; returns the exit code. Raises as `make_figures`."""
    if options.list or not options.names:
        say(console, *listing())
        return 0
    given = {each.name: getattr(options, each.name) for each in fields(FigureOptions)}
    given |= {"runs": tuple(options.runs), "root": str(options.root)}
    make_figures(options.names, FigureOptions(**given), console)
    return 0


def listing() -> list[str]:
    """The presets, paper by paper, and the two of no paper.

    >>> len([line for line in listing() if "taco-7" in line])
    1
    """
    lines = []
    known = presets()
    for paper, title in PAPERS.items():
        own = [preset for preset in known if preset.paper == paper]
        lines += [
            title,
            *(f"  {preset.name:28} {preset.figure:14} {preset.kind:9} {preset.title}" for preset in own),
            "",
        ]
    return [*lines, "Of no paper", *(f"  {name:28} {'':14} {'':9} {text}" for name, text in OWN.items())]


def make_figures(names: Sequence[str], options: FigureOptions, console: Console) -> None:
    """Draw figures and write tables, and say where they are.

    Raises:
        UnknownName: no such preset, run, style, codec or dataset.
        ConfigError: options that contradict one another.
        StoreUnwritable: the folder cannot be written.
    """
    paper_style(options.style)
    asked = [] if options.published_only else options.runs
    stores = {store.folder.resolve(): store for name in asked for store in _stores(name, options.root)}
    runs, left_out = read_runs([*stores.values()], read_grades(options.grades))
    say(console, *left_out)
    if options.measured_only and not runs:
        raise ConfigError("--measured-only needs runs: --run NAME")
    known = {preset.name: preset for preset in presets()}
    chosen: list[FigurePreset] = []
    for name in names:
        if name not in (*known, *OWN, "all"):
            if Store(Path(options.root) / name).exists():
                again = replace(options, runs=(*options.runs, name)).command("curves")
                raise ConfigError(f"{name} is a run, not a figure; type: {again}")
            hint = "rdpbench figure --list says what each is; of a run of yours: rdpbench figure curves --run NAME"
            raise UnknownName("figure", name, [*known, *OWN, "all"], hint)
        chosen += known.values() if name == "all" else [known[name] if name in known else _own(name, options, runs)]
    makers = {"images": _draw_images, "heat-map": _draw_maps, "table": _write_table}
    for whole in chosen:
        preset = presented(whole, options.show)
        if preset.kind == "diagram":
            say(console, f"{preset.name}: a diagram, nothing to measure")
            continue
        written, lines = makers.get(preset.kind, _draw_curves)(preset, options, runs, console)
        say(console, *(f"  {line}" for line in (*written, *lines)), *_no_panel(preset, known.values(), runs))


def _no_panel(preset: FigurePreset, known: Iterable[FigurePreset], runs: Sequence[Run]) -> Iterator[str]:
    """What to type where runs were named and a figure has no panel of their datasets."""
    here = {(where.dataset, where.protocol) for run in runs for where in run.points.places}
    if not runs or here & _sets(preset):
        return
    names = [each.name for each in known if each.kind != "diagram" and here & _sets(each)]
    of_runs = ", ".join(sorted({dataset for dataset, _ in here})) or "these runs, which are empty"
    needs = ", ".join(sorted({dataset for dataset, _ in _sets(preset)})) or "another dataset"
    more = f"; rdpbench run experiment={preset.name} makes its run" if preset.name in available("experiment") else ""
    yield (
        f"{preset.name} shows nothing of {of_runs}: it is of {needs}{more}. Figures of {of_runs}: "
        f"{', '.join([*names, *OWN])}"
    )


def _sets(preset: FigurePreset) -> set[tuple[str, str]]:
    return {(panel.dataset, panel.protocol) for panel in preset.panels}


def _stores(name: str, root: str) -> list[Store]:
    """A run by its name or folder, or the runs that an experiment of that name leaves, as far as they are there."""
    stores = []
    if name in available("experiment") and not any(Store(place).exists() for place in (Path(root) / name, Path(name))):
        stores = [store for folder in runs_named(name) if (store := Store(Path(root) / folder)).exists()]
    hint = f"; rdpbench run experiment={name} makes it" if name in available("experiment") else ""
    return stores or [open_run(name, root, hint)]


def runs_named(experiment_name: str) -> list[str]:
    """The run folders that an experiment leaves: as it says, or named after its datasets.

    >>> len(runs_named("taco-a1"))
    3
    """
    settings = [dict(line.split("=", 1) for line in lines) for lines in experiment(experiment_name)]
    return list(dict.fromkeys(each.get("run") or each.get("data", "").replace(",", "+") for each in settings))


def _own(name: str, options: FigureOptions, runs: Sequence[Run]) -> FigurePreset:
    """A figure of no paper: a panel for each dataset (and metric) of the runs, a series for each codec."""
    points = [point for run in runs for point in run.points.points]
    sets = list(dict.fromkeys((point.where.dataset, point.where.protocol) for point in points))
    codecs = split_list(options.codec) or list(dict.fromkeys(point.codec for point in points))
    series = tuple(Series(codec, Names().codec(codec)) for codec in codecs)
    if name == "examples":
        if not points:
            raise ConfigError(
                "figure examples needs a run that kept its reconstructions: --run RUN, made with keep=all"
            )
        title, panels = "Reconstructions beside the original", [Panel(*where) for where in sets]
        return FigurePreset(name, "", "", title, "images", (), tuple(panels), series)
    sets = sets or [(options.dataset, "as-is")]
    there = {str(metric) for run in runs for metric in run.frame["metric"] if metric}
    metrics = split_list(options.metric) or sorted(there, key=metric_order)
    if not (sets[0][0] and metrics and codecs):
        raise ConfigError("figure curves needs --run RUN; or without one --dataset NAME --metric M --codec A,B")
    title = ", ".join(dict.fromkeys(Names(options.show.labels).dataset(dataset) for dataset, _ in sets))
    if not options.over:
        panels = [Panel(*where, "bpp", metric) for where in sets for metric in metrics]
        return FigurePreset(name, "", "", title, "curves", (), tuple(panels), series)
    rate = _one_rate(options.bpp)
    if rate is None:
        raise ConfigError(f"--over {options.over} needs the rate at which metrics are compared, such as --bpp 0.4")
    others = [metric for metric in metrics if metric != options.over]
    panels = [Panel(*where, options.over, metric, at_bpp=rate) for where in sets for metric in others]
    return FigurePreset(name, "", "", title, "scatter", (), tuple(panels), series)


def _one_rate(text: str) -> float | None:
    return float(text) if text.replace(".", "", 1).isdigit() and float(text) else None


def _filled(preset: FigurePreset, options: FigureOptions, runs: Sequence[Run]) -> list[Filled]:
    """Measured and published points, as far as they were asked for; random weights never beside published ones."""
    own = measured(runs, random=options.random) if runs else None
    theirs = None if options.measured_only or options.random else published()
    filled = fill(preset, own, theirs, every=options.all_sources)
    filled = [_as_published(preset, each, options.show) for each in filled] if preset.name in OWN else filled
    if not options.bpp or options.over:
        return filled
    try:
        low, high = map(float, options.bpp.split(","))
    except ValueError:
        low = high = 0.0
    if not 0 <= low < high:
        raise ConfigError(f"--bpp {options.bpp} is not LOW,HIGH, such as --bpp 0.02,1")
    return between(filled, low, high)


def _as_published(preset: FigurePreset, filled: Filled, show: Presentation) -> Filled:
    """Published curves under the codec's general name: that of ours says how we code, such as 4:4:4."""

    def general(curve: DrawnCurve) -> DrawnCurve:
        series = preset.series[curve.series]
        name = show.labels.get(series.codec) or published_name(series.codec)
        return curve if curve.measured else replace(curve, label=curve.label.replace(series.label, name, 1))

    return replace(filled, curves=tuple(map(general, filled.curves)), others=tuple(map(general, filled.others)))


def _page(
    preset: FigurePreset, filled: Sequence[Filled], options: FigureOptions, *lines: str, drawn: bool = False
) -> Path:
    """Write the notes beside the figure."""
    path = options.out / f"{preset.name}.md"
    command = options.command(preset.name)
    said = lines, drawn, options.show
    write_file(path, notes.page(preset, filled, *said, style=options.style, command=command))
    return path


Made = tuple[list[Path], list[str]]
"""Files, and what is said below them."""


def _draw_curves(preset: FigurePreset, options: FigureOptions, runs: Sequence[Run], _: Console) -> Made:
    filled = _filled(preset, options, runs)
    ranged = options.bpp and not options.over
    lines = [f"Only points of {options.bpp.replace(',', ' to ')} bpp are drawn."] if ranged else []
    size = options.size or ("column" if len([each for each in filled if each.curves]) == 1 else "page")
    stem, style, show = options.out / preset.name, paper_style(options.style), replace(options.show, size=size)
    drawn = curves.draw(preset, filled, stem, style, lines=lines, show=show)
    return [*drawn, _page(preset, filled, options, *lines)], [] if drawn else _undrawn(preset, filled, runs)


def _draw_maps(preset: FigurePreset, options: FigureOptions, runs: Sequence[Run], _: Console) -> Made:
    rows = heat_maps(preset, measured(runs, random=options.random))
    filled, said = _filled(preset, options, runs), examples.notes_of_maps(rows)
    drawn = _written(partial(examples.compose_maps, rows, show=options.show), preset, options, said) if rows else []
    return [*drawn, _page(preset, filled, options, *said)], [] if rows else _undrawn(preset, filled, runs)


def _written(
    compose: Callable[[PaperStyle], Figure],
    preset: FigurePreset,
    options: FigureOptions,
    said: Sequence[str],
    suffix: str = "",
) -> list[Path]:
    stem = options.out / f"{preset.name}{suffix}"
    return write(compose, stem, paper_style(options.style), options.size, preset.title, said)


def _undrawn(preset: FigurePreset, filled: Sequence[Filled], runs: Sequence[Run]) -> list[str]:
    """What is said in place of an empty figure."""
    there = {str(metric) for run in runs for metric in run.frame["metric"] if metric}
    lacking = dict.fromkeys(panel.metric for panel in preset.panels if panel.metric not in there)
    if there and len(lacking) == len({panel.metric for panel in preset.panels}) and not preset.paper:
        stored = f"no value of {', '.join(lacking)} is stored, only of {', '.join(sorted(there))}"
        again = f"type what made the run again as rdpbench score ... metrics={','.join(lacking)}"
        return [f"Nothing is drawn: {stored}. To add it, {again}"]
    return ["Nothing is drawn, since there is no point of any series.", *_to_run(preset, filled)]


def _to_run(preset: FigurePreset, filled: Sequence[Filled]) -> list[str]:
    return [line.strip() for line in notes.to_run(preset, filled) if line]


def _write_table(preset: FigurePreset, options: FigureOptions, runs: Sequence[Run], console: Console) -> Made:
    table = notes.paper_table(preset, _filled(preset, options, runs), options.show)
    say(console, table)
    paths = [options.out / f"{preset.name}.{ending}" for ending in ("md", "tex")]
    texts = tables.markdown(table), tables.latex(table, Names(options.show.labels), siunitx=options.siunitx)
    for path, text in zip(paths, texts, strict=True):
        write_file(path, text)
    return paths, []


def _draw_images(preset: FigurePreset, options: FigureOptions, runs: Sequence[Run], _: Console) -> Made:
    """A figure from each run that kept images of the preset's codecs; else what to run."""
    filled = _filled(preset, replace(options, bpp=""), runs)
    written: list[Path] = []
    told = [] if runs else ["Nothing to show without a run that kept its reconstructions: --run RUN"]
    for run in runs:
        try:
            paths, said = _draw_examples(preset, options, run, f"-{run.name}" if len(runs) > 1 else "")
            written += paths
            told += said
        except MissingNeed as error:
            told.append(str(error))
    lines = [] if written else [*told, *_to_run(preset, filled)]
    return [*written, _page(preset, filled, options, *told, drawn=bool(written))], lines


def _draw_examples(preset: FigurePreset, options: FigureOptions, run: Run, suffix: str) -> Made:
    labels: dict[str, str] = {}
    here = {(panel.dataset, panel.protocol) for panel in preset.panels}
    for series in preset.series:
        for point in run.points.points:
            same = (trained_label(point.codec) if options.random else point.codec) in series.labels
            if same and (point.where.dataset, point.where.protocol) in here and (options.random or not point.random):
                labels[point.codec] = series.label
    if not labels:
        wanted = ", ".join(series.codec for series in preset.series)
        raise MissingNeed(f"run {run.name} has none of {wanted} on {', '.join(sorted({d for d, _ in here}))}")
    rows = examples.kept(run.store, run.points, list(labels))
    rate = _one_rate(options.bpp)
    if options.bpp and not rate:
        raise ConfigError(f"--bpp {options.bpp}: for images it is one rate, such as --bpp 0.1")
    scored = [metric for metric in run.points.metrics if meaning(metric).kind != "set"]
    shown = examples.examples(
        run.store,
        run.points,
        examples.choose(rows, rate),
        images=split_list(options.image),
        metrics=split_list(options.metric) or scored[:MOST_SCORES],
        crop=options.crop,
    )
    windows = [f"{example.image}: window {example.crop}." for example in shown if example.crop is not None]
    said = [*examples.notes(shown), *windows]
    compose = partial(examples.compose, shown, labels, show=options.show)
    return _written(compose, preset, options, said, suffix), said


# Tables and figures of a run

LISTED = 100_000
"""Rows up to which rows.csv is written unasked."""


def show(
    store: Store,
    contents: Contents,
    points: Points,
    metrics: Sequence[str],
    console: Console,
    *,
    figures: bool = True,
    presented: Presentation = USUAL,
    rows: bool = False,
) -> list[Path]:
    """Print the summary of points and write all outputs; returns the files worth naming.

    ``rows`` writes rows.csv of a large run, too.
    """
    order = presented.ordered(dict.fromkeys(point.codec for point in points.points))
    points = replace(points, points=tuple(sorted(points.points, key=lambda point: order.index(point.codec))))
    say(console, *points.notes, *_unknown(presented, points, metrics))
    store.check_links("tables", "figures")
    drawn: list[tables.Table] = []
    written: list[Path] = []
    names, whole = titles(points.places), frame(points, metrics)
    for where, name in names.items():
        here = points.at(where)
        table = tables.measured(whole[(whole[PLACE] == list(where)).all(axis=1)], name)
        timed = tables.times(here, contents, name if len(names) > 1 else "")
        # Its library imports one that draws, which takes longer than a small run.
        glance = against.at_a_glance(here, metrics) if figures else []
        times = [timed] if timed else []
        say(console, table, *glance, *times)
        drawn += [table, *glance, *tables.at_equal_rates(here, metrics, name), *times]
        if figures:
            # Curves of two datasets, or of two protocols, in one panel would be joined to one.
            place = "" if len(names) == 1 else safe(name)
            side_by_side, notes = compared(here, metrics)
            written += curves.draw_all(side_by_side, store.folder / "figures" / place, name, notes, presented)[:4]
    folder = store.folder / "tables"
    in_latex = partial(tables.latex, names=Names(presented.labels), siunitx=presented.siunitx)
    write_file(folder / "summary.md", "\n".join(map(tables.markdown, drawn)))
    write_file(folder / "summary.tex", "\n".join(map(in_latex, drawn)))
    tables.to_csv(whole, folder / "summary.csv")
    count = sum(len(point.rows) for point in points.points)
    files = []
    if count <= LISTED or rows:
        files = [store.folder / "rows.csv"]
        tables.to_csv(tidy(points, metrics), files[0])
    else:
        typed = f"rdpbench show {store.folder.name} --rows"
        say(console, f"rows.csv would have {count:,} rows, and is not written; {typed} writes it")
        (store.folder / "rows.csv").unlink(missing_ok=True)  # of an earlier state
    if (store.folder / "rows.parquet").is_file():
        files.insert(0, store.folder / "rows.parquet")
    return [*files, *(folder / f"summary.{ending}" for ending in ("csv", "md", "tex")), *written]


def _unknown(presented: Presentation, points: Points, metrics: Sequence[str]) -> Iterator[str]:
    """What was asked for and is not there: said, and not refused, since hours of coding may lie before it."""
    codecs = {name for point in points.points for name in (point.codec, split_label(point.codec)[0])}
    sides = {"panels": (presented.shown, set(metrics))}
    sides |= {"order": (presented.order, codecs), "anchor": (tuple(filter(None, [presented.anchor])), codecs)}
    for setting, (asked, there) in sides.items():
        for name in asked:
            if name not in there:
                yield f"{setting}={name}: not in this run; it has {', '.join(sorted(there))}"


def by_tag(points: Points, metrics: Sequence[str]) -> Iterator[tables.Table]:
    """One table for each tag of the images: a mean over photographs and scans together may be true of neither."""
    for tag in sorted(
        {tag for text in used((point.rows for point in points.points), "tags") for tag in text.split(",") if tag}
    ):
        for where, name in titles(points.places).items():
            has = [
                (p, p.rows.where(p.rows.codes("tags").where(lambda text: tag in text.split(","))))  # noqa: B023 (asked at once)
                for p in points.at(where).points
            ]
            size = len(used((rows for _, rows in has), "image"))
            sized = [
                Point(where, p.codec, p.setting, rows.stating(dataset_size=np.full(len(rows), size)), p.names)
                for p, rows in has
                if len(rows)
            ]
            if sized:
                # A distance between sets is of all images; of those of a tag there is none.
                of_pairs = [metric for metric in metrics if meaning(metric).kind != "set"]
                yield tables.measured(frame(replace(points, points=tuple(sized)), of_pairs), f"{name}, {tag}")


def bd(options: argparse.Namespace, store: Store, console: Console) -> int:
    """Print the tables of ``rdpbench bd`` and write what was asked for; returns the exit code.

    Raises:
        UnknownName: no such curve, metric or method in the run.
        ConfigError: a number of resamples that gives no interval.
        StoreUnwritable: a file cannot be written.
    """
    if options.resamples < 20:
        raise ConfigError(f"--resamples {options.resamples}: an interval of 95 % needs 20 at the least, better 1000")
    check_names("method", [options.method], METHODS)
    points = of_store(store.read())
    say(console, *points.notes)
    against.check_metrics(points, options.metric)
    _check_anchor(options.name, options.anchor, points)
    asked = points, options.anchor, options.metric
    drawn = against.bd_tables(*asked, method=options.method, resamples=options.resamples)
    drawn += against.crossover_tables(*asked, resamples=options.resamples) if options.crossover else []
    drawn += against.matched_tables(*asked, resamples=options.resamples) if options.matched else []
    say(console, *drawn)
    for path, how in ((options.markdown, tables.markdown), (options.latex, partial(tables.latex, names=Names()))):
        if path is not None:
            write_file(path, "\n".join(map(how, drawn)))
            say(console, f"  {path}")
    return 0


def _check_anchor(run: str, anchor: str, points: Points) -> None:
    """Raise `ConfigError` if there is no anchor, or nothing to hold against it."""
    curves = list(dict.fromkeys(point.codec for point in points.points if point.competes))
    if not anchor and curves:
        raise ConfigError(
            f"against which curve? {run} has {', '.join(curves)}; type: rdpbench bd {run} --anchor {curves[0]}"
        )
    if curves == [anchor]:
        data = ",".join(dict.fromkeys(point.where.dataset for point in points.points))
        raise ConfigError(
            f"{run} has no curve beside {anchor}, so there is nothing to compare; one more, such as webp:\n"
            f"  rdpbench run codec=webp data={data.replace('folder-', 'folder:')} run={run}"
        )
