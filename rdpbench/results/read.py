"""Results for one's own analysis: runs and published numbers as one tidy frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rdpbench import registry
from rdpbench.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    import pandas as pd

    from rdpbench.results.fields import Field
    from rdpbench.results.stats.points import Points
    from rdpbench.results.store import Contents, Store


def read_results(
    *runs: str | Path,
    per: Literal["point", "image"] = "point",
    published: bool = False,
    root: str | Path = "results/runs",
) -> pd.DataFrame:
    """Runs as one tidy frame: a line for each point and metric, or for each image, point and metric.

    ``docs/results.md`` says what each column means (`rdpbench.results.fields`); all of them are always there.

    Args:
        runs: names of runs below ``root``, or their folders.
        per: ``point`` for means over images with their intervals, ``image`` for what they are means of.
        published: add the points that others published; they have no lines per image.
        root: where runs lie.

    Raises:
        UnknownName: no such run.
        ConfigError: neither a run nor published numbers, a run named twice, or published numbers per image.
        StoreError: a run of a newer version, or damaged.

    >>> frame = read_results(published=True)
    >>> of = frame[(frame["codec"] == "ms-illm") & (frame["metric"] == "lpips/alex") & (frame["dataset"] == "kodak")]
    >>> round(float(of[of["source_id"] == "neuralcompression"]["value"].min()), 4)
    0.018
    """
    from rdpbench.results.fields import IMAGES, POINTS  # not above: `python -m rdpbench.results.fields` runs it

    registry.meanings.clear()  # of runs that were read before
    if per not in ("point", "image"):
        raise UnknownName("kind of line", per, ["point", "image"])
    if published and per == "image":
        raise ConfigError("published numbers are means: with per='image' leave out published=True")
    if not runs and not published:
        raise ConfigError("name a run, as in read_results('kodak'), or ask for published=True")
    stores = [open_run(run, root) for run in runs]
    folders = [store.folder.resolve() for store in stores]
    if twice := [str(folder) for folder in folders if folders.count(folder) > 1]:
        raise ConfigError(f"{twice[0]} is named twice; its points would count twice")
    names = [folder.name for folder in folders]
    parts = []
    for store, name in zip(stores, names, strict=True):
        label = name if names.count(name) == 1 else str(store.folder)
        contents = store.read()
        parts.append(_points(label, contents) if per == "point" else _images(label, contents))
    if published:
        from rdpbench.results.published import published as numbers

        parts.append(numbers().assign(run=""))
    return _together(parts, POINTS if per == "point" else IMAGES)


def open_run(run: str | Path, root: str | Path = "results/runs") -> Store:
    """A run by its name below ``root``, or by its folder.

    Raises:
        UnknownName: nothing is stored there.
    """
    from rdpbench.results.store import Store

    root = Path(root)
    for folder in (root / run, Path(run)):
        store = Store(folder)
        if store.exists():
            return store
    found = [path.name for path in root.iterdir() if Store(path).exists()] if root.is_dir() else []
    raise UnknownName("run", str(run), found, f"looked in {root}; root=FOLDER looks elsewhere")


def _points(name: str, contents: Contents) -> pd.DataFrame:
    from rdpbench.results.published_files import family
    from rdpbench.results.stats.current import of_store
    from rdpbench.results.summary import frame

    points = of_store(contents)
    lines = frame(points, points.metrics)
    kinds = bits_kinds(points)
    of = zip(lines["dataset"], lines["manifest"], lines["protocol"], lines["codec"], strict=True)
    return lines.assign(
        run=name,
        family=lines["metric"].map(family),
        variant="",
        bits_kind=[kinds.get(key, "") for key in of],
        source_id="",
        source=f"run {name}",
        digitised=False,
        doubtful="",
    )


def bits_kinds(points: Points) -> Mapping[tuple[str, str, str, str], str]:
    """What the rates of each curve count, by dataset, manifest, protocol and codec."""
    kinds: dict[tuple[str, str, str, str], set[str]] = {}
    for point in points.points:
        kinds.setdefault((*point.where, point.codec), set()).update(row.bits_kind for row in point.rows)
    return {key: ", ".join(sorted(filter(None, of))) for key, of in kinds.items()}


def _images(name: str, contents: Contents) -> pd.DataFrame:
    from rdpbench.results.show import tidy
    from rdpbench.results.stats.current import of_store
    from rdpbench.results.stats.meanings import meaning

    points = of_store(contents)
    pairs = [metric for metric in points.metrics if meaning(metric).kind != "set"]
    return tidy(points, pairs).assign(run=name)


def _together(parts: list[pd.DataFrame], fields: Mapping[str, Field]) -> pd.DataFrame:
    """All columns, each with the type that its kind has; also where there are no lines."""
    import pandas as pd

    types = {"text": "str", "number": "float64", "count": "int64", "yes/no": "bool"}
    typed = []
    for part in parts:
        whole = part.reindex(columns=list(fields))
        typed.append(whole.astype({name: types[field.kind] for name, field in fields.items()}))
    return pd.concat(typed, ignore_index=True)
