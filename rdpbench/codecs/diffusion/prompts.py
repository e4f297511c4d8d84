"""What a U-Net sees of a prompt, and what a search for one takes: a CLIP network, and a state that survives a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import OwnFolder, Weights, read_tensors
from rdpbench.codecs.diffusion import bases, models
from rdpbench.codecs.diffusion.models import Models
from rdpbench.errors import CodecError, MetricError, StoreUnwritable
from rdpbench.networks.clip import B32, H14, L14, L14_336, SHAPES, Clip, build_clip, configuration
from rdpbench.paths import cache_folder, written_whole

if TYPE_CHECKING:
    from torch import Tensor

OnStep: TypeAlias = Callable[[int, float], None]
"""Called with the steps that are done, and how good the result is."""


@dataclass(frozen=True, eq=False)
class Condition:
    """What a U-Net sees of a prompt: the last states of its text tower, or of SDXL's two and a pooled prompt."""

    hidden: Tensor
    """``(1, 77, width)``."""
    pooled: Tensor | None = None
    """``(1, width)``, for SDXL."""


def condition(models: Models, ids: Sequence[int]) -> Condition:
    """The condition of token ids, which stand between both ends and are cut after 75; they do not pass through text."""
    import torch

    words = models.vocabulary
    states, pooled = [], None
    for tower, pad in zip(models.texts, models.layout.pads, strict=True):
        sequence = torch.tensor([words.sequence(ids, pad)], device=models.device)
        if not models.layout.pooled:
            return Condition(tower(sequence).last_hidden_state)
        output = tower(sequence, output_hidden_states=True)
        states.append(output.hidden_states[-2])
        pooled = getattr(output, "text_embeds", None)
    return Condition(torch.cat(states, dim=-1), pooled)


CLIPS = {card.id: card for card in (H14, L14, L14_336, B32)}
"""The published ones, by id; the first is that of Text+Sketch."""


def clip_source(clip: str) -> OwnFolder | Weights:
    """Where a CLIP network comes from: one of `CLIPS`, or a folder with ``config.json`` and tensors."""
    return OwnFolder(clip) if bases.is_path(clip) else Weights(CLIPS[clip])


def clip_network(clip: str, weights: str = "official", device: str = "cpu") -> Clip:
    """Both towers; the same object as long as the file is the same.

    Raises:
        MissingNeed: a file is not on this machine.
        CodecError: it does not hold this network.
    """
    return _load(clip, weights, device, models.mark(weights, clip_source(clip)))


@lru_cache(maxsize=1)
@models.trainable
def _load(clip: str, weights: str, device: str, file: str) -> Clip:  # noqa: ARG001 - another file is another network
    if weights != "official":
        tiny = {
            "projection_dim": models.CLIP_TEXT["projection_dim"],
            "text_config": {**models.CLIP_TEXT, **models.ends(models.TINY_TOKENS)},
            "vision_config": models.CLIP_VISION,
        }
        sizes = tiny if weights == "random" else configuration(SHAPES[CLIPS[clip].id])
        return Clip(models.draw_weights(clip_model(sizes), seed=5), None, device)
    if bases.is_path(clip):
        own = OwnFolder(clip)
        return Clip(load_strictly(lambda: clip_model(bases.read_config(clip)), own.read(), own.id), None, device)
    try:
        return Clip(build_clip(SHAPES[CLIPS[clip].id], read_tensors(CLIPS[clip])), None, device)
    except MetricError as error:
        raise CodecError(str(error)) from error


def clip_model(sizes: dict[str, Any]) -> Any:
    """``transformers.CLIPModel`` of a configuration."""
    from rdpbench.codecs.diffusion.library import transformers

    return transformers.CLIPModel(transformers.CLIPConfig(**sizes))


class Unfinished:
    """The state of a long search in the cache, under a hash of all that decides the result.

    A state that cannot be read counts as none, and a cache that cannot be written costs time, not the encode.
    """

    def __init__(self, decides: Mapping[str, object], every_s: float = 60, folder: str = "unfinished") -> None:
        """Take all that decides the result, as JSON can hold it, and the seconds between two writes."""
        key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
        self.path: Path = cache_folder() / folder / f"{key}.safetensors"
        self._every_s = every_s
        self._written = time.monotonic()

    def load(self) -> dict[str, Tensor]:
        """The state of a search that was killed; empty if there is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path)
        except (OSError, SafetensorError):
            return {}

    def due(self) -> bool:
        """Is it time to `save`?"""
        return time.monotonic() - self._written >= self._every_s

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Write the state, whole or not at all."""
        from safetensors.torch import save_file

        self._written = time.monotonic()
        with contextlib.suppress(StoreUnwritable), written_whole(self.path) as beside:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, beside)

    def done(self) -> None:
        """Delete the state."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class Searched(ABC):
    """Free vectors that an optimiser of Adam's kind moves, step by step."""

    tracked: ClassVar[tuple[str, ...]]
    """Attributes that later steps depend on, beside vectors and averages; each a tensor or a number."""
    free: Tensor
    optimiser: Any
    step: int = 0

    @abstractmethod
    def advance(self) -> None:
        """Take one step."""

    @abstractmethod
    def shown(self) -> float:
        """How good the result is so far."""

    def finish(self, steps: int, on_step: OnStep | None, unfinished: Unfinished | None) -> None:
        """Take all steps that are left, from where a search that was killed had come to."""
        self.restore(unfinished.load() if unfinished else {})
        while self.step < steps:
            self.advance()
            if on_step is not None:
                on_step(self.step, self.shown())
            if unfinished is not None and unfinished.due():
                unfinished.save(self.saved())
        if unfinished is not None:
            unfinished.done()

    def saved(self) -> dict[str, Tensor]:
        """All that later steps depend on."""
        import torch

        averages = {f"adam.{name}": average for name, average in self.optimiser.state[self.free].items()}
        tracked = {name: torch.as_tensor(getattr(self, name)) for name in ("step", *self.tracked)}
        return {"free": self.free, **tracked, **averages}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Go on where `saved` was; anything else than such a state is not looked at."""
        if any(name not in saved for name in ("free", "step", *self.tracked)):
            return
        if saved["free"].shape != self.free.shape or saved["free"].dtype != self.free.dtype:
            return
        self.free.data.copy_(saved["free"])
        for name in self.tracked:
            setattr(self, name, saved[name].to(self.free.device))
        averages = {name[5:]: average for name, average in saved.items() if name.startswith("adam.")}
        # The count of steps stays on the CPU, where the optimiser reads it.
        self.optimiser.state[self.free] = {
            name: average if name == "step" else average.to(self.free.device) for name, average in averages.items()
        }
        self.step = int(saved["step"])
