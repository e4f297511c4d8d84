"""A results folder from a stranger: nothing that it names is executed, and nothing is written outside of it.

Every command that reads runs on it in a process whose Python, and that of all its children, notes what is executed.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdpbench import registry
from rdpbench.paths import LONGEST_NAME, file_name
from rdpbench.report.data import name_of
from rdpbench.results.read import read_results
from rdpbench.results.store.bitstreams import reconstruction_path
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.schema import Measure, Row, Score
from rdpbench.results.store.store import Store
from rdpbench.results.tables import read_cell

NOTES = """
import os, sys
log, folder = os.environ["NOTES"], os.environ["STRANGER"]
started = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
def note(event, args):
    if event in started:
        told = f"{event} {args[:2]!r}"
    elif event == "exec" and getattr(args[0], "co_filename", "").startswith(folder):
        told = f"executed {args[0].co_filename}"
    else:
        return
    with open(log, "a") as file:
        file.write(told + "\\n")
sys.addaudithook(note)
"""
CODE = """
open({proof!r}, "a").write("x")
class M:
    kind = "pair"; unit = ""; higher_is_better = True; perceptual = False
    def reduce(self, values): return values[0]
class C:
    def __init__(self, **options): open({proof!r}, "a").write("y")
    def encode(self, image, side): pass
    def decode(self, data): pass
"""
READ = """
import rdpbench, sys
print(len(rdpbench.read_results(sys.argv[1])), len(rdpbench.read_results(sys.argv[1], per="image")))
"""
COMMANDS = {
    "show": ("show", "OUT"),
    "by tag": ("show", "OUT", "--by-tag"),
    "bd": ("bd", "OUT", "--anchor", "jpeg", "--crossover", "--matched"),
    "report": ("report", "OUT", "--images", "all", "--limit", "0"),
    "verify": ("verify", "OUT", "--all"),
    "figure": ("figure", "plane", "--run", "OUT", "--out", "OUT/drawn"),
    "images": ("figure", "images", "--run", "OUT", "--out", "OUT/drawn"),
    "study": ("study", "export", "OUT", "--out", "OUT/study", "--codec", "jpeg,webp"),
    "ls": ("ls", "runs"),
    "read": ("-c", READ, "OUT"),
}

Stranger = Callable[..., Path]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves the honest run for the others."""
    return tmp_path_factory.mktemp("honest")


@pytest.fixture
def honest(kept: Path, tmp_path: Path, here: Any, images: Any) -> Store:
    if any(kept.iterdir()):
        shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    else:
        folder = images(3)
        line = [f"data=folder:{folder}", "metrics=psnr,ms-ssim", "figures=false", "verify=0", "workers=0", "keep=all"]
        assert here("run", "codec=jpeg,webp", "rate=30,60,90", *line) == 1, "the images are too small for MS-SSIM"
        for name in ("pictures", "results"):
            shutil.copytree(tmp_path / name, kept / name)
    return Store(tmp_path / "results/runs/folder-pictures")


@pytest.fixture
def stranger(honest: Store, tmp_path: Path) -> Stranger:
    """Makes a folder of the honest run's rows and scores, changed: ``stranger(lambda number, row: row)``."""

    def make(
        change: Callable[[int, Row], Row] = lambda _, row: row,
        scored: Callable[[int, Score], Score] = lambda _, score: score,
        more: tuple[dict[str, Any], ...] = (),
    ) -> Path:
        contents, out = honest.read(), tmp_path / "stranger"
        shutil.copytree(honest.folder, out)
        for path in out.glob("*.parquet*"):
            path.unlink()
        (out / "bitstreams/m.py").write_text(CODE.format(proof=str(tmp_path / "PROOF")))
        writer = Store(out).writer("20260101T000000000000-x-1")
        for number, row in enumerate(contents.rows.values()):
            scores = [vars(scored(number, one)) for one in contents.scores.values() if one.task_key == row.task_key]
            writer.append({"row": vars(change(number, row)), "scores": scores})
        for record in more:
            writer.append(record)
        writer.close()
        return out

    return make


@pytest.fixture
def executed(rdpbench: Any, tmp_path: Path) -> Callable[..., str]:
    """Runs a command on the folder; what was executed of it, or started, by the command or its children."""

    def run(out: Path, *words: str, code: int | None = None) -> str:
        (tmp_path / "hook").mkdir(exist_ok=True)
        (tmp_path / "hook/sitecustomize.py").write_text(NOTES)
        notes = tmp_path / "notes.txt"
        notes.write_text("")
        paths = os.pathsep.join([str(tmp_path / "hook"), str(Path(registry.__file__).parents[1])])
        env = {"NOTES": str(notes), "STRANGER": str(out), "PYTHONPATH": paths}
        line = [str(out) + word[3:] if word.startswith("OUT") else word for word in words]
        if line[0] == "-c":
            environment = {**os.environ, "RDPBENCH_CACHE": str(tmp_path / "cache"), **env}
            done = subprocess.run(
                [sys.executable, *line], check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        else:
            rdpbench(*line, env=env, code=code)
        return notes.read_text()

    return run


def hostile(out: Path, number: int, row: Row) -> Row:
    """Each way in which a row may name code: a class of a library, a file, an option of a codec that names a codec."""
    own = f"{out}/bitstreams/m.py:C"
    source = json.dumps({"version": "1", "source_sha256": registry.source_now("codec", own)})
    guided = json.dumps({"guide_codec": own, "weights": "random"})
    sketched = json.dumps({"sketch_codec": own, "weights": "random"})
    proof = str(out.parent / "PROOF")
    return [
        row,
        dataclasses.replace(row, use="subprocess:Popen", options=json.dumps({"args": ["touch", proof]}), rate_field=""),
        dataclasses.replace(row, use=own, options="{}", coder=source, configuration="{}"),
        dataclasses.replace(row, use="textual-inversion", options=guided, configuration=guided),
        dataclasses.replace(row, use="pics-sketch", options=sketched, configuration=sketched),
    ][number % 5]


def scored(out: Path, number: int, score: Score) -> Score:
    """Each way in which a score may name code."""
    names = ["psnr", f"{out}/bitstreams/m.py:M", "subprocess:Popen", "bitstreams.m:M", "gone/metric"]
    return dataclasses.replace(score, metric=names[number % 5]) if score.metric == "psnr" else score


def told(metric: str, **otherwise: Any) -> dict[str, Any]:
    good = Measure(f"{metric} 1", metric, "1", "", "pair", "dB", False, False, "mean", -1.0, 1.0, "s")
    return {"measure": {**vars(good), **otherwise}}


@pytest.mark.parametrize("name", COMMANDS)
def test_reading_executes_nothing_that_results_name(
    name: str, stranger: Stranger, tmp_path: Path, executed: Callable[..., str]
) -> None:
    out = tmp_path / "stranger"
    path = f"{out}/bitstreams/m.py:M"
    odd = ({"unit": "\n"}, {"averaged": "exec"}, {"low": float("nan")}, {"kind": path})
    more = tuple(told(path, measure_key=f"{path} {number}", **one) for number, one in enumerate(odd))
    stranger(lambda *of: hostile(out, *of), lambda *of: scored(out, *of), more)
    assert executed(out, *COMMANDS[name]) == ""
    assert not (tmp_path / "PROOF").exists()


def test_the_hook_notes_what_is_executed(stranger: Stranger, tmp_path: Path, executed: Callable[..., str]) -> None:
    """Else the test above could not fail: a codec of the folder's that the user names is executed."""
    out = tmp_path / "stranger"
    stranger(lambda *of: hostile(out, *of))
    words = ("verify", "OUT", "--all", f"codec={out}/bitstreams/m.py:C")
    assert f"executed {out}/bitstreams/m.py" in executed(out, *words, code=1)
    assert (tmp_path / "PROOF").exists()


def test_what_is_not_decoded_is_listed_and_the_exit_code_says_so(
    stranger: Stranger, tmp_path: Path, rdpbench: Any
) -> None:
    out = tmp_path / "stranger"
    stranger(lambda *of: hostile(out, *of))
    done = rdpbench("verify", str(out), "--all", code=1)
    assert (
        "'Popen' is a codec of one's own, which rows cannot load; if it is yours, type codec=FILE.py:Popen"
        in done.stdout
    )
    assert "'C' is a codec of one's own" in done.stdout
    wrong = rdpbench("verify", str(out), "--all", "codec=./other.py", code=2)
    assert "type codec=FILE.py:CLASS" in wrong.stderr


def test_resuming_in_a_strangers_folder_decodes_by_the_codec_of_the_command(
    stranger: Stranger, tmp_path: Path, honest: Store, executed: Callable[..., str]
) -> None:
    """Rows with the keys of the command's tasks that name other code; a new metric needs them decoded."""
    out = tmp_path / "stranger"
    stranger(lambda *of: hostile(out, *of))
    line = [f"data=folder:{tmp_path}/pictures", "figures=false", "verify=9", "keep=all", f"root={tmp_path}"]
    line += ["run=stranger", "codec=jpeg,webp", "rate=30,60,90", "metrics=psnr,psnr-pooled"]
    executed(out, "plan", *line, code=0)
    assert "executed" not in executed(out, "run", *line, code=0)
    assert not (tmp_path / "PROOF").exists()
    scores = [score for score in Store(out).read().scores.values() if score.metric == "psnr-pooled"]
    assert len(scores) == 18
    assert all(score.value is not None for score in scores)
    assert honest.exists()


OWN = """
import subprocess
from dataclasses import dataclass
from rdpbench.codecs.contract import Bitstream
@dataclass(frozen=True)
class C:
    program: str = "true"
    level: int = 1
    def encode(self, image, side):
        return Bitstream.whole(bytes(image.shape[:2]) + image.tobytes())
    def decode(self, data):
        import numpy as np
        subprocess.run(self.program.split(), check=True)
        return np.frombuffer(data[2:], np.uint8).reshape(data[0], data[1], 3)
"""


def test_a_row_gives_no_program_to_a_codec_that_the_user_names(
    tmp_path: Path, here: Any, images: Any, capsys: Any
) -> None:
    (tmp_path / "c.py").write_text(OWN)
    line = ["run", f"data=folder:{images(2)}", "codec=./c.py:C", "codec.options.level=7", "metrics=psnr"]
    assert here(*line, "figures=false", "workers=0", "verify=9") == 0
    store = Store(tmp_path / "results/runs/folder-pictures")
    named = ("verify", "folder-pictures", "--all", "codec=./c.py:C")
    assert here(*named) == 0, "numbers and defaults are harmless"
    writer = store.writer(store.new_session())
    for row in store.read().rows.values():
        options = json.dumps({"program": f"touch {tmp_path}/PROOF", "level": 7})
        writer.append({"row": vars(dataclasses.replace(row, options=options, time="later"))})
    writer.close()
    capsys.readouterr()
    assert here(*named) == 1
    assert "type it if it is yours: codec.options.program=..." in capsys.readouterr().out
    assert not (tmp_path / "PROOF").exists()
    assert here(*named, f"codec.options.program=touch {tmp_path}/PROOF") == 0
    assert (tmp_path / "PROOF").exists()
    # Another source than the row's is not what made it, whatever its name is.
    (tmp_path / "c.py").write_text(OWN + "# edited")
    capsys.readouterr()
    assert here(*named) == 1
    assert "did not make the row: its source differs" in capsys.readouterr().out


METRIC = """
class M:
    name = "m"; version = "1"; unit = "dB"; higher_is_better = False; perceptual = True; source = "me"; needs = ()
    averaged = "decibels"; bounds = (-5.0, 90.0)
    def prepare(self, original): return original
    def score(self, prepared, reconstruction): return float(abs(prepared.astype(float) - reconstruction).mean())
"""


def test_values_of_a_metric_of_ones_own_are_read_without_it(
    tmp_path: Path, here: Any, images: Any, capsys: Any
) -> None:
    """Its unit, direction and averaging are stored when it scores, and survive what becomes of the file."""
    (tmp_path / "mine.py").write_text(METRIC)
    line = [f"data=folder:{images(3)}", "metrics=psnr,./mine.py:M", "figures=false", "verify=0", "workers=0"]
    assert here("run", "codec=jpeg,webp", "rate=30,60", *line) == 0
    folder = tmp_path / "results/runs/folder-pictures"
    before = read_results(folder)
    (tmp_path / "mine.py").write_text("raise SystemExit('executed')")
    after = read_results(folder)
    assert after.equals(before)
    metric = "mine.py:M"
    of = after[after["metric"] == metric]
    assert len(of) == 4
    assert set(of["unit"]) == {"dB"}
    assert set(of["higher_is_better"]) == {False}
    assert set(of["perceptual"]) == {True}
    capsys.readouterr()
    assert here("show", "folder-pictures") == 0
    assert "mine.py:M dB ↓" in capsys.readouterr().out
    # A store that does not say it, as those of before: left out with a note; scoring again stores it.
    store = Store(folder)
    contents = store.read()
    for path in folder.glob("*.parquet*"):
        path.unlink()
    writer = store.writer(store.new_session())
    for row in contents.rows.values():
        writer.append({"row": vars(row)})
    for score in contents.scores.values():
        writer.append({"scores": [vars(score)]})
    writer.close()
    assert here("show", "folder-pictures") == 0
    assert f"{metric!r:.120}: 12 values are left out: it is not installed here" in capsys.readouterr().out
    (tmp_path / "mine.py").write_text(METRIC)
    assert here("score", "codec=jpeg,webp", "rate=30,60", *line) == 0
    assert read_results(folder).equals(before)


def test_runs_that_mean_other_things_by_one_name_are_not_mixed(tmp_path: Path, here: Any, images: Any) -> None:
    line = [f"data=folder:{images(2)}", "metrics=./mine.py:M", "figures=false", "verify=0", "workers=0", "codec=jpeg"]
    for name, text in (("one", METRIC), ("other", METRIC.replace('"dB"', '"bit"'))):
        (tmp_path / "mine.py").write_text(text)
        assert here("run", "rate=30,60", *line, f"run={name}") == 0
    runs = tmp_path / "results/runs"
    assert set(read_results(runs / "one")["unit"]) == {"dB"}
    assert set(read_results(runs / "other")["unit"]) == {"bit"}
    both = read_results(runs / "one", runs / "other")
    assert set(both[both["metric"] != ""]["run"]) == {"one"}


BAD = ["../../X", "/tmp/X", "..", ".", "a/../../b", "x" * 300, "日" * 200, "a\0b", "a\nb", "\ud800", "a\\b", "~", ""]


@pytest.mark.parametrize("text", BAD)
def test_names_of_files_lead_nowhere_else(text: str, honest: Store, tmp_path: Path) -> None:
    for name in (file_name(text), file_name(text, fill="-")):
        assert name
        assert "/" not in name
        assert name not in (".", "..")
        assert len(name.encode()) <= LONGEST_NAME
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    row = next(iter(honest.read().rows.values()))
    odd = dataclasses.replace(row, codec=text, image=text, task_key=text or "x", bitstream_sha256=text)
    assert reconstruction_path(honest, odd).resolve().is_relative_to(honest.folder.resolve() / "reconstructions")
    assert not honest.has_bitstream(odd)
    assert len(name_of(text)) == 20
    assert name_of(text).isalnum()


def everything(folder: Path, but: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and but not in path.parents}


@pytest.mark.parametrize("text", ["../../X", "/X", "..", "a\nb", "x" * 300])
def test_nothing_is_written_outside_the_run(
    text: str, stranger: Stranger, honest: Store, tmp_path: Path, rdpbench: Any
) -> None:
    def named(number: int, row: Row) -> Row:
        change: dict[str, Any] = {"dataset": text, "codec": f"{text}{number % 2}", "image": f"{text}{row.image}"}
        if number == 3:
            change |= {"bitstream_sha256": "../../etc/passwd", "reconstruction_sha256": "../../../X"}
        return dataclasses.replace(row, **change)

    out = stranger(named)
    before = everything(tmp_path, out)
    for words in (("show",), ("report", "--images", "all"), ("verify", "--all")):
        rdpbench(words[0], str(out), *words[1:])
    assert {path for path in everything(tmp_path, out) if "cache" not in path.parts} == {
        path for path in before if "cache" not in path.parts
    }
    assert honest.exists()


@pytest.mark.parametrize("text", ["../../X", "/tmp/X-of-rdpbench", "x" * 250])
def test_a_dataset_that_is_named_after_another_place_stays_in_root(
    text: str, tmp_path: Path, rdpbench: Any, images: Any
) -> None:
    folder = images(1)
    line = ["run", "data=folder", f"data.options.path={folder}", f"data.options.name={text}", "codec=jpeg", "rate=50"]
    done = rdpbench(*line, "metrics=psnr", "verify=0", "workers=0", "keep=all")
    assert not Path("/tmp/X-of-rdpbench").exists()
    assert not list(tmp_path.parent.glob("X*"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["pictures", "results"]
    assert done.returncode in (0, 2)


@pytest.mark.parametrize("name", ["tables", "rows.csv", "figures"])
def test_links_out_of_a_strangers_folder_are_not_written_through(
    name: str, stranger: Stranger, tmp_path: Path, rdpbench: Any
) -> None:
    out, elsewhere = stranger(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("precious")
    path = out / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere / "file" if name == "rows.csv" else elsewhere)
    done = rdpbench("show", str(out))
    assert (elsewhere / "file").read_text() == "precious"
    assert [path.name for path in elsewhere.iterdir()] == ["file"]
    assert done.returncode == (0 if name == "rows.csv" else 2)


FORMULAS = ['=HYPERLINK("http://x")', "+1+cmd", "-2+3+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "'=1", "＝1"]


def test_cells_of_csv_files_are_no_formulas(stranger: Stranger, rdpbench: Any) -> None:
    def named(number: int, row: Row) -> Row:
        return dataclasses.replace(
            row, image=FORMULAS[number % 8], tags=FORMULAS[number % 8], codec=FORMULAS[number % 8] + row.codec
        )

    out = stranger(named)
    rdpbench("show", str(out), code=0)
    for path in (out / "rows.csv", out / "tables/summary.csv"):
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        codecs = {line["codec"] for line in lines}
        assert {read_cell(codec)[: -len("jpeg")] for codec in codecs} == set(FORMULAS)
        cells = [cell for line in lines for cell in line.values()]
        assert not [cell for cell in cells if cell[:1] in tuple("=+@\t\r＝") or cell.startswith("-2+3")]
        rates = [line["bpp"] for line in lines if line["bpp"]]
        assert len(rates) >= len(lines) / 2
        assert all(float(rate) > 0 for rate in rates)


def test_a_store_keeps_what_it_is_told_of_metrics(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    writer = store.writer("s")
    writer.append(told("./mine.py:M", low=float("-inf"), high=float("inf")))
    writer.close()
    before = store.read()
    store.compact()
    assert store.read() == before != Contents()
    assert next(iter(before.measures.values())).high == float("inf")
