"""What metrics take beside an image: captions to score against, label maps; and what of it enters a key.

The other side of set metrics that do not compare with the originals, such as ``clic2020-train@text-sketch-512``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rdpbench.datasets.command import named_dataset
from rdpbench.datasets.contract import Sample
from rdpbench.datasets.index import Entry
from rdpbench.errors import ImageError, MetricError
from rdpbench.metrics.contract import SetMetric


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


def lacking_reference(metric: type[SetMetric]) -> str | None:
    """What is missing of a metric's own reference set; None if nothing is, or if it has none."""
    name = reference_of(metric)
    if name == ORIGINALS:
        return None
    missing = getattr(_dataset(name), "missing", None)
    text: str | None = missing() if missing else None
    return f"compares with {name}: {text}" if text else None


ORIGINALS = "originals"


def reference_of(metric: type[SetMetric]) -> str:
    """The other side of a set metric: ``originals``, or a dataset with its protocol."""
    return str(getattr(metric, "reference", ORIGINALS))


def _dataset(reference: str) -> Any:
    name, _, protocol = reference.partition("@")
    return named_dataset(name, protocol=protocol)
