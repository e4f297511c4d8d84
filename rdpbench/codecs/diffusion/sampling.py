"""Seeded noise, schedulers, and the one denoising loop of all generative codecs.

Noise is drawn on the CPU in single precision, whatever computes: a seed means the same noise on a GPU. Every image has
a generator of its own, so that its noise does not depend on the batch.

The schedulers are those of diffusers, set up as the versions of 2023 computed, for which the systems were made: the
last step ends at the smallest noise of training, not at none (``final_sigmas_type``, which came later), and steps are
spread evenly from end to end (``linspace``), but for DDIM, whose steps lead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rdpbench.codecs.diffusion.bases import Layout
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.prompts import Condition
from rdpbench.errors import BitstreamError

if TYPE_CHECKING:
    from torch import Generator, Tensor

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm-solver++": (
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "linspace", "final_sigmas_type": "sigma_min"},
    ),
    "unipc": ("UniPCMultistepScheduler", {"timestep_spacing": "linspace", "final_sigmas_type": "sigma_min"}),
    "ddim": (
        "DDIMScheduler",
        {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False},
    ),
    "ddim-trailing": ("DDIMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    "euler-trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler-ancestral-trailing": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
}
"""By name: diffusers' class and its settings. The trailing ones are for the Turbo models."""

Adjust: TypeAlias = Callable[[int, "Tensor", "Tensor", "Tensor"], "Tensor"]
"""Called with step, time, latents and the guided prediction of the U-Net; returns the prediction to go on with."""


@dataclass(frozen=True, eq=False)
class Control:
    """What a ControlNet sees."""

    network: Any
    planes: Tensor
    """``(1, 3, H, W)`` of [0, 1], as large as the image that is generated."""
    scale: float = 1.0


def scheduler(models: Models, sampler: str, steps: int) -> Any:
    """A fresh scheduler of `SAMPLERS` with the model's own noise schedule, set to a number of steps."""
    from rdpbench.codecs.diffusion.library import diffusers

    name, settings = SAMPLERS[sampler]
    made = getattr(diffusers, name)(**{**models.layout.schedule, **settings})
    made.set_timesteps(steps, device=models.device)
    return made


def generators(seeds: Sequence[int]) -> list[Generator]:
    """A generator on the CPU for each image."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def noise(models: Models, draws: Sequence[Generator], height: int, width: int) -> Tensor:
    """Noise ``(B, 4, H / 8, W / 8)`` for a padded size, one image from each generator."""
    import torch

    shape = (models.vae.config.latent_channels, height // models.factor, width // models.factor)
    return torch.stack([torch.randn(shape, generator=draw) for draw in draws]).to(models.device, models.dtype)


def denoise(
    models: Models,
    schedule: Any,
    latents: Tensor,
    draws: Sequence[Generator],
    positive: Condition,
    negative: Condition,
    guidance: float,
    *,
    control: Control | None = None,
    extra: Tensor | None = None,
    adjust: Adjust | None = None,
) -> Tensor:
    """Run the U-Net over all steps; returns clean latents ``(B, 4, h, w)``, scaled as the VAE's encoder scales them.

    Args:
        models: the networks.
        schedule: from `scheduler`; used up.
        latents: noise of deviation one, ``(B, 4, h, w)``.
        draws: the generators that drew it, for schedulers that add noise on the way.
        positive: of the prompt.
        negative: of what to keep away from; not looked at without guidance.
        guidance: classifier-free guidance; there is none at 1 and below.
        control: a ControlNet's input.
        extra: channels ``(B, C, h, w)`` that go in beside the latents.
        adjust: changes predictions, such as by a gradient towards a guide.

    Raises:
        BitstreamError: latents that are not finite.
    """
    import torch

    guided = guidance > 1
    sides = [negative, positive] if guided else [positive]
    count, rounds = len(latents), len(sides)
    hidden = torch.cat([side.hidden.expand(count, -1, -1) for side in sides])
    added = _added(models, sides, latents)
    beside = None if extra is None else torch.cat([extra] * rounds)
    latents = latents * schedule.init_noise_sigma
    options = {"generator": list(draws)} if _draws(schedule) else {}
    for step, time in enumerate(schedule.timesteps):
        seen = schedule.scale_model_input(torch.cat([latents] * rounds), time)
        hints = {} if control is None else _hints(control, seen, time, hidden, added)
        if beside is not None:
            seen = torch.cat([seen, beside], dim=1)
        found = models.unet(seen, time, encoder_hidden_states=hidden, added_cond_kwargs=added, **hints).sample
        if guided:
            away, towards = found.chunk(2)
            found = away + guidance * (towards - away)
        if adjust is not None:
            found = adjust(step, time, latents, found)
        latents = schedule.step(found, time, latents, return_dict=False, **options)[0]
    if not bool(torch.isfinite(latents).all()):
        raise BitstreamError("the latents are not finite: the bitstream is damaged, or was made by other weights")
    return latents


def _hints(control: Control, seen: Tensor, time: Tensor, hidden: Tensor, added: Any) -> dict[str, Any]:
    """The ControlNet's contributions to the U-Net's layers."""
    planes = control.planes.to(seen.device, seen.dtype).expand(len(seen), -1, -1, -1)
    down, middle = control.network(
        seen,
        time,
        encoder_hidden_states=hidden,
        controlnet_cond=planes,
        conditioning_scale=control.scale,
        added_cond_kwargs=added,
        return_dict=False,
    )
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _added(models: Models, sides: Sequence[Condition], latents: Tensor) -> dict[str, Tensor] | None:
    """SDXL's pooled prompts, and sizes: uncropped, as large as what is generated."""
    import torch

    if not models.layout.pooled:
        return None
    count = len(latents)
    height, width = (side * models.factor for side in latents.shape[2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]], device=models.device, dtype=models.dtype)
    pooled = [side.pooled.expand(count, -1) for side in sides if side.pooled is not None]
    return {"text_embeds": torch.cat(pooled), "time_ids": sizes.expand(count * len(sides), -1)}


def _draws(schedule: Any) -> bool:
    """Does the scheduler's step take generators?"""
    import inspect

    return "generator" in inspect.signature(schedule.step).parameters


def settings_of(layout: Layout, sampler: str) -> dict[str, Any]:
    """What `scheduler` sets up, to be read: diffusers' class, and all that it is given.

    >>> from rdpbench.codecs.diffusion.bases import SD21
    >>> settings_of(SD21, "ddim")["steps_offset"]
    1
    """
    name, settings = SAMPLERS[sampler]
    return {"class": name, **layout.schedule, **settings}
