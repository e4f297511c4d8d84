"""What metrics take beside an image: captions to score against, label maps; and what of it enters a key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rdpbench.datasets.contract import Dataset, Sample
from rdpbench.datasets.index import Entry
from rdpbench.errors import ImageError, MetricError


def identity(names: Sequence[str], sample: Sample) -> str:
    """sha256 of what a metric takes beside an image: part of the key of its value. Empty if it takes nothing."""
    if not names:
        return ""
    digest = hashlib.sha256()
    for name in names:
        for one in _parts(name, sample):
            digest.update(hashlib.sha256(one.encode()).digest())
    return digest.hexdigest()


def _parts(name: str, sample: Sample) -> Sequence[str]:
    # What the dataset does not have is told when it is needed, as the metric's error for that image.
    if name == "captions":
        return sample.references
    return [_file_sha256(sample.labels)] if sample.labels else []


def values(names: Sequence[str], sample: Sample, protocol: str, classes: str | None = None) -> dict[str, Any]:
    """The keyword arguments that a metric takes beside an image; ``classes`` is the list that its labels must be of.

    Raises:
        MetricError: the dataset does not have it.
    """
    found: dict[str, Any] = {}
    for name in names:
        if name == "captions":
            found[name] = _captions(sample)
        else:
            from rdpbench.datasets.labels import load_labels
            from rdpbench.datasets.protocols import find
            from rdpbench.image import read_image

            image = read_image(sample.path).pixels if find(protocol).drawn else None
            found[name] = load_labels(_labels(sample), protocol, image, classes)  # type: ignore[arg-type]  # a name
    return found


def lacking(what: str, classes: str | None, dataset: Dataset, entries: Sequence[Entry], partial: bool) -> str:
    """Why a dataset's images cannot serve a metric that takes something beside them, and how to give it.

    Args:
        what: ``captions`` or ``labels``.
        classes: the list that label maps must count; None takes any.
        dataset: the set.
        entries: its images.
        partial: are images without it left out of the metric? Wrong label maps never are.

    Returns:
        One line; empty if the metric can be computed.
    """
    faults = {one.sample.id: why for one in entries if (why := _fault(what, one, classes))}
    absent = [image for image, why in faults.items() if why in ABSENT]
    some = len(absent) == len(faults) < len(entries)
    if not faults or (partial and some):
        return ""
    first = next((image for image in faults if image not in absent), absent[0] if absent else "")
    number = f"{len(faults)} of the {len(entries)}"
    told = f"{number} images of {dataset.name} do not serve it, such as {first}: {faults[first]}"
    how = getattr(dataset, "beside_missing", None)
    asked = KINDS.get(classes or "", what) if what == "labels" else what
    told += f"; {how(asked)}" if how else "; the sets of MS-COCO bring it, and folders and manifests can"
    return told + ("; allow_partial=true scores the others" if some else "")


ABSENT = ("it has no caption to score against", "it has no label map")
KINDS = {"coco-panoptic-133": "panoptic", "coco-stuff-171": "stuff"}
"""Lists of classes, and what label maps of them are called."""


def _fault(what: str, entry: Entry, classes: str | None) -> str:
    """Why an image cannot be scored; empty if it can."""
    sample = entry.sample
    if what == "captions":
        blank = not all(caption.strip() for caption in sample.references)
        return ABSENT[0] if not sample.references else "one of its captions is empty" if blank else ""
    if sample.labels is None:
        return ABSENT[1]
    from rdpbench.datasets.labels import look_at, of_another_list

    try:
        found = look_at(sample.labels)
    except ImageError as error:
        return str(error)
    if classes is not None and found.classes != classes:
        return of_another_list(sample.labels, found.classes, classes)
    if (found.height, found.width) != (entry.source_height, entry.source_width):
        sizes = f"{found.width} x {found.height}, and the image {entry.source_width} x {entry.source_height}"
        return f"{sample.labels} is {sizes} (width x height)"
    return ""


def _captions(sample: Sample) -> tuple[str, ...]:
    if not sample.references:
        raise MetricError(
            f"image {sample.id} has no caption to score against; use a dataset with captions, such as coco-val2017"
        )
    return sample.references


def _labels(sample: Sample) -> Path:
    if sample.labels is None:
        raise MetricError(f"image {sample.id} has no label map; MS-COCO has: data.options.labels=panoptic, or =stuff")
    return sample.labels


@cache
def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
