"""Textual inversion: vectors that make a frozen U-Net predict the noise in an image's latents. They are what is sent.

Gal et al., "An image is worth one word", ICLR 2023, as Pan et al. use it: the vectors do not go into the text tower but
stand for what it gives out. The U-Net sees the empty prompt's 77 states, to the K that follow the first of which the
vectors are added: zeros are the empty prompt.

One step, for free vectors ``v`` (K x D) that start at zero, and latents z of the image:

1. quantise ``v`` to what would be sent, with the step that fits the budget (`textual_inversion_coding`);
2. draw times t and noise e, make ``z_t = sqrt(a_t) z + sqrt(1 - a_t) e``, and take the squared error between what the
   U-Net predicts under the *quantised* vectors and what it should (e, or v where the model predicts that);
3. take the gradient at the quantised vectors, and let Adam apply it to the free ones. Its rate falls linearly to zero.

So the search knows the quantiser, as prompt inversion (`rdpbench.codecs.diffusion.pic.pez`) knows the words. The times
of a step are spread: each of B draws falls into a B-th part of the schedule of its own. All draws of a step follow from
seed and number, on the CPU, so that a search that was killed goes on with the same ones.

`Objective.probe` is the same error over times and noise that are always the same: what falls, if anything is learned.

The guide of textual inversion: a small image, and the gradient that pulls the predicted clean latents towards it.

The guide is the image in means of ``factor x factor`` pixels, rounded to 8 bits and coded by any codec of rdpbench. An
image whose sides are no multiples of the factor is continued at the right and below. The codec's rate is fitted for
each image (`Fitted`): of its places, such as WebP's qualities of 0 to 100, the best that keeps a number of bytes. The
place is sent, as a varint before the codec's own bytes; a codec may need it to decode. With a rate of the user's
(`Fixed`) nothing is sent beside. A codec with weights, or without whole steps, cannot be fitted.

Of what is decoded the same means are taken, and so the pull is made (`Pull`): ``s_c`` is the compression guidance, D
the VAE's decoder to values of [-1, 1], A the means, ``x_g`` the decoded guide in the same range, f the factor, z the
predicted clean latents of a step, one for 8 x 8 pixels::

    L(z)  = (f / 8)^2 * 1/2 * sum (A D(z) - x_g)^2
    z    <- z - s_c * gradient of L at z

The sum counts each error as often as there are latents to mend it, so that a strength means the same for any size of
image and guide: were the decoder a matrix for each latent, from 4 channels to 3, with largest singular value a, a step
would leave ``1 - s_c a^2`` of the error along it, and from ``s_c = 2 / a^2`` on the error would grow. For the VAE of
Stable Diffusion 1 the matrix that circulates for previews (Hugging Face's forum, thread 23204) has ``a^2 = 0.66``, thus
3.0. It was not measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.codecs.container import read_varint, varint
from rdpbench.codecs.contract import Codec, Rate, Side, rate_of
from rdpbench.codecs.diffusion import prompts, sampling
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.prompts import Condition
from rdpbench.codecs.diffusion.sampling import Unfinished
from rdpbench.codecs.diffusion.textual_inversion import coding
from rdpbench.codecs.diffusion.textual_inversion.coding import Vectors
from rdpbench.errors import BitstreamError, CodecError, ConfigError
from rdpbench.image import Image

if TYPE_CHECKING:
    from torch import Generator, Tensor

FACTORS = (1, 2, 4, 8, 16, 32, 64)
"""They divide the sides of what is generated."""
PREDICTIONS = ("epsilon", "v_prediction")
"""What U-Nets predict."""


class GuideCoder(Protocol):
    """What codes a guide."""

    def encode(self, guide: Image, side: Side, budget: int) -> bytes: ...

    def decode(self, section: bytes) -> Image: ...

    @property
    def codec(self) -> Codec:
        """At a rate, for what it needs and what codes."""
        ...


@dataclass(frozen=True)
class Fixed:
    """A codec at one rate; the budget is not looked at."""

    codec: Codec

    def encode(self, guide: Image, side: Side, budget: int) -> bytes:  # noqa: ARG002 - as the docstring says
        return bytes(self.codec.encode(guide, side).data)

    def decode(self, section: bytes) -> Image:
        return self.codec.decode(section)


@dataclass(frozen=True)
class Fitted:
    """A codec at the best rate that keeps the budget; the lowest where none does."""

    name: str
    axis: Rate
    device: str

    @property
    def codec(self) -> Codec:
        return self._at(0)

    def encode(self, guide: Image, side: Side, budget: int) -> bytes:
        low, high = 0, self._last()
        best = self._coded(0, guide, side)
        while low < high:
            middle = (low + high + 1) // 2
            section = self._coded(middle, guide, side)
            if len(section) <= budget:
                low, best = middle, section
            else:
                high = middle - 1
        return best

    def decode(self, section: bytes) -> Image:
        place, at = read_varint(section, 0)
        if place > self._last():
            raise BitstreamError(f"the guide was coded at place {place} of {self.name}, which has {self._last() + 1}")
        return self._at(place).decode(section[at:])

    def rate_of(self, section: bytes) -> float:
        """The native rate that a guide was coded at."""
        return self._rate(read_varint(section, 0)[0])

    def _coded(self, place: int, guide: Image, side: Side) -> bytes:
        return varint(place) + bytes(self._at(place).encode(guide, side).data)

    def _at(self, place: int) -> Codec:
        return built(self.name, self._rate(place), "", self.device)

    def _rate(self, place: int) -> float:
        """Places count from the lowest rate."""
        steps = place if self.axis.rises else self._last() - place
        return self.axis.low + steps * self.axis.step

    def _last(self) -> int:
        return round((self.axis.high - self.axis.low) / self.axis.step)


def guide_coder(name: str, rate: float, weights: str, device: str) -> GuideCoder | None:
    """What codes the guide: at a native rate, or with 0 at one fitted for each image; None if ``name`` is ``none``.

    Raises:
        UnknownName, OutOfRange: no such codec, or it has no such rate.
        ConfigError: it has no rate axis, or cannot be fitted.
    """
    if name == "none":
        return None
    cls = registry.load("codec", name)
    axis = rate_of(cls)
    if rate and axis is None:
        raise ConfigError(f"guide_codec={name!r} has a single rate point; leave guide_rate at 0")
    if rate or axis is None:
        return Fixed(built(name, rate, weights, device))
    if not axis.step or hasattr(cls, "weight_needs"):
        raise ConfigError(f"guide_codec={name!r} cannot be fitted to guide_bpp; set guide_rate, its {axis.field}")
    return Fitted(name, axis, device)


def built(name: str, rate: float | None, weights: str, device: str) -> Codec:
    """A codec of rdpbench at a native rate, if it has any. Weights and device are handed on where it has them.

    Raises:
        OutOfRange: it has no such rate.
    """
    cls = registry.load("codec", name)
    axis = rate_of(cls)
    options: dict[str, object] = {axis.field: axis.check(name, rate)} if rate is not None and axis else {}
    known = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    options |= {key: value for key, value in {"weights": weights, "device": device}.items() if key in known}
    codec: Codec = cls(**options)
    return codec


def small(image: Image, factor: int) -> Image:
    """Means of squares of an image, rounded to 8 bits, the last ones of the image continued.

    >>> small(np.full((5, 9, 3), 7, np.uint8), 4).shape
    (2, 3, 3)
    """
    height, width, _ = image.shape
    padded = np.pad(image, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge").astype(np.float64)
    rows, columns = (side // factor for side in padded.shape[:2])
    means: NDArray[np.float64] = padded.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    rounded: Image = np.floor(means + 0.5).astype(np.uint8)
    return rounded


def guide_size(height: int, width: int, factor: int) -> tuple[int, int]:
    """Height and width of an image's guide.

    >>> guide_size(512, 768, 4)
    (128, 192)
    """
    return -(-height // factor), -(-width // factor)


def check_guide(guide: Image, height: int, width: int, factor: int) -> None:
    """Raise `BitstreamError` unless a decoded guide is as large as it must be."""
    due = (*guide_size(height, width, factor), 3)
    if guide.shape != due:
        raise BitstreamError(f"the guide decodes to {guide.shape}, where {due} is due")


def clean(prediction_type: str, noisy: Tensor, prediction: Tensor, alpha: Tensor) -> Tensor:
    """The clean latents that a prediction means.

    Args:
        prediction_type: one of `PREDICTIONS`.
        noisy: latents, scaled as the U-Net sees them: ``sqrt(alpha) z + sqrt(1 - alpha) noise``.
        prediction: of the U-Net.
        alpha: how much of their variance is not noise.
    """
    if prediction_type == "epsilon":
        found: Tensor = (noisy - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
    else:
        found = alpha.sqrt() * noisy - (1 - alpha).sqrt() * prediction
    return found


def shifted(prediction_type: str, prediction: Tensor, change: Tensor, alpha: Tensor) -> Tensor:
    """The prediction that means clean latents that differ by ``change`` from those of ``prediction``."""
    part = alpha.sqrt() if prediction_type == "epsilon" else 1
    found: Tensor = prediction - part / (1 - alpha).sqrt() * change
    return found


class Pull:
    """The pull towards a guide, as `rdpbench.codecs.diffusion.sampling.denoise` takes it."""

    def __init__(self, models: Models, schedule: Any, guide: Image, factor: int, strength: float) -> None:
        """Take the networks, the scheduler that will sample, the guide, its factor and ``s_c``."""
        import torch

        self._models, self._schedule = models, schedule
        planes = torch.from_numpy(np.ascontiguousarray(guide.transpose(2, 0, 1)))[None]
        self._guide = planes.to(models.device).float() / 127.5 - 1
        self._factor, self._strength = factor, strength
        self._type = check_prediction(models)

    def __call__(self, step: int, time: Tensor, latents: Tensor, prediction: Tensor) -> Tensor:
        """A prediction whose clean latents are nearer to the guide."""
        del step
        alpha = self._schedule.alphas_cumprod[round(float(time))].to(latents.device)
        noisy = self._schedule.scale_model_input(latents, time)
        change = -self._strength * self.gradient(clean(self._type, noisy, prediction, alpha))
        return shifted(self._type, prediction, change.to(prediction.dtype), alpha)

    def distance(self, latents: Tensor) -> Tensor:
        """L of clean latents ``(B, 4, h, w)``, one value for each image."""
        planes = self._models.vae.decode(latents / self._models.vae.config.scaling_factor).sample
        rows, columns = self._guide.shape[2:]
        places = (self._factor / self._models.factor) ** 2
        error = block_means(planes, self._factor)[..., :rows, :columns] - self._guide
        value: Tensor = places / 2 * error.square().sum(dim=(1, 2, 3))
        return value

    def gradient(self, latents: Tensor) -> Tensor:
        """Of L, in single precision, one image at a time, so that none depends on its neighbours."""
        import torch

        # The loop that calls infers only; a copy made here can be differentiated by.
        with torch.inference_mode(False), torch.enable_grad():
            found: list[Tensor] = []
            for one in latents:
                at = one[None].float().clone().requires_grad_()
                found += torch.autograd.grad(self.distance(at).sum(), [at])
            return torch.cat(found)


def block_means(planes: Tensor, factor: int) -> Tensor:
    """Means of squares of ``(B, C, H, W)`` whose sides are multiples of the factor."""
    count, channels, height, width = planes.shape
    squares = planes.reshape(count, channels, height // factor, factor, width // factor, factor)
    means: Tensor = squares.mean(dim=(3, 5))
    return means


def check_prediction(models: Models) -> str:
    """What the U-Net predicts.

    Raises:
        ConfigError: something else than is known.
    """
    kind = str(models.layout.schedule["prediction_type"])
    if kind not in PREDICTIONS:
        raise ConfigError(f"the model predicts {kind!r}; textual inversion knows {' and '.join(PREDICTIONS)}")
    return kind


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
