"""Numbers that others published, each with its source, in the columns that our own measurements have.

::

    results/published/
      sources.csv              where each source is, and what it counted as bits
      <dataset>/<source>.csv   one line per number
      dropped.csv              what was found and left out, with the reason

A dataset, metric or protocol has our name only where it is the same thing. Where it is another, or nobody says, the
name ends in ``@`` and whose it is: ``clic2020-mobile@compressai``, ``fid@crdr``, ``psnr@unstated`` (8-bit or float?).
What is known to be wrong in a source, or is likely to be, stays as it was printed and says so in ``doubtful``.
``docs/published.md`` lists all of it. Lines are sorted and digits fixed: a change in git is a change of a number.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rdpbench import registry
from rdpbench.errors import check_names
from rdpbench.lazy import pd
from rdpbench.paths import shipped
from rdpbench.results.csv_files import read_csv
from rdpbench.results.names import AxisMeaning, family, meaning
from rdpbench.results.read import joined

VERSION = 1
KIND, SOURCES_KIND = "rdpbench-published", "rdpbench-published-sources"
AGAIN = (
    "Get it again: git checkout results/published, or from the shared table: "
    "python benchmarks/build_published.py TABLE.csv"
)

BITS = {
    "file": "bytes of a file that a decoder needs nothing else for",
    "payload": "bytes of the coded strings alone: sizes or lengths are missing",
    "object": "size of a Python object that holds the strings: pickled, or asked of the interpreter",
    "estimated": "from likelihoods: nothing was coded",
    "nominal": "a name or a target, not a measurement",
    "unstated": "the source does not say",
    "none": "no rate: a bound without quantisation",
}
"""What a published rate counts."""


@dataclass(frozen=True)
class PublishedNumber:
    """One published number; the order of the fields is the order of the lines' cells, but for the first two."""

    dataset: str
    source: str
    """Its id in ``sources.csv``."""
    codec: str
    variant: str
    """What tells two curves of one codec and source apart."""
    rate_field: str
    rate: float | None
    """The setting, where the source gives it."""
    protocol: str
    bpp: float | None
    bits_kind: str
    metric: str
    value: float
    place: str
    """File in the repository, or table of the paper."""
    digitised: bool
    """Read off a plot."""
    doubtful: str
    """Why the number, or what it is said to be of, cannot be relied on; else empty."""


@dataclass(frozen=True)
class PublishedSource:
    """Where numbers come from."""

    id: str
    where: str
    """``owner/repository@commit``, or the paper."""
    title: str
    counted: str
    """What its rates count, in words."""


CELLS = tuple(field.name for field in fields(PublishedNumber))[2:]
ABOUT = tuple(field.name for field in fields(PublishedSource))


def read(path: Path) -> list[PublishedNumber]:
    """The numbers of one file.

    Raises:
        StoreError: a file of another version.
        StoreCorrupt: not such a file, or a line that is none.
    """

    def parse(cells: dict[str, str]) -> PublishedNumber:
        if cells["digitised"] not in ("", "yes"):
            raise ValueError(f"digitised is {cells['digitised']!r}, not 'yes' or empty")
        known: dict[str, Any] = {name: float(cells[name]) if cells[name] else None for name in ("rate", "bpp")}
        known |= {"value": float(cells["value"]), "digitised": cells["digitised"] == "yes"}
        return PublishedNumber(dataset=path.parent.name, source=path.stem, **(cells | known))

    return read_csv(path, KIND, VERSION, AGAIN, lambda *_: [*CELLS], parse)


def read_sources(path: Path) -> dict[str, PublishedSource]:
    """The sources by their id. Raises as `read` does."""
    sources = read_csv(path, SOURCES_KIND, VERSION, AGAIN, lambda *_: [*ABOUT], lambda cells: PublishedSource(**cells))
    return {source.id: source for source in sources}


IMAGES = {
    "kodak": 24,
    "clic2020-test": 428,
    "clic2020-professional-valid": 41,
    "clic2021-test": 60,
    "clic2022-test": 30,
    "coco-30k-perco": 30000,
    "coco-30k-taco": 30504,
    "coco-100@taco": 100,
    "div2k-valid": 100,
    "tecnick": 100,
}
"""Images of the sets, where that is known."""
CURVE = ["dataset", "protocol", "codec", "variant", "source_id", "metric"]
"""The columns that tell curves apart."""


HINT = "with published numbers, that is"


def folder() -> Path:
    """Where the files are."""
    return shipped("published_numbers", "results/published")


def numbers(dataset: str | None = None) -> list[PublishedNumber]:
    """All published numbers, or those on one dataset.

    Raises:
        UnknownName: there is nothing on that dataset.
        StoreError: a file of another version, or damaged.

    >>> len({number.source for number in numbers("clic2022-test")})
    1
    """
    root = folder()
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    check_names("dataset", [] if dataset is None else [dataset], names, HINT)
    paths = [path for name in names if dataset in (None, name) for path in sorted((root / name).glob("*.csv"))]
    return [number for path in paths for number in read(path)]


def published(dataset: str | None = None, codec: str | None = None, metric: str | None = None) -> pd.DataFrame:
    """Published numbers in the columns of measured ones (`rdpbench.results.read.points_of`), as far as they make sense.

    There are no intervals and no counts of failures, and ``n`` is 0 where the number of images is not known. `CURVE`
    names the columns that tell curves apart.

    Raises:
        UnknownName: no number on that dataset, of that codec or under that metric.

    >>> frame = published("kodak", "ms-illm", "lpips/alex")
    >>> round(float(frame[frame["source_id"] == "neuralcompression"]["value"].iloc[2]), 4)
    0.0732
    """
    chosen = numbers(dataset)
    for kind, wanted in (("codec", codec), ("metric", metric)):
        if wanted is not None:
            check_names(kind, [wanted], {getattr(number, kind) for number in chosen}, HINT)
            chosen = [number for number in chosen if getattr(number, kind) == wanted]
    about = read_sources(folder() / "sources.csv")
    frame = pd.DataFrame([vars(number) for number in chosen]).rename(columns={"source": "source_id"})
    frame = frame.astype({"bpp": float, "rate": float})
    where = {key: f"{source.where}{':' if '@' in source.where else ', '}" for key, source in about.items()}
    frame["source"] = frame["source_id"].map(where) + frame["place"]
    frame["family"] = frame["metric"].map(family)
    kinds = {name: meaning(name) for name in frame["metric"].unique()}
    for n, column in enumerate(AxisMeaning._fields):
        frame[column] = frame["metric"].map({name: kind[n] for name, kind in kinds.items()})
    images = frame["dataset"].map(lambda name: IMAGES.get(name, 0))
    fewest = frame["metric"].map({name: _fewest(name) for name in frame["metric"].unique()})
    reliable = (images == 0) | (images >= fewest)
    counts = dict.fromkeys(("n", "n_scored", "dataset_size"), images)
    frame = joined([frame.assign(reliable=reliable, bpp_all=frame["bpp"], **counts)]).drop(columns="run")
    keys = ["dataset", "codec", "variant", "source_id", "metric", "bpp"]
    return frame.sort_values(keys, kind="stable", na_position="last", ignore_index=True)


def _fewest(metric: str) -> int:
    """Images below which our metric of that name refuses; 100 for others' distances between sets."""
    if metric in registry.BUILTIN["metric"]:
        return int(getattr(registry.load("metric", metric), "minimum_images", 0))
    return 100 if family(metric) in ("fid", "fid-swav", "kid") else 0


def sources() -> pd.DataFrame:
    """The sources: ``id, where, title, counted`` and ``numbers``, how many there are of it.

    >>> frame = sources().set_index("id")
    >>> int(frame.loc["hific", "numbers"])
    48
    """
    count = Counter(number.source for number in numbers())
    about = read_sources(folder() / "sources.csv").values()
    return pd.DataFrame([vars(source) | {"numbers": count[source.id]} for source in about])
