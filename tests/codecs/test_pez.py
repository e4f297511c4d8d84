"""Prompt inversion on a tiny CLIP: it optimises, it is the published loop, it is seeded, it survives a kill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rdpbench.codecs.diffusion import models
from rdpbench.codecs.diffusion.codec import Unfinished
from rdpbench.codecs.diffusion.pic.pez import Prompt, PromptSearch, PromptSpace, invert
from rdpbench.errors import CodecError
from rdpbench.image import Image
from rdpbench.networks.clip import Clip, unit
from rdpbench.networks.precision import reproducible

QUICK = PromptSearch(length=6, steps=25)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def space() -> PromptSpace:
    return PromptSpace(models.clip_network("clip-vit-h-14-laion2b-s32b-b79k", "random"))


@pytest.fixture(scope="module")
def double() -> PromptSpace:
    """The same network in double precision, where sums in another order do not end in other words."""
    ends = {
        "vocab_size": models.TINY_TOKENS,
        "bos_token_id": models.TINY_TOKENS - 2,
        "eos_token_id": models.TINY_TOKENS - 1,
    }
    sizes = {"projection_dim": 24, "text_config": {**models.CLIP_TEXT, **ends}, "vision_config": models.CLIP_VISION}
    network = models.draw_weights(models.clip_model(sizes), seed=5).double()
    network.vision_model.float()
    network.visual_projection.float()
    return PromptSpace(Clip(network))


@pytest.fixture
def images(photograph: Image) -> list[Image]:
    return [np.ascontiguousarray(one) for one in (photograph, photograph[::-1, :100], photograph[:90, ::-1])]


def random_cosines(space: PromptSpace, image: Image, count: int, length: int) -> torch.Tensor:
    ids = torch.randint(models.TINY_TOKENS, (count, length), generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(unit(space.clip.image([image]))[0]).float()
    with torch.no_grad():
        return space.embed(space.words[ids]) @ target


def test_the_search_finds_what_no_random_prompt_is(space: PromptSpace, images: list[Image]) -> None:
    heard: list[float] = []
    [found] = invert(space, images[:1], [0], PromptSearch(steps=150), on_step=lambda _, cosine: heard.append(cosine))
    others = random_cosines(space, images[0], 2000, 16)
    assert found.cosine > others.max() + 0.1
    assert found.cosine > heard[0] + 0.2
    assert heard == sorted(heard)
    assert len(heard) == 150


def test_the_cosine_is_that_of_the_ids_that_are_sent(space: PromptSpace, images: list[Image]) -> None:
    """Through the class's own way for ids: no vectors, no hook, filled up to 77."""
    from rdpbench.codecs.diffusion.bases import byte_vocabulary

    words = byte_vocabulary()
    model = space.clip.model
    for image, found in zip(images, invert(space, images, [3, 4, 5], QUICK), strict=True):
        ids = torch.tensor([words.sequence(found.ids, pad=0)])
        with torch.no_grad():
            text = model.text_projection(model.text_model(ids).last_hidden_state[0, len(found.ids) + 1]).numpy()
        [target], [row] = unit(space.clip.image([image])), unit(text[None])
        assert found.cosine == pytest.approx(float(row @ target), abs=1e-5)
        assert len(found.ids) == QUICK.length


def plain(
    space: PromptSpace, image: Image, seed: int, search: PromptSearch
) -> tuple[list[list[int]], list[Any], Prompt]:
    """The loop as the paper states it: one image, 77 places, AdamW written out, no hook: words get new rows."""
    model, size, length = space.clip.model, models.TINY_TOKENS, search.length
    table = model.text_model.embeddings.token_embedding.weight.detach()
    target = torch.from_numpy(unit(space.clip.image([image]))[0])
    start = torch.randint(size, (length,), generator=torch.Generator().manual_seed(seed))
    free = table[start].clone()
    first, second = torch.zeros_like(free), torch.zeros_like(free)
    places = torch.tensor([[size - 2, *range(size, size + length), size - 1, *[0] * (75 - length)]])
    projections, vectors, best = [], [], Prompt((), -np.inf)
    for step in range(1, search.steps + 1):
        away = free[:, None] / free.norm(dim=1)[:, None, None] - table[None] / table.norm(dim=1)[None, :, None]
        ids = away.square().sum(-1).argmin(1)
        projections.append(ids.tolist())
        rows = torch.nn.Parameter(torch.cat([table, table[ids]]))
        model.text_model.embeddings.token_embedding.weight = rows
        try:
            embedding = model.text_projection(model.text_model(places).last_hidden_state[0, length + 1])
        finally:
            model.text_model.embeddings.token_embedding.weight = torch.nn.Parameter(table, requires_grad=False)
        cosine = embedding @ target / embedding.norm()
        [gradient] = torch.autograd.grad(1 - cosine, rows)
        gradient = gradient[size:]
        if cosine > best.cosine:
            best = Prompt(tuple(ids.tolist()), float(cosine.detach()))
        free = free * (1 - search.learning_rate * search.weight_decay)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scaled = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        free = free - search.learning_rate * scaled
        vectors.append(free)
    return projections, vectors, best


def test_every_step_is_that_of_the_paper(double: PromptSpace, images: list[Image]) -> None:
    """The gradient is taken at the words and applied to the free vectors; both are followed step by step."""
    from rdpbench.codecs.diffusion.pic.pez import SearchedPrompts

    projections, vectors, best = plain(double, images[0], 7, QUICK)
    target = torch.from_numpy(unit(double.clip.image(images[:1])))
    state = SearchedPrompts(double, target, [7], QUICK)
    for ids, free in zip(projections, vectors, strict=True):
        assert double.nearest(state.free.detach())[0].tolist() == ids
        state.advance()
        assert torch.allclose(state.free[0], free, rtol=0, atol=1e-12)
    assert len({tuple(ids) for ids in projections}) > 5
    assert tuple(state.best[0].tolist()) == best.ids
    assert float(state.cosines[0]) == pytest.approx(best.cosine, abs=1e-12)
    # Were it taken at the free vectors themselves, they would go elsewhere.
    other = SearchedPrompts(double, target, [7], QUICK)
    other.advance()
    free = other.free.detach().clone().requires_grad_()
    [there] = torch.autograd.grad((1 - (double.embed(free) * other.targets).sum(-1)).sum(), [free])
    other.advance()
    assert other.free.grad is not None
    assert not torch.allclose(there, other.free.grad, rtol=1e-2)


def test_many_images_at_once_find_what_each_finds_alone(double: PromptSpace, images: list[Image]) -> None:
    together = invert(double, images, [1, 2, 3], QUICK)
    alone = [invert(double, [image], [seed], QUICK)[0] for image, seed in zip(images, [1, 2, 3], strict=True)]
    assert [one.ids for one in together] == [one.ids for one in alone]
    # The images' own embeddings are computed in single precision, and depend on the batch by so much.
    assert [one.cosine for one in together] == pytest.approx([one.cosine for one in alone], abs=1e-6)


def test_in_single_precision_a_batch_stays_near_for_some_steps(space: PromptSpace, images: list[Image]) -> None:
    few = PromptSearch(length=6, steps=10)
    together = invert(space, images, [1, 2, 3], few)
    alone = [invert(space, [image], [seed], few)[0] for image, seed in zip(images, [1, 2, 3], strict=True)]
    assert [one.cosine for one in together] == pytest.approx([one.cosine for one in alone], abs=1e-4)


def test_a_seed_is_a_prompt(space: PromptSpace, images: list[Image]) -> None:
    torch.manual_seed(1)
    first = invert(space, images[:1], [11], QUICK)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert invert(space, images[:1], [11], QUICK) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert invert(space, images[:1], [12], QUICK)[0].ids != first[0].ids
    with reproducible():  # torch infers only: the search has gradients all the same
        assert invert(space, images[:1], [11], QUICK) == first


def test_a_killed_search_goes_on_to_the_same_prompt(
    space: PromptSpace, images: list[Image], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path))
    whole = invert(space, images, [1, 2, 3], QUICK)

    def kill(step: int, _: float) -> None:
        if step == 17:
            raise KeyboardInterrupt

    work = Unfinished({"of": "a test"}, every_s=0)
    with pytest.raises(KeyboardInterrupt):
        invert(space, images, [1, 2, 3], QUICK, on_step=kill, unfinished=work)
    state = work.load()
    assert state is not None
    assert int(state["step"]) == 16
    steps: list[int] = []
    again = Unfinished({"of": "a test"}, every_s=0)
    found = invert(space, images, [1, 2, 3], QUICK, on_step=lambda step, _: steps.append(step), unfinished=again)
    assert found == whole
    assert steps == list(range(17, 26))
    assert not again.load()
    # What is no state of this work is not looked at.
    again.path.write_bytes(b"damaged")
    assert invert(space, images, [1, 2, 3], QUICK, unfinished=again) == whole
    again.save(
        {"free": torch.zeros(1, 6, 32), "best": state["best"], "cosines": state["cosines"], "step": state["step"]}
    )
    assert invert(space, images, [1, 2, 3], QUICK, unfinished=again) == whole


def test_what_cannot_be_searched_is_refused(space: PromptSpace, images: list[Image]) -> None:
    with pytest.raises(CodecError, match="1 to 75 tokens"):
        invert(space, images[:1], [0], PromptSearch(length=76))
    with pytest.raises(CodecError, match="at least one step"):
        invert(space, images[:1], [0], PromptSearch(steps=0))
    assert invert(space, images[:1], [0], PromptSearch(length=75, steps=1))[0].cosine > -1
