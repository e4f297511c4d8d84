"""Captions in a JSON file: read strictly, and matched to the images of a set by name.

Three forms are read; where an image has several captions, the first conditions:

- ``{"kodim01.png": "a brick building", ...}``, as TACO publishes its captions;
- ``{"kodim01.png": ["a brick building", "a red door"], ...}``;
- COCO's annotations: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``.

White space around a caption is dropped: COCO has it by accident, and it would be paid for in bits.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rdpbench.datasets.contract import Sample
from rdpbench.errors import ConfigError, few
from rdpbench.image import EXTENSIONS

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
