"""Experiments: each figure and table of the papers has one that runs, measures what the figure shows, and draws it."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil
from rich.console import Console

from rdpbench import registry
from rdpbench.api import run_benches
from rdpbench.codecs.contract import facts_of
from rdpbench.config.bench import read_bench, read_benches
from rdpbench.config.typed import runs_of
from rdpbench.datasets.contract import dataset_of
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.figures import command
from rdpbench.figures.command import runs_named
from rdpbench.figures.data import TIMES, FigurePreset, Series, presets
from rdpbench.figures.style import WATERMARK
from rdpbench.needs import Binary
from rdpbench.paths import available, conf_folder, experiment
from rdpbench.results.store.keys import facts
from rdpbench.results.store.store import Store
from rdpbench.runners.execute import store_of
from rdpbench.runners.plan import make_plan
from rdpbench.runners.sets import is_set, set_metric
from rdpbench.runners.task import run_name
from rdpbench.setting import Bench

PRESETS = {one.name: one for one in presets() if one.kind != "diagram"}
STANDIN = '''
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rdpbench.datasets.contract import Sample


@dataclass(frozen=True)
class StandIn:
    """Tiny images under the name and protocol of a set that is not here."""

    folder: str
    name: str = "standin"
    protocol: str = "as-is"
    needs: ClassVar[tuple] = ()

    def samples(self):
        for path in sorted(Path(self.folder).glob("*.png")):
            yield Sample(path.stem, path, caption="a dog on a beach", references=("a brown dog",))

    def __len__(self):
        return 2
'''


@cache
def benches_of(name: str) -> list[Bench]:
    """An experiment's runs, composed once for all tests."""
    return read_benches([f"experiment={name}"])


def label_of(bench: Bench) -> set[str]:
    """Labels of all curves of a run."""
    out = set()
    for codec, _ in bench.grid:
        sources = bench.captions if bench.captions and facts(codec).uses_caption else ("",)
        out |= {codec.name + (f"[captions={source}]" if source else "") for source in sources}
    return out


def said(name: str) -> str:
    """The comments of an experiment, on one line."""
    lines = (conf_folder() / "experiment" / f"{name}.yaml").read_text().splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def measured(series: Series, preset: FigurePreset, benches: Sequence[Bench]) -> bool:
    """Does an experiment measure this series?"""
    labels = set().union(*(label_of(bench) for bench in benches))
    if any(panel.settings for panel in preset.panels):
        named = re.fullmatch(r"nominal ([0-9.]+) bpp", series.variant or "")
        rates = {rate for bench in benches for rate in bench.rates or ()}
        return any(one.startswith(series.codec) for one in labels) and (named is None or float(named[1]) in rates)
    return bool(labels & set(series.labels))


def test_each_figure_has_its_experiment() -> None:
    assert set(available("experiment")) == {*PRESETS, "default"}
    for name in available("experiment"):
        first = (conf_folder() / "experiment" / f"{name}.yaml").read_text().splitlines()[0]
        assert first.startswith("# ")
        assert len(first) < 120


@pytest.mark.parametrize("name", PRESETS)
def test_an_experiment_measures_what_its_figure_shows(name: str) -> None:
    """Every series on some set, every panel's set, protocol and metric; what is left out is named in the file."""
    preset, benches = PRESETS[name], benches_of(name)
    left_out = said(name).partition("Left out: ")[2].lower()
    for series in preset.series:
        if not measured(series, preset, benches) and not series.added:
            parts = [part.strip().lower() for part in series.label.split(",")]
            public = "nominal" in series.label and "three of its seven rates" in said(name)
            assert public or any(part in left_out for part in parts), f"{name}: {series.label}"
    for panel in preset.panels:
        of = []
        for bench in benches:
            sets = [dataset_of(data) for _, data in bench.grid]
            if (panel.dataset, panel.protocol) in {(one.name, one.protocol) for one in sets}:
                of.append(bench)
        assert of, f"{name}: {panel.dataset} under {panel.protocol}"
        if preset.kind == "images":
            assert all(bench.keep is None for bench in of)
        elif panel.metric in TIMES:
            assert all(bench.timing for bench in of)
        elif panel.metric == "spice":
            assert "spice" in left_out
        else:
            wanted = {panel.metric} | ({panel.x} if panel.at_bpp is not None else set())
            assert all(wanted <= set(bench.metrics) for bench in of), f"{name}: {wanted}"
            names = {setting for bench in of for codec, _ in bench.grid for setting, _ in codec.options}
            assert set(panel.settings) <= names


@pytest.mark.parametrize("name", PRESETS)
def test_set_metrics_have_enough_images_or_are_marked(name: str) -> None:
    for bench in benches_of(name):
        for _, data in dict.fromkeys(bench.grid):
            dataset = dataset_of(data)
            few = [one for one in bench.metrics if is_set(one) and set_metric(one).minimum_images > len(dataset)]
            assert not few or bench.allow_unreliable, f"{name}: {few} on {len(dataset)} images of {dataset.name}"


@pytest.mark.parametrize("name", PRESETS)
def test_runs_are_found_by_the_experiment_s_name(name: str) -> None:
    assert runs_named(name) == list(dict.fromkeys(run_name(bench) for bench in benches_of(name)))


# Planned and run with random weights


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset class that gives two tiny images under any name."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "standin.py").write_text(STANDIN)
    rng = np.random.default_rng(0)
    for name, size in (("images", (272, 260)), ("small", (80, 64))):  # protocols that crop refuse the small ones
        (tmp_path / name).mkdir()
        for number in range(2):
            coarse = pil.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
            coarse.resize(size, pil.Resampling.BICUBIC).save(tmp_path / f"{name}/i{number}.png")
    return tmp_path


def of_people(benches: Sequence[Bench]) -> list[str]:
    """People's captions, where a codec takes captions."""
    taken = any(facts_of(codec.cls).uses_caption for bench in benches for codec in bench.codecs)
    return ["captions=human"] if taken else []


def stand_in(name: str, folder: Path, *more: str) -> Iterator[list[str]]:
    """An experiment's runs as they are typed, but for the images, random weights and people's captions.

    Codecs whose program is not on this machine are left out, as are metrics without weights.
    """
    typed = {line.partition("=")[0] for line in more}
    for lines, bench in zip(experiment(name), benches_of(name), strict=True):
        (data,) = {data for _, data in bench.grid}
        dataset = dataset_of(data)
        kept = [line for line in lines if not line.startswith(("data", "captions=", *(f"{key}=" for key in typed)))]
        codecs = next(line for line in lines if line.startswith("codec=")).partition("=")[2].split(",")
        uses = {codec.name.partition("[")[0]: codec.use for codec, _ in bench.grid}
        names = {one: facts_of(registry.load("codec", uses[one])).needs for one in codecs}
        here = [one for one in codecs if not any(isinstance(n, Binary) and n.missing() for n in names[one])]
        words = [f"codec={','.join(here)}" if line.startswith("codec=") else line for line in kept]
        words += [f"data={folder / 'standin.py'}:StandIn", f"data.options.folder={folder / 'images'}"]
        words += [f"data.options.name={dataset.name}", f"data.options.protocol={dataset.protocol}", *of_people([bench])]
        words += ["weights=random", "metrics.available=true", "allow_partial=true", f"root={folder / 'runs'}", *more]
        yield words


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_it_plans_with_random_weights(name: str, standin: Path) -> None:
    for words in stand_in(name, standin):
        bench = replace(read_bench(words), download=False, dry=True)
        plan = make_plan(bench, store_of(bench))
        points = {(task.codec.name, task.setting.rate) for task in plan.tasks}
        assert len(plan.work) == len(plan.tasks) >= 2 * len(points)  # two images, each seed
        assert {task.codec.name.partition("[")[0] for task in plan.tasks} == {
            codec.name.partition("[")[0] for codec, _ in bench.grid
        }
        assert set(plan.metrics) | set(plan.left_out) == set(bench.metrics)


def random_run(name: str, folder: Path, *more: str) -> tuple[str, Path]:
    """Really run an experiment on one tiny image with random weights; what was printed, and where its figure lies."""
    preset = PRESETS[name]
    panel = preset.panels[0]
    words = [f"experiment={name}", f"data={folder / 'standin.py'}:StandIn", f"data.options.folder={folder / 'small'}"]
    words += [f"data.options.name={panel.dataset}", f"data.options.protocol={panel.protocol}"]
    words += ["weights=random", "metrics.available=true", f"root={folder / 'runs'}", "workers=0", "verify=0", "limit=1"]
    console = Console(file=io.StringIO(), width=200)
    captions = of_people(read_benches([*words, *more]))
    assert not any(outcome.wrong for outcome in run_benches([*words, *captions, *more], console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), folder / "runs" / panel.dataset / "figures"


@pytest.mark.slow
def test_a_figure_of_random_weights_is_drawn_under_a_watermark(standin: Path) -> None:
    text, figures = random_run(
        "taco-7", standin, "codec=elic,msillm", "points=2", "metrics=psnr,lpips/alex,cmmd/noproj"
    )
    assert "taco-7:" in text
    drawn = (figures / "taco-7.svg").read_text()
    assert WATERMARK in drawn
    assert "ELIC (random)" in drawn
    assert "MS-ILLM (random)" in drawn  # msillm here, ms-illm in papers
    assert "published" not in drawn.replace("no published", "")
    assert (figures / "taco-7.pdf").is_file()


@pytest.mark.slow
def test_a_table_of_random_weights_says_so(standin: Path) -> None:
    text, figures = random_run("taco-table-3", standin, "rate=3")
    table = (figures / "taco-table-3.md").read_text()
    assert WATERMARK in text
    assert WATERMARK in table
    line = next(line for line in table.splitlines() if line.startswith("| People |"))
    assert "(random)" in line
    assert len(re.findall(r"\d+\.\d\d", line)) >= 2  # a rate and a PSNR
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    console = Console(file=io.StringIO(), width=200)
    words = ["taco-table-3", "--run=taco-table-3", "--random", f"--root={standin / 'runs'}", f"--out={standin / 'out'}"]
    assert command.run(parser.parse_args(words), console) == 0  # by the experiment's name
    assert line in (standin / "out/taco-table-3.md").read_text()
    with pytest.raises(UnknownName, match="rdpbench run experiment=taco-5 makes it"):
        command.run(parser.parse_args(["taco-5", "--run=taco-5", f"--root={standin / 'runs'}"]), console)


@pytest.mark.slow
def test_times_come_into_the_table_of_latency(standin: Path) -> None:
    """ELIC, timed alone; encode, decode and their sum in milliseconds, with the device they are of."""
    _, figures = random_run("taco-table-2", standin, "codec=elic", "rate=1")
    table = (figures / "taco-table-2.md").read_text()
    line = next(line for line in table.splitlines() if line.startswith("| ELIC |"))
    encode, decode, total = (float(cell) for cell in re.findall(r"(\d+\.\d\d) \|", line)[-3:])
    assert encode > 0
    assert decode > 0
    assert total == pytest.approx(encode + decode, rel=0.01)
    assert "cpu" in line


@pytest.mark.slow
def test_a_heat_map_of_random_weights(standin: Path) -> None:
    scales = ("codec.options.guidance=1,3", "codec.options.compression_guidance=0,1", "rate=4")
    _, figures = random_run("textual-inversion-3", standin, *scales, "metrics=psnr")
    drawn = (figures / "textual-inversion-3.svg").read_text()
    assert WATERMARK in drawn
    run = Store(figures.parent).read()
    assert len({row.codec for row in run.rows.values()}) == 4


@pytest.mark.slow
def test_samples_of_random_weights(standin: Path) -> None:
    _, figures = random_run("perco-6", standin, "rate=0.0019", "seed=0,1")
    # Captions are people's here and BLIP-2's in the figure: nothing of another label is shown under its name.
    assert not (figures / "perco-6.svg").exists()
    assert "has none of perco" in (figures / "perco-6.md").read_text()


@pytest.mark.slow
def test_the_runs_of_an_experiment_meet_in_one_figure(standin: Path) -> None:
    """PIC, PICS and MS-ILLM of perco-5, whose two runs share a folder; the second adds to the first."""
    _, figures = random_run("perco-5", standin, "codec=pic,msillm", "rate=4", "points=1")
    assert WATERMARK in (figures / "perco-5.svg").read_text()


# What is typed


def test_an_experiment_of_several_runs(tmp_path: Path) -> None:
    assert [len(runs_of([f"experiment={name}"])) for name in ("taco-a1", "taco-5", "taco-5,taco-a1")] == [3, 1, 4]
    with pytest.raises(ConfigError, match=r"these are 3 runs(.|\n)*data=kodak"):
        read_bench(["experiment=taco-a1"])
    with pytest.raises(UnknownName, match="did you mean 'taco-5'"):
        read_bench(["experiment=taco-55"])
    benches = read_benches(["experiment=taco-a1", "limit=4"])
    assert [bench.limit for bench in benches] == [4, 4, 4]
    assert [bench.allow_unreliable for bench in benches] == [False, True, True]


def test_captions_of_an_experiment_are_for_those_of_its_runs_that_take_one() -> None:
    benches = read_benches(["experiment=perco-1", "captions=human", "download=false"])
    assert {any(facts_of(codec.cls).uses_caption for codec in bench.codecs) for bench in benches} == {True, False}
    with pytest.raises(ConfigError, match="captions=human is for codecs that take a caption"):
        read_benches(["experiment=textual-inversion-3", "captions=human"])
    assert read_benches(["experiment=taco-7", "codec=elic"])  # whose captions are for the others


@pytest.mark.parametrize("text", ["codec: jpeg", "- [codec=jpeg]\n- data=kodak", "- 5", "[]\n- x: y", "just text"])
def test_a_file_that_is_no_experiment(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(text)
    monkeypatch.setattr("rdpbench.config.typed.conf_folder", lambda: tmp_path)
    monkeypatch.setattr("rdpbench.paths.conf_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        experiment("mine")
