"""What lies beside the images of a folder or manifest of one's own: captions to score against, and label maps.

::

    data=folder:pictures data.options.references=captions.json data.options.labels=maps
    data=manifest:mine.sha256      # whose lines "# references: captions.json" and "# labels: maps" name them

``references`` is a JSON file in the forms of ``captions=file:`` (`rdpbench.datasets.captions.files`); all captions of
an image are scored against, and none is given to an encoder. ``labels`` is a folder of PNGs as
`rdpbench.datasets.labels.write_labels` writes them, with the images' names: ``maps/a/b.png`` for ``pictures/a/b.jpg``.
Images without either are told by the plan, where a metric needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rdpbench.datasets.captions import files
from rdpbench.datasets.contract import Sample
from rdpbench.errors import ConfigError


def place(given: str) -> Path | None:
    """A file or folder as it was typed; None for none.

    >>> place("") is None
    True
    """
    return Path(given).expanduser().absolute() if given else None


def with_beside(
    samples: Sequence[Sample], root: Path, dataset: str, references: Path | None, labels: Path | None
) -> Iterator[Sample]:
    """The samples with their captions and label maps, where there are some.

    Args:
        samples: images below ``root``.
        root: the folder of the images.
        dataset: the set's name, for messages.
        references: the JSON file of captions.
        labels: the folder of label maps.

    Raises:
        ConfigError: the file or folder is not there or cannot be read, or it names no image of the set.
    """
    captions: dict[str, tuple[str, ...]] = {}
    if references:
        try:
            raw = references.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read the references {references}: {error.strerror}") from error
        listed = files.read_references(raw, str(references))
        names = files.match(listed, samples, str(references), dataset, partial=True)
        captions = {image: listed[name] for image, name in names.items()}
    maps = _maps(samples, root, dataset, labels) if labels else {}
    for sample in samples:
        yield replace(sample, references=captions.get(sample.id, ()), labels=maps.get(sample.id))


def _maps(samples: Sequence[Sample], root: Path, dataset: str, labels: Path) -> dict[str, Path]:
    if not labels.is_dir():
        raise ConfigError(f"no such folder of label maps: {labels}")
    wanted = {sample.id: labels / sample.path.relative_to(root).with_suffix(".png") for sample in samples}
    found = {image: path for image, path in wanted.items() if path.is_file()}
    if not found:
        first = next(iter(wanted.values()))
        raise ConfigError(f"{labels} has a label map for no image of {dataset!r}; the first would be {first}")
    return found


def how(what: str) -> str:
    """How to give a folder or manifest ``captions`` to score against, or ``labels``.

    >>> how("captions")
    'data.options.references=FILE names a JSON file {"image name": ["caption", ...]}'
    """
    if what == "captions":
        return 'data.options.references=FILE names a JSON file {"image name": ["caption", ...]}'
    return (
        "data.options.labels=FOLDER names a folder of PNGs with the images' names, "
        "as rdpbench.datasets.labels.write_labels(path, labels, classes) writes them"
    )
