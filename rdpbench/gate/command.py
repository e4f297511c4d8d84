"""The regression gate: run what a stored curve stands for, and compare; and the command that stores curves.

Nothing is stored of partial points, and nothing is compared with them: their means are over other images.

What made a stored curve, and the command that makes it again.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import rdpbench
from rdpbench import registry
from rdpbench.assets import weights
from rdpbench.codecs.contract import depends_on_cpu, needs_of
from rdpbench.config.bench import read
from rdpbench.config.typed import full_reference
from rdpbench.datasets.contract import dataset_of
from rdpbench.errors import ConfigError, MissingNeed, RdpbenchError, StoreError, StoreUnwritable
from rdpbench.gate import verdicts
from rdpbench.gate.compare import SHOWN, Finding, Tolerances, Verdict, compare, read_tolerances
from rdpbench.gate.curves import Curve, curve_path, load, measure, setting_of, write
from rdpbench.needs import Package, package_version
from rdpbench.paths import available, conf_folder, curves_folders
from rdpbench.results.stats.current import of_store
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.runners.execute import Done, execute
from rdpbench.runners.preflight import fetch_weights
from rdpbench.runners.sweep import search_dataset
from rdpbench.runners.task import identity, member_of
from rdpbench.setting import Bench, CodecSetting, DataSetting

SWEEP = ("rate", "points", "bpp", "search", "tolerance", "seed")
"""Settings that choose the points; a stored curve brings them, unless they are typed."""

Pair = tuple[CodecSetting, DataSetting]


def origin(bench: Bench, pair: Pair, rows: Sequence[Row], done: Done, again: str) -> dict[str, Any]:
    """What made a curve. Without times and machine names: the same curve made again is the same file."""
    made = json.loads(identity(pair[0]))
    codec = registry.load("codec", pair[0].use)
    packages = [need.name for need in needs_of(codec) if isinstance(need, Package)]
    return {
        "codec": pair[0].name,
        "dataset": dataset_of(pair[1]).name,
        "manifest": _manifest(rows),
        "configuration": {"use": made["use"], "options": made["options"]},
        "coder": {
            **made["coder"],
            "version": made["version"],
            **({"source": made["source"]} if made["source"] else {}),
        },
        "packages": {name: package_version(name) for name in packages},
        "metrics": {name: _metric(name) for name in done.plan.metrics},
        "seeds": list(bench.seeds),
        "device": bench.device,
        "cpu": _cpu(depends_on_cpu(codec)),
        "rdpbench": rdpbench.__version__,
        "commits": sorted({commit for commit in _commits(done.store, {row.session for row in rows}) if commit}),
        "sweep": [line for line in bench.overrides if line.partition("=")[0] in SWEEP],
        "command": again,
    }


def _manifest(rows: Sequence[Row]) -> dict[str, str]:
    """Which files the dataset was, and how far their bytes are known."""
    found = sorted({(row.manifest, row.manifest_kind) for row in rows if row.manifest})
    return {"sha256": ", ".join(sha for sha, _ in found), "kind": ", ".join(dict.fromkeys(kind for _, kind in found))}


def _metric(name: str) -> dict[str, Any]:
    cls = registry.load("metric", name)
    needs: Iterable[Any] = getattr(cls, "needs", ())
    packages = {need.name: package_version(need.name) for need in needs if isinstance(need, Package)}
    return {
        "version": str(getattr(cls, "version", "1")),
        **({"packages": packages} if packages else {}),
        **{f"{one.card.id}": weights.identity(one.card) for one in needs if isinstance(one, weights.Weights)},
    }


def _commits(store: Store, sessions: Iterable[str]) -> Iterator[str | None]:
    """The code that coded, which may be older than the code that stores the curve."""
    for session in sessions:
        try:
            record = json.loads((store.folder / "sessions" / f"{session}.json").read_text())
            yield f"{record['commit']}{' with changes' if record['dirty'] else ''}" if record["commit"] else None
        except (OSError, ValueError, KeyError, TypeError):
            yield None


def _cpu(matters: Sequence[str]) -> str:
    """The vector instructions, and whatever else ``matters`` to the codec: what libraries choose their code by."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    fields = {name.strip().lower(): value.split() for name, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags") or fields.get("features") or []
    vendor = fields.get("vendor_id") or fields.get("cpu implementer") or []
    return " ".join(
        [
            platform.machine(),
            *sorted(flag for flag in flags if flag.startswith(("avx", "fma", "asimd", "sve"))),
            *(vendor if "vendor" in matters else ()),
            *(f"{name}={os.environ[name]}" for name in matters if os.environ.get(name)),
        ]
    )


def command(bench: Bench, pair: Pair, root: Path | None) -> str:
    """What makes one curve, and no other."""
    codec, data = pair
    typed: dict[str, list[str]] = {"codec": [], "data": []}
    kept = []
    for line in bench.overrides:
        key, _, value = line.partition("=")
        if key in typed:
            typed[key] += value.split(",")
        elif key in (*SWEEP, "metrics", "decodes", "device") or key.lstrip("+").startswith(("data.", "metrics.")):
            kept.append(line)
    name, _, options = codec.name.partition("[")
    own = [one for one in typed["codec"] if one.rpartition(":")[2] == name]
    words = [f"codec={name if name in available('codec') else (own or [codec.use])[0]}"]
    folder = dict(data.options).get("path")
    asked = [one for one in typed["data"] if one.rpartition(":")[2] == data.name]
    own_files = {"folder": f"folder:{folder}", "manifest": f"manifest:{dict(data.options).get('file')}"}
    words.append(f"data={own_files.get(data.use) or (asked or [data.name])[0]}")
    kept += [f"codec.options.{one}" for one in options.rstrip("]").split(",") if one]
    return shlex.join(["rdpbench", "curves", "update", *words, *kept, *(["--curves", str(root)] if root else [])])


T = TypeVar("T")


@dataclass(frozen=True)
class _Measured:
    """One curve as it is now."""

    pair: Pair
    dataset: str
    curve: Curve
    rows: tuple[Row, ...]


def update(overrides: Sequence[str], root: Path | None) -> int:
    """``rdpbench curves update``: run what is missing, and store the curves; 1 if a bitstream does not verify.

    Raises:
        ConfigError: ``limit=`` is set.
        StoreError: images failed; nothing is stored then.
    """
    bench = _whole(read(overrides))
    bench, done = _run(bench)
    if done.findings:
        print("\n".join(["no curve is stored:", *done.findings]))
        return 1
    measured = list(_measure(bench, done, root))
    if bad := [line for one in measured for line in _partial(one)]:
        raise StoreError("no curve is stored, since points lack images:\n" + "\n".join(bad[:10]))
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    for one in measured:
        path = curve_path(root or curves_folders()[0], one.dataset, one.pair[0].name)
        if path.is_file():
            _say_changes(path, one, tolerances)
        write(path, _renamed(one.curve, _from_here))
        print(f"stored {path}: {len(one.curve.points)} points of {one.pair[0].name} on {one.dataset}")
    return 0


def _say_changes(path: Path, one: _Measured, tolerances: Tolerances) -> None:
    try:
        stored = _renamed(load(path, ""), full_reference)
    except StoreError:
        print(f"{path} was of a newer version, or damaged; it is made anew")
        return
    found = compare(stored, one.curve, tolerances)
    names = tuple(point.setting.words for point in one.curve.points)
    verdict = Verdict(one.pair[0].name, one.dataset, path, names, found.findings, found.notes, found.drifts)
    print("\n".join(verdicts.lines(verdict)))


def regress(
    overrides: Sequence[str], root: Path | None, *, junit: Path | None, markdown: Path | None, fresh: bool = False
) -> int:
    """``rdpbench regress``: compare with the stored curves; 1 if anything is not as stored.

    However it ends, the files for CI say so: they are written before it starts, and an error is an error in them.

    Raises:
        MissingNeed: no stored curve; the message has the command that makes it.
        StoreError: a stored curve that cannot be read.
    """
    files = verdicts.Files(junit, markdown)
    files.write([], "it did not finish")
    found: list[Verdict] = []
    try:
        for verdict in _compared(overrides, root, fresh=fresh):
            found.append(verdict)
            print("\n".join(verdicts.lines(verdict)))
    except BaseException as error:
        with suppress(StoreUnwritable):  # the error that ends the command is the one to tell
            files.write(found, str(error) if isinstance(error, RdpbenchError) else f"{type(error).__name__}: {error}")
        raise
    files.write(found)
    bad = sum(bool(verdict.findings) for verdict in found)
    print(f"{len(found) - bad} of {len(found)} curves are as stored")
    return 1 if bad else 0


def _compared(overrides: Sequence[str], root: Path | None, *, fresh: bool) -> Iterator[Verdict]:
    """Run what each stored curve stands for, and compare; curves with the same settings run together."""
    bench = _whole(read(overrides))
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    stored = _stored(bench, root)
    with ExitStack() as stack:
        if fresh:
            # What older code has stored under the same keys must not be taken for what this code does.
            bench = replace(bench, root=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rdpbench-"))))
        for settings, pairs in _groups(bench, stored).items():
            one = replace(read([*overrides, *settings]), grid=tuple(pairs), root=bench.root)
            one, done = _run(one)
            total = len(done.plan.tasks)
            print(f"{done.coded} tasks coded now, {total - done.coded} taken from {done.store.folder}", file=sys.stderr)
            measured = list(_measure(one, done, root))
            for pair in pairs:
                match = next((each for each in measured if _same(each.pair, pair)), None)
                yield _verdict(pair, *stored[pair], match, done, tolerances)


def _renamed(curve: Curve, rename: Callable[[str], str]) -> Curve:
    """With other names of metrics of the user's: in a file they are as seen from here, and name nobody's folders."""
    origin = dict(curve.origin)
    if isinstance(metrics := origin.get("metrics"), dict):
        origin["metrics"] = {rename(name): of for name, of in metrics.items()}

    def named(values: Mapping[str, T]) -> dict[str, T]:
        return {rename(name): value for name, value in values.items()}

    points = (replace(one, values=named(one.values), averaged=named(one.averaged)) for one in curve.points)
    images = (replace(one, values=named(one.values)) for one in curve.images)
    return Curve(tuple(points), tuple(images), origin)


def _from_here(metric: str) -> str:
    where, _, name = metric.rpartition(":")
    inside = where.endswith(".py") and Path(where).is_relative_to(Path.cwd())
    return f"./{Path(where).relative_to(Path.cwd()).as_posix()}:{name}" if inside else metric


def _verdict(
    pair: Pair, path: Path, stored: Curve, now: _Measured | None, done: Done, tolerances: Tolerances
) -> Verdict:
    codec, dataset = pair[0].name, dataset_of(pair[1]).name
    curve = now.curve if now else Curve((), (), stored.origin)
    told = compare(stored, curve, tolerances)
    findings, notes = list(told.findings), list(told.notes)
    bad = {row.task_key: row for row in (*(now.rows if now else ()), *done.errors) if row.status != "ok"}
    bad = {key: row for key, row in bad.items() if (row.codec, row.dataset) == (codec, dataset)}
    findings += [Finding(setting_of(row).words, f"{row.image}: {row.error}") for row in list(bad.values())[:SHOWN]]
    if any(row.status == "error" for row in bad.values()):
        notes.append("what failed is tried again with retry_failed=true")
    findings += [Finding("curve", line) for line in done.findings if line.startswith((f"{codec} ", f"{codec}:"))]
    names = dict.fromkeys(point.setting.words for one in (stored, curve) for point in one.points)
    return Verdict(codec, dataset, path, tuple(names), tuple(findings), tuple(notes), told.drifts)


def _same(one: Pair, other: Pair) -> bool:
    """The same curve; a search for a mean puts the settings that it found into the codec's."""
    return one[0].name == other[0].name and one[1] == other[1]


def _stored(bench: Bench, root: Path | None) -> dict[Pair, tuple[Path, Curve]]:
    out: dict[Pair, tuple[Path, Curve]] = {}
    missing = []
    folders = [root] if root else curves_folders()
    for pair in bench.grid:
        again = command(bench, pair, root)
        paths = [curve_path(folder, dataset_of(pair[1]).name, pair[0].name) for folder in folders]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            missing.append(f"  {pair[0].name} on {dataset_of(pair[1]).name}: {again}")
        else:
            out[pair] = path, _renamed(load(path, again), full_reference)
    if missing:
        looked = ", ".join(map(str, dict.fromkeys(folders)))
        raise MissingNeed("\n".join([f"no stored curve (looked in {looked}); what makes it:", *missing]))
    return out


def _groups(bench: Bench, stored: dict[Pair, tuple[Path, Curve]]) -> dict[tuple[str, ...], list[Pair]]:
    """Which settings each curve brings; those with the same ones run together, so that images are read once."""
    typed = {line.partition("=")[0] for line in bench.overrides}
    out: dict[tuple[str, ...], list[Pair]] = {}
    for pair, (_, curve) in stored.items():
        brings: list[str] = [] if typed & {"rate", "points", "bpp"} else list(curve.origin.get("sweep", ()))
        if not any(key.startswith("metrics") for key in typed):
            brings.append(f"metrics={','.join(curve.origin.get('metrics', ()))}")
        out.setdefault(tuple(one for one in brings if one.partition("=")[0] not in typed), []).append(pair)
    return out


def _whole(bench: Bench) -> Bench:
    if bench.limit is not None:
        raise ConfigError("a stored curve is of the whole dataset: leave out limit=")
    return bench


def _run(bench: Bench) -> tuple[Bench, Done]:
    fetch_weights(bench)
    if bench.targets and bench.search != "image":
        bench, notes = search_dataset(bench)
        print("\n".join(notes), file=sys.stderr)
    return bench, execute(bench)


def _measure(bench: Bench, done: Done, root: Path | None) -> Iterator[_Measured]:
    contents = done.store.read()
    for pair in bench.grid:
        codec, dataset = pair[0], dataset_of(pair[1]).name
        mine = [task for task in done.plan.tasks if task.codec == codec and task.dataset == dataset]
        measured = of_store(contents, map(member_of, mine))
        rows = measured.rows
        points, images = measure(measured, done.plan.metrics)
        made = origin(bench, pair, rows, done, command(bench, pair, root))
        yield _Measured(pair, dataset, Curve(points, images, made), tuple(rows))


def _partial(one: _Measured) -> Iterator[str]:
    named = f"  {one.pair[0].name} on {one.dataset}"
    if not one.curve.points:
        yield f"{named} has no points"
    for point in one.curve.points:
        if point.n < point.dataset_size:
            yield f"{named}, {point.setting.words}: {point.n} of {point.dataset_size} images"
    for row in one.rows:
        if row.status != "ok":
            yield f"{named}, {row.image}: {row.status}: {row.error}"
