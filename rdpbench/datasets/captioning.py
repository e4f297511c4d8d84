"""Captions by BLIP and BLIP-2 through `transformers`; each image is captioned once on this machine.

Models: BLIP-2 with OPT 2.7b, which PerCo (SD) uses, and BLIP large, an eighth of its size. Greedy decoding of at most
32 tokens (PerCo, section 4), in fp32, one image at a time: a batch sums in another order, and may change a word.

Departures from PerCo (SD):

- It says ``max_length=32``, which versions of `transformers` count differently: at most 32 new tokens here.
- Since version 5 `transformers` wants an image token, which this checkpoint's configuration does not name. The prompt
  is written out here, with the padding token in the places that the image's features take: the same numbers, and no
  embedding is added to the checkpoint.
- Pillow resizes the image, as `transformers` did when these models were published; its new default is torchvision.

Looked for, in this order: the folder of `CaptionSettings`; ``$RDPBENCH_WEIGHTS/NAME``; the Hugging Face cache, at the
pinned revision only. A folder of the user's own is known by the sha256 of its files, never taken for the pinned model.
Nothing is downloaded: these models have gigabytes, and ``hf download`` resumes. No code of a checkpoint runs, and only
safetensors are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from rdpbench.assets.hashes import content_sha256
from rdpbench.assets.load import load_pretrained
from rdpbench.assets.weights import Card, facts, hub_folder
from rdpbench.datasets.index import Entry, pixels_of
from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.image import Image
from rdpbench.lazy import torch
from rdpbench.needs import package_version
from rdpbench.networks.precision import exact
from rdpbench.paths import cache_folder
from rdpbench.progress import Report, show_progress

MAX_NEW_TOKENS = 32
CODE = 1
"""Raised when our own code changes what a model says: its captions are then made anew."""

# What `transformers` reads of a folder; a README or another framework's weights change no caption.
_READ = (
    *("config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json", "tokenizer*.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "model*.safetensors"),
    "model.safetensors.index.json",
)


@dataclass(frozen=True)
class ModelCard:
    """A captioning model: a repository of the Hugging Face hub at one commit, which pins all its files."""

    name: str
    """Of its caption source."""
    architecture: Literal["blip", "blip-2"]
    """``model_type`` in its ``config.json``."""
    card: Card
    """Of the whole repository; bytes are those of the safetensors, in two or three digits."""

    @property
    def repository(self) -> str:
        return urlsplit(self.card.source).path.strip("/")


def _model(name: str, architecture: Literal["blip", "blip-2"], page: str, commit: str, *told: Any) -> ModelCard:
    return ModelCard(name, architecture, Card(page.partition("/")[2], f"{HUB}/{page}", commit, "", *told))


HUB = "https://huggingface.co"
CARDS = {
    model.name: model
    for model in (
        _model(
            "blip",
            "blip",
            "Salesforce/blip-image-captioning-large",
            "353689b859fcf0523410b1806dace5fb46ecdf41",
            "BSD-3-Clause",
            "BLIP large (ViT-L), fine-tuned on COCO captions",
            None,
            1_880_000_000,
        ),
        _model(
            "blip2",
            "blip-2",
            "Salesforce/blip2-opt-2.7b-coco",
            "b73fb748045e06eb59d3cd69f1a35a182c19256b",
            "MIT, says the repository; the OPT language model inside has a licence of Meta's own",
            "BLIP-2 with OPT 2.7b, fine-tuned on COCO captions; the captions of PerCo (SD)",
            None,
            15_500_000_000,
        ),
    )
}
"""The models, by the name of their caption source.

>>> CARDS["blip2"].card.bytes
15500000000
"""


@dataclass(frozen=True)
class CaptionSettings:
    """How captions are made."""

    device: str = "cpu"
    """No part of what a caption is remembered under."""
    path: str | None = None
    """A folder of the user's own with a model of the same architecture."""


def captioner_identity(card: ModelCard, settings: CaptionSettings) -> str:
    """All that changes what the model says of given pixels, as JSON.

    >>> json.loads(captioner_identity(CARDS["blip2"], CaptionSettings()))["max_new_tokens"]
    32
    """
    record = {
        "model": card.repository if _own_folder(card, settings) is None else card.architecture,
        "revision": revision(card, settings),
        "decoding": "greedy",
        "max_new_tokens": MAX_NEW_TOKENS,
        "batch": 1,
        "dtype": "fp32",
        "resize": "pillow",
        "code": CODE,
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def label(card: ModelCard, settings: CaptionSettings) -> str:
    """How a row names the source: the bare name only for the pinned model.

    >>> label(CARDS["blip2"], CaptionSettings(device="cuda"))
    'blip2'
    """
    known = revision(card, settings)
    return f"{card.name}@{known.removeprefix('sha256:')[:12]}" if known.startswith("sha256:") else card.name


def revision(card: ModelCard, settings: CaptionSettings) -> str:
    """The pinned commit, whether the model is here or not, or ``sha256:`` over the files of the user's own folder."""
    folder = _own_folder(card, settings)
    if folder is None:
        return card.card.revision
    _check_files(card, folder)
    names = sorted({path.name for pattern in _READ for path in folder.glob(pattern)})
    listing = "".join(f"{content_sha256(folder / name)}  {name}\n" for name in names)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def locate(card: ModelCard, settings: CaptionSettings) -> Path:
    """The folder that `transformers` loads the model from; `MissingNeed` if it is not here, whole and undamaged."""
    own = _own_folder(card, settings)
    folder = own or hub_folder(card.repository, card.card.revision)
    if not folder.is_dir():
        raise MissingNeed(f"the captioning model {card.name!r} is not on this machine\n{how_to_get(card)}")
    _check_files(card, folder)
    if own is None:
        _check_blobs(card, folder)
    return folder


def how_to_get(card: ModelCard) -> str:
    """Lines that say what the model is, where it comes from, how large it is, its licence and what to type."""
    return "\n".join(
        [
            *facts(card.card),
            f'  type     hf download {card.repository} --revision {card.card.revision} --exclude "*.bin" "*.h5"',
            f"  or       put its files into a folder {card.card.id!r} and type: export RDPBENCH_WEIGHTS=/what/holds/it",
        ]
    )


def _own_folder(card: ModelCard, settings: CaptionSettings) -> Path | None:
    if settings.path is not None:
        folder = Path(settings.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"no such folder: {folder}")
        return folder
    given = os.environ.get("RDPBENCH_WEIGHTS")
    folder = Path(given or ".").expanduser() / card.card.id
    return folder if given and folder.is_dir() else None


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
    kind = _json(folder / "config.json", card).get("model_type")
    if kind != card.architecture:
        raise ConfigError(f"{folder} holds a model of type {kind!r}; captions={card.name} needs {card.architecture!r}")


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
        if re.fullmatch("[0-9a-f]{64}", name) and (sha256 := content_sha256(path)) != name:
            raise MissingNeed(
                f"{path.name} of {card.name!r} is damaged: sha256 {sha256}, expected {name}; remove {path.resolve()}\n"
                f"{how_to_get(card)}"
            )


def describe(
    card: ModelCard, entries: Sequence[Entry], protocol: str, settings: CaptionSettings, progress: Report | None = None
) -> dict[str, MadeCaption]:
    """A caption for each image, by pixel hash: from the cache, or made now.

    The model is loaded only if a caption is not cached. Each new one is cached at once, so that a run that was stopped
    goes on where it was.

    Args:
        card: the model.
        entries: images with the hash of the pixels that the codec, and the model, will see.
        protocol: what the pixels are read under.
        settings: how captions are made.
        progress: called with what is done and all, in place of a bar or lines.

    Raises:
        MissingNeed: the model is not here, and captions are missing.
        ImageError: an image has changed since it was indexed.
    """
    made_by = captioner_identity(card, settings)
    captions = cached_captions({entry.sha256 for entry in entries}, made_by)
    left = {entry.sha256: entry for entry in entries if entry.sha256 not in captions}  # equal pixels: once
    if not left:
        return captions
    folder, name = locate(card, settings), label(card, settings)
    if progress is None:
        print(f"captioning {len(left)} images with {name} on {settings.device}; captions are cached", file=sys.stderr)
    captioner = Captioner(card, folder, settings.device)
    versions = ", ".join(f"{name} {package_version(name)}" for name in ("torch", "transformers"))
    with show_progress("", len(left), "captions", progress) as shown:
        for done, (sha256, entry) in enumerate(left.items(), start=1):
            # Another process may have been at it since we looked.
            if not (cached := cached_captions([sha256], made_by)):
                text, seconds = captioner(pixels_of(entry, protocol))
                caption = MadeCaption(text, seconds, captioner.made_on, versions)
                cached = {sha256: cache_caption(sha256, made_by, caption)}
            captions |= cached
            shown(done, len(left))
    return captions


class Captioner:
    """A model loaded from a folder: an image to a text; `MissingNeed` for files that are damaged or do not fill it."""

    def __init__(self, card: ModelCard, folder: Path, device: str = "cpu") -> None:
        from transformers import (
            AutoTokenizer,
            Blip2ForConditionalGeneration,
            BlipForConditionalGeneration,
            BlipImageProcessorPil,
        )

        self._device = torch.device(device)
        try:
            # trust_remote_code is spelled out: left open, it asks on a terminal.
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self._prepare = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
            cls: Any = Blip2ForConditionalGeneration if card.architecture == "blip-2" else BlipForConditionalGeneration
            model = load_pretrained(cls, folder, torch.float32, leftovers=True, error=MissingNeed)
            self._model = model.to(self._device).eval()
        except Exception as error:  # damage trips parsers of JSON, tokenizers and safetensors in many ways
            raise MissingNeed(
                f"cannot load {card.name!r} from {folder}: {type(error).__name__}: {error}\n{how_to_get(card)}"
            ) from error
        self._prompt = _prompt(self._model) if card.architecture == "blip-2" else None
        self._warm = False

    @property
    def made_on(self) -> str:
        """Device and threads, for a row."""
        if self._device.type == "cuda":
            return f"cuda: {torch.cuda.get_device_name(self._device)}"
        threads = torch.get_num_threads()
        return f"{self._device.type}, {threads} thread{'s' if threads > 1 else ''}"

    def __call__(self, image: Image) -> tuple[str, float]:
        """The text of an image, uint8 (H, W, 3); and the seconds from pixels to text.

        The first call runs the model for two tokens before, off the clock: it is slower than all that follow.
        """
        if not self._warm:
            self._generate(image, 2)
            self._warm = True
        started = time.perf_counter()
        text = self._generate(image, MAX_NEW_TOKENS)
        return text, time.perf_counter() - started

    def _generate(self, image: Image, tokens: int) -> str:
        inputs = self._prepare(images=[image], input_data_format="channels_last", return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device)
        options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False, "num_beams": 1}
        start = 1  # BLIP writes its own first token
        if self._prompt is not None:
            ids = self._prompt.to(self._device)
            start = ids.shape[1]
            options |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.inference_mode(), exact():
            written = self._model.generate(pixel_values=pixels, **options)
        # Reading the text waits for the device.
        (text,) = self._tokenizer.batch_decode(written[:, start:].cpu(), skip_special_tokens=True)
        return str(text).strip()


def _prompt(model: Any) -> Any:
    """Ids (1, queries + 1): places for the image's features, which `generate` puts there, and the first token."""
    config = model.config
    if model.language_model.config.is_encoder_decoder:
        raise ConfigError("captions=blip2 needs a language model without an encoder, such as OPT")
    first = config.text_config.bos_token_id
    if config.image_token_index is None:
        # Any id but the first token's: its embedding is overwritten.
        padding = config.text_config.pad_token_id
        config.image_token_index = padding if padding not in (None, first) else int(first == 0)
    return torch.tensor([[config.image_token_index] * config.num_query_tokens + [first]])


_WAIT_S = 30
_TABLE = """CREATE TABLE IF NOT EXISTS captions (pixels TEXT, identity TEXT, text TEXT NOT NULL, seconds REAL NOT NULL,
made_on TEXT NOT NULL, versions TEXT NOT NULL, PRIMARY KEY (pixels, identity)) WITHOUT ROWID"""
_GET = "SELECT text, seconds, made_on, versions FROM captions WHERE pixels=? AND identity=?"


@dataclass(frozen=True)
class MadeCaption:
    """A caption, and how it was made."""

    text: str
    seconds: float
    """From pixels to text, without loading the model; of the run that made it."""
    made_on: str
    """Device and threads of that run."""
    versions: str
    """Of torch and transformers in that run."""


def cached_captions(pixels: Iterable[str], identity: str) -> dict[str, MadeCaption]:
    """The cached captions by pixel hash; ``identity`` is a `captioner_identity`."""
    captions: dict[str, MadeCaption] = {}
    try:
        with closing(_open_cache()) as cache:
            for sha256 in pixels:
                if row := cache.execute(_GET, (sha256, identity)).fetchone():
                    captions[sha256] = MadeCaption(*row)
    except (sqlite3.Error, OSError) as error:
        _warn(error)
    return captions


def cache_caption(pixels: str, identity: str, made: MadeCaption) -> MadeCaption:
    """Cache a caption, and return what the cache has: another process's, if it was first.

    So two runs at once never work with different captions or seconds.
    """
    try:
        with closing(_open_cache()) as cache:
            with cache:
                line = (pixels, identity, *astuple(made))
                cache.execute("INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?, ?, ?)", line)
            return MadeCaption(*cache.execute(_GET, (pixels, identity)).fetchone())
    except (sqlite3.Error, OSError) as error:
        _warn(error)
        return made


def cache_file() -> Path:
    """Where captions are cached."""
    return cache_folder() / "captions-1.sqlite"


def _open_cache() -> sqlite3.Connection:
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_WAIT_S)
    connection.execute(_TABLE)
    return connection


def _warn(error: Exception) -> None:
    # Without the cache captions are made anew. That takes hours for a large set, so it is said.
    print(f"captions cannot be cached in {cache_file()}: {error}", file=sys.stderr)
