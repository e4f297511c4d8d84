"""The regression gate through the command: what is as stored passes, and each thing that moved is caught and named."""

from __future__ import annotations

import json
import math
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.errors import ConfigError
from rdpbench.paths import conf_folder
from rdpbench.results.curve_files import curve_path, load, write
from rdpbench.results.curves import Curve, ImagePoint, Point
from rdpbench.results.regression import compare
from rdpbench.results.tolerances import Tolerance, read_tolerances
from rdpbench.runners.task import identity

# JPEG whose quality is off by what shift.txt says: a change that neither its version nor its source tells.
CODEC = """
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

    def behave(self, *, shift: int = 0, library: str = "1.0") -> None:
        (self.tmp_path / "shift.txt").write_text(str(shift))
        (self.tmp_path / "library.txt").write_text(library)
        identity.cache_clear()  # as in a new process

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


@pytest.fixture
def gate(
    tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str], images: Callable[..., Path]
) -> Gate:
    images(4)
    made = Gate(tmp_path, here, capsys)
    made.store()
    return made


def test_unchanged_passes(gate: Gate) -> None:
    stored = {path.name: path.read_bytes() for path in gate.curve.parent.iterdir()}
    assert set(stored) == {"Mine.csv", "Mine.images.csv", "Mine.json"}
    assert b"\r" not in b"".join(stored.values())
    assert str(gate.tmp_path).encode() not in b"".join(stored.values())
    assert stored["Mine.csv"].startswith(b"# rdpbench-curve v1\nrate_field,rate,n,dataset_size,protocol,bpp,psnr,")
    report = gate.regress("--junit", "out/junit.xml", "--markdown", "out/summary.md", code=0)
    assert "8 tasks coded now, 0 taken" in report
    assert "Mine on folder-pictures: 2 points, as stored in results/curves/folder-pictures/Mine.csv" in report
    suite = ET.parse(gate.tmp_path / "out/junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "0")
    assert "1 of 1 curves as stored" in (gate.tmp_path / "out/summary.md").read_text()
    gate.type("curves", "update", *gate.what, "metrics=psnr", *QUICK, "root=elsewhere", code=0)
    assert {path.name: path.read_bytes() for path in gate.curve.parent.iterdir()} == stored


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
    assert "0 of 1 curves are as stored" in report
    cases = ET.parse(gate.tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    failures = {case.get("name"): case.findtext("failure") for case in cases}
    assert failures["curve"] is None
    assert "psnr: " in (failures["quality 30"] or "")
    assert "bytes: 4 of 4" in (gate.tmp_path / "summary.md").read_text()


def test_another_coder_makes_bytes_free_but_not_values(gate: Gate) -> None:
    gate.behave(library="2.0")
    report = gate.regress(code=0)
    assert "note: the coder is another one (library: 1.0 → 2.0): equal bytes are not expected" in report
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
        ("# rdpbench-curve v1", "# rdpbench-curve v0", "Make it again: rdpbench curves update"),
        ("# rdpbench-curve v1", "# rdpbench-curve v2", "pip install --upgrade rdpbench"),
        ("# rdpbench-curve v1", "<<<<<<< HEAD", "found '<<<<<<< HEAD', not '# rdpbench-curve v1'"),
        ("quality,30,", "quality,thirty,", "Mine.csv:3: not a line of a stored curve"),
        ("quality,30,", "quality,60,", "holds points twice: quality 60"),
    ],
)
def test_a_file_that_is_not_this_version(gate: Gate, old: str, new: str, told: str) -> None:
    gate.edit(old, new)
    report = gate.regress(code=2)
    assert told in report
    assert "Mine.csv" in report


def test_a_companion_of_another_version_or_none(gate: Gate) -> None:
    beside = gate.curve.with_suffix(".json")
    beside.write_text(beside.read_text().replace('"version": 1', '"version": 7', 1))
    assert "has version 7" in gate.regress(code=2)
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


def point(rate: float = 30.0, **changes: Any) -> Point:
    return replace(Point(("quality", rate), 2, 2, "as-is", 0.5, {"psnr": 30.0}, {}, "aa"), **changes)


def test_a_coder_that_depends_on_the_cpu() -> None:
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    origin = {"configuration": {"use": "jpegxl"}, "coder": {"libjxl": "1"}, "cpu": "x86_64 avx2"}
    stored = Curve((point(),), (), origin)
    same = Curve((point(bitstreams="bb"),), (), origin)
    assert "bytes" in compare(stored, same, tolerances)[0][0].text
    elsewhere = Curve((point(bitstreams="bb"),), (), {**origin, "cpu": "x86_64 avx512"})
    findings, notes = compare(stored, elsewhere, tolerances)
    assert (findings, len(notes)) == ([], 1)
    jpeg = {"configuration": {"use": "jpeg"}}
    stored, elsewhere = (replace(one, origin={**one.origin, **jpeg}) for one in (stored, elsewhere))
    assert len(compare(stored, elsewhere, tolerances)[0]) == 1


def test_infinite_and_missing_values_survive_a_file_and_compare(tmp_path: Path) -> None:
    """Lossless images have infinite PSNR, refused ones none; a mean over other images is a finding of its own."""
    tolerances = read_tolerances(conf_folder() / "regress.yaml")
    values = {"psnr": math.inf, "ms-ssim": math.nan, "flip": 0.25}
    one = ImagePoint(("quality", 30.0), "a,b\n\"c'", "00", "11", 0.1, values)
    only = Point(("", None), 3, 3, "as-is", 1 / 3, values, {"ms-ssim": 0, "flip": 2}, "aa")
    curve = Curve((replace(only, bpp=0.33333333),), (one,), {"seeds": [0]})
    path = curve_path(tmp_path, "my set/../x", ".hidden")
    assert path == tmp_path / "my_set_.._x" / "_hidden.csv"
    write(path, curve)
    again = load(path, "")
    assert repr(again.points) == repr(curve.points)
    assert repr(again.images) == repr(curve.images)
    assert compare(again, curve, tolerances) == ([], [])
    other = replace(curve.points[0], averaged={"ms-ssim": 0, "flip": 3}, values={**values, "psnr": 99.0})
    texts = [finding.text for finding in compare(again, Curve((other,), (), curve.origin), tolerances)[0]]
    assert any("flip: stored as the mean of 2 images, now of 3" in text for text in texts)
    assert any(text.startswith("psnr: inf → 99") for text in texts)


def test_large_datasets_go_without_lines_per_image(tmp_path: Path) -> None:
    path = curve_path(tmp_path, "large", "jpeg")
    one = ImagePoint(("quality", 30.0), "a", "00", "11", 0.1, {"psnr": 30.0})
    write(path, Curve((point(n=100),), (one,), {}))
    assert path.with_name("jpeg.images.csv").is_file()
    write(path, Curve((point(n=101),), (one,), {}))
    assert not path.with_name("jpeg.images.csv").is_file()
    assert load(path, "").images == ()


def test_tolerances_add_up_and_bad_ones_are_refused(tmp_path: Path) -> None:
    assert Tolerance(0.5, 0.01).allows(100.0, 101.5)
    assert not Tolerance(0.5, 0.01).allows(100.0, 101.6)
    assert not Tolerance(1e9, 1e9).allows(30.0, math.nan)
    assert not Tolerance(1e9, 0).allows(30.0, math.inf)
    assert read_tolerances(conf_folder() / "regress.yaml").of("a new one") == Tolerance(0, 0.001)
    path = tmp_path / "regress.yaml"
    for text in ("", "bpp: 3", "bpp: {absolute: -1, relative: 0}\nmetrics: {}\ncpu_dependent: []", "{"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="both 0 or more"):
            read_tolerances(path)
