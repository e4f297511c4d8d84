"""Captions by BLIP and BLIP-2, the classes of `transformers`: each image once on this machine.

Models: BLIP-2 with OPT 2.7b, which PerCo (SD) uses, and BLIP large, an eighth of its size; see `caption_models`.
Greedy decoding of at most 32 tokens (PerCo, section 4), in fp32, one image at a time; fp16 on a GPU on request.

Departures from PerCo (SD):

- It says ``max_length=32``, which versions of `transformers` count differently: at most 32 new tokens here.
- Since version 5 `transformers` wants an image token, which this checkpoint's configuration does not name. The prompt
  is written out here, with the padding token in the places that the image's features take: the same numbers, and no
  embedding is added to the checkpoint.
- Pillow resizes the image, as `transformers` did when these models were published; its new default is torchvision.

No code of a checkpoint runs, and only safetensors are read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rdpbench.datasets import caption_cache
from rdpbench.datasets.caption_cache import Made
from rdpbench.datasets.caption_models import ModelCard, Settings, how_to_get, identity, label, locate
from rdpbench.datasets.index import Entry
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ConfigError, ImageError, MissingNeed
from rdpbench.image import Image, pixel_sha256
from rdpbench.needs import package_version

if TYPE_CHECKING:
    import torch

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the images that have a caption and the images in all, after each batch."""

_LINE_EVERY_S = 10.0


def describe(
    card: ModelCard, entries: Sequence[Entry], protocol: str, settings: Settings, progress: Progress | None = None
) -> dict[str, Made]:
    """A caption for each image, by pixel hash: remembered, or made now.

    The model is loaded only if a caption is not remembered. Each new one is stored at once, so that a run that was
    stopped goes on where it was.

    Args:
        card: the model.
        entries: images with the hash of the pixels that the codec will see; the model sees the same.
        protocol: what the pixels are read under.
        settings: how captions are made.
        progress: by default a line on stderr now and then.

    Raises:
        MissingNeed: the model is not here, and captions are missing.
        ImageError: an image has changed since it was indexed.
    """
    made_by = identity(card, settings)
    made = caption_cache.get({entry.sha256 for entry in entries}, made_by)
    left = {entry.sha256: entry for entry in entries if entry.sha256 not in made}  # equal pixels: once
    if not left:
        return made
    folder = locate(card, settings)
    told = progress or _tell(len(left), label(card, settings), settings.device)
    captioner = Captioner(card, folder, settings)
    waiting = iter(left.values())
    done = 0
    while batch := list(islice(waiting, settings.batch)):
        made |= _describe_batch(captioner, batch, protocol, made_by)
        done += len(batch)
        told(done, len(left))
    return made


def _describe_batch(captioner: Captioner, batch: Sequence[Entry], protocol: str, made_by: str) -> dict[str, Made]:
    # Another process may have been at it since we looked.
    here = caption_cache.get([entry.sha256 for entry in batch], made_by)
    if len(here) == len(batch):
        return here
    texts, seconds = captioner([_pixels(entry, protocol) for entry in batch])
    versions = ", ".join(f"{name} {package_version(name)}" for name in ("torch", "transformers"))
    return {
        entry.sha256: caption_cache.put(
            entry.sha256, made_by, Made(text, seconds / len(batch), captioner.made_on, versions)
        )
        for entry, text in zip(batch, texts, strict=True)
    }


def _pixels(entry: Entry, protocol: str) -> Image:
    pixels = load_under(protocol, entry.sample.path).pixels
    if pixel_sha256(pixels) != entry.sha256:
        raise ImageError(f"{entry.sample.path} has changed since this command began")
    return pixels


class Captioner:
    """A loaded model: images to texts.

    Args:
        card: which architecture it is.
        folder: its files.
        settings: how captions are made.

    Raises:
        MissingNeed: files that are damaged, or that do not fill the model.
    """

    def __init__(self, card: ModelCard, folder: Path, settings: Settings) -> None:
        import torch
        from transformers import AutoTokenizer, BlipImageProcessorPil

        self._settings = settings
        self._device = torch.device(settings.device)
        try:
            # trust_remote_code is spelled out: left open, it asks on a terminal.
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self._prepare = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
            self._model = _load_model(card, folder, settings).to(self._device).eval()
        except MissingNeed:
            raise
        except Exception as error:  # damage trips parsers of JSON, tokenizers and safetensors in many ways
            raise MissingNeed(
                f"cannot load {card.name!r} from {folder}: {type(error).__name__}: {error}\n{how_to_get(card)}"
            ) from error
        self._prompt = _prompt(self._model) if card.architecture == "blip-2" else None
        self._warm = False

    @property
    def made_on(self) -> str:
        """Device and threads, for a row."""
        import torch

        if self._device.type == "cuda":
            return f"cuda: {torch.cuda.get_device_name(self._device)}"
        threads = torch.get_num_threads()
        return f"{self._device.type}, {threads} thread{'s' if threads > 1 else ''}"

    def __call__(self, images: Sequence[Image]) -> tuple[list[str], float]:
        """A text for each image, uint8 (H, W, 3) of any sizes; and the seconds from pixels to texts.

        The first call runs the model for two tokens before, off the clock: it is slower than all that follow.
        """
        if not self._warm:
            self._generate(images, 2)
            self._warm = True
        started = time.perf_counter()
        texts = self._generate(images, self._settings.max_new_tokens)
        return texts, time.perf_counter() - started

    def _generate(self, images: Sequence[Image], tokens: int) -> list[str]:
        import torch

        inputs = self._prepare(images=list(images), input_data_format="channels_last", return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device, _float(self._settings))
        options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False, "num_beams": 1}
        start = 1  # BLIP writes its own first token
        if self._prompt is not None:
            ids = self._prompt.to(self._device).repeat(len(images), 1)
            start = ids.shape[1]
            options |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        # TF32 would make a GPU's fp32 another fp32; the choice among convolutions must not be by stopwatch.
        exact = torch.backends.cudnn.flags(allow_tf32=False, benchmark=False, deterministic=True)
        with torch.inference_mode(), exact:
            written = self._model.generate(pixel_values=pixels, **options)
        # Reading the texts waits for the device.
        texts = self._tokenizer.batch_decode(written[:, start:].cpu(), skip_special_tokens=True)
        return [text.strip() for text in texts]


def _load_model(card: ModelCard, folder: Path, settings: Settings) -> Any:
    from transformers import Blip2ForConditionalGeneration, BlipForConditionalGeneration

    cls: Any = Blip2ForConditionalGeneration if card.architecture == "blip-2" else BlipForConditionalGeneration
    model, report = cls.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        dtype=_float(settings),
        output_loading_info=True,
    )
    # Tensors that the files lack would be random numbers, and the captions too.
    if lacking := [*report["missing_keys"], *report["mismatched_keys"]]:
        raise MissingNeed(
            f"{folder} does not fill {cls.__name__}: {len(lacking)} tensors are missing or of another shape, such as "
            f"{lacking[0]}\n{how_to_get(card)}"
        )
    return model


def _float(settings: Settings) -> torch.dtype:
    import torch

    return torch.float16 if settings.dtype == "fp16" else torch.float32


def _prompt(model: Any) -> Any:
    """Ids (1, queries + 1): places for the image's features, which `generate` puts there, and the first token."""
    import torch

    config = model.config
    if model.language_model.config.is_encoder_decoder:
        raise ConfigError("captions=blip2 needs a language model without an encoder, such as OPT")
    first = config.text_config.bos_token_id
    if config.image_token_index is None:
        # Any id but the first token's: its embedding is overwritten.
        padding = config.text_config.pad_token_id
        config.image_token_index = padding if padding not in (None, first) else int(first == 0)
    return torch.tensor([[config.image_token_index] * config.num_query_tokens + [first]])


def _tell(total: int, name: str, device: str) -> Progress:
    print(f"captioning {total} images with {name} on {device}; captions are remembered", file=sys.stderr, flush=True)
    started = shown = time.monotonic()

    def progress(done: int, whole: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _LINE_EVERY_S or done == whole:
            shown = now
            left = (now - started) / done * (whole - done)
            print(f"  {done}/{whole} captions, about {left:.0f} s left", file=sys.stderr, flush=True)

    return progress
