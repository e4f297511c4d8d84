"""What raters get: the reconstructions in pairs and sheets, and the folder with the voting page.

::

    FOLDER/index.html       the voting page: opens from the file system, loads nothing else, sends nothing
    FOLDER/images/          originals and reconstructions under drawn numbers
    FOLDER-key.json         what each name means; you keep it, since votes cannot be read without it

A study compares reconstructions that runs kept. Each codec has the setting whose mean rate over the study's images is
nearest to the study's rate; a codec that is further from it than the tolerance is refused, since a comparison at other
rates says nothing. Runs with ``bpp=`` were searched image by image and match best.

A sheet is what one rater does in one sitting. Over all sheets each pair is seen equally often (differences of one), and
within a sheet the pairs that are rarest so far come first. Each pair of codecs has each of its two on the left equally
often. Catch trials show the original itself beside a spoiled copy: who misses these was not looking.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from rdpbench.errors import ConfigError, MissingNeed, UnknownName, check_names
from rdpbench.figures.examples import kept, mean_rate, original_of, reconstruction_of
from rdpbench.image import Image, pixel_sha256
from rdpbench.lazy import pil
from rdpbench.paths import unwritable, write_file
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Points, Where, titles
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.setting import Setting, digits
from rdpbench.study.votes import Key, ShownImage, ShownTrial, write_key

# Which reconstructions


Place: TypeAlias = tuple[str, float, str]
"""Of a reconstruction: image, rate that it is matched to, and codec."""


@dataclass(frozen=True)
class Chosen:
    """What a study shows: for each rate and image, one reconstruction of each codec."""

    where: Where
    codecs: tuple[str, ...]
    targets: tuple[float, ...]
    images: tuple[str, ...]
    rows: dict[Place, Row]
    runs: Mapping[str, tuple[Store, Points]]
    """Of each codec the run that its reconstructions are from."""
    notes: tuple[str, ...]

    @property
    def better(self) -> dict[str, bool]:
        """Metrics that all reconstructions have a finite value of: is higher better?"""
        names = set.intersection(*(set(points.metrics) for _, points in self.runs.values()))
        pairs_only = (name for name in sorted(names) if meaning(name).kind != "set")
        whole = [name for name in pairs_only if all(math.isfinite(self.score(r, name)) for r in self.rows.values())]
        return {name: meaning(name).higher_is_better for name in whole}

    def score(self, row: Row, metric: str) -> float:
        """A reconstruction's value; NaN where it has none."""
        value = self.runs[row.codec][1].value(row, metric)
        return math.nan if value is None else value


def choose(
    runs: Sequence[tuple[Store, Contents]],
    *,
    targets: Sequence[float] = (),
    codecs: Sequence[str] = (),
    images: Sequence[str] = (),
    dataset: str = "",
    tolerance: float = 0.1,
) -> Chosen:
    """Choose the reconstructions.

    Args:
        runs: stores with their contents; a codec that two runs have is taken from the first.
        targets: bits per pixel; without any, the lowest rate that all codecs reach.
        codecs: labels of curves; without any, all that kept images.
        images: ids; without any, all that each codec kept at each rate.
        dataset: which, where the runs have several.
        tolerance: how far a mean rate may be from the target, relative.

    Raises:
        MissingNeed: no kept reconstructions of a codec, or no image that all have.
        ConfigError: a rate that a codec does not come near, random weights, or several datasets.
        UnknownName: no such codec or image.
    """
    read = [(store, of_store(contents)) for store, contents in runs]
    stored = [(run, codec, rows) for run in read for codec, rows in kept(*run).items()]
    where = _place([row for _, _, rows in stored for row in rows], dataset)
    of_codec: dict[str, list[Row]] = {}
    sources: dict[str, tuple[Store, Points]] = {}
    for run, codec, rows in stored:
        here = [row for row in rows if Where.of(row) == where and row.bpp]
        if here and codec not in of_codec:
            of_codec[codec], sources[codec] = here, run
    known = list(of_codec)
    check_names("codec", codecs, known, "with kept reconstructions (keep=all), that is")
    names = tuple(dict.fromkeys(codecs or known))
    if untrained := sorted(name for name in names if any("random" in row.weights for row in of_codec[name])):
        raise ConfigError(
            f"images of random weights cannot be judged: {', '.join(untrained)}; choose the others by --codec A,B"
        )
    if len(names) < 2:
        raise ConfigError(f"a comparison needs two codecs; there are kept reconstructions of: {', '.join(known)}")
    settings = {name: _by_setting(of_codec[name]) for name in names}
    rates, nearest, shared = _match(settings, targets, images, tolerance)
    nearest = {place: _of_images(setting, shared) for place, setting in nearest.items()}
    chosen = {(row.image, rate, name): row for (name, rate), setting in nearest.items() for row in setting}
    notes = [
        f"{name} at {digits(rate)} bpp: {setting[0].setting.words}, {mean_rate(setting):.4f} bpp"
        for (name, rate), setting in nearest.items()
    ]
    return Chosen(where, names, rates, shared, chosen, {name: sources[name] for name in names}, tuple(notes))


def _place(rows: Sequence[Row], dataset: str) -> Where:
    """The one dataset, under one protocol, that is meant."""
    names = titles(list(dict.fromkeys(map(Where.of, rows))))
    meant = [where for where, name in names.items() if dataset in ("", where.dataset, name)]
    if not meant:
        raise UnknownName("dataset", dataset, names.values(), "with kept reconstructions, that is")
    if len(meant) > 1:
        listed = ", ".join(repr(names[where]) for where in meant)
        raise ConfigError(
            f"a study has one dataset under one protocol, and here are several: {listed}; --dataset chooses"
        )
    return meant[0]


def _by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """By setting or target; of several seeds the lowest."""
    groups: dict[Setting, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        groups.setdefault(row.setting, {}).setdefault(row.image, row)
    return [list(images.values()) for images in groups.values()]


def _match(
    settings: Mapping[str, Sequence[Sequence[Row]]],
    targets: Sequence[float],
    wanted: Sequence[str],
    tolerance: float,
) -> tuple[tuple[float, ...], dict[tuple[str, float], Sequence[Row]], tuple[str, ...]]:
    """Rates, the setting of each codec at each of them, and the study's images.

    Which images all have depends on the settings, and the nearest setting on the images that its rate is a mean over:
    the images only become fewer until both agree.
    """
    shared = _images([list(itertools.chain(*several)) for several in settings.values()], wanted)
    while True:
        there = {name: [_of_images(setting, shared) for setting in several] for name, several in settings.items()}
        there = {name: [setting for setting in several if setting] for name, several in there.items()}
        # The lowest rate that all codecs reach, with three digits.
        lowest = max(min(map(mean_rate, several)) for several in there.values())
        rates = tuple(targets) or (float(f"{lowest:.3g}"),)
        nearest = {(name, rate): _nearest(name, there[name], rate, tolerance) for rate in rates for name in settings}
        before, shared = shared, _images(nearest.values(), wanted)
        if shared == before:
            return rates, nearest, shared


def _of_images(setting: Sequence[Row], images: Sequence[str]) -> list[Row]:
    return [row for row in setting if row.image in images]


def _nearest(name: str, settings: Sequence[Sequence[Row]], rate: float, tolerance: float) -> Sequence[Row]:
    best = min(settings, key=lambda setting: abs(math.log(mean_rate(setting) / rate)))
    if abs(math.log(mean_rate(best) / rate)) > math.log1p(tolerance):
        there = ", ".join(f"{mean:.4g}" for mean in sorted(map(mean_rate, settings)))
        raise ConfigError(
            f"{name} has nothing within {100 * tolerance:g} % of {digits(rate)} bpp, only {there}. Make it: "
            f"rdpbench run codec={name.partition('[')[0]} bpp={digits(rate)} keep=all; or allow more with --tolerance"
        )
    return best


def _images(settings: Iterable[Sequence[Row]], wanted: Sequence[str]) -> tuple[str, ...]:
    """Ids that all have, of the same pixels."""
    sets = [{(row.image, row.pixel_sha256) for row in setting} for setting in settings]
    shared = sorted(image for image, _ in set.intersection(*sets))
    check_names("image", wanted, shared, "that all codecs kept at all rates")
    if not shared:
        raise MissingNeed("no image was kept for all codecs at all rates; run them on the same images with keep=all")
    return tuple(dict.fromkeys(wanted)) or tuple(shared)


# Pairs and sheets


@dataclass(frozen=True)
class StimulusPair:
    """Two reconstructions of one image at one rate; codecs are in the order of the study."""

    image: str
    target: float
    """Bits per pixel that both were matched to."""
    first: str
    second: str

    @property
    def places(self) -> tuple[Place, Place]:
        """Of its two reconstructions."""
        return (self.image, self.target, self.first), (self.image, self.target, self.second)


@dataclass(frozen=True)
class Trial:
    """One question: a pair or, as a catch trial, the original and a spoiled copy of it."""

    pair: StimulusPair | None
    image: str
    swapped: bool
    """Is the first of the pair, or the original of a catch trial, on the right?"""

    @property
    def catch(self) -> bool:
        return self.pair is None


def pairs(images: Sequence[str], targets: Sequence[float], codecs: Sequence[str]) -> list[StimulusPair]:
    """All pairs of codecs on all images at all rates.

    >>> len(pairs(["a", "b"], [0.1], ["x", "y", "z"]))
    6
    """
    product = itertools.product(images, targets, itertools.combinations(codecs, 2))
    return [StimulusPair(image, target, first, second) for image, target, (first, second) in product]


def sheets(known: Sequence[StimulusPair], count: int, length: int | None, catch: int, seed: int) -> list[list[Trial]]:
    """``count`` sheets of ``length`` pairs (None: all of them) and ``catch`` catch trials each, in the order shown.

    Raises:
        ConfigError: a number that cannot be meant.

    >>> plan = sheets(pairs(["a", "b"], [0.1], ["x", "y", "z"]), count=4, length=3, catch=1, seed=0)
    >>> len(plan), len(plan[0])
    (4, 4)
    """
    length = len(known) if length is None else length
    if not known or count < 1 or catch < 0 or not 1 <= length <= len(known):
        raise ConfigError(
            f"{count} sheets of {length} trials and {catch} catch trials cannot be made of {len(known)} pairs: "
            "a sheet has at least one, and none twice"
        )
    draw = random.Random(seed)  # noqa: S311 (an order, no secret)
    seen: Counter[StimulusPair] = Counter()
    # How often the first was on the left less how often the second was: of a pair, and of its two codecs.
    of_pair: Counter[StimulusPair] = Counter()
    of_codecs: Counter[tuple[str, str]] = Counter()

    def swap(pair: StimulusPair) -> bool:
        lead = of_pair[pair] or of_codecs[pair.first, pair.second]
        swapped = lead > 0 if lead else draw.random() < 0.5
        of_pair[pair] += -1 if swapped else 1
        of_codecs[pair.first, pair.second] += -1 if swapped else 1
        return swapped

    images = sorted({pair.image for pair in known})
    plan = []
    for _ in range(count):
        order = draw.sample(known, len(known))
        order.sort(key=lambda pair: seen[pair])  # stable: random among those seen equally often
        chosen = order[:length]
        seen.update(chosen)
        sheet = [Trial(pair, pair.image, swap(pair)) for pair in chosen]
        # Half of the catch trials have the original on the left, one more or less.
        sides = [number % 2 == 0 for number in range(catch)]
        draw.shuffle(sides)
        if catch % 2 and draw.random() < 0.5:
            sides = [not side for side in sides]
        sheet += [Trial(None, draw.choice(images), side) for side in sides]
        draw.shuffle(sheet)
        plan.append(sheet)
    return plan


# The folder and the key

SPOILED = 16
"""A catch trial's copy has one pixel for so many along a side."""


@dataclass(frozen=True)
class Wanted:
    """How a study is made."""

    title: str
    question: str
    sheets: int
    trials: int | None
    """Pairs on a sheet; None is all of them."""
    catch: int
    ties: bool
    seed: int
    command: str
    """That makes the same study again."""


def write(chosen: Chosen, wanted: Wanted, folder: Path, key_path: Path) -> list[str]:
    """Write the folder and, outside of it, the key; returns lines that say how much there is.

    Raises:
        ConfigError: a folder that is not empty, a key inside it, or numbers that cannot be meant.
        StoreCorrupt: an image is not what the run says.
        StoreUnwritable: the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; a study is written into a new or empty folder")
    if folder.resolve() in [key_path.resolve(), *key_path.resolve().parents]:
        raise ConfigError(f"the key {key_path} must not lie in {folder}, which raters get")
    if key_path.exists():
        raise ConfigError(f"{key_path} is there already, and votes of an older study need it; --key names another")
    hashes = {place: row.reconstruction_sha256 for place, row in chosen.rows.items()}
    every = pairs(chosen.images, chosen.targets, chosen.codecs)
    unlike = [pair for pair in every if len({hashes[place] for place in pair.places}) == 2]
    if not unlike:
        raise MissingNeed("all reconstructions of each pair are alike: there is nothing to compare")
    plan = sheets(unlike, wanted.sheets, wanted.trials, wanted.catch, wanted.seed)
    files, names = _drawn_names(chosen.rows, plan, wanted.seed)
    _write_images(folder / "images", chosen, files)
    key = _key(chosen, wanted, plan, files, names)
    sheets_shown: list[list[dict[str, str]]] = [[] for _ in plan]
    for name, asked in key.trials.items():
        # The page knows of a trial its files, and nothing that tells a codec or a catch trial.
        shown = {"id": name, "original": files["original", asked.image], "left": asked.left, "right": asked.right}
        sheets_shown[asked.sheet - 1].append(shown)
    data = {"study": key.study, "ties": wanted.ties, "sheets": sheets_shown}
    write_file(folder / "index.html", _page(wanted, data))
    write_key(key_path, key)
    lines = [f"{len(chosen.images)} images, {len(unlike)} pairs, {len(plan)} sheets of {len(plan[0])}"]
    alike = len(every) - len(unlike)
    return [*lines, *([f"{alike} pairs are left out: both have the same pixels"] if alike else [])]


def _drawn_names(
    places: Iterable[Place], plan: Sequence[Sequence[Trial]], seed: int
) -> tuple[dict[Any, str], list[str]]:
    """Names whose order says nothing: of files, by what they hold, and of the trials in the plan's order."""
    draw = random.Random(f"names of {seed}")  # noqa: S311 (no secret: the page cannot know what a number stands for)
    subjects: list[Any] = [*places]
    subjects += [("original", image) for image in sorted({image for image, _, _ in places})]
    caught = sorted({trial.image for sheet in plan for trial in sheet if trial.catch})
    subjects += [(kind, image) for kind in ("copy", "spoiled") for image in caught]
    numbers = draw.sample(range(1, len(subjects) + 1), len(subjects))
    files = {subject: f"i{number:05d}.png" for subject, number in zip(subjects, numbers, strict=True)}
    count = sum(map(len, plan))
    return files, [f"t{number:05d}" for number in draw.sample(range(1, count + 1), count)]


def _write_images(folder: Path, chosen: Chosen, files: Mapping[Any, str]) -> None:
    """Images are written anew from their pixels, so that no file tells by its metadata where it comes from."""

    def put(subject: object, pixels: Image) -> None:
        pil.fromarray(pixels).save(folder / files[subject], format="PNG")

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, row in chosen.rows.items():
            put(place, reconstruction_of(chosen.runs[row.codec][0], row))
        for image, row in {image: row for (image, _, _), row in reversed(chosen.rows.items())}.items():
            pixels = original_of(chosen.runs[row.codec][0], row)
            put(("original", image), pixels)
            if ("copy", image) in files:
                put(("copy", image), pixels)
                put(("spoiled", image), spoiled(pixels))
    except OSError as error:
        raise unwritable(folder, error) from error


def spoiled(pixels: Image) -> Image:
    """A copy that nobody who looks takes for the original: one pixel for 16 x 16.

    >>> import numpy as np
    >>> ramp = np.linspace(0, 255, 64 * 48 * 3).reshape(64, 48, 3).astype(np.uint8)
    >>> spoiled(ramp).shape
    (64, 48, 3)
    """
    import numpy as np

    height, width = pixels.shape[:2]
    small = pil.fromarray(pixels).resize((max(1, width // SPOILED), max(1, height // SPOILED)), pil.Resampling.BOX)
    copy: Image = np.asarray(small.resize((width, height), pil.Resampling.BILINEAR))
    # Of an even image nothing is lost that way: such a copy is turned over in brightness.
    return np.uint8(255) - pixels if pixel_sha256(copy) == pixel_sha256(pixels) else copy


def _key(
    chosen: Chosen, wanted: Wanted, plan: Sequence[Sequence[Trial]], files: Mapping[Any, str], names: Sequence[str]
) -> Key:
    better = chosen.better
    shown: dict[str, ShownImage] = {}
    for place, row in chosen.rows.items():
        image, target, codec = place
        scores = {name: chosen.score(row, name) for name in better}
        shown[files[place]] = ShownImage(codec, target, row.setting.words, image, float(row.bpp or 0), scores)
    trials: dict[str, ShownTrial] = {}
    numbered = ((number, trial) for number, sheet in enumerate(plan, start=1) for trial in sheet)
    for name, (number, trial) in zip(names, numbered, strict=True):
        both = trial.pair.places if trial.pair else (("copy", trial.image), ("spoiled", trial.image))
        left, right = (files[subject] for subject in (reversed(both) if trial.swapped else both))
        catch = ("right" if trial.swapped else "left") if trial.catch else ""
        trials[name] = ShownTrial(number, trial.image, left, right, catch)
    key = Key(
        study="",
        title=wanted.title,
        command=wanted.command,
        seed=wanted.seed,
        dataset=chosen.where.dataset,
        protocol=chosen.where.protocol,
        ties=wanted.ties,
        codecs=chosen.codecs,
        targets=chosen.targets,
        better=better,
        shown=dict(sorted(shown.items())),
        trials=trials,
    )
    digests = [row.reconstruction_sha256 for row in chosen.rows.values()]
    return replace(key, study=hashlib.sha256(repr((key, digests)).encode()).hexdigest()[:16])


def _page(wanted: Wanted, data: Mapping[str, Any]) -> str:
    folder = Path(__file__).parent
    html, style, script = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    # The script is allowed by its hash: nothing that slipped through the escaping could run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # In a script element only "<" could end it; "&" and ">" are written the same way, to be sure.
    text = json.dumps(data, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    values = {"DIGEST": digest, "TITLE": escape(wanted.title), "QUESTION": escape(wanted.question)}
    values |= {"STYLE": style.strip(), "DATA": text, "SCRIPT": script}
    return re.sub(r"@([A-Z]+)@", lambda place: values[place[1]], html)  # in one pass: what was put in stays as it is
