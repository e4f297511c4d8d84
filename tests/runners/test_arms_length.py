"""Codecs and metrics of other people are held at arm's length: what one does reaches no other, and no number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench.results.store.schema import Row, Score
from rdpbench.results.store.store import Store

CODECS = """
import ctypes, os, warnings, zlib
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from rdpbench import Bitstream, Rate

@dataclass(frozen=True)
class Honest:
    step: int = 16
    rate: ClassVar[Rate] = Rate("step", 1, 128, rises=False, points=(16, 64))
    batches: ClassVar[bool] = True

    def quantised(self, image):
        return image // self.step

    def encode(self, image, side):
        size = np.array(image.shape[:2], ">u2").tobytes()
        return Bitstream.whole(size + bytes([self.step]) + zlib.compress(self.quantised(image).tobytes()))

    def encode_batch(self, images, sides):
        return [self.encode(image, side) for image, side in zip(images, sides)]

    def decode(self, data):
        size = np.frombuffer(data[:4], ">u2")
        return np.frombuffer(zlib.decompress(data[5:]), "u1").reshape(*size, 3) * np.uint8(data[4])

class Torch(Honest):
    def quantised(self, image):
        import torch
        with warnings.catch_warnings(action="ignore"):  # torch says, once, that it does not mind the read-only flag
            pixels = torch.from_numpy(image)
        pixels.div_(self.step, rounding_mode="floor").mul_(self.step)
        return pixels.numpy() // self.step

class Flag(Honest):
    def quantised(self, image):
        image.flags.writeable = True
        image[:] = image // self.step * self.step
        return image // self.step

class Memory(Honest):
    def quantised(self, image):
        ctypes.memset(image.ctypes.data, 7, image.nbytes // 2)
        return image // self.step

class LastPixel(Honest):
    def quantised(self, image):
        image.flags.writeable = True
        image[-1, -1, -1] ^= 1
        return image // self.step

class Turned(Honest):
    def quantised(self, image):
        image.shape = image.shape[1], image.shape[0], 3
        return image // self.step

class OneBuffer(Honest):
    buffer = np.empty(0, "u1")

    def decode(self, data):
        image = super().decode(data)
        cls = type(self)
        if cls.buffer.shape != image.shape:
            cls.buffer = np.empty_like(image)
        cls.buffer[:] = image
        return cls.buffer

class Subclass(np.ndarray):
    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return np.zeros(self.shape)

class Lies(Honest):
    def decode(self, data):
        return super().decode(data).view(Subclass)

class SideFile(Honest):
    '''Sends a name; the pixels lie beside.'''
    def place(self, name):
        return os.path.join(os.path.dirname(__file__), "side", name)

    def encode(self, image, side):
        whole = super().encode(image, side).data
        name = "%08x" % zlib.crc32(whole)
        with open(self.place(name), "wb") as file:
            file.write(whole)
        return Bitstream.whole(name.encode())

    def decode(self, data):
        with open(self.place(data.decode()), "rb") as file:
            return super().decode(file.read())
"""
METRICS = """
import os, sys, warnings
import numpy as np

class Good:
    kind = "pair"; unit = ""; higher_is_better = True; perceptual = False; version = "1"
    def prepare(self, original): return original
    def score(self, prepared, reconstruction): return float(np.abs(prepared.astype(int) - reconstruction).mean())

class Raise(Good):
    def score(self, prepared, reconstruction): raise RuntimeError("bad")
class Leave(Good):
    def score(self, prepared, reconstruction): sys.exit(0)
class LeaveInPrepare(Good):
    def prepare(self, original): sys.exit("no more")
class LeaveAtOnce(Good):
    def __init__(self): sys.exit(0)
class Nan(Good):
    def score(self, prepared, reconstruction): return float("nan")
class MinusInf(Good):
    def score(self, prepared, reconstruction): return float("-inf")
class Digits(Good):
    def score(self, prepared, reconstruction): return "3.5"
class Text(Good):
    def score(self, prepared, reconstruction): return b"3.5"
class Nothing(Good):
    def score(self, prepared, reconstruction): return None
class Complex(Good):
    def score(self, prepared, reconstruction): return 1 + 2j
class NumpyComplex(Good):
    def score(self, prepared, reconstruction): return np.complex128(1 + 2j)
class Many(Good):
    def score(self, prepared, reconstruction): return np.ones(4)
class OneInArray(Good):
    def score(self, prepared, reconstruction): return np.ones(1)
class Big(Good):
    def score(self, prepared, reconstruction): return 10 ** 400
class Remarks(Good):
    def remarks(self, prepared): return None

class BlankReconstruction(Good):
    def score(self, prepared, reconstruction):
        reconstruction.flags.writeable = True
        reconstruction[:] = prepared
        return 1.0
class TorchReconstruction(Good):
    def score(self, prepared, reconstruction):
        import torch
        with warnings.catch_warnings(action="ignore"):
            torch.from_numpy(reconstruction).zero_()
        return 1.0
class BlankOriginal(Good):
    def prepare(self, original):
        original.flags.writeable = True
        original[:] = 0
        return original
class BlankPrepared(Good):
    def score(self, prepared, reconstruction):
        prepared.flags.writeable = True
        prepared[:] = reconstruction
        return 1.0

class Dies(Good):
    def score(self, prepared, reconstruction):
        os._exit(5)
class DiesInPrepare(Good):
    def prepare(self, original): os._exit(0)
"""
QUICK = ("figures=false", "verify=0")


@pytest.fixture
def run(tmp_path: Path, here: Any, images: Any) -> Callable[..., Store]:
    """Runs a command over three images with the codecs and metrics above; gives its store."""
    (tmp_path / "codecs.py").write_text(CODECS)
    (tmp_path / "odd.py").write_text(METRICS)
    folder = images(3)

    def command(name: str, *words: str, code: int | None = None) -> Store:
        given = [word for word in QUICK if word.partition("=")[0] not in " ".join(words)]
        # A metric of these that gives no value at all ends in 1, too; what each gives is what the tests look at.
        assert here("run", f"data=folder:{folder}", f"run={name}", *given, *words) in (
            (0, 1) if code is None else (code,)
        )
        return Store(tmp_path / "results/runs" / name)

    return command


def rows_of(store: Store, codec: str) -> list[Row]:
    return [row for row in store.read().rows.values() if row.codec == codec]


def values(store: Store, codec: str, metric: str = "psnr") -> dict[str, float | None]:
    contents = store.read()
    keys = {row.task_key: f"{row.image} {row.rate or row.target_bpp}" for row in rows_of(store, codec)}
    scores = (score for score in contents.scores.values() if score.task_key in keys)
    return {keys[score.task_key]: score.value for score in scores if score.metric.endswith(metric)}


# Codecs


@pytest.mark.parametrize("how", [("rate=16,64",), ("rate=16", "batch=3"), ("bpp=8", "search=image"), ("timing=true",)])
def test_codecs_that_write_into_their_input_are_named_and_harm_no_other(
    run: Callable[..., Store], how: tuple[str, ...]
) -> None:
    words = [*how, "metrics=psnr", "workers=0" if how != ("timing=true",) else "rate=16"]
    writers = ("Torch", "Flag", "Memory", "LastPixel", "Turned")
    both = run("both", "codec=" + ",".join(f"./codecs.py:{codec}" for codec in (*writers, "Honest")), *words, code=1)
    for codec in writers:
        assert {row.status for row in rows_of(both, codec)} == {"error"}, codec
        assert all("wrote into the image that it was given" in row.error for row in rows_of(both, codec)), codec
    alone = run("alone", "codec=./codecs.py:Honest", *words)
    assert values(both, "Honest") == values(alone, "Honest")
    assert all(value is not None and np.isfinite(value) for value in values(both, "Honest").values())


def test_one_buffer_for_all_decodes_is_not_one_image(run: Callable[..., Store]) -> None:
    store = run("buffer", "codec=./codecs.py:OneBuffer,./codecs.py:Honest", "rate=16", "batch=3", "workers=0")
    assert values(store, "OneBuffer") == values(store, "Honest")
    assert {row.batch for row in rows_of(store, "OneBuffer")} == {3}


def test_an_array_with_arithmetic_of_its_own_is_made_plain(run: Callable[..., Store]) -> None:
    store = run("lies", "codec=./codecs.py:Lies,./codecs.py:Honest", "rate=16", "workers=0", "metrics=psnr,ms-ssim")
    for metric in ("psnr", "ms-ssim"):
        assert values(store, "Lies", metric) == values(store, "Honest", metric)


def test_a_codec_with_a_refuted_bitstream_has_no_mean_until_all_others_are_verified(
    run: Callable[..., Store], tmp_path: Path, here: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of its three was found out; nobody knows of the other two."""
    side = tmp_path / "side"
    side.mkdir()
    words = ["codec=./codecs.py:SideFile,./codecs.py:Honest", "rate=16", "metrics=psnr", "workers=0"]
    store = run("side", *words)
    assert "SideFile" in table(here, capsys, "side")
    first = rows_of(store, "SideFile")[0]
    name = store.bitstreams.get(first.bitstream_sha256).decode()
    shutil.move(side / name, tmp_path / name)
    verify = "verify", "side", "codec=./codecs.py:SideFile", "codec=./codecs.py:Honest", "--all"
    assert here(*verify) == 1
    refuted = [row for row in rows_of(store, "SideFile") if row.verified == "refuted"]
    assert [row.task_key for row in refuted] == [first.task_key]
    shown = table(here, capsys, "side")
    assert "│ SideFile" not in shown
    assert "│ Honest" in shown
    assert "SideFile: 1 of its bitstreams did not give their pixels in a fresh process, so step 16 has no mean" in shown
    assert "rdpbench verify RUN --all codec=FILE:CLASS" in shown
    shutil.move(tmp_path / name, side / name)
    assert here(*verify) == 0
    assert "│ SideFile" in table(here, capsys, "side")
    assert {row.verified for row in store.read().rows.values()} == {"fresh_process"}


def test_what_the_run_itself_refutes_leaves_the_codec_without_a_mean(
    run: Callable[..., Store], tmp_path: Path, here: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from rdpbench.runners import execute

    side = tmp_path / "side"
    side.mkdir()
    elsewhere = execute.decode_elsewhere

    def cleaned(store: Store, asked: Any) -> Any:
        for path in side.iterdir():  # somebody tidies up before anything is decoded elsewhere
            path.unlink()
        return elsewhere(store, asked)

    monkeypatch.setattr(execute, "decode_elsewhere", cleaned)
    words = ["codec=./codecs.py:SideFile", "rate=16", "metrics=psnr", "workers=0"]
    store = run("side", *words, "verify=1", code=1)
    assert sorted(row.status for row in rows_of(store, "SideFile")) == ["error", "ok", "ok"]
    assert "│ SideFile" not in table(here, capsys, "side")
    # Coded again it is not believed either, before it was decoded elsewhere.
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    run("side", *words, "retry_failed=true")
    assert [row.status for row in rows_of(store, "SideFile")] == ["ok"] * 3
    assert "│ SideFile" not in table(here, capsys, "side")


def table(here: Any, capsys: pytest.CaptureFixture[str], name: str) -> str:
    capsys.readouterr()
    here("show", name)
    return " ".join(capsys.readouterr().out.split())


# Metrics


def test_what_nobody_holds_is_not_looked_at_again_and_what_is_held_is() -> None:
    from rdpbench.errors import MetricError
    from rdpbench.metrics.contract import Lender

    pixels = np.zeros((4, 4, 3), np.uint8)
    for keeps in (False, True):
        lender = Lender(pixels, "original")
        with lender.lending("prepare()", own=True) as image:
            view = image[1:] if keeps else None
        del image
        lender.release()
        if view is None:
            with lender.guarding("score()"):
                pass
            continue
        view.base.flags.writeable = True
        with pytest.raises(MetricError, match=r"score\(\) wrote into the original"), lender.guarding("score()"):
            view.base[0] = 1
    assert not pixels.any()


WRITERS = {
    "BlankReconstruction": "score() wrote into the reconstruction",
    "TorchReconstruction": "score() wrote into the reconstruction",
    "BlankOriginal": "prepare() wrote into the original",
    "BlankPrepared": "score() wrote into the original",
}
ODD = {
    "Raise": "RuntimeError: bad",
    "Leave": "SystemExit: 0",
    "LeaveInPrepare": "SystemExit: no more",
    "LeaveAtOnce": "SystemExit: 0",
    "Nan": "nan, which is no score",
    "MinusInf": "-inf, which is no score",
    "Digits": "'3.5' (str), which is no score",
    "Text": "(bytes), which is no score",
    "Nothing": "None (NoneType), which is no score",
    "Complex": "(complex), which is no score",
    "NumpyComplex": "(complex128), which is no score",
    "Many": "(ndarray), which is no score",
    "OneInArray": "(ndarray), which is no score",
    "Big": "larger than any float",
    "Remarks": "TypeError",
}


def test_what_a_metric_does_is_an_error_of_its_own_scores_alone(run: Callable[..., Store]) -> None:
    """Metrics of all kinds of faults between honest ones; each sees what the codec made."""
    names = [name for pair in zip(WRITERS, ["Good"] * len(WRITERS), strict=True) for name in pair] + [*ODD]
    metrics = ",".join(f"./odd.py:{name}" for name in dict.fromkeys(names))
    store = run("odd", "codec=jpeg", "rate=20,60", "workers=0", f"metrics={metrics},psnr,ms-ssim")
    alone = run("alone", "codec=jpeg", "rate=20,60", "workers=0", "metrics=psnr,ms-ssim,./odd.py:Good")
    assert {row.status for row in store.read().rows.values()} == {"ok"}
    for metric in ("psnr", "ms-ssim", "odd.py:Good"):
        assert values(store, "jpeg", metric) == values(alone, "jpeg", metric)
        assert len(values(store, "jpeg", metric)) == 6
    for name, told in {**WRITERS, **ODD}.items():
        scores = scores_of(store, name)
        assert len(scores) == 6
        assert all(score.value is None and told in score.error for score in scores), (name, scores[0].error)


def scores_of(store: Store, name: str) -> list[Score]:
    return [score for score in store.read().scores.values() if score.metric.endswith(f":{name}")]


def test_a_metric_that_ends_the_process_loses_its_own_value_and_nothing_else(run: Callable[..., Store]) -> None:
    metrics = "metrics=psnr,./odd.py:Dies,./odd.py:Good,./odd.py:DiesInPrepare,ms-ssim"
    store = run("dies", "codec=jpeg", "rate=20,60", "workers=2", metrics)
    alone = run("alone", "codec=jpeg", "rate=20,60", "workers=0", "metrics=psnr,ms-ssim,./odd.py:Good")
    assert [row.status for row in store.read().rows.values()] == ["ok"] * 6
    for metric in ("psnr", "ms-ssim", "odd.py:Good"):
        assert values(store, "jpeg", metric) == values(alone, "jpeg", metric)
    for name, how in (("Dies", "exit code 5"), ("DiesInPrepare", "exit code 0")):
        assert [score.error for score in scores_of(store, name)] == [f"the process died over this metric: {how}"] * 6


SETS = """
import os, sys, warnings
import numpy as np
from rdpbench.metrics.contract import Estimate

class Mean:
    id = "mine/mean"; version = "1"; needs = (); dim = 3; beside = (); uses_device = False
    def extract(self, images, **beside):
        return [image.reshape(-1, 3).mean(0, keepdims=True).astype("f4") for image in images]

class Distance:
    name = "mine/d"; kind = "set"; version = "1"; higher_is_better = False; unit = ""; perceptual = True
    source = ""; needs = (); features = Mean; minimum_images = 2
    def reduce(self, reference, distorted):
        return Estimate(float(((np.concatenate(list(reference)) - np.concatenate(list(distorted))) ** 2).mean()))

def odd(name, extract):
    features = type(name, (Mean,), {"id": name, "extract": extract})
    return type(name, (Distance,), {"name": name, "features": features})

BUFFER = np.empty((1, 3), "f4")

def buffered(self, images, **beside):
    BUFFER[:] = images[0].reshape(-1, 3).mean(0)
    return [BUFFER]

def blank(self, images, **beside):
    images[0].flags.writeable = True
    images[0][:] = 0
    return Mean().extract(images)

Buffered = odd("Buffered", buffered)
Blank = odd("Blank", blank)
Leaves = odd("Leaves", lambda self, images, **beside: sys.exit(0))
Words = odd("Words", lambda self, images, **beside: [np.array(["a"])])
NotFinite = odd("NotFinite", lambda self, images, **beside: [np.array([[np.nan]])])
Nothing = odd("Nothing", lambda self, images, **beside: [None])
Dies = odd("Dies", lambda self, images, **beside: os._exit(3))

class ReduceRaises(Distance):
    def reduce(self, reference, distorted): raise KeyError("bad")
class ReduceLeaves(Distance):
    def reduce(self, reference, distorted): sys.exit(0)
class ReduceFloat(Distance):
    def reduce(self, reference, distorted): return 3.0
class ReduceText(Distance):
    def reduce(self, reference, distorted): return Estimate("3.0")
class ReduceSpread(Distance):
    def reduce(self, reference, distorted): return Estimate(3.0, "wide")
class ReduceWrites(Distance):
    def reduce(self, reference, distorted):
        import torch
        with warnings.catch_warnings(action="ignore"):
            for array in distorted:
                torch.from_numpy(array).zero_()
        return Estimate(0.0)
"""


def test_features_and_distances_of_the_users_fail_alone(run: Callable[..., Store], tmp_path: Path) -> None:
    (tmp_path / "sets.py").write_text(SETS)
    odd = ["Blank", "Leaves", "Words", "NotFinite", "Nothing", "Dies"]
    reducing = ["ReduceRaises", "ReduceLeaves", "ReduceFloat", "ReduceText", "ReduceSpread"]
    names = [*odd, *reducing, "ReduceWrites", "Distance", "Buffered"]
    metrics = ",".join(f"./sets.py:{name}" for name in names)
    store = run("sets", "codec=jpeg", "rate=20", "workers=1", f"metrics={metrics},psnr")
    alone = run("alone", "codec=jpeg", "rate=20", "workers=1", "metrics=psnr,./sets.py:Distance")
    assert values(store, "jpeg") == values(alone, "jpeg")
    of_sets = {score.metric.rpartition(":")[2]: score for score in store.read().sets.values()}
    [honest] = alone.read().sets.values()
    assert of_sets["Distance"].value == of_sets["Buffered"].value == honest.value
    assert all(of_sets[name].value is None for name in (*odd, *reducing))
    told = {name: {score.error for score in scores_of(store, name)} for name in odd}
    assert "wrote into the image" in str(told["Blank"])
    assert "SystemExit" in str(told["Leaves"])
    assert "array of real numbers" in str(told["Words"])
    assert "not finite" in str(told["NotFinite"])
    assert "found NoneType" in str(told["Nothing"])
    assert "exit code 3" in str(told["Dies"])
    for name, why in (
        ("ReduceFloat", "must return an Estimate"),
        ("ReduceRaises", "KeyError"),
        ("ReduceText", "(str)"),
    ):
        assert why in of_sets[name].reason


def test_a_damaged_array_is_found_when_it_is_used(
    run: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sets.py").write_text(SETS)
    store = run("sets", "codec=jpeg", "rate=20", "workers=0", "metrics=psnr,./sets.py:Distance")
    [path] = (store.folder / "features").glob("*/*.bin")
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    # Another distance over the same arrays: its value would be of other numbers than were extracted.
    more = ["codec=jpeg", "rate=20", "workers=0", "metrics=psnr,./sets.py:ReduceWrites"]
    run("sets", *more, code=2)
    assert f"{path.name} changed after it was written" in capsys.readouterr().err
    assert [score.metric.rpartition(":")[2] for score in store.read().sets.values()] == ["Distance"]
    path.unlink()
    path.with_suffix(".jsonl").unlink()
    run("sets", *more)


def test_a_metric_of_ones_own_is_stored_with_its_whole_path(
    run: Callable[..., Store], tmp_path: Path, here: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    store = run("own", "codec=jpeg", "rate=20", "workers=0", "metrics=psnr,./odd.py:Good")
    assert {score.metric for score in store.read().scores.values()} == {"psnr", "odd.py:Good"}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    assert here("show", str(store.folder)) == 0
    assert "odd.py:Good ↑" in capsys.readouterr().out
