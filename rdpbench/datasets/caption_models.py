"""Which captioning models there are, where they lie on this machine, and what of them changes a caption.

Looked for, in this order: the folder ``caption_path``; ``$RDPBENCH_WEIGHTS/NAME``; the Hugging Face cache, at the
pinned revision only. A folder of the user's own is known by the sha256 of its files, never taken for the pinned model.
Nothing is downloaded here: these models have gigabytes, and ``hf download`` resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rdpbench.datasets.caption_cache import file_sha256
from rdpbench.errors import ConfigError, MissingNeed

MAX_NEW_TOKENS = 32
CODE = 1
"""Raised when our own code changes what a model says: its captions are then made anew."""

# What `transformers` reads of a folder; a README or another framework's weights change no caption.
_READ = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "model*.safetensors",
    "model.safetensors.index.json",
)


@dataclass(frozen=True)
class ModelCard:
    """What is known about a captioning model: a repository of several files at one revision."""

    name: str
    repository: str
    revision: str
    """A commit of the repository: it pins all files."""
    architecture: Literal["blip", "blip-2"]
    """``model_type`` in its ``config.json``."""
    bytes: int
    """Of the safetensors, as far as the repository's page tells: two or three digits."""
    licence: str
    note: str


CARDS = {
    card.name: card
    for card in (
        ModelCard(
            name="blip",
            repository="Salesforce/blip-image-captioning-large",
            revision="353689b859fcf0523410b1806dace5fb46ecdf41",
            architecture="blip",
            bytes=1_880_000_000,
            licence="BSD-3-Clause",
            note="BLIP large (ViT-L), fine-tuned on COCO captions",
        ),
        ModelCard(
            name="blip2",
            repository="Salesforce/blip2-opt-2.7b-coco",
            revision="b73fb748045e06eb59d3cd69f1a35a182c19256b",
            architecture="blip-2",
            bytes=15_500_000_000,
            licence="MIT, says the repository; the OPT language model inside has a licence of Meta's own",
            note="BLIP-2 with OPT 2.7b, fine-tuned on COCO captions; the captions of PerCo (SD)",
        ),
    )
}
"""The models, by the name of their caption source.

>>> CARDS["blip2"].bytes
15500000000
"""


@dataclass(frozen=True)
class Settings:
    """How captions are made. All but device and folder is part of what a caption is remembered under."""

    device: str = "cpu"
    dtype: Literal["fp32", "fp16"] = "fp32"
    """fp16 on a GPU only; another word for the same image is then possible."""
    batch: int = 1
    """Images at once; sums in another order, so it may change a word."""
    max_new_tokens: int = MAX_NEW_TOKENS
    path: str | None = None
    """A folder of the user's own with a model of the same architecture."""

    def __post_init__(self) -> None:
        if self.dtype not in ("fp32", "fp16"):
            raise ConfigError(f"captions are made in fp32 or fp16, not in {self.dtype!r}")
        if self.dtype == "fp16" and self.device == "cpu":
            raise ConfigError("fp16 captions need a GPU: write device=cuda, or leave the captions at fp32")
        if self.batch < 1 or self.max_new_tokens < 1:
            raise ConfigError(f"batch {self.batch} and max_new_tokens {self.max_new_tokens} must be at least 1")


def identity(card: ModelCard, settings: Settings) -> str:
    """All that changes what the model says of given pixels, as JSON.

    >>> json.loads(identity(CARDS["blip2"], Settings()))["max_new_tokens"]
    32
    """
    record = {
        "model": card.repository if _own_folder(card, settings) is None else card.architecture,
        "revision": revision(card, settings),
        "decoding": "greedy",
        "max_new_tokens": settings.max_new_tokens,
        "batch": settings.batch,
        "dtype": settings.dtype,
        "resize": "pillow",
        "code": CODE,
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def label(card: ModelCard, settings: Settings) -> str:
    """How a row names the source: the bare name only for the pinned model with the default settings.

    >>> label(CARDS["blip2"], Settings(device="cuda", dtype="fp16", batch=8))
    'blip2-fp16-batch8'
    """
    parts = [card.name]
    if settings.dtype != "fp32":
        parts.append(settings.dtype)
    if settings.batch != 1:
        parts.append(f"batch{settings.batch}")
    if settings.max_new_tokens != MAX_NEW_TOKENS:
        parts.append(f"{settings.max_new_tokens}tokens")
    known = revision(card, settings)
    own = f"@{known.removeprefix('sha256:')[:12]}" if known.startswith("sha256:") else ""
    return "-".join(parts) + own


def revision(card: ModelCard, settings: Settings) -> str:
    """The pinned commit, or ``sha256:`` over the files of the user's own folder.

    It does not need the pinned model to be here: captions that it made earlier are found without it.

    Raises:
        MissingNeed: the user's folder lacks files.
    """
    folder = _own_folder(card, settings)
    if folder is None:
        return card.revision
    _check_files(card, folder)
    names = sorted({path.name for pattern in _READ for path in folder.glob(pattern)})
    listing = "".join(f"{file_sha256(folder / name)}  {name}\n" for name in names)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def locate(card: ModelCard, settings: Settings) -> Path:
    """The folder that `transformers` loads the model from, its files complete.

    Raises:
        MissingNeed: it is nowhere, or files of it are missing or damaged; says what to get, from where and how.
    """
    own = _own_folder(card, settings)
    folder = own or _hub_folder(card)
    if not folder.is_dir():
        raise MissingNeed(f"the captioning model {card.name!r} is not on this machine\n{how_to_get(card)}")
    _check_files(card, folder)
    if own is None:
        _check_blobs(card, folder)
    return folder


def how_to_get(card: ModelCard) -> str:
    """Lines that say what the model is, where it comes from, how large it is, its licence and what to type.

    >>> print(how_to_get(CARDS["blip"]).splitlines()[2].strip())
    size     about 1.9 GB
    """
    short = card.repository.partition("/")[2]
    return "\n".join(
        [
            f"  what     {card.note}",
            f"  from     https://huggingface.co/{card.repository}/tree/{card.revision}",
            f"  size     about {card.bytes / 1e9:.1f} GB",
            f"  licence  {card.licence}",
            f'  type     hf download {card.repository} --revision {card.revision} --exclude "*.bin" "*.h5"',
            f"  or       put its files into a folder {short!r} and type: export RDPBENCH_WEIGHTS=/what/holds/it",
            "  or       name any folder with such a model: caption_path=/where/it/is",
        ]
    )


def _own_folder(card: ModelCard, settings: Settings) -> Path | None:
    if settings.path is not None:
        folder = Path(settings.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"no such folder: {folder}, named by caption_path={settings.path}")
        return folder
    given = os.environ.get("RDPBENCH_WEIGHTS")
    folder = Path(given or ".").expanduser() / card.repository.partition("/")[2]
    return folder if given and folder.is_dir() else None


def _hub_folder(card: ModelCard) -> Path:
    user_cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    home = Path(os.environ.get("HF_HOME", user_cache / "huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    return hub / f"models--{card.repository.replace('/', '--')}" / "snapshots" / card.revision


def _check_files(card: ModelCard, folder: Path) -> None:
    """A download that was cut leaves a folder without some files; `transformers` would say so at the very end."""
    wanted = ["config.json"]
    if not (folder / "processor_config.json").is_file():
        wanted.append("preprocessor_config.json")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        wanted.append("tokenizer.json")
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        wanted.append("model.safetensors")
    else:
        wanted += sorted(set(_json(index, card)["weight_map"].values()))
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        raise MissingNeed(f"{folder} lacks {', '.join(missing)} of {card.name!r}\n{how_to_get(card)}")
    found = _json(folder / "config.json", card).get("model_type")
    if found != card.architecture:
        raise ConfigError(f"{folder} holds a model of type {found!r}; captions={card.name} needs {card.architecture!r}")


def _json(path: Path, card: ModelCard) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except ValueError as error:
        raise MissingNeed(f"{path} is damaged: {error}\n{how_to_get(card)}") from error
    assert isinstance(loaded, dict), f"{path} holds no JSON object"
    return loaded


def _check_blobs(card: ModelCard, folder: Path) -> None:
    """The Hugging Face cache names large files by their sha256."""
    for path in sorted(folder.glob("*.safetensors")):
        name = path.resolve().name
        if re.fullmatch("[0-9a-f]{64}", name) and (found := file_sha256(path)) != name:
            raise MissingNeed(
                f"{path.name} of {card.name!r} is damaged: sha256 {found}, expected {name}; remove {path.resolve()}\n"
                f"{how_to_get(card)}"
            )
