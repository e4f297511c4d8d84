"""Seeded noise, schedulers, and the one denoising loop of all generative codecs.

Noise is drawn on the CPU in single precision, whatever computes: a seed means the same noise on a GPU. Every image has
a generator of its own, so that its noise does not depend on the batch.

The schedulers are those of diffusers, set up as the versions of 2023 computed, for which the systems were made: the
last step ends at the smallest noise of training, not at none (``final_sigmas_type``, which came later), and steps are
spread evenly from end to end (``linspace``), but for DDIM, whose steps lead.

**A folder of the user's** says in its ``scheduler_config.json`` how its model was trained and is sampled. The codec's
``sampler`` names the class, as diffusers' ``from_config`` does; all that the folder states is obeyed, as there: betas,
prediction, spacing and offset of steps, zero terminal SNR, thresholding, where the last step ends. What the folder does
not state is diffusers' default where it was saved by the same class, else as above. Names that end in ``-trailing``
keep that spacing. ``sampler=saved`` takes the folder's own class, too. What the named class cannot obey, and what
diffusers does not know, is refused by name, and so is a class whose models are of another kind (flow matching).

Long encodes that survive a kill: their state is written now and then, and taken up by the same work.

The state lies in the cache, under a hash of all that decides the result; it is gone when the work is done. A state
that cannot be read counts as none, and a cache that cannot be written costs time, not the encode.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rdpbench.codecs.diffusion import bases
from rdpbench.codecs.diffusion.bases import BaseSizes
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.prompts import Condition
from rdpbench.errors import BitstreamError, ConfigError, RdpbenchError, StoreUnwritable
from rdpbench.needs import Need
from rdpbench.paths import cache_folder, written_whole

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
SAVED = "saved"
"""The sampler that a folder of the user's was saved with."""
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
    made = configured(models.layout.schedule, sampler)
    made.set_timesteps(steps, device=models.device)
    return made


def configured(schedule: Mapping[str, Any], sampler: str) -> Any:
    """A scheduler of `SAMPLERS` for the noise schedule of a published model, or for the configuration of a folder.

    Raises:
        ConfigError: a configuration that diffusers does not know, or that the sampler cannot obey; each value is named.
    """
    from rdpbench.codecs.diffusion.library import diffusers

    name, settings = SAMPLERS.get(sampler, ("", {}))
    stated = {key: value for key, value in schedule.items() if key != "_class_name"}
    if "_class_name" not in schedule:
        if not name:
            raise ConfigError(f"sampler={sampler}: a folder of yours has saved one; choose from {', '.join(SAMPLERS)}")
        return getattr(diffusers, name)(**{**stated, **settings})
    saved = str(schedule["_class_name"]) or name
    name = name or saved
    own, cls = getattr(diffusers, saved, None), getattr(diffusers, name, None)
    known = {*getattr(diffusers.DDIMScheduler, "_compatibles", ()), "DDIMScheduler"}
    if own is None or saved not in known or cls is None:
        raise ConfigError(
            f"scheduler_config.json: _class_name={saved!r} is no scheduler that Stable Diffusion is sampled with here; "
            f"known: {', '.join(sorted(known))}"
        )
    classes = (own, cls, *(getattr(diffusers, one) for one, _ in SAMPLERS.values()))
    takes = {at.__name__: _parameters(at) for at in classes}
    odd = [f"{key}={value!r}" for key, value in stated.items() if not any(key in names for names in takes.values())]
    lost = [key for key in DECIDING if stated.get(key) and key in takes[saved] and key not in takes[name]]
    if stated["prediction_type"] not in PREDICTED:
        odd.append(f"prediction_type={stated['prediction_type']!r}")
    if odd:
        raise ConfigError(
            f"scheduler_config.json: diffusers does not know {', '.join(odd)}; nothing is left out unsaid"
        )
    if lost:
        able = [one for one, (other, _) in SAMPLERS.items() if all(key in takes[other] for key in lost)]
        told = ", ".join(f"{key}={stated[key]!r}" for key in lost)
        raise ConfigError(
            f"scheduler_config.json: {told} is not for sampler={sampler} ({name}); "
            f"those that obey it: {', '.join([*able, SAVED])}"
        )
    given = stated if saved == name else {**settings, **stated}
    if sampler.endswith("-trailing"):
        given = {**given, "timestep_spacing": settings["timestep_spacing"]}
    try:
        return cls(**{key: value for key, value in given.items() if key in takes[name]})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ConfigError(f"scheduler_config.json does not make a {name}: {error}") from error


def _parameters(cls: Any) -> set[str]:
    import inspect

    return set(inspect.signature(cls.__init__).parameters) - {"self", "args", "kwargs"}


@dataclass(frozen=True)
class Schedule(Need):
    """The need for a folder's scheduler configuration that a sampler obeys: it is tried before anything is coded."""

    folder: str
    sampler: str
    steps: int

    def missing(self) -> str | None:
        """None if it does; else what it cannot."""
        import torch

        try:
            made = configured(bases.layout_of(self.folder).schedule, self.sampler)
            made.set_timesteps(self.steps)
            nothing = torch.zeros(1, 4, 2, 2)
            made.step(nothing, made.timesteps[0], nothing)
        except (RdpbenchError, ValueError, NotImplementedError, IndexError) as error:
            return f"{self.folder}: {error}"
        return None


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
    for step, moment in enumerate(schedule.timesteps):
        seen = schedule.scale_model_input(torch.cat([latents] * rounds), moment)
        hints = {} if control is None else _hints(control, seen, moment, hidden, added)
        if beside is not None:
            seen = torch.cat([seen, beside], dim=1)
        found = models.unet(seen, moment, encoder_hidden_states=hidden, added_cond_kwargs=added, **hints).sample
        if guided:
            away, towards = found.chunk(2)
            found = away + guidance * (towards - away)
        if adjust is not None:
            found = adjust(step, moment, latents, found)
        latents = schedule.step(found, moment, latents, return_dict=False, **options)[0]
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


def settings_of(layout: BaseSizes, sampler: str) -> dict[str, Any]:
    """What `scheduler` sets up, to be read: diffusers' class, and what it is given; of a folder, what that states, too.

    >>> from rdpbench.codecs.diffusion.bases import SD21
    >>> settings_of(SD21, "ddim")["steps_offset"]
    1
    """
    name, settings = SAMPLERS.get(sampler, ("", {}))
    if "_class_name" not in layout.schedule:
        return {"class": name, **layout.schedule, **settings}
    saved = str(layout.schedule["_class_name"]) or name
    return {"class": name or saved, **settings, **{k: v for k, v in layout.schedule.items() if k != "_class_name"}}


EVERY_S = 60.0
"""Between two writes; work that takes less leaves no trace."""


class Unfinished:
    """The state of one piece of work."""

    def __init__(self, what: Mapping[str, object], every_s: float = EVERY_S) -> None:
        """Take all that decides the result, as JSON can hold it."""
        key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        self.path: Path = cache_folder() / "unfinished" / f"{key}.safetensors"
        self._every_s = every_s
        self._written = time.monotonic()

    def load(self) -> dict[str, Tensor] | None:
        """The state of a run that was killed; None if there is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path)
        except (OSError, SafetensorError):
            return None

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
        """Forget the state."""
        with contextlib.suppress(OSError):
            self.path.unlink()
