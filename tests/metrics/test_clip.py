"""CLIP on tiny random networks: equal to a plain transformers computation, whatever else is in the batch."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics.clip import DCLIP, METRICS, CLIPImage, HesselScore, clip_score, hessel_score
from rdpbench.networks import clip
from rdpbench.networks.clip import (
    B32,
    H14,
    L14,
    L14_336,
    SHAPES,
    TOKENS,
    Clip,
    Shape,
    build_clip,
    configuration,
    load_clip,
    normalise,
    prepare,
    read_tokens,
    unit,
)
from rdpbench.networks.precision import exact

TINY = Shape(width=48, layers=2, heads=2, patch=8, side=32, text_width=32, text_layers=2, text_heads=2, dim=24)
SCORES = [registry.load("metric", name) for name in registry.BUILTIN["metric"] if name.startswith("clip-score/")]
CLIPScore = METRICS["clip-score/b32"]
CAPTIONS = ("A man in an orange suit", "an astronaut, smiling", "two dogs")


@pytest.fixture
def images(photograph, compress):
    shapes = [(90, 60), (50, 120), (32, 32), (77, 77), (20, 31), (200, 33)]
    return [photograph[100 : 100 + h, 150 : 150 + w] for h, w in shapes]


def openai(image):
    """OpenAI's preprocessing through torchvision, as its repository composes it."""
    import torch
    from PIL import Image as pil
    from torchvision import transforms

    steps = [
        transforms.Resize(TINY.side, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(TINY.side),
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
    return torch.stack([transforms.Compose(steps)(pil.fromarray(image))])


def plain_image(model, image):
    import torch

    with torch.no_grad():
        return model.get_image_features(openai(image)).pooler_output[0].numpy()


def plain_text(model, tokens, caption):
    import torch

    taken = tokens([caption], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model.get_text_features(**taken).pooler_output[0].numpy()


def plain_cosine(first, second):
    first, second = first.astype(np.float64), second.astype(np.float64)
    return first @ second / np.sqrt((first @ first) * (second @ second))


def test_the_scales_by_hand():
    image, caption = np.array([3.0, 4.0]), np.array([1.0, 0.0])
    assert clip_score(image, caption) == 60.0
    assert hessel_score(image, caption) == 1.5
    assert clip_score(image, -caption) == -60.0
    assert hessel_score(image, -caption) == 0.0
    assert clip_score(1e-3 * image, 1e3 * caption) == pytest.approx(60.0)


def test_images_equal_plain_transformers(model, tower, images):
    found = tower.image(images)
    assert found.shape == (6, TINY.dim)
    assert found.dtype == np.float32
    for image, row in zip(images, found, strict=True):
        assert row == pytest.approx(plain_image(model, image), abs=2e-5)
        # Bit for bit what OpenAI's transform gives.
        assert np.array_equal(normalise([prepare(image, TINY.side, "openai")]).numpy(), openai(image).numpy())
    assert tower.image([]).shape == (0, TINY.dim)


def test_near_to_the_usual_processor(images):
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(
        size={"shortest_edge": TINY.side}, crop_size={"height": TINY.side, "width": TINY.side}
    )
    for image in images[:4]:
        theirs = processor(image, return_tensors="np")["pixel_values"]
        steps = 255 * 0.27577711 * np.abs(normalise([prepare(image, TINY.side, "openai")]).numpy() - theirs)
        assert steps.max() < 1.1  # one grey level


def test_captions_equal_plain_transformers(model, tower, tokens):
    found = tower.text(CAPTIONS)
    for caption, row in zip(CAPTIONS, found, strict=True):
        assert row == pytest.approx(plain_text(model, tokens, caption), abs=2e-5)
    assert tower.text(()).shape == (0, TINY.dim)


@pytest.mark.parametrize("cls", SCORES)
def test_scores_equal_plain_transformers(model, tower, tokens, photograph, compress, cls):
    x = photograph[100:180, 180:300]
    metric = cls(tower)
    prepared = metric.prepare(x, captions=CAPTIONS)
    prefix = "A photo depicts " if "hessel" in cls.name else ""
    over = cls.name.rpartition("/")[2]
    for quality in (5, 50):
        y = compress(x, quality)
        cosines = [
            plain_cosine(plain_image(model, y), plain_text(model, tokens, prefix + caption)) for caption in CAPTIONS
        ]
        each = [2.5 * max(one, 0) if prefix else 100 * one for one in cosines]
        expected = {"gt-mean": np.mean(each), "gt-max": max(each)}.get(over, each[0])
        assert metric.score(prepared, y) == pytest.approx(expected, abs=1e-4, rel=1e-5)
    assert len({round(one, 3) for one in each}) == 3


def test_image_similarity_equals_plain_transformers(model, tower, photograph, compress):
    x = photograph[100:180, 180:300]
    near, far = CLIPImage(tower), DCLIP(tower)
    prepared = near.prepare(x)
    assert near.score(prepared, x) == pytest.approx(1, abs=1e-12)
    assert far.score(far.prepare(x), x) == pytest.approx(0, abs=1e-12)
    for quality in (3, 30):
        y = compress(x, quality)
        expected = plain_cosine(plain_image(model, x), plain_image(model, y))
        assert near.score(prepared, y) == pytest.approx(expected, abs=1e-6)
        assert far.score(prepared, y) == pytest.approx(1 - expected, abs=1e-6)
        assert 1 - expected > 1e-5


def test_batch_and_order_change_nothing(tower, images, monkeypatch):
    many = [*images, *(image[::-1] for image in images), *(image[:, ::-1] for image in images)]
    assert len(many) > clip.BATCH
    whole = tower.image(many)
    single = np.concatenate([tower.image([image]) for image in many])
    turned = tower.image(many[::-1])[::-1]
    monkeypatch.setattr(clip, "BATCH", 8)
    for other in (single, turned, tower.image(many)):
        assert np.abs(unit(whole) - unit(other)).max() < 1e-6
    assert np.abs(unit(tower.text(CAPTIONS)) - unit(tower.text(CAPTIONS[::-1]))[::-1]).max() == 0


def test_the_pooled_embedding_before_the_projection(model, tower, images):
    import torch

    found = tower.image(images, projected=False)
    assert found.shape == (6, TINY.width)
    with torch.no_grad():
        again = model.visual_projection(torch.tensor(found)).numpy()
    assert again == pytest.approx(tower.image(images), abs=1e-5)


def test_the_crop_of_cmmd(images):
    from PIL import Image as pil

    tall, wide = images[:2]
    for image in (tall, wide):
        height, width = image.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        square = pil.fromarray(image[top : top + short, left : left + short].copy())
        assert np.array_equal(prepare(image, 32, "cmmd"), square.resize((32, 32), pil.Resampling.BICUBIC))
        assert not np.array_equal(prepare(image, 32, "cmmd"), prepare(image, 32, "openai"))
    assert np.array_equal(prepare(images[2], 32, "cmmd"), images[2])


def test_one_reconstruction_runs_once_for_all_metrics(model, tower, photograph, compress):
    x = photograph[100:180, 180:300].copy()
    y = compress(x, 10).copy()
    calls = []
    hook = model.vision_model.register_forward_hook(lambda module, given, made: calls.append(1))
    metrics = [CLIPImage(tower), *(cls(tower) for cls in SCORES)]
    prepared = [metric.prepare(x, **({"captions": CAPTIONS} if metric is not metrics[0] else {})) for metric in metrics]
    assert len(calls) == 1
    first = [metric.score(side, y) for metric, side in zip(metrics, prepared, strict=True)]
    assert len(calls) == 2
    y[:] = 255 - y  # in place: the same object, another image
    second = [metric.score(side, y) for metric, side in zip(metrics, prepared, strict=True)]
    hook.remove()
    assert len(calls) == 3
    assert all(one != other for one, other in zip(first, second, strict=True) if one > 0)


def test_long_captions_are_cut_and_told(tower, tokens, photograph):
    x = photograph[:40, :40]
    long = "dog " * 80
    assert tower.truncated(["two dogs", long]) == (False, True)
    metric = CLIPScore(tower)
    prepared = metric.prepare(x, captions=(long, "a dog"))
    assert prepared.truncated == (True,)
    assert metric.remarks(prepared) == ("1 of 1 captions cut at 77 tokens",)
    assert metric.remarks(metric.prepare(x, captions=("a dog", long))) == ()
    cut = tokens([long], truncation=True, max_length=77)["input_ids"][0]
    assert len(cut) == 77
    assert cut[-1] == tokens.eos_token_id
    # What lies beyond does not count.
    assert np.array_equal(tower.text([long]), tower.text(["dog " * 90]))


def test_captions_are_needed(tower, photograph):
    for captions in ((), ("",), ("a dog", " \n")):
        with pytest.raises(MetricError, match="clip-score/b32 scores against reference captions, found"):
            CLIPScore(tower).prepare(photograph[:40, :40], captions=captions)


def test_broken_weights_give_no_number(model, tokens, photograph):
    import copy

    broken = copy.deepcopy(model)
    broken.visual_projection.weight.data[0, 0] = float("nan")
    with pytest.raises(MetricError, match="zero or not a number"):
        CLIPImage(Clip(broken, tokens)).prepare(photograph[:40, :40])
    with pytest.raises(MetricError, match="zero or not a number"):
        unit(np.zeros((1, 3)))


def test_sources_name_what_they_score():
    sources = [cls.source for cls in SCORES]
    assert len(set(sources)) == len(sources) == 9
    for cls in SCORES:
        word = {"gt-mean": "mean over references", "gt-max": "best reference"}
        assert word.get(cls.name.rpartition("/")[2], "first reference") in cls.source
        assert ("L/14" in cls.source) == ("/l14" in cls.name) == (cls.card is L14)
        assert ("2.5" in cls.source) == issubclass(cls, HesselScore)


# --- files of weights ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_vocabulary():
    """A tiny network with the published vocabulary, which is what files of weights hold."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    with torch.random.fork_rng():
        torch.manual_seed(2)
        return CLIPModel(CLIPConfig(**configuration(TINY))).eval()


def test_building_from_tensors(full_vocabulary, photograph):
    import torch

    tensors = dict(full_vocabulary.state_dict())
    # Older files hold the numbers of the positions too.
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    both, vision = build_clip(TINY, tensors), build_clip(TINY, tensors, text=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(tensor.requires_grad for tensor in (*both.parameters(), *vision.parameters()))
    assert sum(p.numel() for p in vision.parameters()) < sum(p.numel() for p in both.parameters()) / 2
    x = photograph[100:150, 200:280]
    expected = plain_image(full_vocabulary, x)
    for built in (both, vision):
        assert Clip(built).image([x])[0] == pytest.approx(expected, abs=1e-6)
    ids = torch.tensor([[49406, 320, 1929, 49407]])
    with torch.no_grad():
        ours, theirs = (network.get_text_features(ids).pooler_output for network in (both, full_vocabulary))
    assert torch.equal(ours, theirs)


def test_tensors_must_fit_exactly(full_vocabulary):
    import torch

    tensors = dict(full_vocabulary.state_dict())
    with pytest.raises(MetricError, match=r"do not fit its network:\n  visual_projection\.weight .* is missing"):
        build_clip(TINY, {name: tensor for name, tensor in tensors.items() if name != "visual_projection.weight"})
    with pytest.raises(MetricError, match=r"extra \(1,\) has no place"):
        build_clip(TINY, tensors | {"vision_model.extra": torch.zeros(1)}, text=False)
    with pytest.raises(MetricError, match=r"projection\.weight is \(24, 32\), must be \(25, 32\)"):
        build_clip(replace(TINY, dim=25), tensors)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_card_to_a_network_and_one_flipped_byte(full_vocabulary, photograph, tmp_path, monkeypatch, ending):
    import torch
    from safetensors.torch import save_file

    for name in ("TORCH_HOME", "RDPBENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME", "RDPBENCH_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    card = replace(B32, id="clip-tiny", file=f"model.{ending}")
    path = tmp_path / card.place
    path.parent.mkdir()
    (save_file if ending == "safetensors" else torch.save)(full_vocabulary.state_dict(), path)
    content = path.read_bytes()
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(SHAPES, card.id, TINY)
    x = photograph[100:150, 200:280]
    assert load_clip(card, text=False).image([x])[0] == pytest.approx(plain_image(full_vocabulary, x), abs=1e-6)
    with pytest.raises(MissingNeed, match="'clip-bpe' are not on this machine"):
        load_clip(card)
    with path.open("r+b") as file:
        file.seek(len(content) // 2)
        file.write(bytes([content[len(content) // 2] ^ 1]))
    with pytest.raises(MissingNeed, match="is not the file that its card names"):
        load_clip(card, text=False)


@pytest.mark.parametrize("card", [B32, L14, L14_336, H14])
def test_the_cards_sizes_are_those_of_the_networks(card):
    """float32 parameters and at most 200 kB around them; a wrong layer count, width or file would not fit."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        network = CLIPModel(CLIPConfig(**configuration(SHAPES[card.id])))
    around = card.bytes - 4 * sum(parameter.numel() for parameter in network.parameters())
    assert 50_000 < around < 200_000
    assert card.sha256 is not None
    assert len(card.sha256) == 64
    assert card.source.endswith(f"/resolve/{card.revision}/{card.file}")


def test_openais_tokens():
    """The table in OpenCLIP's wheel is the file that the card names; its tokenizer is OpenAI's."""
    open_clip = pytest.importorskip(
        "open_clip", reason="OpenCLIP carries OpenAI's table of tokens; it is not installed"
    )
    from pathlib import Path

    path = Path(open_clip.__file__).parent / TOKENS.file
    assert path.stat().st_size == TOKENS.bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == TOKENS.sha256
    ours, theirs = read_tokens(path), open_clip.tokenizer.SimpleTokenizer()
    assert len(ours) == 49408
    for caption in (
        "A photo depicts a dog's tail, 3 cats & 12 birds!",
        "  two   spaces\nand a line ",
        "Übergröße, čeština, 日本語, 😀",
        "DON'T we'll they're",
        "it's 1999... ok?! (really)",
        "a " * 100,
        "",
    ):
        taken = ours(caption)["input_ids"]
        assert taken == [49406, *theirs.encode(caption), 49407], caption


def test_full_precision_comes_and_goes():
    from torch.backends import cuda, cudnn

    def settings():
        return cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32

    before = settings()
    assert before[0]  # torch's default: convolutions on a GPU round

    def fail():
        with exact():
            inside.append(settings())
            raise ZeroDivisionError

    inside = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [(False, True, False, False)]
    assert settings() == before
