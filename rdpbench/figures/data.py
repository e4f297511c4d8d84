"""What a figure shows: its preset, and for each panel its curves, each of one origin, and the series without data.

Each ``conf/figure/<paper>-<figure>.yaml`` describes a figure or table of a paper::

    paper: taco                     # one of PAPERS
    figure: Figure 7                # as the paper counts
    title: Kodak                    # ours
    kind: curves                    # curves, scatter, heat-map, table, images or diagram
    notes: [...]                    # what is not known of it, optional
    panels:                         # none for a diagram
      - dataset: kodak              # our name, and its protocol
        protocol: as-is
        x: bpp                      # or another metric, or a setting of the codec; a table has none
        y: psnr                     # our metric; of a heat map a second setting, and value is the metric
        accept: [psnr@unstated]     # published metrics that may stand in, said beside them; optional
        accept_datasets: [...]      # published sets that may stand in; optional
        at_bpp: 0.4                 # scatter: interpolated at this rate
    series:                         # one line, row or example each
      - codec: hific
        label: HiFiC
        variant: ""                 # only published curves of this variant; without it, all of the codec
        added: true                 # ours, not in the paper; optional
        measured: [hific-tfci]      # labels of our curves of it beside the codec's own name; optional

A diagram has neither panels nor series: it is listed, so that none is missing.

A curve's points share all that changes a number: dataset, protocol, codec and variant, metric, what the rate counts,
and the source; or for what was measured here, the run. Points of two origins are two curves, and no line joins them.
Points of another metric or dataset than the panel's have its name beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rdpbench.errors import ConfigError, check_names
from rdpbench.lazy import pd
from rdpbench.paths import conf_folder, read_as, read_yaml
from rdpbench.results.names import family
from rdpbench.results.read import bits_kinds, names_of
from rdpbench.results.stats.bd import Floats, gap, usable, value_at
from rdpbench.results.stats.current import PROVEN, of_store
from rdpbench.results.stats.joined import of_one_edition
from rdpbench.results.stats.points import Points, grouped
from rdpbench.results.stats.summary import POINT, WIDE, curve_keys, side_by_side, summarise
from rdpbench.results.store.schema import Timing
from rdpbench.results.store.store import Store
from rdpbench.results.tables import untrained
from rdpbench.setting import Presentation, Setting, split_label

PAPERS = {
    "text-sketch": "Text + Sketch (Lei et al., 2023, arXiv 2307.01944)",
    "textual-inversion": "Textual inversion (Pan et al., 2022, arXiv 2211.07793)",
    "taco": "TACO (Lee et al., ICML 2024, arXiv 2403.02944)",
    "perco": "PerCo (Careil et al., ICLR 2024, arXiv 2310.10325)",
}
KINDS = ("curves", "scatter", "heat-map", "table", "images", "diagram")


@dataclass(frozen=True)
class Panel:
    """One axis pair, one column of a table, or one set of example images."""

    dataset: str
    protocol: str
    x: str = ""
    y: str = ""
    value: str = ""
    accept: tuple[str, ...] = ()
    accept_datasets: tuple[str, ...] = ()
    at_bpp: float | None = None

    @property
    def metric(self) -> str:
        """The metric that the panel is about; empty for images."""
        return self.value or self.y

    @property
    def settings(self) -> tuple[str, ...]:
        """The codec's settings on its axes.

        >>> len(Panel("kodak", "as-is", "guidance", "strength", "psnr").settings)
        2
        """
        if self.value:
            return self.x, self.y
        return () if self.x in ("", "bpp") or self.at_bpp is not None else (self.x,)


@dataclass(frozen=True)
class Series:
    """One curve, row or column of examples."""

    codec: str
    label: str
    variant: str | None = None
    added: bool = False
    measured: tuple[str, ...] = ()
    """Labels that curves of it have in runs, such as ``taco[captions=ofa]``."""

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of our curves of it: the codec's name, with the variant if it is one, and those that are listed.

        >>> Series("taco", "TACO", measured=("taco[captions=ofa]",)).labels
        ('taco', 'taco[captions=ofa]')
        """
        own = f"{self.codec}[{self.variant}]" if self.variant else self.codec
        return tuple(dict.fromkeys((own, *self.measured)))


@dataclass(frozen=True)
class FigurePreset:
    """A figure or table of a paper."""

    name: str
    paper: str
    figure: str
    title: str
    kind: str
    notes: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    series: tuple[Series, ...] = ()


def presented(preset: FigurePreset, show: Presentation) -> FigurePreset:
    """The same with the labels, the order and the panels that were asked for.

    Raises:
        UnknownName: what has no panel, or is no codec, in this figure.
    """
    there = dict.fromkeys(name for panel in preset.panels for name in (panel.metric, panel.dataset) if name)
    check_names("panel", show.shown, there, f"the panels of {preset.name}")
    codecs = dict.fromkeys(name for series in preset.series for name in (series.codec, series.label))
    check_names("codec", show.order, codecs, f"those of {preset.name}")
    panels = [panel for name in show.shown for panel in preset.panels if name in (panel.metric, panel.dataset)]
    series = [replace(s, label=show.labels.get(s.codec, show.labels.get(s.label, s.label))) for s in preset.series]
    places = {name: place for place, name in enumerate(show.order)}
    series.sort(key=lambda s: min(places.get(s.codec, len(places)), places.get(s.label, len(places))))
    return replace(preset, panels=tuple(dict.fromkeys(panels)) or preset.panels, series=tuple(series))


def presets(folder: Path | None = None) -> list[FigurePreset]:
    """All figures and tables, paper by paper.

    Raises:
        ConfigError: a file that is not one, with what it may hold.

    >>> sum(preset.kind == "table" for preset in presets())
    5
    """
    folder = conf_folder() / "figure" if folder is None else folder
    known = [_preset(path, read_yaml(path)) for path in sorted(folder.glob("*.yaml"))]
    return sorted(known, key=lambda preset: (list(PAPERS).index(preset.paper), preset.kind == "table"))


def _preset(path: Path, record: Any) -> FigurePreset:
    if isinstance(record, Mapping):
        panels = [read_as(Panel, part, f"{path}: panels") for part in record.get("panels", ())]
        series = [read_as(Series, part, f"{path}: series") for part in record.get("series", ())]
        record = {**record, "panels": panels, "series": series, "name": path.stem}
    preset = read_as(FigurePreset, record, f"{path}")
    for name, allowed in (("paper", tuple(PAPERS)), ("kind", KINDS)):
        if getattr(preset, name) not in allowed:
            raise ConfigError(f"{path}: {name} is {getattr(preset, name)!r}; it can be {', '.join(allowed)}")
    if bool(preset.panels and preset.series) == (preset.kind == "diagram"):
        raise ConfigError(f"{path}: a diagram has no panels and series, and everything else has both")
    return preset


# What there is to draw


@dataclass(frozen=True)
class DrawnPoint:
    """One point of a curve."""

    x: float
    """Bits per pixel, a setting or another metric."""
    y: float
    low: float = math.nan
    """95 % interval, as ``high``, where it was measured here."""
    high: float = math.nan
    bpp: float = math.nan
    doubts: tuple[str, ...] = ()
    """Why it cannot be relied on: what the source got wrong, or too few images for the metric."""
    digitised: bool = False
    """Read off a plot."""
    partial: bool = False
    """Measured on fewer images than the dataset has."""
    images: str = ""
    """Which these are: the dataset's manifest and a fingerprint; empty where published."""


@dataclass(frozen=True)
class DrawnCurve:
    """Points of one origin, by rising x."""

    series: int
    """Its number in the preset."""
    label: str
    """The series', with the variant where the series is not of one."""
    measured: bool
    dataset: str
    metric: str
    """As its source names it."""
    variant: str
    bits_kind: str
    """`rdpbench.results.published.BITS`; several of a measured curve are joined by commas."""
    origin: str
    """Id of the published source, or the run's name."""
    source: str
    """In full: repository, commit and file, or paper and table."""
    points: tuple[DrawnPoint, ...]
    random: bool = False
    """By networks that nobody trained."""


@dataclass(frozen=True)
class Filled:
    """A panel with its curves."""

    panel: Panel
    curves: tuple[DrawnCurve, ...]
    empty: tuple[str, ...]
    """Labels of the series that there is nothing of."""
    others: tuple[DrawnCurve, ...] = ()
    """Published curves of the same series, which are not drawn."""


# Runs


@dataclass(frozen=True)
class Run:
    """What is read of a run: its points, and the rows that they are means of."""

    name: str
    store: Store
    points: Points
    frame: pd.DataFrame
    """Of `rdpbench.results.stats.summary.frame`."""
    times: pd.DataFrame
    """Honest times as points, with the ``device`` that they are of."""


def read_runs(stores: Sequence[Store], grades: Sequence[str] = PROVEN) -> tuple[list[Run], list[str]]:
    """The current points of stores, of one edition of each metric; and notes on what is left out."""
    held = {name: (store, store.read()) for name, store in zip(names_of(stores), stores, strict=True)}
    known, notes = of_one_edition({name: of_store(read, grades=grades) for name, (_, read) in held.items()})
    runs = []
    for name, points in known.items():
        sides = points.only(lambda point: not point.random), points.only(lambda point: point.random)
        lines = pd.concat([side_by_side(side, points.metrics) for side in sides], ignore_index=True)
        store, contents = held[name]
        runs.append(Run(name, store, points, lines, times(lines, points, contents.timings.values())))
    return runs, [*dict.fromkeys(note for points in known.values() for note in points.notes), *notes]


def measured(runs: Iterable[Run], *, random: bool = False) -> pd.DataFrame:
    """The points of several runs in one frame, with ``run`` and ``bits_kind``; of random weights only if asked."""
    parts = []
    for run in runs:
        devices = [f"{run.name}, {device}" for device in run.times["device"]]
        # Times of two devices are of two origins.
        for lines, origin in ((run.frame, run.name), (run.times.drop(columns="device"), devices)):
            if len(lines):
                kinds = [kind or "unstated" for kind in bits_kinds(lines, run.points)]
                parts.append(lines.assign(run=origin, bits_kind=kinds))
    empty = summarise((), (), ()).assign(run="", bits_kind="", doubtful="")
    lines = pd.concat(parts, ignore_index=True) if parts else empty
    return lines if random else lines[~untrained(lines)]


TIMES = ("encode-ms", "decode-ms", "total-ms")
"""Honest times as tables of papers call them. They are no metrics: a device and its load belong to them. Total is the
median of the sums, not the sum of the medians."""


def times(frame: pd.DataFrame, points: Points, timings: Iterable[Timing]) -> pd.DataFrame:
    """Medians over images of the medians of repeats, in milliseconds, of the points of a run.

    Lines of the same columns, three for each point and device that was timed, and a column ``device``.

    >>> from rdpbench.results.stats.summary import summarise
    >>> len(times(summarise((), (), ()), Points(()), ()))
    0
    """
    by_task = grouped(timings, lambda timing: timing.task_key)
    by_point: dict[tuple[Any, ...], dict[str, list[Timing]]] = {}
    for point, row in points.rows_of(by_task):
        for timing in by_task[row.task_key]:
            place = *point.where, point.codec, point.setting
            by_point.setdefault(place, {}).setdefault(timing.device, []).append(timing)
    usual = {"value_lo": math.nan, "value_hi": math.nan, "infinite": 0, "images": ""}
    usual |= {"unit": "ms", "higher_is_better": False, "perceptual": False, "reliable": True}
    heads = frame.drop_duplicates(POINT)
    lines = []
    for key, head in zip(curve_keys(heads), heads.to_dict("records"), strict=True):
        for device, timed in by_point.get((*key, Setting.of_line(head)), {}).items():
            seconds = np.array([(each.encode_s, each.decode_s, each.encode_s + each.decode_s) for each in timed])
            medians = zip(TIMES, (1000 * np.median(seconds, axis=0)).tolist(), strict=True)
            own = head | usual | {"n_scored": len(timed), "device": device}
            lines += [own | {"metric": name, "value": value} for name, value in medians]
    return pd.DataFrame(lines, columns=[*frame.columns, "device"])


# Panels


def fill(
    preset: FigurePreset, own: pd.DataFrame | None, published: pd.DataFrame | None, *, every: bool = False
) -> list[Filled]:
    """The curves of each panel: those that were measured, and of each series one that was published.

    Of several published curves the one is drawn that is not in doubt, not of a retrained network, and has most points;
    the others are listed. ``every`` draws them all.
    """

    def preference(curve: DrawnCurve) -> tuple[Any, ...]:
        doubtful = all(point.doubts for point in curve.points)
        return doubtful, "retrained" in curve.variant, -len(curve.points), curve.variant, curve.origin

    codecs = {series.codec for series in preset.series}
    groups: Any = {}
    if published is not None:
        groups = dict(iter(published[published["codec"].isin(codecs)].groupby(["dataset", "codec"])))
    panels = []
    for panel in preset.panels:
        curves: list[DrawnCurve] = []
        others: list[DrawnCurve] = []
        empty = []
        for number, series in enumerate(preset.series):
            points = published_points(panel, series, groups)
            keys = ["dataset", "variant", "source_id", "bits_kind"]
            theirs = [] if points is None else _curves(panel, number, series, points, keys)
            theirs.sort(key=preference)
            ours = [] if own is None else _measured(panel, number, series, own)
            shown = theirs if every else theirs[:1]
            others += theirs[len(shown) :]
            curves += [*shown, *ours]
            empty += [] if theirs or ours else [series.label]
        panels.append(Filled(panel, tuple(curves), tuple(empty), tuple(others)))
    return panels


def between(filled: Iterable[Filled], low: float, high: float) -> list[Filled]:
    """The same panels with the points of these rates alone, both ends included."""
    panels = []
    for panel in filled:
        cut = [replace(c, points=tuple(p for p in c.points if low <= p.bpp <= high)) for c in panel.curves]
        panels.append(replace(panel, curves=tuple(curve for curve in cut if curve.points)))
    return panels


def published_points(
    panel: Panel, series: Series, groups: Mapping[tuple[str, str], pd.DataFrame]
) -> pd.DataFrame | None:
    """What was published of a series on a panel's dataset, or one that may stand in, under any metric.

    ``groups`` are the published points by dataset and codec.
    """
    if not panel.metric or panel.settings:  # images are not copied, and no source has a setting on its axis
        return None
    keys = [(name, series.codec) for name in (panel.dataset, *panel.accept_datasets)]
    parts = [groups[key] for key in keys if key in groups]
    if not parts:
        return None
    points = pd.concat(parts)
    points = points[(points["protocol"] == panel.protocol) & points["value"].notna()]
    if series.variant is not None:
        points = points[points["variant"] == series.variant]
    return points[points["bpp"].notna()] if panel.x else points


def measured_points(panel: Panel, series: Series, frame: pd.DataFrame) -> pd.DataFrame:
    """What was measured of a series on a panel's dataset, under any metric; at any setting where these are axes."""
    here = (frame["dataset"] == panel.dataset) & (frame["protocol"] == panel.protocol) & (frame["n"] > 0)
    points = frame[here & np.isfinite(frame["value"].astype(float)) & np.isfinite(frame["bpp"].astype(float))]
    points = points.assign(codec=points["codec"].map(trained_label), random=untrained(points))
    if panel.settings:
        return points[points["codec"].map(base_name) == series.codec]
    return points[points["codec"].isin(series.labels)]


FILES = ", files "
"""Behind a run's name, where sets of one name hold other files."""


def _measured(panel: Panel, number: int, series: Series, frame: pd.DataFrame) -> list[DrawnCurve]:
    points = measured_points(panel, series, frame)
    if panel.settings:
        # Of a series whose variant names a rate the points of that rate.
        named = re.fullmatch(r"nominal ([0-9.]+) bpp", series.variant or "")
        if named:
            points = points[np.isclose(points["rate"].astype(float), float(named[1]), rtol=1e-3, atol=0)]
        settings = [setting(line, panel.x) for line in points.to_dict("records")]
        others = [beside_axes(line, panel.settings) for line in points.to_dict("records")]
        points = points.assign(setting=np.array(settings, float), codec=others)
        points = points[np.isfinite(points["setting"])]
    names = zip(points["run"], points["manifest"], strict=True)
    several_sets = frame[(frame["dataset"] == panel.dataset) & (frame["n"] > 0)]["manifest"].nunique() > 1
    origin = [f"{run}{FILES}{manifest[:8]}" if several_sets else run for run, manifest in names]
    several = points["codec"].nunique() > 1
    points = points.assign(variant=series.variant or "", source_id=origin, several=several)
    # Points of two labels are two curves, but for settings on an axis, which are in the labels.
    keys = ["dataset", "variant", "source_id", "bits_kind", "random", "codec"]
    return _curves(replace(panel, accept=()), number, series, points, keys)


def _curves(panel: Panel, number: int, series: Series, lines: pd.DataFrame, keys: Sequence[str]) -> list[DrawnCurve]:
    own = [panel.metric] if panel.at_bpp is None else [panel.x, panel.y]
    lines = lines[lines["metric"].isin([*own, *panel.accept])]
    keys = [*keys, "metric"] if panel.at_bpp is None else keys
    curves = []
    for _, group in lines.groupby(list(keys), sort=True, dropna=False):
        ordered = group.sort_values(["bpp", "value"], kind="stable")
        if panel.at_bpp is not None:
            points = _at_rate(panel, ordered, panel.at_bpp)
        else:
            x = "setting" if panel.settings else "bpp"
            points = [drawn_point(record[x], record) for record in ordered.to_dict("records")]
        if points:
            curves.append(_curve(number, series, ordered, sorted(points, key=lambda point: (point.x, point.y)), panel))
    return curves


def drawn_point(x: float, record: Mapping[Any, Any]) -> DrawnPoint:
    """A point of a line of results, at its rate or at what is on the axis in its place."""
    doubts = [record["doubtful"]] if record.get("doubtful") else []
    if not record["reliable"]:
        doubts.append(f"{record['n']} images are fewer than this metric needs")
    value, low, high, bpp = (float(record[name]) for name in ("value", "value_lo", "value_hi", "bpp"))
    digitised, partial = bool(record.get("digitised", False)), bool(record["partial"])
    return DrawnPoint(float(x), value, low, high, bpp, tuple(doubts), digitised, partial, images_of(record))


def images_of(record: Mapping[Any, Any]) -> str:
    """Over which images a line is, wherever it was measured; empty for a published one."""
    return " ".join(filter(None, map(record.get, ("manifest", "images"))))


def _at_rate(panel: Panel, lines: pd.DataFrame, bpp: float) -> list[DrawnPoint]:
    """Two metrics of a curve at one rate, linear in log rate between points that reach it from both sides."""
    values, doubts = [], set()
    for metric in (panel.x, panel.y):
        names = [metric, *(name for name in panel.accept if family(name) == family(metric))]
        chosen = lines[lines["metric"].isin(names)]
        # Points of two protocols are not of one curve: the panel's own, or else the first that may stand in.
        chosen = chosen[chosen["metric"] == min(chosen["metric"], key=names.index)] if len(chosen) else chosen
        rates, there = usable(chosen["bpp"].to_numpy(float), chosen["value"].to_numpy(float))
        value = value_at(rates, there, bpp)
        if math.isnan(value):
            return []
        values.append(value)
        if gap(rates, bpp) > WIDE:
            doubts.add(f"interpolated between rates that differ by more than a factor of {WIDE:g}")
        doubts |= {why for record in chosen.to_dict("records") for why in drawn_point(0, record).doubts}
    partial, digitised = (bool(lines[name].any()) if name in lines else False for name in ("partial", "digitised"))
    x, y = values
    return [DrawnPoint(x, y, bpp=bpp, doubts=tuple(doubts), digitised=digitised, partial=partial)]


def _curve(number: int, series: Series, lines: pd.DataFrame, points: Sequence[DrawnPoint], panel: Panel) -> DrawnCurve:
    first = lines.iloc[0]
    own, label = "run" in lines, series.label
    dataset, variant, bits_kind, origin = (str(first[n]) for n in ("dataset", "variant", "bits_kind", "source_id"))
    metric = " and ".join(dict.fromkeys(lines["metric"])) if panel.at_bpp is not None else str(first["metric"])
    if own and first["several"] and first["codec"]:
        label += f", {first['codec']}"
    elif not own and series.variant is None and variant.lower() not in ("", label.lower()):
        label += f", {variant}"
    source = f"run {origin}" if own else "; ".join(sorted(set(lines["source"])))
    what = dataset, metric, variant, bits_kind, origin, source
    return DrawnCurve(number, label, own, *what, tuple(points), bool(first["random"]) if own else False)


# Heat maps


@dataclass(frozen=True)
class HeatMap:
    """A metric over two settings; NaN where it was not measured."""

    panel: Panel
    title: str
    """The run and the rate that it is of."""
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    values: Floats
    """``(len(ys), len(xs))``."""
    random: bool = False


def heat_maps(preset: FigurePreset, own: pd.DataFrame) -> list[list[HeatMap]]:
    """A list for each series, run and rate, with a map for each panel; empty where nothing was measured."""
    first = preset.panels[0]
    here = (own["dataset"] == first.dataset) & (own["protocol"] == first.protocol) & (own["n"] > 0)
    own = own.assign(random=untrained(own), codec=own["codec"].map(trained_label))[here]
    rows = []
    for series in preset.series:
        points = own[own["codec"].map(base_name) == series.codec]
        labels = [beside_axes(line, first.settings) for line in points.to_dict("records")]
        points = points.assign(others=labels)
        for (run, _, others, random), group in points.groupby(["run", "manifest", "others", "random"], dropna=False):
            title = f"{series.label}, {run}" + (f", {others}" if others else "")
            ends = dict.fromkeys(f"{bpp:.4f}" for bpp in (group["bpp"].min(), group["bpp"].max()))
            row = [_map(panel, f"{title}, {' to '.join(ends)} bpp", group, bool(random)) for panel in preset.panels]
            if any(part.values.size for part in row):
                rows.append(row)
    return rows


def _map(panel: Panel, title: str, points: pd.DataFrame, random: bool) -> HeatMap:
    known: dict[tuple[float, float], float] = {}
    for line in points[points["metric"] == panel.value].to_dict("records"):
        place = setting(line, panel.x), setting(line, panel.y)
        if np.isfinite([*place, line["value"]]).all():
            known[place] = float(line["value"])
    xs, ys = (tuple(sorted({place[axis] for place in known})) for axis in (0, 1))
    values = np.array([[known.get((x, y), np.nan) for x in xs] for y in ys], np.float64).reshape(len(ys), len(xs))
    return HeatMap(panel, title, xs, ys, values, random)


# Labels and names


def beside_axes(line: Mapping[Any, Any], axes: Sequence[str]) -> str:
    """The settings of a measured point that are on no axis, its rate among them: points of others are not joined.

    >>> line = {"codec": "pic[guidance=3,steps=10]", "rate_field": "lambda", "rate": 1.0, "target_bpp": math.nan}
    >>> beside_axes(line, ["steps"])
    'guidance=3, lambda 1'
    """
    options = [option for option in split_label(line["codec"])[1] if option.partition("=")[0] not in axes]
    rate = [] if line["rate_field"] in ("", "none", *axes) else [Setting.of_line(line).words]
    return ", ".join([*options, *rate])


def base_name(label: str) -> str:
    """The codec of a curve, without its options."""
    return split_label(label)[0]


def trained_label(label: str) -> str:
    """A label without what says that its weights are random.

    >>> trained_label("pic[seeds=4][weights=random]"), len(trained_label("pic[weights=random-full]"))
    ('pic[seeds=4]', 3)
    """
    return re.sub(r"\[weights=random[^\]]*\]", "", label)


def setting(line: Mapping[Any, Any], name: str) -> float:
    """A setting of a measured point: its rate, if that is what the rate is, or an option in its label; else NaN.

    >>> setting({"codec": "pic[guidance=3,steps=10]", "rate_field": "lambda"}, "steps")
    10.0
    """
    options = dict(option.split("=", 1) for option in split_label(line["codec"])[1] if "=" in option)
    try:
        return float(line["rate"] if line["rate_field"] == name else options[name])
    except (KeyError, TypeError, ValueError):
        return math.nan
