"""Prompt inversion: the token ids whose CLIP text embedding is nearest to an image's. PEZ, hard prompts made easy.

Wen et al., "Hard Prompts Made Easy: Gradient-Based Discrete Optimization for Prompt Tuning and Discovery", NeurIPS
2023. As Text+Sketch uses it: 16 tokens, 3000 steps, OpenCLIP ViT-H/14.

One step, for free vectors ``p`` (one for each token) that start at random words:

1. project each ``p`` to the word with the largest cosine; these are the ids that would be sent;
2. put the words between both ends, read the text embedding at the end, take its cosine with the image's embedding;
3. take the gradient of ``1 - cosine`` *at the projected words*, and let AdamW apply it *to the free vectors*.

The ids of the step with the largest cosine win. An image enters through CLIP's centre square: what lies beside it, the
left and right thirds of a landscape, has no say. Departures from the official code:

- Seeded: each image has a generator of its own. The official seeding function is never called.
- Many images at once: their losses are added, so that each one's gradient is what it would be alone. Sums in another
  order can end in other words; the ids are those of the batch they were searched in.
- What follows the end token is left out: a causal network does not see it. 18 places instead of 77.
- One pass per step gives both the score and the gradient; the official code makes two with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rdpbench.codecs.diffusion.codec import OnStep, Searched, Unfinished
from rdpbench.errors import CodecError
from rdpbench.image import Image
from rdpbench.lazy import Tensor, functional, torch
from rdpbench.networks.clip import Clip, unit


class PromptSearch(NamedTuple):
    """How the search runs; the defaults are the official ones, ``length`` counts tokens."""

    length: int = 16
    steps: int = 3000
    learning_rate: float = 0.1
    weight_decay: float = 0.1


@dataclass(frozen=True)
class Prompt:
    """What a search ends with: token ids, and their cosine with the image in CLIP's space."""

    ids: tuple[int, ...]
    cosine: float


class PromptSpace:
    """The text side of a CLIP network: prompts as vectors, words near to vectors, embeddings of prompts."""

    def __init__(self, clip: Clip) -> None:
        """Take both towers; the size of the vocabulary is that of the embedding, and its last two ids are the ends."""
        self.clip = clip
        self.words: Tensor = clip.model.text_model.get_input_embeddings().weight
        self.begin, self.end = len(self.words) - 2, len(self.words) - 1
        self.longest = int(clip.model.text_model.config.max_position_embeddings) - 2
        self._directions = _unit(self.words)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Ids ``(B, L)`` of the words with the largest cosine to vectors ``(B, L, D)``."""
        return (_unit(vectors) @ self._directions.T).argmax(dim=-1)

    def embed(self, vectors: Tensor) -> Tensor:
        """Text embeddings ``(B, dim)`` of length 1 of prompts given as vectors ``(B, L, D)`` between the ends."""
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
    search: PromptSearch,
    *,
    on_step: OnStep | None = None,
    unfinished: Unfinished | None = None,
) -> list[Prompt]:
    """The best prompt for each image, whose sizes may differ.

    ``on_step`` is called with the steps that are done and the mean over images of the best cosine so far.

    Raises:
        CodecError: a prompt longer than the network reads, or embeddings that are not finite.
    """
    if not 1 <= search.length <= space.longest or search.steps < 1:
        raise CodecError(
            f"a prompt has 1 to {space.longest} tokens and a search at least one step, "
            f"found {search.length} and {search.steps}"
        )
    targets = unit(space.clip.image(images)).astype(np.float64)
    # Gradients are needed, whatever mode the caller computes in.
    with torch.inference_mode(False), torch.enable_grad():
        state = SearchedPrompts(space, torch.from_numpy(targets), seeds, search)
        state.finish(search.steps, on_step, unfinished)
        best = zip(state.best.tolist(), state.cosines.tolist(), strict=True)
        return [Prompt(tuple(ids), cosine) for ids, cosine in best]


class SearchedPrompts(Searched):
    """A vector for each token of each image, and the best prompts so far."""

    tracked = ("best", "cosines")

    def __init__(self, space: PromptSpace, targets: Tensor, seeds: Sequence[int], search: PromptSearch) -> None:
        self.space, words = space, space.words
        draws = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        starts = [torch.randint(len(words), (search.length,), generator=draw) for draw in draws]
        self.best = torch.stack(starts).to(words.device)
        # Words made in another mode cannot be trained on: a copy can.
        self.free = words[self.best].clone().requires_grad_()
        self.optimiser = torch.optim.AdamW([self.free], lr=search.learning_rate, weight_decay=search.weight_decay)
        self.targets = targets.to(words.device, words.dtype)
        self.cosines = torch.full((len(seeds),), -torch.inf, device=words.device, dtype=words.dtype)

    def shown(self) -> float:
        """The mean of the best cosines."""
        return float(self.cosines.mean())

    def advance(self) -> None:
        """One step for all images."""
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


@contextmanager
def _answering(layer: Any, answer: Tensor) -> Iterator[None]:
    hook = layer.register_forward_hook(lambda _layer, _given, _output: answer)
    try:
        yield
    finally:
        hook.remove()


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1)
