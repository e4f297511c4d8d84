"""The light core: what runs without the extras and on other systems, and the wheel in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rdpbench.needs import EXTRAS, MODULES
from rdpbench.provenance import cores, peak_memory_mb
from rdpbench.runners import pool

ROOT = Path(__file__).parents[1]
MODULE = {package: module for module, package in MODULES.items()}
LIGHT = """
import fcntl, os, resource, sys


class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self.finder.find_spec(name, path, target)


ABSENT = {absent!r}
sys.meta_path[:] = map(Without, sys.meta_path)
for module, name in ((os, "sched_getaffinity"), (os, "memfd_create"), (resource, "prlimit"), (fcntl, "F_SETPIPE_SZ")):
    delattr(module, name)
"""
"""Runs at the start of each Python: no package of an extra is there, nor what only Linux has."""
CLASSICAL = "codec=jpeg,jpeg2000,webp,avif,hevc,heif,jpegxl,mozjpeg,vvenc"


@pytest.fixture
def light(tmp_path: Path) -> dict[str, str]:
    absent = {MODULE.get(package, package.replace("-", "_")) for package in EXTRAS}
    (tmp_path / "light").mkdir()
    (tmp_path / "light/sitecustomize.py").write_text(LIGHT.replace("{absent!r}", repr(absent)))
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "light"), str(ROOT)])}


def test_classical_codecs_run_without_extras_and_without_linux(
    rdpbench: Any, images: Any, light: dict[str, str]
) -> None:
    words = (CLASSICAL, f"data=folder:{images(1, size=(164, 168))}", "points=2", "verify=2", "run=a")
    done = rdpbench("run", *words, env=light, code=0)
    assert "18 tasks coded, 0 scored or timed from the store, 0 failed" in done.stdout
    assert "a/figures/curves.png" in done.stdout
    shown = rdpbench("report", "a", env=light, code=0).stdout
    assert "The report has no curves: plotly.js" in shown
    assert "ssimulacra2" in rdpbench("bd", "a", "--anchor", "jpeg", env=light).stdout


def test_python_runs_and_scores_without_extras(tmp_path: Path, environment: Any, light: dict[str, str]) -> None:
    program = (
        "import rdpbench\n"
        "frame = rdpbench.run('webp', 'samples', rate=50, limit=1, metrics='psnr,ssimulacra2')\n"
        "scores = rdpbench.Scorer('psnr,ms-ssim,ssimulacra2')\n"
        "print(len(frame), scores.metrics)\n"
        "for metrics, more in (('lpips/alex', {}), ('psnr', {'device': 'cuda'})):\n"
        "    try:\n"
        "        rdpbench.Scorer(metrics, **more)\n"
        "    except rdpbench.RdpbenchError as error:\n"
        "        print(error)\n"
    )
    line, variables = [sys.executable, "-c", program], {**environment, **light}
    done = subprocess.run(line, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("2 ('psnr', 'ms-ssim', 'ssimulacra2')\n"), done.stderr
    assert re.findall(r"pip install 'rdpbench\[(\w+)\]'", done.stdout) == ["metrics", "learned"]
    assert (tmp_path / "results/runs/samples/figures/curves.png").is_file()


def test_the_default_leaves_out_what_is_not_installed_and_says_how_to_get_it(rdpbench: Any, light: Any) -> None:
    done = rdpbench("plan", env=light, code=0)
    assert done.stderr == (
        "mini is left out: Python package 'compressai' is not installed; type: pip install 'rdpbench[learned]'\n"
    )
    assert "codecs    jpeg, jpeg2000, webp, avif, hevc, jpegxl\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("codec=mbt2018",), "learned"),
        (("codec=taco",), "learned"),
        (("codec=mini",), "learned"),
        (("codec=pics",), "generative"),
        (("codec=perco",), "generative"),
        (("codec=jpeg", "metrics=lpips/alex"), "metrics"),
        (("codec=jpeg", "metrics=fid/clean"), "metrics"),
        (("codec=jpeg", "metrics=edges/canny-f1"), "metrics"),
        (("codec=jpeg", "metrics=flip"), "metrics"),
        (("codec=jpeg", "device=cuda"), "learned"),
        (("codec=jpeg", "runner=slurm"), "slurm"),
        (("codec=jpeg", "runner=ray"), "ray"),
    ],
)
def test_an_error_names_the_extra(rdpbench: Any, light: Any, words: tuple[str, ...], extra: str) -> None:
    told = rdpbench("plan", *words, env=light, code=2).stderr
    assert set(re.findall(r"pip install 'rdpbench\[(\w+)\]'", told)) == {extra}


@pytest.mark.parametrize("command", ["ls", "doctor"])
def test_one_screen_without_extras(rdpbench: Any, light: Any, command: str) -> None:
    lines = rdpbench(command, env=light, code=0).stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_extras_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        extra: {re.split(r"[<>=\[]", line)[0] for line in lines}
        for extra, lines in project["optional-dependencies"].items()
    }
    core = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    for package, extra in EXTRAS.items():
        assert package in names[extra], package
        assert package not in core, package
    others = names["learned"] | names["generative"] | names["metrics"] | names["report"] | names["slurm"] | names["ray"]
    assert others - EXTRAS.keys() - core <= {"rdpbench", "setuptools"}


def test_processes_are_found_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "PROC", tmp_path / "proc")
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert child.pid in pool._descendants(os.getpid())
    finally:
        child.kill()
        child.wait()


def test_cores_and_memory_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    here = peak_memory_mb()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory_mb() == pytest.approx(here / 1024, rel=0.1)


@pytest.mark.slow
def test_the_wheel_from_an_empty_folder(tmp_path: Path) -> None:
    """``CORE_PYTHON`` names another Python; its packages come from where pip finds them."""
    python = os.environ.get("CORE_PYTHON", sys.executable)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean |= {"RDPBENCH_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}

    def run(*line: object, cwd: Path = tmp_path) -> str:
        done = subprocess.run(list(map(str, line)), cwd=cwd, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT)
    [wheel] = tmp_path.glob("*.whl")
    run(python, "-m", "venv", tmp_path / "core")
    installed, command = tmp_path / "core/bin/python", tmp_path / "core/bin/rdpbench"
    run(installed, "-m", "pip", "install", "--quiet", wheel)
    assert not {"torch", "compressai", "opencv-python-headless"} & set(run(installed, "-m", "pip", "list").split())
    (tmp_path / "empty").mkdir()
    told = run(command, "run", "limit=1", "points=2", cwd=tmp_path / "empty")
    assert "mini is left out" in told
    assert "12 tasks coded, 0 scored or timed from the store, 0 failed" in told
    for words in (("ls",), ("doctor",), ("show", "samples"), ("verify", "samples"), ("check", "codec=jpeg")):
        run(command, *words, cwd=tmp_path / "empty")
