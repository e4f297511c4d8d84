"""Label maps: from COCO's annotations to 8-bit PNGs of class indices, and from these to what metrics compare.

What a dataset stores and a `Sample` names is one PNG per image, of its size: classes counted from 0, 255 where nothing
is labelled. The PNG says in a text field which list of classes it counts; a metric of another list is refused.

======================  ========================================================================================
classes                 made from
======================  ========================================================================================
``coco-panoptic-133``   COCO panoptic 2017: a colour PNG of segment ids, and each segment's category in a JSON file;
                        category ids up to 200, 80 things and 53 kinds of stuff, numbered in the order of the ids
``coco-stuff-171``      COCO-Stuff 164k: grey PNGs (``stuffthingmaps``) of the category id less one, 0 to 181, 255
                        unlabelled; without the 11 thing ids that were never annotated, numbered without gaps
======================  ========================================================================================

Panoptic segments that are crowds count as their category. Pixels of no segment are unlabelled.

Source: the category lists of COCO-Stuff 164k and of the COCO panoptic challenge (cocodataset.org, panoptic evaluation).

>>> [int(STUFF_171[label]) for label in (0, 11, 12, 181, 255)]
[0, 255, 11, 170, 255]
>>> [int(PANOPTIC_133[label]) for label in (1, 90, 91, 92, 184, 200)]
[0, 79, 255, 80, 116, 132]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.datasets.protocols import labels_under
from rdpbench.errors import ImageError
from rdpbench.image import Image, open_image
from rdpbench.lazy import pil

IGNORE = 255
"""Label of pixels without ground truth, in COCO-Stuff and Pascal alike."""


def _lookup(categories: Sequence[int]) -> NDArray[np.uint8]:
    """From a category id to its place among these; 255 for any other."""
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[list(categories)] = np.arange(len(categories))
    return lookup


_NEVER_ANNOTATED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)  # hat, shoe, eye glasses and so on
_THINGS = tuple(category for category in range(1, 91) if category not in _NEVER_ANNOTATED)
# The kinds of stuff that panoptic keeps: 12 were given up (cloth, clothes, metal and so on), and 43 were merged into
# the ids 184 to 200 (tree, fence, ceiling, sky, cabinet, table, floor, pavement, mountain, grass and so on).
_KEPT = (
    *(92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145),
    *(147, 148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181),
)

STUFF_171 = _lookup([category - 1 for category in (*_THINGS, *range(92, 183))])
"""COCO-Stuff label (0 to 181, 255) to 171 classes."""
PANOPTIC_133 = _lookup((*_THINGS, *_KEPT, *range(184, 201)))
"""COCO panoptic category id (1 to 200) to 133 classes."""

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
    segment_ids, places = np.unique(ids, return_inverse=True)
    if unknown := [id_ for id_ in segment_ids.tolist() if id_ not in category_of]:
        raise ImageError(f"panoptic annotation: segments {unknown[:5]} are in the PNG and not in the JSON file")
    categories = [category_of[id_] for id_ in segment_ids.tolist()]
    if wrong := [id_ for id_ in categories if id_ and (not 0 < id_ <= 200 or PANOPTIC_133[id_] == IGNORE)]:
        raise ImageError(f"panoptic annotation: categories {wrong[:5]} are not among the 133 of COCO panoptic")
    return PANOPTIC_133[categories][places.reshape(ids.shape)]


def from_stuff(labels: NDArray[Any]) -> Labels:
    """The 171 classes of a COCO-Stuff map ``(H, W)``.

    Raises:
        ImageError: not a map of 0 to 181 and 255.

    >>> from_stuff(np.array([[0, 181, 255]], np.uint8)).tolist()
    [[0, 170, 255]]
    """
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ImageError(f"a COCO-Stuff map is 8-bit grey (H, W), found {labels.dtype} {labels.shape}")
    mapped: Labels = STUFF_171[labels]
    if ((mapped == IGNORE) & (labels != IGNORE)).any():
        wrong = np.unique(labels[(mapped == IGNORE) & (labels != IGNORE)])[:5].tolist()
        raise ImageError(f"COCO-Stuff map: labels {wrong} are not among its 171 classes: is it another file?")
    return mapped


def write_labels(path: Path, labels: Labels, classes: Classes) -> None:
    """Write a map as the PNG that `load_labels` reads, with the name of its list of classes.

    Raises:
        ImageError: not ``uint8 (H, W)``, or a class that the list does not have.
    """
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

    The ``image`` before the protocol is needed where the protocol draws its crop by the pixels; without ``classes`` a
    map of any list is taken.

    Raises:
        ImageError: no such file, damaged, not 8-bit grey, of another list of classes, or refused by the protocol.
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
