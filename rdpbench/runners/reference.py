"""The other side of set metrics that do not compare with the originals, such as ``clic2020-train@text-sketch-512``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdpbench.datasets.command import dataset
from rdpbench.datasets.index import Entry, index
from rdpbench.datasets.loader import ahead
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ImageError
from rdpbench.image import Image, pixel_sha256
from rdpbench.metrics.contract import SetMetric
from rdpbench.provenance import new_session
from rdpbench.results.features import Array, load
from rdpbench.runners.features import Extractor, kind, originals, subject
from rdpbench.runners.progress import progress

ORIGINALS = "originals"


def reference_of(metric: type[SetMetric]) -> str:
    """The other side of a set metric: ``originals``, or a dataset with its protocol.

    >>> from rdpbench.metrics.fid import FIDClean
    >>> reference_of(FIDClean) == ORIGINALS
    True
    """
    return str(getattr(metric, "reference", ORIGINALS))


def lacking(metric: type[SetMetric]) -> str | None:
    """What is missing of a metric's own reference set; None if nothing is, or if it has none."""
    name = reference_of(metric)
    if name == ORIGINALS:
        return None
    missing = getattr(_dataset(name), "missing", None)
    text: str | None = missing() if missing else None
    return f"compares with {name}: {text}" if text else None


def reference_arrays(name: str, metric: type[SetMetric], device: str) -> Sequence[Array]:
    """The arrays of a metric's own reference set; made once, and kept in the user's cache beside those of originals."""
    made = _dataset(reference_of(metric))
    entries = index(made)
    subjects = [subject(metric.features, entry.sha256, entry.sample) for entry in entries]
    store = originals()
    here = store.places(kind(metric.features))
    todo = [entry for entry, one in zip(entries, subjects, strict=True) if one not in here]
    if todo:
        extractor, writer = Extractor(device), store.writer(new_session())
        try:
            with progress(len(todo)) as shown, ahead(todo, lambda entry: _pixels(entry, made.protocol)) as images:
                for entry, image in zip(todo, images, strict=True):
                    writer.append(extractor.extract(name, image, entry.sha256, entry.sample, made.protocol))
                    shown.advance(failed=False)
        finally:
            writer.close()
    return load(store.places(kind(metric.features)), subjects)


def _dataset(reference: str) -> Any:
    name, _, protocol = reference.partition("@")
    return dataset(name, protocol=protocol)


def _pixels(entry: Entry, protocol: str) -> Image:
    pixels = load_under(protocol, entry.sample.path).pixels
    if pixel_sha256(pixels) != entry.sha256:
        raise ImageError(f"{entry.sample.path} changed while it was read")
    return pixels
