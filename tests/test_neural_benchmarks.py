"""The benchmarks of what is neural run end to end on tiny networks, and say what they could not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.slow


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=900, check=False)


def table(output: str) -> dict[str, list[str]]:
    """Lines of the Markdown table by what stands in their first cells."""
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    return {" ".join(cells[:-7] or cells[:1]): cells for cells in lines[2:]}


def test_no_gpu_is_said_and_is_no_success() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("check_gpu.py")
    assert done.returncode == 2
    assert "no GPU: " in done.stdout
    assert "nothing was checked" in done.stdout


def test_the_same_path_on_the_cpu() -> None:
    names = ["mbt2018-mean", "pic", "lpips/squeeze", "clip-score/l14", "miou/maskformer-stuff"]
    small = ["--device", "cpu", "--tiny", "--size", "80", "--compare", "80", "--most", "2", "--steps", "2"]
    done = run("check_gpu.py", *small, "--only", *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(names)} of {len(names)} are as they should be" in done.stdout
    found = table(done.stdout)
    assert list(found) == names
    assert found["mbt2018-mean"][1] == "2 (--most)"
    assert found["mbt2018-mean"][5] == "≤ 0 of 255, 0 % of values, same bytes"
    assert all(float(found[name][5]) == 0 for name in names[2:])
    assert all(float(cell) > 0 for name in names for cell in found[name][2].split(", "))


def test_what_fails_is_a_line_of_the_table() -> None:
    small = ["--device", "cpu", "--tiny", "--size", "16", "--compare", "16", "--most", "1"]
    done = run("check_gpu.py", *small, "--only", "lpips/alex", "bmshj2018-factorized")
    assert done.returncode == 1
    assert "failed: " in table(done.stdout)["lpips/alex"][5]
    assert "1 of 2 are as they should be" in done.stdout
    wrong = run("check_gpu.py", "--device", "cpu", "--only", "mbt2018-meen")
    assert wrong.returncode == 1
    assert "check_gpu knows no 'mbt2018-meen'" in wrong.stderr


def test_throughput_beside_compressai() -> None:
    small = ["--tiny", "--size", "70", "100", "--images", "3", "--rounds", "1", "--batch", "1", "2"]
    done = run("throughput.py", *small, "--codec", "mbt2018-mean", "elic")
    assert done.returncode == 0, done.stderr
    found = table(done.stdout)
    ways = ["CompressAI's loop", "rdpbench, batch 1", "rdpbench, batch 2"]
    assert list(found) == [f"{codec} {way}" for codec in ("mbt2018-mean", "elic") for way in ways]
    for codec in ("mbt2018-mean", "elic"):
        theirs, alone, together = (found[f"{codec} {way}"] for way in ways)
        assert theirs[4:6] == ["1.00", "1.00"]
        assert together[7] == "3 of 3", "a batch writes the bytes of each image alone"
        assert together[8] in ("≤ 0", "≤ 1")
        assert float(theirs[6]) <= float(alone[6]) < 1.2 * float(theirs[6]) + 0.1, "their strings, and our container"
