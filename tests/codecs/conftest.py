"""What tests of codecs share."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.image import Image
from rdpbench.runners.server import start_server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Made = dict[str, tuple[str, dict[str, Any], bytes]]
"""Bitstreams by name, each with the ``module:Class`` that made it and its options."""


class Attack(Protocol):
    """How many mutations gave ``images`` and ``errors``, and ``longest_s``, by the codec's name and its options."""

    def __call__(
        self, name: str, options: dict[str, Any], count: int = ..., megabytes: int = ..., caption: str | None = ...
    ) -> dict[str, float]: ...


@pytest.fixture(scope="session")
def photograph() -> Image:
    """192 x 256 pixels of a photograph."""
    from skimage import data

    picture: Image = data.astronaut()[20:212, 100:356]
    return np.ascontiguousarray(picture)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and a cache of the test's own."""
    import torch

    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shapes_of() -> Callable[..., dict[str, list[int]]]:
    """Names and shapes of a network's tensors. Nothing is allocated: tensors without storage."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    def shapes(build: Callable[[], Any]) -> dict[str, list[int]]:
        with FakeTensorMode():
            return {key: list(one.shape) for key, one in build().state_dict().items()}

    return shapes


LIBRARIES = (
    "rdpbench.codecs.learned.library",
    "rdpbench.codecs.diffusion.library",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.controlnets.controlnet",
    "diffusers.models.unets.unet_2d_condition",
    "transformers.models.clip.modeling_clip",
)
"""What networks are made of."""


@pytest.fixture(scope="session")
def told(forks: Any) -> Callable[..., str]:
    """What a Python program prints that has to end well."""

    def run(*words: str, **environment: str) -> str:
        server = forks(*LIBRARIES)
        path = server.environment["PYTHONPATH"]
        done = server.run(words, ROOT, {**os.environ, "PYTHONPATH": path, **environment}, timeout=900)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return run


@pytest.fixture
def decoded_elsewhere(tmp_path: Path, told: Callable[..., str]) -> Callable[[Made], dict[str, str]]:
    """Pixel hashes by name, from a fresh process that has nothing but classes, options and bytes."""

    def decode(made: Made) -> dict[str, str]:
        files = []
        for name, (where, options, data) in made.items():
            file = tmp_path / f"{name}.bin"
            file.write_bytes(data)
            file.with_suffix(".json").write_text(json.dumps([where, options]))
            files.append(str(file))
        lines = told("-W", "error", str(HERE / "decode_elsewhere.py"), "1", *files)
        return dict(line.split() for line in lines.splitlines())

    return decode


@pytest.fixture(scope="session")
def attacked(told: Callable[..., str]) -> Attack:
    """Decodes damaged bitstreams of a codec with bounded memory: each ends soon, in an image or a clean error."""

    def attack(
        name: str, options: dict[str, Any], count: int = 2000, megabytes: int = 1024, caption: str | None = None
    ) -> dict[str, float]:
        arguments = [name, json.dumps(options), str(count), str(megabytes), *([] if caption is None else [caption])]
        outcome: dict[str, float] = json.loads(told(str(HERE / "hostile.py"), *arguments, OMP_NUM_THREADS="1"))
        assert outcome["images"] + outcome["errors"] == count
        assert outcome["longest_s"] < 5
        return outcome

    return attack


# Codecs in an environment of their own

CLASS = """
import os, sys, zlib
import numpy as np
from rdpbench import Bitstream, Rate

print("loading \\xff", flush=True)

class Mine:
    rate = Rate("step", 1, 64, rises=False, points=(8, 32))

    def __init__(self, step=8, note=""):
        self.step, self.note = step, note
        print("built")

    def encode(self, image, side):
        {encode}
        head = np.array(image.shape[:2], ">u2").tobytes()
        return Bitstream.whole(head + zlib.compress((image // self.step).tobytes()))

    def decode(self, data):
        {decode}
        height, width = np.frombuffer(data[:2], ">u2")[0], np.frombuffer(data[2:4], ">u2")[0]
        return np.frombuffer(zlib.decompress(data[4:]), "u1").reshape(height, width, 3) * np.uint8(self.step)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a space in its name, two images of two sizes, and the command's results."""
    place = tmp_path / "a place"
    (place / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("first", (21, 34, 3)), ("second", (16, 9, 3))):
        coarse = rng.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), dtype=np.uint8)
        pil.fromarray(coarse.repeat(4, 0).repeat(4, 1)[: size[0], : size[1]]).save(place / "images" / f"{name}.png")
    start_server()  # its socket stays where it is
    with tempfile.TemporaryDirectory() as temporary:  # of a short name: sockets of worker processes lie in it
        monkeypatch.setenv("TMPDIR", temporary)
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.chdir(place)
        yield place


@pytest.fixture
def own_class() -> Callable[..., None]:
    """Writes mine.py, with lines of a test at the head of its two methods."""

    def write(folder: Path, encode: str = "pass", decode: str = "pass") -> None:
        (folder / "mine.py").write_text(CLASS.replace("{encode}", encode).replace("{decode}", decode))

    return write


ENCODE = """
import pathlib, shutil, sys, zlib
from PIL import Image
import numpy as np
images, streams, rate = sys.argv[1:4]
print("weights loaded")
for path in sorted(pathlib.Path(images).iterdir()):
    image = np.asarray(Image.open(path))
    data = np.array(image.shape[:2], ">u2").tobytes() + zlib.compress((image // int(float(rate))).tobytes())
    {fault}
    (pathlib.Path(streams) / (path.stem + ".bin")).write_bytes(data)
"""
DECODE = """
import pathlib, sys, zlib
from PIL import Image
import numpy as np
streams, pictures, rate = sys.argv[1:4]
for path in sorted(pathlib.Path(streams).iterdir()):
    data = path.read_bytes()
    size = tuple(np.frombuffer(data[:4], ">u2"))
    image = np.frombuffer(zlib.decompress(data[4:]), "u1").reshape(*size, 3) * np.uint8(float(rate))
    {fault}
    Image.fromarray(image).save(pathlib.Path(pictures) / (path.stem + ".png"))
print("decoded in 0.25 s")
"""
DECLARED = """
name: two-scripts
rate_field: step
rates: [8, 32]
rises: false
python: {python}
encode: ["{{python}}", enc.py, "{{images}}", "{{streams}}", "{{rate}}"]
decode: ["{{python}}", dec.py, "{{streams}}", "{{reconstructions}}", "{{rate}}"]
time: "in (\\\\S+) s"
timeout_s: 20
"""


@pytest.fixture
def scripts(folder: Path) -> Callable[..., str]:
    def write(encoder: str = "pass", decoder: str = "pass", **changes: str) -> str:
        (folder / "enc.py").write_text(ENCODE.replace("{fault}", encoder))
        (folder / "dec.py").write_text(DECODE.replace("{fault}", decoder))
        text = DECLARED.format(python=sys.executable)
        for key, value in changes.items():
            kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
            text = "\n".join([*kept, f"{key}: {value}"] if value else kept)
        (folder / "two.yaml").write_text(text)
        return "codec=./two.yaml"

    return write
