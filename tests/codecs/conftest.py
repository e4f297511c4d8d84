"""What tests of codecs share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from rdpbench.image import Image

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
