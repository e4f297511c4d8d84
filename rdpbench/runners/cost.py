"""What work will take: seconds from its pixels, codec, setting and metrics, learned from rows, at first from a table.

`Costs.seconds` serves the plan, the cutting of work into chunks, and the time that is left of a run. Nothing here reads
a file or a clock.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rdpbench import registry
from rdpbench.results.store.keys import TIMING_REPEATS, TIMING_WARMUP
from rdpbench.results.store.schema import Row
from rdpbench.runners.task import Work
from rdpbench.setting import CodecSetting, Setting

CODING = {
    "avif": 0.65,
    "bpg": 4.0,
    "heif": 0.6,
    "hevc": 0.8,
    "jpeg": 0.01,
    "jpeg2000": 0.25,
    "jpegxl": 0.65,
    "mini": 0.85,
    "mozjpeg": 0.3,
    "vtm": 200.0,
    "vvenc": 10.0,
    "webp": 0.1,
}
"""Seconds for a megapixel, encoding and decoding, on one core of a server of 2025."""
FAMILIES = {"rdpbench.codecs.learned": 10.0, "rdpbench.codecs.diffusion": 500.0}
"""The same for those that are not above."""
SCORING = {"psnr": 0.01, "psnr-pooled": 0.01, "ms-ssim": 0.06, "ssimulacra2": 0.15, "flip": 2.3, "lpips/alex": 0.3}
"""The same for a metric."""
UNKNOWN = 2.0
"""The same for codecs and metrics of which nothing is known."""
TRIES = 8
"""How often a search for a target rate encodes."""
TRUST_S = 5.0
"""Seconds of work before this run's own speed outweighs that of a machine that does nothing else."""
RECENT = 32
"""Rows after which older ones count half: another machine may have made them."""


@dataclass
class _Ratio:
    """Seconds over what they are in proportion to, of recent rows."""

    seconds: float = 0.0
    unit: float = 0.0
    rows: int = 0

    def add(self, seconds: float, unit: float) -> None:
        if self.rows == RECENT:
            self.seconds, self.unit, self.rows = self.seconds / 2, self.unit / 2, self.rows // 2
        self.seconds, self.unit, self.rows = self.seconds + seconds, self.unit + unit, self.rows + 1

    @property
    def value(self) -> float:
        return self.seconds / self.unit


@dataclass
class Costs:
    """Seconds that work takes one core.

    >>> costs = Costs()
    >>> costs.learn_coding("jpeg", "jpeg", Setting("quality", 50.0), 1_000_000, 0.03)
    >>> costs.learn_scoring(("psnr",), 1_000_000, 0.02)
    >>> costs.coding("jpeg", "jpeg", Setting("quality", 50.0), 2_000_000), costs.scoring(("psnr",), 2_000_000)
    (0.06, 0.04)
    """

    _coding: dict[object, _Ratio] = field(default_factory=lambda: defaultdict(_Ratio))
    """By a curve's label with a setting, and by a label alone."""
    _speed: dict[str, _Ratio] = field(default_factory=lambda: defaultdict(_Ratio))
    """By label: this machine's seconds over the table's."""
    _scoring: dict[frozenset[str], _Ratio] = field(default_factory=lambda: defaultdict(_Ratio))
    """By the metrics that score a row, the same."""

    def learn(self, row: Row, metrics: Sequence[str]) -> None:
        """What a row tells, whose ``score_s`` is of these metrics."""
        if row.status != "ok" or row.encode_s is None:
            return
        pixels = row.height * row.width
        seconds = row.encode_s * row.attempts + (row.decode_s or 0)
        self.learn_coding(row.codec, row.use, row.setting, pixels, seconds)
        if metrics and row.score_s is not None:
            self.learn_scoring(metrics, pixels, row.score_s)

    def learn_coding(self, label: str, use: str, setting: Setting, pixels: int, seconds: float) -> None:
        for key in (label, setting), label:
            self._coding[key].add(seconds, pixels)
        self._speed[label].add(seconds, _usual(use, setting) * pixels)

    def learn_scoring(self, metrics: Sequence[str], pixels: int, seconds: float) -> None:
        self._scoring[frozenset(metrics)].add(seconds, _usual_scoring(metrics) * pixels)

    def coding(self, label: str, use: str, setting: Setting, pixels: int) -> float:
        """Seconds to encode and decode an image once, or to search its target rate."""
        for key in (label, setting), label:
            if key in self._coding:
                return self._coding[key].value * pixels
        return _usual(use, setting) * pixels * _middle(self._speed.values())

    def scoring(self, metrics: Sequence[str], pixels: int) -> float:
        """Seconds for the metrics of an image, features of set metrics among them."""
        known = self._scoring.get(frozenset(metrics))
        return _usual_scoring(metrics) * pixels * (known.value if known else _middle(self._scoring.values()))

    def seconds(self, work: Work) -> float:
        """Seconds for a piece of work."""
        return self.of_kind(kind_of_work(work), work.task.pixels) + _stored_s(work)

    def knows(self, label: str) -> bool:
        """Do rows tell of a codec?"""
        return label in self._coding

    def of_kind(self, kind: Kind, pixels: int) -> float:
        """Seconds for work of a kind on so many pixels."""
        label, use, setting, codings, metrics = kind
        return codings * self.coding(label, use, setting, pixels) + self.scoring(metrics, pixels)


Kind = tuple[str, str, Setting, int, tuple[str, ...]]
"""What work of equal pixels costs the same of: label, use, setting, how often it is coded, what is measured."""


def kind_of(codec: CodecSetting, setting: Setting, coded: bool, timing: bool, metrics: tuple[str, ...]) -> Kind:
    """The kind of some work; ``coded`` if its row is stored."""
    return codec.name, codec.use, setting, (not coded) + (TIMING_WARMUP + TIMING_REPEATS) * timing, metrics


def kind_of_work(work: Work) -> Kind:
    """The kind of a piece of work."""
    metrics = (*work.metrics, *work.features, *work.originals)
    return kind_of(work.task.codec, work.task.setting, work.row is not None, work.timing, metrics)


def _stored_s(work: Work) -> float:
    """Seconds to decode what is stored."""
    return (work.row.decode_s or 0) if work.row else 0.0


class Left:
    """How long the rest of a run takes, asked while it runs.

    Args:
        kinds: the pixels of each kind of work.
        stored_s: seconds to decode what is stored.
        costs: what earlier rows tell; it goes on to learn from those of this run.
        workers: at least 1.
    """

    def __init__(self, kinds: Counter[Kind], stored_s: float, costs: Costs, workers: int) -> None:
        self.costs, self.workers = costs, workers
        self._pixels, self._stored_s = kinds.copy(), stored_s
        self._measured = 0.0
        self._first: tuple[float, float] | None = None
        """Seconds that had passed, and those that rows had measured, when it was first asked after a task."""

    def done(self, work: Work, row: Row | None) -> None:
        """A piece of work is done; ``row`` is there if it was coded."""
        kind = kind_of_work(work)
        self._pixels[kind] -= work.task.pixels
        self._stored_s -= _stored_s(work)
        if row is None:
            self._measured += self.costs.seconds(work)
            return
        self.costs.learn(row, kind[-1])
        self._measured += (row.encode_s or 0) * row.attempts + (row.decode_s or 0) + (row.score_s or 0)

    def seconds(self, elapsed: float) -> float:
        """Seconds that the rest takes, where ``elapsed`` have passed.

        What rows do not measure, such as reading images and a machine that others use, is taken to go on as it did.
        """
        kinds = ((kind, pixels) for kind, pixels in self._pixels.items() if pixels > 0)
        left = self._stored_s + sum(self.costs.of_kind(kind, pixels) for kind, pixels in kinds)
        if self._first is None and self._measured:  # until then workers started, which comes once
            self._first = elapsed, self._measured
        started, measured = self._first or (elapsed, self._measured)
        return left * (elapsed - started + TRUST_S / self.workers) / (self._measured - measured + TRUST_S)


def _usual(use: str, setting: Setting) -> float:
    """Seconds for a pixel by the tables."""
    place = registry.BUILTIN["codec"].get(use, "")
    family = next((seconds for prefix, seconds in FAMILIES.items() if place.startswith(prefix)), UNKNOWN)
    return CODING.get(use, family) * (TRIES if setting.target is not None else 1) / 1e6


def _usual_scoring(metrics: Iterable[str]) -> float:
    return sum(SCORING.get(name, UNKNOWN) for name in metrics) / 1e6


def _middle(ratios: Iterable[_Ratio]) -> float:
    """The geometric mean of what was learned; 1 without any."""
    values = [ratio.value for ratio in ratios if ratio.seconds > 0 and ratio.unit > 0]
    return statistics.geometric_mean(values) if values else 1.0
