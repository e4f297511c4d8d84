"""``rdpbench regress``: run the settings of stored curves again, and compare; ``rdpbench curves update`` stores curves.

Nothing is stored of partial points, and nothing is compared with them: their means are over other images.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rdpbench import registry
from rdpbench.assets import weights
from rdpbench.codecs.contract import facts_of
from rdpbench.config.bench import read_bench
from rdpbench.datasets.contract import dataset_of
from rdpbench.errors import ConfigError, MissingNeed, RdpbenchError, StoreError, StoreUnwritable
from rdpbench.gate.compare import SHOWN, Comparison, Finding, compare, headline, lines, read_tolerances
from rdpbench.gate.compare import junit as as_junit
from rdpbench.gate.compare import markdown as as_markdown
from rdpbench.gate.curves import StoredCurve, curve_path, load, measure, setting_of, write
from rdpbench.metrics.contract import short_name
from rdpbench.needs import Package, package_version
from rdpbench.paths import available, conf_folder, curves_folders, write_file
from rdpbench.provenance import VERSION, as_typed, cpu_facts
from rdpbench.results.stats.current import of_store
from rdpbench.results.store.calls import options_named
from rdpbench.results.store.keys import codec_identity, facts
from rdpbench.results.store.schema import Row
from rdpbench.runners.execute import Done, execute, search_dataset
from rdpbench.runners.preflight import fetch_weights
from rdpbench.runners.task import membership
from rdpbench.setting import Bench, CodecSetting, DataSetting, split_label

SWEEP = ("rate", "points", "bpp", "search", "tolerance", "seed")
"""Settings that choose the points; a stored curve brings them, unless they are typed."""

Pair = tuple[CodecSetting, DataSetting]
Measured = dict[tuple[str, DataSetting], tuple[StoredCurve, Sequence[Row]]]
"""Curves as they are now, with their rows, by the codec's name and the dataset."""


def origin(bench: Bench, pair: Pair, rows: Sequence[Row], done: Done, again: str) -> dict[str, Any]:
    """What made a curve. Without times and machine names: the same curve made again is the same file."""
    coded_by = json.loads(codec_identity(pair[0]))
    codec = pair[0].cls
    # A curve is published, as rows are.
    options = as_typed(options_named(coded_by["options"], coded_by["options"]), dict(pair[0].typed))
    manifests = sorted({(row.manifest, row.manifest_kind) for row in rows if row.manifest})
    kinds = ", ".join(dict.fromkeys(kind for _, kind in manifests))
    source = {"source": coded_by["source"]} if coded_by["source"] else {}
    # The code that coded may be older than the code that stores the curve.
    sessions = {row.session for row in rows}
    calls = [call for name, call in done.store.provenance().items() if name in sessions and call.get("commit")]
    return {
        "codec": pair[0].name,
        "dataset": dataset_of(pair[1]).name,
        "manifest": {"sha256": ", ".join(sha for sha, _ in manifests), "kind": kinds},
        "configuration": {"use": coded_by["use"], "options": options},
        "coder": {**coded_by["coder"], "version": coded_by["version"], **source},
        "packages": _packages(facts_of(codec).needs),
        "metrics": {name: _metric(name) for name in done.plan.metrics},
        "seeds": list(bench.seeds),
        "device": bench.device,
        "cpu": _cpu(facts_of(codec).depends_on_cpu),
        "rdpbench": VERSION,
        "commits": sorted({f"{call['commit']}{' with changes' if call.get('dirty') else ''}" for call in calls}),
        "sweep": [line for line in bench.overrides if line.partition("=")[0] in SWEEP],
        "command": again,
    }


def _packages(needs: Iterable[Any]) -> dict[str, str]:
    return {need.name: package_version(need.name) for need in needs if isinstance(need, Package)}


def _metric(name: str) -> dict[str, Any]:
    cls = registry.load("metric", name)
    needs: Iterable[Any] = getattr(cls, "needs", ())
    packages = _packages(needs)
    return {
        "version": str(getattr(cls, "version", "1")),
        **({"packages": packages} if packages else {}),
        **{f"{need.card.id}": weights.card_identity(need.card) for need in needs if isinstance(need, weights.Weights)},
    }


def _cpu(matters: Sequence[str]) -> str:
    """The vector instructions, and whatever else ``matters`` to the codec: what libraries choose their code by."""
    stated = cpu_facts()
    flags = (stated.get("flags") or stated.get("features", "")).split()
    vendor = (stated.get("vendor_id") or stated.get("cpu implementer", "")).split()
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
    name, options = split_label(codec.name)
    own = [word for word in typed["codec"] if word.rpartition(":")[2] == name]
    words = [f"codec={name if name in available('codec') else (own or [codec.use])[0]}"]
    files = dict(data.options)
    asked = [word for word in typed["data"] if word.rpartition(":")[2] == data.name]
    own_files = {"folder": f"folder:{files.get('path')}", "manifest": f"manifest:{files.get('file')}"}
    words.append(f"data={own_files.get(data.use) or (asked or [data.name])[0]}")
    kept += [f"codec.options.{option}" for option in options]
    return shlex.join(["rdpbench", "curves", "update", *words, *kept, *(["--curves", str(root)] if root else [])])


def update(overrides: Sequence[str], root: Path | None) -> int:
    """``rdpbench curves update``: run what is missing, and store the curves; 1 if a bitstream does not verify.

    Raises:
        ConfigError: ``limit=`` is set.
        StoreError: images failed; nothing is stored then.
    """
    bench, done = _run(_whole(read_bench(overrides)))
    if done.findings:
        print("\n".join(["no curve is stored:", *done.findings]))
        return 1
    measured = _measure(bench, done, root)
    if bad := [line for curve, rows in measured.values() for line in _partial(curve, rows)]:
        raise StoreError("no curve is stored, since points lack images:\n" + "\n".join(bad[:10]))
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    for curve, _ in measured.values():
        codec, dataset = curve.origin["codec"], curve.origin["dataset"]
        path = curve_path(root or curves_folders()[0], dataset, codec)
        if path.is_file():
            try:
                compared = compare(_renamed(load(path, ""), short_name), curve, tolerances)
                print("\n".join(lines(replace(compared, codec=codec, dataset=dataset, path=path))))
            except StoreError:
                print(f"{path} was of a newer version, or damaged; it is made anew")
        write(path, _renamed(curve, _from_here))
        print(f"stored {path}: {len(curve.points)} points of {codec} on {dataset}")
    return 0


def regress(
    overrides: Sequence[str], root: Path | None, *, junit: Path | None, markdown: Path | None, fresh: bool = False
) -> int:
    """``rdpbench regress``: compare with the stored curves; 1 if anything is not as stored.

    However it ends, the files for CI say so: they are written before it starts, and an error is an error in them.

    Raises:
        MissingNeed: no stored curve; the message has the command that makes it.
        StoreError: a stored curve that cannot be read.
    """
    comparisons: list[Comparison] = []

    def write_files(error: str = "") -> None:
        for path, how in ((junit, as_junit), (markdown, as_markdown)):
            if path is not None:
                write_file(path, how(comparisons, error))

    # Of a command that is killed they say that it did not finish, not what an earlier call found.
    write_files("it did not finish")
    try:
        comparisons.extend(_compared(overrides, root, fresh=fresh))  # an error leaves those that came before it
    except BaseException as error:
        with suppress(StoreUnwritable):  # the error that ends the command is the one to tell
            for compared in comparisons:
                print("\n".join(lines(compared)))
            said = str(error) if isinstance(error, RdpbenchError) else f"{type(error).__name__}: {error}"
            write_files(said)
        raise
    write_files()
    print("\n".join([headline(comparisons), *(line for compared in comparisons for line in lines(compared))]))
    return 1 if any(compared.findings for compared in comparisons) else 0


def _compared(overrides: Sequence[str], root: Path | None, *, fresh: bool) -> Iterator[Comparison]:
    """Run what each stored curve stands for, and compare; curves with the same settings run together."""
    bench = _whole(read_bench(overrides))
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    stored = _stored(bench, root)
    with ExitStack() as stack:
        if fresh:
            # What older code has stored under the same keys must not be taken for what this code does.
            bench = replace(bench, root=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rdpbench-"))))
        for settings, pairs in _groups(bench, stored).items():
            group, done = _run(replace(read_bench([*overrides, *settings]), grid=tuple(pairs), root=bench.root))
            total = done.plan.size
            print(f"{done.coded} tasks coded now, {total - done.coded} taken from {done.store.folder}", file=sys.stderr)
            measured = _measure(group, done, root)
            for codec, data in pairs:
                path, curve = stored[codec, data]
                # A search for a mean puts the settings that it found into the codec's.
                now, rows = measured.get((codec.name, data), (StoredCurve((), (), curve.origin), ()))
                compared, dataset = compare(curve, now, tolerances), dataset_of(data).name
                compared = replace(compared, codec=codec.name, dataset=dataset, path=path)
                yield _with_failures(compared, rows, done)


def _renamed(curve: StoredCurve, rename: Callable[[str], str]) -> StoredCurve:
    """With other names of metrics of the user's: in a file they are as seen from here, and name nobody's folders."""

    def named(values: Any) -> dict[str, Any]:
        return {rename(name): value for name, value in values.items()}

    origin = dict(curve.origin)
    if isinstance(metrics := origin.get("metrics"), dict):
        origin["metrics"] = named(metrics)
    points = (replace(point, values=named(point.values), averaged=named(point.averaged)) for point in curve.points)
    images = (replace(image, values=named(image.values)) for image in curve.images)
    return StoredCurve(tuple(points), tuple(images), origin)


def _from_here(metric: str) -> str:
    where, _, name = registry.metric_places.get(metric, metric).rpartition(":")
    inside = where.endswith(".py") and Path(where).is_relative_to(Path.cwd())
    return f"./{Path(where).relative_to(Path.cwd()).as_posix()}:{name}" if inside else metric


def _with_failures(compared: Comparison, rows: Sequence[Row], done: Done) -> Comparison:
    """A comparison with what could not be coded or verified among its findings."""
    codec, dataset = compared.codec, compared.dataset
    bad = {row.task_key: row for row in (*rows, *done.errors) if row.status != "ok"}
    own = [row for row in bad.values() if (row.codec, row.dataset) == (codec, dataset)]
    findings = [Finding(setting_of(row).words, f"{row.image}: {row.error}") for row in own[:SHOWN]]
    findings += [Finding("curve", line) for line in done.findings if line.startswith((f"{codec} ", f"{codec}:"))]
    failed = any(row.status == "error" for row in own)
    notes = (*compared.notes, *(["what failed is tried again with retry_failed=true"] if failed else []))
    return replace(compared, findings=(*compared.findings, *findings), notes=notes)


def _stored(bench: Bench, root: Path | None) -> dict[Pair, tuple[Path, StoredCurve]]:
    out: dict[Pair, tuple[Path, StoredCurve]] = {}
    missing = []
    folders = [root] if root else curves_folders()
    for pair in bench.grid:
        again = command(bench, pair, root)
        paths = [curve_path(folder, dataset_of(pair[1]).name, pair[0].name) for folder in folders]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            missing.append(f"  {pair[0].name} on {dataset_of(pair[1]).name}: {again}")
        else:
            out[pair] = path, _renamed(load(path, again), short_name)
    if missing:
        looked = ", ".join(map(str, dict.fromkeys(folders)))
        raise MissingNeed("\n".join([f"no stored curve (looked in {looked}); what makes it:", *missing]))
    return out


def _groups(bench: Bench, stored: dict[Pair, tuple[Path, StoredCurve]]) -> dict[tuple[str, ...], list[Pair]]:
    """Which settings each curve brings; those with the same ones run together, so that images are read once."""
    typed = {line.partition("=")[0] for line in bench.overrides}
    # Points that are typed stand in the place of those that are stored, and only targets are searched.
    replaced = {"rate", "points", "bpp"} if typed & {"rate", "points", "bpp"} else set()
    replaced |= {"search", "tolerance"} if replaced and "bpp" not in typed else set()
    out: dict[tuple[str, ...], list[Pair]] = {}
    for pair, (_, curve) in stored.items():
        brings = [line for line in curve.origin.get("sweep", ()) if line.partition("=")[0] not in replaced]
        if not any(key.startswith("metrics") for key in typed):
            brings.append(f"metrics={','.join(curve.origin.get('metrics', ()))}")
        out.setdefault(tuple(line for line in brings if line.partition("=")[0] not in typed), []).append(pair)
    return out


def _whole(bench: Bench) -> Bench:
    if bench.limit is not None:
        raise ConfigError("a stored curve is of the whole dataset: leave out limit=")
    if captioned := [codec.name for codec in bench.codecs if bench.captions and facts(codec).uses_caption]:
        raise ConfigError(
            f"a curve of {captioned[0]} is stored with the captions that a set brings: leave out captions="
        )
    names = Counter((codec.name, dataset_of(data).name) for codec, data in bench.grid)
    if twice := [dataset for (_, dataset), count in names.items() if count > 1]:
        raise ConfigError(
            f"two sets are called {twice[0]}, and a curve is stored under its dataset's name: name one of them in a "
            "command, and give the other's curves a folder of their own, --curves FOLDER"
        )
    if unproven := [codec.name for codec in bench.codecs if facts(codec).grade != "decoded"]:
        raise ConfigError(f"the rate of {', '.join(unproven)} is not proven by a decoder, so no curve of it is stored")
    return bench


def _run(bench: Bench) -> tuple[Bench, Done]:
    fetch_weights(bench)
    if bench.targets and bench.search != "image":
        bench, notes = search_dataset(bench)
        print("\n".join(notes), file=sys.stderr)
    return bench, execute(bench)


def _measure(bench: Bench, done: Done, root: Path | None) -> Measured:
    measured: Measured = {}
    for pair in bench.grid:
        codec, dataset = pair[0], dataset_of(pair[1]).name
        cells = (cell for cell in done.plan.cells if cell.codec == codec and cell.dataset == dataset)
        current = of_store(done.contents, membership(cells))
        points, images = measure(current, done.plan.metrics)
        made_by = origin(bench, pair, current.rows, done, command(bench, pair, root))
        measured[codec.name, pair[1]] = StoredCurve(points, images, made_by), current.rows
    return measured


def _partial(curve: StoredCurve, rows: Sequence[Row]) -> Iterator[str]:
    named = f"  {curve.origin['codec']} on {curve.origin['dataset']}"
    if not curve.points:
        yield f"{named} has no points"
    for point in curve.points:
        if point.n < point.dataset_size:
            yield f"{named}, {point.setting.words}: {point.n} of {point.dataset_size} images"
    for row in rows:
        if row.status != "ok":
            yield f"{named}, {row.image}: {row.status}: {row.error}"
