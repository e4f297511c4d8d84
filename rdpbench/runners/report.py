"""What a plan says, for people and for machines."""

from __future__ import annotations

from typing import Any

from rdpbench.results.store import Store
from rdpbench.runners.plan import Plan
from rdpbench.runners.progress import duration


def lines(plan: Plan, store: Store, workers: int) -> list[str]:
    """The plan in a few lines."""
    codecs = dict.fromkeys(task.codec.name for task in plan.tasks)
    sets = dict.fromkeys(f"{task.dataset} ({_images(plan, task.dataset)} images)" for task in plan.tasks)
    left, every = len(plan.work), len({task.key for task in plan.tasks})
    out = [
        f"codecs    {', '.join(codecs)}",
        f"data      {', '.join(sets)}",
        f"metrics   {', '.join(plan.metrics) or 'none'}",
        f"tasks     {every} in {plan.cells} cells: {every - left - plan.failed} done, {left} left",
        f"store     {store.folder}",
    ]
    if plan.judged:
        out.append(f"judged    {len(plan.judged)} stored targets are in range, or out of it, by this tolerance=")
    if plan.changed:
        out.append(f"again     {len(plan.changed)} tasks: a file that their codec opened changed, or is gone")
    if plan.failed:
        out.append(f"failed    {plan.failed} tasks failed before; retry_failed=true tries them again")
    out += [f"again     {line}" for line in plan.again]
    out += [f"left out  {name}: {why}" for name, why in plan.left_out.items()]
    if plan.work:
        known = plan.expected_s is not None
        share = (plan.expected_s or 0) / max(1, workers)
        text = (
            f"about {duration(share)} on {max(1, workers)} workers, from earlier rows" if known else "no earlier rows"
        )
        out.append(f"time      {text}")
    return out


def as_json(plan: Plan, store: Store) -> dict[str, Any]:
    """The plan as data."""
    return {
        "store": str(store.folder),
        "cells": plan.cells,
        "tasks": len({task.key for task in plan.tasks}),
        "left": len(plan.work),
        "failed": plan.failed,
        "metrics": list(plan.metrics),
        "left_out": dict(plan.left_out),
        "again": list(plan.again),
        "expected_cpu_s": plan.expected_s,
    }


def _images(plan: Plan, dataset: str) -> str:
    images = {task.entry.sample.id: task.dataset_size for task in plan.tasks if task.dataset == dataset}
    size = max(images.values())
    return str(len(images)) if len(images) == size else f"{len(images)} of {size}"
