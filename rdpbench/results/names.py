"""What figures, reports and LaTeX tables call metrics, codecs and datasets, and which sign a codec's curve has.

Files of numbers (CSV, Parquet) and terminals have the names that are typed. Names for readers are data: those of
metrics are in ``conf/names.yaml``, those of codecs and datasets are the titles in ``conf/codec`` and ``conf/data``.
``labels=`` replaces any of them.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from rdpbench import registry
from rdpbench.errors import RdpbenchError
from rdpbench.metrics.contract import short_name
from rdpbench.paths import conf_folder, read_yaml, records
from rdpbench.results.stats.meanings import meaning as meaning_here
from rdpbench.setting import split_label


def family(metric: str) -> str:
    """What a metric measures, without its protocol.

    >>> family("fid/hific-patch"), family("psnr@float")
    ('fid', 'psnr')
    """
    return re.split(r"[/@]", metric, maxsplit=1)[0]


class AxisMeaning(NamedTuple):
    """What a metric's axis says."""

    unit: str
    higher_is_better: bool | None
    """None for a setting."""
    perceptual: bool = False


OTHERS = {
    "ms-ssim-db": AxisMeaning("dB", True),
    "ssim": AxisMeaning("", True),
    **dict.fromkeys(("bleu-4", "cider-d", "spice"), AxisMeaning("", True, True)),
    **dict.fromkeys(("fid-swav", "pieapp"), AxisMeaning("", False, True)),
    **dict.fromkeys(("encode-ms", "decode-ms", "total-ms"), AxisMeaning("ms", False)),
    **dict.fromkeys(("encode-s", "decode-s"), AxisMeaning("s", False)),
}
"""What is published and is no metric of ours, by its family; a published metric of a family of ours is like ours."""


def meaning(metric: str) -> AxisMeaning:
    """Unit and direction of a metric of ours, of a published one, or of one that a run describes.

    >>> meaning("psnr@unstated").unit, meaning("fid/clean").higher_is_better
    ('dB', False)
    """
    if metric not in registry.BUILTIN["metric"] and metric not in registry.meanings:
        if (kind := family(metric)) in OTHERS:
            return OTHERS[kind]
        metric = next((name for name in registry.BUILTIN["metric"] if family(name) == kind), metric)
    try:
        known = meaning_here(metric)
    except RdpbenchError:
        return AxisMeaning("", None)
    return AxisMeaning(known.unit, known.higher_is_better, known.perceptual)


def arrow(higher_is_better: bool | None) -> str:
    """Which way is better.

    >>> arrow(True), arrow(False), len(arrow(None))
    ('↑', '↓', 0)
    """
    return "" if higher_is_better is None else "↑" if higher_is_better else "↓"


SIGNS = 10
"""Colours, and markers."""
Sign = tuple[int, int]
"""A colour and a marker, by their numbers."""


def signs(labels: Iterable[str]) -> dict[str, Sign]:
    """The colour and marker of each curve: those of its codec, wherever it is drawn.

    They follow from the label alone (``conf/names.yaml``, or else the letters of the name); only where two labels come
    to the same, the later one in alphabetical order gets the next that is free.

    >>> signs(["jpeg", "webp"])["jpeg"] == signs(["vtm", "jpeg"])["jpeg"]
    True
    """
    count = SIGNS * SIGNS
    chosen: dict[str, Sign] = {}
    for label in sorted(set(labels), key=lambda label: (label not in _looks(), label)):
        places = [_sign((_slot(label) + step) % count) for step in range(count)]
        chosen[label] = next((sign for sign in places if sign not in chosen.values()), places[0])
    return chosen


def _slot(label: str) -> int:
    """Ten places for each colour. Options change the marker, and nothing else."""
    base, options = split_label(label)
    colour, place = _looks().get(base) or divmod(zlib.crc32(base.encode()) % 100, 10)
    if options or label != base:
        place += 1 + zlib.crc32(label.removeprefix(base).encode()) % 9
    return colour * SIGNS + place % SIGNS


def _sign(slot: int) -> Sign:
    colour, place = divmod(slot, SIGNS)
    return colour, (colour + place) % SIGNS


@cache
def _looks() -> Mapping[str, tuple[int, int]]:
    lines = _stated("looks", list)
    return {
        name: (colour, place)
        for colour, line in enumerate(lines)
        for place, names in enumerate(line)
        for name in ([names] if isinstance(names, str) else names)
    }


@cache
def _stated(part: str, kind: type) -> Any:
    return read_yaml(conf_folder() / "names.yaml").get(part) or kind()


@cache
def _metrics() -> Mapping[str, str]:
    return {str(name): str(text) for name, text in _stated("metrics", dict).items()}


@cache
def _codecs() -> Mapping[str, str]:
    """Titles up to the first parenthesis; recipes, and codecs that would share a name, have theirs in full."""
    folder = conf_folder() / "codec"
    ours: dict[str, str] = {}
    recipes: dict[str, str] = {}
    for titles, where in ((ours, folder), (recipes, folder / "recipe")):
        for record in map(read_yaml, sorted(where.glob("*.yaml"))):
            if record["title"]:
                titles[str(record["name"])] = re.split("[:;] ", record["title"])[0]
    short = {name: re.sub(r" \([^)]*\)", "", title) for name, title in ours.items()}
    count = Counter(short.values())
    ours |= {name: text for name, text in short.items() if count[text] == 1}
    return {**_stated("codecs", dict), **recipes, **ours}


def published_name(codec: str) -> str:
    """A codec in somebody else's numbers, which may be of other options than ours.

    >>> published_name("vtm"), Names().codec("vtm")
    ('VTM', 'VTM intra 4:4:4 (10-bit input)')
    """
    stated: Mapping[str, str] = _stated("codecs", dict)
    return stated.get(codec) or _codecs().get(codec, codec)


@cache
def _sets() -> Mapping[str, str]:
    short = {str(record["name"]): re.sub(r" \(.*", "", record["title"]).split(", ")[0] for record in records("data")}
    return {name: title for name, title in short.items() if not title.startswith("any ")}


@dataclass(frozen=True)
class Names:
    """What things are called where people read.

    >>> names = Names({"jpeg": "JPEG, ours"})
    >>> names.metric("lpips/alex"), names.codec("jpeg[optimize=true]"), names.dataset("kodak")
    ('LPIPS (AlexNet)', 'JPEG, ours, optimize true', 'Kodak')
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    """In place of others: by metric, codec, curve's label or dataset."""

    def metric(self, name: str) -> str:
        """A metric without unit and direction.

        >>> Names().metric("diversity/deviation/5"), Names().metric("kid/clean/full"), Names().metric("fid@crdr")
        ('Deviation of 5 decodes', 'KID (clean, all pairs)', 'FID (as crdr)')
        """
        if text := self.labels.get(name) or _metrics().get(name):
            return text
        if ":" in name:
            return short_name(name).rpartition(":")[2]
        stem, _, last = name.rpartition("/")
        if stem in _metrics() and last.isdecimal():
            return _metrics()[stem].replace("of decodes", f"of {last} decodes")
        if stem in _metrics() and (words := _stated("variants", dict).get(last)):
            text = _metrics()[stem]
            return f"{text[:-1]}, {words})" if text.endswith(")") else f"{text} ({words})"
        kind, at, source = name.partition("@")
        if at:
            return f"{self.metric(kind)} (as {source})"
        first, *rest = name.split("/")
        return f"{_metrics().get(first, first)} ({', '.join(rest)})" if rest else name

    def axis(self, metric: str) -> str:
        """A metric, or a codec's setting, as an axis has it: with its unit, and which way is better.

        >>> Names().axis("psnr"), Names().axis("compression_guidance")
        ('PSNR (dB) ↑', 'compression guidance')
        """
        unit, better, _ = meaning(metric)
        name = self.metric(metric) if better is not None else self.metric(metric).replace("_", " ")
        if unit and name.endswith(")"):
            name = f"{name[:-1]}, {unit})"
        elif unit:
            name += f" ({unit})"
        return f"{name} {arrow(better)}".strip()

    def codec(self, label: str) -> str:
        """A curve: its codec, and behind a comma the options that are not the usual ones."""
        if label in self.labels:
            return self.labels[label]
        base, options = split_label(label)
        grade = re.search(r" \((joint|reported)\)$", label)
        words = [re.sub(r"^weights=(random\S*)$", r"\1 weights", word).replace("=", " ") for word in options]
        name = self.labels.get(base) or _codecs().get(base, base)
        return ", ".join([name, *words]) + (grade[0] if grade else "")

    def dataset(self, name: str) -> str:
        """A dataset."""
        return self.labels.get(name) or _sets().get(name, name)

    def sentence(self, text: str) -> str:
        """Words of which each that is a name is called as readers know it.

        >>> Names().sentence("kodak: lpips/alex of jpeg, and BD-psnr dB ↑")
        'Kodak: LPIPS (AlexNet) of JPEG, and BD-PSNR (dB) ↑'
        """
        return re.sub(r"(?<![^\s(])(BD-)?([^\s,;:()]+)( dB(?![^\s,;:]))?", self._word, text)

    def _word(self, match: re.Match[str]) -> str:
        before, word, unit = match[1] or "", match[2], match[3] or ""
        metric = word in _metrics() or word in registry.BUILTIN["metric"] or word in registry.meanings
        codec = self.codec(word) if split_label(word)[0] in _codecs() else ""
        name = self.metric(word) if metric else self.labels.get(word) or codec or self.dataset(word)
        return f"{before}{name}{' (dB)' if unit and metric else unit}"
