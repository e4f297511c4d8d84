"""Numbers that others published, each with its source, in the columns that our own measurements have.

::

    results/published/
      sources.csv              where each source is, and what it counted as bits
      <dataset>/<source>.csv   one line per number
      dropped.csv              what was found and left out, with the reason

A dataset, metric or protocol has our name only where it is the same thing. Where it is another, or nobody says, the
name ends in ``@`` and whose it is: ``clic2020-mobile@compressai``, ``fid@crdr``, ``psnr@unstated`` (8-bit or float?).
What is known to be wrong in a source, or is likely to be, stays as it was printed and says so in ``doubtful``.
``docs/published.md`` lists all of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench import registry
from rdpbench.errors import UnknownName
from rdpbench.results.published_files import FAMILIES, Number, family, read, read_sources
from rdpbench.results.summary import summarise

if TYPE_CHECKING:
    import pandas as pd

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


def folder() -> Path:
    """Where the files are: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "published_numbers"
    return inside if inside.is_dir() else package.parent / "results" / "published"


def numbers(dataset: str | None = None, root: Path | None = None) -> list[Number]:
    """All published numbers, or those on one dataset.

    Raises:
        UnknownName: there is nothing on that dataset.
        StoreError: a file of another version, or damaged.

    >>> len({one.source for one in numbers("clic2022-test")})
    1
    """
    root = folder() if root is None else root
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if dataset is not None and dataset not in names:
        raise UnknownName("dataset", dataset, names, "with published numbers, that is")
    paths = [path for name in names if dataset in (None, name) for path in sorted((root / name).glob("*.csv"))]
    return [number for path in paths for number in read(path)]


def published(dataset: str | None = None, codec: str | None = None, metric: str | None = None) -> pd.DataFrame:
    """Published numbers as `rdpbench.results.summary.summarise` gives measured ones, with their origin.

    The same columns, as far as they make sense: no intervals, no counts of failures, ``images`` empty, ``n`` 0 where
    the number of images is not known. Beside them ``family`` (`family` of the metric), ``variant``, ``bits_kind``
    (`BITS`), ``source_id``, ``source`` (repository@commit:path, or paper and table), ``digitised`` and ``doubtful``
    (empty, or the reason). `CURVE` names the columns of one curve.

    Raises:
        UnknownName: no number on that dataset, of that codec or under that metric.

    >>> frame = published("kodak", "ms-illm", "lpips/alex")
    >>> round(float(frame[frame["source_id"] == "neuralcompression"]["value"].iloc[2]), 4)
    0.0732
    """
    import pandas as pd

    found = numbers(dataset)
    for kind, wanted in (("codec", codec), ("metric", metric)):
        if wanted is not None:
            known = {getattr(one, kind) for one in found}
            if wanted not in known:
                raise UnknownName(kind, wanted, known, "with published numbers, that is")
            found = [one for one in found if getattr(one, kind) == wanted]
    about = read_sources(folder() / "sources.csv")
    frame = pd.DataFrame([vars(one) for one in found]).rename(columns={"source": "source_id"})
    frame = frame.astype({"bpp": float, "rate": float})
    where = frame["source_id"].map(
        {key: f"{one.where}{':' if '@' in one.where else ', '}" for key, one in about.items()}
    )
    frame["source"] = where + frame["place"]
    frame["family"] = frame["metric"].map(family)
    for name in ("unit", "higher_is_better", "perceptual"):
        frame[name] = frame["family"].map({key: getattr(of, name) for key, of in FAMILIES.items()})
    frame["n"] = frame["dataset"].map(lambda name: IMAGES.get(name, 0))
    fewest = frame["metric"].map({name: _fewest(name) for name in frame["metric"].unique()})
    frame["reliable"] = (frame["n"] == 0) | (frame["n"] >= fewest)
    frame = frame.assign(n_scored=frame["n"], dataset_size=frame["n"], partial=False, failed=0, out_of_range=0)
    frame = frame.assign(infinite=0, images="", note="", weights="", seeds=0, **dict.fromkeys(_UNKNOWN, math.nan))
    columns = [*summarise((), (), ()).columns, *OWN]
    keys = ["dataset", "codec", "variant", "source_id", "metric", "bpp"]
    return frame[columns].sort_values(keys, kind="stable", na_position="last").reset_index(drop=True)


_UNKNOWN = ("target_bpp", "bpp_lo", "bpp_hi", "bpp_seed_sd", "value_lo", "value_hi", "value_seed_sd")
OWN = ["family", "variant", "bits_kind", "source_id", "source", "digitised", "doubtful"]
"""Columns that only published numbers have."""


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
    import pandas as pd

    about = read_sources(folder() / "sources.csv")
    count = dict.fromkeys(about, 0)
    for one in numbers():
        count[one.source] += 1
    return pd.DataFrame([vars(one) | {"numbers": count[one.id]} for one in about.values()])


def not_monotone(frame: pd.DataFrame) -> pd.DataFrame:
    """Curves on which a higher rate gives a worse number somewhere, with the largest such step; reported, not refused.

    Some are right: a realism metric may fall with the rate, and perception-distortion codecs trade. Times are left out.

    >>> import pandas as pd
    >>> points = {"bpp": [0.1, 0.2, 0.3], "value": [30.0, 29.5, 31.0], "higher_is_better": True, "unit": "dB"}
    >>> not_monotone(pd.DataFrame(dict.fromkeys(CURVE, "a") | points))["step"].tolist()
    [0.5]
    """
    import pandas as pd

    lines = []
    for key, points in frame[frame["bpp"].notna() & ~frame["unit"].isin(["s", "ms"])].groupby(CURVE, sort=True):
        along = points.sort_values("bpp")
        gain = along["value"].diff() * (1 if along["higher_is_better"].iloc[0] else -1)
        worst = -float(gain.min()) if len(along) > 1 else 0.0
        if worst > 0:
            lines.append((*key, len(along), worst, float(along["bpp"].iloc[int(gain.to_numpy()[1:].argmin()) + 1])))
    return pd.DataFrame(lines, columns=[*CURVE, "points", "step", "bpp"])
