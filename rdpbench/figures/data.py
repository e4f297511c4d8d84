"""What a figure of a paper is drawn from: for each panel its curves, each of one origin, and what there is none of.

A curve's points share all that changes a number: dataset, protocol, codec and variant, metric, what the rate counts,
and the source; or for what was measured here, the run. Points of two origins are two curves, and no line joins them.
What stands in for the panel's own metric or dataset carries its own name.

Honest times as points of curves, for tables of papers: ``encode-ms``, ``decode-ms``, ``total-ms``.

They are no metrics: a device and its load belong to them, and times of two devices are never joined.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench import registry
from rdpbench.figures.presets import Panel, Preset, Series
from rdpbench.results.published import FAMILIES, family
from rdpbench.results.read import bits_kinds
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.points import Points
from rdpbench.results.stats.summary import PLACE, POINT, WIDE, gap, side_by_side, summarise, usable, value_at
from rdpbench.results.store.schema import Row, Timing
from rdpbench.results.tables import untrained
from rdpbench.setting import Setting

if TYPE_CHECKING:
    import pandas as pd

    from rdpbench.results.store.store import Contents

TIMES = ("encode-ms", "decode-ms", "total-ms")
"""What panels call them. Total is the median of the sums, not the sum of the medians."""


def times(frame: pd.DataFrame, rows: Iterable[Row], timings: Iterable[Timing]) -> pd.DataFrame:
    """Medians over images of the medians of repeats, in milliseconds.

    Args:
        frame: points of a run (`rdpbench.results.stats.summary.summarise`).
        rows: the rows that they are means of.
        timings: of these rows.

    Returns:
        Lines of the same columns, three for each point and device that was timed, and a column ``device``.

    >>> from rdpbench.results.stats.summary import summarise
    >>> len(times(summarise((), (), ()), (), ()))
    0
    """
    import pandas as pd

    by_task = {row.task_key: row for row in rows if row.status == "ok"}
    found: dict[tuple[Any, ...], dict[str, list[Timing]]] = {}
    for one in timings:
        row = by_task.get(one.task_key)
        if row is not None:
            point = (row.dataset, row.manifest, row.protocol, row.codec, row.setting)
            found.setdefault(point, {}).setdefault(one.device, []).append(one)
    lines = []
    for head in frame.drop_duplicates(POINT).to_dict("records"):
        point = (*(head[name] for name in (*PLACE, "codec")), Setting.of_line(head))
        for device, of in found.get(point, {}).items():
            lines += [{**head, **line, "device": device} for line in _lines(of)]
    return pd.DataFrame(lines, columns=[*frame.columns, "device"])


def _lines(of: Sequence[Timing]) -> list[dict[str, Any]]:
    import numpy as np

    seconds = (
        [one.encode_s for one in of],
        [one.decode_s for one in of],
        [one.encode_s + one.decode_s for one in of],
    )
    usual = {"value_lo": math.nan, "value_hi": math.nan, "n_scored": len(of), "infinite": 0, "images": ""}
    usual |= {"unit": "ms", "higher_is_better": False, "perceptual": False, "reliable": True}
    return [
        {**usual, "metric": name, "value": 1000 * float(np.median(values))}
        for name, values in zip(TIMES, seconds, strict=True)
    ]


@dataclass(frozen=True)
class Point:
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


@dataclass(frozen=True)
class Curve:
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
    points: tuple[Point, ...]
    random: bool = False
    """By networks that nobody trained."""


@dataclass(frozen=True)
class Meaning:
    """What a metric's axis says."""

    unit: str
    higher_is_better: bool | None
    """None for a setting."""


@dataclass(frozen=True)
class Filled:
    """A panel with its curves."""

    panel: Panel
    curves: tuple[Curve, ...]
    empty: tuple[str, ...]
    """Labels of the series that there is nothing of."""
    others: tuple[Curve, ...] = ()
    """Published curves of the same series, which are not drawn."""


@dataclass(frozen=True)
class Run:
    """What is read of a run: its points, and the rows that they are means of."""

    name: str
    points: Points
    frame: pd.DataFrame
    """Of `rdpbench.results.stats.summary.frame`."""
    times: pd.DataFrame | None = None
    """Honest times as points, with the ``device`` that they are of."""


def read_run(name: str, contents: Contents) -> Run:
    """The current points of a store."""
    import pandas as pd

    points = of_store(contents)
    sides = points.only(lambda point: not point.random), points.only(lambda point: point.random)
    lines = pd.concat([side_by_side(side, points.metrics) for side in sides], ignore_index=True)
    return Run(name, points, lines, times(lines, points.rows, contents.timings.values()))


def measured(runs: Iterable[Run], *, random: bool = False) -> pd.DataFrame:
    """The points of several runs in one frame, with ``run`` and ``bits_kind``; of random weights only if asked."""
    import pandas as pd

    parts = []
    for run in runs:
        parts.append(run.frame.assign(run=run.name, bits_kind=_counted(run.frame, run.points)))
        if run.times is not None and len(run.times):  # those of two devices are of two origins
            origins = [f"{run.name}, {device}" for device in run.times["device"]]
            of = run.times.assign(run=origins, bits_kind=_counted(run.times, run.points))
            parts.append(of.drop(columns="device"))
    empty = summarise((), (), ()).assign(run="", bits_kind="", doubtful="")
    lines = pd.concat(parts, ignore_index=True) if parts else empty
    return lines if random else lines[~untrained(lines)]


def _counted(lines: pd.DataFrame, points: Points) -> list[str]:
    kinds = bits_kinds(points)
    of = zip(*(lines[name] for name in (*PLACE, "codec")), strict=True)
    return [kinds.get(key) or "unstated" for key in of]


def fill(
    preset: Preset, own: pd.DataFrame | None, published: pd.DataFrame | None, *, every: bool = False
) -> list[Filled]:
    """The curves of each panel: those that were measured, and of each series one that was published.

    Of several published curves the one is drawn that is not in doubt, not of a retrained network, and has most points;
    the others are listed. ``every`` draws them all.
    """
    groups = {} if published is None else _groups(published, preset.series)
    out = []
    for panel in preset.panels:
        curves: list[Curve] = []
        others: list[Curve] = []
        empty = []
        for number, series in enumerate(preset.series):
            theirs = _published(panel, number, series, groups)
            theirs.sort(key=_preference)
            ours = [] if own is None else _measured(panel, number, series, own)
            shown = theirs if every else theirs[:1]
            others += theirs[len(shown) :]
            curves += [*shown, *ours]
            empty += [] if theirs or ours else [series.label]
        out.append(Filled(panel, tuple(curves), tuple(empty), tuple(others)))
    return out


def _groups(published: pd.DataFrame, series: Iterable[Series]) -> dict[Any, pd.DataFrame]:
    """Published points of these codecs by dataset and codec."""
    of = published[published["codec"].isin({one.codec for one in series})]
    return dict(list(of.groupby(["dataset", "codec"])))


def between(filled: Iterable[Filled], low: float, high: float) -> list[Filled]:
    """The same panels with the points of these rates alone, both ends included."""

    def cut(curves: Iterable[Curve]) -> tuple[Curve, ...]:
        kept = [replace(one, points=tuple(p for p in one.points if low <= p.bpp <= high)) for one in curves]
        return tuple(one for one in kept if one.points)

    return [replace(one, curves=cut(one.curves)) for one in filled]


def _preference(curve: Curve) -> tuple[Any, ...]:
    """What of several published curves of a series is drawn first."""
    doubtful = all(point.doubts for point in curve.points)
    return doubtful, "retrained" in curve.variant, -len(curve.points), curve.variant, curve.origin


def options_of(label: str) -> dict[str, str]:
    """The settings in a curve's label.

    >>> options_of("textual-inversion[guidance=3,compression_guidance=10]")["guidance"]
    '3'
    >>> len(options_of("jpeg"))
    0
    """
    parts = [part for inside in re.findall(r"\[([^\[\]]*)\]", label) for part in inside.split(",")]
    return dict(part.split("=", 1) for part in parts if "=" in part)


def base_name(label: str) -> str:
    """The codec of a curve, without its settings.

    >>> base_name("pic[seeds=4]"), len(base_name("jpeg"))
    ('pic', 4)
    """
    return label.partition("[")[0]


def trained_label(label: str) -> str:
    """A label without what says that its weights are random.

    >>> trained_label("pic[seeds=4][weights=random]"), len(trained_label("pic[weights=random-full]"))
    ('pic[seeds=4]', 3)
    """
    return re.sub(r"\[weights=random[^\]]*\]", "", label)


@cache
def meaning(metric: str) -> Meaning:
    """Unit and direction of a metric of ours or of a published one.

    >>> meaning("psnr@unstated").unit, meaning("fid/clean").higher_is_better
    ('dB', False)
    """
    if metric in registry.BUILTIN["metric"]:
        known: Any = registry.load("metric", metric)
        return Meaning(known.unit, known.higher_is_better)
    of = FAMILIES.get(family(metric))
    if of is not None:
        return Meaning(of.unit, of.higher_is_better)
    return Meaning("", {"pieapp": False, "niqe": False}.get(family(metric)))


def _published(panel: Panel, number: int, series: Series, groups: Mapping[Any, pd.DataFrame]) -> list[Curve]:
    import pandas as pd

    if not panel.metric or panel.settings:  # images are not copied, and no source has a setting on its axis
        return []
    keys = [(name, series.codec) for name in (panel.dataset, *panel.accept_datasets)]
    parts = [groups[key] for key in keys if key in groups]
    if not parts:
        return []
    points = pd.concat(parts)
    points = points[(points["protocol"] == panel.protocol) & points["value"].notna()]
    if series.variant is not None:
        points = points[points["variant"] == series.variant]
    if panel.x:
        points = points[points["bpp"].notna()]
    return _curves(panel, number, series, points, ["dataset", "variant", "source_id", "bits_kind"])


def _measured(panel: Panel, number: int, series: Series, frame: pd.DataFrame) -> list[Curve]:
    here = (frame["dataset"] == panel.dataset) & (frame["protocol"] == panel.protocol) & (frame["n"] > 0)
    points = frame[here & np.isfinite(frame["value"].astype(float)) & np.isfinite(frame["bpp"].astype(float))]
    points = points.assign(codec=points["codec"].map(trained_label), random=untrained(points))
    if panel.settings:
        points = points[points["codec"].map(base_name) == series.codec]
        points = points[[_nominal(series, rate) for rate in points["rate"]]] if len(points) else points
        settings = [setting(line, panel.x) for line in points.to_dict("records")]
        points = points.assign(setting=np.array(settings, float))
        points = points[np.isfinite(points["setting"])]
    else:
        points = points[points["codec"].isin(series.labels)]
    several = points["codec"].nunique() > 1
    several_sets = points.groupby("run")["manifest"].nunique() > 1
    named = zip(points["run"], points["manifest"], strict=True)
    origin = [f"{run}, files {manifest[:8]}" if several_sets[run] else run for run, manifest in named]
    of = points.assign(variant=series.variant or "", source_id=origin, several=several)
    # Points of two labels are two curves, but for settings, which are in the labels.
    keys = ["dataset", "variant", "source_id", "bits_kind", "random", *([] if panel.settings else ["codec"])]
    return _curves(replace(panel, accept=()), number, series, of, keys)


def setting(line: dict[Any, Any], name: str) -> float:
    """A setting of a measured point: its rate, if that is what the rate is, or an option in its label; else NaN."""
    text = line["rate"] if line["rate_field"] == name else options_of(line["codec"]).get(name)
    try:
        return float(text)  # type: ignore[arg-type]  # None is caught
    except (TypeError, ValueError):
        return math.nan


def _nominal(series: Series, rate: float) -> bool:
    """Is this point of the series' rate, where its variant names one?"""
    named = re.fullmatch(r"nominal ([0-9.]+) bpp", series.variant or "")
    return named is None or math.isclose(rate, float(named[1]), rel_tol=1e-3)


def _curves(panel: Panel, number: int, series: Series, points: pd.DataFrame, keys: Sequence[str]) -> list[Curve]:
    if panel.at_bpp is None:
        points = points[points["metric"].isin([panel.metric, *panel.accept])]
        keys = [*keys, "metric"]
    out = []
    for _, group in points.groupby(list(keys), sort=True, dropna=False):
        ordered = group.sort_values(["bpp", "value"], kind="stable")
        found = _points(panel, ordered)
        if found:
            out.append(_curve(number, series, ordered, found, panel))
    return out


def _points(panel: Panel, lines: pd.DataFrame) -> list[Point]:
    if panel.at_bpp is not None:
        return _at_rate(panel, lines)
    records = lines.to_dict("records")
    xs = [record["setting" if panel.settings else "bpp"] for record in records]
    found = [_point(x, record) for x, record in zip(xs, records, strict=True)]
    return sorted(found, key=lambda one: (one.x, one.y))


def _point(x: float, record: dict[Any, Any]) -> Point:
    doubts = [record["doubtful"]] if record.get("doubtful") else []
    if not record["reliable"]:
        doubts.append(f"{record['n']} images are fewer than this metric needs")
    return Point(
        float(x),
        float(record["value"]),
        float(record["value_lo"]),
        float(record["value_hi"]),
        float(record["bpp"]),
        tuple(doubts),
        bool(record.get("digitised", False)),
        bool(record["partial"]),
    )


def _at_rate(panel: Panel, lines: pd.DataFrame) -> list[Point]:
    """Two metrics of a curve at one rate, linear in log rate between points that reach it from both sides."""
    assert panel.at_bpp is not None
    values, doubts = [], set()
    for metric in (panel.x, panel.y):
        names = [metric, *(name for name in panel.accept if family(name) == family(metric))]
        of = lines[lines["metric"].isin(names)]
        # Points of two protocols are not of one curve: the panel's own, or else the first that may stand in.
        of = of[of["metric"] == min(of["metric"], key=names.index)] if len(of) else of
        rates, there = usable(of["bpp"].to_numpy(float), of["value"].to_numpy(float))
        value = value_at(rates, there, panel.at_bpp)
        if math.isnan(value):
            return []
        values.append(value)
        if (factor := gap(rates, panel.at_bpp)) > WIDE:
            doubts.add(f"interpolated between rates that differ by a factor of {factor:.2g}")
        doubts |= {why for record in of.to_dict("records") for why in _point(0, record).doubts}
    partial, digitised = (bool(lines[name].any()) if name in lines else False for name in ("partial", "digitised"))
    return [Point(values[0], values[1], bpp=panel.at_bpp, doubts=tuple(doubts), digitised=digitised, partial=partial)]


def _curve(number: int, series: Series, lines: pd.DataFrame, points: Sequence[Point], panel: Panel) -> Curve:
    first = lines.iloc[0]
    own = "run" in lines
    names = dict.fromkeys(lines["metric"])
    metric = " and ".join(names) if panel.at_bpp is not None else str(first["metric"])
    variant = str(first["variant"])
    unnamed = variant if series.variant is None and not own and variant.lower() != series.label.lower() else ""
    if own and first["several"] and not panel.settings:
        unnamed = str(first["codec"])
    return Curve(
        number,
        f"{series.label}, {unnamed}" if unnamed else series.label,
        own,
        str(first["dataset"]),
        metric,
        variant,
        str(first["bits_kind"]),
        str(first["source_id"]),
        f"run {first['run']}" if own else "; ".join(sorted(set(lines["source"]))),
        tuple(points),
        bool(first["random"]) if own else False,
    )
