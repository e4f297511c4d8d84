"""Runs and published numbers as one tidy frame, for one's own analysis, and what each column means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rdpbench import registry
from rdpbench.codecs.contract import GRADES
from rdpbench.errors import ConfigError, UnknownName
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
) -> pd.DataFrame:
    """Runs as one tidy frame: a line for each point and metric, or for each image, point and metric.

    ``docs/results.md`` says what each column means (`rdpbench.results.read`); all of them are always there.

    Args:
        runs: names of runs below ``root``, or their folders.
        per: ``point`` for means over images with their intervals, ``image`` for what they are means of.
        published: add the points that others published; they have no lines per image.
        root: where runs lie.
        grades: of rates; ``joint`` and ``reported`` are rates that no decoder proves, and their labels say so.

    Raises:
        UnknownName: no such run.
        ConfigError: neither a run nor published numbers, a run named twice, or published numbers per image.
        StoreError: a run of a newer version, or damaged.

    >>> frame = read_results(published=True)
    >>> lpips = frame[(frame["codec"] == "ms-illm") & (frame["metric"] == "lpips/alex") & (frame["dataset"] == "kodak")]
    >>> round(float(lpips[lpips["source_id"] == "neuralcompression"]["value"].min()), 4)
    0.018
    """
    registry.meanings.clear()  # of runs that were read before
    if unknown := [grade for grade in grades if grade not in GRADES]:
        raise UnknownName("grade", unknown[0], GRADES)
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
    from rdpbench.results.stats.current import of_store

    parts = []
    for store, name in zip(stores, names, strict=True):
        label = name if names.count(name) == 1 else str(store.folder)
        points = of_store(store.read(), grades=grades)
        parts.append((points_of if per == "point" else images_of)(label, points))
    if published:
        from rdpbench.results.published import published as numbers

        parts.append(numbers())
    return joined(parts, POINTS if per == "point" else IMAGES)


def joined(parts: Sequence[pd.DataFrame], columns: Mapping[str, Column]) -> pd.DataFrame:
    """One frame with all columns, each with the type of its kind; what a part does not have is empty, NaN, 0 or no."""
    types: dict[str, tuple[str, Any]] = {"text": ("str", ""), "number": ("float64", math.nan)}
    types |= {"count": ("int64", 0), "yes/no": ("bool", False)}
    kinds, blanks = ({name: types[column.kind][n] for name, column in columns.items()} for n in (0, 1))
    filled = [part.assign(**{name: blanks[name] for name in kinds if name not in part}) for part in parts]
    return pd.concat([part[[*kinds]].astype(kinds) for part in filled], ignore_index=True)


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
    made = "" if runs else "; `rdpbench run` makes one"
    looked = f"looked in {root}; root=FOLDER looks elsewhere{made}{hint}"
    raise UnknownName("run", str(run), runs, looked, near=inside[0] if inside else None)


def points_of(name: str, points: Points) -> pd.DataFrame:
    """A line for each of a run's points and metrics."""
    from rdpbench.results.names import family
    from rdpbench.results.stats.points import Where
    from rdpbench.results.stats.summary import PLACE, frame
    from rdpbench.setting import Setting

    lines = frame(points, points.metrics)
    families, kinds = lines["metric"].map(family), bits_kinds(lines, points)
    grades_of = {point.codec: point.grade for point in points.points}
    machines = {
        (point.where, point.codec, point.setting): ", ".join(filter(None, map(model, hardware.used())))
        for point, hardware in ((point, point.rows.codes("hardware")) for point in points.points)
    }
    keys = ((Where(*(line[c] for c in PLACE)), line["codec"], Setting.of_line(line)) for _, line in lines.iterrows())
    own: dict[str, Any] = {
        "family": families,
        "bits_kind": kinds,
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

    kinds: dict[tuple[str, str, str, str], set[str]] = {}
    for point in points.points:
        kinds.setdefault((*point.where, point.codec), set()).update(point.rows.codes("bits_kind").used())
    return [", ".join(sorted(filter(None, kinds.get(key, ())))) for key in curve_keys(lines)]


def images_of(name: str, points: Points) -> pd.DataFrame:
    """A line for each image of each point of a run, and metric."""
    from rdpbench.results.stats.meanings import meaning
    from rdpbench.results.stats.summary import tidy

    pairs = [metric for metric in points.metrics if meaning(metric).kind != "set"]
    return tidy(points, pairs).assign(run=name)


@dataclass(frozen=True)
class Column:
    """What a column holds."""

    kind: str
    """``text``, ``number``, ``count`` or ``yes/no``; a number may be NaN."""
    meaning: str


_text, _number, _count, _flag = (partial(Column, kind) for kind in ("text", "number", "count", "yes/no"))

POINTS: Mapping[str, Column] = {
    "run": _text("The run's name; empty for a published number."),
    "dataset": _text("The dataset. The name of a published set that is not ours ends in `@` and its source."),
    "manifest": _text("sha256 of the dataset's manifest, which tells sets of one name apart; empty where published."),
    "protocol": _text("What was done to the images before the codec (`docs/protocols.md`)."),
    "codec": _text("The curve's label: the codec, and in brackets the options that were changed."),
    "rate_field": _text("Name of the native setting, such as `quality`; empty for a codec with a single point."),
    "target_bpp": _number("The target rate that was searched for each image; NaN where settings were given."),
    "rate": _number("The native setting; NaN for a searched target or a single point."),
    "n": _count("Images that were coded; 0 for a published number whose images are not known."),
    "dataset_size": _count("Images that the dataset has."),
    "partial": _flag("Fewer images than the dataset has."),
    "failed": _count("Tasks that failed; no mean includes them."),
    "out_of_range": _count("Tasks with no setting within the tolerance of their target rate; no mean includes them."),
    "weights": _text(
        "`official`, `unpinned` (no published hash), `own`, `random` (never a result), or empty for none."
    ),
    "seeds": _count("Seeds of a stochastic codec that the means include; 0 for a published number."),
    "bpp": _number("Bits per pixel: mean over the images behind `value` of `8 * bytes / (height * width)`."),
    "bpp_lo": _number("Lower end of its 95 % interval over images; NaN for one image."),
    "bpp_hi": _number("Upper end."),
    "bpp_seed_sd": _number("Standard deviation of the mean over seeds; NaN for one seed."),
    "bpp_pooled": _number("All bits of these images over all of their pixels."),
    "bpp_all": _number("Mean over all images that were coded, with or without a value."),
    "metric": _text("The metric with its protocol; empty if none was computed."),
    "value": _number("Mean over images, or the value of the set; infinite if all images are lossless."),
    "value_lo": _number("Lower end of its 95 % interval over images."),
    "value_hi": _number("Upper end."),
    "value_seed_sd": _number("Standard deviation of the value over seeds; NaN for one seed."),
    "n_scored": _count("Images that the metric took."),
    "infinite": _count("How many of these are lossless, and so left out of the mean."),
    "images": _text("Fingerprint of the images behind `value` and `bpp`; points that are compared have the same."),
    "unit": _text("`dB`, another unit, or empty."),
    "higher_is_better": _flag("The direction of the metric."),
    "perceptual": _flag("Whether it is drawn on the perception axis."),
    "reliable": _flag("False where a metric of sets had fewer images than it needs."),
    "note": _text("For a metric of sets: why it has no value or no interval, or another remark; else empty."),
    "family": _text("The metric without its protocol, such as `fid`."),
    "variant": _text("Tells several published curves of a codec apart; empty for a measured one."),
    "bits_kind": _text("What the rate counts (`docs/published.md`); `file`: every byte of a bitstream."),
    "grade": _text(
        "How far the rate is proven: `decoded`, `joint` or `reported` (`docs/external.md`); empty where published."
    ),
    "machine": _text("Models of what coded it, with commas between; empty if not known, and where published."),
    "source_id": _text("Short name of the published source; empty for a measured point."),
    "source": _text("The source in full, down to the file or table; for a measured point `run` and its name."),
    "digitised": _flag("Whether the number was read off a plot."),
    "doubtful": _text("Why a published number cannot be relied on; empty if nothing is known against it."),
}
"""Of a frame with a line for each point and metric, in this order."""

IMAGES: Mapping[str, Column] = {
    "run": POINTS["run"],
    "task_key": _text("sha256 over all that the result depends on."),
    "session": _text("Which call of rdpbench wrote it; `sessions/<session>.json` holds its provenance."),
    "codec": POINTS["codec"],
    "use": _text("What was loaded: a registry name or `file.py:Class`."),
    "options": _text("The options that were chosen, without the rate, as JSON."),
    "configuration": _text(
        "What the codec was set to, as JSON: all options of its key but the rate, defaults too; under `as it ran` what "
        "it derived of them (steps, scheduler) and where published weights are from. Empty if not known."
    ),
    "coder": _text("Versions of the codec's class and libraries, or sha256 of the binaries, that coded, as JSON."),
    "rate_field": POINTS["rate_field"],
    "rate": _number("The native setting; for a target, the setting that came nearest to it."),
    "target_bpp": POINTS["target_bpp"],
    "tolerance": _number("The `tolerance=` of the search; NaN without a target, or if not known."),
    "seed": _count("The seed; 0 for a codec that draws no random numbers."),
    "dataset": _text("The dataset."),
    "dataset_size": POINTS["dataset_size"],
    "manifest": _text("sha256 of the dataset's manifest: which files, in which order."),
    "manifest_kind": _text(
        "How the files were verified: `pinned`, `recorded`, `names` or `made` (`docs/datasets.md`)."
    ),
    "root": _text("The folder of a dataset of yours: its name and a hash of its path; empty for a set with a name."),
    "protocol": POINTS["protocol"],
    "image": _text("The image's id."),
    "tags": _text("Its tags, comma-separated."),
    "path": _text("The file that was read, below the folder of its dataset; `sessions/` says where that lay."),
    "pixel_sha256": _text("sha256 of the pixels that the codec and all metrics saw."),
    "source_mode": _text("How the file stores its pixels (`docs/images.md`), such as `RGBA+icc`."),
    "source_height": _number("Height in the file, before the protocol; the rate is never over these pixels."),
    "source_width": _number("Width in the file."),
    "height": _count("Height of what the codec and all metrics see."),
    "width": _count("Width of what the codec and all metrics see."),
    "caption": _text("The caption that the encoder was given; empty if the codec takes none."),
    "caption_source": _text("`human`, `ofa`, `blip2` or `file:NAME@SHA`; empty if the codec takes no caption."),
    "caption_s": _number("Seconds that a captioning model took; part of encoding."),
    "status": _text("`ok`, `error`, or `out_of_range`: the nearest setting is too far from the target."),
    "error": _text("Why it failed, or why the target is out of range."),
    "bytes": _number("Size of the bitstream: every transmitted byte."),
    "parts": _text("Bytes by part, as JSON; they add up to `bytes`."),
    "bpp": _number("`8 * bytes / (height * width)`; for a target out of range, that of the nearest setting."),
    "bits_kind": POINTS["bits_kind"],
    "grade": POINTS["grade"],
    "legacy": _text("Bits as other publications count them, by the name of the way, as JSON (`docs/learned.md`)."),
    "weights": POINTS["weights"],
    "bitstream_sha256": _text("sha256 of the bitstream, which is its file's name in the run's folder."),
    "reconstruction_sha256": _text("sha256 of the decoded 8-bit pixels."),
    "verified": _text("What decoded the same pixels: `fresh_object` or `fresh_process`; `refuted`: other pixels came."),
    "encode_s": _number("Seconds to encode while other work runs: for planning, not for latency tables."),
    "decode_s": _number("Seconds to decode, likewise."),
    "score_s": _number("Seconds for all metrics together, likewise."),
    "peak_memory_mb": _number("Highest resident memory of the worker process so far."),
    "device": _text("The device that computed it, as `device=` names it, such as `cpu`."),
    "hardware": _text("What that device is, as JSON: its model; of a GPU also driver, CUDA, and how it rounds."),
    "threads": _count("Threads of the worker."),
    "batch": _count("Images that were decoded together."),
    "command": _text("The command line, where the codec runs a program."),
    "info": _text(
        "What the codec says of this image beside its bytes, texts by name as JSON: a prompt that it found, the `seed` "
        "of its decoder's noise, errors of a search. Long texts are cut and marked."
    ),
    "files": _text("Files that a codec of yours has as fields or opened, with their sha256, as JSON."),
    "attempts": _count("How many encodes the search of a target took; else 1."),
    "time": _text("When the row was made, in UTC."),
    "metric": POINTS["metric"],
    "value": _number("The metric's value for this image, in its unit; NaN where there is none."),
    "metric_error": _text("Why the metric refused the image."),
}
"""Of a frame with a line for each image, point and metric, in this order."""


def columns_in_words() -> str:
    """A table for each kind of frame, as docs/results.md has them."""
    parts = []
    titles = {"A line for each point and metric": POINTS, 'A line for each image (`per="image"`)': IMAGES}
    for title, columns in titles.items():
        rows = [f"| `{name}` | {column.kind} | {column.meaning} |" for name, column in columns.items()]
        parts.append("\n".join([f"## {title}", "", "| column | kind | meaning |", "| --- | --- | --- |", *rows]) + "\n")
    return "\n".join(parts)
