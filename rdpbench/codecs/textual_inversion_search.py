"""Textual inversion: vectors that make a frozen U-Net predict the noise in an image's latents. They are what is sent.

Gal et al., "An image is worth one word", ICLR 2023, as Pan et al. use it: the vectors do not go into the text tower but
stand for what it gives out. The U-Net sees the empty prompt's 77 states, to the K that follow the first of which the
vectors are added: zeros are the empty prompt.

One step, for free vectors ``v`` (K x D) that start at zero, and latents z of the image:

1. quantise ``v`` to what would be sent, with the step that fits the budget (`textual_inversion_coding`);
2. draw times t and noise e, make ``z_t = sqrt(a_t) z + sqrt(1 - a_t) e``, and take the squared error between what the
   U-Net predicts under the *quantised* vectors and what it should (e, or v where the model predicts that);
3. take the gradient at the quantised vectors, and let Adam apply it to the free ones. Its rate falls linearly to zero.

So the search knows the quantiser, as prompt inversion (`rdpbench.codecs.pez`) knows the words. The times of a step are
spread: each of B draws falls into a B-th part of the schedule of its own. All draws of a step follow from seed and
number, on the CPU, so that a search that was killed goes on with the same ones.

`Objective.probe` is the same error over times and noise that are always the same: what falls, if anything is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rdpbench.codecs import textual_inversion_coding as coding
from rdpbench.codecs.diffusion import prompts, sampling
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.prompts import Condition
from rdpbench.codecs.diffusion.unfinished import Unfinished
from rdpbench.codecs.textual_inversion_coding import Vectors
from rdpbench.codecs.textual_inversion_guide import check_prediction
from rdpbench.errors import CodecError

if TYPE_CHECKING:
    from torch import Generator, Tensor

OnStep: TypeAlias = Callable[[int, float], None]
"""Called with the steps that are done and the mean error of the last ones."""
PROBES = 8
"""Times of the probe, evenly spread."""
_STRIDE = 1 << 24
"""Seeds of a search lie between those of two runs."""


@dataclass(frozen=True)
class Search:
    """How vectors are searched."""

    vectors: int = 16
    """K."""
    bits: float = 1.0
    """For each coefficient, on average."""
    steps: int = 1000
    batch: int = 2
    """Times and noises drawn for a step."""
    learning_rate: float = 0.01

    def budget(self, width: int) -> float:
        """Bits of the code.

        >>> Search().budget(768)
        12288.0
        """
        return self.vectors * width * self.bits


def width_of(models: Models) -> int:
    """D: length of a vector."""
    return int(models.unet.config.cross_attention_dim)


def empty_prompt(models: Models) -> Condition:
    """What the U-Net sees of no words; can be computed with, whatever mode the caller computes in."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        return prompts.condition(models, [])


def condition(empty: Condition, offsets: Tensor) -> Condition:
    """What the U-Net sees of vectors ``(K, D)``: the states of the empty prompt, with them added from the second on."""
    from torch.nn.functional import pad

    behind = empty.hidden.shape[1] - 1 - len(offsets)
    whole = pad(offsets, (0, 0, 1, behind)).to(empty.hidden.device, empty.hidden.dtype)
    return Condition(empty.hidden + whole, empty.pooled)


class Objective:
    """The diffusion loss of an image, as a function of vectors."""

    def __init__(self, models: Models, latents: Tensor, seed: int) -> None:
        """Take the networks, scaled latents ``(1, 4, h, w)`` and the seed of all draws."""
        import torch

        self._models, self._seed = models, seed
        self._type = check_prediction(models)
        self._empty = empty_prompt(models)
        # Copies, since what was made where torch only infers cannot be trained with.
        with torch.inference_mode(False):
            self._latents = latents.to(models.device).clone()
            self._alphas: Tensor = sampling.scheduler(models, "ddim", 1).alphas_cumprod.to(models.device).clone()
        self.values = self._latents.numel()

    def loss(self, offsets: Tensor, step: int, batch: int) -> Tensor:
        """Mean squared error of a step's draws."""
        import torch

        draw = self._draw(step)
        spread = (torch.rand(batch, generator=draw) + torch.arange(batch)) / batch
        noise = torch.randn(batch, *self._latents.shape[1:], generator=draw)
        return self._error(offsets, (spread * len(self._alphas)).long(), noise)

    def probe(self, offsets: Tensor) -> float:
        """The same over `PROBES` times with fixed noise, one at a time."""
        import torch

        draw, found = self._draw(_STRIDE - 1), []
        with torch.inference_mode(False), torch.no_grad():
            for number in range(PROBES):
                time = torch.tensor([(2 * number + 1) * len(self._alphas) // (2 * PROBES)])
                noise = torch.randn(self._latents.shape, generator=draw)
                found.append(float(self._error(offsets, time, noise)))
        return float(np.mean(found))

    def _draw(self, number: int) -> Generator:
        import torch

        return torch.Generator("cpu").manual_seed((self._seed * _STRIDE + number) % (1 << 63))

    def _error(self, offsets: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        models = self._models
        times, noise = times.to(models.device), noise.to(models.device)
        alphas = self._alphas[times].reshape(-1, 1, 1, 1)
        noisy = alphas.sqrt() * self._latents + (1 - alphas).sqrt() * noise
        due = noise if self._type == "epsilon" else alphas.sqrt() * noise - (1 - alphas).sqrt() * self._latents
        seen = condition(self._empty, offsets)
        found = models.unet(
            noisy.to(models.dtype),
            times,
            encoder_hidden_states=seen.hidden.expand(len(times), -1, -1),
            added_cond_kwargs=sampling._added(models, [seen], noisy),
        ).sample
        error: Tensor = (found.float() - due).square().mean()
        return error


def search(
    objective: Objective,
    width: int,
    settings: Search,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
    unfinished: Unfinished | None = None,
) -> Vectors:
    """The free vectors ``(K, width)`` at the end of a search; quantised, they are what is sent.

    Args:
        objective: the loss.
        width: D.
        settings: how many vectors, bits and steps.
        device: where vectors are kept.
        on_step: told of progress.
        unfinished: where the state of a long search is kept, to go on from after a kill.

    Raises:
        CodecError: a loss that is not finite.
    """
    import torch

    # Gradients are needed, whatever mode the caller computes in.
    with torch.inference_mode(False), torch.enable_grad():
        state = _State(objective, width, settings, device)
        state.restore(unfinished.load() if unfinished else None)
        while state.step < settings.steps:
            state.advance()
            if on_step is not None:
                on_step(state.step, state.error)
            if unfinished is not None and unfinished.due():
                unfinished.save(state.saved())
        if unfinished is not None:
            unfinished.done()
        found: Vectors = state.free.detach().cpu().numpy()
        return found


class _State:
    """Free vectors and the optimiser's averages."""

    def __init__(self, objective: Objective, width: int, settings: Search, device: str) -> None:
        import torch

        self._objective, self._settings = objective, settings
        self._budget = settings.budget(width)
        self.free = torch.zeros(settings.vectors, width, device=device, requires_grad=True)
        self.optimiser = torch.optim.Adam([self.free], lr=settings.learning_rate)
        self.step = 0
        self.error = float("nan")
        """Of the last steps, for telling."""

    def advance(self) -> None:
        """One step."""
        import torch

        settings = self._settings
        sent = self._sent().requires_grad_()
        loss = self._objective.loss(sent, self.step, settings.batch)
        if not bool(torch.isfinite(loss)):
            raise CodecError("textual inversion: the loss is not finite: the network's weights are broken")
        # The sum, not the mean, is differentiated: half precision has no numbers as small as the mean's gradients.
        (self.free.grad,) = torch.autograd.grad(loss * self._objective.values, [sent])
        self.optimiser.param_groups[0]["lr"] = settings.learning_rate * (1 - self.step / settings.steps)
        self.optimiser.step()
        self.step += 1
        self.error = float(loss.detach()) if self.step == 1 else 0.95 * self.error + 0.05 * float(loss.detach())

    def _sent(self) -> Tensor:
        """The vectors as the decoder would have them."""
        import torch

        free = self.free.detach().cpu().numpy()
        step = coding.fit_step(free, self._budget)
        return torch.from_numpy(coding.values_of(coding.quantise(free, step), step)).to(self.free.device)

    def saved(self) -> dict[str, Tensor]:
        """All that later steps depend on."""
        import torch

        averages = {f"adam.{name}": one for name, one in self.optimiser.state[self.free].items()}
        return {"free": self.free, "step": torch.tensor(self.step), "error": torch.tensor(self.error), **averages}

    def restore(self, saved: dict[str, Tensor] | None) -> None:
        """Go on where `saved` was; anything else than such a state is not looked at."""
        if saved is None or any(name not in saved for name in ("free", "step", "error")):
            return
        if saved["free"].shape != self.free.shape or saved["free"].dtype != self.free.dtype:
            return
        device = self.free.device
        self.free.data.copy_(saved["free"])
        averages = {name[5:]: one for name, one in saved.items() if name.startswith("adam.")}
        # The count of steps stays on the CPU, where Adam reads it.
        self.optimiser.state[self.free] = {
            name: one if name == "step" else one.to(device) for name, one in averages.items()
        }
        self.step, self.error = int(saved["step"]), float(saved["error"])
