"""A Stable Diffusion model in a folder of the user's, as ``diffusers`` saves it: one folder for each part.

Read are ``unet``, ``vae``, ``text_encoder`` (``text_encoder_2``) with ``config.json`` and tensors, and
``scheduler/scheduler_config.json``, which is obeyed whole (`rdpbench.codecs.diffusion.sampling`). The tokenizer is that
of CLIP and is not read; nothing of the folder is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdpbench.codecs.diffusion.bases import Layout
from rdpbench.errors import ConfigError, MissingNeed, UnknownName
from rdpbench.needs import Need
from rdpbench.weights import sha256_of

NAMES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
"""Of the tensors in a part's folder; the first that exists is read."""


def is_path(given: str) -> bool:
    """Does an option name a folder, rather than something known?

    >>> is_path("sd-2.1-base"), is_path("./mine")
    (False, True)
    """
    return "/" in given or given.startswith((".", "~"))


def check_known(option: str, given: str, known: Collection[str]) -> None:
    """Raise `UnknownName` unless ``given`` is known or a path."""
    if not is_path(given) and given not in known:
        raise UnknownName(option, given, known, f"or a folder of yours: codec.options.{option}=/where/it/is")


@dataclass(frozen=True)
class Place(Need):
    """The need for tensors in a part's folder."""

    folder: str

    def find(self) -> Path | None:
        """The file."""
        places = (Path(self.folder).expanduser() / name for name in NAMES)
        return next((place for place in places if place.is_file()), None)

    def missing(self) -> str | None:
        if self.find():
            return None
        return f"{self.folder} holds no tensors; it must hold one of {', '.join(NAMES)}"


def parts_of(folder: str) -> tuple[Place, ...]:
    """What a model's folder must hold."""
    names = ["unet", "vae", "text_encoder"]
    if (Path(folder).expanduser() / "text_encoder_2").is_dir():
        names.append("text_encoder_2")
    return tuple(Place(str(Path(folder) / name)) for name in names)


def read_config(folder: str) -> dict[str, Any]:
    """The ``config.json`` of a part.

    Raises:
        MissingNeed: it is not there.
        ConfigError: it is no JSON object.
    """
    config = _json(Path(folder).expanduser() / "config.json")
    return {key: value for key, value in config.items() if key != "_class_name"}


def layout_of(folder: str) -> Layout:
    """The sizes that the folder's configurations state.

    Raises:
        MissingNeed, ConfigError: a configuration is missing or damaged.
    """
    root = Path(folder).expanduser()
    texts = tuple(read_config(part.folder) for part in parts_of(folder)[2:])
    schedule = {"prediction_type": "epsilon", "_class_name": "", **_json(root / "scheduler" / "scheduler_config.json")}
    tokens = int(texts[0].get("vocab_size", 49408))
    # OpenCLIP's towers, which have another activation, are filled up with "!".
    pads = tuple(0 if one.get("hidden_act") == "gelu" else tokens - 1 for one in texts)
    unet, vae = read_config(str(root / "unet")), read_config(str(root / "vae"))
    return Layout(unet, vae, texts, pads, schedule, tokens)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingNeed(f"no such file: {path}; the folder must hold a model as diffusers saves it")
    try:
        loaded = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"{path} holds no JSON object")
    return {str(key): value for key, value in loaded.items() if key == "_class_name" or not str(key).startswith("_")}


def identity(places: Collection[Place]) -> str:
    """sha256 over the files that are read, for keys; ``missing`` where one is not there."""
    digests = []
    for place in places:
        path = place.find()
        if path is None:
            return "missing"
        digests.append(sha256_of(path))
        for name in ("config.json", "../scheduler/scheduler_config.json"):
            beside = path.parent / name
            digests.append(hashlib.sha256(beside.read_bytes() if beside.is_file() else b"").hexdigest())
    return f"sha256:{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"
