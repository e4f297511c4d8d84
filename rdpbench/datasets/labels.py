"""Label maps: from COCO's annotation files to 8-bit PNGs of class indices, and from these to what metrics compare.

What a dataset stores and a `Sample` names is one PNG per image, of its size: classes counted from 0, 255 where nothing
is labelled. The PNG says in a text field which list of classes it counts; a metric of another list is refused.

======================  ========================================================================================
classes                 made from
======================  ========================================================================================
``coco-panoptic-133``   COCO panoptic 2017: a colour PNG of segment ids, and each segment's category in a JSON file
``coco-stuff-171``      COCO-Stuff 164k: grey PNGs (``stuffthingmaps``) of category ids less one, 255 unlabelled
======================  ========================================================================================

Panoptic segments that are crowds count as their category. Pixels of no segment are unlabelled.

COCO's three numberings of its classes, as tables for `rdpbench.datasets.labels.remap`.

* COCO-Stuff label maps (``stuffthingmaps``): the category id less one, 0 to 181, and 255; 171 of them are used, as 11
  thing ids were never annotated. `STUFF_171` numbers those 0 to 170 without gaps, as segmentation toolboxes do.
* COCO panoptic: category ids up to 200; 80 things and 53 kinds of stuff. `PANOPTIC_133` numbers them 0 to 132, in the
  order of the ids: what models of 133 classes predict.
* `STUFF_TO_PANOPTIC` brings a COCO-Stuff map to these 133 classes. 43 of the 91 kinds of stuff were merged into 17, and
  12 were given up and become 255. There is no way back.

Source: the category lists of COCO-Stuff 164k and of the COCO panoptic challenge (cocodataset.org, panoptic evaluation).

>>> [int(STUFF_171[label]) for label in (0, 11, 12, 181, 255)]
[0, 255, 11, 170, 255]
>>> [int(PANOPTIC_133[label]) for label in (1, 90, 91, 92, 184, 200)]
[0, 79, 255, 80, 116, 132]
>>> [int(STUFF_TO_PANOPTIC[label - 1]) for label in (1, 92, 94, 169, 104)]  # person, banner, branch, tree, cloth
[0, 80, 116, 116, 255]

COCO's annotation files as tables on disk: read once, so that a set of 30,000 images needs no memory for them.

``captions_*.json`` hold 590,000 captions; ``panoptic_*.json`` say which category each segment of a PNG is. Both also
state the size of each image, which tells originals from crops. Karpathy's ``dataset_coco.json`` holds captions too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from rdpbench.datasets.protocols import labels_under
from rdpbench.errors import ConfigError, ImageError, MetricError
from rdpbench.image import Image, open_image
from rdpbench.paths import cache_folder

IGNORE = 255
"""Label of pixels without ground truth, in COCO-Stuff and Pascal alike."""


def table(classes: Mapping[int, int], other: int = IGNORE, size: int = 256) -> NDArray[np.uint8]:
    """A look-up table from a dataset's labels to class indices, for `remap`.

    Labels that are not named, 255 among them, become ``other``.

    Raises:
        MetricError: a label outside 0 to ``size`` - 1, or a class outside 0 to 255.

    >>> table({1: 0, 3: 1}, size=4).tolist()
    [255, 0, 255, 1]
    """
    found = np.full(size, other, np.uint8)
    for label, index in classes.items():
        if not 0 <= label < size or not 0 <= index <= 255:
            raise MetricError(f"label table: {label} -> {index}: labels are 0 to {size - 1}, classes 0 to 255")
        found[label] = index
    return found


def remap(labels: NDArray[Any], lookup: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A label map in a model's class indices.

    Raises:
        MetricError: a label that the table does not reach.

    >>> remap(np.array([[1, 3, 0]], np.uint8), table({1: 0, 3: 1})).tolist()
    [[0, 1, 255]]
    """
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= len(lookup)):
        raise MetricError(
            f"labels {int(labels.min())} to {int(labels.max())} are given to a table of {len(lookup)} labels: "
            "is the map of another dataset?"
        )
    found: NDArray[np.uint8] = lookup[labels]
    return found


_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
"""Thing ids that no image has: hat, shoe, eye glasses and so on."""
_THINGS = tuple(category for category in range(1, 91) if category not in _UNUSED)
_MERGED = {
    184: (94, 97, 129, 169),  # tree: branch, bush, leaves, tree
    185: (99, 113, 146),  # fence: cage, fence, railing
    186: (102, 103),  # ceiling: other, tile
    187: (106, 120, 157),  # sky: clouds, fog, other
    188: (98, 108),  # cabinet: cabinet, cupboard
    189: (110, 165),  # table: desk, table
    190: (114, 115, 117),  # floor: marble, other, tile
    191: (116, 140),  # pavement: stone floor, pavement
    192: (127, 135),  # mountain: hill, mountain
    193: (124, 134, 163),  # grass: grass, moss, straw
    194: (111, 136),  # dirt: dirt, mud
    195: (137, 139),  # paper: napkin, paper
    196: (121, 153, 170),  # food: other, salad, vegetable
    197: (96, 158),  # building: other, skyscraper
    198: (150, 162),  # rock: rock, stone
    199: (172, 173, 174),  # wall: concrete, other, panel
    200: (101, 131, 152),  # rug: carpet, mat, rug
}
_GIVEN_UP = (104, 105, 123, 126, 132, 142, 143, 160, 164, 167, 179, 182)
"""Cloth, clothes, other furniture, other ground, metal, other plants, plastic, and so on."""
_KEPT = tuple(
    category
    for category in range(92, 183)
    if category not in _GIVEN_UP and all(category not in old for old in _MERGED.values())
)

_PANOPTIC = {category: index for index, category in enumerate((*_THINGS, *_KEPT, *_MERGED))}

STUFF_171 = table({category - 1: index for index, category in enumerate((*_THINGS, *range(92, 183)))})
"""COCO-Stuff label (0 to 181, 255) to 171 classes."""
PANOPTIC_133 = table(_PANOPTIC)
"""COCO panoptic category id (1 to 200) to 133 classes."""
STUFF_TO_PANOPTIC = table(
    {category - 1: _PANOPTIC[category] for category in (*_THINGS, *_KEPT)}
    | {old - 1: _PANOPTIC[new] for new, merged in _MERGED.items() for old in merged}
)
"""COCO-Stuff label (0 to 181, 255) to the 133 classes of COCO panoptic."""


Classes: TypeAlias = Literal["coco-panoptic-133", "coco-stuff-171"]
Labels: TypeAlias = NDArray[np.uint8]
"""``(H, W)``: class indices, 255 where nothing is labelled."""

COUNT: dict[Classes, int] = {"coco-panoptic-133": 133, "coco-stuff-171": 171}
"""Classes of each list."""
_FIELD = "rdpbench-classes"


def from_panoptic(colours: Image, segments: Sequence[Mapping[str, Any]]) -> Labels:
    """The 133 classes of a panoptic annotation.

    Args:
        colours: its PNG, ``uint8 (H, W, 3)``: a segment's id is ``R + 256 G + 65536 B``; 0 is no segment.
        segments: ``segments_info`` of that image in the JSON file; ``id`` and ``category_id`` are read.

    Raises:
        ImageError: a segment that the list does not name, or a category that COCO panoptic does not have.

    >>> red = np.zeros((1, 2, 3), np.uint8)
    >>> red[0, 0, 0] = 7
    >>> from_panoptic(red, [{"id": 7, "category_id": 92}]).tolist()
    [[80, 255]]
    """
    ids = colours.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    category_of = {int(segment["id"]): int(segment["category_id"]) for segment in segments} | {0: 0}
    found, places = np.unique(ids, return_inverse=True)
    if unknown := [int(one) for one in found if int(one) not in category_of]:
        raise ImageError(f"panoptic annotation: segments {unknown[:5]} are in the PNG and not in the JSON file")
    categories = np.array([category_of[int(one)] for one in found])
    if wrong := [int(one) for one in categories if one and (one > 200 or PANOPTIC_133[one] == IGNORE)]:
        raise ImageError(f"panoptic annotation: categories {wrong[:5]} are not among the 133 of COCO panoptic")
    return remap(categories[places.reshape(ids.shape)], PANOPTIC_133)


def from_stuff(labels: NDArray[Any]) -> Labels:
    """The 171 classes of a COCO-Stuff map ``(H, W)``.

    Raises:
        ImageError: not a map of 0 to 181 and 255.

    >>> from_stuff(np.array([[0, 181, 255]], np.uint8)).tolist()
    [[0, 170, 255]]
    """
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ImageError(f"a COCO-Stuff map is 8-bit grey (H, W), found {labels.dtype} {labels.shape}")
    mapped = remap(labels, STUFF_171)
    if ((mapped == IGNORE) & (labels != IGNORE)).any():
        wrong = np.unique(labels[(mapped == IGNORE) & (labels != IGNORE)])[:5].tolist()
        raise ImageError(f"COCO-Stuff map: labels {wrong} are not among its 171 classes: is it another file?")
    return mapped


def write_labels(path: Path, labels: Labels, classes: Classes) -> None:
    """Write a map as the PNG that `load_labels` reads, with the name of its list of classes.

    Raises:
        ImageError: not ``uint8 (H, W)``, or a class that the list does not have.
    """
    from PIL import Image as pil
    from PIL.PngImagePlugin import PngInfo

    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ImageError(f"a label map is uint8 (H, W), found {labels.dtype} {labels.shape}")
    known = labels[labels != IGNORE]
    if known.size and int(known.max()) >= COUNT[classes]:
        raise ImageError(f"{classes} counts 0 to {COUNT[classes] - 1}, found {int(known.max())}")
    info = PngInfo()
    info.add_text(_FIELD, classes)
    pil.fromarray(labels).save(path, "PNG", pnginfo=info)


@dataclass(frozen=True)
class LabelFile:
    """What a label map says of itself, without its pixels."""

    height: int
    width: int
    classes: str | None
    """Its list of classes; None if it names none."""


def look_at(path: Path) -> LabelFile:
    """Size and classes of a label map.

    Raises:
        ImageError: no such file, or not an 8-bit grey PNG.
    """
    from PIL import Image as pil

    try:
        with pil.open(path) as opened:
            _check_mode(path, opened.mode)
            return LabelFile(opened.height, opened.width, opened.info.get(_FIELD))
    except OSError as error:
        raise ImageError(f"cannot read {path} as a label map: {error}") from error


def of_another_list(path: Path, named: str | None, classes: str) -> str:
    """What to say of a label map that does not count the classes of a metric."""
    return (
        f"{path} counts {named or 'classes of a list that it does not name'}, and the metric {classes}: "
        f"take the dataset's other label maps, or write it with rdpbench.datasets.labels.write_labels"
    )


def _check_mode(path: Path, mode: str) -> None:
    if mode not in ("L", "P"):
        raise ImageError(
            f"{path} is no label map: an 8-bit grey PNG of class indices is, this is {mode}; "
            "COCO's own panoptic PNGs hold segment ids, and are converted when the dataset is unpacked"
        )


def load_labels(
    path: Path, protocol: str = "as-is", image: Image | None = None, classes: Classes | None = None
) -> Labels:
    """A sample's label map under the dataset's protocol: the image's geometry, nearest neighbour.

    Args:
        path: an 8-bit grey PNG.
        protocol: name of what is done to the image.
        image: the image before the protocol, where the protocol draws its crop by the pixels.
        classes: the list that the metric predicts; None takes any.

    Raises:
        ImageError: no such file, damaged, not 8-bit grey, of another list of classes than asked for, or
            refused by the protocol.
    """
    try:
        with open_image(path) as (opened, _):
            opened.load()
            mode, named = opened.mode, opened.info.get(_FIELD)
            labels = np.array(opened)
    except ImageError as error:
        raise ImageError(f"cannot read {path} as a label map: {error}") from error
    _check_mode(path, mode)
    if classes is not None and named != classes:
        raise ImageError(of_another_list(path, named, classes))
    return labels_under(protocol, labels, image)


Segments: TypeAlias = tuple[Mapping[str, int], ...]
"""Of each segment its ``id`` in the PNG and its ``category_id``."""

_FORMAT = 1
"""Raised when the tables change."""


class Annotations:
    """One annotation file, by image id.

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
        found = self._table.execute("SELECT height, width FROM images WHERE image=?", (image,)).fetchone()
        return (int(found[0]), int(found[1])) if found else None

    def segments(self, image: int) -> Segments | None:
        """The segments of a panoptic PNG with their categories; None if the file does not have the image."""
        found = self._table.execute("SELECT segments FROM panoptic WHERE image=?", (image,)).fetchone()
        return (
            tuple({"id": segment, "category_id": category} for segment, category in json.loads(found[0]))
            if found
            else None
        )

    def close(self) -> None:
        """Close the table."""
        self._table.close()


def image_number(name: str) -> int:
    """COCO's image id in a file name.

    >>> image_number("COCO_val2014_000000000073.jpg")
    73
    """
    return int(Path(name).stem.rpartition("_")[2])


def _convert(path: Path, table: Path) -> None:
    try:
        record = json.loads(path.read_bytes())
        images = record["images"]
        part = table.with_suffix(".part")
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(part)) as memory, memory:
            memory.execute("CREATE TABLE images (image INT PRIMARY KEY, height INT, width INT)")
            memory.execute("CREATE TABLE captions (image INT, number INT, text TEXT, PRIMARY KEY (image, number))")
            memory.execute("CREATE TABLE panoptic (image INT PRIMARY KEY, segments TEXT)")
            sizes = ((one["id"], one["height"], one["width"]) for one in images if "height" in one)
            memory.executemany("INSERT INTO images VALUES (?, ?, ?)", sizes)
            memory.executemany("INSERT INTO captions VALUES (?, ?, ?)", _captions(record))
            memory.executemany("INSERT INTO panoptic VALUES (?, ?)", _panoptic(record.get("annotations", ())))
        part.replace(table)
    except (ValueError, KeyError, TypeError, AttributeError, sqlite3.Error) as error:
        raise ConfigError(f"{path} is no annotation file of COCO's: {type(error).__name__}: {error}") from error


def _captions(record: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    numbers: dict[int, int] = {}
    for image, text in _texts(record):
        number = numbers[image] = numbers.get(image, -1) + 1
        yield image, number, text.strip()


def _texts(record: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for image in record["images"]:
        # Karpathy's file holds the sentences with the images.
        yield from ((int(image["cocoid"]), str(one["raw"])) for one in image.get("sentences", ()))
    for one in record.get("annotations", ()):
        if "caption" in one:
            yield int(one["image_id"]), str(one["caption"])


def _panoptic(annotations: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    for one in annotations:
        if "segments_info" in one:
            pairs = [[part["id"], part["category_id"]] for part in one["segments_info"]]
            yield int(one["image_id"]), json.dumps(pairs)
