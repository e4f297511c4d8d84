"""The scheduler of a folder with a base model: obeyed as diffusers obeys it, or refused by name."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rdpbench.codecs.diffusion import bases, sampling
from rdpbench.codecs.diffusion.bases import BASES
from rdpbench.codecs.diffusion.library import diffusers
from rdpbench.codecs.diffusion.pic import PIC
from rdpbench.errors import ConfigError

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SAMPLER_OF = {
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "pndm",
    "EulerDiscreteScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpm-solver++",
    "UniPCMultistepScheduler": "unipc",
    "EulerAncestralDiscreteScheduler": sampling.SAVED,
    "HeunDiscreteScheduler": sampling.SAVED,
    "DDPMScheduler": sampling.SAVED,
}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
VALUES: list[dict[str, Any]] = [
    {},
    {"prediction_type": "v_prediction"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
    {"steps_offset": 3},
    {"trained_betas": [0.001 + 0.00001 * step for step in range(1000)]},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"num_train_timesteps": 500},
    ZERO,
    {"set_alpha_to_one": False},
    {"clip_sample": False},
    {"clip_sample": True, "clip_sample_range": 0.5},
    {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9},
    {"prediction_type": "sample"},
    {"final_sigmas_type": "zero"},
    {"use_karras_sigmas": True},
    {"solver_order": 1},
    {"skip_prk_steps": True},
]


def run(schedule: Any, steps: int = 5) -> torch.Tensor:
    """Steps, noises and latents of a loop with a network of no weights, in one tensor."""
    schedule.set_timesteps(steps)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1)) * schedule.init_noise_sigma
    draws = "generator" in inspect.signature(schedule.step).parameters
    options = {"generator": [torch.Generator().manual_seed(2)]} if draws else {}
    seen = [schedule.timesteps.float().flatten()]
    for time in schedule.timesteps:
        found = torch.tanh(schedule.scale_model_input(latents, time))
        latents = schedule.step(found, time, latents, return_dict=False, **options)[0]
        seen.append(latents.flatten())
    return torch.cat(seen)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", SAMPLER_OF)
def test_a_scheduler_that_diffusers_saved_is_what_it_was(name: str, tmp_path: Path) -> None:
    cls: Any = getattr(diffusers, name)
    count = 0
    for number, values in enumerate(VALUES):
        if not set(values) <= sampling._parameters(cls):
            continue
        root = tmp_path / f"{name}-{number}"
        cls(**{**STABLE, **values}).save_pretrained(root / "scheduler")
        expected = outcome(lambda at=root: cls.from_pretrained(at, subfolder="scheduler"))
        stated = json.loads((root / "scheduler" / "scheduler_config.json").read_text())
        schedule = {"prediction_type": "epsilon", **stated}
        for sampler in {SAMPLER_OF[name], sampling.SAVED}:
            found = outcome(
                lambda at=schedule, by=sampler: sampling.configured(
                    {key: value for key, value in at.items() if key == "_class_name" or key[0] != "_"}, by
                )
            )
            assert (expected is None) == (found is None), (name, values)
            assert expected is None or torch.equal(expected, found), (name, values)  # type: ignore[arg-type]
        count += expected is not None
    assert count >= 8


def outcome(make: Any) -> torch.Tensor | None:
    """What a scheduler gives; None where diffusers itself cannot."""
    try:
        return run(make())
    except (ValueError, NotImplementedError):
        return None


def written(folder: Path, **values: Any) -> str:
    """A folder whose scheduler states these values, and nothing else that is looked at here."""
    for part, config in (("unet", {}), ("vae", {}), ("text_encoder", {"vocab_size": 49408}), ("scheduler", values)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / name).write_text(json.dumps(config))
    return str(folder)


def test_another_class_takes_all_that_the_folder_states(tmp_path: Path) -> None:
    """As diffusers' ``from_config``: a zero-SNR model starts at the last step, whichever class samples it."""
    folder = written(tmp_path, _class_name="EulerDiscreteScheduler", **STABLE, **ZERO)
    stated = bases.layout_of(folder).schedule
    for sampler, cls in (("ddim", diffusers.DDIMScheduler), ("dpm-solver++", diffusers.DPMSolverMultistepScheduler)):
        made = sampling.configured(stated, sampler)
        made.set_timesteps(20)
        assert int(made.timesteps[0]) == 999
        own = {key: value for key, value in stated.items() if key != "_class_name"}
        assert torch.equal(made.alphas_cumprod, cls.from_config(own).alphas_cumprod)
    # What it does not state is as the systems were published, where another class was saved.
    plain = written(tmp_path / "plain", _class_name="PNDMScheduler", **STABLE, steps_offset=1, clip_sample=False)
    made = sampling.configured(bases.layout_of(plain).schedule, "dpm-solver++")
    assert made.config.final_sigmas_type == "sigma_min"
    assert sampling.configured(bases.layout_of(plain).schedule, "ddim-trailing").config.timestep_spacing == "trailing"
    assert type(sampling.configured(bases.layout_of(plain).schedule, sampling.SAVED)).__name__ == "PNDMScheduler"


@pytest.mark.parametrize(
    ("values", "sampler", "says"),
    [
        ({"_class_name": "PNDMScheduler", "magic": 3}, "ddim", r"diffusers does not know magic=3"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "ddim",
            "'FlowMatchEulerDiscreteScheduler' is no scheduler",
        ),
        ({"_class_name": "AutoencoderKL"}, "saved", "'AutoencoderKL' is no scheduler"),
        ({"_class_name": "MineScheduler"}, "saved", "'MineScheduler' is no scheduler"),
        ({"_class_name": "DDIMScheduler", **ZERO}, "pndm", "rescale_betas_zero_snr=True is not for sampler=pndm"),
        ({"_class_name": "DDIMScheduler", "thresholding": True}, "euler", "thresholding=True is not for sampler=euler"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "flow"}, "ddim", "know prediction_type='flow'"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "odd"}, "ddim", "does not make a DDIMScheduler: odd"),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "odd"}, "ddim", "odd is not supported"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(
    values: dict[str, Any], sampler: str, says: str, tmp_path: Path
) -> None:
    text = sampling.Schedule(written(tmp_path, **values), sampler, 20).missing()
    assert says in str(text), text
    assert any(isinstance(need, sampling.Schedule) for need in PIC(base=str(tmp_path)).weight_needs())


def test_published_models_keep_their_schedules() -> None:
    for base in BASES.values():
        assert "_class_name" not in base.layout.schedule
    made = sampling.configured(BASES["sd-2.1"].layout.schedule, "ddim")
    made.set_timesteps(20)
    assert int(made.timesteps[0]) == 951
    with pytest.raises(ConfigError, match="a folder of yours has saved one"):
        sampling.configured(BASES["sd-2.1"].layout.schedule, sampling.SAVED)
