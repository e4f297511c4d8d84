"""What was set and sent can be read: rows and session files hold what ran, not only what was typed."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image as pil

import rdpbench
from rdpbench import registry
from rdpbench.codecs.classical import pillow
from rdpbench.codecs.classical.pillow import WebP
from rdpbench.codecs.contract import Bitstream, Side, coder_inside, configuration_of
from rdpbench.codecs.diffusion import pic, sampling, textual_inversion
from rdpbench.codecs.diffusion.bases import Vocabulary
from rdpbench.config.bench import read_bench
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.paths import available
from rdpbench.results.store.keys import axis_of, build, codec_identity, definition
from rdpbench.results.store.schema import AS_RAN, Row
from rdpbench.results.store.store import Store
from rdpbench.runners.task import configuration
from rdpbench.setting import CodecSetting

PAINTERS = {
    "pic": (16.0, ["codec.options.candidates=1", "codec.options.search_steps=3"]),
    "pics": (0.5, ["codec.options.candidates=2", "codec.options.search_steps=4"]),
    "pics-canny": (0.0, ["codec.options.candidates=1"]),
    "textual-inversion": (4.0, ["codec.options.search_steps=5"]),
    "perco": (0.125, []),
    "perco-image": (0.0019, ["codec.options.guidance=none"]),
}
"""Presets with a rate and what is typed beside."""


@pytest.fixture
def image() -> Any:
    noise = np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((8, 8, 1), np.uint8))


def setting_of(preset: str, *typed: str) -> CodecSetting:
    [(codec, _)] = read_bench([f"codec={preset}", "weights=random", *typed]).grid
    return codec


def as_it_ran(told: str) -> dict[str, Any]:
    """A row's configuration in one level."""
    options: dict[str, Any] = json.loads(told)
    ran = options.pop(AS_RAN, {})
    return {**options, **ran}


# What ran


@pytest.mark.parametrize("preset", PAINTERS)
def test_what_networks_ran_with_is_in_the_row(preset: str, image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked are the scheduler, the search and the words themselves; all networks are the real classes, narrow."""
    rate, typed = PAINTERS[preset]
    setting = setting_of(preset, *typed)
    stated = as_it_ran(configuration(setting, rate))
    schedulers: list[tuple[str, int, Any]] = []
    searches: list[Any] = []
    words: list[str] = []
    scheduler, invert, search, encode = sampling.scheduler, pic.invert, textual_inversion.search, Vocabulary.encode

    def set_up(models: Any, sampler: str, steps: int) -> Any:
        made = scheduler(models, sampler, steps)
        schedulers.append((sampler, steps, made))
        return made

    def inverted(space: Any, images: Any, seeds: Any, settings: Any, **more: Any) -> Any:
        searches.append(settings)
        return invert(space, images, seeds, settings, **more)

    def searched(objective: Any, width: int, settings: Any, **more: Any) -> Any:
        searches.append(settings)
        return search(objective, width, settings, **more)

    def read_words(self: Vocabulary, text: str) -> Any:
        words.append(text)
        return encode(self, text)

    monkeypatch.setattr(sampling, "scheduler", set_up)
    monkeypatch.setattr(pic, "invert", inverted)
    monkeypatch.setattr(textual_inversion, "search", searched)
    monkeypatch.setattr(Vocabulary, "encode", read_words)
    data = build(setting, rate).encode(image, Side(caption="a red door")).data
    if not preset.startswith("perco"):
        assert [stated["search_steps"]] == [one.steps for one in searches]
        assert [stated["learning_rate"]] == [one.learning_rate for one in searches]
    schedulers.clear()
    build(setting, rate).decode(data)
    [(sampler, steps, made)] = schedulers
    assert (stated["sampler"], stated["steps"]) == (sampler, steps)
    given = dict(stated["scheduler"])
    assert given.pop("class") == type(made).__name__
    assert given.items() <= dict(made.config).items()
    assert given["prediction_type"] == ("v_prediction" if preset.startswith("perco") else "epsilon")
    assert {word for word in words if word} <= {stated.get("negative"), stated.get("suffix"), "a red door"}
    assert stated["base"] == {"perco": "sd-2.1", "textu": "sd-1.5"}.get(preset[:5], "sd-2.1-base")


def test_what_depends_on_the_rate_or_the_weights_is_as_it_was() -> None:
    steps = [as_it_ran(configuration(setting_of("perco"), rate))["steps"] for rate in (0.0019, 0.0313, 0.0507, 0.125)]
    assert steps == [20, 20, 5, 5]
    assert as_it_ran(configuration(setting_of("perco", "codec.options.steps=7"), 0.125))["steps"] == 7
    full = setting_of("pic", "weights=random-full")
    assert [as_it_ran(configuration(one, 16))["search_steps"] for one in (setting_of("pic"), full)] == [30, 3000]


@pytest.mark.parametrize("name", [name for name in available("codec") if name != "own"])
def test_no_option_is_left_out_and_no_key_moves(name: str) -> None:
    [(setting, _)] = read_bench([f"codec={name}"]).grid
    axis = axis_of(setting)
    rate = (setting.rates or axis.points)[0] if axis else None
    try:
        keyed = json.loads(codec_identity(setting, rate))
    except MissingNeed as error:
        pytest.skip(f"a program is missing: {error}")
    stated, codec = as_it_ran(configuration(setting, rate)), build(setting, rate)
    assert is_dataclass(codec)
    assert stated.keys() >= {one.name for one in fields(codec)} - {axis.field if axis else "", "device"}
    assert "settings" not in stated
    # What is derived stands beside the options of the key or in their place, and nowhere in the key.
    assert keyed["options"].keys() <= {one.name for one in fields(codec)}
    derived = dict(codec.settings()) if hasattr(codec, "settings") else {}
    assert derived.items() <= stated.items()
    # So editions of a codec are told apart by what is in keys, and by nothing else.
    told = json.loads(configuration(setting, rate))
    told.pop(AS_RAN, None)
    assert told == keyed["options"]
    needs = codec.weight_needs() if hasattr(codec, "weight_needs") else ()
    published = [need for need in needs if hasattr(need, "card")]
    assert len(stated.get("weight_files", {})) == len({need.card.id for need in published})
    assert all(", revision " in source for source in stated.get("weight_files", {}).values())


LIBRARIES = {
    "jpeg2000": ("PIL.Image:Image.save", {"format", "comment", "quality_layers"}),
    "jpegxl": ("imagecodecs:jpegxl_encode", {"distance"}),
    "heif": ("pillow_heif:encode", {"quality", "subsampling"}),
    "webp": ("PIL.Image:Image.save", {"format", "quality"}),
}
"""What a codec calls, and which arguments are the format, the rate or an option under another name."""


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_is_given_is_in_the_row(name: str, image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    where, apart = LIBRARIES[name]
    module, _, path = where.partition(":")
    owner: Any = __import__(module, fromlist=["_"])
    *inner, function = path.split(".")
    for part in inner:
        owner = getattr(owner, part)
    call, given = getattr(owner, function), {}

    def seen(*arguments: Any, **options: Any) -> Any:
        given.update(options)
        return call(*arguments, **options)

    monkeypatch.setattr(owner, function, seen)
    codec: Any = registry.load("codec", name)()
    codec.encode(image, Side())
    stated = configuration_of(codec)
    flat = {
        key: value
        for option, value in given.items()
        for key, value in (value.items() if isinstance(value, dict) else [(option, value)])
    }
    assert len(flat) > len(apart)
    for option in flat.keys() - apart:
        assert stated[option] == flat[option], option


def test_mozjpeg_and_x265_state_what_they_are_given() -> None:
    stated = configuration_of(pillow.MozJPEG())
    assert stated.items() >= {**pillow.MOZJPEG_OPTIONS, "quant_table": 3}.items()
    hevc: Any = registry.load("codec", "hevc")()
    assert "ipratio=1" in configuration_of(hevc)["x265-params"]


# A codec inside another


@dataclass(frozen=True)
class Later(WebP):
    version: ClassVar[str] = "2"


def test_a_codec_inside_another_is_read_whole_and_tells_its_version() -> None:
    inside = setting_of("pics-canny", "codec.options.sketch_codec=webp")
    assert as_it_ran(configuration(inside, 0.0))["sketch"] == {"codec": "webp", "quality": 80, "method": 4}
    guided = setting_of("textual-inversion")
    assert as_it_ran(configuration(guided, 4.0))["guide"] == {"codec": "webp", "method": 4}
    fixed = setting_of("textual-inversion", "codec.options.guide_codec=jpeg", "codec.options.guide_rate=9")
    assert as_it_ran(configuration(fixed, 4.0))["guide"]["quality"] == 9
    # A new version of it writes other bytes: another key; the first ones keep theirs.
    assert "guide version" not in coder_inside("guide", WebP())
    assert coder_inside("guide", Later())["guide version"] == "2"


# What was said


CODEC = """
import zlib
from dataclasses import dataclass
import numpy as np
from rdpbench import Bitstream, Rate

@dataclass(frozen=True)
class Talks:
    step: int = 8
    batches = True
    rate = Rate("step", 1, 64, rises=False, points=(8,))

    def told(self, image):
        return {"prompt": f"image of {image[0, 0, 0]} at {self.step}", "cosine": "0.5", "command": "talk -q 1"}

    def settings(self):
        return {"levels": 256 // self.step}

    def encode(self, image, side):
        head = bytes([*image.shape[:2], self.step])
        return Bitstream.whole(head + zlib.compress((image // self.step).tobytes()), **self.told(image))

    def encode_batch(self, images, sides):
        return [self.encode(image, None) for image in images]

    def decode(self, data):
        return np.frombuffer(zlib.decompress(data[3:]), "u1").reshape(data[0], data[1], 3) * data[2]

class Number(Talks):
    def told(self, image):
        return {"cosine": 0.25}

class NotBits(Talks):
    def told(self, image):
        return {"legacy": "33 bytes"}

class Endless(Talks):
    def told(self, image):
        return {"prompt": "ab" * 5000, **{f"word {number}": "x" for number in range(200)}, "odd": "\\ud800<b>\\0"}

class BadSettings(Talks):
    def settings(self, what):
        return {}
"""


@pytest.fixture
def line(tmp_path: Path, images: Any) -> list[str]:
    (tmp_path / "own.py").write_text(CODEC)
    folder = images(2)
    pixels = np.asarray(pil.open(folder / "image01.png"))
    pil.fromarray(pixels // 4 + 90).save(folder / "image01.png")  # needs fewer bits
    return ["run", f"data=folder:{folder}", "figures=false", "workers=0", "metrics=psnr", "verify=0", "run=r"]


def rows_of(tmp_path: Path) -> list[Row]:
    return list(Store(tmp_path / "results/runs/r").read().rows.values())


@pytest.mark.parametrize("more", [[], ["batch=2"], ["bpp=4"]])
def test_what_a_codec_said_is_kept_alone_in_batches_and_in_searches(
    tmp_path: Path, here: Any, line: list[str], more: list[str]
) -> None:
    assert here(*line, "codec=./own.py:Talks", *more) == 0
    rows = rows_of(tmp_path)
    assert [row.status for row in rows] == ["ok", "ok"]
    # One point, though a search ended at two settings.
    points = rdpbench.read_results(tmp_path / "results/runs/r")
    assert points[points["metric"] == "psnr"]["n"].tolist() == [2]
    assert len({row.rate for row in rows}) == (2 if more == ["bpp=4"] else 1)
    for row in rows:
        step = int(row.rate or 0)
        told = json.loads(row.info)
        assert told.keys() == {"prompt", "cosine"}
        assert told["prompt"].endswith(f" at {step}")
        assert row.command == "talk -q 1"
        # Of a search it is what was found, not the lowest.
        assert as_it_ran(row.configuration) == {"levels": 256 // step}
    assert len({row.info for row in rows}) == 2
    frame = rdpbench.read_results(tmp_path / "results/runs/r", per="image")
    assert sorted(frame["info"]) == sorted(row.info for row in rows)


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ("Number", "Bitstream.info holds texts by name, but 'cosine' is 0.25, a float; write cosine=str(...)"),
        ("NotBits", "Bitstream.info['legacy'] must be JSON of bits by name, found '33 bytes'"),
    ],
)
def test_what_is_no_text_is_refused_with_what_to_type(
    tmp_path: Path, here: Any, line: list[str], codec: str, said: str
) -> None:
    assert here(*line, f"codec=./own.py:{codec}") == 1
    assert all(said in row.error for row in rows_of(tmp_path))
    with pytest.raises(CodecError, match="a NoneType"):
        Bitstream(b"a", {"file": 1}, {"prompt": None})  # type: ignore[dict-item]  # what is tried


def test_long_texts_are_cut_with_a_mark(tmp_path: Path, here: Any, line: list[str]) -> None:
    assert here(*line, "codec=./own.py:Endless") == 0
    for row in rows_of(tmp_path):
        told = json.loads(row.info)
        assert told["prompt"] == "ab" * 1000 + "… (cut here: 10,000 characters)"
        assert len(told) == 51
        assert told["…"] == "152 more are not kept"
        assert len(row.info) < 6000


def test_settings_that_cannot_be_asked_spoil_no_row(tmp_path: Path, here: Any, line: list[str]) -> None:
    assert here(*line, "codec=./own.py:BadSettings") == 0
    for row in rows_of(tmp_path):
        assert as_it_ran(row.configuration)["settings"].startswith("not known: TypeError: ")


# The record of a command


def record_of(tmp_path: Path) -> tuple[dict[str, Any], str]:
    [path] = (tmp_path / "results/runs/r/sessions").glob("*.json")
    return json.loads(path.read_text()), path.read_text()


def test_the_record_has_every_codec_set_and_metric(tmp_path: Path, here: Any, images: Any, line: list[str]) -> None:
    images(1, name="more")
    line[1] += f",folder:{tmp_path}/more"
    typed = ["codec=./own.py:Talks,perco-image", "weights=random", "points=2", "limit=1", "seed=3"]
    line[line.index("metrics=psnr")] = "metrics=psnr,ms-ssim"
    assert here(*line, *typed) == 1, "the images are too small for MS-SSIM"
    record, _ = record_of(tmp_path)
    talks, perco = record["codecs"].values()
    assert list(record["codecs"]) == ["Talks", "perco-image[weights=random]"]
    assert talks["use"] == f"{tmp_path}/own.py:Talks"
    assert talks["configuration"] == {"levels": 32}
    assert len(talks["coder"]["source_sha256"]) == 64
    assert talks["points"] == [{"step": 8.0}]
    # What all points share is there once, what a rate brings with it beside the rate.
    assert perco["configuration"]["base"] == "sd-2.1"
    assert perco["coder"]["weights"] == "random"
    assert [(one["nominal"], one["configuration"]["steps"]) for one in perco["points"]] == [(0.0019, 20), (0.125, 5)]
    rows = {(row.codec, row.rate): as_it_ran(row.configuration) for row in rows_of(tmp_path)}
    for point in perco["points"]:
        assert {**perco["configuration"], **point["configuration"]} == rows[
            "perco-image[weights=random]", point["nominal"]
        ]
    assert record["metrics"].keys() == {"psnr", "ms-ssim"}
    assert record["metrics"]["psnr"]["definition"] == definition("psnr")
    assert record["metrics"]["ms-ssim"].keys() >= {"version", "packages", "weights"}
    assert [(one["name"], one["images"]) for one in record["data"]] == [("folder-pictures", 2), ("folder-more", 1)]
    assert all(len(one["manifest"]) == 64 and one["protocol"] == "as-is" for one in record["data"])
    # The first composed configuration says what ran, too, not the defaults of what Hydra does not see.
    assert (record["config"]["metrics"]["names"], record["config"]["seed"]) == (["psnr", "ms-ssim"], [3])


def test_what_the_environment_holds_is_not_in_the_record(
    tmp_path: Path, here: Any, images: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = images(1, name="a-secret-place")
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.setenv("CHROMA", "4:4:4")
    line = ["run", "data=folder", "data.options.path=${oc.env:PLACE}/a-secret-place", "figures=false", "workers=0"]
    line += ["metrics=psnr", "verify=0", "run=r", "rate=50", "codec=jpeg", "codec.options.chroma=${oc.env:CHROMA}"]
    assert here(*line) == 0
    record, text = record_of(tmp_path)
    assert "4:4:4" not in text
    assert str(secret) not in text
    assert str(tmp_path) not in text
    [jpeg] = record["codecs"].values()
    assert jpeg["configuration"]["chroma"] == jpeg["options"]["chroma"] == "${oc.env:CHROMA}"
    assert record["config"]["codec"]["options"]["chroma"] == "${oc.env:CHROMA}"
    assert record["data"][0]["options"]["path"] == "${oc.env:PLACE}/a-secret-place"
    assert "data.options.path=${oc.env:PLACE}/a-secret-place" in record["command"]
    # Rows have what was typed, too, and the bitstream is that of what it stood for.
    [row] = rows_of(tmp_path)
    assert "4:4:4" not in json.dumps(vars(row))
    assert as_it_ran(row.configuration)["chroma"] == json.loads(row.options)["chroma"] == "${oc.env:CHROMA}"
    assert here(*line[:-1], "codec.options.chroma='4:4:4'", "run=literal") == 0
    [literal] = Store(tmp_path / "results/runs/literal").read().rows.values()
    assert (row.task_key, row.bitstream_sha256) == (literal.task_key, literal.bitstream_sha256)
    # So it is decoded with the value that the user types, and not with what the environment holds here.
    capsys.readouterr()
    assert here("verify", "r") == 1
    assert "type its value: codec.options.chroma=..." in capsys.readouterr().out
    assert here("verify", "r", "codec.options.chroma=4:4:4") == 0
