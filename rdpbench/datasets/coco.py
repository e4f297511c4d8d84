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

Captions and label maps of COCO: where they lie, how they are fetched, and PNGs of publishers as maps of classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from rdpbench.assets.hashes import file_facts, identity
from rdpbench.datasets import lists
from rdpbench.datasets.contract import Sample
from rdpbench.datasets.fetching import Archive, Drawn, Names, Part, Release, fetch, recorded, some, unpack_part
from rdpbench.datasets.labels import Annotations, Segments, image_number
from rdpbench.datasets.loader import ahead
from rdpbench.datasets.official import File, Official
from rdpbench.errors import ConfigError, ImageError, MissingNeed
from rdpbench.paths import cache_folder, data_folders, written_whole

_ANNOTATIONS_BASE = "http://images.cocodataset.org/annotations/"

CAPTIONS_2014 = Part(
    Archive(
        _ANNOTATIONS_BASE + "annotations_trainval2014.zip",
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
        _ANNOTATIONS_BASE + "annotations_trainval2017.zip",
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
        _ANNOTATIONS_BASE + "panoptic_annotations_trainval2017.zip",
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
    with written_whole(target) as beside:
        write_labels(beside, labels, "coco-panoptic-133" if kind == "panoptic" else "coco-stuff-171")
    return target


_BASE = "http://images.cocodataset.org/"
_VAL2014 = r"COCO_val2014_\d{12}\.jpg"
_2017 = r"\d{12}\.jpg"
_PERCO: Names = partial(lists.names, "coco-train2017-perco")


def _geometry(height: int, width: int) -> str:
    """Why an image is not of COCO.

    >>> _geometry(768, 512)
    'no side of a COCO image has more than 640 pixels'
    """
    return "no side of a COCO image has more than 640 pixels" if max(height, width) > 640 else ""


class _Among:
    """Is a name in a list? Read when it is first asked."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.known: frozenset[str] | None = None

    def __call__(self, name: str) -> bool:
        if self.known is None:
            self.known = frozenset(self.names())
        return name in self.known


VAL2014 = Part(
    Archive(
        _BASE + "zips/val2014.zip",
        6_645_013_297,
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        "a3d79f5ed8d289b7a7554ce06a5782b3",
    ),
    "val2014",
    40_504,
    rf"(?:val2014/)?({_VAL2014})",
)
VAL2017 = Part(
    Archive(
        _BASE + "zips/val2017.zip",
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        "442b8da7639aecaf257c1dceb8ba8c80",
    ),
    "val2017",
    5_000,
    rf"(?:val2017/)?({_2017})",
)
TRAIN2017_PERCO = Part(
    Archive(
        _BASE + "zips/train2017.zip",
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        "cced6f7f71b7629ddf16f17bbcfab6b2",
    ),
    "train2017",
    30_000,
    rf"(?:train2017/)?({_2017})",
    wanted=_Among(_PERCO),  # the other 88,287 belong to no set here
)


_DALLE = Drawn(
    "coco-30k-dalle",
    last="be2861936fa449baf852e49e6a108d846a01f89bd189ff1172b595b04e185e30",
    stand_ins=504,
    last_stand_in="c16ee3c3340a6a5008c6cf7237c627e8f2225d8eae23866fac61a483cdaf590e",
    short_side=256,
)
"""The first 30,000 names of val2014 in this order, and 504 that stand in for images whose short side is below 256.

About 0.84 % are: a set that named them could not be run, since `dalle-256` refuses them.
"""

_VAL2014_NAMES = "76ff6ddadb5941b820da78b72faae7f83bf97053e2d290312ca204791c5f0fb3"
"""Digest of the 40,504 names: restval and the 10,000 of Karpathy's val and test."""
_VAL2017_NAMES = "09b3bbeda289610ec9fd4e4b5e6da32ec04f98a9a4111e99790de863be0f8f9e"


def _release(
    name: str,
    title: str,
    part: Part,
    count: int,
    protocol: str = "as-is",
    listed: Names | None = None,
    drawn: Drawn | None = None,
    names_sha256: str = "",
) -> Release:
    return Release(
        name=name,
        title=title,
        family="coco",
        parts=(part,),
        count=count,
        pattern=_VAL2014 if part is VAL2014 else _2017,
        licence="each image has its own Flickr licence, some non-commercial; annotations CC BY 4.0",
        page="https://cocodataset.org/#download",
        protocol=protocol,
        listed=listed,
        subset=listed is not None or drawn is not None,
        drawn=drawn,
        names_sha256=names_sha256,
        geometry=_geometry,
        varied=True,
    )


@dataclass(frozen=True)
class COCO(Official):
    """Sets of MS-COCO; ``split`` is ``30k-taco``, ``30k-perco``, ``30k-dalle``, ``val2014``, ``val2017`` or ``100``.

    >>> len(COCO("30k-taco"))
    30504
    """

    RELEASES: ClassVar[Mapping[str, Release]] = {
        "30k-taco": _release(
            "coco-30k-taco",
            "MS-COCO 30k as TACO: 30,504 restval images of val2014, 256 x 256",
            VAL2014,
            30_504,
            "taco-256",
            partial(lists.names, "coco-restval"),
        ),
        "30k-perco": _release(
            "coco-30k-perco",
            "MS-COCO 30k as PerCo: 30,000 images of train2017, 512 x 512",
            TRAIN2017_PERCO,
            30_000,
            "perco-512",
            _PERCO,
        ),
        "30k-dalle": _release(
            "coco-30k-dalle",
            "MS-COCO 30k with DALL-E processing: 30,000 images of val2014 drawn by rdpbench, 256 x 256",
            VAL2014,
            30_000,
            "dalle-256",
            drawn=_DALLE,
        ),
        "100": _release(
            "coco-100",
            "100 images of MS-COCO restval drawn by rdpbench, for latency and caption tables",
            VAL2014,
            100,
            listed=partial(lists.names, "coco-100"),
        ),
        "val2014": _release(
            "coco-val2014", "MS-COCO val2014, 40,504 images", VAL2014, 40_504, names_sha256=_VAL2014_NAMES
        ),
        "val2017": _release(
            "coco-val2017", "MS-COCO val2017, 5,000 images", VAL2017, 5_000, names_sha256=_VAL2017_NAMES
        ),
    }

    captions: str = "auto"
    conditions: int = 0
    """Which of an image's captions an encoder sees; metrics score against the others."""
    labels: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, given, known in (
            ("captions", self.captions, ("auto", "human", "karpathy", "none")),
            ("labels", self.labels, ("none", *LABELS)),
        ):
            if given not in known:
                raise ConfigError(f"{self.name}: {what}={given!r} is none of {', '.join(known)}")
        if not 0 <= self.conditions < 5:
            raise ConfigError(f"{self.name}: conditions={self.conditions}; an image has five captions, 0 to 4")

    def samples(self) -> Iterator[Sample]:
        """Yield the images in the order of their names, with captions and label maps as configured.

        Raises:
            MissingNeed: no network, no disk; captions or label maps that were asked for are not here.
            ImageError: images are missing, or they are not those of this set.
        """
        files = self._files()
        names = [file.name for file in files]
        with ExitStack() as opened:
            captions = opened.enter_context(self._captions(names))
            if self.labels == "none":
                yield from (self._with(file, captions, None) for file in files)
                return
            maps = opened.enter_context(label_maps(self.labels, self._roots(), names, self._lacking))
            for file, labels in zip(files, maps, strict=True):
                yield self._with(file, captions, labels)

    def beside_missing(self, what: str) -> str:
        """How to get ``captions`` or ``labels``."""
        return how(what, self.name, self._images, self.labels)

    def fetch(self, beside: Sequence[str] = ()) -> None:
        """Download, verify, unpack and record the images, and what lies beside them: ``captions``, ``labels``."""
        parts = wanted(beside, self._images, self.captions, self.labels)
        super().fetch()
        for part, what in parts:
            get(part, self.source, self.beside_missing(what))

    def verify(self) -> list[str]:
        """Read every byte again, also of the annotations and label maps that were unpacked here."""
        return [*super().verify(), *verify()]

    # Beside the images

    @property
    def _images(self) -> str:
        return self.release.parts[0].folder

    def _roots(self) -> list[Path]:
        """Where annotations may lie: with the images, one folder up, and where downloads go."""
        given = [Path(self.path).expanduser().absolute()] if self.path else []
        return [*given, *(one.parent for one in given), *data_folders("coco")]

    @contextmanager
    def _captions(self, names: Sequence[str]) -> Iterator[Annotations | None]:
        path = caption_file(self.captions, self._roots(), self._images)
        if path is None:
            if self.captions in ("human", "karpathy"):
                how = self.beside_missing("captions")
                raise MissingNeed(f"{self.name}: captions={self.captions} are not here\n{how}")
            yield None
            return
        with closing(Annotations(path)) as annotations:
            if self.captions != "auto":
                without = [name for name in names if not annotations.captions(image_number(name))]
                self._lacking("captions", without, len(names))
            yield annotations

    def _lacking(self, what: str, names: Sequence[str], whole: int) -> None:
        if names and (not self.allow_partial or len(names) == whole):
            raise MissingNeed(
                f"{self.name}: {len(names)} images have no {what}: {some(names)}\n{self.beside_missing(what)}"
            )

    def _with(self, file: File, annotations: Annotations | None, labels: Path | None) -> Sample:
        texts = annotations.captions(image_number(file.name)) if annotations else ()
        caption = texts[self.conditions] if len(texts) > self.conditions else None
        others = texts[: self.conditions] + texts[self.conditions + 1 :] if caption is not None else ()
        return replace(self._sample(file), caption=caption, references=others, labels=labels)

    # Which images

    def _look(self, files: Sequence[File], *, whole: bool) -> str:
        """Where annotations are here, the sizes that they state are what the images must have."""
        if why := super()._look(files, whole=whole):
            return why
        path = caption_file("auto", self._roots(), self._images)
        unknown = [file.path for file in files if file.sha256 is None]
        if path is None or not unknown:
            return ""
        with closing(Annotations(path)) as annotations:
            for image, found in file_facts(unknown):
                stated = annotations.size(image_number(image.name))
                if stated is None:
                    return f"{image.name} is not among the images of {path}"
                if stated != (found.height, found.width):
                    height, width = stated
                    return f"{image.name} is {found.width} x {found.height}, and {path.name} states {width} x {height}"
        return ""

    def _choose(self, files: list[File]) -> tuple[list[File], int, str]:
        drawn = self.release.drawn
        if drawn is None:
            return super()._choose(files)
        places = {file.name: drawn.place(file.name) for file in files}
        candidates = sorted(
            (file for file in files if places[file.name] <= drawn.last_stand_in), key=lambda file: places[file.name]
        )
        lacking = len(self) + drawn.stand_ins - len(candidates)
        if lacking:  # which stand-ins would be needed cannot be told
            candidates = [file for file in candidates if places[file.name] <= drawn.last]
        facts = file_facts(file.path for file in candidates)
        large = [
            file
            for file, (_, found) in zip(candidates, facts, strict=True)
            if min(found.height, found.width) >= drawn.short_side
        ]
        return sorted(large[: len(self)], key=lambda file: file.name), lacking, ""
