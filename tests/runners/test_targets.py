"""``bpp=`` as a command: what is stored of a target, what another tolerance makes of it, and what is never coded twice.

The codecs count their encodes in a file, and rates are what a table of theirs says.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.results.read import read_results
from rdpbench.results.stats.current import is_installed
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store

OWN = '''
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
import numpy as np
from rdpbench.codecs.contract import Bitstream, Rate

LOG = Path("FOLDER/encodes")

def stream(codec, image, length, grey):
    with LOG.open("a") as log:
        log.write(f"{type(codec).__name__} {codec.q} {image.shape[0]}x{image.shape[1]}\\n")
    head = bytes([image.shape[0], image.shape[1], grey])
    return Bitstream.whole(head + bytes(length - 3))

class Grey:
    def decode(self, data):
        return np.full((data[0], data[1], 3), data[2], np.uint8)

@dataclass(frozen=True)
class Dips(Grey):
    """512 bytes and more, but for one setting inside its range."""
    rate: ClassVar[Rate] = Rate("q", 1, 20)
    q: int = 1

    def encode(self, image, side):
        return stream(self, image, 64 if self.q == 7 else 512 + 8 * self.q, 10 * self.q)

@dataclass(frozen=True)
class Networks(Grey):
    """A few rates, far apart."""
    rate: ClassVar[Rate] = Rate("q", 1, 4, points=(1, 2, 3, 4))
    q: int = 1

    def encode(self, image, side):
        return stream(self, image, 32 * 2 ** self.q, 10 * self.q)

@dataclass(frozen=True)
class Told(Grey):
    """As many bytes for small images as for large ones; the caption and the seed cost some."""
    rate: ClassVar[Rate] = Rate("q", 1, 100)
    uses_caption: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    q: int = 1

    def encode(self, image, side):
        return stream(self, image, 16 * self.q + 4 * len(side.caption or "") + 2 * side.seed, 2 * self.q)
'''
QUICK = ("figures=false", "verify=0", "workers=0")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN.replace("FOLDER", str(tmp_path)))
    return tmp_path


@pytest.fixture
def told(here: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process; returns what it printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, code: int) -> Any:
        capsys.readouterr()
        assert here(*words) == code
        return capsys.readouterr()

    return run


def picture(folder: Path, name: str, height: int, width: int) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(height)
    pil.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{name}.png")


def encodes(folder: Path) -> Counter[str]:
    """How often each codec encoded at each setting an image of each size, since this was asked last."""
    log = folder / "encodes"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return Counter(lines)


def only(folder: Path, run: str = "folder-set") -> Row:
    [row] = Store(folder / "results/runs" / run).read().rows.values()
    return row


def test_a_setting_inside_is_found_where_the_ends_do_not_reach(own: Path, told: Any) -> None:
    picture(own / "set", "a", 32, 32)
    told("run", "codec=./own.py:Dips", "bpp=0.5", "data=folder:set", "metrics=psnr", *QUICK, code=0)
    row = only(own)
    assert (row.status, row.rate, row.bpp, row.attempts) == ("ok", 7, 0.5, 20)


def test_what_is_far_from_its_target_is_out_of_range(own: Path, told: Any) -> None:
    picture(own / "set", "a", 32, 32)
    line = ["run", "codec=./own.py:Networks", "bpp=0.7", "data=folder:set", "metrics=psnr", *QUICK]
    done = told(*line, code=1)
    row = only(own)
    why = "no setting of Networks is within 10 % of 0.7 bpp for image a; the nearest of 4 tried, q 1, gives 0.5"
    assert (row.status, row.error) == ("out_of_range", why)
    assert (row.rate, row.bpp, row.bytes, row.attempts) == (1, 0.5, 64, 4)
    assert f"out of range: Networks, target 0.7 bpp, a: {why}" in done.out
    contents = Store(own / "results/runs/folder-set").read()
    assert not contents.scores
    assert sum(encodes(own).values()) == 4
    assert "nothing to do" in told(*line, code=1).out


def test_another_tolerance_judges_again_and_codes_nothing(own: Path, told: Any) -> None:
    picture(own / "set", "a", 32, 32)
    line = ["run", "codec=./own.py:Networks", "bpp=0.7", "data=folder:set", "metrics=psnr", "keep=all", *QUICK]
    told(*line, code=1)
    strict = only(own)
    encodes(own)
    plan = told("plan", *line[1:], "tolerance=0.5", code=0).out
    assert "judged    1 stored targets" in plan
    loose = told(*line, "tolerance=0.5", code=0)
    assert "0 tasks coded, 1 scored or timed from the store, 0 failed, 1 judged again by tolerance=" in loose.out
    row = only(own)
    assert row == replace(strict, status="ok", error="", tolerance=0.5)
    assert len(Store(own / "results/runs/folder-set").read().scores) == 1
    assert len(list((own / "results/runs/folder-set/reconstructions").rglob("*.png"))) == 1
    assert "nothing to do" in told(*line, "tolerance=0.5", code=0).out
    assert "1 judged again" in told(*line, code=1).out
    assert only(own) == strict
    # Its score is kept for another tolerance, and stands in no file that somebody may take a mean of.
    assert read_results("folder-set", per="image", root=own / "results/runs")["value"].isna().all()
    assert "nothing to do" in told(*line, code=1).out
    assert "0 findings" in told("verify", "folder-set", "--all", code=0).out
    assert not encodes(own)


def test_a_tighter_tolerance_is_a_task_of_its_own(own: Path, told: Any) -> None:
    """Bisection is content with 10 %; who asks for less may need a search of the whole range."""
    picture(own / "set", "a", 32, 32)
    line = ["run", "codec=./own.py:Dips", "bpp=4.1", "data=folder:set", "metrics=psnr", *QUICK]
    for tolerance in (0.1, 0.0001, 0.3):
        told(*line, f"tolerance={tolerance}", code=int(tolerance == 0.0001))
    rows = sorted(Store(own / "results/runs/folder-set").read().rows.values(), key=lambda row: row.status)
    assert [(row.status, row.rate, row.attempts) for row in rows] == [("ok", 2, 6), ("out_of_range", 2, 20)]
    assert sum(encodes(own).values()) == 26


def test_a_row_says_by_which_tolerance(own: Path, told: Any) -> None:
    """Or its key could not be made again from it, by which readers know whether what is installed made it."""
    picture(own / "set", "a", 32, 32)
    line = ["run", "codec=jpeg", "bpp=9", "data=folder:set", "metrics=psnr", *QUICK]
    for tolerance in (0.5, 0.02):
        told(*line, f"tolerance={tolerance}", f"run=by{tolerance}", code=0)
        row = only(own, f"by{tolerance}")
        assert row.tolerance == tolerance
        assert is_installed(row)
    again = told("plan", *line[1:], "run=by0.02", code=0).out
    assert "again     jpeg: 1 tasks are stored, but a tolerance below 0.1 is searched for by itself" in again


def test_what_an_earlier_version_did_not_look_for_is_searched_again(own: Path, told: Any) -> None:
    """It stored nothing of a target out of range, and called anything that bisection ended at ok."""
    picture(own / "set", "a", 32, 32)
    line = ["run", "codec=./own.py:Dips", "bpp=0.5", "data=folder:set", *QUICK]
    told(*line, "metrics=psnr,edges/canny-f1", code=0)
    store = Store(own / "results/runs/folder-set")
    right = store.read()
    row = only(own)
    nothing = {"rate": None, "bpp": None, "bytes": None, "bitstream_sha256": "", "reconstruction_sha256": ""}
    beyond = replace(row, status="out_of_range", error="0.5 bpp is out of range", attempts=1, **nothing)
    # Settings 7 and 1 have other pixels: the score of a metric that is not asked for now must not stay.
    far = replace(row, rate=1, bpp=8 * 520 / 1024, attempts=3, reconstruction_sha256="of setting 1")
    for before in (beyond, far):
        for path in (*store.folder.glob("*.parquet"), store.folder / "parquet.sha256"):
            path.unlink()
        writer = store.writer(store.new_session())
        scores = [vars(score) for score in right.scores.values()] if before is far else []
        writer.append({"row": vars(before), "scores": [{**score, "value": 99.0} for score in scores]})
        writer.close()
        assert (
            "again     Dips: 1 tasks are stored, but their search did not look at all settings"
            in told("plan", *line[1:], "metrics=psnr", code=0).out
        )
        assert "1 tasks coded" in told(*line, "metrics=psnr", code=0).out
        now = store.read()
        assert (only(own).status, only(own).rate, only(own).attempts) == ("ok", 7, 20)
        assert {score.metric for score in now.scores.values()} == {"psnr"}
        assert [score.value for score in now.scores.values()] == [
            score.value for score in right.scores.values() if score.metric == "psnr"
        ]
        assert "nothing to do" in told(*line, "metrics=psnr", code=0).out


def test_the_rate_of_a_dataset_is_its_mean_or_pooled(own: Path, told: Any) -> None:
    picture(own / "set", "a", 16, 16)
    picture(own / "set", "b", 64, 64)
    sizes = [16 * 16, 64 * 64]
    line = ["run", "codec=./own.py:Told", "bpp=1.5", "data=folder:set", "metrics=psnr", *QUICK]
    (own / "texts.json").write_text(json.dumps({"a": "x", "b": "x"}))
    line.append("captions=file:texts.json")
    rates = {
        "dataset": {q: math.fsum(8 * (16 * q + 4) / size for size in sizes) / 2 for q in range(1, 101)},
        "pooled": {q: 2 * 8 * (16 * q + 4) / sum(sizes) for q in range(1, 101)},
    }
    chosen = set()
    for search, table in rates.items():
        best = min(table, key=lambda q: abs(math.log(table[q] / 1.5)))
        done = told(*line, f"search={search}", f"run={search}", code=0)
        said = f"Told[captions=file:texts.json] on folder-set: 1.5 bpp → setting {best}, {table[best]:.4f} bpp"
        assert said + (" pooled" if search == "pooled" else "") in done.out.splitlines()
        chosen.add(best)
        assert max(encodes(own).values()) == 1
        assert "nothing to do" in told(*line, f"search={search}", f"run={search}", code=0).out
        assert not encodes(own)
    assert len(chosen) == 2


def test_a_dataset_that_is_not_reached_says_what_is(own: Path, told: Any) -> None:
    picture(own / "set", "a", 32, 32)
    line = [
        "run",
        "codec=./own.py:Networks,./own.py:Dips",
        "bpp=0.7",
        "search=pooled",
        "data=folder:set",
        "metrics=psnr",
        *QUICK,
    ]
    done = told(*line, code=2)
    over = "within 10 % of 0.7 bpp for all pixels of folder-set; the nearest of"
    assert f"out of range: no setting of Networks is {over} 4 tried, q 1, gives 0.5" in done.err
    assert f"out of range: no setting of Dips is {over} 20 tried, q 7, gives 0.5" in done.err
    assert sum(encodes(own).values()) == 24
    # One progress of the whole search, not one of each setting that it tries.
    assert [text for text in done.err.splitlines() if " elapsed" in text] == [
        text for text in done.err.splitlines() if text.startswith("  search: 2/2 target rates")
    ]
    loose = told(*line, "tolerance=0.5", code=0)
    assert "Networks on folder-set: 0.7 bpp → setting 1, 0.5000 bpp pooled" in loose.out
    assert "Dips on folder-set: 0.7 bpp → setting 7, 0.5000 bpp pooled" in loose.out
    assert not encodes(own)


def test_a_command_that_has_nothing_to_show_is_no_success(own: Path, told: Any) -> None:
    picture(own / "set", "a", 32, 32)
    line = ["run", "codec=./own.py:Dips", "data=folder:set", *QUICK]
    assert "no task is in range: try a larger tolerance=" in told(*line, "bpp=0.001", "metrics=psnr", code=1).out
    # One metric of two refuses all images: they are below what its scales need.
    done = told(*line, "rate=3", "metrics=psnr,ms-ssim", code=1)
    assert "ms-ssim has no value at all: " in done.out
    assert "psnr has no value" not in done.out


def test_a_plan_says_which_metric_changed(own: Path, told: Any) -> None:
    picture(own / "set", "a", 32, 32)
    metric = """class Mine:
    unit, higher_is_better, perceptual, version = "x", True, False, "1"

    def prepare(self, original):
        return original

    def score(self, prepared, reconstruction):
        return {}.0
"""
    (own / "metric.py").write_text(metric.format(1))
    line = ["codec=./own.py:Dips", "data=folder:set", "rate=3,4", "metrics=./metric.py:Mine"]
    told("run", *line, *QUICK, code=0)
    assert "again" not in told("plan", *line, code=0).out
    (own / "metric.py").write_text(metric.format(2))
    [again] = [text for text in told("plan", *line, code=0).out.splitlines() if text.startswith("again")]
    assert "metric.py:Mine: 2 values are stored, but of its version 1-" in again


@pytest.mark.parametrize("search", ["image", "dataset", "pooled"])
def test_sets_seeds_and_captions_are_searched_once(own: Path, told: Any, search: str) -> None:
    """All in one run folder, each curve by itself, and the second call finds nothing to do."""
    for name, side in (("one", 32), ("two", 48)):
        picture(own / name, "a", side, side)
        picture(own / name, "b", side, side + 4)
    for name, text in (("short", "x"), ("long", "x" * 40)):
        (own / f"{name}.json").write_text(json.dumps({"a": text, "b": text}))
    line = ["run", "codec=./own.py:Told", f"search={search}", "bpp=1.9", "data=folder:one,folder:two", "seed=0,3"]
    line += ["captions=file:short.json,file:long.json", "metrics=psnr", *QUICK]
    done = told(*line, code=0)
    first = encodes(own)
    assert [folder.name for folder in (own / "results/runs").iterdir()] == ["folder-one+folder-two"]
    rows = Store(own / "results/runs/folder-one+folder-two").read().rows.values()
    assert {row.status for row in rows} == {"ok"}
    if search == "image":
        assert len(rows) == 2 * 2 * 2 * 2  # sets, images, seeds, captions
        assert sum(first.values()) == sum(row.attempts for row in rows)
    else:
        assert sum(first.values()) == len(rows)
        notes = done.out.splitlines()
        for source, length in (("short", 1), ("long", 40)):
            for folder, side in (("one", 32), ("two", 48)):
                pixels = [side * side, side * (side + 4)]
                bits = {q: 8 * (16 * q + 4 * length + 3) for q in range(1, 101)}  # the mean of two seeds
                table = {q: math.fsum(number / size for size in pixels) / 2 for q, number in bits.items()}
                if search == "pooled":
                    table = {q: 2 * number / sum(pixels) for q, number in bits.items()}
                best = min(table, key=lambda q: abs(math.log(table[q] / 1.9)))
                end = " pooled" if search == "pooled" else ""
                curve = f"Told[captions=file:{source}.json] on folder-{folder}"
                assert f"{curve}: 1.9 bpp → setting {best}, {table[best]:.4f} bpp{end}" in notes
    again = told(*line, code=0)
    assert "nothing to do" in again.out
    assert not encodes(own)


def test_keys_of_targets_hold_only_what_changes_them(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdpbench.config.bench import read_bench
    from rdpbench.runners.task import list_tasks

    monkeypatch.chdir(own)
    picture(own / "set", "a", 32, 32)

    def key(*words: str) -> str:
        [task] = list_tasks(read_bench(["codec=jpeg", "data=folder:set", *words]))
        return task.key

    usual = key("bpp=0.5")
    assert usual == key("bpp=0.5", "tolerance=0.1") == key("bpp=0.5", "tolerance=2") == key("bpp=0.5", "search=image")
    assert usual != key("bpp=0.5", "tolerance=0.05") != key("bpp=0.5", "tolerance=0.01")
