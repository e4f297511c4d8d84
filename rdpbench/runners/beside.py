"""What metrics take beside an image: captions to score against, label maps; and what of it enters a key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rdpbench.datasets.contract import Sample
from rdpbench.errors import MetricError


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
