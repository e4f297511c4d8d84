"""The command line as a user meets it: what it prints, how it exits, and what it must not import."""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import rdpbench as package
from rdpbench import registry
from rdpbench.config.bench import read_bench
from rdpbench.paths import available, conf_folder
from rdpbench.results.store.store import Store
from rdpbench.runners import plan as plans
from rdpbench.runners.plan import make_plan

QUICK = ("metrics=psnr", "figures=false", "verify=0", "workers=0")
HEAVY = ("torch", "pandas", "matplotlib", "hydra", "PIL", "rich", "pyarrow", "imagecodecs", "scipy")
HEAVY += ("http.client", "filelock", "multiprocessing", "rdpbench.results.store.store")


def test_ls_imports_nothing_heavy(environment: dict[str, str]) -> None:
    program = (
        "import sys; from rdpbench.cli import main\n"
        "for what in ('codecs', 'datasets', 'metrics', 'experiments'): assert main(['ls', what]) == 0\n"
        f"print('imported', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported []"


def test_a_plan_of_a_new_run_imports_no_tables(environment: dict[str, str], images: Any) -> None:
    words = ["plan", "codec=jpeg", f"data=folder:{images(2)}", "metrics=psnr"]
    program = (
        f"import sys; from rdpbench.cli import main\nassert main({words}) == 0\n"
        f"print('imported', [name for name in ('pandas', 'pyarrow', 'torch', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported []"


def test_ls_answers_at_once(environment: dict[str, str]) -> None:
    """Half a second on an idle machine; tests share theirs, so three times that is allowed here."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rdpbench", "ls"], env=environment, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds) < 1.5


def _presets() -> dict[str, str]:
    """Names under ``conf/codec``, and the codec that each uses."""
    records = [yaml.safe_load(path.read_text()) for path in (conf_folder() / "codec").glob("*.yaml")]
    return {record["name"]: record["use"] for record in records if record["use"]}


def test_ls_names_everything(rdpbench: Any) -> None:
    listed = rdpbench("ls", "codecs", code=0).stdout
    presets = _presets()
    for name in presets:
        assert any(line.startswith(f"{name} ") for line in listed.splitlines()), name
    assert set(registry.BUILTIN["codec"]) <= set(presets.values()), "a codec that no preset names is not found"
    assert "codec=./mine.py:MyCodec" in listed
    assert "kodak" in rdpbench("ls", "datasets", code=0).stdout
    assert "ms-ssim" in rdpbench("ls", "metrics", code=0).stdout
    assert "default" in rdpbench("ls", "experiments", code=0).stdout
    assert "no runs in results/runs yet" in rdpbench("ls", "runs", code=0).stdout


def test_help_is_worth_reading(rdpbench: Any) -> None:
    text = rdpbench("--help", code=0).stdout
    for command in ("run", "plan", "ls", "doctor", "score", "show", "verify"):
        assert f"\n    {command} " in text
    assert "rdpbench run codec=webp data=kodak" in text
    assert "resume" in text
    assert rdpbench("--version", code=0).stdout.strip() == f"rdpbench {package.__version__}"


@pytest.mark.parametrize("arguments", [(), ("rnu",), ("ls", "codec"), ("show",), ("plan", "--jsn")])
def test_what_is_no_command_exits_2(here: Any, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        here(*arguments)
    assert "usage: rdpbench" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("codec=wepb", "unknown codec 'wepb': did you mean 'webp'?"),
        ("rate=101", "rate 101 is outside what 'jpeg' takes: quality 1..100 in steps of 1"),
        ("rate=0", "rate 0 is outside"),
        ("rate=20.5", "rate 20.5 is outside"),
        ("data=folder:gone", "gone, named by data=folder:gone"),
        ("data=folder", "which folder? Write data=folder:/path/to/images"),
        ("run=a/b", "run='a/b' must be a plain name"),
        ("device=cuda:99", "device='cuda:99': cuda:99 is not here"),
        ("device=gpu", "device='gpu': 'gpu' is none of cpu, cuda"),
        ("data=pictures", "did you mean 'folder:pictures'?"),
        ("data=folder:picturs", "did you mean "),
        ("data=folder:pictures/image00.png", "is a file; data=folder:"),
        ("data=coco", "datasets that begin with 'coco': coco-100, "),
        ("limit=1 metrics=fid/clean", "needs at least 2048 images, and limit=1 takes fewer"),
        ("codec=./mine.py", "which class of ./mine.py? codec=./mine.py:One or :Two"),
    ],
)
def test_mistakes_exit_2_with_one_message(
    here: Any, images: Any, typed: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"codec": "jpeg", "rate": "30", "data": f"folder:{images(1)}"}
    (tmp_path / "mine.py").write_text("class One: ...\nclass Two: ...\n")
    line |= dict(word.split("=", 1) for word in typed.split())
    assert here("run", *QUICK, *(f"{key}={value}" for key, value in line.items())) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.err.startswith("rdpbench: ")
    assert printed.out == ""
    assert not (tmp_path / "results").exists(), "nothing may be written before a plan stands"


def test_images_that_cannot_be_read_are_all_named(rdpbench: Any, images: Any) -> None:
    folder = images(2)
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    whole = (folder / "image00.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not looked at")
    (folder / ".hidden.png").write_bytes(b"")
    done = rdpbench("run", "codec=jpeg", f"data=folder:{folder}", *QUICK, code=2)
    assert "3 of 5 images of 'folder-pictures' cannot be read" in done.stderr
    for name, why in (("empty.png", "is empty"), ("text.jpg", "cannot read"), ("cut.png", "cannot read")):
        assert any(name in line and why in line for line in done.stderr.splitlines())


def test_an_empty_folder(rdpbench: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no images in" in rdpbench("run", "codec=jpeg", "data=folder:empty", *QUICK, code=2).stderr


def test_a_folder_inside_a_hidden_one_and_dots(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    folder = images(2, name=".cache/pictures")
    for where, cwd in ((".", folder), ("..", folder / "deeper")):
        cwd.mkdir(exist_ok=True)
        line = ["plan", "codec=jpeg", "rate=30", f"data=folder:{where}", "metrics=psnr", "--json"]
        assert json.loads(rdpbench(*line, code=0, cwd=cwd).stdout)["tasks"] == 2
    assert json.loads(rdpbench(*line[:3], "data=folder:.cache", *line[4:], code=0).stdout)["tasks"] == 2


def test_unusual_names_go_all_the_way(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    folder = images(2, name="my 'best', $x$ pictures")
    done = rdpbench("run", "codec=jpeg", "rate=30", f"data=folder:{folder}", "metrics=psnr", "workers=0", code=0)
    assert "2 of them decoded again in a fresh process" in done.stdout
    assert (tmp_path / "results/runs/folder-my 'best', $x$ pictures/figures/curves.pdf").is_file()


def test_odd_images_go_all_the_way(rdpbench: Any, tmp_path: Path) -> None:
    """Grey, palette, alpha, 16 bits, one pixel: each is coded as the pixels that reading it gives."""
    import numpy as np
    from PIL import Image as pil

    folder = tmp_path / "odd"
    folder.mkdir()
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (17, 23, 4), dtype=np.uint8)
    pil.fromarray(pixels[:, :, 0]).save(folder / "grey.png")
    pil.fromarray(pixels[:, :, :3]).quantize(8).save(folder / "palette.png")
    pil.fromarray(pixels).save(folder / "alpha.png")
    pil.fromarray(pixels[:, :, 0].astype(np.uint16) * 200).save(folder / "deep.png")
    pil.fromarray(pixels[:1, :1, :3]).save(folder / "pixel.png")
    pil.fromarray(pixels[:, :, :3]).convert("CMYK").save(folder / "ink.jpg")
    rdpbench("run", "codec=jpeg,webp", "rate=50", "data=folder:odd", *QUICK, code=0)
    rows = Store(tmp_path / "results/runs/folder-odd").read().rows.values()
    assert {row.source_mode for row in rows} == {"L", "P", "RGBA", "I;16", "RGB", "CMYK"}
    assert all(row.bpp == 8 * row.bytes / (row.height * row.width) for row in rows)


def test_limit_is_marked(rdpbench: Any, images: Any) -> None:
    line = ["run", "codec=jpeg", "rate=30", f"data=folder:{images(3)}", *QUICK]
    done = rdpbench(*line, "limit=2", code=0)
    assert "│ 2* │" in done.stdout
    assert "partial: fewer images than the 3" in " ".join(done.stdout.split())
    assert "folder-pictures (2 of 3 images)" in done.stderr
    assert "│ 3 │" in rdpbench(*line, code=0).stdout


def test_a_missing_binary_stops_the_plan(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path)}
    done = rdpbench("run", "codec=bpg,jpeg", f"data=folder:{images(1)}", *QUICK, code=2, env=env)
    assert "this run cannot start" in done.stderr
    assert "program 'bpgenc' is not on PATH; get it from https://bellard.org/bpg/" in done.stderr
    assert "export RDPBENCH_BPGENC=" in done.stderr
    assert not (tmp_path / "results").exists()


def without_weights(tmp_path: Path) -> dict[str, str]:
    return {name: str(tmp_path / "nowhere") for name in ("HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME")}


def test_missing_weights_stop_the_plan(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    line = ["run", "codec=jpeg", "rate=30", f"data=folder:{images(1)}", "metrics=psnr,lpips/vgg", "download=false"]
    done = rdpbench(*line, "workers=0", code=2, env=without_weights(tmp_path))
    assert "metric lpips/vgg: weights 'vgg16-imagenet' are not on this machine" in done.stderr
    for word in ("from     https://", "size     ", "licence  ", "sha256   ", "put it   at ", "metrics=available"):
        assert word in done.stderr
    assert not (tmp_path / "results").exists()


def test_available_metrics_say_what_is_left_out(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    line = ["codec=jpeg", "rate=30", f"data=folder:{images(1)}", "metrics=available"]
    env = without_weights(tmp_path) | {"RDPBENCH_BUTTERAUGLI": str(tmp_path / "none")}
    plan = rdpbench("plan", *line, code=0, env=env)
    assert "left out  lpips/alex: weights 'alexnet-imagenet' are not on this machine" in plan.stdout
    made = json.loads(rdpbench("plan", *line, "--json", code=0, env=env).stdout)
    lacking = {"lpips/alex", "lpips/vgg", "dists", "clip-i/b32", "fid/clean", "kid/clean", "cmmd"}
    assert set(made["left_out"]) == {*lacking, "butteraugli/3-norm/80-nits"}
    assert set(made["metrics"]) == {"psnr", "psnr-pooled", "ms-ssim", "ssimulacra2", "flip", "edges/canny-f1"}


def test_plan_counts_and_does_nothing(rdpbench: Any, here: Any, images: Any, tmp_path: Path) -> None:
    line = ["codec=jpeg,webp", "rate=30,60", f"data=folder:{images(3)}", "metrics=psnr"]
    made = json.loads(rdpbench("plan", *line, "--json", code=0).stdout)
    assert {key: made[key] for key in ("cells", "tasks", "left", "failed")} == {
        "cells": 4, "tasks": 12, "left": 12, "failed": 0,
    }  # fmt: skip
    assert not (tmp_path / "results").exists()
    assert here("run", *line, "limit=1", "figures=false", "verify=0", "workers=0") == 0
    text = rdpbench("plan", *line, code=0).stdout
    assert "tasks     12 in 4 cells: 4 done, 8 left" in text
    assert "time      about" in text


def test_plan_tells_what_a_long_run_takes(images: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Hours of a device, of the codecs that compute there, and the disk."""
    line = ["codec=jpeg,mini", "points=1", f"data=folder:{images(3)}", "metrics=psnr", "keep=all"]
    plan = make_plan(read_bench([*line, f"root={tmp_path}"]), store := Store(tmp_path / "run"))
    for lack in ("devices", "disk"):
        assert not [text for text in plans.lines(plan, store, 1) if text.startswith(lack)]
    plan.costs.learn_coding("mini", "mini", plan.cells[-1].setting, 1_000, 3600)
    monkeypatch.setattr(plans, "ROW_BYTES", 10**9)
    pixels = sum(entry.height * entry.width for entry in plan.cells[-1].entries)
    *_, devices, disk = plans.lines(plan, store, 1, "cuda")
    assert re.fullmatch(r"devices   about [\d.]+ hours of cuda in all, of mini", devices)
    assert float(devices.split()[2]) == pytest.approx(pixels / 1000, rel=0.01, abs=0.1)
    assert re.fullmatch(r"disk      about 6.0 GB: 6.0 GB of rows; \d+ GB are free", disk)


def test_show_draws_again_and_an_unknown_run_lists_runs(rdpbench: Any, here: Any, images: Any, tmp_path: Path) -> None:
    assert "runs that exist: none" in rdpbench("show", "nothing", code=2).stderr
    assert here("run", "codec=jpeg", "rate=30,60", f"data=folder:{images(2)}", "run=first", *QUICK) == 0
    done = rdpbench("show", "frist", code=2)
    assert "unknown run 'frist': did you mean 'first'?" in done.stderr
    assert "runs that exist: first" in done.stderr
    assert "results/runs/first/figures/curves.png" in rdpbench("show", "first", code=0).stdout
    assert rdpbench("ls", "runs", code=0).stdout == "results/runs/first\n"


def test_what_a_run_does_not_hold_is_told(here: Any, images: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine.py").write_text("from rdpbench.codecs.classical.pillow import WebP\nclass Mine(WebP): ...\n")
    assert (
        here("run", "codec=./mine.py:Mine", "rate=60", f"data=folder:{images(2)}", "run=own", *QUICK, "keep=none") == 0
    )
    capsys.readouterr()
    assert here("figure", "curves", "--run", "own", "--metric", "lpips/alex") == 0
    told = "no value of lpips/alex is stored, only of psnr. To add it, type what made the run again as rdpbench score"
    assert told in capsys.readouterr().out
    assert here("figure", "examples", "--run", "own") == 0
    printed = capsys.readouterr().out
    assert f"rdpbench run codec={tmp_path}/mine.py:Mine " in printed
    assert "does not have" not in printed
    assert here("verify", "own", "codec=./mine.py:Mime") == 2
    assert "unknown class 'Mime': did you mean 'Mine'?" in capsys.readouterr().err


def test_without_slurm_its_runner_says_so(
    here: Any, images: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert here("run", "codec=jpeg", "rate=60", f"data=folder:{images(2)}", "runner=slurm", *QUICK[:2]) == 2
    assert "this machine has no SLURM" in capsys.readouterr().err


READ_A_RUN = [
    ("show", "first"),
    ("show", "first", "--by-tag"),
    ("verify", "first", "--sample", "1"),
    ("report", "first", "--images", "none"),
    ("bd", "first", "--anchor", "jpeg"),
    ("bd", "first", "--anchor", "jpeg", "--matched", "--crossover"),
    ("figure", "curves", "--run", "first", "--out", "figures"),
    ("study", "export", "first", "--out", "pack", "--catch", "0"),
    ("ls", "runs"),
]
MAKE_A_RUN = [
    ("run",),
    ("plan",),
    ("score",),
    ("curves", "update", "--curves", "stored"),
    ("regress", "--curves", "stored"),
]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of runs that is not the usual one, and the settings that made its run ``first``."""
    import numpy as np
    from PIL import Image as pil

    from rdpbench.cli import main

    place = tmp_path_factory.mktemp("elsewhere")
    (place / "pictures").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        pil.fromarray(pixels).save(place / "pictures" / f"{number}.png")
    line = ["codec=jpeg,webp", "rate=20,40,60,80", f"data=folder:{place / 'pictures'}", "run=first", *QUICK]
    assert main(["run", *line, "keep=all", f"root={place / 'runs'}"]) == 0
    return place / "runs", line


@pytest.mark.parametrize("command", READ_A_RUN + MAKE_A_RUN, ids=" ".join)
def test_every_command_on_runs_takes_root(
    here: Any, elsewhere: tuple[Path, list[str]], command: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    """In one form or the other; where it may stand, and in which forms, is of one function for all commands."""
    runs, line = elsewhere
    words = [*command, *(line if command in MAKE_A_RUN else [])]
    if command[0] == "regress":
        assert here("curves", "update", *words[1:], f"root={runs}") == 0
    before = (READ_A_RUN + MAKE_A_RUN).index(command) % 2
    capsys.readouterr()
    assert here(*(["--root", str(runs), *words] if before else [*words, f"root={runs}"])) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    if command[0] in ("run", "score"):
        assert "nothing to do" in printed.out + printed.err
    if command[0] == "plan":
        assert "16 done, 0 left" in printed.out
    assert not (tmp_path / "results" / "runs").exists(), "it looked or wrote at the usual place"


@pytest.mark.parametrize("form", ["root=a/b", "--root=a/b", "--root a/b", "+root=a/b"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_root_may_stand_anywhere(form: str, place: int) -> None:
    from rdpbench.cli import _take_root

    words = ["show", "first", "--by-tag"]
    assert _take_root([*words[:place], *form.split(), *words[place:]]) == (words, "a/b")


@pytest.mark.parametrize("command", [("ls",), ("ls", "codecs"), ("check", "metrics=all"), ("data", "ls"), ("doctor",)])
def test_root_is_refused_where_it_means_nothing(here: Any, command: tuple[str, ...], capsys: Any) -> None:
    for words in (["root=x"], ["--root", "x"]):
        with pytest.raises(SystemExit, match="2"):
            here(*command, *words)
        assert "root=x means nothing here: this command neither makes nor reads runs" in capsys.readouterr().err


def test_a_home_folder_is_found_in_every_command(here: Any, monkeypatch: pytest.MonkeyPatch, elsewhere: Any) -> None:
    monkeypatch.setenv("HOME", str(elsewhere[0].parent))
    assert here("show", "first", "root=~/runs") == 0
    assert here("plan", *elsewhere[1], "root=~/runs") == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "--limit", "3"), "settings are written without dashes: limit=VALUE"),
        (("run", "--retry-failed=true"), "settings are written without dashes: retry_failed=VALUE"),
        (("show", "first", "limit=3"), "limit= is a setting of what makes a run, such as `rdpbench run`"),
        (("show", "first", "--by-tags"), "[--by-tag]"),
        (("run", "-m", "codec=jpeg,webp"), "not needed: several values with commas are all run"),
        (("run", "--config-name", "x"), "experiment=NAME names a run"),
        (("show", "first", "second"), "this command takes one run; several in one page: rdpbench report first second"),
        (("plan", "codec=jpeg", "--json=plan.json"), "--json takes no value, found 'plan.json'; what a command prints"),
        (("worker",), "required: name; `rdpbench ls runs` lists the runs"),
        (("study", "import", "votes.csv"), "required: --key; --key FILE: the key that export wrote"),
    ],
)
def test_a_word_of_another_command_is_told_what_is_possible(
    here: Any, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        here(*words)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [("run",), ("plan",), ("score",), ("regress",), ("curves", "update"), ("reproduce", "webp")],
    ids=" ".join,
)
def test_every_command_with_settings_refuses_what_nothing_reads(
    here: Any, command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for typed in ("+nonsense=1", "+metric=psnr", "data.protocol=as-is", "~limit=2"):
        words = [] if command[0] == "reproduce" else ["codec=jpeg", "data=samples"]
        assert here(*command, *words, typed) == 2
        printed = capsys.readouterr()
        refusals = "unknown setting", "a setting cannot be removed", "would change what is checked"
        assert any(refusal in printed.err for refusal in refusals)
    assert not (tmp_path / "results").exists()


def test_a_download_that_is_neither_true_nor_false_is_refused(here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("reproduce", "webp", "download=yes") == 2
    assert "download=yes must be true or false" in capsys.readouterr().err


def test_score_adds_a_metric_and_never_encodes(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    line = ["codec=jpeg", "rate=30", f"data=folder:{images(2)}", "figures=false", "workers=0", "verify=0"]
    early = rdpbench("score", *line, "metrics=psnr", code=2)
    assert "score never encodes, but 2 of 2 tasks are not in" in early.stderr
    rdpbench("run", *line, "metrics=psnr", code=0)
    alone = rdpbench("score", "run=folder-pictures", "metrics=psnr", code=2)
    assert f": rdpbench score {' '.join(line)} run=folder-pictures metrics=psnr" in alone.stderr
    assert "such as run=folder-pictures" in rdpbench("score", "folder-pictures", "metrics=psnr", code=2).stderr
    store = Store(tmp_path / "results/runs/folder-pictures")
    before = store.read()
    done = rdpbench("score", *line, "metrics=psnr-pooled", code=0)
    assert "0 tasks coded, 2 scored or timed from the store" in done.stdout
    after = store.read()
    assert after.rows == before.rows
    assert before.scores.items() <= after.scores.items()
    assert {one.metric for one in after.scores.values()} == {"psnr", "psnr-pooled"}


def test_timing_gives_latency_apart_from_rows(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    line = ["run", "codec=jpeg", "rate=30", f"data=folder:{images(2)}", "metrics=psnr", "figures=false", "verify=0"]
    assert "Latency" not in rdpbench(*line, "workers=0", code=0).stdout
    store = Store(tmp_path / "results/runs/folder-pictures")
    rows = store.read().rows
    done = rdpbench(*line, "timing=true", code=0)
    assert "Latency: median over images of the median of repeats" in done.stdout
    assert "1 warm-up and 5 repeats an image" in " ".join(done.stdout.split())
    found = store.read()
    assert found.rows == rows, "timing codes nothing anew"
    assert len(found.timings) == 2
    for timing in found.timings.values():
        assert 0 < timing.encode_min_s <= timing.encode_s <= timing.encode_max_s < 1
        assert 0 < timing.decode_min_s <= timing.decode_s <= timing.decode_max_s < 1
        assert (timing.repeats, timing.warmup, timing.threads) == (5, 1, 1)
    assert "nothing to do" in rdpbench(*line, "timing=true", code=0).stdout
    # Of another machine, as after a merge or on a shared disk, they are other times: no median is of both.
    with contextlib.closing(store.writer(store.new_session())) as part:
        for timing in found.timings.values():
            part.append({"timing": vars(replace(timing, timing_key=f"{timing.task_key}/o", device="cpu (other)"))})
    assert "nothing to do" in (shown := rdpbench(*line, "timing=true", code=0).stdout)
    assert len(re.findall(r"quality 30 │ 2 │[^│]*│[^│]*│ +cpu \(", shown)) == 2
    assert "encode ms" in (store.folder / "tables/summary.md").read_text()


def test_reconstructions_are_kept_as_asked(here: Any, images: Any, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image as pil

    from rdpbench.image import pixel_sha256

    line = ["run", "codec=jpeg", "rate=30,60", f"data=folder:{images(3)}", *QUICK]
    folder = tmp_path / "results/runs/folder-pictures/reconstructions"
    assert here(*line) == 0
    assert not folder.exists()
    assert here(*line, "keep=1") == 0
    assert len(list(folder.rglob("*.png"))) == 2
    assert here(*line, "keep=all") == 0
    hashes = {pixel_sha256(np.array(pil.open(path))) for path in folder.rglob("*.png")}
    rows = Store(folder.parent).read().rows.values()
    assert hashes == {row.reconstruction_sha256 for row in rows}


@pytest.mark.parametrize("command", ["ls", "doctor"])
def test_all_names_fit_one_screen(rdpbench: Any, command: str) -> None:
    lines = rdpbench(command, code=0).stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    stems = {re.sub(r"\+\d+$", "", word) for word in words}
    every = [*_presets(), *available("data"), *registry.BUILTIN["metric"]]
    for name in every if command == "ls" else ():
        stem = name.partition("/" if name in registry.BUILTIN["metric"] else "-")[0]
        assert {name, stem, f"{stem}-*", f"{stem}/*"} & stems, name


def test_doctor_tells_all_about_a_name(rdpbench: Any) -> None:
    assert f"rdpbench {package.__version__}, Python" in rdpbench("doctor", code=0).stdout
    text = rdpbench("doctor", "jpeg", "msillm", "lpips/alex", "vtm", "kodak", code=0).stdout
    assert "codec jpeg: JPEG (libjpeg-turbo through Pillow)\n  runs here" in text
    assert "lacks weights of 8 of 8 rate points; `rdpbench plan codec=msillm` lists them all. The first:" in text
    assert "size     244 MB (244408911 bytes)" in text
    assert "export RDPBENCH_VTM_ENCODER=/where/it/is/EncoderAppStatic" in text
    assert "is not here, 15 MB in 24 files; the first run downloads it, or type: rdpbench data fetch kodak" in text
    assert "unknown name 'jepg': did you mean 'jpeg'?" in rdpbench("doctor", "jepg", code=2).stderr


def test_a_closed_pipe_is_no_error(environment: dict[str, str]) -> None:
    line = f"{sys.executable} -m rdpbench ls codecs | head -1"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


ASCII = {"PYTHONIOENCODING": "ascii", "COLUMNS": "60", "NO_COLOR": "1"}


def test_a_terminal_of_60_columns_without_our_signs_shows_all_numbers(rdpbench: Any, images: Any) -> None:
    rdpbench("run", "codec=jpeg,webp", "rate=30,60", f"data=folder:{images(3)}", "metrics=psnr", *QUICK, code=0)
    for words in (("show", "folder-pictures"), ("ls", "metrics"), ("bd", "folder-pictures", "--anchor", "jpeg")):
        usual, ascii_ = rdpbench(*words, code=0).stdout, rdpbench(*words, code=0, env=ASCII).stdout
        assert ascii_.isascii()
        numbers = re.findall(r"[0-9]+[.][0-9]+", usual)
        assert numbers or words[0] != "show"
        assert not set(numbers) - set(re.findall(r"[0-9]+[.][0-9]+", ascii_))
        assert "?" not in ascii_
        assert "psnr dB ^" in ascii_ or words[0] != "show"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("pln", "codec=jpeg"), "invalid choice: 'pln'"),
        (("pln", "codec=jpeg"), "did you mean plan?"),
        (("ls", "metric"), "did you mean metrics?"),
        (("data", "download"), "did you mean fetch?"),
        (("show", "first", "--by_tag"), "did you mean --by-tag?"),
        (("bd", "first", "--anchor", "jpeg", "--metrics", "psnr"), "did you mean --metric?"),
        (("bd", "first", "jpeg"), "did you mean --anchor jpeg?"),
        (("report", "--run", "first"), "a run's name stands alone: rdpbench report NAME"),
        (("show",), "`rdpbench ls runs` lists the runs"),
        (("plan", "-c", "jpeg"), "settings are written NAME=VALUE, such as codec=webp"),
        ((), "encode, decode, score; then tables and figures"),
    ],
)
def test_what_is_no_word_of_a_command_says_which_is_meant(
    here: Any, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        here(*words)
    assert told in capsys.readouterr().err


def test_commands_that_have_nothing_to_show_say_what_to_type(
    here: Any, images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["run", "codec=jpeg", "rate=30,60", f"data=folder:{images(2)}", "metrics=psnr", "run=first", *QUICK]
    assert here(*line) == 0
    capsys.readouterr()
    assert here("bd", "first") == 2
    assert "against which curve? first has jpeg; type: rdpbench bd first --anchor jpeg" in capsys.readouterr().err
    assert here("bd", "first", "--anchor", "jpeg") == 2
    assert "rdpbench run codec=webp data=folder:pictures run=first" in capsys.readouterr().err
    assert here("show", "first", "--by-tag") == 0
    assert "For tables of all images type: rdpbench show first" in capsys.readouterr().out
    assert here("study", "export", "first", "--out", "pack") == 2
    assert "rdpbench run codec=jpeg data=folder-pictures keep=all" in capsys.readouterr().err
    assert here("figure", "taco-5", "--run", "first") == 0
    assert "taco-5 shows nothing of folder-pictures: it is of " in capsys.readouterr().out.replace("\n", " ")
    # Latency comes in the order in which codecs were named, not in that of hashes.
    timed = ["run", "codec=webp,jpeg,jpeg2000", "points=1", "data=folder:pictures", "timing=true", "metrics=psnr"]
    assert here(*timed, "run=timed", "figures=false", "verify=0", "limit=1") == 0
    order = re.findall(r"(?:│|\|) (webp|jpeg2000|jpeg) ", capsys.readouterr().out.partition("Latency")[2])
    assert order == ["webp", "jpeg", "jpeg2000"]
