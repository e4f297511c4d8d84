"""The commands of the README and of docs/ run as they stand there; nothing that a page tells to type is left untried.

A page is gone through from top to bottom, in a folder of its own that has what a reader has (`reader`). A block of
commands is not run where the line before it is ``<!-- not run: why -->``; its settings are looked up all the same.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import cli, read_results
from rdpbench.config.bench import read_benches
from rdpbench.results.store.store import Store

ROOT = Path(__file__).parents[1]
BLOCKS = {
    "README.md": (1, 2),
    "docs/checks.md": (1, 2),
    "docs/cluster.md": (1, 3),
    "docs/datasets.md": (1, 2),
    "docs/devices.md": (0, 1),
    "docs/experiments.md": (1, 1),
    "docs/external.md": (3, 2),
    "docs/figures.md": (2, 1),
    "docs/generative.md": (0, 4),
    "docs/index.md": (1, 1),
    "docs/learned.md": (0, 1),
    "docs/metrics.md": (1, 0),
    "docs/own-dataset.md": (2, 0),
    "docs/own-metric.md": (1, 0),
    "docs/own.md": (2, 0),
    "docs/rates.md": (1, 0),
    "docs/regress.md": (1, 1),
    "docs/safety.md": (1, 0),
    "docs/study.md": (0, 2),
}
"""Blocks of commands on each page: how many run, and how many do not. A page with new ones is added here."""
SLOW = {"README.md", *(f"docs/{name}.md" for name in ("cluster", "external", "figures", "index", "metrics"))}
SLOW |= {f"docs/{name}.md" for name in ("own-dataset", "rates", "regress", "safety")}
"""These take seconds each, and more than the fast tests have: `pytest -m slow tests/test_pages.py`."""


class Block(NamedTuple):
    lines: list[list[str]]
    why_not: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    printed = re.findall(
        r"^(?:<!-- not run: ([^\n]+) -->\n)? *```console\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE
    )
    return [Block([shlex.split(line, comments=True) for line in lines_of(code)], why) for why, code in printed]


def lines_of(code: str) -> list[str]:
    return [line for line in code.replace("\\\n", "").splitlines() if line.strip()]


def pages() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody who reads: pictures, what another codec made of them, the files that pages print, and an
    environment with a Python of its own."""
    rng = np.random.default_rng(0)
    for name in ("pictures", "reconstructions", "scans", "envs"):
        (tmp_path / name).mkdir()
    for number in range(3):
        coarse = pil.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture = coarse.resize((200, 168), pil.Resampling.BICUBIC)
        picture.save(tmp_path / f"pictures/page{number}.png")
        picture.save(tmp_path / f"scans/page{number}.png")
        coarse.resize((200, 168), pil.Resampling.BILINEAR).save(tmp_path / f"reconstructions/page{number}.png")
    (tmp_path / "sizes.csv").write_text("image,bytes\n" + "".join(f"page{number},900\n" for number in range(3)))
    np.save(tmp_path / "weights.npy", [1, 2, 2])
    for name in ("my/elic.pt", *(f"my/elic-{quality}.pt" for quality in range(1, 5)), "run1/best.pt", "run2/best.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())  # other weights than their neighbours'
    for name in ("mine", "taco"):
        (tmp_path / "envs" / name).symlink_to(sys.prefix)
    (tmp_path / "src/TACO").mkdir(parents=True)
    for page in pages():
        for name, code in re.findall(
            r"```\w+\n# (\w+\.(?:py|yaml))\b.*?\n(.*?)```", (ROOT / page).read_text(), re.DOTALL
        ):
            (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def go_through(reader: Path, rdpbench: Any) -> Callable[[str], dict[str, str]]:
    """Types what a page says; what each command printed."""

    def go(page: str) -> dict[str, str]:
        printed = {}
        for words in [words for block in blocks(page) if not block.why_not for words in block.lines]:
            if words[0] == "python":
                subprocess.run([sys.executable, *words[1:]], cwd=reader, check=True)
            else:
                assert words[0] == "rdpbench", words
                printed[" ".join(words)] = rdpbench(*words[1:], code=0, env={"HOME": str(reader)}).stdout
        return printed

    return go


def test_every_block_is_counted() -> None:
    """A block that does not run is no surprise, and no command stands outside of a block."""
    counted = {page: [bool(block.why_not) for block in blocks(page)] for page in pages()}
    assert {page: (kinds.count(False), kinds.count(True)) for page, kinds in counted.items() if kinds} == BLOCKS
    for page in pages():
        text = (ROOT / page).read_text()
        assert text.count("<!-- not run") == sum(counted[page]), f"{page}: a mark is not right before its block"
        assert not re.search(r"^```\n(?: *#.*\n)*(?:rdpbench|pip) ", text), f"{page}: write ```console"
        assert not re.search(r"^    rdpbench ", text, re.MULTILINE), f"{page}: write ```console"


@pytest.mark.parametrize("page", [page for page, (_, left) in BLOCKS.items() if left])
def test_what_is_not_run_has_settings_that_exist(page: str, reader: Path) -> None:
    for program, *words in [words for block in blocks(page) if block.why_not for words in block.lines]:
        if program == "rdpbench":
            _, unknown = cli._parser(words).parse_known_args(words)
            assert not unknown, words
        # A recipe's class imports its repository, which is not here.
        if words[0] in ("run", "plan", "score") and not words[1].startswith("codec=recipe/"):
            assert read_benches(words[1:])


OF_THEIR_OWN = {"docs/own.md", "docs/own-metric.md"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
        for page, (run, _) in BLOCKS.items()
        if run and page not in OF_THEIR_OWN
    ],
)
def test_the_commands_of_a_page(page: str, go_through: Any) -> None:
    assert go_through(page)


def test_the_codec_of_the_page_and_what_becomes_of_it(reader: Path, go_through: Any, rdpbench: Any) -> None:
    printed = go_through("docs/own.md")
    (run,) = [line for line in printed if line.startswith("rdpbench run")]
    assert "88 tasks coded, 0 scored or timed from the store, 0 failed" in printed[run]
    assert "8 of them decoded again in a fresh process to the same pixels" in printed[run]
    rows = [row for row in Store(reader / "results/runs/samples").read().rows.values() if row.codec == "MyCodec"]
    assert {next(iter(json.loads(row.files))) for row in rows} == {"weights=weights.npy"}
    # Trained again under the same name, it is another codec; the other one is what it was.
    np.save("weights.npy", [1, 3, 3])
    again = [*run.split()[1:], "limit=1"]
    assert "4 tasks coded, 0 scored or timed from the store, 0 failed" in rdpbench(*again, code=0).stdout
    both = [row for row in Store(reader / "results/runs/samples").read().rows.values() if row.codec == "MyCodec"]
    assert len(both) == 48
    assert len({row.files for row in both}) == 2
    assert {row.task_key for row in both} > {row.task_key for row in rows}
    # It is known by what is in it, not by its name.
    Path("weights.npy").rename("moved.npy")
    named = [*(word.replace(",jpeg", "") for word in again), "codec.options.weights=moved.npy"]
    assert "nothing to do" in rdpbench(*named, code=0).stdout


def test_the_metrics_of_the_page_are_what_they_say(go_through: Any) -> None:
    go_through("docs/own-metric.md")
    frame = read_results("folder-pictures")
    values = {(row.rate, row.metric.rpartition("/")[2]): row.value for row in frame.itertuples()}
    assert len(values) == 6
    # The definitions again, on what Pillow's JPEG gives.
    for quality in (50, 90):
        errors, colours = [], []
        for path in sorted(Path("pictures").glob("*.png")):
            original = np.asarray(pil.open(path)).astype(int)
            pil.open(path).save("x.jpg", quality=quality)
            coded = np.asarray(pil.open("x.jpg")).astype(int)
            errors.append(np.abs(np.diff(coded, axis=1) - np.diff(original, axis=1)).mean())
            colours.append(coded.mean((0, 1)) - original.mean((0, 1)))
        own = {name: value for (rate, name), value in values.items() if rate == quality}
        assert own["metric.py:EdgeError"] == pytest.approx(np.mean(errors), abs=1e-9)
        assert own["distance.py:ColourDistance"] == pytest.approx(np.linalg.norm(np.mean(colours, 0)), abs=1e-4)
