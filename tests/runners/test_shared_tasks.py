"""Points that share tasks: a row is coded and stored once, and is in every point that it belongs to."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rdpbench.figures import data as drawn
from rdpbench.report import data as reported
from rdpbench.report.data import read_report, scripts
from rdpbench.results.read import read_results
from rdpbench.results.stats.current import of_store
from rdpbench.results.store.store import Store

USUAL = ("metrics=psnr", "workers=0", "figures=false", "verify=0", "run=shared")
RUNS = Path("results/runs")


@pytest.fixture
def two_sets(images: Any) -> tuple[Path, Path]:
    """Folders of three and of four images, two of which are in both."""
    first, second = images(3, "first"), images(4, "second", seed=5)
    for name in ("image00.png", "image01.png"):
        shutil.copy(first / name, second / name)
    return first, second


def counts(by: str) -> dict[str, int]:
    lines = read_results("shared")
    return dict(zip(lines[by], lines["n"], strict=True))


def shown(by: str) -> dict[str, int]:
    lines = pd.read_csv(RUNS / "shared/tables/summary.csv")
    return dict(zip(lines[by], lines["n"], strict=True))


@pytest.mark.parametrize("together", [True, False])
def test_sets_that_share_images_are_both_whole(here: Any, two_sets: tuple[Path, Path], together: bool) -> None:
    first, second = two_sets
    if together:
        assert here("run", "codec=jpeg", "rate=50", f"data=folder:{first},folder:{second}", *USUAL) == 0
        assert shown("dataset") == {"folder-first": 3, "folder-second": 4}
    else:
        for folder in (first, second):
            assert here("run", "codec=jpeg", "rate=50", f"data=folder:{folder}", *USUAL) == 0
        assert shown("dataset") == {"folder-second": 4}
    assert counts("dataset") == {"folder-first": 3, "folder-second": 4}
    assert len(Store(RUNS / "shared").read().rows) == 5, "what both have is coded once"
    # Again, and in the other order: there is nothing to do, and nothing moves.
    before = read_results("shared")
    assert here("run", "codec=jpeg", "rate=50", f"data=folder:{second},folder:{first}", *USUAL) == 0
    assert len(Store(RUNS / "shared").read().members) == 2
    pd.testing.assert_frame_equal(read_results("shared"), before)


def test_a_limit_is_of_each_set(here: Any, two_sets: tuple[Path, Path]) -> None:
    first, second = two_sets
    sets = f"data=folder:{second},folder:{first}"
    assert here("run", "codec=jpeg", "rate=50", sets, "limit=2", *USUAL) == 0
    assert shown("dataset") == {"folder-first": 2, "folder-second": 2}


def test_a_file_that_is_gone_is_said_beside_the_numbers(here: Any, two_sets: tuple[Path, Path], capsys: Any) -> None:
    """What it held would look as if it had never been; nothing is removed or merged by what is left."""
    line = ("run", "codec=jpeg", "rate=50", f"data=folder:{two_sets[0]},folder:{two_sets[1]}", *USUAL)
    assert here(*line) == 0
    whole = read_results("shared")
    for name in ("members", "scores"):
        (RUNS / "shared" / f"{name}.parquet").unlink()
        frame = read_results("shared")
        assert not frame.equals(whole)
        assert any(note.startswith(f"{name}.parquet is gone from the run's folder") for note in frame.attrs["notes"])
        for command in (("gc", "shared", "--delete"), ("merge", "shared", "--into", "other")):
            assert here(*command) == 2
            assert f"{name}.parquet is missing. Put it back" in capsys.readouterr().err
        assert here(*line) == 0
        frame = read_results("shared")
        pd.testing.assert_frame_equal(frame, whole)
        assert frame.attrs["notes"] == []


def test_times_are_of_all_images_of_a_set_and_of_no_other(here: Any, two_sets: tuple[Path, Path]) -> None:
    """In figures, in the report and in what `show` writes: the median of an image's own times, set by set."""
    sets = ",".join(f"folder:{folder}" for folder in two_sets)
    assert here("run", "codec=jpeg", "rate=50", f"data={sets}", "timing=true", *USUAL) == 0
    store = Store(RUNS / "shared")
    contents = store.read()
    points = of_store(contents)
    seconds = {timing.task_key: timing.encode_s for timing in contents.timings.values()}
    medians = {
        point.where.dataset: 1000 * statistics.median(seconds[row.task_key] for row in point.rows)
        for point in points.points
    }
    times = drawn.read_runs([store])[0][0].times.query("metric == 'encode-ms'")
    assert dict(zip(times["dataset"], times["value"], strict=True)) == pytest.approx(medians)
    assert dict(zip(times["dataset"], times["n_scored"], strict=True)) == {"folder-first": 3, "folder-second": 4}
    told = scripts(read_report([reported.read_run("shared", store, contents)]), set(), {}, [])["report"]["runs"][0]
    lines = {table["caption"].partition(":")[0]: table["lines"] for table in told["tables"]}
    assert {name: [line[3][0] for line in own] for name, own in lines.items()} == {
        name: [f"{median:.2f}"] for name, median in medians.items()
    }
    summary = (RUNS / "shared/tables/summary.md").read_text()
    assert all(f"{name}: latency" in summary for name in medians)


def test_a_later_command_does_not_rename_a_curve(here: Any, two_sets: tuple[Path, Path]) -> None:
    """An option that says what is the default anyway makes another label of the same rows."""
    data = f"data=folder:{two_sets[0]}"
    assert here("run", "codec=webp", "rate=50", data, *USUAL) == 0
    assert here("run", "codec=webp", "rate=50", "codec.options.method=4", data, *USUAL) == 0
    assert counts("codec") == {"webp": 3, "webp[method=4]": 3}
    assert len(Store(RUNS / "shared").read().rows) == 3


CAPTIONED = """
import zlib
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from rdpbench import Bitstream

@dataclass(frozen=True)
class Told:
    uses_caption: ClassVar[bool] = True

    def encode(self, image, side):
        text = side.caption.encode()
        size = np.array([*image.shape[:2], len(text)], ">u2").tobytes()
        return Bitstream.whole(size + text + zlib.compress(image.tobytes()))

    def decode(self, data):
        height, width, length = np.frombuffer(data[:6], ">u2")
        return np.frombuffer(zlib.decompress(data[6 + length:]), "u1").reshape(height, width, 3)
"""


def test_sources_of_captions_that_agree_on_an_image_both_have_it(
    here: Any, two_sets: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "told.py").write_text(CAPTIONED)
    for name, texts in (("a", "a cat,a dog,a cow"), ("b", "a cat,a log,a cow")):
        captions = {f"image{k:02d}": text for k, text in enumerate(texts.split(","))}
        (tmp_path / f"{name}.json").write_text(json.dumps(captions))
    sources = f"captions=file:{tmp_path / 'a.json'},file:{tmp_path / 'b.json'}"
    assert here("run", f"codec={tmp_path / 'told.py'}:Told", f"data=folder:{two_sets[0]}", sources, *USUAL) == 0
    assert sorted(counts("codec").values()) == [3, 3]
    assert len(Store(RUNS / "shared").read().rows) == 4


def test_an_image_that_was_removed_is_in_no_mean(here: Any, images: Any) -> None:
    folder = images(3)
    run = ("run", "codec=jpeg", "rate=50", f"data=folder:{folder}", *USUAL)
    assert here(*run) == 0
    (folder / "image01.png").unlink()
    assert here(*run) == 0
    assert counts("codec") == {"jpeg": 2}
    assert here("show", "shared") == 0
    assert shown("codec") == {"jpeg": 2}


def test_a_folder_that_goes_back_to_an_earlier_state_is_in_that_state(here: Any, images: Any, tmp_path: Path) -> None:
    """Nothing is coded then: no row tells that the earlier state is the newest."""
    folder = images(3)
    image, aside = folder / "image01.png", tmp_path / "aside.png"
    for count in (3, 2, 3, 2, 2, 3):
        if image.exists() and count == 2:
            image.rename(aside)
        if aside.exists() and count == 3:
            aside.rename(image)
        assert here("run", "codec=jpeg", "rate=50", f"data=folder:{folder}", *USUAL) == 0
        assert counts("codec") == {"jpeg": count}
    assert len(Store(RUNS / "shared").read().rows) == 3


WORDS = """
import numpy as np
from rdpbench.metrics.contract import Estimate

class Words:
    name, version, unit, higher_is_better, perceptual = "words", "1", "", True, False
    source, needs, beside = "none", (), ("captions",)
    def prepare(self, original, captions):
        return float(sum(map(len, captions)))
    def score(self, prepared, reconstruction):
        return prepared
    def reduce(self, values):
        return float(np.mean(values))

class Letters:
    id, version, needs, dim, beside, uses_device = "letters", "1", (), 1, ("captions",), False
    def extract(self, images, captions):
        return [np.array([[float(sum(map(len, texts)))]], np.float32) for texts in captions]

class AllWords(Words):
    name, kind, features, minimum_images = "all-words", "set", Letters, 1
    def reduce(self, reference, distorted):
        return Estimate(float(np.mean([array.mean() for array in distorted])))
"""


def test_values_are_against_the_captions_that_a_set_has(here: Any, images: Any, tmp_path: Path, capsys: Any) -> None:
    """Of pairs and of sets; also if one caption changed, and if all are again as they were."""
    (tmp_path / "own.py").write_text(WORDS)
    folder, other = images(3, "one"), tmp_path / "two"
    shutil.copytree(folder, other)
    texts = {"a": ["x", "x", "x"], "b": ["xxxx", "x", "x"], "c": ["xxx", "xxx", "xxx"]}
    for name, words in texts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({f"image0{n}": word for n, word in enumerate(words)}))
    line = ["run", "codec=jpeg", "rate=50", "metrics=./own.py:Words,./own.py:AllWords", *USUAL[1:]]

    def run(name: str, folder: Path = folder) -> None:
        assert here(*line, f"data=folder:{folder}", f"data.options.references={name}.json") == 0

    for name in "abacab":
        run(name)
        mean = statistics.mean(map(len, texts[name]))
        assert read_results("shared")["value"].tolist() == [mean, mean], name
    run("b")
    assert "nothing to do" in capsys.readouterr().out
    # Another set of the same images: whose are the values?
    run("c", other)
    frame = read_results("shared")
    assert set(frame["dataset"]) == {"folder-one", "folder-two"}
    assert frame["value"].isna().all()
    assert sum("No number; measure each set in a run of its own" in note for note in frame.attrs["notes"]) == 4
    for place, name in ((folder, "a"), (other, "c")):
        files = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(place.iterdir())]
        shutil.copy(f"{name}.json", place / "captions.json")
        (place / "m.sha256").write_text("\n".join([f"# name: {name}", "# references: captions.json", *files, ""]))
    assert here(*line, f"data=manifest:{folder}/m.sha256,manifest:{other}/m.sha256", "run=both") == 2
    assert "a and c share images, such as image00, and have other captions for them" in capsys.readouterr().err
