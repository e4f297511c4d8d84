"""The regression gate through the command: what is as stored passes, and each thing that moved is caught and named."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.gate.curves import load
from rdpbench.results.store.keys import forget

# JPEG whose quality is off by what shift.txt says: a change that neither its version nor its source tells.
CODEC = """
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar
import numpy as np
from PIL import Image
from rdpbench.codecs.contract import Bitstream, Rate

HERE = Path(__file__).parent

@dataclass(frozen=True)
class Mine:
    quality: int = 50
    rate: ClassVar[Rate] = Rate("quality", 1, 90, points=(30, 60))

    def coder(self):
        return {"library": (HERE / "library.txt").read_text()}

    def encode(self, image, side):
        time.sleep(float((HERE / "pause.txt").read_text()))
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=self.quality + int((HERE / "shift.txt").read_text()))
        return Bitstream.whole(file.getvalue())

    def decode(self, data):
        return np.asarray(Image.open(BytesIO(data)))
"""
QUICK = ("workers=0", "verify=0")


class Gate:
    """A stored curve of `Mine` on four images, and ``regress`` on it."""

    def __init__(self, tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        self.tmp_path, self.capsys = tmp_path, capsys
        self._here = here
        self.what = ["codec=./mine.py:Mine", "data=folder:pictures"]
        self.curve = tmp_path / "results/curves/folder-pictures/Mine.csv"
        (tmp_path / "mine.py").write_text(CODEC)
        self.behave(shift=0, library="1.0")

    def behave(self, *, shift: int = 0, library: str = "1.0", pause: float = 0) -> None:
        (self.tmp_path / "shift.txt").write_text(str(shift))
        (self.tmp_path / "pause.txt").write_text(str(pause))
        (self.tmp_path / "library.txt").write_text(library)
        forget()  # as in a new process

    def type(self, *words: str, code: int) -> str:
        assert self._here(*words) == code, self.capsys.readouterr()
        out = self.capsys.readouterr()
        assert "Traceback" not in out.err
        return out.out + out.err

    def store(self) -> None:
        self.type("curves", "update", *self.what, "metrics=psnr", *QUICK, code=0)

    def regress(self, *words: str, code: int) -> str:
        # Fresh, since the store has what the codec gave before it changed.
        return self.type("regress", *self.what, *QUICK, *words, "--fresh", code=code)

    def edit(self, old: str, new: str) -> None:
        text = self.curve.read_text()
        assert old in text
        self.curve.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves the stored curve for the others."""
    return tmp_path_factory.mktemp("gate")


@pytest.fixture
def gate(
    kept: Path,
    tmp_path: Path,
    here: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    images: Callable[..., Path],
) -> Gate:
    made = Gate(tmp_path, here, capsys)
    if any(kept.iterdir()):
        shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    else:
        images(4)
        made.store()
        shutil.copytree(tmp_path, kept, dirs_exist_ok=True)
    return made


def test_unchanged_passes(gate: Gate) -> None:
    stored = {path.name: path.read_bytes() for path in gate.curve.parent.iterdir()}
    assert set(stored) == {"Mine.csv", "Mine.images.csv", "Mine.json"}
    assert b"\r" not in b"".join(stored.values())
    assert str(gate.tmp_path).encode() not in b"".join(stored.values())
    header = b"rate_field,rate,n,dataset_size,protocol,bits_kind,bpp,psnr,"
    assert stored["Mine.csv"].startswith(b"# rdpbench-curve v2\n" + header)
    report = gate.regress("--junit", "out/junit.xml", "--markdown", "out/summary.md", code=0)
    assert "8 tasks coded now, 0 taken" in report
    assert "Mine on folder-pictures: 2 points, as stored in results/curves/folder-pictures/Mine.csv" in report
    suite = ET.parse(gate.tmp_path / "out/junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "0", "0")
    assert "1 of 1 curves are as stored" in report
    assert "1 of 1 curves are as stored" in (gate.tmp_path / "out/summary.md").read_text()
    gate.type("curves", "update", *gate.what, "metrics=psnr", *QUICK, "root=elsewhere", code=0)
    assert {path.name: path.read_bytes() for path in gate.curve.parent.iterdir()} == stored


@pytest.mark.parametrize("sweep", [["rate=33.3333333333,66.6666666667"], ["bpp=9.33333333333", "tolerance=1e9"]])
def test_settings_of_more_digits_than_a_file_has(gate: Gate, sweep: list[str]) -> None:
    """As a search over a dataset finds them on a continuous axis."""
    code = CODEC.replace("quality: int", "quality: float").replace("1, 90,", "1, 90, step=0,")
    (gate.tmp_path / "mine.py").write_text(code.replace("self.quality +", "int(self.quality) +"))
    forget()
    gate.type("curves", "update", *gate.what, "metrics=psnr", *QUICK, *sweep, code=0)
    assert "1 of 1 curves are as stored" in gate.type("regress", *gate.what, *QUICK, code=0)


def test_points_that_a_file_cannot_tell_apart_are_not_stored(gate: Gate) -> None:
    before = gate.curve.read_bytes()
    sweep = ["bpp=9.5,9.5000000001", "tolerance=1e9", "metrics=psnr"]
    assert "has 8 digits" in gate.type("curves", "update", *gate.what, *sweep, *QUICK, code=2)
    assert gate.curve.read_bytes() == before


def test_what_is_stored_is_not_coded_again(gate: Gate) -> None:
    assert "0 tasks coded now, 8 taken from results/runs" in gate.type("regress", *gate.what, *QUICK, code=0)


def test_quality_changed_by_a_step(gate: Gate) -> None:
    gate.behave(shift=1)
    report = gate.regress("--junit", "junit.xml", "--markdown", "summary.md", code=1)
    for point in ("quality 30", "quality 60"):
        assert f"  {point}: bytes: 4 of 4 bitstreams differ (image00, image01, image02 and 1 more)" in report
        assert f"  {point}: bpp: " in report
        assert f"  {point}: psnr: " in report
    assert "      image0" in report
    # The first line says it all.
    assert "1 of 1 curves moved: Mine on folder-pictures (quality 30: bytes, and 5 more)\nMine on" in report
    cases = ET.parse(gate.tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    failures = {case.get("name"): case.findtext("failure") for case in cases}
    assert failures["curve"] is None
    assert "psnr: " in (failures["quality 30"] or "")
    assert "bytes: 4 of 4" in (gate.tmp_path / "summary.md").read_text()


def test_another_coder_makes_bytes_free_but_not_values(gate: Gate) -> None:
    gate.behave(library="2.0")
    report = gate.regress(code=0)
    assert "note: the coder differs (library: 1.0 → 2.0): equal bytes are not expected" in report
    gate.behave(library="2.0", shift=1)
    report = gate.regress(code=1)
    assert "library: 1.0 → 2.0" in report
    assert "quality 30: psnr: " in report
    assert "bytes: " not in report


def test_an_image_replaced_is_named(gate: Gate) -> None:
    pixels = np.random.default_rng(9).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    pil.fromarray(pixels).save(gate.tmp_path / "pictures/image02.png")
    report = gate.regress(code=1)
    assert "  curve: images: image02: other pixels than when the curve was stored" in report
    assert "1 of 4 bitstreams differ (image02)" in report
    assert "      image02: " in report
    assert "      image01: " not in report


def test_an_image_more_and_one_less(gate: Gate) -> None:
    (gate.tmp_path / "pictures/image03.png").rename(gate.tmp_path / "pictures/other.png")
    report = gate.regress(code=1)
    assert "images: image03: stored, but not in the dataset any more" in report
    assert "images: other: in the dataset, but not stored" in report
    (gate.tmp_path / "pictures/other.png").unlink()
    assert "images: stored 4, now 3" in gate.regress(code=1)


def test_missing_and_additional_points(gate: Gate) -> None:
    assert "quality 60: the point is stored, but the run does not have it" in gate.regress("rate=30", code=1)
    lines = gate.curve.read_text().splitlines(keepends=True)
    gate.curve.write_text("".join(line for line in lines if not line.startswith("quality,60,")))
    report = gate.regress(code=1)
    assert "quality 60: the run has this point, but it is not stored" in report
    assert "quality 30: " not in report


def test_the_tolerance_of_a_metric_is_its_own(gate: Gate) -> None:
    """PSNR may be 0.01 dB off (equal bytes on another machine), and not more."""
    stored = load(gate.curve, "")
    psnr = stored.points[0].values["psnr"]
    gate.edit(f",{psnr:.8g},", f",{psnr + 0.009:.8g},")
    gate.regress(code=0)
    gate.edit(f",{psnr + 0.009:.8g},", f",{psnr + 0.011:.8g},")
    report = gate.regress(code=1)
    assert "quality 30: psnr: " in report
    assert "(-0.011, " in report
    assert "allowed 0.01" in report
    assert "bytes" not in report


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# rdpbench-curve v2", "# rdpbench-curve v0", "Make it again: rdpbench curves update"),
        ("# rdpbench-curve v2", "# rdpbench-curve v3", "pip install --upgrade rdpbench"),
        ("# rdpbench-curve v2", "<<<<<<< HEAD", "found '<<<<<<< HEAD', not '# rdpbench-curve v2'"),
        ("# rdpbench-curve v2", "# rdpbench-curve v1", "Mine.csv:2: other columns than rate_field"),
        ("quality,30,", "quality,thirty,", "Mine.csv:3: not a line of such a file"),
        ("quality,30,", "quality,60,", "holds points twice: quality 60"),
        (",psnr,", ",bpp,", "Mine.csv:2: two columns are called 'bpp'"),
        (",psnr,", ",fid/clean,", "Mine.images.csv has other metrics than Mine.csv"),
        ("quality,30,4,", "quality,30,5,", "Mine.csv are not of one curve: quality 30: 4 lines of images"),
        *((",,", f",{odd},", "averaged: 'psnr=") for odd in ("psnr=4", "psnr=5", "psnr=-1", "psnr=1;psnr=1")),
        *((",,", f",{odd},", "Mine.csv:3: not a line of") for odd in ("psnr", "fid=3", "psnr=many", "psnr=1.5", "=1")),
    ],
)
def test_a_file_that_was_edited_to_something_else(gate: Gate, old: str, new: str, told: str) -> None:
    gate.edit(old, new)
    report = gate.regress(code=2)
    assert told in report
    assert "Mine.csv" in report


def test_what_is_gone_from_stored_files_is_not_waved_through(gate: Gate) -> None:
    """A line, a file or an entry less than was stored must be an error, a finding or a note."""
    text, images = gate.curve.read_text(), gate.curve.with_name("Mine.images.csv")
    lines = images.read_text().splitlines(keepends=True)
    for kept, count in ((lines[:-1], 3), ([*lines, lines[-1]], 5), ([*lines[:-1], lines[-2]], 4)):
        images.write_text("".join(kept))
        assert f"quality 60: {count} lines of images, of which there are 4" in gate.regress(code=2)
    pixels = lines[2].split(",")[3]
    images.write_text("".join(lines).replace(pixels, "0" * 16, 1))
    assert "has two originals of one image" in gate.regress(code=2)
    images.unlink()
    assert "note: the .images.csv beside the stored curve is gone" in gate.regress(code=0)
    images.write_text("".join(lines))
    gate.curve.write_text("".join(text.splitlines(keepends=True)[:2]))
    assert "Mine.csv holds no point" in gate.regress(code=2)
    gate.curve.write_text(text)
    gate.edit("as-is,file,", "as-is,,")
    assert "quality 30: what the rate counts: stored , now file" in gate.regress(code=1)
    gate.curve.write_text(text)
    beside = gate.curve.with_suffix(".json")
    origin = json.loads(beside.read_text())
    told = {"manifest": "manifest: stored nothing", "seeds": "seeds: stored nothing", "metrics": "psnr: stored under"}
    for name, found in {**told, "coder": "the coder differs"}.items():
        beside.write_text(json.dumps({key: value for key, value in origin.items() if key != name}))
        assert found in gate.regress("metrics=psnr", code=0 if name == "coder" else 1)


def test_points_that_are_typed_are_of_the_stored_seeds(gate: Gate) -> None:
    gate.type("curves", "update", *gate.what, "metrics=psnr", "seed=3", *QUICK, code=0)
    assert "as stored in" in gate.regress("rate=30,60", code=0)
    assert "seeds: stored 3, now 0" in gate.regress("rate=30,60", "seed=0", code=1)


def test_a_companion_of_another_version_or_none(gate: Gate) -> None:
    beside = gate.curve.with_suffix(".json")
    beside.write_text(beside.read_text().replace('"version": 2', '"version": 7'))
    assert "has version 7" in gate.regress(code=2)
    odd_metrics, odd_sweeps = (["psnr"], {"psnr": "1"}), ("points=2", None, [5])
    for name, odd in [*(("metrics", odd) for odd in odd_metrics), *(("sweep", odd) for odd in odd_sweeps)]:
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "version": 2, name: odd}))
        assert "Mine.json, which says what made Mine.csv, cannot be read" in gate.regress(code=2)
    beside.unlink()
    assert "Mine.json, which says what made Mine.csv, cannot be read" in gate.regress(code=2)


def test_no_stored_curve_names_the_command_that_makes_it(gate: Gate) -> None:
    typed = ["codec=jpeg,./mine.py:Mine", "data=folder:pictures", "rate=40", "metrics=psnr"]
    report = gate.type("regress", *typed, *QUICK, code=2)
    line = next(line for line in report.splitlines() if line.startswith("  jpeg on folder-pictures: "))
    told = line.partition(": ")[2]
    assert told == "rdpbench curves update codec=jpeg data=folder:pictures rate=40 metrics=psnr"
    assert "Mine on" not in report
    gate.type(*shlex.split(told)[1:], *QUICK, code=0)
    gate.type("regress", "codec=jpeg", "data=folder:pictures", *QUICK, code=0)


def test_partial_points_are_refused(gate: Gate) -> None:
    before = gate.curve.read_bytes()
    assert "leave out limit=" in gate.type("curves", "update", *gate.what, "limit=2", code=2)
    assert "leave out limit=" in gate.type("regress", *gate.what, "limit=2", code=2)
    gate.behave(shift=0, library="broken")
    (gate.tmp_path / "shift.txt").write_text("no number")
    report = gate.type("curves", "update", *gate.what, "metrics=psnr", *QUICK, code=2)
    assert "Mine on folder-pictures, quality 30: 0 of 4 images" in report
    assert "no number" in report
    assert gate.curve.read_bytes() == before
    report = gate.regress(code=1)
    assert "quality 30: images: stored 4, now 0" in report
    assert "image00: ValueError" in report


def test_captions_of_another_source_have_no_stored_curve(gate: Gate) -> None:
    """They are part of a codec's label, under which nothing was stored: it was said to have no points."""
    (gate.tmp_path / "mine.py").write_text(
        CODEC.replace("quality: int = 50", "quality: int = 50\n    uses_caption = True")
    )
    (gate.tmp_path / "captions.json").write_text("{}")
    for command in (("curves", "update"), ("regress",)):
        assert "leave out captions=" in gate.type(*command, *gate.what, "captions=file:captions.json", *QUICK, code=2)


def test_two_sets_of_one_name_have_no_common_curve(gate: Gate, images: Any) -> None:
    """Their points would stand in one file, under the hash of one of them."""
    before = gate.curve.read_bytes()
    other = images(2, "elsewhere/pictures", seed=3)
    what = [word if not word.startswith("data=") else f"{word},folder:{other}" for word in gate.what]
    for command in (("curves", "update"), ("regress",)):
        assert "two sets are called folder-pictures" in gate.type(*command, *what, *QUICK, code=2)
    assert gate.curve.read_bytes() == before


def test_an_update_says_what_moved(gate: Gate) -> None:
    gate.behave(shift=1, library="2.0")
    report = gate.type("curves", "update", *gate.what, "metrics=psnr", *QUICK, code=0)
    assert "quality 30: psnr: " in report
    gate.regress(code=0)


def test_metrics_that_only_one_side_has(gate: Gate) -> None:
    assert "curve: psnr-pooled is not in the stored curve" in gate.regress("metrics=psnr,psnr-pooled", code=1)
    assert "not measured now, and not compared: psnr" in gate.regress("metrics=", code=0)


def test_other_options_under_one_name_are_another_curve(gate: Gate) -> None:
    beside = gate.curve.with_suffix(".json")
    record = json.loads(beside.read_text())
    record["configuration"]["options"] = {"effort": 3}
    beside.write_text(json.dumps(record))
    assert "curve: configuration: stored use mine.py:Mine, options effort 3, now" in gate.regress(code=1)


def test_a_stored_curve_has_what_was_typed_of_the_environment_and_names_of_files(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gate.tmp_path / "mine.py").write_text(CODEC.replace("quality: int = 50", 'quality: int = 50; note: str = ""'))
    forget()
    for held in ("a-secret", str(gate.tmp_path / "a-secret")):
        monkeypatch.setenv("NOTE", held)
        noted = [*gate.what, "codec.options.note=${oc.env:NOTE}", "metrics=psnr", *QUICK]
        gate.type("curves", "update", *noted, code=0)
        stored = [path.read_text() for path in gate.curve.parent.iterdir() if "oc.env" in path.name]
        assert len(stored) == 3
        assert not [text for text in stored if "a-secret" in text and "a-secret-" not in text]
        assert str(gate.tmp_path) not in "".join(stored)
        assert "1 of 1 curves are as stored" in gate.type("regress", *noted, "--fresh", code=0)


def test_the_gate_as_ci_calls_it(rdpbench: Any, images: Callable[..., Path], tmp_path: Path) -> None:
    """In processes of their own, with a shipped codec whose curve gives points and metrics; hostile names in files."""
    folder = images(2)
    (folder / "image01.png").rename(folder / '<b>"]]>&.png')
    words = ["codec=jpeg,webp", "data=folder:pictures"]
    rdpbench("curves", "update", *words, "rate=30", "metrics=psnr", "--curves", "mine", *QUICK, code=0)
    rdpbench("regress", *words, "--curves", "mine", *QUICK, code=0)
    path = tmp_path / "mine/folder-pictures/webp.csv"
    bpp = load(path, "").points[0].bpp
    path.write_text(path.read_text().replace(f",{bpp:.8g},", f",{bpp * 1.01:.8g},"))
    images_path = path.with_name("webp.images.csv")
    curve = load(path, "")
    images_path.write_text(images_path.read_text().replace(f"{curve.images[0].bpp:.8g}", "9.5"))
    done = rdpbench("regress", *words, "--curves", "mine", "--junit", "j.xml", "--markdown", "s.md", *QUICK, code=1)
    assert "jpeg on folder-pictures: 1 points, as stored" in done.stdout
    assert "webp on folder-pictures: 1 points, 1 not as stored" in done.stdout
    assert '      <b>"]]>&: 9.5 → ' in done.stdout
    failed = [case for case in ET.parse(tmp_path / "j.xml").iter("testcase") if case.find("failure") is not None]
    assert [(case.get("classname"), case.get("name")) for case in failed] == [("folder-pictures.webp", "quality 30")]
    assert "\\<b>" in (tmp_path / "s.md").read_text()


METRIC = """
from typing import ClassVar

class Level:
    name: ClassVar[str] = "level"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = False
    source: ClassVar[str] = "the mean of all values"
    needs: ClassVar[tuple] = ()

    def prepare(self, original):
        return original

    def score(self, prepared, reconstruction):
        return float(reconstruction.mean())

    def reduce(self, values):
        return sum(values) / len(values)
"""


def test_a_metric_of_another_definition_is_named(rdpbench: Any, images: Callable[..., Path], tmp_path: Path) -> None:
    """Its version says that it is another metric, even where no value moved; another metric is not what is stored."""
    images(2)
    (tmp_path / "metric.py").write_text(METRIC)
    words = ["codec=jpeg", "data=folder:pictures", *QUICK]
    rdpbench("curves", "update", *words, "rate=30", "metrics=./metric.py:Level", code=0)
    (tmp_path / "metric.py").write_text(METRIC.replace('version: ClassVar[str] = "1"', 'version: ClassVar[str] = "2"'))
    done = rdpbench("regress", *words, code=1)
    stored = (tmp_path / "results/curves/folder-pictures/jpeg.json").read_text()
    assert '"./metric.py:Level"' in stored
    assert str(tmp_path / "metric.py") not in stored
    told = "  curve: metric.py:Level: stored under another definition (version: 1 → 2); store the curve anew"
    assert told in done.stdout
    assert "quality 30: " not in done.stdout


def test_another_preset_is_not_what_is_stored(gate: Gate) -> None:
    report = gate.regress("metrics=psnr-pooled", code=1)
    assert "curve: psnr-pooled is not in the stored curve" in report
    assert "not measured now, and not compared: psnr" in report


def test_a_real_curve_of_version_1(
    here: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As the first commit that stored curves wrote it: brought up while it is read, and then compared as any other."""
    folder = tmp_path / "results/curves/samples"
    shutil.copytree(Path(__file__).parent / "curves_v1/samples", folder)
    before = (folder / "jpeg.csv").read_text()
    assert before.startswith("# rdpbench-curve v1\nrate_field,rate,n,dataset_size,protocol,bpp,psnr,")
    words = ["codec=jpeg", "data=samples", "metrics=psnr", *QUICK]

    def regress(*more: str, code: int) -> str:
        assert here("regress", *words, *more) == code
        return capsys.readouterr().out

    report = regress("--junit", "junit.xml", code=0)
    assert "jpeg on samples: 5 points, as stored in results/curves/samples/jpeg.csv" in report
    assert "note: stored as version 1 of 2: what that did not say is not compared" in report
    assert "stored as version 1 of 2" in (tmp_path / "junit.xml").read_text()
    # It is compared, not waved through.
    (folder / "jpeg.csv").write_text(before.replace("33.012948", "33.112948"))
    assert "quality 50: psnr: 33.1129 → 33.0129 (-0.1, " in regress(code=1)
    assert here("curves", "update", "points=5", *words) == 0
    assert (folder / "jpeg.csv").read_text().startswith("# rdpbench-curve v2\n")
    capsys.readouterr()
    assert "version 1" not in regress(code=0)


def test_each_older_version_is_brought_up(gate: Gate) -> None:
    """What version 1 did not say, what the rate counts and which files the dataset was, is not compared."""
    new = load(gate.curve, "")
    assert {point.bits_kind for point in new.points} == {"file"}
    for path in gate.curve.parent.iterdir():
        text = path.read_text().replace(" v2\n", " v1\n").replace("protocol,bits_kind,", "protocol,")
        text = text.replace("as-is,file,", "as-is,").replace('"version": 2', '"version": 1')
        path.write_text(re.sub(r'"manifest": \{[^}]*\},', "", text))
    old = load(gate.curve, "")
    assert [replace(one, bits_kind=None) for one in new.points] == list(old.points)
    assert old.images == new.images
    assert old.origin == {**new.origin, "manifest": None, "version": 1}
    report = gate.regress(code=0)
    assert "note: stored as version 1 of 2" in report
    assert "to store it anew: rdpbench curves update codec=./mine.py:Mine data=folder:pictures" in report


def test_what_the_rate_counts_is_compared(gate: Gate) -> None:
    gate.edit("as-is,file,", "as-is,estimated,")
    assert "quality 30: what the rate counts: stored estimated, now file" in gate.regress(code=1)


# The whole curve


@pytest.fixture
def long(
    tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str], images: Callable[..., Path]
) -> Gate:
    """A curve of four points, which is what Bjøntegaard deltas need."""
    images(3)
    made = Gate(tmp_path, here, capsys)
    (tmp_path / "mine.py").write_text(CODEC.replace("(30, 60)", "(20, 40, 60, 80)"))
    made.store()
    return made


def test_a_curve_that_moved_within_each_point_s_tolerance(long: Gate) -> None:
    """0.008 dB at every point is allowed at each, and as a drift of the curve it is not."""
    report = long.regress("--junit", "junit.xml", "--markdown", "summary.md", code=0)
    table = (long.tmp_path / "summary.md").read_text()
    assert "| Mine on folder-pictures | psnr | +0 % (allowed ±0.1) | +0 dB (allowed ±0.005) |" in table
    curve = load(long.curve, "")
    for point in curve.points:
        long.edit(f",{point.values['psnr']:.8g},", f",{point.values['psnr'] + 0.008:.8g},")
    report = long.regress("--junit", "junit.xml", "--markdown", "summary.md", code=1)
    assert "1 of 1 curves moved: Mine on folder-pictures (" in report
    assert "4 points, but not the curve that is stored" in report
    told = next(line for line in report.splitlines() if line.startswith("  BD-rate and BD-metric: psnr: "))
    assert "BD-psnr -0.008 dB (allowed ±0.005)" in told
    assert "; psnr most at quality " in told
    assert "quality 20: psnr" not in report
    cases = ET.parse(long.tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert failed == ["BD-rate and BD-metric"]
    assert "| Mine on folder-pictures | psnr | " in (long.tmp_path / "summary.md").read_text()


def test_a_rate_that_moved_within_each_point_s_tolerance(long: Gate) -> None:
    """0.09 % of rate and 0.004 dB are allowed at each point; as a drift they are more than 0.1 % of rate together."""
    long.behave(library="2.0")
    curve = load(long.curve, "")
    for point in curve.points:
        long.edit(
            f",{point.bpp:.8g},{point.values['psnr']:.8g},",
            ",{:.8g},{:.8g},".format(point.bpp * 0.9991, point.values["psnr"] + 0.004),
        )
    report = long.regress(code=1)
    assert "BD-rate and BD-metric: psnr: BD-rate +0.1" in report
    assert "  quality 20: " not in report
    # At equal quality it is named by the point whose rate moved most.
    for point, now in zip(curve.points, load(long.curve, "").points, strict=True):
        long.edit(f",{now.bpp:.8g},{now.values['psnr']:.8g},", f",{point.bpp / 1.0011:.8g},{point.values['psnr']:.8g},")
    assert "BD-rate +0.11 % (allowed ±0.1), BD-psnr " in (report := long.regress(code=1))
    assert "; bpp most at quality 80: " in report


def test_two_points_have_no_delta_but_a_reason(gate: Gate) -> None:
    gate.regress("--markdown", "summary.md", code=0)
    table = (gate.tmp_path / "summary.md").read_text()
    assert "| psnr | not told: stored: 2 points, and at least 4 needed | not told: stored: 2 points" in table


# However it ends


def test_an_error_is_in_the_files_for_ci(gate: Gate) -> None:
    files = ["--junit", "out/junit.xml", "--markdown", "out/summary.md"]
    for words, told in (
        (["codec=jpgg"], "unknown codec 'jpgg'"),
        (["codec=webp", "data=folder:pictures"], "no stored curve"),
        ([*gate.what, "limit=2"], "leave out limit="),
    ):
        gate.type("regress", *words, *QUICK, *files, code=2)
        root = ET.parse(gate.tmp_path / "out/junit.xml").getroot()
        assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "1")
        error = root.find("testsuite/testcase/error")
        assert error is not None
        assert told in (error.get("message") or "")
        assert told in (gate.tmp_path / "out/summary.md").read_text()
    gate.regress(*files, code=0)
    assert "error" not in (gate.tmp_path / "out/summary.md").read_text()
    gate.edit("# rdpbench-curve v2", "<<<<<<< HEAD")
    gate.regress(*files, code=2)
    assert "&lt;&lt;&lt;&lt;&lt;&lt;&lt; HEAD" in (gate.tmp_path / "out/junit.xml").read_text()
    assert "    " in (gate.tmp_path / "out/summary.md").read_text()


def test_files_that_cannot_be_written_stop_before_anything_runs(gate: Gate) -> None:
    (gate.tmp_path / "out").write_text("a file")
    report = gate.regress("--junit", "out/junit.xml", code=2)
    assert "cannot write" in report
    assert "tasks coded" not in report


def test_killed_it_leaves_files_that_say_so(gate: Gate, rdpbench: Any) -> None:
    """Not those of an earlier call that passed."""
    files = ["--junit", "junit.xml", "--markdown", "summary.md"]
    gate.regress(*files, code=0)
    code = CODEC.replace("file = BytesIO()", "import os; os.kill(os.getpid(), 9)")
    (gate.tmp_path / "mine.py").write_text(code)
    rdpbench("regress", *gate.what, *QUICK, "--fresh", *files, code=-9)
    assert "it did not finish" in (gate.tmp_path / "junit.xml").read_text()
    assert "it did not finish" in (gate.tmp_path / "summary.md").read_text()


def test_a_slow_machine_is_no_regression(gate: Gate) -> None:
    """No time is stored in a curve, and none is compared."""
    stored = "".join(path.read_text() for path in gate.curve.parent.iterdir())
    assert not re.search(r"encode_s|decode_s|seconds|\btime\b", stored)
    gate.behave(pause=0.1)
    assert "8 tasks coded now" in gate.regress(code=0)
