"""Published numbers again: real runs that agree, one that must not, and what cannot run yet."""

from __future__ import annotations

import argparse
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rdpbench.config.bench import read_bench
from rdpbench.datasets.contract import dataset_of
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.gate import reproduce
from rdpbench.gate.compare import Tolerance
from rdpbench.gate.reproduce import AGREES, DIFFERS, Outcome, PublishedCheck, checks, expected

KNOWN = checks()


def command(*words: str) -> tuple[int, str]:
    """Runs ``rdpbench reproduce``; the exit code and what was printed."""
    parser = argparse.ArgumentParser()
    reproduce.add_arguments(parser)
    console = Console(file=io.StringIO(), width=250)
    code = reproduce.run(parser.parse_args(words), console)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PublishedCheck:
    """WebP's lowest point, with which the command then works as if it were all there is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RDPBENCH_DATA", raising=False)
    monkeypatch.delenv("RDPBENCH_WEIGHTS", raising=False)
    webp = KNOWN["webp"]
    made = replace(webp, rates=(5.0,), published=replace(webp.published, lowest=1))
    made = replace(made, run=("codec=webp", "data=kodak", "metrics=psnr"), within=dict(webp.within))
    made.within.pop("ms-ssim")  # type: ignore[attr-defined]  # a dict
    monkeypatch.setattr(reproduce, "checks", lambda: {"webp": made, "ms-illm": KNOWN["ms-illm"]})
    return made


def test_ms_illm_is_held_against_its_authors_table() -> None:
    """The numbers as they are quoted: PSNR, LPIPS and MS-SSIM of q1 to q3 on Kodak."""
    points = expected(KNOWN["ms-illm"])
    assert [f"{one['psnr'][0]:.2f}" for one in points] == ["24.73", "25.92", "27.53"]
    assert [f"{one['lpips/alex'][0]:.4f}" for one in points] == ["0.1576", "0.1100", "0.0732"]
    assert [f"{one['ms-ssim'][0]:.4f}" for one in points] == ["0.8461", "0.8902", "0.9282"]
    assert all("results.csv" in source for one in points for _, source in one.values())


@pytest.mark.parametrize("name", KNOWN)
def test_a_check_is_a_run_of_what_was_published(name: str) -> None:
    check = KNOWN[name]
    bench = read_bench([*check.run, f"rate={','.join(f'{rate:g}' for rate in check.rates)}"])
    ((codec, data),) = bench.grid
    assert bench.rates == check.rates
    assert set(check.rates) <= set(codec.rates)
    assert dataset_of(data).name == check.published.dataset
    points = expected(check)
    assert len(points) == len(check.rates)
    for point in points:
        assert set(point) == set(check.within)
        assert all(math.isfinite(value) for value, _ in point.values())
    rates = [next(value for metric, (value, _) in one.items() if metric.startswith("bpp")) for one in points]
    assert rates == sorted(rates)
    assert {metric for metric in check.within if not metric.startswith("bpp")} == set(bench.metrics)
    assert all(limit.absolute + limit.relative > 0 for limit in check.within.values())
    assert check.why


@pytest.mark.slow
def test_webp_gives_the_published_point_again(small: PublishedCheck, shared: Path, tmp_path: Path) -> None:
    """All 24 images of Kodak, through the command; then half of them, and a tolerance that nothing meets."""
    path = f"data.path={shared / 'data/kodak'}"
    code, text = command("webp", path, "workers=0", "--markdown", "table.md")
    assert code == 0, text
    assert "2 of 2 numbers agree" in text
    lines = (tmp_path / "table.md").read_text().splitlines()
    (psnr,) = [line for line in lines if line.startswith("| webp | quality 5 | psnr | ")]
    assert psnr.endswith("agrees |")
    assert "CompressAI@869a9f5d4126:results/image/kodak/webp.json" in (tmp_path / "table.md").read_text()
    code, text = command("webp", path, "limit=12", "run=half", "workers=0")
    assert code == 0
    assert "not run: over" not in text
    assert "over 12 of 24 images, which is not comparable" in text
    assert "agrees" not in text


@pytest.mark.slow
def test_another_quality_differs(small: PublishedCheck, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run at quality 10 is not the point that was published for 5."""
    monkeypatch.setattr(reproduce, "checks", lambda: {"webp": replace(small, rates=(10.0,))})
    code, text = command("webp", f"data.path={shared / 'data/kodak'}", "workers=0")
    assert code == 1
    assert "0 of 2 numbers agree" in text
    assert DIFFERS in text


def test_without_weights_it_says_which_files(small: PublishedCheck, shared: Path) -> None:
    code, text = command("ms-illm", f"data.path={shared / 'data/kodak'}")
    assert code == 0
    assert "ms-illm                not run: weights missing" in text
    files = re.findall(r"^    (\S+) \(\d+ MB, https?://", text, re.MULTILINE)
    assert len(files) == 3  # a checkpoint for each quality
    assert text.count("not run: weights missing") == 1 + 3 * 5  # and each number


def test_without_images_it_says_how_to_get_them(small: PublishedCheck) -> None:
    code, text = command()
    assert code == 0
    assert "webp                   not run: data missing" in text
    assert "rdpbench data fetch kodak, or download=true" in text
    assert "not run: weights and data missing" in text


def test_long_checks_run_only_where_they_are_named(small: PublishedCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "checks", lambda: {"bpg": KNOWN["bpg"]})
    code, text = command()
    assert code == 0
    assert "takes hours; type: rdpbench reproduce bpg" in text
    assert "| " not in text


def test_the_list_says_what_each_is(small: PublishedCheck) -> None:
    code, text = command("--list")
    assert code == 0
    assert text.startswith("webp                   WebP on Kodak, 19 points of CompressAI (data missing)")


OTHERS = (
    "codec=jpeg",
    "rate=5",
    "codec.options.method=6",
    "weights=random",
    "+codec.options.x=1",
    "points=2",
    "seed=1",
)
SETS = ("data=folder:pictures", "data.protocol=crop-256", "+data.options.x=1", "metrics=psnr", "captions=ofa")


def test_what_cannot_be_meant(small: PublishedCheck) -> None:
    with pytest.raises(UnknownName, match="did you mean 'webp'"):
        command("wepb")
    for typed in (*OTHERS, *SETS):
        with pytest.raises(ConfigError, match="would change what is checked"):
            command("webp", typed)
    with pytest.raises(ConfigError, match="2 rates, and 1 points"):
        expected(replace(small, rates=(5.0, 10.0)))


def test_the_tolerance_is_absolute_and_relative() -> None:
    within = Tolerance(absolute=0.1, relative=0.01)
    assert within.width(10) == pytest.approx(0.2)
    verdicts = [reproduce._verdict(value, 24, 24, 10, within) for value in (9.8, 10.2, 9.79, 10.21, math.nan)]
    assert [verdict for verdict, _ in verdicts] == [AGREES, AGREES, DIFFERS, DIFFERS, "not run: weights missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: {b: 1}", "is not known here"), ("a: 5", "reproduce"), ("[", "reproduce"), ("a: {run: [x]}", "reproduce")],
)
def test_a_file_that_is_no_list_of_checks(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "reproduce.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        checks(path)


def test_one_number_that_differs_decides() -> None:
    line, check = ("a", "1", "psnr", "1", "1", "+0.0e+00", "1.0e-01"), KNOWN["webp"]
    assert Outcome(check, ((*line, AGREES), (*line, DIFFERS))).verdict == DIFFERS
    assert Outcome(check, ((*line, AGREES), (*line, "not run: 2 of 24 images"))).verdict == AGREES
    assert Outcome(check, ()).verdict == "not run"
