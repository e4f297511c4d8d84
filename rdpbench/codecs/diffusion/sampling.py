"""From prompt and noise to an image: conditions, noise, schedulers, the denoising loop, and the VAE at its end.

Noise is drawn on the CPU in single precision, by a generator for each image: a seed means the same noise on a GPU and
in a batch. The schedulers are those of diffusers, set up as the versions of 2023 computed, for which the systems were
made: the last step ends at the smallest noise of training, not at none (``final_sigmas_type``, which came later), and
steps are spread evenly from end to end (``linspace``), but for DDIM, whose steps lead.

A folder of the user's says in its ``scheduler_config.json`` how its model was trained and is sampled; all of it is
obeyed by the class that ``sampler`` names, or refused by name (``docs/generative.md``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rdpbench.codecs.diffusion import bases
from rdpbench.codecs.diffusion.bases import BaseSizes
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.learned.systems import Frame, to_images, to_planes
from rdpbench.errors import BitstreamError, ConfigError, RdpbenchError
from rdpbench.image import Image
from rdpbench.lazy import Generator, Tensor, torch
from rdpbench.needs import Need

FRAME = Frame(64, "replicate", "corner")
"""U-Nets halve latents three times and VAEs pixels three times: sides are multiples of 64 inside. Smaller images are
generated larger, and cut at the right and below."""
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
SAVED = "saved"
"""The sampler that a folder of the user's was saved with."""
LEGAL_SAMPLERS = (*SAMPLERS, SAVED)
DECIDING = (
    *("rescale_betas_zero_snr", "trained_betas", "thresholding", "use_flow_sigmas"),
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
)
"""What changes the noise or the prediction, so that no class may leave it out. The rest that a class does not take are
settings of another solver, such as ``skip_prk_steps``."""
PREDICTED = ("epsilon", "v_prediction", "sample")

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
    schedule = configured(models.layout.schedule, sampler)
    schedule.set_timesteps(steps, device=models.device)
    return schedule


def configured(stated: Mapping[str, Any], sampler: str) -> Any:
    """A scheduler of `SAMPLERS` for the noise schedule of a published model, or for the configuration of a folder.

    Raises:
        ConfigError: a configuration that diffusers does not know, or that the sampler cannot obey; each value is named.
    """
    from rdpbench.codecs.diffusion.library import diffusers

    name, settings = SAMPLERS.get(sampler, ("", {}))
    if "_class_name" not in stated:
        if not name:
            raise ConfigError(f"sampler={sampler}: a folder of yours has saved one; choose from {', '.join(SAMPLERS)}")
        return getattr(diffusers, name)(**{**stated, **settings})
    stated = dict(stated)
    saved = str(stated.pop("_class_name")) or name
    name = name or saved
    legal = {*getattr(diffusers.DDIMScheduler, "_compatibles", ()), "DDIMScheduler"}
    if saved not in legal or not hasattr(diffusers, saved):
        raise ConfigError(
            f"scheduler_config.json: _class_name={saved!r} is no scheduler for Stable Diffusion that rdpbench knows; "
            f"known: {', '.join(sorted(legal))}"
        )
    classes = {saved, name, *(other for other, _ in SAMPLERS.values())}
    takes = {cls: _parameters(getattr(diffusers, cls)) for cls in classes}
    unknown = [f"{key}={value!r}" for key, value in stated.items() if not any(key in keys for keys in takes.values())]
    if stated["prediction_type"] not in PREDICTED:
        unknown.append(f"prediction_type={stated['prediction_type']!r}")
    if unknown:
        raise ConfigError(f"scheduler_config.json: diffusers does not know {', '.join(unknown)}; remove it")
    if lost := [key for key in DECIDING if stated.get(key) and key in takes[saved] and key not in takes[name]]:
        able = [other for other, (cls, _) in SAMPLERS.items() if all(key in takes[cls] for key in lost)]
        raise ConfigError(
            f"scheduler_config.json: {', '.join(f'{key}={stated[key]!r}' for key in lost)} is not for "
            f"sampler={sampler} ({name}); samplers that can use it: {', '.join([*able, SAVED])}"
        )
    options = stated if saved == name else {**settings, **stated}
    if sampler.endswith("-trailing"):
        options = {**options, "timestep_spacing": settings["timestep_spacing"]}
    try:
        return getattr(diffusers, name)(**{key: value for key, value in options.items() if key in takes[name]})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ConfigError(f"scheduler_config.json does not make a {name}: {error}") from error


def _parameters(cls: Any) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters) - {"self", "args", "kwargs"}


def settings_of(layout: BaseSizes, sampler: str) -> dict[str, Any]:
    """What `scheduler` sets up, to be read: diffusers' class, and what it is given; of a folder, what that states, too.

    >>> from rdpbench.codecs.diffusion.bases import SD21
    >>> settings_of(SD21, "ddim")["steps_offset"]
    1
    """
    name, settings = SAMPLERS.get(sampler, ("", {}))
    stated = dict(layout.schedule)
    if "_class_name" not in stated:
        return {"class": name, **stated, **settings}
    saved = str(stated.pop("_class_name")) or name
    return {"class": name or saved, **settings, **stated}


@dataclass(frozen=True)
class Schedule(Need):
    """The need for a folder's scheduler configuration that a sampler obeys: it is tried before anything is coded."""

    folder: str
    sampler: str
    steps: int

    def missing(self) -> str | None:
        """None if it does; else what it cannot."""
        try:
            schedule = configured(bases.layout_of(self.folder).schedule, self.sampler)
            schedule.set_timesteps(self.steps)
            zeros = torch.zeros(1, 4, 2, 2)
            schedule.step(zeros, schedule.timesteps[0], zeros)
        except (RdpbenchError, ValueError, NotImplementedError, IndexError) as error:
            return f"{self.folder}: {error}"
        return None


@dataclass(frozen=True, eq=False)
class Condition:
    """What a U-Net sees of a prompt: the last states of its text tower, or of SDXL's two and a pooled prompt."""

    hidden: Tensor
    """``(1, 77, width)``."""
    pooled: Tensor | None = None
    """``(1, width)``, for SDXL."""


def condition(models: Models, ids: Sequence[int]) -> Condition:
    """The condition of token ids, which stand between both ends and are cut after 75; they do not pass through text."""
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


def generators(seeds: Sequence[int]) -> list[Generator]:
    """A generator on the CPU for each image."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def noise(models: Models, draws: Sequence[Generator], height: int, width: int) -> Tensor:
    """Noise ``(B, 4, H / 8, W / 8)`` for a padded size, one image from each generator."""
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
        negative: of what classifier-free guidance keeps away from.
        guidance: its scale; there is none at 1 and below.
        control: a ControlNet's input.
        extra: channels ``(B, C, h, w)`` that go in beside the latents.
        adjust: changes predictions.

    Raises:
        BitstreamError: latents that are not finite.
    """
    guided = guidance > 1
    sides = [negative, positive] if guided else [positive]
    hidden = torch.cat([side.hidden.expand(len(latents), -1, -1) for side in sides])
    added = added_conditions(models, sides, latents)
    beside = [] if extra is None else [torch.cat([extra] * len(sides))]
    latents = latents * schedule.init_noise_sigma
    options = {"generator": list(draws)} if "generator" in inspect.signature(schedule.step).parameters else {}
    for step, time in enumerate(schedule.timesteps):
        seen = schedule.scale_model_input(torch.cat([latents] * len(sides)), time)
        hints = _hints(control, seen, time, hidden, added) if control else {}
        seen = torch.cat([seen, *beside], dim=1)
        prediction = models.unet(seen, time, encoder_hidden_states=hidden, added_cond_kwargs=added, **hints).sample
        if guided:
            away, towards = prediction.chunk(2)
            prediction = away + guidance * (towards - away)
        if adjust is not None:
            prediction = adjust(step, time, latents, prediction)
        latents = schedule.step(prediction, time, latents, return_dict=False, **options)[0]
    if not bool(torch.isfinite(latents).all()):
        raise BitstreamError("the latents are not finite: the bitstream is damaged, or was made by other weights")
    return latents


def _hints(control: Control, seen: Tensor, time: Tensor, hidden: Tensor, added: Any) -> dict[str, Any]:
    """The ControlNet's contributions to the U-Net's layers."""
    down, middle = control.network(
        seen,
        time,
        encoder_hidden_states=hidden,
        controlnet_cond=control.planes.to(seen.device, seen.dtype).expand(len(seen), -1, -1, -1),
        conditioning_scale=control.scale,
        added_cond_kwargs=added,
        return_dict=False,
    )
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def added_conditions(models: Models, sides: Sequence[Condition], latents: Tensor) -> dict[str, Tensor] | None:
    """SDXL's pooled prompts, and sizes: uncropped, as large as what is generated."""
    if not models.layout.pooled:
        return None
    count = len(latents)
    height, width = (side * models.factor for side in latents.shape[2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]], device=models.device, dtype=models.dtype)
    pooled = [side.pooled.expand(count, -1) for side in sides if side.pooled is not None]
    return {"text_embeds": torch.cat(pooled), "time_ids": sizes.expand(count * len(sides), -1)}


def images_of(models: Models, latents: Tensor, height: int, width: int) -> Iterable[Image]:
    """Images of scaled latents ``(B, 4, h, w)``, cut to a size; one at a time, so that none depends on its neighbours.

    Raises:
        BitstreamError: values that are not finite.
    """
    for image in latents[:, None]:
        planes = models.vae.decode(image.float() / models.vae.config.scaling_factor).sample
        yield to_images(FRAME.crop(planes / 2 + 0.5, height, width))[0]


def latents_of(models: Models, image: Image, seed: int | None = None) -> Tensor:
    """Scaled latents ``(1, 4, h, w)`` of an image, padded: the mean, or a draw with a seed."""
    planes = FRAME.pad(to_planes([image], models.device, torch.float32))
    posterior = models.vae.encode(planes * 2 - 1).latent_dist
    latents = posterior.mean
    if seed is not None:
        draw = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(seed))
        latents = latents + posterior.std * draw.to(models.device)
    return latents * models.vae.config.scaling_factor
