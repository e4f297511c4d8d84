"""``rdpbench run``: one run, or those of an experiment one after another, and then the figure that they are for.

``conf/experiment/<name>.yaml`` is a list of overrides, or several such lists, one for each run. Where a figure of
``conf/figure`` has the same name it is drawn at the end from these runs and from published numbers; from random weights
alone under a watermark.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rdpbench.config.bench import read_all
from rdpbench.figures.presets import presets
from rdpbench.runners import execute
from rdpbench.runners.execute import store_of
from rdpbench.runners.preflight import fetch_weights
from rdpbench.setting import Bench

if TYPE_CHECKING:
    from rich.console import Console


def run(overrides: Sequence[str], console: Console, *, encode: bool = True) -> int:
    """Run what was typed, run by run; returns the worst exit code.

    What a later run lacks is fetched, or stops the command, before the first one starts.

    Raises:
        RdpbenchError: what `rdpbench.runners.execute.run` raises.
    """
    benches = read_all(overrides)
    for bench in benches[1:]:
        fetch_weights(bench)
    codes = [execute.run(bench, console, encode=encode) for bench in benches]
    if all(bench.figures for bench in benches):
        for name in names(overrides):
            draw(name, benches, console)
    return max(codes)


def names(overrides: Sequence[str]) -> list[str]:
    """The experiments that were typed and have a figure.

    >>> len(names(["experiment=taco-5,default", "limit=2"]))
    1
    """
    typed = [line.partition("=")[2] for line in overrides if line.startswith("experiment=")]
    wanted = [name.strip() for line in typed for name in line.split(",")]
    known = {preset.name for preset in presets()}
    return [name for name in dict.fromkeys(wanted) if name in known]


def draw(name: str, benches: Sequence[Bench], console: Console) -> None:
    """Draw an experiment's figure from these runs, beside the first of them."""
    from rdpbench.figures import command

    stores = list(dict.fromkeys(store_of(bench).folder for bench in benches))
    words = [name, *(f"--run={folder}" for folder in stores), f"--out={stores[0] / 'figures'}"]
    if any(dict(codec.options).get("weights", "").startswith("random") for bench in benches for codec, _ in bench.grid):
        words.append("--random")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    console.print(f"{name}:", highlight=False)
    command.run(parser.parse_args(words), console)
