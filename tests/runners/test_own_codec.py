"""Codecs of other people: one file, an installed package, and everything that such code can do wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rdpbench.results.schema import Row
from rdpbench.results.store import Store

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
    assert {row.use for row in mine} == {f"{tmp_path}/mine.py:MyCodec"}
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
    done = rdpbench(*line, code=0)
    contents = Store(tmp_path / "results/runs/two").read()
    # Two samples of one file are two images.
    assert sorted(row.image for row in contents.rows.values()) == ["first", "second"]
    values = {(one.metric, one.error[:10]): one.value for one in contents.scores.values()}
    assert values["./own.py:Breaks", "IndexError"] is None
    assert 0 < values["./own.py:Error", ""] < 100
    assert "images that a metric could not score are left out" in " ".join(done.stdout.split())
    assert "nothing to do" in rdpbench(*line, code=0).stdout


def test_codecs_that_end_their_process(tmp_path: Path, rdpbench: Any, folder: Path) -> None:
    """One failed row for each death; all others are finished."""
    (tmp_path / "bad.py").write_text(BAD)
    told = {"Crashes": "SIGSEGV", "CrashesInDecode": "SIGABRT", "Exits": "exit code 3"}
    line = ["run", "codec=" + ",".join(f"./bad.py:{codec}" for codec in told), f"data=folder:{folder}", *QUICK]
    done = rdpbench(*line, "workers=2", code=1)
    for codec, how in told.items():
        rows = [(row.status, row.error) for row in rows_of(tmp_path) if row.codec == codec]
        assert rows == [("ok", ""), ("error", f"the worker process died: {how}")] * 2
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
        assert {(row.status, row.verified) for row in rows_of(tmp_path, f"w{workers}")} == {("error", "fresh_object")}
        again = rdpbench(*line, f"workers={workers}", f"run=w{workers}", code=1)
        assert "(4 failed)" in again.stdout
        assert "∞" not in again.stdout


def test_the_rate_is_not_an_option(rdpbench: Any, folder: Path) -> None:
    done = rdpbench("run", "codec=jpeg", "codec.options.quality=5", f"data=folder:{folder}", *QUICK, code=2)
    assert "quality is the rate of codec 'jpeg'; write rate=5" in done.stderr
    done = rdpbench("run", "codec=jpeg", "codec.options.optimise=true", f"data=folder:{folder}", *QUICK, code=2)
    assert "'codec.options.optimise': did you mean 'codec.options.optimize'?" in done.stderr
