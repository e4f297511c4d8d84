"""Runs and published numbers as one tidy frame, for one's own analysis, and what each column means."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rdpbench import registry
from rdpbench.codecs.contract import GRADES
from rdpbench.errors import ConfigError, UnknownName, check_names
from rdpbench.lazy import pd

if TYPE_CHECKING:
    from rdpbench.results.stats.points import Points
    from rdpbench.results.store.store import Store


def read_results(
    *runs: str | Path,
    per: Literal["point", "image"] = "point",
    published: bool = False,
    root: str | Path = "results/runs",
    grades: Sequence[str] = ("decoded",),
    columns: Sequence[str] = (),
) -> pd.DataFrame:
    """Runs as one tidy frame: a line for each point and metric, or for each image, point and metric.

    ``docs/results.md`` says what each column means; all of them are there, unless ``columns`` names some.
    ``attrs["notes"]`` of the frame says what of the runs is left out, such as rows of an earlier version, or a point
    that has no number.

    Args:
        runs: names of runs below ``root``, or their folders.
        per: ``point`` for means over images with their intervals, ``image`` for what they are means of.
        published: add the points that others published; they have no lines per image.
        root: where runs lie.
        grades: of rates; ``joint`` and ``reported`` are rates that no decoder proves, and their labels say so.
        columns: these alone, in this order: of millions of images, all of them do not fit into memory.

    Raises:
        UnknownName: no such run, or no such column.
        ConfigError: neither a run nor published numbers, a run named twice, or published numbers per image.
        StoreError: a run of a newer version, or damaged.

    Warns:
        UserWarning: values are left out that are of another edition of a metric than those of the other runs.

    >>> frame = read_results(published=True)
    >>> lpips = frame[(frame["codec"] == "ms-illm") & (frame["metric"] == "lpips/alex") & (frame["dataset"] == "kodak")]
    >>> round(float(lpips[lpips["source_id"] == "neuralcompression"]["value"].min()), 4)
    0.018
    """
    registry.meanings.clear()  # of runs that were read before
    check_names("grade", grades, GRADES)
    check_names("kind of line", [per], ["point", "image"])
    check_names("column", columns, kinds(per))
    if published and per == "image":
        raise ConfigError("published numbers are means: with per='image' leave out published=True")
    if not runs and not published:
        raise ConfigError("name a run, as in read_results('kodak'), or ask for published=True")
    if others := [run for run in runs if not isinstance(run, str | Path)]:
        raise ConfigError(f"runs are named one by one, as in read_results('kodak', 'clic'); found {others[0]!r:.80}")
    stores = [open_run(run, root) for run in runs]
    folders = [store.folder.resolve() for store in stores]
    if twice := [str(folder) for folder in folders if folders.count(folder) > 1]:
        raise ConfigError(f"{twice[0]} is named twice; its points would count twice")
    from rdpbench.results.stats.current import of_store
    from rdpbench.results.stats.joined import of_one_edition

    read = {name: of_store(store.read(), grades=grades) for name, store in zip(names_of(stores), stores, strict=True)}
    known, notes = of_one_edition(read)
    if notes:
        warnings.warn("\n".join(notes), stacklevel=2)
    parts = [
        points_of(name, points) if per == "point" else images_of(name, points, columns)
        for name, points in known.items()
    ]
    if published:
        from rdpbench.results.published import published as numbers

        parts.append(numbers())
    frame = joined(parts, per, columns)
    frame.attrs["notes"] = [*dict.fromkeys(note for points in known.values() for note in points.notes), *notes]
    return frame


def joined(
    parts: Sequence[pd.DataFrame], per: Literal["point", "image"] = "point", named: Sequence[str] = ()
) -> pd.DataFrame:
    """One frame with all columns, or those that are ``named``, each with the type of its kind.

    What a part does not have is empty, NaN, 0 or no.
    """
    blanks: dict[str, Any] = {"text": "", "number": math.nan, "count": 0, "yes/no": False}
    types = {"text": "str", "number": "float64", "count": "int64", "yes/no": "bool"}
    wanted = {name: kinds(per)[name] for name in named or kinds(per)}
    columns: Any = {name: types[kind] for name, kind in wanted.items()}
    filled = [part.assign(**{n: blanks[k] for n, k in wanted.items() if n not in part}) for part in parts]
    return pd.concat([part[[*columns]].astype(columns) for part in filled], ignore_index=True)


def open_run(run: str | Path, root: str | Path = "results/runs", hint: str = "") -> Store:
    """A run by its name below ``root``, or by its folder; ``hint`` ends the error.

    Raises:
        UnknownName: nothing is stored there.
    """
    from rdpbench.results.store.store import Store

    root = Path(root)
    for folder in (root / run, Path(run)):
        store = Store(folder)
        if store.exists():
            return store
    runs = [path.name for path in root.iterdir() if Store(path).exists()] if root.is_dir() else []
    inside = [str(folder) for folder in Path(run).parents if Store(folder).exists()]
    begin = "" if runs else "; `rdpbench run` makes one"
    looked = f"looked in {root}; root=FOLDER looks elsewhere{begin}{hint}"
    raise UnknownName("run", str(run), runs, looked, near=inside[0] if inside else None)


def names_of(stores: Sequence[Store]) -> list[str]:
    """What runs are called: runs of one name, as of two machines, after the nearest folder above that tells them apart.

    Raises:
        ConfigError: no folder does.

    >>> from rdpbench.results.store.store import Store
    >>> names_of([Store(Path(name)) for name in ("/a/runs/kodak", "/b/runs/kodak", "/a/runs/tecnick")])
    ['a/kodak', 'b/kodak', 'tecnick']
    """
    folders = [store.folder.resolve() for store in stores]
    names = [folder.name for folder in folders]
    for number, folder in enumerate(folders):
        same = [other.parts[-2::-1] for other in folders if other.name == folder.name]
        apart = [parts for parts in zip(*same, strict=False) if len(set(parts)) == len(same)]
        if len(same) > 1 and not apart:
            raise ConfigError(f"two runs have the name {folder.name!r}; name one of their folders otherwise")
        if len(same) > 1:
            place = [*zip(*same, strict=False)].index(apart[0])
            names[number] = f"{folder.parts[-2 - place]}/{folder.name}"
    return names


def score_command(store: Store, typed: Sequence[str]) -> str:
    """What scores a run as its last call made it, with other settings that are typed; empty if no call is known."""
    calls = [str(record.get("command", "")) for record in store.provenance().values()]
    last = next((call for call in reversed(calls) if call.startswith("rdpbench run ")), "")
    with contextlib.suppress(ValueError):  # anybody may have written the record
        known = {word.partition("=")[0] for word in typed}
        kept = [word for word in shlex.split(last)[2:] if word.partition("=")[0] not in known]
        return shlex.join(["rdpbench", "score", *kept, *typed]) if kept else ""
    return ""


def points_of(name: str, points: Points) -> pd.DataFrame:
    """A line for each of a run's points and metrics."""
    from rdpbench.results.names import family
    from rdpbench.results.stats.points import Where
    from rdpbench.results.stats.summary import PLACE, frame
    from rdpbench.setting import Setting

    lines = frame(points, points.metrics)
    families, bits = lines["metric"].map(family), bits_kinds(lines, points)
    grades_of = {point.codec: point.grade for point in points.points}
    machines = {
        (point.where, point.codec, point.setting): ", ".join(filter(None, map(model, hardware.used())))
        for point, hardware in ((point, point.rows.codes("hardware")) for point in points.points)
    }
    keys = ((Where(*(line[c] for c in PLACE)), line["codec"], Setting.of_line(line)) for _, line in lines.iterrows())
    own: dict[str, Any] = {
        "family": families,
        "bits_kind": bits,
        "grade": lines["codec"].map(grades_of),
        "source": f"run {name}",
    }
    return lines.assign(run=name, machine=[machines[key] for key in keys], **own)


def model(hardware: str) -> str:
    """What computed, of what a row says of it; empty if it is not known.

    >>> model('{"name": "NVIDIA L4", "driver": "550"}')
    'NVIDIA L4'
    """
    return str(json.loads(hardware or "{}").get("name", ""))


def bits_kinds(lines: pd.DataFrame, points: Points) -> list[str]:
    """What the rates of each line's curve count; several kinds are joined by commas."""
    from rdpbench.results.stats.summary import curve_keys

    known: dict[tuple[str, str, str, str], set[str]] = {}
    for point in points.points:
        known.setdefault((*point.where, point.codec), set()).update(point.rows.codes("bits_kind").used())
    return [", ".join(sorted(filter(None, known.get(key, ())))) for key in curve_keys(lines)]


def images_of(name: str, points: Points, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A line for each image of each point of a run, and metric; of ``columns``, all unless some are named."""
    from rdpbench.results.stats.meanings import meaning
    from rdpbench.results.stats.summary import tidy

    pairs = [metric for metric in points.metrics if meaning(metric).kind != "set"]
    return tidy(points, pairs, columns).assign(run=name)


COLUMNS = Path(__file__).with_name("columns.md")
"""What each column of either frame holds, and what it means: a page for people, of which the kinds are read."""


@cache
def kinds(per: Literal["point", "image"]) -> Mapping[str, str]:
    """The columns of a frame, in their order: ``text``, ``number`` (which may be NaN), ``count`` or ``yes/no``.

    >>> kinds("point")["bpp"], len(kinds("image")["image"])
    ('number', 4)
    """
    parts = COLUMNS.read_text(encoding="utf-8").split("\n## ")
    return dict(re.findall(r"^\| `(\w+)` \| (\S+) \| ", parts[per == "image"], re.MULTILINE))
