"""Does a run still give its stored curve? Point by point and as a whole, within stated tolerances, bytes exactly.

Times are stored nowhere in a curve, and so are never compared.

Did a whole curve move? BD-rate and BD-metric of a run against its stored curve, within the bounds of the gate.

A point has a tolerance of its own; a codec that is a little worse at all of its points stays within each of them, and
its curve has moved all the same. Where there is no delta, there is a reason, as in `rdpbench.results.stats.bd`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from rdpbench import registry
from rdpbench.codecs.contract import depends_on_cpu
from rdpbench.errors import ConfigError
from rdpbench.gate.curves import VERSION, Curve, ImagePoint, Point, in_order
from rdpbench.paths import read_yaml
from rdpbench.results.stats.bd import METHODS, Delta, RateValues, bd_metric, bd_rate
from rdpbench.results.stats.meanings import meaning
from rdpbench.setting import Setting


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
    def beyond(self) -> tuple[str, ...]:
        """The deltas that are beyond their bounds, in words."""
        return tuple(
            f"{name} {said(delta, bound, unit)}"
            for name, delta, bound, unit in self._both()
            if abs(delta.value) > bound
        )

    def __str__(self) -> str:
        return "; ".join(f"{name} {said(delta, bound, unit)}" for name, delta, bound, unit in self._both())

    def _both(self) -> tuple[tuple[str, Delta, float, str], ...]:
        return (
            ("BD-rate", self.rate, self.rate_bound, "%"),
            (f"BD-{self.metric}", self.metric_delta, self.metric_bound, self.unit),
        )


def said(delta: Delta, bound: float, unit: str) -> str:
    """A delta in words.

    >>> said(Delta(0.25, "pchip"), 0.1, "%"), len(said(Delta(math.nan, "pchip", "too few"), 0.1, "%"))
    ('+0.25 % (allowed ±0.1)', 17)
    """
    if delta.reason:
        return f"not told: {delta.reason}"
    return f"{delta.value:+.3g}{f' {unit}' if unit else ''} (allowed ±{bound:.3g})"


def drifts(stored: Curve, now: Curve, metrics: Iterable[str], bounds: Bounds) -> list[Drift]:
    """The deltas of the run against the stored curve, over the points that both have, under each metric."""
    after = {point.setting: point for point in now.points}
    both = [(point, after[point.setting]) for point in stored.points if point.setting in after]
    out = []
    for metric in metrics:
        of = meaning(metric)
        pair: list[RateValues] = [
            # The rate is of all images: it is not that of a value over some of them.
            [(point[side].bpp, point[side].values[metric]) for point in both if _whole(point, metric)]
            for side in (0, 1)
        ]
        rate_bound, metric_bound = bounds.of(metric)
        level = math.fsum(value for _, value in pair[0]) / len(pair[0]) if pair[0] else math.nan
        out.append(
            Drift(
                metric,
                of.unit,
                _told(bd_rate(*pair, higher_is_better=of.higher_is_better, method=bounds.method), rate_bound),
                _told(bd_metric(*pair, method=bounds.method), metric_bound),
                _width(rate_bound, 0.0),
                _width(metric_bound, abs(level)),
            )
        )
    return out


def _whole(pair: tuple[Point, Point], metric: str) -> bool:
    return all(metric in point.values and metric not in point.averaged for point in pair)


def _told(delta: Delta, bound: Bound) -> Delta:
    """With the gate's words for the two curves; or the reason why it is not compared."""
    if isinstance(bound, str):
        return Delta(math.nan, delta.method, bound)
    return replace(delta, reason=delta.reason.replace("anchor: ", "stored: ").replace("test: ", "now: "))


def _width(bound: Bound, level: float) -> float:
    return bound.absolute + bound.relative * level if isinstance(bound, Tolerance) else math.nan


BD = "BD-rate and BD-metric"
"""Where findings of the whole curve's rate and quality stand."""
SHOWN = 3
"""Images that are named below a finding."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was stored."""

    where: str
    """The rate point, ``curve``, or `BD`."""
    text: str
    images: tuple[str, ...] = ()
    """The images that moved most, with by how much; empty where nothing is stored per image."""


@dataclass(frozen=True)
class Verdict:
    """What comparing one curve gave."""

    codec: str
    dataset: str
    path: Path
    points: tuple[str, ...]
    """All that were compared, stored or measured."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What one should know, but what is no regression."""
    drifts: tuple[Drift, ...] = ()
    """The curve as a whole, under each metric that both have."""


@dataclass(frozen=True)
class Comparison:
    """What comparing a run with its stored curve gives; `Verdict` says of what."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    drifts: tuple[Drift, ...]


def compare(stored: Curve, now: Curve, tolerances: Tolerances) -> Comparison:
    """All findings and notes. Metrics that only the stored curve has are left out with a note."""
    findings = _configuration(stored.origin, now.origin) + _originals(stored, now) + _definitions(stored, now)
    exact, notes = _exactness(stored.origin, now.origin)
    if (version := stored.origin.get("version", VERSION)) != VERSION:
        notes.append(
            f"stored as version {version} of {VERSION}: what that did not say is not compared; what stores it anew: "
            f"{now.origin.get('command', 'rdpbench curves update')}"
        )
    metrics = {name: None for point in now.points for name in point.values}
    known = {name for point in stored.points for name in point.values}
    findings += [Finding("curve", f"{name} is not in the stored curve") for name in metrics if name not in known]
    if unused := sorted(known - metrics.keys()):
        notes.append(f"not measured now, and not compared: {', '.join(unused)}")
    before = {point.setting: point for point in stored.points}
    after = {point.setting: point for point in now.points}
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
    whole = drifts(stored, now, shared, tolerances.bd)
    findings += [_drifted(one, stored, now) for one in whole if one.beyond]
    return Comparison(tuple(findings), tuple(notes), tuple(whole))


def _drifted(drift: Drift, stored: Curve, now: Curve) -> Finding:
    """A curve that moved as a whole, with the point and the images that moved most: in the metric, or else in rate."""
    after = {point.setting: point for point in now.points}
    both = [(point, after[point.setting]) for point in stored.points if point.setting in after]
    values = {old.setting: (old.values[drift.metric], new.values[drift.metric]) for old, new in both}
    in_metric = any(old != new for old, new in values.values())
    moved = values if in_metric else {old.setting: (old.bpp, new.bpp) for old, new in both}
    most = max(moved, key=lambda setting: abs(moved[setting][1] - moved[setting][0]))
    images = _Images(stored, now, most).moved(lambda one: one.values[drift.metric] if in_metric else one.bpp)
    what = drift.metric if in_metric else "bpp"
    text = f"{drift.metric}: {', '.join(drift.beyond)}; {what} most at {most.words}: {change(*moved[most])}"
    return Finding(BD, text, images)


def _point(
    before: Point, after: Point, metrics: Iterable[str], tolerances: Tolerances, exact: bool, images: _Images
) -> list[Finding]:
    where = before.setting.words
    out = []
    for what, old, new in (
        ("images", before.n, after.n),
        ("size of the dataset", before.dataset_size, after.dataset_size),
        ("protocol", before.protocol, after.protocol),
        ("what the rate counts", before.bits_kind or after.bits_kind, after.bits_kind or before.bits_kind),
    ):
        if old != new:
            out.append(Finding(where, f"{what}: stored {old}, now {new}"))
    if exact and before.bitstreams != after.bitstreams:
        out.append(Finding(where, f"bytes: {images.bytes()}, and the coder is the same"))
    moved: list[tuple[str, float, float, Tolerance, Callable[[ImagePoint], float]]] = [
        ("bpp", before.bpp, after.bpp, tolerances.bpp, lambda one: one.bpp)
    ]
    for metric in metrics:
        old, new = before.averaged.get(metric, before.n), after.averaged.get(metric, after.n)
        if old - before.n != new - after.n:
            out.append(Finding(where, f"{metric}: stored as the mean of {old} images, now of {new}"))
        values = before.values[metric], after.values[metric]
        moved.append((metric, *values, tolerances.of(metric), lambda one, m=metric: one.values[m]))  # type: ignore[misc]
    for what, stored, now, tolerance, pick in moved:
        if not tolerance.allows(stored, now):
            text = f"{what}: {change(stored, now)}, allowed {tolerance}"
            out.append(Finding(where, text, images.moved(pick)))
    return out


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

    def __init__(self, stored: Curve, now: Curve, setting: Setting) -> None:
        self.before = {one.image: one for one in stored.images if one.setting == setting}
        self.after = {one.image: one for one in now.images if one.setting == setting}
        self.known = bool(self.before and self.after)
        self.both = [image for image in self.before if image in self.after]

    def bytes(self) -> str:
        if not self.known:
            return "the bitstreams are not those that are stored (which, is not stored for a dataset of this size)"
        other = [name for name in self.both if self.before[name].bitstream != self.after[name].bitstream]
        if not other:
            return "the bitstreams are not of the same images as those that are stored"
        return f"{len(other)} of {len(self.before)} bitstreams differ ({_names(other)})"

    def moved(self, pick: Callable[[ImagePoint], float]) -> tuple[str, ...]:
        pairs = {name: (pick(self.before[name]), pick(self.after[name])) for name in self.both}
        sizes = {name: abs(new - old) for name, (old, new) in pairs.items() if old != new and not math.isnan(new - old)}
        most = sorted(sizes, key=lambda name: (-sizes[name], name))[:SHOWN]
        return tuple(f"{name}: {change(*pairs[name])}" for name in most)


def _names(images: list[str]) -> str:
    shown = ", ".join(images[:SHOWN])
    return shown if len(images) <= SHOWN else f"{shown} and {len(images) - SHOWN} more"


def _configuration(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[Finding]:
    """A curve of another configuration under the same name is another curve."""
    out = []
    for what in ("codec", "dataset", "manifest", "configuration", "seeds"):
        old, new = stored.get(what), now.get(what)
        if what == "manifest" and old is None:
            continue  # of version 1
        if old != new:
            out.append(Finding("curve", f"{what}: stored {_plain(old)}, now {_plain(new)}"))
    return out


def _originals(stored: Curve, now: Curve) -> list[Finding]:
    """Images that came, went, or have other pixels: then it is not the codec that moved."""
    before, after = ({one.image: one.pixels for one in curve.images} for curve in (stored, now))
    if not before or not after:
        return []
    kinds = {
        "other pixels than when the curve was stored": [n for n in before if n in after and before[n] != after[n]],
        "stored, but not in the dataset any more": [n for n in before if n not in after],
        "in the dataset, but not stored": [n for n in after if n not in before],
    }
    return [Finding("curve", f"images: {_names(names)}: {what}") for what, names in kinds.items() if names]


def _exactness(stored: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Are equal bytes expected? With what differs and is no finding by itself."""
    notes = []
    exact = stored.get("coder") == now.get("coder")
    if not exact:
        what = _differences(stored.get("coder"), now.get("coder"))
        notes.append(f"the coder is another one ({what}): equal bytes are not expected, the tolerances apply")
    use = (now.get("configuration") or {}).get("use")
    codec = registry.load("codec", use) if use else object
    # Of a codec that takes no device, "device" is the setting of the run, which says nothing.
    places = ["cpu", "device"] if getattr(codec, "uses_device", False) else ["cpu"]
    elsewhere = [place for place in places if stored.get(place) != now.get(place)]
    if depends_on_cpu(codec) and elsewhere:
        exact = False
        what = "; ".join(_apart(str(stored.get(place)), str(now.get(place))) for place in elsewhere)
        notes.append(
            f"{use} computes otherwise on another processor ({what}): equal bytes are not expected, "
            "the tolerances apply"
        )
    metrics = stored.get("metrics") or {}
    for name, made in (now.get("metrics") or {}).items():
        old, new = (one.get("packages") for one in (metrics.get(name, made), made))
        if old != new:
            notes.append(f"{name} is computed by other packages ({_differences(old, new)})")
    return exact, notes


def _definitions(stored: Curve, now: Curve) -> list[Finding]:
    """A metric of another version or other weights is another metric, whatever it is called."""
    out = []
    before = stored.origin.get("metrics") or {}
    for name, made in (now.origin.get("metrics") or {}).items():
        old, new = ({key: one[key] for key in one if key != "packages"} for one in (before.get(name, made), made))
        if old != new:
            text = f"{name}: stored under another definition ({_differences(old, new)}); store the curve anew"
            out.append(Finding("curve", text))
    return out


def _differences(old: Any, new: Any) -> str:
    old, new = (one if isinstance(one, dict) else {} for one in (old, new))
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {_plain(old.get(name))} → {_plain(new.get(name))}" for name in names)


def _apart(stored: str, now: str) -> str:
    """The words that only one of two has.

    >>> _apart("x86_64 avx avx2", "x86_64 avx MKL_CBWR=AVX")
    'stored avx2, now MKL_CBWR=AVX'
    """
    old, new = stored.split(), now.split()
    only = [[word for word in one if word not in other] for one, other in ((old, new), (new, old))]
    return f"stored {' '.join(only[0]) or 'nothing'}, now {' '.join(only[1]) or 'nothing'}"


def _plain(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items()) or "nothing"
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)[:64]


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from the stored one."""

    absolute: float
    relative: float

    def allows(self, stored: float, now: float) -> bool:
        """Is the difference within it?

        >>> Tolerance(0.01, 0).allows(30.0, 30.005), Tolerance(0, 0.001).allows(0.5, 0.501)
        (True, False)
        """
        if math.isnan(stored) or math.isnan(now):
            return math.isnan(stored) and math.isnan(now)
        return stored == now or abs(now - stored) <= self.absolute + self.relative * abs(stored)

    def __str__(self) -> str:
        parts = [f"{self.absolute:g}" if self.absolute else "", f"{100 * self.relative:g} %" if self.relative else ""]
        return " + ".join(filter(None, parts)) or "nothing"


Bound: TypeAlias = Tolerance | str
"""How far from zero a delta may be, or why there is none to compare."""


@dataclass(frozen=True)
class Bounds:
    """How far a whole curve may be from the stored one, by Bjøntegaard deltas."""

    method: str
    """Of interpolation, `rdpbench.results.stats.bd.METHODS`."""
    rate: Mapping[str, Bound]
    """Of BD-rate, in percent: ``absolute`` alone."""
    metric: Mapping[str, Bound]
    """Of BD-metric, in the metric's unit; ``relative`` is to the mean of the stored values."""

    def of(self, metric: str) -> tuple[Bound, Bound]:
        """Those of a metric's BD-rate and BD-metric: its own, or the default.

        >>> half = Tolerance(0.5, 0)
        >>> Bounds("pchip", {"default": half, "cmmd": "it is flat"}, {"default": half}).of("cmmd")
        ('it is flat', Tolerance(absolute=0.5, relative=0))
        """
        rate, value = (one.get(metric, one["default"]) for one in (self.rate, self.metric))
        return rate, value


@dataclass(frozen=True)
class Tolerances:
    """``conf/regress.yaml``."""

    bpp: Tolerance
    metrics: Mapping[str, Tolerance]
    bd: Bounds

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
            raise ValueError("cpu_dependent: nothing reads that; it is the codec's class's to say (depends_on_cpu)")
        _only(raw, "bpp", "metrics", "bd")
        metrics = {name: _tolerance(one) for name, one in raw["metrics"].items()}
        bd = _bounds(raw["bd"])
        found = Tolerances(_tolerance(raw["bpp"]), metrics, bd)
        found.of("")
        bd.of("")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: {type(error).__name__}: {error}; it needs bpp, metrics with a default, bd with a method and "
            "with rate and metric, each with a default; a tolerance is "
            "{absolute: 0.01, relative: 0}, both 0 or more; in bd a sentence may stand in its place"
        ) from error
    return found


def _bounds(raw: Mapping[str, Any]) -> Bounds:
    _only(raw, "method", "rate", "metric")
    if raw["method"] not in METHODS:
        raise ValueError(f"{raw['method']} is none of {', '.join(METHODS)}")
    rate, metric = (
        {name: one if isinstance(one, str) and one else _tolerance(one) for name, one in raw[kind].items()}
        for kind in ("rate", "metric")
    )
    if odd := [name for name, one in rate.items() if isinstance(one, Tolerance) and one.relative]:
        raise ValueError(f"bd rate of {odd[0]}: it is in percent as it is, so relative must be 0")
    return Bounds(raw["method"], rate, metric)


def _only(raw: Mapping[str, Any], *keys: str) -> None:
    if odd := [key for key in raw if key not in keys]:
        raise ValueError(f"{odd[0]!r} is none of {', '.join(keys)}")


def _tolerance(raw: Mapping[str, Any]) -> Tolerance:
    _only(raw, "absolute", "relative")
    found = Tolerance(float(raw["absolute"]), float(raw["relative"]))
    if not (0 <= found.absolute < math.inf and 0 <= found.relative < math.inf):
        raise ValueError(f"{dict(raw)} is no tolerance")
    return found
