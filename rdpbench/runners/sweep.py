"""A whole command: search where targets are for a dataset's mean, run, verify a sample, show."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rdpbench.config import Bench, CodecSetting, DataSetting
from rdpbench.errors import MissingNeed, StoreError
from rdpbench.provenance import command
from rdpbench.results.schema import Row
from rdpbench.results.show import select, show
from rdpbench.results.store import Store
from rdpbench.runners.execute import Done, execute, workers_of
from rdpbench.runners.plan import Plan
from rdpbench.runners.preflight import fetch_weights
from rdpbench.runners.report import lines
from rdpbench.runners.search import Found, search
from rdpbench.runners.task import axis_of
from rdpbench.runners.verify import verify

if TYPE_CHECKING:
    from rich.console import Console


def run(bench: Bench, console: Console, *, encode: bool = True) -> int:
    """Run a command to its tables and figures; 1 if tasks failed or verification found something."""
    fetch_weights(bench)
    notes: list[str] = []
    if bench.targets and bench.search == "dataset":
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
    labels = {task.key: task.codec.name for task in done.plan.tasks}
    contents = done.store.read()
    written = show(done.store, contents, labels, done.plan.metrics, console, figures=bench.figures)
    for note in notes:
        console.print(note, highlight=False)
    rows = select(contents.rows.values(), labels)
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
        console.print(told + (f", {done.out_of_range} out of range" if done.out_of_range else ""))
        console.print(f"{done.verified} of them decoded again in a fresh process to the same pixels")
        for line in done.findings:
            console.print(f"FOUND {line}", highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(f"nothing to do: all {len(done.plan.tasks)} tasks are stored in {done.store.folder}")
    return 1 if bad or done.findings else 0


def verify_store(store: Store, sample: int | None, seed: int) -> int:
    """Verify, record what was decoded in the fresh process, print findings; 1 if there are any."""
    found = verify(store, sample, seed)
    if found.decoded:
        try:
            with store.lock():
                writer = store.writer(store.new_session())
                for key in found.decoded:
                    writer.append({"verified": key})
                writer.close()
                if not found.findings:
                    store.compact()
        except StoreError as error:
            print(f"rdpbench: what was verified cannot be noted in the rows: {error}", file=sys.stderr)
    for line in found.findings:
        print(f"FOUND {line}")
    print(
        f"verified {store.folder}: {len(found.decoded)} bitstreams decoded in a fresh process to the recorded pixels, "
        f"{found.bitstreams} bitstreams and {found.images} images checked, {len(found.findings)} findings"
    )
    return 1 if found.findings else 0


def search_dataset(bench: Bench) -> tuple[Bench, list[str]]:
    """Find for each codec and target the native setting whose mean rate over the dataset is nearest.

    Every setting that is tried is an ordinary cell of the run: stored, resumed, and kept as a point of the curve.
    """
    assert bench.targets
    grid: list[tuple[CodecSetting, DataSetting]] = []
    notes: list[str] = []
    for codec, data in bench.grid:
        settings: list[float] = []
        for target in bench.targets:
            found = _search_mean(bench, codec, data, target)
            if found.setting is None:
                notes.append(
                    f"out of range: {codec.name} on {data.name} cannot reach {target:g} bpp (nearest {found.bpp:.4g})"
                )
            else:
                notes.append(
                    f"{codec.name} on {data.name}: {target:g} bpp → setting {found.setting:g}, {found.bpp:.4f} bpp"
                )
                settings.append(found.setting)
        if settings:
            grid.append((replace(codec, rates=tuple(dict.fromkeys(settings))), data))
    if not grid:
        raise MissingNeed("no codec reaches any of the targets:\n" + "\n".join(notes))
    return replace(bench, grid=tuple(grid), targets=None, points=None), notes


def _search_mean(bench: Bench, codec: CodecSetting, data: DataSetting, target: float) -> Found:
    axis = axis_of(codec)
    if axis is None:
        raise MissingNeed(f"codec {codec.name!r} has a single rate point; leave out bpp=")

    def mean_bpp(setting: float) -> float:
        one = replace(
            bench,
            grid=((replace(codec, rates=(setting,)), data),),
            targets=None,
            metrics=(),
            timing=False,
            points=None,
            keep=0,
        )
        done = execute(one)
        contents = done.store.read()
        rows = select(contents.rows.values(), {task.key: codec.name for task in done.plan.tasks})
        bpps = [row.bpp for row in rows if row.bpp is not None]
        if not bpps:
            raise MissingNeed(f"no image could be coded by {codec.name} at {axis.field} {setting:g}: {rows[0].error}")
        return math.fsum(bpps) / len(bpps)

    return search(axis, target, mean_bpp)


def _point(row: Row) -> str:
    where = f"{row.target_bpp:g} bpp" if row.target_bpp is not None else f"{row.rate_field} {row.rate}"
    return f"{row.codec}, {where}, {row.image}"
