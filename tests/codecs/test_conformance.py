"""What every codec must do, shipped or not: one suite over all of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import registry
from rdpbench.cli import main
from rdpbench.codecs.contract import Side
from rdpbench.codecs.diffusion import fields
from rdpbench.config.bench import read_bench
from rdpbench.errors import BitstreamError
from rdpbench.image import Image
from rdpbench.runners.conformance import Check, conform, conform_metric, damaged

SLOW = pytest.mark.slow
QUICK = ["codec.options.steps=1", "codec.options.search_steps=2", "codec.options.candidates=1"]
SEARCH = ["codec.options.steps=1", "codec.options.search_steps=2"]
STEPS = ["codec.options.steps=1"]
SUITE: dict[str, Sequence[str]] = {
    **dict.fromkeys(("jpeg", "webp", "mini"), ()),
    **dict.fromkeys(("avif", "heif", "hevc", "jpeg2000", "jpegxl", "mozjpeg", "vvenc"), ()),
    **dict.fromkeys(("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018", "mbt2018-mean"), ()),
    **dict.fromkeys(("cheng2020-anchor", "cheng2020-attn", "elic", "lic-tcm", "msillm", "msillm-nogan"), ()),
    **dict.fromkeys(("hific", "taco"), ()),
    "pic": QUICK,
    "pics": QUICK,
    "pics-canny": QUICK,
    "textual-inversion": SEARCH,
    "perco": STEPS,
    "perco-image": STEPS,
    "sd-vae": (),
}
"""Each codec with the options that make it quick."""
USES = {"pics-canny": "pics-sketch"}
PROGRAMS = ("bpg", "hific-tfci", "vtm")
"""Their coder is a program of the user's: `test_programs` has them where it is here."""
FAST = ("jpeg", "webp")
"""The others are in the slow set."""


def card(words: Sequence[str], folder: Path) -> list[Check]:
    return list(conform(read_bench, words, folder))


def test_the_suite_names_every_codec() -> None:
    assert {*(USES.get(name, name) for name in SUITE), *PROGRAMS} == {*registry.BUILTIN["codec"]}


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=SLOW) for name in SUITE])
def test_a_codec_keeps_the_contract(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "check").mkdir()
    weights = (
        ["weights=random"] if hasattr(registry.load("codec", name.replace("canny", "sketch")), "weights_kind") else []
    )
    words = [f"codec={name}", *SUITE[name], *weights]
    checks = card(words, tmp_path / "check")
    assert not [check for check in checks if check.verdict == "FAILS"]
    assert [check.name for check in checks] == [
        *("images", "repeat", "batches", "elsewhere", "state", "threads", "damaged")
    ]
    assert "no CodecError" not in checks[-1].note


OWN = """
import os, zlib
from dataclasses import dataclass
import numpy as np
from rdpbench import Bitstream

@dataclass(frozen=True)
class Good:
    def encode(self, image, side):
        size = np.array(image.shape[:2], ">u2").tobytes()
        return Bitstream.whole(size + zlib.compress(image.tobytes()))
    def decode(self, data):
        size = tuple(np.frombuffer(data[:4], ">u2"))
        return np.frombuffer(zlib.decompress(data[4:]), "u1").reshape(*size, 3)

class NoOddSizes(Good):
    def encode(self, image, side):
        assert image.shape[0] % 2 == 0, "an even height"
        return Good.encode(self, image, side)

COUNT = []
class Counts(Good):
    def encode(self, image, side):
        COUNT.append(0)
        made = Good.encode(self, image, side)
        return Bitstream.whole(made.data[:4] + zlib.compress(image.tobytes(), len(COUNT) % 3))

LAST = {}
class Remembers(Good):
    def encode(self, image, side):
        LAST[0] = image.copy()
        return Bitstream.whole(b"x")
    def decode(self, data):
        return LAST[0]

class Dies(Good):
    def decode(self, data):
        try:
            return Good.decode(self, data)
        except Exception:
            os._exit(3)

class Fills(Good):
    def decode(self, data):
        try:
            return Good.decode(self, data)
        except Exception:
            return np.ones(1 << 33, np.uint8)
"""


@pytest.mark.parametrize(
    ("name", "fault", "note"),
    [
        ("Good", "", ""),
        ("NoOddSizes", "images", "odd (61 x 99): AssertionError: an even height"),
        ("Counts", "repeat", "other bytes"),
        ("Remembers", "elsewhere", "KeyError"),
        ("Dies", "damaged", "exit code 3; the bytes are rdpbench.runners.conformance.damaged(data, "),
        ("Fills", "damaged", "MemoryError"),
    ],
)
def test_a_codec_of_ones_own_that_breaks_it_is_told_where(name: str, fault: str, note: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "check").mkdir()
    checks = card([f"codec={tmp_path / 'own.py'}:{name}", "workers=1"], tmp_path / "check")
    failed = [check for check in checks if check.verdict == "FAILS"]
    assert [check.name for check in failed][:1] == ([fault] if fault else [])
    assert note in (failed[0].note if failed else "")


def test_the_command_prints_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(textwrap.dedent(OWN))
    assert main(["check", "codec=./own.py:Good"]) == 0
    assert "grade      decoded" in capsys.readouterr().out
    assert main(["check", "codec=./own.py:Remembers"]) == 1
    assert "grade      none" in capsys.readouterr().out
    assert main(["check"]) == 2
    assert "type rdpbench check codec=NAME" in capsys.readouterr().err
    assert main(["metric", "check"]) == 2
    assert "type: rdpbench check metrics=all" in capsys.readouterr().err


SETS = """
from pathlib import Path
from rdpbench import Sample
class Good:
    name, protocol, needs = "good", "as-is", ()
    asked = 0
    def samples(self):
        for name in "ab":
            yield Sample(name, Path(f"{name}.png").absolute(), references=("a square",))
    def __len__(self): return 2
class Short(Good):
    def __len__(self): return 7
class Turns(Good):
    def samples(self):
        Turns.asked += 1
        return iter(list(Good.samples(self))[:: 1 if Turns.asked % 2 else -1])
class Pinned(Good):
    def pinned(self): return "abc"
class Notes(Good):
    def notes(self): return "one text"
class Gone(Good):
    def samples(self): yield Sample("c", Path("c.png"))
class Away(Good):
    def missing(self): return "get it from the library"
class Odd(Good):
    def missing(self): return True
"""


@pytest.mark.parametrize(
    ("name", "fault", "told"),
    [
        ("Good", "", "of 2 images 2 have captions to score against"),
        ("Short", "length", "len() is 7, and samples() yields 2"),
        ("Turns", "order", "another order, the second time; sort what"),
        ("Pinned", "pinned", "pinned() of dataset 'good' gives 'abc'; it must give Pin(sha256, kind)"),
        ("Notes", "notes", "notes() gives 'one text'; give a tuple of texts"),
        ("Gone", "images", "no such image: c.png"),
        ("Away", "", "-      missing     get it from the library"),
        ("Odd", "missing", "missing() gives True; give None, or a text"),
    ],
)
def test_datasets_are_checked_too(
    name: str, fault: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sets.py").write_text(SETS)
    for number, stem in enumerate("ab"):
        pil.fromarray(np.full((8, 8, 3), number, np.uint8)).save(f"{stem}.png")
    assert main(["check", f"data=./sets.py:{name}"]) == bool(fault)
    printed = capsys.readouterr().out
    assert f"dataset {name}" in printed
    assert told in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("FAILS")] == [fault][: bool(fault)]


def test_several_codecs_have_a_card_each(capsys: Any) -> None:
    assert main(["check", "codec=jpeg,webp", "workers=1"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("codec ")] == [
        "codec jpeg",
        "codec webp",
    ]


METRIC = """
import numpy as np
from rdpbench.metrics.psnr import PSNR
class Wrong(PSNR):
    higher_is_better = False
class Writes(PSNR):
    def score(self, prepared, reconstruction):
        value = PSNR.score(self, prepared, reconstruction)
        reconstruction[:] = 0
        return value
class Draws(PSNR):
    def score(self, prepared, reconstruction):
        return PSNR.score(self, prepared, reconstruction) + np.random.rand()
"""


@pytest.mark.parametrize(
    ("name", "faults"),
    [("psnr", []), ("ms-ssim", []), ("Wrong", ["direction"]), ("Writes", ["repeat", "images"]), ("Draws", ["repeat"])],
)
def test_metrics_are_checked_too(name: str, faults: list[str], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(METRIC)
    checks = list(conform_metric(name if name.islower() else f"{tmp_path / 'own.py'}:{name}"))
    failed = [check.name for check in checks if check.verdict == "FAILS"]
    assert failed[: len(faults)] == faults
    assert bool(failed) == bool(faults)


# Damage

TINY: dict[str, Any] = {"weights": "random", "max_pixels": 1 << 18}
FOUR = {**TINY, "quality": 4}
PERCO: list[tuple[str, dict[str, Any]]] = [
    ("perco", {"nominal": 0.0313}),
    ("perco", {"nominal": 0.0507, "caption_code": "deflate"}),
    ("perco", {"nominal": 0.1250, "caption_code": "rank", "guidance": "text+spatial"}),
    ("perco", {"nominal": 0.0098, "quantised": False, "caption_code": "fixed"}),
    ("perco-image", {"nominal": 0.0024}),
]
ONE: dict[str, Any] = {"weights": "random", "steps": 1, "max_pixels": 1 << 16}
SEARCHED = {**ONE, "search_steps": 2}
PICS = {**SEARCHED, "candidates": 1}
ZOO = (
    *("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018", "mbt2018-mean"),
    *("cheng2020-anchor", "cheng2020-attn"),
)
CAPTION = "coloured squares"
BOTH = (False, True)


def attack(name: str, options: dict[str, Any], count: int, least: tuple[int, int], caption: str = "") -> Any:
    """Least images and errors among so many damaged bitstreams; 2,000 of them are slow."""
    marks = [SLOW] if count == 2000 else []
    words = ",".join(f"{key}={value}" for key, value in options.items() if key not in ("weights", "max_pixels"))
    return pytest.param(name, options, count, least, caption or None, marks=marks, id=f"{name}-{count}-{words}")


@pytest.mark.parametrize(
    ("name", "options", "count", "least", "caption"),
    [
        attack("elic", {**FOUR, "portable": True}, 60, (0, 31)),
        attack("hific", {**TINY, "portable": True}, 60, (0, 13)),
        attack("lic-tcm", {**FOUR, "portable": True, "max_pixels": 1 << 14}, 60, (0, 31)),
        attack("mini", TINY, 60, (0, 21)),
        attack("msillm", {**FOUR, "portable": True}, 60, (0, 16)),
        attack("taco", {**FOUR, "portable": True}, 60, (0, 31), CAPTION),
        *(attack("elic", {**FOUR, "portable": portable}, 2000, (0, 1001)) for portable in BOTH),
        *(
            attack("hific", {**TINY, "portable": portable, "target": target}, 2000, (0, 401))
            for portable in BOTH
            for target in (0.14, 0.3)
        ),
        *(attack("lic-tcm", {**FOUR, "portable": portable}, 2000, (0, 1001)) for portable in BOTH),
        *(
            attack("mini", {**TINY, "weights": weights, "portable": portable}, 2000, (0, 401))
            for portable in BOTH
            for weights in ("random", "official")
        ),
        *(attack("msillm", {**FOUR, "portable": portable}, 2000, (0, 501)) for portable in BOTH),
        *(attack("taco", {**FOUR, "portable": portable}, 2000, (0, 1001), CAPTION) for portable in BOTH),
        *(attack(name, {**FOUR, "portable": portable}, 2000, (0, 1001)) for name in ZOO for portable in BOTH),
        *(attack(name, {**ONE, **options}, 2000, (31, 31), "a red door in a white wall") for name, options in PERCO),
        *(attack("pic", {**PICS, "tokens": code}, 2000, (31, 31)) for code in fields.CODES),
        attack("pics", {**PICS, "sketch_lambda": 0.5}, 2000, (201, 201)),
        attack("pics", {**PICS, "sketch_lambda": 1.0, "portable": True}, 2000, (201, 201)),
        attack("pics-sketch", PICS, 2000, (201, 201)),
        attack("pics-sketch", {**PICS, "sketch_kind": "hed", "sketch_codec": "webp"}, 2000, (201, 201)),
        *(
            attack("textual-inversion", {**SEARCHED, "guide_codec": guide}, 2000, (31, 31))
            for guide in ("webp", "none")
        ),
    ],
)
def test_damage_within_bounded_time_and_memory(
    name: str, options: dict[str, Any], count: int, least: tuple[int, int], caption: str | None, attacked: Any
) -> None:
    outcome = attacked(name, options, count, caption=caption)
    assert outcome["images"] >= least[0]
    assert outcome["errors"] >= least[1]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("name", "options", "count", "least"),
    [
        *((name, {**ONE, "max_pixels": 1 << 14, **options}, 42, 3) for name, options in PERCO),
        *(("pic", {**PICS, "max_pixels": 1 << 14, "tokens": code}, 40, 0) for code in fields.CODES),
        ("pics", {**PICS, "max_pixels": 1 << 13}, 40, 4),
        ("pics-sketch", {**PICS, "max_pixels": 1 << 13}, 40, 4),
        ("textual-inversion", {**SEARCHED, "max_pixels": 1 << 14}, 60, 4),
    ],
)
def test_damage_to_what_paints_ends_in_an_error_or_an_image(
    name: str, options: dict[str, Any], count: int, least: int, photograph: Image
) -> None:
    codec = registry.load("codec", name)(**options)
    side = Side("a red door in a white wall" if name.startswith("perco") else None)
    data = codec.encode(np.ascontiguousarray(photograph[:64, :64]), side).data
    images, errors = 0, 0
    for number in range(count):
        try:
            assert codec.decode(damaged(data, number)).dtype == np.uint8
            images += 1
        except BitstreamError:
            errors += 1
    assert min(images, errors) >= least


def test_planning_imports_nothing_heavy() -> None:
    """Built, asked for their coder and their weights: what a plan needs of a codec."""
    program = """
    import sys
    from rdpbench import registry
    heavy = {"torch", "compressai", "transformers", "diffusers", "scipy", "pandas"}
    for name in registry.BUILTIN["codec"]:
        if name in ("bpg", "hific-tfci", "vtm"):  # whose coder is a program of the user's
            continue
        codec = registry.load("codec", name)()
        if hasattr(codec, "weight_needs"):
            codec.coder(), codec.weight_needs(), codec.weights_kind()
            registry.load("codec", name)(weights="random").coder()
        print(name, *sorted(heavy & sys.modules.keys()))
    """
    line = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [name for name in registry.BUILTIN["codec"] if name not in PROGRAMS]
