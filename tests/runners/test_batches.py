"""``batch=``: images of one size coded together give the bytes that they give alone, and rows that can be verified."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.config.bench import read_bench
from rdpbench.errors import ConfigError
from rdpbench.results.store.calls import Named, original_path
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import decode_row
from rdpbench.runners.verify import verify

CODEC = """
import os, signal, zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
import numpy as np
from rdpbench.codecs.contract import Bitstream

@dataclass(frozen=True)
class Together:
    '''Lossless alone; in a batch of n the first value moves by n - 1, as sums in another order may do.'''
    most: int = 99
    batches: ClassVar[bool] = True

    def encode(self, image, side):
        return self.encode_batch([image], [side])[0]

    def encode_batch(self, images, sides):
        assert len({image.shape for image in images}) == 1
        assert len(images) == len(sides)
        if len(images) > self.most:
            raise MemoryError(f"{len(images)} images")
        with open("calls.txt", "a") as file:
            file.write(f"encode {len(images)}\\n")
        for image in images:
            self.check(image)
        return [Bitstream.whole(bytes(one.shape[:2]) + zlib.compress(one.tobytes())) for one in images]

    def decode(self, data):
        return self.decode_batch([data])[0]

    def decode_batch(self, datas):
        with open("calls.txt", "a") as file:
            file.write(f"decode {len(datas)}\\n")
        found = []
        for data in datas:
            image = np.frombuffer(zlib.decompress(data[2:]), np.uint8).reshape(data[0], data[1], 3).copy()
            image[0, 0, 1] += len(datas) - 1
            found.append(image)
        return found

    def check(self, image):
        pass

class Refuses(Together):
    def check(self, image):
        if image[0, 0, 0] == 3:
            raise ValueError("three is too many")

class Crashes(Together):
    def check(self, image):
        if image[0, 0, 0] == 3:
            os.kill(os.getpid(), signal.SIGSEGV)

class EncodesOnly(Together):
    decode_batch = None

    def decode(self, data):
        return Together.decode_batch(self, [data])[0]

class Loses(Together):
    def decode_batch(self, datas):
        return super().decode_batch(datas)[:1]
"""


@pytest.fixture
def folder(tmp_path: Path, images: Any) -> Path:
    """Seven images, the third and the sixth of another size; the first value is their number."""
    (tmp_path / "own.py").write_text(CODEC)
    made: Path = images(5)
    for number, name in ((7, "image01b.png"), (8, "image03b.png")):
        pil.open(made / "image00.png").rotate(number).resize((40, 56)).save(made / name)
    for number, path in enumerate(sorted(made.iterdir())):
        pixels = np.array(pil.open(path))
        pixels[0, 0, :2] = number, 100
        pil.fromarray(pixels).save(path)
    return made


MINE = Named(("./own.py:Together",))


def rows(tmp_path: Path, run: str = "folder-pictures") -> list[Row]:
    return sorted(
        Store(tmp_path / "results/runs" / run).read().rows.values(), key=lambda row: (row.rate or 0, row.image)
    )


def line(folder: Path, codec: str = "./own.py:Together", *more: str) -> list[str]:
    return ["run", f"codec={codec}", f"data=folder:{folder}", "metrics=psnr", "figures=false", "workers=0", *more]


def calls(tmp_path: Path) -> Counter[str]:
    path = tmp_path / "calls.txt"
    found = Counter(path.read_text().splitlines())
    path.unlink()
    return found


@pytest.mark.parametrize("codec", ["mbt2018-mean", "elic"])
def test_learned_codecs_write_the_same_bytes(tmp_path: Path, here: Any, folder: Path, codec: str) -> None:
    more = ("weights=random", "points=1")
    assert here(*line(folder, codec, *more, "verify=0", "run=alone")) == 0
    assert here(*line(folder, codec, *more, "verify=9", "batch=3")) == 0
    alone, together = rows(tmp_path, "alone"), rows(tmp_path)
    assert [row.batch for row in alone] == [1] * 7
    # Five of one size: three and two. Two of the other.
    assert sorted(row.batch for row in together) == [2, 2, 2, 2, 3, 3, 3]
    assert [row.task_key for row in alone] == [row.task_key for row in together]
    assert [row.bitstream_sha256 for row in alone] == [row.bitstream_sha256 for row in together]
    store = Store(tmp_path / "results/runs/folder-pictures")
    for one, other in zip(alone, together, strict=True):
        first, second = decode_row(store, one).astype(int), decode_row(store, other)
        assert np.abs(first - second).max() <= 1
        assert one.legacy == other.legacy
    assert {row.verified for row in together} == {"fresh_process"}
    assert LearnedCodec.batches


def test_a_batch_is_of_one_size_and_its_seconds_are_shared(tmp_path: Path, here: Any, folder: Path) -> None:
    assert here(*line(folder, "./own.py:Together", "batch=4", "verify=0")) == 0
    assert calls(tmp_path) == {"encode 4": 1, "decode 4": 1, "encode 1": 1, "decode 1": 1, "encode 2": 1, "decode 2": 1}
    made = rows(tmp_path)
    assert [row.batch for row in made] == [4, 4, 2, 4, 4, 2, 1]
    four = {(row.encode_s, row.decode_s) for row in made if row.batch == 4}
    assert len(four) == 1
    assert here(*line(folder, "./own.py:Together", "verify=0", "run=alone")) == 0
    assert set(calls(tmp_path)) == {"encode 1", "decode 1"}, "one at a time unless asked for"


def test_pixels_of_a_batch_are_found_again(tmp_path: Path, here: Any, folder: Path) -> None:
    """This codec's pixels depend on the size of the batch: as they were made, they are verified and scored."""
    assert here(*line(folder, "./own.py:Together", "batch=4", "verify=9")) == 0
    made = rows(tmp_path)
    assert {row.verified for row in made} == {"fresh_process"}
    store = Store(tmp_path / "results/runs/folder-pictures")
    for row in made:
        image = np.array(pil.open(original_path(store, row)))
        assert decode_row(store, row, MINE)[0, 0, 1] == image[0, 0, 1] + row.batch - 1
    assert not (found := verify(store, None, named=MINE)).findings + found.undecoded
    assert here(*line(folder, "./own.py:Together", "metrics=psnr,psnr-pooled")) == 0
    assert all(one.value is not None for one in store.read().scores.values())
    assert len(store.read().scores) == 14
    # What comes out of no place of a batch is found.
    wrong = next(row for row in made if row.batch == 4)
    assert decode_row(store, Row(**{**vars(wrong), "batch": 3}), MINE)[0, 0, 1] == 100


def test_resume_goes_on_with_what_is_left(tmp_path: Path, here: Any, folder: Path, capsys: Any) -> None:
    assert here(*line(folder, "./own.py:Together", "batch=4", "limit=2")) == 0
    assert here(*line(folder, "./own.py:Together", "batch=4")) == 0
    assert "5 tasks coded" in capsys.readouterr().out
    assert here(*line(folder, "./own.py:Together", "batch=2")) == 0
    assert "nothing to do" in capsys.readouterr().out, "the batch is no part of a key"


def test_one_that_fails_is_the_only_one(tmp_path: Path, here: Any, folder: Path, capsys: Any) -> None:
    assert here(*line(folder, "./own.py:Refuses", "batch=9", "verify=9")) == 1
    assert "a batch of 5 images failed, one by one now: ValueError: three is too many" in capsys.readouterr().err
    found = {row.image: (row.status, row.batch) for row in rows(tmp_path)}
    assert [status for status, _ in found.values()].count("error") == 1
    assert found["image02"] == ("error", 1)
    assert Counter(batch for _, batch in found.values()) == {1: 5, 2: 2}


def test_what_does_not_fit_into_memory_is_made_smaller(tmp_path: Path, here: Any, images: Any, capsys: Any) -> None:
    (tmp_path / "own.py").write_text(CODEC)
    more = ("batch=8", "verify=0", "codec.options.most=4")
    assert here(*line(images(24), "./own.py:Together", *more)) == 0
    assert capsys.readouterr().err.count("a batch of 8 images failed") == 1
    assert Counter(row.batch for row in rows(tmp_path)) == {4: 24}


def test_an_image_that_does_not_fit_into_memory_is_tried_once_more(tmp_path: Path, here: Any, images: Any) -> None:
    """Another program may have had it."""
    lines = "if not Path('once').exists():", "    Path('once').touch()", "    raise MemoryError('short')", ""
    short = "\n        ".join(lines)
    (tmp_path / "own.py").write_text(CODEC.replace("return self.encode_batch(", f"{short}return self.encode_batch("))
    assert here(*line(images(3), "./own.py:Together", "verify=0")) == 0
    assert len(rows(tmp_path)) == 3
    assert (tmp_path / "once").exists()


def test_a_crash_costs_the_image_that_crashed(tmp_path: Path, rdpbench: Any, folder: Path) -> None:
    typed = [*line(folder, "./own.py:Crashes", "batch=4", "verify=0")[:-3], "batch=4", "workers=2", "verify=0"]
    rdpbench(*typed, code=1)
    found = {row.image: (row.status, row.error) for row in rows(tmp_path)}
    assert found.pop("image02") == ("error", "the worker process died: SIGSEGV")
    assert set(found.values()) == {("ok", "")}
    assert len(found) == 6


def test_a_codec_may_encode_together_and_decode_alone(tmp_path: Path, here: Any, folder: Path) -> None:
    assert here(*line(folder, "./own.py:EncodesOnly", "batch=4", "verify=9")) == 0
    assert {row.verified for row in rows(tmp_path)} == {"fresh_process"}
    assert calls(tmp_path)["encode 4"] == 1
    assert [row.batch for row in rows(tmp_path)] == [4, 4, 2, 4, 4, 2, 1]


def test_a_batch_that_loses_images_is_no_batch(tmp_path: Path, here: Any, folder: Path, capsys: Any) -> None:
    assert here(*line(folder, "./own.py:Loses", "batch=4", "verify=9")) == 0
    assert "CodecError: a batch of 4 images gave 4 bitstreams and 1 images" in capsys.readouterr().err
    assert {row.batch for row in rows(tmp_path)} == {1}


def test_what_is_timed_is_alone(tmp_path: Path, here: Any, folder: Path) -> None:
    typed = line(folder, "./own.py:Together", "batch=4", "verify=0", "limit=2", "timing=true")
    assert here(*typed) == 0
    assert set(calls(tmp_path)) == {"encode 1", "decode 1"}
    assert {row.batch for row in rows(tmp_path)} == {1}
    stored = Store(tmp_path / "results/runs/folder-pictures").read()
    assert len(stored.timings) == 2


def test_what_is_out_of_range_is_not_timed(tmp_path: Path, here: Any, folder: Path) -> None:
    assert here(*line(folder, "jpeg", "bpp=99", "verify=0", "limit=2", "timing=true")) == 1
    stored = Store(tmp_path / "results/runs/folder-pictures").read()
    assert {row.status for row in stored.rows.values()} == {"out_of_range"}
    assert stored.timings == {}


def test_codecs_without_batches_and_targets_go_alone(tmp_path: Path, here: Any, folder: Path) -> None:
    assert here(*line(folder, "jpeg", "rate=30", "batch=4", "verify=0")) == 0
    words = line(folder, "mbt2018-mean", "weights=random", "bpp=3", "limit=2", "batch=4", "verify=0", "run=s")
    assert here(*words) == 1  # none of it is in range
    assert {row.batch for row in (*rows(tmp_path), *rows(tmp_path, "s"))} == {1}
    assert all(json.loads(row.parts) for row in rows(tmp_path))


def test_what_cannot_be_meant_is_refused() -> None:
    assert read_bench(["batch=8"]).batch == 8
    assert read_bench([]).batch == 1
    for wrong in ("0", "-1", "many"):
        with pytest.raises(ConfigError, match=r"batch=.* must be a whole number from 1"):
            read_bench([f"batch={wrong}"])
