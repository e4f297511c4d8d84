"""The folder that raters open in a browser, and the key that stays behind.

::

    FOLDER/index.html       the voting page: opens from the file system, loads nothing else, sends nothing
    FOLDER/images/          originals and reconstructions under drawn numbers
    FOLDER-key.json         what each name means; votes are nothing without it

Images are written anew from their pixels, so that no file tells by its metadata where it comes from.

Which pairs a rater sees, in which order, and which of the two is on the left: seeded and balanced.

A sheet is what one rater does in one sitting. Over all sheets each pair is seen equally often (differences of one), and
within a sheet the pairs that are rarest so far come first. Each pair of codecs has each of its two on the left equally
often. Catch trials show the original itself beside a spoiled copy: who misses these was not looking.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.figures.examples import original_of, reconstruction_of
from rdpbench.image import Image, pixel_sha256
from rdpbench.paths import unwritable, write_file
from rdpbench.study.stimuli import Chosen, Stimulus
from rdpbench.study.votes import Asked, Key, Shown, write_key


@dataclass(frozen=True)
class Pair:
    """Two reconstructions of one image at one rate; codecs are in the order of the study."""

    image: str
    target: float
    """Bits per pixel that both were matched to."""
    first: str
    second: str


@dataclass(frozen=True)
class Trial:
    """One question: a pair or, with ``catch``, the original and a spoiled copy of it."""

    pair: Pair | None
    image: str
    swapped: bool
    """Is the first of the pair, or the original of a catch trial, on the right?"""

    @property
    def catch(self) -> bool:
        return self.pair is None


def pairs(images: Sequence[str], targets: Sequence[float], codecs: Sequence[str]) -> list[Pair]:
    """All pairs of codecs on all images at all rates.

    >>> len(pairs(["a", "b"], [0.1], ["x", "y", "z"]))
    6
    """
    of = itertools.product(images, targets, itertools.combinations(codecs, 2))
    return [Pair(image, target, first, second) for image, target, (first, second) in of]


def sheets(known: Sequence[Pair], count: int, length: int | None, catch: int, seed: int) -> list[list[Trial]]:
    """``count`` sheets of ``length`` pairs (None: all of them) and ``catch`` catch trials each, in the order shown.

    Raises:
        ConfigError: a number that cannot be meant.

    >>> made = sheets(pairs(["a", "b"], [0.1], ["x", "y", "z"]), count=4, length=3, catch=1, seed=0)
    >>> len(made), len(made[0])
    (4, 4)
    """
    length = len(known) if length is None else length
    if not known or count < 1 or catch < 0 or not 1 <= length <= len(known):
        raise ConfigError(
            f"{count} sheets of {length} trials and {catch} catch trials cannot be made of {len(known)} pairs: "
            "a sheet has at least one, and none twice"
        )
    draw = random.Random(seed)  # noqa: S311 (an order, no secret)
    seen: Counter[Pair] = Counter()
    left: Counter[tuple[str, str]] = Counter()
    shown: Counter[Pair] = Counter()
    images = sorted({pair.image for pair in known})
    out = []
    for _ in range(count):
        order = draw.sample(known, len(known))
        order.sort(key=lambda pair: seen[pair])  # stable: random among those seen equally often
        chosen = order[:length]
        seen.update(chosen)
        sheet = [Trial(pair, pair.image, _swap(pair, left, shown, draw)) for pair in chosen]
        # Half of the catch trials have the original on the left, one more or less.
        sides = [number % 2 == 0 for number in range(catch)]
        draw.shuffle(sides)
        if catch % 2 and draw.random() < 0.5:
            sides = [not side for side in sides]
        sheet += [Trial(None, draw.choice(images), side) for side in sides]
        draw.shuffle(sheet)
        out.append(sheet)
    return out


def _swap(pair: Pair, left: Counter[tuple[str, str]], shown: Counter[Pair], draw: random.Random) -> bool:
    """Put that codec on the left which was there less often: of this very pair, else of these two codecs, else drawn.

    Counters hold how often the first was on the left less how often the second was.
    """
    codecs = (pair.first, pair.second)
    lead = shown[pair] or left[codecs]
    swapped = lead > 0 if lead else draw.random() < 0.5
    for counter, key in ((shown, pair), (left, codecs)):
        counter[key] += -1 if swapped else 1  # type: ignore[index]  # a counter and its own kind of key
    return swapped


SPOILED = 16
"""A catch trial's copy has one pixel for so many along a side."""
QUESTION = "Which copy is closer to the original?"


@dataclass(frozen=True)
class Wanted:
    """How a study is made."""

    title: str = "Which image is closer?"
    question: str = QUESTION
    sheets: int = 8
    trials: int | None = None
    """Pairs on a sheet; None is all of them."""
    catch: int = 4
    ties: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """What was written."""

    page: Path
    key: Path
    sheets: int
    trials: int
    """On a sheet, catch trials included."""
    pairs: int
    alike: int
    """Pairs that were left out: both reconstructions have the same pixels."""


def write(chosen: Chosen, wanted: Wanted, folder: Path, key_path: Path, command: str) -> Made:
    """Write the folder and, outside of it, the key.

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
    known = {(one.row.image, one.target, one.row.codec): one for one in chosen.stimuli}
    every = pairs(chosen.images, chosen.targets, chosen.codecs)
    unlike = [pair for pair in every if len({_sha256(known, pair, name) for name in (pair.first, pair.second)}) == 2]
    if not unlike:
        raise MissingNeed("all reconstructions of each pair are alike: there is nothing to compare")
    plan = sheets(unlike, wanted.sheets, wanted.trials, wanted.catch, wanted.seed)
    names = _Names(known, plan, wanted.seed)
    _write_images(folder / "images", names)
    key = _key(chosen, wanted, plan, names, command)
    data = {
        "study": key.study,
        "ties": wanted.ties,
        "sheets": [[_shown(key, name, names) for name in of] for of in names.trials],
    }
    write_file(folder / "index.html", _page(wanted, data))
    write_key(key_path, key)
    return Made(folder / "index.html", key_path, len(plan), len(plan[0]), len(unlike), len(every) - len(unlike))


def _sha256(known: Mapping[tuple[str, float, str], Stimulus], pair: Pair, codec: str) -> str:
    return known[pair.image, pair.target, codec].row.reconstruction_sha256


class _Names:
    """Drawn names of images and trials: their order says nothing."""

    def __init__(self, known: Mapping[tuple[str, float, str], Stimulus], plan: list[list[Trial]], seed: int) -> None:
        draw = random.Random(f"names of {seed}")  # noqa: S311 (no secret: the page cannot know what a number stands for)
        images = sorted({image for image, _, _ in known})
        caught = sorted({trial.image for sheet in plan for trial in sheet if trial.catch})
        subjects: list[Any] = [*known, *(("original", one) for one in images)]
        subjects += [(kind, one) for kind in ("copy", "spoiled") for one in caught]
        numbers = draw.sample(range(1, len(subjects) + 1), len(subjects))
        self.known = known
        self.images = images
        self.caught = caught
        self.files: dict[Any, str] = {
            subject: f"i{number:05d}.png" for subject, number in zip(subjects, numbers, strict=True)
        }
        count = sum(map(len, plan))
        drawn = iter(draw.sample(range(1, count + 1), count))
        self.trials = [[f"t{next(drawn):05d}" for _ in sheet] for sheet in plan]

    def sides(self, trial: Trial) -> tuple[str, str]:
        """Files on the left and on the right."""
        if trial.pair is None:
            of = [self.files["copy", trial.image], self.files["spoiled", trial.image]]
        else:
            pair = trial.pair
            of = [self.files[pair.image, pair.target, codec] for codec in (pair.first, pair.second)]
        left, right = reversed(of) if trial.swapped else of
        return left, right


def _write_images(folder: Path, names: _Names) -> None:
    from PIL import Image as pil

    def put(name: str, pixels: Image) -> None:
        pil.fromarray(pixels).save(folder / name, format="PNG")

    try:
        folder.mkdir(parents=True, exist_ok=True)
        done: set[str] = set()
        for (image, target, codec), one in names.known.items():
            put(names.files[image, target, codec], reconstruction_of(one.store, one.row))
            if image not in done:
                done.add(image)
                pixels = original_of(one.row)
                put(names.files["original", image], pixels)
                if image in names.caught:
                    put(names.files["copy", image], pixels)
                    put(names.files["spoiled", image], spoiled(pixels))
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
    from PIL import Image as pil

    height, width = pixels.shape[:2]
    small = pil.fromarray(pixels).resize((max(1, width // SPOILED), max(1, height // SPOILED)), pil.Resampling.BOX)
    made: Image = np.asarray(small.resize((width, height), pil.Resampling.BILINEAR))
    # Of an even image nothing is lost that way: such a copy is turned over in brightness.
    if pixel_sha256(made) == pixel_sha256(pixels):
        made = np.uint8(255) - pixels
    return made


def _key(chosen: Chosen, wanted: Wanted, plan: Sequence[Sequence[Trial]], names: _Names, command: str) -> Key:
    shown = {
        names.files[place]: Shown(
            one.row.codec,
            one.target,
            one.setting,
            one.row.image,
            float(one.row.bpp or 0),
            {name: one.scores[name] for name in chosen.better},
        )
        for place, one in names.known.items()
    }
    trials: dict[str, Asked] = {}
    for number, (sheet, labels) in enumerate(zip(plan, names.trials, strict=True), start=1):
        for trial, label in zip(sheet, labels, strict=True):
            left, right = names.sides(trial)
            catch = ("right" if trial.swapped else "left") if trial.catch else ""
            trials[label] = Asked(number, trial.image, left, right, catch)
    key = Key(
        study="",
        title=wanted.title,
        command=command,
        seed=wanted.seed,
        dataset=chosen.dataset,
        protocol=chosen.protocol,
        ties=wanted.ties,
        codecs=chosen.codecs,
        targets=chosen.targets,
        better=chosen.better,
        shown=dict(sorted(shown.items())),
        trials=trials,
    )
    digests = [names.known[place].row.reconstruction_sha256 for place in names.known]
    digest = hashlib.sha256(repr((key, digests)).encode()).hexdigest()
    return replace(key, study=digest[:16])


def _shown(key: Key, trial: str, names: _Names) -> dict[str, str]:
    """What the page knows of a trial: files, and nothing that tells a codec or a catch trial."""
    one = key.trials[trial]
    return {"id": trial, "original": names.files["original", one.image], "left": one.left, "right": one.right}


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
