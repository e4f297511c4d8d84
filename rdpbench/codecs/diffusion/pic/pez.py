"""Prompt inversion: the token ids whose CLIP text embedding is nearest to an image's. PEZ, hard prompts made easy.

Wen et al., "Hard Prompts Made Easy: Gradient-Based Discrete Optimization for Prompt Tuning and Discovery", NeurIPS
2023. As Text+Sketch uses it: 16 tokens, 3000 steps, OpenCLIP ViT-H/14.

One step, for free vectors ``p`` (one for each token) that start at random words:

1. project each ``p`` to the word with the largest cosine; these are the ids that would be sent;
2. put the words between both ends, read the text embedding at the end, take its cosine with the image's embedding;
3. take the gradient of ``1 - cosine`` *at the projected words*, and let AdamW apply it *to the free vectors*.

The ids of the step with the largest cosine win. An image enters through CLIP's centre square: what lies beside it, the
left and right thirds of a landscape, has no say.

Where this departs from the official code, and why:

- Seeded: each image has a generator of its own. The official seeding function is never called.
- Many images at once: their losses are added, so that each one's gradient is what it would be alone. Sums in another
  order can end in other words; the ids are those of the batch they were made in.
- Ids are what is found, not text: most do not survive a trip through text (`rdpbench.codecs.diffusion.bases`).
- What follows the end token is left out: a causal network does not see it. 18 places instead of 77.
- One pass per step gives both the score and the gradient; the official code makes two with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rdpbench.codecs.diffusion.sampling import Unfinished
from rdpbench.errors import CodecError
from rdpbench.image import Image
from rdpbench.networks.clip import Clip, unit

if TYPE_CHECKING:
    from torch import Tensor

OnStep: TypeAlias = Callable[[int, float], None]
"""Called with the steps that are done and the mean over images of the best cosine so far."""


@dataclass(frozen=True)
class Search:
    """How the search runs; the defaults are the official ones."""

    length: int = 16
    """Tokens of the prompt."""
    steps: int = 3000
    learning_rate: float = 0.1
    weight_decay: float = 0.1


@dataclass(frozen=True)
class Found:
    """A prompt."""

    ids: tuple[int, ...]
    cosine: float
    """With the image, in CLIP's space."""


class PromptSpace:
    """The text side of a CLIP network: prompts as vectors, words near to vectors, embeddings of prompts."""

    def __init__(self, clip: Clip) -> None:
        """Take both towers; the size of the vocabulary is that of the embedding, and its last two ids are the ends."""
        self.clip = clip
        self.words: Tensor = clip.model.text_model.get_input_embeddings().weight
        self.begin, self.end = len(self.words) - 2, len(self.words) - 1
        self._directions = _unit(self.words)

    @property
    def longest(self) -> int:
        """Tokens that fit between the ends."""
        return int(self.clip.model.text_model.config.max_position_embeddings) - 2

    def nearest(self, vectors: Tensor) -> Tensor:
        """Ids ``(B, L)`` of the words with the largest cosine to vectors ``(B, L, D)``."""
        return (_unit(vectors) @ self._directions.T).argmax(dim=-1)

    def embed(self, vectors: Tensor) -> Tensor:
        """Text embeddings ``(B, dim)`` of length 1 of prompts given as vectors ``(B, L, D)`` between the ends."""
        import torch

        count, length, _ = vectors.shape
        ends = self.words[[self.begin, self.end]].expand(count, -1, -1)
        whole = torch.cat([ends[:, :1], vectors, ends[:, 1:]], dim=1)
        # The class takes ids alone; its embedding layer is made to answer with the vectors.
        ids = torch.full((count, length + 2), self.begin, device=whole.device)
        with _answering(self.clip.model.text_model.get_input_embeddings(), whole):
            states = self.clip.model.text_model(ids).last_hidden_state
        return _unit(self.clip.model.text_projection(states[:, -1]))


def invert(
    space: PromptSpace,
    images: Sequence[Image],
    seeds: Sequence[int],
    search: Search,
    *,
    on_step: OnStep | None = None,
    unfinished: Unfinished | None = None,
) -> list[Found]:
    """The best prompt for each image.

    Args:
        space: the CLIP network.
        images: ``uint8 (H, W, 3)`` each; sizes may differ.
        seeds: one for each image.
        search: length, steps and step size.
        on_step: told of progress.
        unfinished: where the state of a long search is kept, to go on from after a kill.

    Raises:
        CodecError: a prompt longer than the network reads, or embeddings that are not finite.
    """
    import torch

    if not 1 <= search.length <= space.longest or search.steps < 1:
        raise CodecError(
            f"a prompt has 1 to {space.longest} tokens and a search at least one step, "
            f"found {search.length} and {search.steps}"
        )
    targets = unit(space.clip.image(images)).astype(np.float64)
    # Gradients are needed, whatever mode the caller computes in.
    with torch.inference_mode(False), torch.enable_grad():
        state = _State(space, torch.from_numpy(targets), seeds, search)
        state.restore(unfinished.load() if unfinished else None)
        while state.step < search.steps:
            state.advance()
            if on_step is not None:
                on_step(state.step, float(state.cosines.mean()))
            if unfinished is not None and unfinished.due():
                unfinished.save(state.saved())
        if unfinished is not None:
            unfinished.done()
        return [
            Found(tuple(map(int, ids)), float(cosine)) for ids, cosine in zip(state.best, state.cosines, strict=True)
        ]


class _State:
    """Free vectors, the optimiser's averages, and the best prompts so far."""

    def __init__(self, space: PromptSpace, targets: Tensor, seeds: Sequence[int], search: Search) -> None:
        import torch

        self.space = space
        words = space.words
        starts = [
            torch.randint(len(words), (search.length,), generator=torch.Generator("cpu").manual_seed(seed))
            for seed in seeds
        ]
        ids = torch.stack(starts).to(words.device)
        # Words made in another mode cannot be trained on: a copy can.
        self.free = words[ids].clone().requires_grad_()
        self.optimiser = torch.optim.AdamW([self.free], lr=search.learning_rate, weight_decay=search.weight_decay)
        self.targets = targets.to(words.device, words.dtype)
        self.best = ids.clone()
        self.cosines = torch.full((len(ids),), -torch.inf, device=words.device, dtype=words.dtype)
        self.step = 0

    def advance(self) -> None:
        """One step for all images."""
        import torch

        ids = self.space.nearest(self.free.detach())
        projected = self.space.words[ids].clone().requires_grad_()
        cosines = (self.space.embed(projected) * self.targets).sum(dim=-1)
        if not bool(torch.isfinite(cosines).all()):
            raise CodecError("prompt inversion: an embedding is not finite: the network's weights are broken")
        (self.free.grad,) = torch.autograd.grad((1 - cosines).sum(), [projected])
        self.optimiser.step()
        better = cosines.detach() > self.cosines
        self.best[better], self.cosines[better] = ids[better], cosines.detach()[better]
        self.step += 1

    def saved(self) -> dict[str, Tensor]:
        """All that later steps depend on."""
        import torch

        averages = {f"adam.{name}": one for name, one in self.optimiser.state[self.free].items()}
        own = {"free": self.free, "best": self.best, "cosines": self.cosines, "step": torch.tensor(self.step)}
        return {**own, **averages}

    def restore(self, saved: dict[str, Tensor] | None) -> None:
        """Go on where `saved` was; anything else than such a state is not looked at."""
        if saved is None or any(name not in saved for name in ("free", "best", "cosines", "step")):
            return
        if saved["free"].shape != self.free.shape or saved["free"].dtype != self.free.dtype:
            return
        device = self.free.device
        self.free.data.copy_(saved["free"])
        self.best, self.cosines = saved["best"].to(device), saved["cosines"].to(device)
        averages = {name[5:]: one for name, one in saved.items() if name.startswith("adam.")}
        # The count of steps stays on the CPU, where AdamW reads it.
        self.optimiser.state[self.free] = {
            name: one if name == "step" else one.to(device) for name, one in averages.items()
        }
        self.step = int(saved["step"])


@contextmanager
def _answering(layer: Any, answer: Tensor) -> Iterator[None]:
    hook = layer.register_forward_hook(lambda _layer, _given, _made: answer)
    try:
        yield
    finally:
        hook.remove()


def _unit(vectors: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    return normalize(vectors, dim=-1)
