"""``rdpbench run``: one run, or those of an experiment one after another, and then the figure that they are for.

``conf/experiment/<name>.yaml`` is a list of overrides, or several such lists, one for each run. Where a figure of
``conf/figure`` has the same name it is drawn at the end from these runs and from published numbers; from random weights
alone under a watermark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rdpbench.config.bench import read_all
from rdpbench.config.typed import experiment
from rdpbench.figures.presets import presets
from rdpbench.runners import sweep
from rdpbench.runners.execute import store_of
from rdpbench.runners.preflight import fetch_weights
from rdpbench.setting import Bench

if TYPE_CHECKING:
    from rich.console import Console


def run(overrides: Sequence[str], console: Console, *, encode: bool = True) -> int:
    """Run what was typed, run by run; returns the worst exit code.

    What a later run lacks is fetched, or stops the command, before the first one starts.

    Raises:
        RdpbenchError: what `rdpbench.runners.sweep.run` raises.
    """
    benches = read_all(overrides)
    for bench in benches[1:]:
        fetch_weights(bench)
    codes = [sweep.run(bench, console, encode=encode) for bench in benches]
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


def runs_named(experiment_name: str) -> list[str]:
    """The run folders that an experiment leaves: as it says, or named after its datasets.

    >>> len(runs_named("taco-a1"))
    3
    """
    settings = [dict(line.split("=", 1) for line in lines) for lines in experiment(experiment_name)]
    return list(dict.fromkeys(each.get("run") or each.get("data", "").replace(",", "+") for each in settings))


def draw(name: str, benches: Sequence[Bench], console: Console) -> None:
    """Draw an experiment's figure from these runs, beside the first of them."""
    from rdpbench.figures.command import FigureOptions, make_figures

    folders = list(dict.fromkeys(store_of(bench).folder for bench in benches))
    codecs = [dict(codec.options) for bench in benches for codec, _ in bench.grid]
    random = any(str(options.get("weights", "")).startswith("random") for options in codecs)
    options = FigureOptions(runs=tuple(map(str, folders)), out=folders[0] / "figures", random=random)
    console.print(f"{name}:", highlight=False)
    make_figures([name], options, console, runs_named)
