"""`rdpbench verify` finds what changed after it was stored, and names it; an untouched store has no findings."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.errors import StoreError, WorkerError
from rdpbench.results.store.calls import original_path
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.runners.verify import _answers, decode_elsewhere, trials_of, verify

SETTINGS = ("codec=jpeg", "rate=30,60", "metrics=psnr", "figures=false", "verify=0", "workers=0")


@pytest.fixture
def run(tmp_path: Path, here: Any, images: Any) -> Store:
    """A run of three images at two qualities, with Parquet and no parts."""
    assert here("run", f"data=folder:{images(3)}", *SETTINGS) == 0
    return Store(tmp_path / "results/runs/folder-pictures")


def a_row(store: Store) -> Row:
    return next(iter(store.read().rows.values()))


def findings(store: Store) -> str:
    return "\n".join(verify(store, 0).findings)


def test_nothing_to_find(run: Store, rdpbench: Any) -> None:
    done = rdpbench("verify", "folder-pictures", "--all", code=0)
    assert "6 bitstreams decoded in a fresh process to the recorded pixels" in done.stdout
    assert "6 bitstreams and 3 images checked, 0 findings" in done.stdout
    assert {row.verified for row in run.read().rows.values()} == {"fresh_process"}
    assert "verified" in rdpbench("verify", str(run.folder), "--sample", "2", "--seed", "5", code=0).stdout


def test_a_sample_is_noted_in_the_rows(run: Store, rdpbench: Any) -> None:
    rdpbench("verify", "folder-pictures", "--sample", "2", code=0)
    assert sorted(row.verified for row in run.read().rows.values()) == ["fresh_object"] * 4 + ["fresh_process"] * 2


def test_a_flipped_byte_in_a_bitstream(run: Store, rdpbench: Any, here: Any) -> None:
    row = a_row(run)
    path = run.bitstreams.path(row.bitstream_sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = rdpbench("verify", "folder-pictures", code=1)
    assert f"FOUND jpeg, quality {row.rate:g}, {row.image}: bitstream" in done.stdout
    assert row.bitstream_sha256 in done.stdout
    assert "1 findings" in done.stdout
    # A run that needs these bytes stops and says what to do; once they are deleted, it makes them again.
    more = ["run", f"data=folder:{original_path(run, row).parent}", *SETTINGS[:2], "metrics=psnr-pooled", *SETTINGS[3:]]
    stopped = rdpbench(*more, code=2)
    assert "changed after it was stored" in stopped.stderr
    assert "Delete it" in stopped.stderr
    path.unlink()
    assert here(*more) == 0
    assert verify(run, None).findings == ()


def test_a_missing_bitstream_is_found_and_made_again(run: Store, here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    row = a_row(run)
    run.bitstreams.path(row.bitstream_sha256).unlink()
    assert f"bitstream {run.bitstreams.path(row.bitstream_sha256)} is missing" in findings(run)
    assert here("run", f"data=folder:{original_path(run, row).parent}", *SETTINGS) == 0
    assert "1 tasks coded, 0 scored" in capsys.readouterr().out
    assert findings(run) == ""


def test_a_cut_bitstream_is_made_again(run: Store, here: Any) -> None:
    row = a_row(run)
    path = run.bitstreams.path(row.bitstream_sha256)
    path.write_bytes(path.read_bytes()[:-3])
    assert row.bitstream_sha256 in findings(run)
    assert here("run", f"data=folder:{original_path(run, row).parent}", *SETTINGS) == 0
    assert findings(run) == ""


def test_a_changed_image(run: Store, rdpbench: Any) -> None:
    row = a_row(run)
    path = original_path(run, row)
    pixels = np.array(pil.open(path))
    pixels[0, 0, 0] ^= 1
    pil.fromarray(pixels).save(path)
    done = rdpbench("verify", "folder-pictures", code=1)
    assert f"FOUND image {row.image} changed: {path} has pixels" in done.stdout
    # The changed image is another task: measured anew, and `show` does not mix the two.
    rerun = rdpbench("run", f"data=folder:{path.parent}", *SETTINGS[:-2], "verify=8", "workers=0", code=0)
    assert "2 tasks coded" in rerun.stdout
    assert "2 of them decoded again" in rerun.stdout
    shown = rdpbench("show", "folder-pictures", code=0).stdout
    assert "6 rows are of files or captions of a dataset that changed since, and are left out" in shown
    assert "│ 3 │" in shown


def test_an_image_saved_again_with_the_same_pixels_is_the_same(run: Store) -> None:
    path = original_path(run, a_row(run))
    pixels = np.array(pil.open(path))
    pil.fromarray(pixels).save(path, compress_level=1)
    assert findings(run) == ""


def test_a_missing_image(run: Store) -> None:
    path = original_path(run, a_row(run))
    path.unlink()
    assert f"no such image: {path}" in findings(run)


@pytest.mark.parametrize("name", ["rows", "scores"])
def test_any_flipped_byte_in_parquet(run: Store, name: str) -> None:
    """Parquet's own checksums cover its pages; a third of the bytes lie outside them."""
    path = run.folder / f"{name}.parquet"
    data, rng = path.read_bytes(), random.Random(3)
    for at in [0, 4, len(data) - 1, *rng.sample(range(len(data)), 60)]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=rf"{name}\.parquet was damaged"):
            run.read()
    assert f"{name}.parquet was damaged" in findings(run)


def test_damaged_parquet_through_the_command_line(run: Store, rdpbench: Any) -> None:
    path = run.folder / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    done = rdpbench("verify", "folder-pictures", code=1)
    assert "FOUND results/runs/folder-pictures/rows.parquet was damaged or cut" in done.stdout
    assert "was damaged or cut" in rdpbench("show", "folder-pictures", code=2).stderr


def test_deleted_parquet_is_found_and_made_again(run: Store, here: Any) -> None:
    before, folder = run.read(), original_path(run, a_row(run)).parent
    (run.folder / "scores.parquet").unlink()
    assert findings(run) == f"{run.folder}/scores.parquet is missing"
    assert here("run", f"data=folder:{folder}", *SETTINGS) == 0
    assert findings(run) == ""
    values = {key: (score.task_key, score.metric, score.value) for key, score in before.scores.items()}
    again = run.read().scores.items()
    assert {key: (score.task_key, score.metric, score.value) for key, score in again} == values


def part_of(run: Store) -> Path:
    """The run's rows as a closed part, as they are before they are compacted."""
    contents = run.read()
    shutil.rmtree(run.parts)
    for path in run.folder.glob("*parquet*"):
        path.unlink()
    writer = run.writer("20260101T000000-here-1")
    for row in contents.rows.values():
        scores = [vars(one) for one in contents.scores.values() if one.task_key == row.task_key]
        writer.append({"row": vars(row), "scores": scores})
    writer.close()
    return writer.path


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (lambda data: data[:-1], "ends inside a record"),
        (lambda data: data[: len(data) // 2], "ends inside a record"),
        (lambda data: b"".join(data.splitlines(keepends=True)[:-1]), "has no closing line"),
        (lambda data: b"".join(data.splitlines(keepends=True)[:3]), "has no closing line"),
        (lambda data: b"", "has no closing line"),
        (lambda data: data[:100] + data[101:], r"not a record|not what was written"),
    ],
    ids=["a byte", "half", "at the last line", "at the third line", "all", "a byte in the middle"],
)
def test_a_truncated_part(run: Store, cut: Callable[[bytes], bytes], told: str) -> None:
    path = part_of(run)
    assert findings(run) == ""
    path.write_bytes(cut(path.read_bytes()))
    (found,) = verify(run, 0).findings
    assert str(path) in found
    assert any(one in found for one in told.split("|"))


def test_a_truncated_part_is_completed_by_the_same_command(
    run: Store, here: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.read()
    folder = original_path(run, a_row(run)).parent
    path = part_of(run)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert here("run", f"data=folder:{folder}", *SETTINGS) == 0
    assert "3 tasks coded" in capsys.readouterr().out
    assert run.read().rows.keys() == before.rows.keys()
    assert findings(run) == ""


def test_a_codec_that_prints_does_not_disturb_verification(tmp_path: Path, rdpbench: Any, images: Any) -> None:
    (tmp_path / "loud.py").write_text(
        "import zlib, numpy as np\nfrom rdpbench.codecs.contract import Bitstream\n"
        "class Loud:\n"
        "    def encode(self, image, side):\n"
        "        return Bitstream.whole(zlib.compress(image.tobytes()) + bytes([image.shape[0], image.shape[1]]))\n"
        "    def decode(self, data):\n"
        "        print('decoding', end=' ', flush=True)\n"
        "        return np.frombuffer(zlib.decompress(data[:-2]), np.uint8).reshape(data[-2], data[-1], 3)\n"
    )
    # A module of the working folder must not shadow one of the standard library in the fresh process.
    (tmp_path / "shlex.py").write_text("raise RuntimeError('shadowed')\n")
    line = ["run", "codec=./loud.py:Loud", f"data=folder:{images(2)}", "metrics=psnr", "figures=false"]
    line += ["verify=8", "workers=0"]
    done = rdpbench(*line, code=0, env={"PYTHONSAFEPATH": "1"})
    assert "2 of them decoded again in a fresh process to the same pixels" in done.stdout
    assert "∞" in done.stdout


def test_sample_must_be_a_number(rdpbench: Any) -> None:
    assert "is not a whole number" in rdpbench("verify", "x", "--sample", "-1", code=2).stderr


def test_a_process_that_does_not_start_refutes_nothing(run: Store) -> None:
    """What ends before it has a bitstream, such as by a module that cannot be imported, is the machine's fault."""
    contents = run.read()
    row = next(iter(contents.rows.values()))
    [trial] = trials_of(row, ())
    # As a target it gets arguments that it does not take, and the process ends with exit code 1.
    with pytest.raises(WorkerError, match=r"did not start in 2 tries.*no bitstream is doubted for it"):
        list(_answers(os._exit, run, [trial], "cpu"))
    assert decode_elsewhere(run, [trial]) == {trial: row.reconstruction_sha256}
