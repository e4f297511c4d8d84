"""Does a run still give its stored curve? Point by point and as a whole, within stated tolerances, bytes exactly.

Each point has a tolerance. A codec that is a little worse at all of its points can stay within all of them although
its curve has moved. So BD-rate and BD-metric of the run against the stored curve have bounds, too (`Drift`). Curves
hold no times, so times are never compared.

Findings are written as lines for people, JUnit for CI, and Markdown for a pull request.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from rdpbench import registry
from rdpbench.codecs.contract import facts_of
from rdpbench.errors import ConfigError, few
from rdpbench.gate.curves import MOST_IMAGES, VERSION, StoredCurve, StoredPoint, in_order
from rdpbench.paths import read_yaml
from rdpbench.results import tables
from rdpbench.results.stats.bd import METHODS, Delta, bd_metric, bd_rate
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.tables import Table
from rdpbench.setting import Setting

# Tolerances


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from the stored or published one."""

    absolute: float = 0.0
    relative: float = 0.0

    def width(self, value: float) -> float:
        """In the unit of the value.

        >>> Tolerance(0.25, 0.5).width(-1)
        0.75
        """
        return self.absolute + self.relative * abs(value)

    def allows(self, stored: float, now: float) -> bool:
        """Is the difference within it?

        >>> Tolerance(0.01, 0).allows(30.0, 30.005), Tolerance(0, 0.001).allows(0.5, 0.501)
        (True, False)
        """
        if not (math.isfinite(stored) and math.isfinite(now)):  # of infinity, every share is infinite
            return stored == now or (math.isnan(stored) and math.isnan(now))
        # Digits beyond the tolerance are those of floating point.
        return abs(now - stored) <= self.width(stored) * (1 + 1e-9)

    def __str__(self) -> str:
        parts = [f"{self.absolute:g}" if self.absolute else "", f"{100 * self.relative:g} %" if self.relative else ""]
        return " + ".join(filter(None, parts)) or "nothing"


Bound: TypeAlias = Tolerance | str
"""How far from zero a delta may be, or why there is none to compare."""


@dataclass(frozen=True)
class Tolerances:
    """``conf/regress.yaml``: of points, and by Bjøntegaard deltas of whole curves."""

    bpp: Tolerance
    metrics: Mapping[str, Tolerance]
    method: str
    """Of interpolation, `rdpbench.results.stats.bd.METHODS`."""
    bd_rate: Mapping[str, Bound]
    """In percent: ``absolute`` alone."""
    bd_metric: Mapping[str, Bound]
    """In the metric's unit; ``relative`` is to the mean of the stored values."""

    def of(self, metric: str) -> Tolerance:
        """A metric's own, or the default."""
        return self.metrics.get(metric, self.metrics["default"])


def read_tolerances(path: Path) -> Tolerances:
    """Read ``conf/regress.yaml``.

    Raises:
        ConfigError: something in it is no tolerance.
    """
    try:
        raw = read_yaml(path)
        if "cpu_dependent" in raw:
            raise ValueError("cpu_dependent is no key; the codec's class says it (depends_on_cpu)")
        _only(raw, "bpp", "metrics", "bd")
        _only(raw["bd"], "method", "rate", "metric")
        if raw["bd"]["method"] not in METHODS:
            raise ValueError(f"{raw['bd']['method']} is none of {', '.join(METHODS)}")
        metrics = {name: _tolerance(record) for name, record in raw["metrics"].items()}
        rate, metric = (
            {name: bound if bound and isinstance(bound, str) else _tolerance(bound) for name, bound in part.items()}
            for part in (raw["bd"]["rate"], raw["bd"]["metric"])
        )
        if odd := [name for name, bound in rate.items() if isinstance(bound, Tolerance) and bound.relative]:
            raise ValueError(f"bd rate of {odd[0]}: it is in percent already, so relative must be 0")
        if not all("default" in part for part in (metrics, rate, metric)):
            raise KeyError("default")
        return Tolerances(_tolerance(raw["bpp"]), metrics, raw["bd"]["method"], rate, metric)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: {type(error).__name__}: {error}; it needs bpp, metrics with a default, bd with a method and "
            "with rate and metric, each with a default; a tolerance is "
            "{absolute: 0.01, relative: 0}, both 0 or more; in bd "
            "a sentence may replace it, as the reason why there is none"
        ) from error


def _only(raw: Mapping[str, Any], *keys: str) -> None:
    if odd := [key for key in raw if key not in keys]:
        raise ValueError(f"{odd[0]!r} is none of {', '.join(keys)}")


def _tolerance(raw: Mapping[str, Any]) -> Tolerance:
    _only(raw, "absolute", "relative")
    tolerance = Tolerance(float(raw["absolute"]), float(raw["relative"]))
    if not (0 <= tolerance.absolute < math.inf and 0 <= tolerance.relative < math.inf):
        raise ValueError(f"{dict(raw)} is no tolerance")
    return tolerance


# What comparing gives

BD = "BD-rate and BD-metric"
"""Where findings of the whole curve's rate and quality stand."""
SHOWN = 3
"""Images that are named below a finding."""
LISTED = 8
"""Findings of a curve on the terminal."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was stored."""

    where: str
    """The rate point, ``curve``, or `BD`."""
    text: str
    images: tuple[str, ...] = ()
    """The images that moved most, with by how much; empty where nothing is stored per image."""


@dataclass(frozen=True)
class Drift:
    """How far one curve moved under one metric."""

    metric: str
    unit: str
    rate: Delta
    metric_delta: Delta
    rate_bound: float
    """Percent; NaN where the bounds say why there is none."""
    metric_bound: float

    @property
    def words(self) -> tuple[str, str]:
        """Both deltas with their bounds."""
        return said(self.rate, self.rate_bound, "%"), said(self.metric_delta, self.metric_bound, self.unit)

    @property
    def beyond(self) -> tuple[str, ...]:
        """The deltas that are beyond their bounds, in words."""
        by_rate = [f"BD-rate {self.words[0]}"] if abs(self.rate.value) > self.rate_bound else []
        beyond = abs(self.metric_delta.value) > self.metric_bound
        return (*by_rate, *([f"BD-{self.metric} {self.words[1]}"] if beyond else ()))

    def __str__(self) -> str:
        return f"{self.metric}: BD-rate {self.words[0]}; BD-{self.metric} {self.words[1]}"


def said(delta: Delta, bound: float, unit: str) -> str:
    """A delta in words.

    >>> said(Delta(0.25, "pchip"), 0.1, "%"), len(said(Delta(math.nan, "pchip", "too few"), 0.1, "%"))
    ('+0.25 % (allowed ±0.1)', 17)
    """
    if delta.reason:
        return f"not told: {delta.reason}"
    return f"{delta.value:+.3g}{f' {unit}' if unit else ''} (allowed ±{bound:.3g})"


@dataclass(frozen=True)
class Comparison:
    """What comparing a run with its stored curve gives."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What one should know, but what is no regression."""
    drifts: tuple[Drift, ...] = ()
    """The curve as a whole, under each metric that both have."""
    points: tuple[str, ...] = ()
    """All that were compared, stored or measured."""
    codec: str = ""
    dataset: str = ""
    path: Path = Path()
    """Of the stored curve."""


def compare(stored: StoredCurve, now: StoredCurve, tolerances: Tolerances) -> Comparison:
    """All findings and notes. Metrics that only the stored curve has are left out with a note."""
    findings = _origins(stored, now) + _originals(stored, now)
    exact, notes = _exactness(stored.origin, now.origin)
    if (version := stored.origin.get("version", VERSION)) != VERSION:
        notes.append(
            f"stored as version {version} of {VERSION}: what that did not say is not compared; to store it anew: "
            f"{now.origin.get('command', 'rdpbench curves update')}"
        )
    metrics = {name: None for point in now.points for name in point.values}
    known = {name for point in stored.points for name in point.values}
    findings += [Finding("curve", f"{name} is not in the stored curve") for name in metrics if name not in known]
    if now.images and not stored.images and any(point.n <= MOST_IMAGES for point in stored.points):
        notes.append("the .images.csv beside the stored curve is gone: its images are neither compared nor named")
    if unused := sorted(known - metrics.keys()):
        notes.append(f"not measured now, and not compared: {', '.join(unused)}")
    before, after = stored.by_setting, now.by_setting
    shared = [name for name in metrics if name in known]
    for point in sorted({**before, **after}.values(), key=in_order):
        where = point.setting.words
        if point.setting not in after:
            findings.append(Finding(where, "the point is stored, but the run does not have it"))
        elif point.setting not in before:
            findings.append(Finding(where, "the run has this point, but it is not stored"))
        else:
            images = _Images(stored, now, point.setting)
            findings += _point(before[point.setting], after[point.setting], shared, tolerances, exact, images)
    drifts = [_drift(stored, now, metric, tolerances) for metric in shared]
    findings += [_drifted(drift, stored, now) for drift in drifts if drift.beyond]
    points = dict.fromkeys(point.setting.words for curve in (stored, now) for point in curve.points)
    return Comparison(tuple(findings), tuple(notes), tuple(drifts), tuple(points))


def _both(stored: StoredCurve, now: StoredCurve) -> list[tuple[StoredPoint, StoredPoint]]:
    """The points that both have."""
    after = now.by_setting
    return [(point, after[point.setting]) for point in stored.points if point.setting in after]


def _drift(stored: StoredCurve, now: StoredCurve, metric: str, bounds: Tolerances) -> Drift:
    meant = meaning(metric)
    # The rate is of all images: it is not that of a value over some of them.
    whole = [
        pair
        for pair in _both(stored, now)
        if all(metric in point.values and metric not in point.averaged for point in pair)
    ]
    curves = [[(pair[side].bpp, pair[side].values[metric]) for pair in whole] for side in (0, 1)]
    level = math.fsum(value for _, value in curves[0]) / len(whole) if whole else math.nan
    by_rate = bd_rate(*curves, higher_is_better=meant.higher_is_better, method=bounds.method)
    by_metric = bd_metric(*curves, method=bounds.method)
    rate_bound, metric_bound = (part.get(metric, part["default"]) for part in (bounds.bd_rate, bounds.bd_metric))
    deltas = _told(by_rate, rate_bound), _told(by_metric, metric_bound)
    return Drift(metric, meant.unit, *deltas, _width(rate_bound, 0.0), _width(metric_bound, level))


def _told(delta: Delta, bound: Bound) -> Delta:
    """With the gate's words for the two curves; or the reason why it is not compared."""
    if isinstance(bound, str):
        return Delta(math.nan, delta.method, bound)
    return replace(delta, reason=delta.reason.replace("anchor: ", "stored: ").replace("test: ", "now: "))


def _width(bound: Bound, level: float) -> float:
    return math.nan if isinstance(bound, str) else bound.width(level)


def _drifted(drift: Drift, stored: StoredCurve, now: StoredCurve) -> Finding:
    """A curve that moved as a whole, with the point and the images that moved most: in the metric, or else in rate."""
    both = _both(stored, now)
    values = {old.setting: (old.values[drift.metric], new.values[drift.metric]) for old, new in both}
    in_metric = any(old != new for old, new in values.values())
    moved = values if in_metric else {old.setting: (old.bpp, new.bpp) for old, new in both}
    most = max(moved, key=lambda setting: abs(moved[setting][1] - moved[setting][0]))
    what = drift.metric if in_metric else "bpp"
    images = _Images(stored, now, most).moved(what)
    text = f"{drift.metric}: {', '.join(drift.beyond)}; {what} most at {most.words}: {change(*moved[most])}"
    return Finding(BD, text, images)


def _point(
    before: StoredPoint,
    after: StoredPoint,
    metrics: Iterable[str],
    tolerances: Tolerances,
    exact: bool,
    images: _Images,
) -> list[Finding]:
    findings: list[tuple[str, tuple[str, ...]]] = []
    unsaid = before.bits_kind is None or not after.n
    for what, old, new in (
        ("images", before.n, after.n),
        ("size of the dataset", before.dataset_size, after.dataset_size),
        ("protocol", before.protocol, after.protocol),
        ("what the rate counts", after.bits_kind if unsaid else before.bits_kind, after.bits_kind),
    ):
        if old != new:
            findings.append((f"{what}: stored {old}, now {new}", ()))
    if exact and before.bitstreams != after.bitstreams:
        findings.append((f"bytes: {images.bytes()}, and the coder is the same", ()))
    moved = [("bpp", before.bpp, after.bpp, tolerances.bpp)]
    for metric in metrics:
        old, new = before.averaged.get(metric, before.n), after.averaged.get(metric, after.n)
        if old - before.n != new - after.n:
            findings.append((f"{metric}: stored as the mean of {old} images, now of {new}", ()))
        moved.append((metric, before.values[metric], after.values[metric], tolerances.of(metric)))
    for what, stored, now, tolerance in moved:
        if not tolerance.allows(stored, now):
            findings.append((f"{what}: {change(stored, now)}, allowed {tolerance}", images.moved(what)))
    return [Finding(before.setting.words, text, shown) for text, shown in findings]


def change(stored: float, now: float) -> str:
    """A difference, said for people.

    >>> change(0.5, 0.55)
    '0.5 → 0.55 (+0.05, +10 %)'
    """
    difference = now - stored
    share = f", {100 * difference / abs(stored):+.3g} %" if stored and math.isfinite(difference) else ""
    return f"{stored:.6g} → {now:.6g} ({difference:+.4g}{share})"


class _Images:
    """One point image by image, as far as both curves have that."""

    def __init__(self, stored: StoredCurve, now: StoredCurve, setting: Setting) -> None:
        self.before = {image.image: image for image in stored.images if image.setting == setting}
        self.after = {image.image: image for image in now.images if image.setting == setting}
        self.both = [name for name in self.before if name in self.after]

    def bytes(self) -> str:
        if not (self.before and self.after):
            return "the bitstreams differ from the stored ones (which ones is not known for a dataset of this size)"
        other = [name for name in self.both if self.before[name].bitstream != self.after[name].bitstream]
        if not other:
            return "the bitstreams are not of the same images as those that are stored"
        return f"{len(other)} of {len(self.before)} bitstreams differ ({few(other, SHOWN)})"

    def moved(self, what: str) -> tuple[str, ...]:
        pairs = {name: (self.before[name].value(what), self.after[name].value(what)) for name in self.both}
        sizes = {name: abs(new - old) for name, (old, new) in pairs.items() if old != new and not math.isnan(new - old)}
        most = sorted(sizes, key=lambda name: (-sizes[name], name))[:SHOWN]
        return tuple(f"{name}: {change(*pairs[name])}" for name in most)


def _origins(stored: StoredCurve, now: StoredCurve) -> list[Finding]:
    """Another configuration under the same name is another curve; other versions or weights are another metric."""
    findings = []
    for what in ("codec", "dataset", "manifest", "configuration", "seeds"):
        old, new = stored.origin.get(what), now.origin.get(what)
        if old != new and not (what == "manifest" and stored.origin.get("version") == 1):  # which did not say it
            findings.append(f"{what}: stored {_plain(old)}, now {_plain(new)}")
    before = stored.origin.get("metrics") or {}
    known = {name for point in stored.points for name in point.values}
    for name, made in (now.origin.get("metrics") or {}).items():
        was = before.get(name, {} if name in known else made)
        old, new = ({key: part[key] for key in part if key != "packages"} for part in (was, made))
        if old != new:
            findings.append(f"{name}: stored under another definition ({_differences(old, new)}); store the curve anew")
    return [Finding("curve", text) for text in findings]


def _originals(stored: StoredCurve, now: StoredCurve) -> list[Finding]:
    """Images that came, went, or have other pixels: then it is not the codec that moved."""
    before, after = ({image.image: image.pixels for image in curve.images} for curve in (stored, now))
    if not before or not after:
        return []
    kinds = {
        "other pixels than when the curve was stored": [n for n in before if n in after and before[n] != after[n]],
        "stored, but not in the dataset any more": [n for n in before if n not in after],
        "in the dataset, but not stored": [n for n in after if n not in before],
    }
    return [Finding("curve", f"images: {few(names, SHOWN)}: {what}") for what, names in kinds.items() if names]


def _exactness(stored: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Are equal bytes expected? With what differs and is no finding by itself."""
    notes = []
    exact = stored.get("coder") == now.get("coder")
    if not exact:
        what = _differences(stored.get("coder"), now.get("coder"))
        notes.append(f"the coder differs ({what}): equal bytes are not expected, the tolerances apply")
    use = (now.get("configuration") or {}).get("use")
    codec = registry.load("codec", use) if use else object
    # Of a codec that takes no device, "device" is the setting of the run, which says nothing.
    places = ["cpu", "device"] if facts_of(codec).uses_device else ["cpu"]
    elsewhere = [place for place in places if stored.get(place) != now.get(place)]
    if facts_of(codec).depends_on_cpu and elsewhere:
        exact = False
        what = "; ".join(_apart(str(stored.get(place)), str(now.get(place))) for place in elsewhere)
        notes.append(
            f"{use} computes differently on another processor ({what}): equal bytes are not expected, "
            "the tolerances apply"
        )
    metrics = stored.get("metrics") or {}
    for name, made in (now.get("metrics") or {}).items():
        old, new = (part.get("packages") for part in (metrics.get(name, made), made))
        if old != new:
            notes.append(f"{name} is computed by other packages ({_differences(old, new)})")
    return exact, notes


def _differences(old: Any, new: Any) -> str:
    old, new = (part if isinstance(part, dict) else {} for part in (old, new))
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {_plain(old.get(name))} → {_plain(new.get(name))}" for name in names)


def _apart(stored: str, now: str) -> str:
    """The words that only one of two has.

    >>> _apart("x86_64 avx avx2", "x86_64 avx MKL_CBWR=AVX")
    'stored avx2, now MKL_CBWR=AVX'
    """
    old, new = stored.split(), now.split()
    only = [" ".join(word for word in words if word not in other) for words, other in ((old, new), (new, old))]
    return f"stored {only[0] or 'nothing'}, now {only[1] or 'nothing'}"


def _plain(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items()) or "nothing"
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)[:64]


# In words


def headline(comparisons: Sequence[Comparison]) -> str:
    """All in one line: how many curves moved, and each with how far, or with the first of what was found."""
    moved = [compared for compared in comparisons if compared.findings]
    if not moved:
        return f"{len(comparisons)} of {len(comparisons)} curves are as stored"
    named = ", ".join(f"{compared.codec} on {compared.dataset} ({_how_far(compared)})" for compared in moved)
    return f"{len(moved)} of {len(comparisons)} curves moved: {named}"


def _how_far(compared: Comparison) -> str:
    beyond = [drift for drift in compared.drifts if drift.beyond]
    of_rate = [drift for drift in beyond if abs(drift.rate.value) > drift.rate_bound]
    if of_rate:
        most = max(of_rate, key=lambda drift: abs(drift.rate.value))
        return f"{most.rate.value:+.2g} % BD-rate {most.metric}"
    if beyond:
        return f"{beyond[0].metric_delta.value:+.2g} {beyond[0].unit} BD-{beyond[0].metric}"
    first, count = compared.findings[0], len(compared.findings)
    return f"{first.where}: {first.text.partition(': ')[0]}" + (f", and {count - 1} more" if count > 1 else "")


def lines(compared: Comparison) -> list[str]:
    """For a terminal: of a curve that moved the first findings; all, and how far each curve is, are in the Markdown."""
    moved = {finding.where for finding in compared.findings} & set(compared.points)
    state = f"{len(moved)} not as stored" if moved else "as stored"
    if compared.findings and not moved:
        state = "but not the curve that is stored"
    shown = [f"{compared.codec} on {compared.dataset}: {len(compared.points)} points, {state} in {compared.path}"]
    for finding in compared.findings[:LISTED]:
        shown += [f"  {finding.where}: {finding.text}", *(f"      {image}" for image in finding.images)]
    if more := compared.findings[LISTED:]:
        shown.append(f"  and {len(more)} more findings; --markdown FILE lists all")
    return shown + [f"  note: {note}" for note in compared.notes]


def junit(comparisons: Sequence[Comparison], error: str = "") -> str:
    """One suite for each curve, one case for each point; without times, since none are compared.

    ``error`` is what ended the command before all curves were compared: a suite of its own.
    """
    root = ET.Element("testsuites", name="rdpbench regress")
    if error:
        suite = ET.SubElement(root, "testsuite", name="rdpbench", tests="1", failures="0", errors="1")
        ended = ET.SubElement(suite, "testcase", classname="rdpbench", name="regress")
        ET.SubElement(ended, "error", message=_xml(error.partition("\n")[0])).text = _xml(error)
    for compared in comparisons:
        cases, failures = ["curve", *compared.points, BD], len({finding.where for finding in compared.findings})
        counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
        suite = ET.SubElement(root, "testsuite", {"name": _xml(f"{compared.dataset}/{compared.codec}"), **counts})
        for case in cases:
            name = _xml(f"{compared.dataset}.{compared.codec}")
            element = ET.SubElement(suite, "testcase", classname=name, name=case)
            if findings := [finding for finding in compared.findings if finding.where == case]:
                failure = ET.SubElement(element, "failure", message=_xml("; ".join(each.text for each in findings)))
                shown = [line for each in findings for line in (each.text, *(f"  {image}" for image in each.images))]
                failure.text = _xml("\n".join(shown))
        if notes := [*map(str, compared.drifts), *compared.notes]:
            ET.SubElement(suite, "system-out").text = _xml("\n".join(notes))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Without the characters that XML has no way to write."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def markdown(comparisons: Sequence[Comparison], error: str = "") -> str:
    """A summary with a line for each curve, and one for each finding; and what ended the command early, if anything."""
    parts = []
    if error:  # as a block that Markdown leaves as it is
        block = "\n".join(f"    {line}" for line in error.splitlines())
        parts.append(f"rdpbench regress: ended before all curves were compared\n\n{block}\n")
    if comparisons or not error:
        named = [(f"{compared.codec} on {compared.dataset}", compared) for compared in comparisons]
        title = f"rdpbench regress: {headline(comparisons)}"
        summary = [(name, len(compared.points), len(compared.findings)) for name, compared in named]
        notes = [f"{name}: {note}" for name, compared in named for note in compared.notes]
        shown = [Table.of_texts(title, ("curve", "points", "findings"), summary, notes)]
        findings = [(name, each.where, each.text, "; ".join(each.images)) for name, c in named for each in c.findings]
        drifts = [(name, drift.metric, *drift.words) for name, compared in named for drift in compared.drifts]
        if findings:
            header = ("curve", "point", "finding", "images that moved most")
            shown.append(Table.of_texts("Findings", header, findings))
        if drifts:
            header = ("curve", "metric", "BD-rate", "BD-metric")
            shown.append(Table.of_texts("The run against the stored curves", header, drifts))
        parts += map(tables.markdown, shown)
    return "\n".join(parts)
