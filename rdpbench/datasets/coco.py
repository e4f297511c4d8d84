"""MS-COCO: val2014, val2017, and the three sets that papers call "MS-COCO 30k", each under its own name.

================  ======  =============  =======================================================================
set               images  protocol       is
================  ======  =============  =======================================================================
coco-30k-taco     30,504  taco-256       Karpathy's restval of val2014, as TACO lists it
coco-30k-perco    30,000  perco-512      a published uniform draw from train2017: PerCo, PerCo (SD)
coco-30k-dalle    30,000  dalle-256      val2014, multi-realism and HFD; they published no list: this one is ours
coco-val2014      40,504  as-is          all of val2014
coco-val2017       5,000  as-is          all of val2017
coco-100             100  as-is          ours, drawn from restval: latency and caption tables
================  ======  =============  =======================================================================

Beside the images, where they are here or asked for with ``rdpbench data fetch NAME --with captions,labels``:

- Captions: the ``conditions``-th of an image's five or more is the one that an encoder sees, the others are what
  metrics score against. ``captions=auto`` takes them where the annotations lie; ``human`` refuses to go on without,
  ``karpathy`` takes those of his file, whose order differs, and ``none`` gives none.
- Label maps: ``labels=stuff`` (COCO-Stuff, 171 classes) or ``labels=panoptic`` (133 classes), made from the publishers'
  PNGs and kept in the cache (`rdpbench.datasets.labels`).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from filelock import FileLock

from rdpbench.assets.hashes import file_facts, file_states
from rdpbench.datasets.contract import Sample
from rdpbench.datasets.fetching import OfficialArchive, megabytes
from rdpbench.datasets.index import ahead
from rdpbench.datasets.manifest import differences
from rdpbench.datasets.official import Official, Release, Unpacked, archives_of, releases_of
from rdpbench.errors import ConfigError, ImageError, MissingNeed, few
from rdpbench.paths import cache_folder, data_folders, written_whole

_ARCHIVES = archives_of("coco")
CAPTIONS_2014, CAPTIONS_2017 = _ARCHIVES["annotations-2014"], _ARCHIVES["annotations-2017"]
KARPATHY = _ARCHIVES["annotations-karpathy"]
STUFF, PANOPTIC = _ARCHIVES["stuffthingmaps"], _ARCHIVES["annotations-panoptic"]


@dataclass(frozen=True)
class COCO(Official):
    """Sets of MS-COCO; ``split`` is ``30k-taco``, ``30k-perco``, ``30k-dalle``, ``val2014``, ``val2017`` or ``100``.

    >>> len(COCO("30k-taco"))
    30504
    """

    RELEASES: ClassVar[Mapping[str, Release]] = releases_of("coco")

    captions: str = "auto"
    conditions: int = 0
    """Which of an image's captions an encoder sees; metrics score against the others."""
    labels: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, given, known in (
            ("captions", self.captions, ("auto", "human", "karpathy", "none")),
            ("labels", self.labels, ("none", "stuff", "panoptic")),
        ):
            if given not in known:
                raise ConfigError(f"{self.name}: {what}={given!r} is none of {', '.join(known)}")
        if not 0 <= self.conditions < 5:
            raise ConfigError(f"{self.name}: conditions={self.conditions}; an image has five captions, 0 to 4")

    def samples(self) -> Iterator[Sample]:
        """In the order of names; `MissingNeed` also for captions or label maps that were asked for and are not here."""
        files = self._files()
        with ExitStack() as opened:
            annotations = opened.enter_context(self._captions(list(files)))
            maps: Iterator[Path | None] = repeat(None, len(files))
            if self.labels != "none":
                maps = opened.enter_context(self._label_maps(list(files)))
            for (name, folder), labels in zip(files.items(), maps, strict=True):
                texts = list(annotations.captions(image_number(name))) if annotations else []
                caption = texts.pop(self.conditions) if len(texts) > self.conditions else None
                references = tuple(texts) if caption is not None else ()
                yield replace(self._sample(name, folder), caption=caption, references=references, labels=labels)

    def beside_missing(self, what: str) -> str:
        """How to get ``captions`` or ``labels``, by command and by hand."""
        archive = self._archive_beside(what)
        what = self.labels if what == "labels" and self.labels != "none" else what
        options = {"labels": "panoptic (or stuff)", "stuff": "stuff", "panoptic": "panoptic"}
        asks = what in options and what != self.labels
        ask = f" and data.options.labels={options[what]} asks for them" if asks else ""
        return (
            f"type `rdpbench data fetch {self.name} --with {what}`{ask}; by hand: {archive.url} "
            f"({megabytes(archive.bytes)}, CC BY 4.0), unpacked into {data_folders('coco')[-1] / archive.folder} or "
            "beside the images"
        )

    def fetch(self, beside: Sequence[str] = ()) -> None:
        """Download, verify, unpack and record the images, and what lies beside them: ``captions``, ``labels``."""
        archives = {what: self._archive_beside(what) for what in beside}
        super().fetch()
        home = data_folders("coco")[-1]
        for what, archive in archives.items():
            archive.fetch(home, self.source, self.beside_missing(what))
            for split in ("train2017", "val2017") if archive is PANOPTIC else ():  # archives in an archive
                file, folder = home / archive.folder / f"panoptic_{split}.zip", f"panoptic_{split}"
                inner = OfficialArchive(file.as_uri(), folder, r"\d{12}\.png", growth=4)
                if file.is_file() and not inner.record(home / folder):
                    inner.unpack(file, home / folder)

    def verify(self) -> list[str]:
        """Read every byte again, also of the annotations and label maps that were unpacked here."""
        lines = super().verify()
        for home in data_folders("coco"):
            for archive in (CAPTIONS_2014, CAPTIONS_2017, KARPATHY, STUFF, PANOPTIC):
                if record := archive.record(home / archive.folder):
                    lines += differences({home / archive.folder / name: sha for name, sha in record.files.items()})
        return lines

    # Beside the images

    @property
    def _images(self) -> str:
        return self.release.archives[0].folder

    @property
    def _captions_archive(self) -> OfficialArchive:
        return CAPTIONS_2014 if self._images.endswith("2014") else CAPTIONS_2017

    def _archive_beside(self, what: str) -> OfficialArchive:
        """The archive of ``captions`` or ``labels``."""
        if what == "captions":
            return KARPATHY if self.captions == "karpathy" else self._captions_archive
        if what not in ("labels", "stuff", "panoptic"):
            raise ConfigError(
                f"{what!r} does not come with COCO's images; what does: captions, labels, stuff, panoptic"
            )
        return STUFF if (self.labels if what == "labels" else what) == "stuff" else PANOPTIC

    def _roots(self) -> list[Path]:
        """Where annotations may lie: with the images, one folder up, and where downloads go."""
        given = [Path(self.path).expanduser().absolute()] if self.path else []
        return [*given, *(path.parent for path in given), *data_folders("coco")]

    def _annotation_file(self, file: str, archive: OfficialArchive) -> Path | None:
        places = (root / folder / file for root in self._roots() for folder in (".", "annotations", archive.folder))
        return next((place for place in places if place.is_file()), None)

    @contextmanager
    def _captions(self, names: Sequence[str]) -> Iterator[Annotations | None]:
        file = "dataset_coco.json" if self.captions == "karpathy" else f"captions_{self._images}.json"
        path = self._annotation_file(file, self._archive_beside("captions"))
        if path is None or self.captions == "none":
            if self.captions in ("human", "karpathy"):
                raise MissingNeed(
                    f"{self.name}: captions={self.captions} are not here\n{self.beside_missing('captions')}"
                )
            yield None
            return
        with closing(Annotations(path)) as annotations:
            if self.captions != "auto":
                without = [name for name in names if not annotations.captions(image_number(name))]
                self._refuse_lacking("captions", without, len(names))
            yield annotations

    @contextmanager
    def _label_maps(self, names: Sequence[str]) -> Iterator[Iterator[Path | None]]:
        """The label map of each image, in order: made from the publishers' PNGs ahead of the consumer."""
        pngs = [self._label_png(image_number(name)) for name in names]
        without = [name for name, png in zip(names, pngs, strict=True) if png is None]
        self._refuse_lacking("labels", without, len(names))
        with ExitStack() as opened:
            tables = []
            if self.labels == "panoptic":
                files = (self._annotation_file(f"panoptic_{split}.json", PANOPTIC) for split in _SPLITS)
                tables = [opened.enter_context(closing(Annotations(file))) for file in files if file]
            work = (
                (png, _segments(tables, image_number(name)) if png and self.labels == "panoptic" else None)
                for name, png in zip(names, pngs, strict=True)
            )
            yield opened.enter_context(
                ahead(work, lambda item: _map_of_classes(*item), depth=64, threads=os.cpu_count() or 1)
            )

    def _label_png(self, image: int) -> Path | None:
        # Images of val2014 are spread over both splits of 2017, and keep their number.
        folders = {"stuff": ["stuffthingmaps/{}", "stuffthingmaps_trainval2017/{}"], "panoptic": ["panoptic_{}"]}
        below = [*folders[self.labels], *(f"annotations/{folder}" for folder in folders[self.labels])]
        places = (root / folder.format(split) for root in self._roots() for folder in below for split in _SPLITS)
        return next((path for place in places if (path := place / f"{image:012d}.png").is_file()), None)

    def _refuse_lacking(self, what: str, names: Sequence[str], whole: int) -> None:
        if names and (not self.allow_partial or len(names) == whole):
            raise MissingNeed(
                f"{self.name}: {len(names)} images have no {what}: {few(names)}\n{self.beside_missing(what)}"
            )

    # Which images

    def _wrong_sizes(self, files: Mapping[str, Unpacked], *, whole: bool) -> str:
        """Where annotations are here, the sizes that they state are what the images must have."""
        if why := super()._wrong_sizes(files, whole=whole):
            return why
        path = self._annotation_file(f"captions_{self._images}.json", self._captions_archive)
        if path is None or not (paths := self._unrecorded(files)):
            return ""
        with closing(Annotations(path)) as annotations:
            for image, facts in file_facts(paths):
                stated = annotations.size(image_number(image.name))
                if stated is None:
                    return f"{image.name} is not among the images of {path}"
                if stated != (facts.height, facts.width):
                    height, width = stated
                    return f"{image.name} is {facts.width} x {facts.height}, and {path.name} states {width} x {height}"
        return ""

    def _choose(self, files: Mapping[str, Unpacked]) -> tuple[list[str], int]:
        drawn = self.release.drawn
        if drawn is None:
            return super()._choose(files)
        places = {name: drawn.place(name) for name in files}
        candidates = sorted((name for name in files if places[name] <= drawn.last_stand_in), key=places.__getitem__)
        lacking = len(self) + drawn.stand_ins - len(candidates)
        if lacking:  # which stand-ins would be needed cannot be told
            candidates = [name for name in candidates if places[name] <= drawn.last]
        facts = file_facts(files[name].path / name for name in candidates)
        large = [path.name for path, fact in facts if min(fact.height, fact.width) >= drawn.short_side]
        return sorted(large[: len(self)]), lacking


Segments: TypeAlias = tuple[Mapping[str, int], ...]
"""Of each segment its ``id`` in the PNG and its ``category_id``."""

_SPLITS = ("val2017", "train2017")
_MAPPING = 1
"""Raised when the conversion of label maps changes."""
_FORMAT = 1
"""Raised when the tables of annotations change."""


def image_number(name: str) -> int:
    """COCO's image id in a file name.

    >>> image_number("COCO_val2014_000000000073.jpg")
    73
    """
    return int(Path(name).stem.rpartition("_")[2])


def _segments(tables: Sequence[Annotations], image: int) -> Segments:
    for table in tables:
        if (segments := table.segments(image)) is not None:
            return segments
    names = " and ".join(table.path.name for table in tables) or "panoptic_val2017.json, which is not here,"
    raise ImageError(f"image {image} has a panoptic PNG, but {names} does not say what its segments are")


def _map_of_classes(png: Path | None, segments: Segments | None) -> Path | None:
    """The map of classes of a publisher's PNG, in the cache; of COCO-Stuff without segments."""
    if png is None:
        return None
    kind = "stuff" if segments is None else "panoptic"
    key = hashlib.sha256(repr((_MAPPING, *file_states([png]), segments or ())).encode()).hexdigest()
    target = cache_folder() / "labels" / kind / f"{png.stem}-{key[:16]}.png"
    if target.is_file():
        return target
    import numpy as np

    from rdpbench.datasets.labels import from_panoptic, from_stuff, write_labels
    from rdpbench.image import open_image

    with open_image(png) as (opened, _):
        stored = np.array(opened if segments is None else opened.convert("RGB"))
    try:
        labels = from_stuff(stored) if segments is None else from_panoptic(stored, segments)
    except ImageError as error:
        raise ImageError(f"{png}: {error}") from error
    with written_whole(target) as part:
        write_labels(part, labels, "coco-stuff-171" if segments is None else "coco-panoptic-133")
    return target


class Annotations:
    """One annotation file by image id: read once into a table on disk, so that 30,000 images need no memory for it.

    ``captions_*.json`` hold 590,000 captions; ``panoptic_*.json`` say which category each segment of a PNG is. Both
    state the size of each image, which tells originals from crops. Karpathy's ``dataset_coco.json`` holds captions too.

    Args:
        path: the JSON file; its table is made again when its size or time of change differ.

    Raises:
        ConfigError: not a file of the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        stat = path.stat()
        key = hashlib.sha256(f"{_FORMAT} {path.resolve()} {stat.st_size} {stat.st_ctime_ns}".encode()).hexdigest()
        table = cache_folder() / "annotations" / f"{path.stem}-{key[:16]}.sqlite"
        table.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(table.with_suffix(".lock")):
            if not table.is_file():
                _convert(path, table)
        self._table = sqlite3.connect(table, check_same_thread=False)

    def captions(self, image: int) -> tuple[str, ...]:
        """The captions of an image in the file's order, without the spaces and line ends around them."""
        rows = self._table.execute("SELECT text FROM captions WHERE image=? ORDER BY number", (image,))
        return tuple(text for (text,) in rows)

    def size(self, image: int) -> tuple[int, int] | None:
        """Height and width of an image as the file states them."""
        row = self._table.execute("SELECT height, width FROM images WHERE image=?", (image,)).fetchone()
        return (int(row[0]), int(row[1])) if row else None

    def segments(self, image: int) -> Segments | None:
        """The segments of a panoptic PNG with their categories; None if the file does not have the image."""
        row = self._table.execute("SELECT segments FROM panoptic WHERE image=?", (image,)).fetchone()
        return tuple({"id": id_, "category_id": category} for id_, category in json.loads(row[0])) if row else None

    def close(self) -> None:
        """Close the table."""
        self._table.close()


def _convert(path: Path, table: Path) -> None:
    part = table.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        record = json.loads(path.read_bytes())
        sizes = [(image["id"], image["height"], image["width"]) for image in record["images"] if "height" in image]
        with closing(sqlite3.connect(part)) as connection, connection:
            connection.execute("CREATE TABLE images (image INT PRIMARY KEY, height INT, width INT)")
            connection.execute("CREATE TABLE captions (image INT, number INT, text TEXT, PRIMARY KEY (image, number))")
            connection.execute("CREATE TABLE panoptic (image INT PRIMARY KEY, segments TEXT)")
            connection.executemany("INSERT INTO images VALUES (?, ?, ?)", sizes)
            connection.executemany("INSERT INTO captions VALUES (?, ?, ?)", _numbered_captions(record))
            connection.executemany("INSERT INTO panoptic VALUES (?, ?)", _categories(record))
        part.replace(table)
    except (ValueError, KeyError, TypeError, AttributeError, sqlite3.Error) as error:
        raise ConfigError(f"{path} is no annotation file of COCO's: {type(error).__name__}: {error}") from error


def _numbered_captions(record: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    # Karpathy's file holds the sentences with the images.
    texts = [(image["cocoid"], text["raw"]) for image in record["images"] for text in image.get("sentences", ())]
    texts += [(line["image_id"], line["caption"]) for line in record.get("annotations", ()) if "caption" in line]
    counts: dict[int, int] = {}
    for image, text in texts:
        number = counts[int(image)] = counts.get(int(image), -1) + 1
        yield int(image), number, str(text).strip()


def _categories(record: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for line in record.get("annotations", ()):
        if "segments_info" in line:
            pairs = [[segment["id"], segment["category_id"]] for segment in line["segments_info"]]
            yield int(line["image_id"]), json.dumps(pairs)
