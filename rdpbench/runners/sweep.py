"""A whole command: search where targets are for a dataset's mean, run, verify a sample, show."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rdpbench.datasets.contract import dataset_of
from rdpbench.errors import MissingNeed, StoreError
from rdpbench.figures.show import show
from rdpbench.provenance import command
from rdpbench.results.stats.current import of_store
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import Named
from rdpbench.runners.execute import Done, execute, workers_of
from rdpbench.runners.grid import run_name
from rdpbench.runners.plan import Plan, lines
from rdpbench.runners.preflight import check_metrics, fetch_weights
from rdpbench.runners.search import Found, is_near, missed, search
from rdpbench.runners.task import axis_of, member_of, uses_caption
from rdpbench.runners.verify import verify
from rdpbench.setting import Bench, CodecSetting, DataSetting, Setting

if TYPE_CHECKING:
    from rich.console import Console


def run(bench: Bench, console: Console, *, encode: bool = True) -> int:
    """Run a command to its tables and figures; 1 if tasks failed or verification found something."""
    fetch_weights(bench)
    notes: list[str] = []
    if bench.targets and bench.search != "image":
        # The search codes without metrics: what they lack must be known before.
        check_metrics(bench)
        bench, notes = search_dataset(bench)

    def announce(plan: Plan, store: Store) -> None:
        uncoded = [work for work in plan.work if work.row is None]
        if not encode and uncoded:
            changed = f", or a file changed that their codec opened ({len(plan.changed)})" if plan.changed else ""
            raise MissingNeed(
                f"score never encodes, but {len(uncoded)} of {len(plan.tasks)} tasks are not in {store.folder}{changed}"
                f". Code them first: {command(bench.overrides)}"
            )
        print("\n".join(lines(plan, store, workers_of(bench))), file=sys.stderr)

    return finish(bench, execute(bench, announce), notes, console)


def finish(bench: Bench, done: Done, notes: Sequence[str], console: Console) -> int:
    """Verify a sample of what is new, print the summary, name the files."""
    contents = done.store.read()
    points = of_store(contents, map(member_of, done.plan.tasks))
    written = show(done.store, contents, points, done.plan.metrics, console, figures=bench.figures)
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)  # a label may end in [option=value]
    rows = points.rows
    bad = list({row.task_key: row for row in (*rows, *done.errors) if row.status == "error"}.values())
    for row in bad[:10]:
        console.print(f"failed: {_point(row)}: {row.error}", highlight=False, markup=False, soft_wrap=True)
    if len(bad) > 10:
        console.print(f"... and {len(bad) - 10} more failed tasks, all in rows.csv", highlight=False)
    for row in [row for row in rows if row.status == "out_of_range"][:10]:
        console.print(f"out of range: {_point(row)}: {row.error}", highlight=False, markup=False, soft_wrap=True)
    for path in written:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    if done.any:
        told = f"{done.coded} tasks coded, {done.scored} scored or timed from the store, {done.failed} failed"
        told += f", {done.out_of_range} out of range" if done.out_of_range else ""
        told += f", {len(done.plan.judged)} judged again by tolerance=" if done.plan.judged else ""
        console.print(told)
        console.print(f"{done.verified} of them decoded again in a fresh process to the same pixels")
        for line in done.findings:
            console.print(f"FOUND {line}", highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(
            f"nothing to do: all {len({task.key for task in done.plan.tasks})} tasks are stored in {done.store.folder}"
        )
    return 1 if bad or done.findings else 0


def verify_store(store: Store, sample: int | None, seed: int, named: Named) -> int:
    """Verify, record what was decoded in the fresh process, print findings.

    Returns the exit code: 1 if there are any, or if bitstreams were not decoded.
    """
    found = verify(store, sample, seed, named)
    if found.decoded or found.refuted:
        try:
            with store.lock():
                writer = store.writer(store.new_session())
                for key in found.decoded:
                    writer.append({"verified": key})
                for key in found.refuted:  # not an error: another library or machine may be the reason
                    writer.append({"suspect": key})
                writer.close()
                if not found.findings:
                    store.compact()
        except StoreError as error:
            print(f"rdpbench: what was verified cannot be noted in the rows: {error}", file=sys.stderr)
    for line in found.findings:
        print(f"FOUND {line}")
    for line in found.undecoded:
        print(f"NOT DECODED {line}")
    print(
        f"verified {store.folder}: {len(found.decoded)} bitstreams decoded in a fresh process to the recorded pixels, "
        f"{found.bitstreams} bitstreams and {found.images} images checked, {len(found.findings)} findings"
    )
    return 1 if found.findings or found.undecoded else 0


def search_dataset(bench: Bench) -> tuple[Bench, list[str]]:
    """Find for each curve and target the native setting whose rate over the whole dataset is nearest.

    Every setting that is tried is an ordinary cell of the run: stored, resumed, and kept as a point of the curve.

    Raises:
        MissingNeed: no target is reached, or nothing could be coded at a setting.
    """
    targets = bench.targets or ()
    bench = replace(bench, run=run_name(bench))  # parts of the grid alone would have other names
    grid: list[tuple[CodecSetting, DataSetting]] = []
    notes: list[str] = []
    for codec, data in bench.grid:
        settings: list[float] = []
        dataset = dataset_of(data).name
        # Captions cost bits, so each source of them is a curve of its own.
        several = bench.captions if uses_caption(codec) else ()
        for source in several or ("",):
            captions = (source,) if source else bench.captions
            name = codec.name + (f"[captions={source}]" if source else "")
            for target in targets:
                found, field = _search_whole(replace(bench, grid=((codec, data),), captions=captions), target)
                if is_near(found.bpp, target, bench.tolerance):
                    over = f"{found.bpp:.4f} bpp{' pooled' if bench.search == 'pooled' else ''}"
                    notes.append(f"{name} on {dataset}: {target:g} bpp → setting {found.setting:g}, {over}")
                    settings.append(found.setting)
                else:
                    over = "all pixels of" if bench.search == "pooled" else "the mean of"
                    why = missed(name, f"{over} {dataset}", field, target, bench.tolerance, found)
                    notes.append(f"out of range: {why}")
        if settings:
            grid.append((replace(codec, rates=tuple(dict.fromkeys(settings))), data))
    if not grid:
        raise MissingNeed("no codec reaches any of the targets:\n" + "\n".join(notes))
    return replace(bench, grid=tuple(grid), targets=None, points=None), notes


def _search_whole(bench: Bench, target: float) -> tuple[Found, str]:
    """Search for one codec on one dataset; with the name of its setting."""
    ((codec, data),) = bench.grid
    axis = axis_of(codec)
    if axis is None:
        raise MissingNeed(f"codec {codec.name!r} has a single rate point; leave out bpp=")

    def measure(setting: float) -> float:
        at_setting = replace(
            bench,
            grid=((replace(codec, rates=(setting,)), data),),
            targets=None,
            metrics=(),
            timing=False,
            points=None,
            keep=0,
        )
        done = execute(at_setting)
        rows = of_store(done.store.read(), map(member_of, done.plan.tasks)).rows
        good = [row for row in rows if row.status == "ok"]
        if not good:
            raise MissingNeed(f"no image could be coded by {codec.name} at {axis.field} {setting:g}: {rows[0].error}")
        return _rate_over(good, pooled=bench.search == "pooled")

    return search(axis, target, measure, bench.tolerance), axis.field


def _rate_over(rows: Iterable[Row], *, pooled: bool) -> float:
    """Bits per pixel over images: their mean, or all bits over all pixels. Seeds of an image count as their mean."""
    images: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        images[row.image].append(row)
    pixels = [float(seeds[0].height * seeds[0].width) for seeds in images.values()]
    bpps = [math.fsum(row.bpp or 0 for row in seeds) / len(seeds) for seeds in images.values()]
    weights = pixels if pooled else [1.0] * len(bpps)
    return math.fsum(bpp * weight for bpp, weight in zip(bpps, weights, strict=True)) / math.fsum(weights)


def _point(row: Row) -> str:
    return f"{row.codec}, {Setting.of(row).words}, {row.image}"
