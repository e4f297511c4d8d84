"""The axis ``captions=human,ofa,blip,blip2,file:PATH``: where the captions of a set come from, and JSON files of them.

========  ===========================================================================================
human     what the dataset brings: MS-COCO's first caption of five, say
ofa       OFA's captions that TACO published, for Kodak (24) and the test set of CLIC 2020 (428)
blip      BLIP large, run on this machine (`rdpbench.datasets.captioning`)
blip2     BLIP-2 with OPT 2.7b, as PerCo (SD) does, run on this machine
file:X    a JSON file of the user's own
========  ===========================================================================================

A caption is side information that only the encoder sees; its text is part of a task's key, so captions are known
before a run is planned. How a codec's tokenizer cuts it (TACO's takes 38 tokens) is the codec's matter.

Three forms of JSON are read, strictly; where an image has several captions, the first conditions:

- ``{"kodim01.png": "a brick building", ...}``, as TACO publishes its captions;
- ``{"kodim01.png": ["a brick building", "a red door"], ...}``;
- COCO's annotations: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``.

White space around a caption is dropped: COCO has it by accident, and it would be paid for in bits.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rdpbench.datasets.captioning import (
    CARDS,
    CaptionSettings,
    cached_captions,
    captioner_identity,
    describe,
    label,
    locate,
)
from rdpbench.datasets.contract import Sample
from rdpbench.datasets.index import Entry
from rdpbench.errors import ConfigError, MissingNeed, UnknownName, few
from rdpbench.image import EXTENSIONS
from rdpbench.paths import data_folders
from rdpbench.progress import Report

NAMES = ("human", "ofa", *CARDS)
"""The sources, but for ``file:PATH``."""


@dataclass(frozen=True)
class PublishedList:
    """A file of OFA's captions that TACO published in a repository without a licence, so that it does not ship.

    It is downloaded at a pinned commit, or found in ``$RDPBENCH_DATA/captions``, and must have the sha256.
    """

    file: str
    sha256: str
    size: int
    """In bytes."""
    captions: int

    @property
    def url(self) -> str:
        """Where it is, at the commit that its hash was computed at."""
        commit = "004f488977530b3e4a0e27bc1b07b2eb6670ceef"
        return f"https://raw.githubusercontent.com/effl-lab/TACO/{commit}/materials/{self.file}"

    def find(self) -> Path | None:
        """The file on this machine."""
        return next((path for folder in data_folders("captions") if (path := folder / self.file).is_file()), None)

    def read(self) -> bytes:
        """Its bytes, downloaded if it is not here."""
        path = self.find()
        if path is None:
            from rdpbench.assets.download import download

            path = data_folders("captions")[-1] / self.file
            download(self.url, path, sha256=self.sha256, size=self.size, hint=self.how_to_get())
        raw = path.read_bytes()
        if (sha256 := hashlib.sha256(raw).hexdigest()) != self.sha256:
            raise MissingNeed(
                f"{path} is not the list that TACO published: sha256 {sha256}, expected {self.sha256}; remove it\n"
                f"{self.how_to_get()}"
            )
        return raw

    def how_to_get(self) -> str:
        """Lines that say where it is and where to put it."""
        return "\n".join(
            [
                f"the OFA captions {self.file} are not here ({self.captions} captions)",
                f"  from     {self.url}",
                f"  size     {self.size} bytes",
                "  licence  none is stated, so they do not ship with rdpbench",
                f"  put it   at {data_folders('captions')[-1] / self.file}",
                "           or into a folder 'captions' below the one that RDPBENCH_DATA names",
            ]
        )


OFA = {
    "kodak": PublishedList(
        "kodak_ofa.json", "31c1757490e7a5a1400656374beea38705525c89d3292cc6bd7f9f370ef93a63", 1_553, 24
    ),
    "clic2020": PublishedList(
        "clic_ofa.json", "e629a6f74a6b85c0850fb6f6dd956f0e32b076ebf18aed4394e2b2b625cee9a5", 39_415, 428
    ),
}
"""TACO's lists, by the dataset name or what it begins with (the parts of CLIC 2020 share one list).

One caption of Kodak's (kodim17) holds two U+FFFD: it is kept as it was published.

>>> OFA["clic2020"].captions
428
"""


@dataclass(frozen=True)
class CaptionSource:
    """One value of the ``captions=`` axis."""

    kind: str
    path: str = ""
    """Of ``file:PATH``."""
    sha256: str = ""
    """Of that file's bytes."""

    @property
    def name(self) -> str:
        """The source in a row; a file also by its content, as two files may have one name.

        >>> CaptionSource("file", "lists/names.json", "31c1757490e7a5a1").name
        'file:names.json@31c1757490e7'
        """
        return f"file:{Path(self.path).name}@{self.sha256[:12]}" if self.kind == "file" else self.kind


@dataclass(frozen=True)
class Caption:
    """The caption of one image, and where it is from."""

    text: str
    seconds: float | None
    """Of making it; None where that is not known. Counts as encode time of a codec that needs the caption."""
    source: str
    """For a row: the source's name, with what of a model's settings is not the default."""
    identity: str
    """What vouches for it: a file's sha256, or a model with revision and settings, as JSON."""
    made_on: str = ""
    """Device and threads that the seconds are of."""


@dataclass(frozen=True)
class Captions:
    """The captions of a set, by image id."""

    by_id: Mapping[str, Caption]
    notes: tuple[str, ...] = ()
    """For the user: names in a file that are no image of the set."""


@dataclass(frozen=True)
class Survey:
    """What a source would cost; nothing is made or downloaded to know it."""

    to_make: int = 0
    """Captions that a model has yet to make: the keys of these tasks are not known before."""
    lacks: str | None = None
    """What is missing on this machine and how to get it; None if nothing is."""


def parse(text: str) -> CaptionSource:
    """A caption source from what the user wrote.

    Raises:
        UnknownName: none of the sources; the nearest one is suggested.
        ConfigError: ``file:`` without a file that can be read.

    >>> parse("blip2").name
    'blip2'
    """
    kind, colon, path = text.partition(":")
    if kind == "file" and colon:
        return CaptionSource("file", path, hashlib.sha256(_bytes_of(path)).hexdigest())
    if text not in NAMES:
        hint = f"a JSON file of captions: captions=file:{text if text.endswith('.json') else 'PATH'}"
        raise UnknownName("caption source", text, [*NAMES, "file:PATH"], hint)
    return CaptionSource(text)


def captions_of(
    source: CaptionSource,
    entries: Sequence[Entry],
    *,
    dataset: str,
    protocol: str,
    settings: CaptionSettings | None = None,
    progress: Report | None = None,
) -> Captions:
    """The caption of each image; downloads a published list, and runs a model for images that it has not seen yet.

    ``protocol`` and ``settings`` (by default the pinned revision, fp32 and the CPU) are for models; ``progress`` is
    called with the captions that are made and all that are to be made.

    Raises:
        ConfigError: images without a caption, counted; or a file that cannot be read.
        MissingNeed: a list or model that is not here and cannot be downloaded; says how to get it.
    """
    if source.kind == "human":
        return Captions(_human(entries, dataset))
    if source.kind in CARDS:
        card, settings = CARDS[source.kind], settings or CaptionSettings()
        captions = describe(card, entries, protocol, settings, progress)
        shown, made_by = label(card, settings), captioner_identity(card, settings)
        return Captions(
            {
                entry.sample.id: Caption(caption.text, caption.seconds, shown, made_by, caption.made_on)
                for entry in entries
                for caption in [captions[entry.sha256]]
            }
        )
    if source.kind == "ofa":
        raw, what = _ofa_list(dataset).read(), f"OFA's list for {dataset!r}"
    else:
        raw, what = _bytes_of(source.path), source.path
        if hashlib.sha256(raw).hexdigest() != source.sha256:
            raise ConfigError(f"{source.path} has changed since this command began")
    listed = read_captions(raw, what)
    names = match(listed, [entry.sample for entry in entries], what, dataset)
    sha256 = hashlib.sha256(raw).hexdigest()
    unused = len(listed) - len(names)
    notes = (f"{what}: {unused} of {len(listed)} captions are not used",) if unused and source.kind == "file" else ()
    return Captions({id_: Caption(listed[name], None, source.name, sha256) for id_, name in names.items()}, notes)


def survey(
    source: CaptionSource, entries: Sequence[Entry], *, dataset: str, settings: CaptionSettings | None = None
) -> Survey:
    """What `captions_of` would have to do. Loads no model.

    Raises:
        ConfigError: a source that this dataset cannot have.

    >>> survey(parse("human"), [], dataset="kodak").to_make
    0
    """
    if source.kind == "ofa":
        published = _ofa_list(dataset)
        return Survey(lacks=None if published.find() else published.how_to_get())
    if source.kind not in CARDS:
        return Survey()
    card, settings = CARDS[source.kind], settings or CaptionSettings()
    pixels = {entry.sha256 for entry in entries}
    to_make = len(pixels) - len(cached_captions(pixels, captioner_identity(card, settings)))
    try:
        if to_make:
            locate(card, settings)
    except MissingNeed as error:
        return Survey(to_make, f"{to_make} of {len(pixels)} images have no caption yet; {error}")
    return Survey(to_make)


def _human(entries: Sequence[Entry], dataset: str) -> dict[str, Caption]:
    texts = {entry.sample.id: (entry.sample.caption or "").strip() for entry in entries}
    if without := [id_ for id_, text in texts.items() if not text]:
        shown = ", ".join(without[:3])
        raise ConfigError(
            f"captions=human: {len(without)} of {len(texts)} images of {dataset!r} have no caption of people's "
            f"({shown} ...). The MS-COCO sets bring theirs; for others name a file, captions=file:PATH, or let a model "
            "make them, captions=blip2"
        )
    return {id_: Caption(text, None, "human", "human") for id_, text in texts.items()}


def _ofa_list(dataset: str) -> PublishedList:
    for begin, published in OFA.items():
        if dataset == begin or dataset.startswith(f"{begin}-"):
            return published
    raise ConfigError(
        f"captions=ofa: TACO published captions of OFA for {' and '.join(OFA)} only, not for {dataset!r}; "
        "name a file, captions=file:PATH, or let a model make them, captions=blip2"
    )


def _bytes_of(path: str) -> bytes:
    if not path:
        raise ConfigError("which file? Write captions=file:/path/to/captions.json")
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}, named by captions=file:{path}: {error.strerror}") from error


# A JSON file of captions


_FORMS = 'write {"image name": "caption"}, {"image name": ["caption", ...]} or the annotations format of COCO'
# UTF-32 before UTF-16: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF8: "UTF-8 with a byte order mark",
}


def read_captions(raw: bytes, what: str) -> dict[str, str]:
    """The first caption of each name, in the file's order; ``what`` names the file in messages.

    Raises:
        ConfigError: no UTF-8 without a byte order mark, broken JSON, a name twice, or a caption that is no text or
            empty; counted, with the first few named.

    >>> len(read_captions(b'{"a.png": "a red door", "b.png": ["a barn ", "a pond"]}', "names.json")["b.png"])
    6
    """
    return {name: captions[0] for name, captions in _read(raw, what, 1).items()}


def read_references(raw: bytes, what: str) -> dict[str, tuple[str, ...]]:
    """All captions of each name, in the file's order. Arguments and errors as for `read_captions`.

    >>> read_references(b'{"a.png": "a red door", "b.png": ["a barn ", "a pond"]}', "names.json")["b.png"]
    ('a barn', 'a pond')
    """
    return _read(raw, what, None)


def _read(raw: bytes, what: str, most: int | None) -> dict[str, tuple[str, ...]]:
    """The first ``most`` captions of each name; only what is read is looked at."""
    loaded = _load(raw, what)
    if not isinstance(loaded, dict):
        raise ConfigError(f"{what} holds a JSON {type(loaded).__name__}; {_FORMS}")
    is_coco = all(_is_records(loaded.get(key)) for key in ("images", "annotations"))
    listed = _from_coco(loaded, what) if is_coco else loaded
    if not listed:
        raise ConfigError(f"{what} holds no captions; {_FORMS}")
    captions = {name: given[:most] if isinstance(given, list) else [given] for name, given in listed.items()}
    wrong = [f"{name!r}: {why}" for name, texts in captions.items() if (why := _fault(name, texts))]
    if wrong:
        raise ConfigError(f"{what}: {len(wrong)} of {len(listed)} captions cannot be used: {few(wrong)}; {_FORMS}")
    return {name: tuple(text.strip() for text in texts) for name, texts in captions.items()}


def match(
    captions: Mapping[str, object], samples: Sequence[Sample], what: str, dataset: str, *, partial: bool = False
) -> dict[str, str]:
    """The name in ``captions`` of each sample, by the sample's id.

    A name is the image's id or file name, with or without its ending; below folders the path counts before the bare
    file name. With ``partial``, images may be without a caption, but not all.

    Raises:
        ConfigError: images without a caption, an image under two names, or a name that stands for two images.

    >>> from pathlib import Path
    >>> match({"kodim01.png": "a brick building"}, [Sample("kodim01", Path("kodim01.png"))], "names.json", "kodak")
    {'kodim01': 'kodim01.png'}
    """
    by_bare: dict[str, list[str]] = defaultdict(list)
    for name in captions:
        by_bare[_bare(name)].append(name)
    names: dict[str, str] = {}
    missing: list[str] = []
    for sample in samples:
        hits = _hits(captions, by_bare, sample)
        if len(hits) > 1:
            raise ConfigError(f"{what} names the image {sample.id!r} {len(hits)} times: {few(map(repr, hits))}")
        if hits:
            names[sample.id] = hits[0]
        else:
            missing.append(sample.path.name)
    if missing and not (partial and names):
        raise ConfigError(
            f"{what} has no caption for {len(missing)} of {len(samples)} images of {dataset!r}: {few(missing)}; "
            f"it names {len(captions)}, such as {few(list(captions)[:2])}"
        )
    for name, times in Counter(names.values()).items():
        if times > 1:
            ids = few(id_ for id_, its_name in names.items() if its_name == name)
            raise ConfigError(f"{what}: the name {name!r} stands for {times} images of {dataset!r}: {ids}")
    return names


def _hits(captions: Mapping[str, object], by_bare: Mapping[str, list[str]], sample: Sample) -> list[str]:
    """The names that mean this image, by the first rule that finds any."""
    suffix, name = sample.path.suffix, sample.path.name
    for exact, bare in (({sample.id, sample.id + suffix}, sample.id), ({name, sample.path.stem}, sample.path.stem)):
        if hits := sorted(exact & captions.keys()) or by_bare.get(bare, []):
            return hits
    return []


def _bare(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in EXTENSIONS else name


def _load(raw: bytes, what: str) -> Any:
    for mark, encoding in _MARKS.items():
        if raw.startswith(mark):
            raise ConfigError(f"{what} is {encoding}; save it as UTF-8 without a byte order mark")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{what} is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}; save it as UTF-8"
        ) from error

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # JSON parsers keep the last of two equal names without a word.
        if twice := [repr(name) for name, times in Counter(name for name, _ in pairs).items() if times > 1]:
            raise ConfigError(f"{what} has {len(twice)} names more than once: {few(twice)}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # nesting without end, a number of thousands of digits
        raise ConfigError(f"{what} cannot be read as captions: {error}; {_FORMS}") from error


def _fault(name: str, texts: Sequence[object]) -> str:
    """Why the captions of a name cannot be used; empty if they can."""
    if not texts:
        return "an empty list"
    for text, where in [*((text, "") for text in texts), (name, "its name has ")]:
        if not isinstance(text, str):
            return f"a JSON {type(text).__name__}, not a text"
        if not text.strip() and not where:
            return "an empty text"
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            return f"{where}half of a surrogate pair, which is no character"
    return ""


def _is_records(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(record, dict) for record in given)


def _from_coco(loaded: Mapping[str, Any], what: str) -> dict[str, list[Any]]:
    """Captions by file name, in the file's order, which is the order that COCO's own tool gives."""
    names: dict[object, str] = {}
    for image in loaded["images"]:
        number, name = image.get("id"), image.get("file_name")
        if not isinstance(number, int | str) or not isinstance(name, str):
            raise ConfigError(f"{what}: an entry of 'images' lacks 'id' or 'file_name': {str(image)[:80]}")
        if number in names:
            raise ConfigError(f"{what} has the image id {number!r} twice")
        names[number] = name
    if len(set(names.values())) != len(names):
        raise ConfigError(f"{what} has {len(names) - len(set(names.values()))} file names more than once")
    listed: dict[str, list[Any]] = defaultdict(list)
    for annotation in loaded["annotations"]:
        number = annotation.get("image_id")
        if not isinstance(number, int | str) or number not in names:
            raise ConfigError(f"{what}: an annotation is of the image {number!r}, which 'images' does not list")
        if "caption" not in annotation:
            raise ConfigError(f"{what}: annotations without 'caption'; take captions_*.json, not instances_*.json")
        listed[names[number]].append(annotation["caption"])
    return dict(listed)
