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
from rdpbench.metrics.coco_labels import PANOPTIC_133, STUFF_171
from rdpbench.metrics.confusion import IGNORE, remap

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
