"""Codecs of other people: one file, an installed package, and everything that such code can do wrong."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from rdpbench.assets.hashes import files_changed
from rdpbench.results.store.calls import CodecFiles
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store

HEAD = """
import os, signal, sys, zlib
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from rdpbench.codecs.contract import Bitstream, Rate
"""
GOOD = (
    HEAD
    + """
@dataclass(frozen=True)
class MyCodec:
    step: int = 8
    rate: ClassVar[Rate] = Rate("step", 1, 64, rises=False, points=(4, 16))

    def encode(self, image, side):
        return Bitstream.whole(bytes([*image.shape[:2], self.step]) + zlib.compress((image // self.step).tobytes()))

    def decode(self, data):
        levels = np.frombuffer(zlib.decompress(data[3:]), np.uint8).reshape(data[0], data[1], 3).astype(int)
        return np.clip(levels * data[2] + data[2] // 2, 0, 255).astype(np.uint8)
"""
)
BAD = (
    HEAD
    + '''
KEPT = {}

class Base:
    """Lossless; what is wrong with it comes below, on images whose first pixel is odd."""
    def encode(self, image, side):
        if image[0, 0, 0] % 2:
            image = self.wrong_encode(image)
        return Bitstream.whole(bytes(image.shape[:2]) + zlib.compress(image.tobytes()))

    def decode(self, data):
        image = np.frombuffer(zlib.decompress(data[2:]), np.uint8).reshape(data[0], data[1], 3)
        return self.wrong_decode(image) if image[0, 0, 0] % 2 else image

    def wrong_encode(self, image):
        return image

    def wrong_decode(self, image):
        return image

class Crashes(Base):
    def wrong_encode(self, image):
        os.kill(os.getpid(), signal.SIGSEGV)

class CrashesInDecode(Base):
    def wrong_decode(self, image):
        os.abort()

class Exits(Base):
    def wrong_encode(self, image):
        sys.exit(3)

class Raises(Base):
    def wrong_encode(self, image):
        raise RuntimeError("the latent is \\ntoo large")

class WritesIntoItsInput(Base):
    def wrong_encode(self, image):
        image[:] = 0
        return image

class ReturnsFloat(Base):
    def wrong_decode(self, image):
        return image / 255

class ReturnsAnotherShape(Base):
    def wrong_decode(self, image):
        return image[:-1]

class ReturnsGrey(Base):
    def wrong_decode(self, image):
        return image[:, :, 0]

class ReturnsNothing(Base):
    def wrong_decode(self, image):
        return None

class ReturnsBytes(Base):
    def encode(self, image, side):
        return b"bytes" if image[0, 0, 0] % 2 else super().encode(image, side)

class NoBytes(Base):
    def encode(self, image, side):
        return Bitstream.whole(b"") if image[0, 0, 0] % 2 else super().encode(image, side)

class WrongParts(Base):
    def encode(self, image, side):
        good = super().encode(image, side)
        return Bitstream(good.data, {"payload": 1}) if image[0, 0, 0] % 2 else good

class KeepsTheImage(Base):
    """Sends one byte and remembers the image: on self, or on the bytes themselves."""
    def encode(self, image, side):
        self.image = image
        return Bitstream.whole(b"x")
    def decode(self, data):
        return self.image

class Fat(bytes):
    pass

class HidesItInTheBytes(Base):
    def encode(self, image, side):
        data = Fat(b"x")
        data.image = image
        return Bitstream(data, {"file": 1})
    def decode(self, data):
        return data.image

class KeepsItInTheModule(Base):
    def encode(self, image, side):
        KEPT[image.tobytes()[:9]] = image
        return Bitstream.whole(image.tobytes()[:9])
    def decode(self, data):
        return KEPT[data]
'''
)
QUICK = ("metrics=psnr", "figures=false", "verify=0")


def rows_of(tmp_path: Path, run: str = "folder-pictures") -> list[Row]:
    return sorted(
        Store(tmp_path / "results/runs" / run).read().rows.values(), key=lambda row: (row.image, row.rate or 0)
    )


@pytest.fixture
def folder(images: Any) -> Path:
    """Four images, two of them with an odd first pixel."""
    import numpy as np
    from PIL import Image as pil

    made: Path = images(4)
    for number, path in enumerate(sorted(made.iterdir())):
        pixels = np.array(pil.open(path))
        pixels[0, 0, 0] = 10 + number
        pil.fromarray(pixels).save(path)
    return made


def test_a_codec_in_one_file(tmp_path: Path, rdpbench: Any, folder: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    line = ["run", "codec=./mine.py:MyCodec,jpeg", "points=2", f"data=folder:{folder}", "metrics=psnr", "figures=false"]
    done = rdpbench(*line, code=0)
    assert "8 of them decoded again in a fresh process to the same pixels" in done.stdout
    assert "│ MyCodec │    step 16 │ 4 │" in done.stdout
    mine = [row for row in rows_of(tmp_path) if row.codec == "MyCodec"]
    assert len(mine) == 8
    assert {row.use for row in mine} == {"mine.py:MyCodec"}
    assert all(row.bytes == sum(json.loads(row.parts).values()) for row in mine)
    assert "nothing to do" in rdpbench(*line, code=0).stdout
    # Edited, it is another codec: measured anew, and its old rows are not mixed with the new ones.
    (tmp_path / "mine.py").write_text(GOOD.replace("data[2] // 2", "0"))
    assert "8 tasks coded" in rdpbench(*line, code=0).stdout
    shown = rdpbench("show", "folder-pictures", code=0).stdout
    assert "8 rows of earlier versions" in shown
    assert "│ MyCodec │    step 16 │ 4 │" in shown


def test_a_codec_of_an_installed_package(tmp_path: Path, rdpbench: Any, folder: Path) -> None:
    site = tmp_path / "site"
    info = site / "my_codec-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_codec.py").write_text(GOOD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-codec\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rdpbench.codecs]\nmycodec = my_codec:MyCodec\n")
    env = {"PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[2])])}
    done = rdpbench("run", "codec=mycodec", f"data=folder:{folder}", "metrics=psnr", "figures=false", env=env, code=0)
    assert "8 of them decoded again in a fresh process to the same pixels" in done.stdout
    assert {row.codec for row in rows_of(tmp_path)} == {"mycodec"}
    assert "mycodec" in rdpbench("ls", env=env, code=0).stdout
    near = rdpbench("run", "codec=mycodek", f"data=folder:{folder}", env=env, code=2)
    assert "unknown codec 'mycodek': did you mean 'mycodec'?" in near.stderr
    # Another version of its file is another codec.
    (site / "my_codec.py").write_text(GOOD.replace("data[2] // 2", "0"))
    again = rdpbench("run", "codec=mycodec", f"data=folder:{folder}", *QUICK, env=env, code=0)
    assert "8 tasks coded" in again.stdout


def test_a_dataset_and_a_metric_of_ones_own(tmp_path: Path, rdpbench: Any, folder: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\nimport numpy as np\nfrom rdpbench.datasets.contract import Sample\n"
        "class Two:\n    name = 'two'\n    protocol = 'as-is'\n    needs = ()\n"
        f"    folder = Path({str(folder)!r})\n"
        "    def samples(self):\n"
        "        path = self.folder / 'image00.png'\n"
        "        yield Sample('first', path, caption='a')\n"
        "        yield Sample('second', path, caption='b')\n"
        "    def __len__(self):\n        return 2\n"
        "class Error:\n    higher_is_better = False\n    unit = ''\n    perceptual = False\n"
        "    def prepare(self, original):\n        return original.astype(np.float32)\n"
        "    def score(self, prepared, reconstruction):\n        return np.abs(prepared - reconstruction).mean()\n"
        "    def reduce(self, values):\n        return sum(values) / len(values)\n"
        "class Breaks(Error):\n"
        "    def score(self, prepared, reconstruction):\n        return [][0]\n"
    )
    metrics = "metrics=./own.py:Error,./own.py:Breaks"
    line = ["run", "codec=jpeg", "rate=30", "data=./own.py:Two", metrics, "figures=false", "verify=0"]
    done = rdpbench(*line, code=1)  # a metric that was asked for has no value
    contents = Store(tmp_path / "results/runs/two").read()
    # Two samples of one file are two images.
    assert sorted(row.image for row in contents.rows.values()) == ["first", "second"]
    values = {(one.metric, one.error[:10]): one.value for one in contents.scores.values()}
    assert values["own.py:Breaks", "IndexError"] is None
    assert 0 < values["own.py:Error", ""] < 100
    assert "images that a metric could not score are left out" in " ".join(done.stdout.split())
    assert "nothing to do" in rdpbench(*line, code=1).stdout


def test_codecs_that_end_their_process(tmp_path: Path, rdpbench: Any, folder: Path) -> None:
    """One failed row for each death; all others are finished."""
    (tmp_path / "bad.py").write_text(BAD)
    died = "the worker process died: "
    told = {"Crashes": f"{died}SIGSEGV", "CrashesInDecode": f"{died}SIGABRT", "Exits": "SystemExit: 3 (in "}
    line = ["run", "codec=" + ",".join(f"./bad.py:{codec}" for codec in told), f"data=folder:{folder}", *QUICK]
    done = rdpbench(*line, "workers=2", code=1)
    for codec, how in told.items():
        rows = [row for row in rows_of(tmp_path) if row.codec == codec]
        assert [row.status for row in rows] == ["ok", "error"] * 2
        assert [row.error.startswith(how) for row in rows if row.error] == [True, True]
        assert f"failed: {codec}," in done.stdout
    assert "6 tasks coded, 0 scored or timed from the store, 6 failed" in done.stdout
    assert "(2 failed)" in done.stdout
    assert "6 tasks failed before; retry_failed=true tries them again" in rdpbench(*line, code=1).stderr


@pytest.mark.parametrize(
    ("codec", "told"),
    [
        ("Raises", r"RuntimeError: the latent is"),
        ("WritesIntoItsInput", "read-only"),
        ("ReturnsFloat", "the decoded image must be uint8 (H, W, 3), found float64 (40, 56, 3)"),
        ("ReturnsAnotherShape", "decoded to (39, 56, 3), but the image is (40, 56, 3)"),
        ("ReturnsGrey", "found uint8 (40, 56)"),
        ("ReturnsNothing", "found NoneType"),
        ("ReturnsBytes", "encode must return a Bitstream, found bytes"),
        ("NoBytes", "the encoder returned no bytes"),
        ("WrongParts", "do not add up"),
    ],
)
def test_what_goes_wrong_is_a_failed_row(tmp_path: Path, here: Any, folder: Path, codec: str, told: str) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    assert here("run", f"codec=./bad.py:{codec}", f"data=folder:{folder}", *QUICK, "workers=0") == 1
    rows = rows_of(tmp_path)
    assert [row.status for row in rows] == ["ok", "error"] * 2
    assert all(told in row.error for row in rows if row.status == "error")
    # The good rows are lossless: nothing was written into their images.
    assert {one.value for one in Store(tmp_path / "results/runs/folder-pictures").read().scores.values()} == {
        float("inf")
    }


@pytest.mark.parametrize("codec", ["KeepsTheImage", "HidesItInTheBytes"])
def test_what_is_not_in_the_bytes_is_not_decoded(tmp_path: Path, here: Any, folder: Path, codec: str) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    assert here("run", f"codec=./bad.py:{codec}", f"data=folder:{folder}", *QUICK, "workers=0") == 1
    assert {row.status for row in rows_of(tmp_path)} == {"error"}
    assert all("has no attribute 'image'" in row.error for row in rows_of(tmp_path))


def test_what_is_kept_in_the_process_is_found_by_verification(tmp_path: Path, rdpbench: Any, folder: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    line = ["run", "codec=./bad.py:KeepsItInTheModule", f"data=folder:{folder}", "metrics=psnr", "figures=false"]
    for workers in (0, 2):
        done = rdpbench(*line, f"workers={workers}", f"run=w{workers}", code=1)
        assert done.stdout.count("FOUND KeepsItInTheModule") == 4
        assert "decodes to other pixels: KeyError" in done.stdout
        # Its numbers are not of the bytes alone: they are failed rows, in no mean, now and when asked again.
        assert {(row.status, row.verified) for row in rows_of(tmp_path, f"w{workers}")} == {("error", "refuted")}
        again = rdpbench(*line, f"workers={workers}", f"run=w{workers}", code=1)
        assert "(4 failed)" in again.stdout
        assert "∞" not in again.stdout


def test_the_rate_is_not_an_option(rdpbench: Any, folder: Path) -> None:
    done = rdpbench("run", "codec=jpeg", "codec.options.quality=5", f"data=folder:{folder}", *QUICK, code=2)
    assert "quality is the rate of codec 'jpeg'; write rate=5" in done.stderr
    done = rdpbench("run", "codec=jpeg", "codec.options.optimise=true", f"data=folder:{folder}", *QUICK, code=2)
    assert "'codec.options.optimise': did you mean 'codec.options.optimize'?" in done.stderr


OPENS = (
    HEAD
    + """
from pathlib import Path
class Opens:
    def encode(self, image, side):
        import helper
        step = int(Path("w.txt").read_text()) * helper.GAIN
        return Bitstream.whole(bytes([*image.shape[:2], step]) + zlib.compress((image // step).tobytes()))

    def decode(self, data):
        levels = np.frombuffer(zlib.decompress(data[3:]), np.uint8).reshape(data[0], data[1], 3).astype(int)
        return np.clip(levels * data[2], 0, 255).astype(np.uint8)
"""
)


def opens(folder: Path) -> Path:
    (folder / "opens.py").write_text(OPENS)
    (folder / "helper.py").write_text("GAIN = 1\n")
    (folder / "w.txt").write_text("16")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_codec_imports_or_opens_is_measured_again(
    tmp_path: Path, rdpbench: Any, images: Any, workers: int
) -> None:
    opens(tmp_path)
    line = ["run", "codec=./opens.py:Opens", f"data=folder:{images(3)}", "metrics=psnr", "figures=false"]
    line.append(f"workers={workers}")
    assert "3 of them decoded again in a fresh process to the same pixels" in rdpbench(*line, code=0).stdout
    first = rows_of(tmp_path)
    assert {row.files for row in first} == {json.dumps({"w.txt": hashlib.sha256(b"16").hexdigest()})}
    assert "nothing to do" in rdpbench(*line, code=0).stdout
    (tmp_path / "w.txt").write_text("64")
    done = rdpbench(*line, code=0)
    assert "again     3 tasks: a file that their codec opened changed, or is gone" in done.stderr
    assert "3 tasks coded" in done.stdout
    second = rows_of(tmp_path)
    assert [row.task_key for row in second] == [row.task_key for row in first]
    assert all(new.bytes < old.bytes for new, old in zip(second, first, strict=True))  # type: ignore[operator]
    values = {
        score.task_key: score.value for score in Store(tmp_path / "results/runs/folder-pictures").read().scores.values()
    }
    assert len(values) == 3
    assert max(value or 0 for value in values.values()) < 25
    (tmp_path / "helper.py").write_text("GAIN = 2\n")
    assert "3 tasks coded" in rdpbench(*line, code=0).stdout
    assert "nothing to do" in rdpbench(*line, code=0).stdout


def test_rows_whose_files_are_gone_do_not_stay_as_they_were(tmp_path: Path, here: Any, images: Any) -> None:
    opens(tmp_path)
    line = ["run", "codec=./opens.py:Opens", f"data=folder:{images(2)}", *QUICK, "workers=0"]
    assert here(*line) == 0
    (tmp_path / "w.txt").rename(tmp_path / "elsewhere.txt")
    assert here(*line) == 1
    contents = Store(tmp_path / "results/runs/folder-pictures").read()
    assert {(row.status, row.error[:17]) for row in contents.rows.values()} == {("error", "FileNotFoundError")}
    assert not contents.scores
    # A file that is there and wrong: when it changes, the task is tried again without being asked to.
    (tmp_path / "w.txt").write_text("no number")
    assert here(*line, "retry_failed=true") == 1
    (tmp_path / "w.txt").write_text("16")
    assert here(*line) == 0
    assert {row.status for row in rows_of(tmp_path)} == {"ok"}


def test_the_same_pixels_made_again_are_scored_again(tmp_path: Path, here: Any, images: Any) -> None:
    (tmp_path / "mine.py").write_text(
        GOOD.replace("return Bitstream", "Path('note.txt').read_text(); return Bitstream")
    )
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\nfrom pathlib import Path\n")
    (tmp_path / "note.txt").write_text("one")
    line = [
        "run",
        "codec=./mine.py:MyCodec",
        "rate=4",
        f"data=folder:{images(2)}",
        "figures=false",
        "verify=0",
        "workers=0",
    ]
    assert here(*line, "metrics=psnr,ms-ssim/torchmetrics") in (0, 1)
    store = Store(tmp_path / "results/runs/folder-pictures")
    before = store.read()
    (tmp_path / "note.txt").write_text("two")
    assert here(*line, "metrics=psnr") == 0
    after = store.read()
    assert after.rows.keys() == before.rows.keys()
    assert all(row.files != before.rows[key].files for key, row in after.rows.items())
    assert all(row.reconstruction_sha256 == before.rows[key].reconstruction_sha256 for key, row in after.rows.items())
    assert {score.metric for score in after.scores.values()} == {"psnr"}
    assert len(after.scores) == 2


def test_a_missing_file_stops_the_plan(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    page = (Path(__file__).parents[2] / "docs/own.md").read_text()
    (tmp_path / "mine.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    line = ["codec=./mine.py:MyCodec", f"data=folder:{images(1)}"]
    done = rdpbench("run", *line, code=2)
    message = f"codec 'MyCodec': weights=weights.npy: no such file or folder: {tmp_path}/weights.npy"
    assert message in done.stderr
    done = rdpbench("plan", *line, "codec.options.weights=gone/w.npy", code=2)
    assert f"weights=gone/w.npy: no such file or folder: {tmp_path}/gone/w.npy" in done.stderr
    assert not (tmp_path / "results").exists()


def test_two_folders_with_a_module_of_one_name_in_one_command(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    """In worker processes and in the process that verifies, too; which runs in another folder, on files typed here."""
    for number, name in ((4, "One"), (16, "Other")):
        folder = tmp_path / name
        folder.mkdir()
        text = "from pathlib import Path\nimport helper\n" + GOOD.replace("MyCodec", name).replace(
            "int = 8", "int = 8\n    add: Path = Path('add.txt')"
        )
        text = text.replace("data[2] // 2", "helper.add(self)").replace(", points=(4, 16)", ", points=(8,)")
        (folder / "mine.py").write_text(text)
        (folder / "helper.py").write_text(f"def add(codec):\n    return int(codec.add.read_text()) + {number}\n")
    (tmp_path / "add.txt").write_text("1")
    line = ["run", "codec=One/mine.py:One,./Other/mine.py:Other", f"data=folder:{images(2)}", "metrics=psnr"]
    done = rdpbench(*line, "figures=false", "workers=1", "verify=9", code=0)
    assert "4 of them decoded again in a fresh process to the same pixels" in done.stdout
    values: dict[str, set[float]] = {}
    contents = Store(tmp_path / "results/runs/folder-pictures").read()
    for score in contents.scores.values():
        values.setdefault(contents.rows[score.task_key].codec, set()).add(score.value or 0)
    assert min(values["One"]) > max(values["Other"]) + 3
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    line = ["verify", f"{tmp_path}/results/runs/folder-pictures", "--all"]
    unnamed = rdpbench(*line, cwd=elsewhere, code=1)
    assert unnamed.stdout.count("NOT DECODED") == 2
    assert "0 bitstreams decoded" in unnamed.stdout
    line += [f"codec={tmp_path}/One/mine.py:One", f"codec={tmp_path}/Other/mine.py:Other"]
    line += [f"codec.options.add={tmp_path}/add.txt"]
    done = rdpbench(*line, cwd=elsewhere)
    assert "FOUND" not in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_that_changes_while_a_run_is_going_on_is_not_stored_under_the_planned_key(
    tmp_path: Path, here: Any, images: Any
) -> None:
    """A long run whose codec is edited, or trained, meanwhile."""
    for name, change in (("mine.py", "open('mine.py', 'a').write('#')"), ("w.txt", "open('w.txt', 'w').write('2')")):
        text = GOOD.replace("int = 8", "int = 8\n    weights: Path = Path('w.txt')")
        text = text.replace(
            "    def encode(self, image, side):", f"    def encode(self, image, side):\n        {change}"
        )
        (tmp_path / "mine.py").write_text("from pathlib import Path\n" + text)
        (tmp_path / "w.txt").write_text("1")
        pictures = images(2, name=f"of {name}")
        line = [
            "run",
            "codec=./mine.py:MyCodec",
            "rate=4",
            f"data=folder:{pictures}",
            f"run={name}",
            *QUICK,
            "workers=0",
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert here(*line) == 1
        rows = rows_of(tmp_path, name)
        assert {row.status for row in rows} == {"error"}
        assert all("changed since this run was planned; run the command again" in row.error for row in rows)


@pytest.mark.parametrize("declared", [True, False])
def test_weights_that_a_module_remembers_are_not_those_of_the_next_command(
    tmp_path: Path, here: Any, images: Any, *, declared: bool
) -> None:
    """Several commands in one process, as in a notebook; and a file that only the first image opens."""
    text = "from functools import cache\nfrom pathlib import Path\n" + GOOD
    text = text.replace("int = 8", "int = 8\n    weights: Path = Path('w.txt')" if declared else "int = 8")
    text += "@cache\ndef offset(path):\n    return int(Path(path).read_text())\n"
    text = text.replace("data[2] // 2", f"offset({'self.weights' if declared else repr('w.txt')})")
    (tmp_path / "mine.py").write_text(text)
    line = ["run", "codec=./mine.py:MyCodec", "rate=16", f"data=folder:{images(3)}", *QUICK, "workers=0"]
    seen = []
    lies = CodecFiles.of(f"{tmp_path}/mine.py:MyCodec", {"weights": f"{tmp_path}/w.txt"})
    for offset in ("8", "0", "8", "8"):
        (tmp_path / "w.txt").write_text(offset)
        assert here(*line) == 0
        contents = Store(tmp_path / "results/runs/folder-pictures").read()
        rows = [row for row in contents.rows.values() if not files_changed(row.files, lies.path)]
        assert len(rows) == 3
        wanted = {"weights=w.txt" if declared else "w.txt": hashlib.sha256(offset.encode()).hexdigest()}
        assert all(json.loads(row.files) == wanted for row in rows)
        seen.append(sorted(row.reconstruction_sha256 for row in rows))
    assert seen[0] == seen[2] == seen[3] != seen[1]


def test_what_is_coded_again_is_timed_again(tmp_path: Path, here: Any, images: Any) -> None:
    """Its batches, too, are of files that it opens."""
    text = GOOD.replace("data[2] // 2", "int(open('w.txt').read())").replace(
        "    step: int", "    batches = True\n    step: int"
    )
    text += (
        "    def encode_batch(self, given, sides):\n        return [self.encode(*pair) for pair in zip(given, sides)]\n"
    )
    (tmp_path / "mine.py").write_text(text)
    line = ["run", "codec=./mine.py:MyCodec", "rate=16", f"data=folder:{images(2)}", *QUICK]
    keys = []
    lies = CodecFiles.of(f"{tmp_path}/mine.py:MyCodec", {})
    for number, how in ((8, "timing=true"), (4, "timing=true"), (2, "batch=2"), (2, "timing=true")):
        (tmp_path / "w.txt").write_text(str(number))
        assert here(*line, how) == 0
        contents = Store(tmp_path / "results/runs/folder-pictures").read()
        assert all(not files_changed(row.files, lies.path) and row.files != "{}" for row in contents.rows.values())
        assert {row.batch for row in contents.rows.values()} == {2 if number == 2 else 1}
        keys.append({timing.task_key for timing in contents.timings.values()})
    assert keys == [{*contents.rows}, {*contents.rows}, set(), {*contents.rows}]
