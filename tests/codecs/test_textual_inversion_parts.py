"""The parts of textual inversion alone: coding, guide and pull, search; on tiny networks of the real classes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rdpbench.codecs.diffusion import models, sampling
from rdpbench.codecs.diffusion import textual_inversion as guiding
from rdpbench.codecs.diffusion.codec import Unfinished
from rdpbench.codecs.diffusion.library import diffusers
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.textual_inversion import vectors as coding
from rdpbench.codecs.diffusion.textual_inversion import vectors as searching
from rdpbench.codecs.diffusion.textual_inversion.vectors import Objective, VectorSearch, condition, empty_prompt, search
from rdpbench.errors import BitstreamError, CodecError, ConfigError
from rdpbench.image import Image

pytestmark = pytest.mark.usefixtures("alone")

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Of compression guidance; for the tiny decoder, too, all are below overshoot."""


@pytest.fixture(params=["sd-1.5", "sd-2.1"])
def ready(request: pytest.FixtureRequest) -> Models:
    """One model that predicts noise, and one that predicts v."""
    return models.load_models(request.param, "random")


@pytest.fixture
def small(photograph: Image) -> Image:
    return np.ascontiguousarray(photograph[:70, :100])


@pytest.fixture
def square(photograph: Image) -> Image:
    """One that is generated at 64 x 64."""
    return np.ascontiguousarray(photograph[60:120, 40:103])


# Coding


def draws(kind: str) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(3)
    made = {
        "gaussian": rng.normal(size=(16, 768)),
        "laplace": rng.laplace(size=(16, 768)),
        "uniform": rng.uniform(-1, 1, (16, 768)),
        "outliers": rng.normal(size=(16, 768)) * np.where(rng.random((16, 768)) < 0.001, 100, 1),
        "tiny": 1e-3 * rng.normal(size=(16, 768)),
        "few": rng.normal(size=(1, 32)),
    }
    return made[kind].astype(np.float32)


@pytest.mark.parametrize("bits", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("kind", ["gaussian", "laplace", "uniform", "outliers", "tiny", "few"])
def test_any_vectors_fill_the_budget_and_come_back(kind: str, bits: float) -> None:
    values = draws(kind)
    budget = bits * values.size
    section = coding.pack(values, budget)
    length = len(section) - coding.HEAD
    assert length <= math.ceil(budget / 8)
    if kind != "few":
        assert length > 0.98 * budget / 8 - 8
    symbols, step = coding.read_section(section, values.shape[1])
    found = coding.unpack(section, values.shape[1])
    assert np.array_equal(symbols, coding.quantise(values, step))
    assert np.array_equal(found, symbols.astype(np.float32) * np.float32(step))
    assert np.abs(found - values).max() <= 2 / 3 * step * 1.001


def test_at_one_bit_a_normal_coefficient_loses_little_more_than_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its variance. The best of all codes would lose a quarter; plain rounding loses 0.47."""
    values = np.random.default_rng(0).normal(size=(16, 768)).astype(np.float32)
    lost = []
    for offset in (1 / 3, 1 / 2):
        monkeypatch.setattr(coding, "OFFSET", offset)
        section = coding.pack(values, values.size)
        lost.append(float(np.square(coding.unpack(section, 768) - values).mean() / np.square(values).mean()))
        assert len(section) - coding.HEAD <= 1536
    assert 0.25 < lost[0] < 0.37
    assert lost[1] > 1.2 * lost[0]


def test_the_length_is_what_adaptive_counts_make_it() -> None:
    """The closed form equals the product of the probabilities, symbol by symbol; the coder is within 1 %."""
    symbols = coding.quantise(draws("laplace"), 0.4)
    places = [[1, 1] for _ in range(coding.PLACES)]
    bits = 0.0
    for symbol in symbols.reshape(-1).tolist():
        for number, counts in enumerate(places):
            more = abs(symbol) > number
            bits -= math.log2(counts[more] / sum(counts))
            counts[more] += 1
            if not more:
                break
        else:
            bits += 2 * math.floor(math.log2(abs(symbol) - coding.PLACES + 1)) + 1
        bits += symbol != 0
    assert np.abs(symbols).max() > coding.PLACES
    assert coding.code_bits(symbols) == pytest.approx(bits, rel=1e-9)
    assert bits - 8 < 8 * len(coding.encode(symbols)) < 1.01 * bits + 16


def test_magnitudes_up_to_the_largest_come_back() -> None:
    row = [0, 1, -1, 14, -15, 16, 17, 18, -100, 65535, coding.LARGEST, -coding.LARGEST]
    symbols = np.array(row, np.int64)
    assert coding.decode(coding.encode(symbols), len(row)).tolist() == row
    assert coding.quantise(np.array([1e30, -np.float32(3e38)]), 1e-4).tolist() == [coding.LARGEST, -coding.LARGEST]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        some = np.round(rng.standard_cauchy(int(rng.integers(1, 200))) * 3).astype(np.int64).clip(-60000, 60000)
        assert np.array_equal(coding.decode(coding.encode(some), some.size), some)


def test_damaged_vectors_are_refused_or_are_vectors() -> None:
    section = coding.pack(draws("few"), 100)
    for damaged in (b"", section[:2], b"\0" + section[1:], b"\xff" + section[1:], section + bytes(4) + b"\1"):
        with pytest.raises(BitstreamError):
            coding.unpack(damaged, 32)
    for pattern in (0, 0x7C00, 0x7E00, 0x8001, 0xFBFF):
        with pytest.raises(BitstreamError, match="step"):
            coding.unpack(section[:1] + pattern.to_bytes(2, "big") + section[3:], 32)
    rng = np.random.default_rng(0)
    outcomes = {"vectors": 0, "errors": 0}
    for _ in range(300):
        try:
            assert coding.unpack(b"\1\x3c\0" + rng.bytes(int(rng.integers(0, 30))), 32).shape == (1, 32)
            outcomes["vectors"] += 1
        except BitstreamError:
            outcomes["errors"] += 1
    assert min(outcomes.values()) > 30


def test_vectors_that_cannot_be_sent_are_refused() -> None:
    with pytest.raises(CodecError, match="76 vectors cannot be sent"):
        coding.pack(np.zeros((76, 4), np.float32), 100)
    with pytest.raises(CodecError, match="not finite"):
        coding.pack(np.full((2, 4), np.nan, np.float32), 100)


# Guide and pull


def test_a_guide_is_means_of_squares(photograph: Image) -> None:
    image = np.ascontiguousarray(photograph[:10, :13])
    guide = guiding.small(image, 4)
    assert guide.shape == (3, 4, 3) == (*guiding.guide_size(10, 13, 4), 3)
    assert guide[1, 2].tolist() == [math.floor(one + 0.5) for one in image[4:8, 8:12].reshape(16, 3).mean(axis=0)]
    corner = image[8:10, 12].astype(float)
    assert guide[2, 3].tolist() == [math.floor(one + 0.5) for one in (corner[0] + 3 * corner[1]) / 4]
    assert np.array_equal(guiding.small(image, 1), image)
    assert guiding.small(image[:1, :1], 64).tolist() == image[:1, :1].tolist()
    planes = torch.from_numpy(photograph.transpose(2, 0, 1).copy())[None].double()
    means = guiding.block_means(planes, 8)[0].numpy().transpose(1, 2, 0)
    assert np.array_equal(np.floor(means + 0.5), guiding.small(photograph, 8))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler-trailing", "euler-ancestral-trailing"])
def test_clean_latents_are_those_of_the_scheduler(ready: Models, sampler: str) -> None:
    schedule = sampling.scheduler(ready, sampler, 10)
    draw = torch.Generator().manual_seed(0)
    kind = ready.layout.schedule["prediction_type"]
    latents = torch.randn(1, 4, 8, 8, generator=draw) * schedule.init_noise_sigma
    for time in schedule.timesteps:
        prediction, change = (torch.randn(1, 4, 8, 8, generator=draw) for _ in range(2))
        alpha = schedule.alphas_cumprod[round(float(time))]
        noisy = schedule.scale_model_input(latents, time)
        found = guiding.clean(kind, noisy, prediction, alpha)
        moved = guiding.clean(kind, noisy, guiding.shifted(kind, prediction, change, alpha), alpha)
        assert torch.allclose(moved, found + change, rtol=1e-3, atol=1e-3)
        step = schedule.step(prediction, time, latents, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(found, step.pred_original_sample, rtol=1e-3, atol=1e-3)
        latents = step.prev_sample


def pull_of(ready: Models, image: Image, strength: float = 1.0, factor: int = 4) -> guiding.Pull:
    return guiding.Pull(ready, guiding.small(image, factor), factor, strength, sampling.scheduler(ready, "ddim", 4))


def in_double(ready: Models) -> Models:
    return replace(ready, vae=copy.deepcopy(ready.vae).double())


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_the_pull_is_the_gradient_of_the_stated_distance(small: Image, factor: int) -> None:
    """Against the formula written out in NumPy, and against its differences in double precision."""
    ready = models.load_models("sd-1.5", "random")
    pull = pull_of(ready, small, factor=factor)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    gradient = pull.gradient(latents)
    exact = pull_of(in_double(ready), small, factor=factor)
    exact._guide = exact._guide.double()
    with torch.no_grad():
        planes = exact._models.vae.decode(latents.double() / 0.18215).sample.numpy()
    guide = guiding.small(small, factor)
    rows, columns = guide.shape[:2]
    for number in range(2):
        squares = planes[number].reshape(3, 128 // factor, factor, 128 // factor, factor).mean(axis=(2, 4))
        error = squares[:, :rows, :columns] - (guide.transpose(2, 0, 1) / 127.5 - 1)
        value = (factor / 8) ** 2 / 2 * np.square(error).sum()
        along = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(number)).double()
        with torch.no_grad():
            at = latents[number : number + 1].double()
            assert float(exact.distance(at)) == pytest.approx(value, rel=1e-6)
            difference = (exact.distance(at + 1e-5 * along) - exact.distance(at - 1e-5 * along)) / 2e-5
        assert float((gradient[number] * along[0]).sum()) == pytest.approx(float(difference), rel=1e-3)


def test_one_step_goes_nearer_the_stronger_it_is_until_it_overshoots(ready: Models, small: Image) -> None:
    """The distance falls over the stated strengths, and grows where the decoder's steepest direction says it must."""
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pull = pull_of(ready, small)
    gradient = pull.gradient(latents)
    with torch.no_grad():
        distances = [float(pull.distance(latents - strength * gradient)) for strength in STRENGTHS]
    assert distances == sorted(distances, reverse=True)
    assert len(set(distances)) == len(STRENGTHS)
    with torch.no_grad():
        far = [float(pull.distance(latents - strength * gradient)) for strength in (100.0, 1000.0)]
    assert distances[-1] < far[0] < far[1]


def test_each_image_of_a_batch_is_pulled_alone(small: Image) -> None:
    ready = models.load_models("sd-1.5", "random")
    pull = pull_of(ready, small)
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    together = pull.gradient(latents)
    assert all(torch.equal(together[n : n + 1], pull.gradient(latents[n : n + 1])) for n in range(3))


def test_guides_of_a_wrong_size_and_unknown_predictions_are_refused(small: Image) -> None:
    with pytest.raises(BitstreamError, match=r"\(70, 100, 3\), where \(18, 25, 3\) is due"):
        guiding.check_guide(small, 70, 100, 4)
    ready = models.load_models("sd-1.5", "random")
    other = replace(
        ready, layout=replace(ready.layout, schedule={**ready.layout.schedule, "prediction_type": "sample"})
    )
    with pytest.raises(ConfigError, match="predicts 'sample'; textual inversion knows epsilon and v_prediction"):
        guiding.check_prediction(other)


# VectorSearch


def objective_of(ready: Models, image: Image, seed: int = 0) -> Objective:
    with torch.inference_mode():
        return Objective(ready, sampling.latents_of(ready, image), seed)


def test_the_objective_falls_below_that_of_no_words_and_of_any_words(ready: Models, square: Image) -> None:
    """Over draws that the search does not see, for what is sent; random vectors of the same code do not help."""
    objective = objective_of(ready, square)
    settings = VectorSearch(vectors=8, steps=30, learning_rate=0.05)
    width = searching.width_of(ready)
    free = search(objective, width, settings)
    sent = coding.unpack(coding.pack(free, settings.budget(width)), width)
    nothing, found = objective.probe(torch.zeros(8, width)), objective.probe(torch.from_numpy(sent))
    rng = np.random.default_rng(0)
    shuffled = [
        objective.probe(torch.from_numpy(rng.permutation(sent.reshape(-1)).reshape(sent.shape))) for _ in range(5)
    ]
    assert found < nothing
    assert found < min(shuffled)
    assert nothing - found > 2 * (nothing - float(np.mean(shuffled)))


def plain(
    ready: Models, latents: torch.Tensor, seed: int, settings: VectorSearch, steps: int
) -> list[np.ndarray[Any, Any]]:
    """The loop as the module's head states it, Adam written out, with diffusers' own noising."""
    schedule = diffusers.DDPMScheduler(**ready.layout.schedule)
    width = searching.width_of(ready)
    words = ready.vocabulary
    ids = torch.tensor([words.sequence([], ready.layout.pads[0])])
    hidden = ready.texts[0](ids).last_hidden_state.detach()
    free = np.zeros((settings.vectors, width))
    first, second = np.zeros_like(free), np.zeros_like(free)
    out = []
    for step in range(steps):
        draw = torch.Generator().manual_seed(seed * 2**24 + step)
        spread = (torch.rand(settings.batch, generator=draw) + torch.arange(settings.batch)) / settings.batch
        times = (1000 * spread).long()
        noise = torch.randn(settings.batch, *latents.shape[1:], generator=draw)
        step_size = coding.fit_step(free.astype(np.float32), settings.bits * free.size)
        numbers = np.sign(free) * np.floor(np.abs(free.astype(np.float32).astype(float)) / step_size + 1 / 3)
        vectors = torch.from_numpy(numbers * step_size).float().requires_grad_()
        seen = torch.cat(
            [hidden[0, :1], hidden[0, 1 : 1 + settings.vectors] + vectors, hidden[0, 1 + settings.vectors :]]
        )
        noisy = schedule.add_noise(latents.expand(settings.batch, -1, -1, -1), noise, times)
        due = noise
        if ready.layout.schedule["prediction_type"] == "v_prediction":
            due = schedule.get_velocity(latents.expand(settings.batch, -1, -1, -1), noise, times)
        found = ready.unet(noisy, times, encoder_hidden_states=torch.stack([seen] * settings.batch)).sample
        [gradient] = torch.autograd.grad((found - due).square().sum() / settings.batch, vectors)
        taken = gradient.numpy().astype(float)
        first = 0.9 * first + 0.1 * taken
        second = 0.999 * second + 0.001 * taken**2
        scaled = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
        free = free - settings.learning_rate * (1 - step / settings.steps) * scaled
        out.append(free)
    return out


def test_every_step_is_the_stated_one(ready: Models, square: Image) -> None:
    settings = VectorSearch(vectors=3, bits=2, steps=10, batch=3, learning_rate=0.02)
    objective = objective_of(ready, square, seed=5)
    expected = plain(ready, objective._latents, 5, settings, 6)
    state = searching.SearchedVectors(objective, searching.width_of(ready), settings, "cpu")
    for free in expected:
        with torch.inference_mode(False), torch.enable_grad():
            state.advance()
        assert np.allclose(state.free.detach().numpy(), free, rtol=0, atol=2e-4)
    assert np.abs(expected[-1]).max() > 0.02


def test_zeros_are_the_empty_prompt_and_vectors_stand_behind_its_first_state() -> None:
    ready = models.load_models("sdxl", "random")
    empty = empty_prompt(ready)
    assert torch.equal(condition(empty, torch.zeros(5, 64)).hidden, empty.hidden)
    moved = condition(empty, torch.ones(5, 64)).hidden - empty.hidden
    assert [bool(one.abs().sum() > 0) for one in moved[0]] == [False] + 5 * [True] + 71 * [False]


@pytest.mark.parametrize("seed", [0, 2**62])
def test_a_search_that_was_killed_ends_where_it_would_have(square: Image, seed: int) -> None:
    ready = models.load_models("sd-1.5", "random")
    settings = VectorSearch(vectors=2, steps=6, batch=1)
    whole = search(objective_of(ready, square, seed), 32, settings)
    unfinished = Unfinished({"of": "test"}, every_s=0)
    steps = []

    def killed(step: int, error: float) -> None:
        steps.append(step)
        if step == 4 and len(steps) < 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(objective_of(ready, square, seed), 32, settings, on_step=killed, unfinished=unfinished)
    assert unfinished.path.is_file()
    again = search(objective_of(ready, square, seed), 32, settings, on_step=killed, unfinished=unfinished)
    assert steps == [1, 2, 3, 4, 4, 5, 6]
    assert np.array_equal(again, whole)
    assert not unfinished.path.exists()
    for foreign in ({"free": torch.zeros(2, 32)}, {"free": torch.zeros(1), "step": torch.tensor(3), "error": whole[0]}):
        unfinished.save({name: torch.as_tensor(one) for name, one in foreign.items()})
        assert np.array_equal(search(objective_of(ready, square, seed), 32, settings, unfinished=unfinished), whole)


def test_a_network_that_is_broken_is_told(square: Image) -> None:
    ready = models.load_models("sd-1.5", "random")
    broken = replace(ready, unet=copy.deepcopy(ready.unet))
    broken.unet.conv_out.bias.data.fill_(torch.nan)
    with pytest.raises(CodecError, match="loss is not finite"):
        search(objective_of(broken, square), 32, VectorSearch(vectors=1, steps=2))
