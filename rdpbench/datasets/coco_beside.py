"""Captions and label maps of COCO: where they lie, how they are fetched, and PNGs of publishers as maps of classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rdpbench.datasets.annotations import Annotations, Segments, image_number
from rdpbench.datasets.fetching import fetch, recorded, unpack_part
from rdpbench.datasets.loader import ahead
from rdpbench.datasets.memory import file_facts, identity
from rdpbench.datasets.releases import Archive, Part
from rdpbench.errors import ConfigError, ImageError
from rdpbench.paths import cache_folder, data_folders

_BASE = "http://images.cocodataset.org/annotations/"

CAPTIONS_2014 = Part(
    Archive(
        _BASE + "annotations_trainval2014.zip",
        252_872_794,
        "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        "0a379cfc70b0e71301e0f377548639bd",
        growth=12,
    ),
    "annotations-2014",
    2,
    r"(?:annotations/)?(captions_(?:train|val)2014\.json)",
)
CAPTIONS_2017 = Part(
    Archive(
        _BASE + "annotations_trainval2017.zip",
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        growth=12,
    ),
    "annotations-2017",
    2,
    r"(?:annotations/)?(captions_(?:train|val)2017\.json)",
)
KARPATHY = Part(
    Archive(
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        36_745_453,
        "4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
        growth=12,
    ),
    "annotations-karpathy",
    1,
    r"(?:.*/)?(dataset_coco\.json)",
)
STUFF = Part(
    # About 659 MB; nobody published a hash.
    Archive(
        "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
        None,
        growth=4,
    ),
    "stuffthingmaps",
    123_287,
    r"(?:stuffthingmaps/)?((?:train|val)2017/\d{12}\.png)",
)
PANOPTIC = Part(
    Archive(
        _BASE + "panoptic_annotations_trainval2017.zip",
        860_725_834,
        "c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370",
        growth=4,
    ),
    "annotations-panoptic",
    4,
    r"(?:annotations/)?(panoptic_(?:train|val)2017\.(?:json|zip))",
)
_PARTS = (CAPTIONS_2014, CAPTIONS_2017, KARPATHY, STUFF, PANOPTIC)


def wanted(beside: Sequence[str], images: str, captions: str, labels: str) -> list[tuple[Part, str]]:
    """The archives to fetch for ``captions`` and ``labels`` of a folder of images.

    Raises:
        ConfigError: something else, or labels without saying which.

    >>> [part.folder for part, _ in wanted(["captions"], "val2014", "auto", "none")]
    ['annotations-2014']
    """
    parts: list[tuple[Part, str]] = []
    for what in beside:
        if what == "captions":
            year = CAPTIONS_2014 if images.endswith("2014") else CAPTIONS_2017
            parts.append((KARPATHY if captions == "karpathy" else year, what))
        elif what in ("labels", "stuff", "panoptic"):
            kind = labels if what == "labels" else what
            parts.append((STUFF if kind == "stuff" else PANOPTIC, what))
        else:
            raise ConfigError(f"{what!r} is nothing that lies beside COCO's images: captions, labels, stuff, panoptic")
    return parts


def get(part: Part, source: str | None, how: str) -> None:
    """Fetch one of the archives, if it is not here yet; panoptic maps are archives in an archive."""
    home = data_folders("coco")[-1]
    if not recorded(part, home / part.folder):
        fetch(part, "coco", source, how)
    if part is PANOPTIC:
        for split in ("train2017", "val2017"):
            inner = home / part.folder / f"panoptic_{split}.zip"
            target = home / f"panoptic_{split}"
            maps = Part(Archive(inner.as_uri(), None, growth=4), target.name, None, r"(?:[^/]+/)?(\d{12}\.png)")
            if inner.is_file() and not recorded(maps, target):
                unpack_part(maps, inner, target)


def how(what: str, name: str, images: str, labels: str) -> str:
    """How to get captions or label maps, by command and by hand."""
    [(part, _)] = wanted([what], images, "auto", labels)
    what = labels if what == "labels" and labels != "none" else what
    ask = {"labels": "panoptic (or stuff)", "stuff": "stuff", "panoptic": "panoptic"}.get(what, "")
    ask = f" and data.options.labels={ask} asks for them" if ask and labels != what else ""
    return (
        f"type `rdpbench data fetch {name} --with {what}`{ask}; by hand: {part.archive.url} ({part.archive.size()}, "
        f"CC BY 4.0), unpacked into {data_folders('coco')[-1] / part.folder} or beside the images"
    )


def caption_file(captions: str, roots: Sequence[Path], images: str) -> Path | None:
    """The annotation file with the captions of a folder of images; None if it is nowhere."""
    if captions == "karpathy":
        return _find("dataset_coco.json", roots, KARPATHY)
    year = CAPTIONS_2014 if images.endswith("2014") else CAPTIONS_2017
    return _find(f"captions_{images}.json", roots, year)


def verify() -> list[str]:
    """What of the unpacked annotations and label maps is not as recorded."""
    out: list[str] = []
    for home in data_folders("coco"):
        for part in _PARTS:
            manifest = recorded(part, home / part.folder) if (home / part.folder).is_dir() else None
            files = manifest.files if manifest else {}
            gone = [name for name in files if not (home / part.folder / name).is_file()]
            out += [f"{home / part.folder / name} is missing" for name in gone]
            here = [name for name in files if name not in gone]
            facts = file_facts((home / part.folder / name for name in here), remembered=False)
            out += [
                f"{path}: sha256 {found.sha256}, recorded {files[name]}"
                for name, (path, found) in zip(here, facts, strict=True)
                if found.sha256 != files[name]
            ]
    return out


@contextmanager
def label_maps(
    kind: str, roots: Sequence[Path], names: Sequence[str], lacking: Callable[[str, Sequence[str], int], None]
) -> Iterator[Iterator[Path | None]]:
    """The label map of each image, in order; ``lacking`` is told of images without one before the first comes.

    The publishers' PNGs become maps of classes once, ahead of the consumer, and these stay in the cache.
    """
    sources = [_label_source(kind, roots, image_number(name)) for name in names]
    lacking("labels", [name for name, source in zip(names, sources, strict=True) if source is None], len(names))
    files = (_find(f"panoptic_{split}.json", roots, PANOPTIC) for split in _SPLITS)
    tables = [Annotations(path) for path in files if path] if kind == "panoptic" else []
    work = (
        (kind, source, _segments(tables, image_number(name)) if source and kind == "panoptic" else ())
        for name, source in zip(names, sources, strict=True)
    )
    try:
        with ahead(work, lambda one: _map_of_classes(*one), depth=64, threads=os.cpu_count() or 1) as maps:
            yield maps
    finally:
        for table in tables:
            table.close()


LABELS = ("stuff", "panoptic")
_MAPPING = 1
"""Raised when the conversion of label maps changes."""
_SPLITS = ("val2017", "train2017")


def _find(file: str, roots: Sequence[Path], part: Part) -> Path | None:
    places = (root / folder / file for root in roots for folder in (".", "annotations", part.folder))
    return next((place for place in places if place.is_file()), None)


def _label_source(kind: str, roots: Sequence[Path], image: int) -> Path | None:
    # Images of val2014 are spread over both splits of 2017, and keep their number.
    folders = {"stuff": ("stuffthingmaps/{}", "stuffthingmaps_trainval2017/{}"), "panoptic": ("panoptic_{}",)}[kind]
    folders = (*folders, *(f"annotations/{folder}" for folder in folders))
    places = (root / folder.format(split) for root in roots for folder in folders for split in _SPLITS)
    return next((path for place in places if (path := place / f"{image:012d}.png").is_file()), None)


def _segments(tables: Sequence[Annotations], image: int) -> Segments:
    for table in tables:
        if (found := table.segments(image)) is not None:
            return found
    names = " and ".join(table.path.name for table in tables) or "panoptic_val2017.json, which is not here,"
    raise ImageError(f"image {image} has a panoptic PNG, but {names} does not say what its segments are")


def _map_of_classes(kind: str, source: Path | None, segments: Segments) -> Path | None:
    """The map of classes of a publisher's PNG, in the cache."""
    if source is None:
        return None
    key = hashlib.sha256(repr((_MAPPING, identity(source), segments)).encode()).hexdigest()
    target = cache_folder() / "labels" / kind / f"{source.stem}-{key[:16]}.png"
    if target.is_file():
        return target
    import numpy as np

    from rdpbench.datasets.labels import from_panoptic, from_stuff, write_labels
    from rdpbench.image import open_image

    with open_image(source) as (opened, _):
        stored = np.array(opened.convert("RGB") if kind == "panoptic" else opened)
    try:
        labels = from_panoptic(stored, segments) if kind == "panoptic" else from_stuff(stored)
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    write_labels(part, labels, "coco-panoptic-133" if kind == "panoptic" else "coco-stuff-171")
    part.replace(target)
    return target
