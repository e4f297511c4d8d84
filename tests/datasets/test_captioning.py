"""Captions by models: tiny BLIP and BLIP-2 of the real classes with random weights, through the whole path."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as pil

from rdpbench.assets.hashes import file_sha256
from rdpbench.datasets import captioning
from rdpbench.datasets.captioning import (
    CARDS,
    CaptionSettings,
    ModelCard,
    cache_file,
    captioner_identity,
    label,
    locate,
    revision,
)
from rdpbench.datasets.captions import Caption, captions_of, parse, survey
from rdpbench.datasets.folder import ImageFolder
from rdpbench.datasets.index import Entry, index
from rdpbench.errors import ConfigError, ImageError, MissingNeed
from rdpbench.image import Image, read_image

SIDE = {"blip": 32, "blip2": 28}
WORDS = 64
END_OF_LINE = 5


def _make_blip(folder: Path, seed: int) -> None:
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

    torch.manual_seed(seed)
    common = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = BlipVisionConfig(**common, image_size=SIDE["blip"], patch_size=16, initializer_range=0.5)
    text = BlipTextConfig(
        **common,
        vocab_size=WORDS,
        encoder_hidden_size=16,
        bos_token_id=WORDS - 2,
        eos_token_id=2,
        sep_token_id=3,
        pad_token_id=0,
        initializer_range=0.5,
    )
    BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text)).save_pretrained(folder)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{k}" for k in range(5, WORDS))]
    BertTokenizer(vocab={name: k for k, name in enumerate(names)}).save_pretrained(folder)


def _make_blip2(folder: Path, seed: int) -> None:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        GPT2Tokenizer,
        OPTConfig,
    )

    torch.manual_seed(seed)
    common = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "initializer_range": 0.5}
    vision = Blip2VisionConfig(**common, num_hidden_layers=1, image_size=SIDE["blip2"], patch_size=14)
    queries = Blip2QFormerConfig(**common, num_hidden_layers=2, vocab_size=10, encoder_hidden_size=16)
    text = OPTConfig(
        vocab_size=WORDS,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=2,
        pad_token_id=1,
        eos_token_id=END_OF_LINE,  # as in the real one, whose captions end with a line
        init_std=0.5,
    )
    # The real configuration names no image token either.
    config = Blip2Config(vision_config=vision, qformer_config=queries, text_config=text, num_query_tokens=4)
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ċ", *(f"Ġword{k}" for k in range(6, WORDS))]
    GPT2Tokenizer(
        vocab={name: k for k, name in enumerate(names)},
        merges=[],
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
    ).save_pretrained(folder)


def _make(folder: Path, name: str, seed: int = 24) -> Path:
    from transformers import BlipImageProcessorPil

    {"blip": _make_blip, "blip2": _make_blip2}[name](folder, seed)
    side = SIDE[name]
    BlipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each model."""
    return {name: _make(tmp_path_factory.mktemp("models") / name, name) for name in ("blip", "blip2")}


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own and no models of the user's."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("RDPBENCH_WEIGHTS", raising=False)


@pytest.fixture
def entries(clean: None, images: Callable[..., Path]) -> list[Entry]:
    """Four images of the same size, one of another."""
    folder = images(4)
    pil.fromarray(np.full((90, 33, 3), 120, np.uint8)).save(folder / "plain.png")
    return index(ImageFolder(str(folder)))


def _captions(name: str, entries: list[Entry], settings: CaptionSettings) -> dict[str, Caption]:
    found = captions_of(
        parse(name), entries, dataset="pictures", protocol="as-is", settings=settings, progress=lambda done, whole: None
    )
    return dict(found.by_id)


def _tensor(image: Image, side: int) -> torch.Tensor:
    """What the published models see, with Pillow and torch alone (1, 3, side, side)."""
    small = np.asarray(pil.fromarray(image).resize((side, side), pil.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, spread = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    return torch.from_numpy(((small - mean) / spread).astype(np.float32)).permute(2, 0, 1)[None]


@torch.inference_mode()
def _greedy_blip2(folder: Path, image: Image, limit: int) -> list[int]:
    """Greedy decoding of BLIP-2 as its paper draws it: features, then text; without `generate` and its cache."""
    from transformers import Blip2ForConditionalGeneration

    model: Any = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    seen = model.vision_model(_tensor(image, SIDE["blip2"])).last_hidden_state
    mask = torch.ones(seen.shape[:2], dtype=torch.long)
    asked = model.qformer(
        query_embeds=model.query_tokens, encoder_hidden_states=seen, encoder_attention_mask=mask
    ).last_hidden_state
    features = model.language_projection(asked)
    table = model.language_model.get_input_embeddings()
    ids = [2]
    while len(ids) <= limit and ids[-1] != END_OF_LINE:
        embeds = torch.cat([features, table(torch.tensor([ids]))], dim=1)
        ids.append(int(model.language_model(inputs_embeds=embeds).logits[0, -1].argmax()))
    return ids[1:]


@torch.inference_mode()
def _greedy_blip(folder: Path, image: Image, limit: int) -> list[int]:
    from transformers import BlipForConditionalGeneration

    model: Any = BlipForConditionalGeneration.from_pretrained(folder).eval()
    seen = model.vision_model(_tensor(image, SIDE["blip"])).last_hidden_state
    ids = [WORDS - 2]
    while len(ids) <= limit and ids[-1] != 3:
        asked = model.text_decoder(input_ids=torch.tensor([ids]), encoder_hidden_states=seen)
        ids.append(int(asked.logits[0, -1].argmax()))
    return ids[1:]


@pytest.mark.parametrize("name", ["blip", "blip2"])
def test_captions_are_those_of_greedy_decoding_written_out(
    name: str, models: dict[str, Path], entries: list[Entry]
) -> None:
    oracle = {"blip": _greedy_blip, "blip2": _greedy_blip2}[name]
    silent = {"blip": range(5), "blip2": range(6)}[name]  # special tokens and the end of the line
    found = _captions(name, entries, CaptionSettings(path=str(models[name])))
    lengths: set[int] = set()
    for entry in entries:
        ids = oracle(models[name], read_image(entry.sample.path).pixels, 32)
        expected = " ".join(f"word{k}" for k in ids if k not in silent)
        assert found[entry.sample.id].text == expected
        assert 0 < len(expected.split()) <= 32
        lengths.add(len(ids))
    assert 32 in lengths, "no caption met the limit"
    assert min(lengths) < 32, "no caption ended by itself"
    assert len({one.text for one in found.values()}) >= 4, "the random model does not look at the image"


def test_blip2_says_the_same_with_an_image_token_of_its_own(models: dict[str, Path], tmp_path: Path) -> None:
    named = shutil.copytree(models["blip2"], tmp_path / "named")
    config = json.loads((named / "config.json").read_text())
    assert config["image_token_index"] is None
    (named / "config.json").write_text(json.dumps({**config, "image_token_index": 17}))
    image = np.random.default_rng(5).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    told = [captioning.Captioner(CARDS["blip2"], folder)(image)[0] for folder in (models["blip2"], named)]
    assert told[0] == told[1]
    assert told[0].startswith("word")


LEGACY = {"max_length": 20, "min_length": 0, "num_beams": 1, "do_sample": False, "temperature": 1.0, "top_k": 50}
"""What older versions of `transformers` wrote into configurations; the published ones have it."""


@pytest.mark.parametrize("name", ["blip", "blip2"])
def test_configurations_as_they_were_published_change_nothing(
    name: str, models: dict[str, Path], entries: list[Entry], tmp_path: Path
) -> None:
    old = shutil.copytree(models[name], tmp_path / "old")
    (old / "generation_config.json").unlink()
    config = json.loads((old / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part] |= LEGACY
    (old / "config.json").write_text(json.dumps({**config, "torch_dtype": "float32"}))
    resize = json.loads((old / "preprocessor_config.json").read_text())
    published = {"processor_class": "BlipProcessor", "size_divisor": 32}
    (old / "preprocessor_config.json").write_text(json.dumps({**resize, **published}))
    told = [one.text for one in _captions(name, entries, CaptionSettings(path=str(old))).values()]
    assert told == [one.text for one in _captions(name, entries, CaptionSettings(path=str(models[name]))).values()]
    assert max(len(text.split()) for text in told) > 20


def test_cards_tell_the_size_of_the_published_models() -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, BlipConfig, BlipForConditionalGeneration

    # What the published configurations say beside the defaults; without memory, on the meta device.
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    decoder = {"hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32, "num_attention_heads": 32}
    opt = {**decoder, "model_type": "opt", "word_embed_proj_dim": 2560, "eos_token_id": 50118}
    with torch.device("meta"):
        blip = BlipForConditionalGeneration(
            BlipConfig(text_config={"encoder_hidden_size": 1024}, vision_config={**large, "image_size": 384})
        )
        blip2: Any = Blip2ForConditionalGeneration(
            Blip2Config(text_config=opt, vision_config={"image_size": 364}, qformer_config={})
        )
    # The files hold the table of the words twice: as it is shared, the model counts it once.
    for name, model, table in (("blip", blip, 30524 * 768), ("blip2", blip2, 50272 * 2560)):
        assert 4 * (model.num_parameters() + table) == pytest.approx(CARDS[name].card.bytes, rel=0.003)
    assert captioning._prompt(blip2).tolist() == [[1] * 32 + [2]]
    assert blip2.language_model.generation_config.eos_token_id == 50118


def test_a_remembered_caption_has_its_seconds_and_needs_no_model(
    models: dict[str, Path], entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CaptionSettings(path=str(models["blip"]))
    loaded: list[Path] = []
    real = captioning.Captioner

    def counted(card: ModelCard, folder: Path, device: str) -> captioning.Captioner:
        loaded.append(folder)
        return real(card, folder, device)

    monkeypatch.setattr(captioning, "Captioner", counted)
    made = _captions("blip", entries[:3], settings)
    assert _captions("blip", entries[:3], settings) == made
    assert len(loaded) == 1
    more = _captions("blip", entries, settings)
    assert len(loaded) == 2
    assert {name: more[name] for name in made} == made
    assert all(one.seconds is not None and one.seconds > 0 for one in more.values())
    assert len({one.seconds for one in more.values()}) == len(entries)
    assert all(one.made_on.startswith("cpu, ") for one in more.values())


def test_another_process_uses_what_was_remembered_without_importing_torch(
    models: dict[str, Path], entries: list[Entry]
) -> None:
    made = _captions("blip2", entries, CaptionSettings(path=str(models["blip2"])))
    script = f"""
import json, sys
from pathlib import Path
from rdpbench.datasets.captioning import CaptionSettings
from rdpbench.datasets.captions import captions_of, parse
from rdpbench.datasets.folder import ImageFolder
from rdpbench.datasets.index import index
entries = index(ImageFolder({str(entries[0].sample.path.parent)!r}))
found = captions_of(parse("blip2"), entries, dataset="pictures", protocol="as-is",
                    settings=CaptionSettings(path={str(models["blip2"])!r}))
assert "torch" not in sys.modules
print(json.dumps({{name: [one.text, one.seconds] for name, one in found.by_id.items()}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [one.text, one.seconds] for name, one in made.items()}


def test_another_revision_and_another_pixel_are_made_anew(
    models: dict[str, Path], entries: list[Entry], tmp_path: Path
) -> None:
    settings = CaptionSettings(path=str(models["blip"]))
    asked = entries[:1]
    first = _captions("blip", asked, settings)[asked[0].sample.id]
    other = replace(settings, path=str(_make(tmp_path / "other", "blip", seed=4)))
    assert survey(parse("blip"), asked, dataset="pictures", settings=other).to_make == 1
    second = _captions("blip", asked, other)[asked[0].sample.id]
    assert second.text != first.text
    assert second.source != first.source
    assert survey(parse("blip"), asked, dataset="pictures", settings=settings).to_make == 0

    pixels = read_image(asked[0].sample.path).pixels.copy()
    pixels[0, 0, 0] ^= 1
    (tmp_path / "flipped").mkdir()
    pil.fromarray(pixels).save(tmp_path / "flipped" / "image00.png")
    flipped = index(ImageFolder(str(tmp_path / "flipped")))
    known = survey(parse("blip"), flipped, dataset="pictures", settings=settings)
    assert known.to_make == 1
    assert known.lacks is None


def test_equal_pixels_are_captioned_once(models: dict[str, Path], entries: list[Entry], tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(entries[0].sample.path, tmp_path / "more" / "twin.png")
    twins = [entries[0], *index(ImageFolder(str(tmp_path / "more")))]
    told: list[tuple[int, int]] = []
    found = captions_of(
        parse("blip"),
        twins,
        dataset="pictures",
        protocol="as-is",
        settings=CaptionSettings(path=str(models["blip"])),
        progress=lambda done, whole: told.append((done, whole)),
    )
    assert told == [(1, 1)]
    assert found.by_id["twin"] == found.by_id["image00"]


def test_an_image_that_changed_gets_no_caption_of_the_old_pixels(models: dict[str, Path], entries: list[Entry]) -> None:
    pil.fromarray(np.zeros((9, 9, 3), np.uint8)).save(entries[1].sample.path)
    with pytest.raises(ImageError, match=r"image01\.png has changed"):
        _captions("blip", entries, CaptionSettings(path=str(models["blip"])))
    kept = survey(parse("blip"), entries, dataset="pictures", settings=CaptionSettings(path=str(models["blip"])))
    assert kept.to_make == len(entries) - 1  # what was made before stays


def test_an_edited_folder_is_another_model(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["blip"], tmp_path / "mine")
    settings = CaptionSettings(path=str(folder))
    before = revision(CARDS["blip"], settings)
    assert before == revision(CARDS["blip"], CaptionSettings(path=str(models["blip"])))
    assert label(CARDS["blip"], settings) == f"blip@{before[7:19]}"
    (folder / "README.md").write_text("nothing that changes a caption")
    assert revision(CARDS["blip"], settings) == before
    weights = folder / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert revision(CARDS["blip"], settings) != before


def test_the_pinned_model_is_found_in_the_hugging_face_cache_at_its_revision_only(
    models: dict[str, Path], entries: list[Entry], tmp_path: Path
) -> None:
    card = CARDS["blip"]
    repository = tmp_path / "hub" / "models--Salesforce--blip-image-captioning-large"
    shutil.copytree(models["blip"], repository / "snapshots" / ("0" * 40))
    with pytest.raises(MissingNeed, match="not on this machine"):
        locate(card, CaptionSettings())
    snapshot = shutil.copytree(models["blip"], repository / "snapshots" / card.card.revision)
    assert locate(card, CaptionSettings()) == snapshot
    found = _captions("blip", entries, CaptionSettings())
    assert {one.source for one in found.values()} == {"blip"}
    assert {json.loads(one.identity)["revision"] for one in found.values()} == {card.card.revision}
    shutil.rmtree(snapshot)
    assert _captions("blip", entries, CaptionSettings()) == found  # remembered, without the model


def test_a_damaged_blob_of_the_hugging_face_cache_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    card = CARDS["blip"]
    repository = tmp_path / "hub" / "models--Salesforce--blip-image-captioning-large"
    snapshot = shutil.copytree(models["blip"], repository / "snapshots" / card.card.revision)
    weights = snapshot / "model.safetensors"
    blob = repository / "blobs" / file_sha256(weights)
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    assert locate(card, CaptionSettings()) == snapshot
    raw = bytearray(blob.read_bytes())
    raw[-1] ^= 1
    blob.write_bytes(raw)
    with pytest.raises(MissingNeed, match=f"damaged: sha256 .* expected {blob.name}"):
        locate(card, CaptionSettings())


def test_an_absent_model_is_told_with_all_it_takes(entries: list[Entry]) -> None:
    lacks = survey(parse("blip2"), entries, dataset="pictures").lacks
    assert lacks is not None
    for part in (
        "5 of 5 images have no caption yet",
        "PerCo",
        "15500 MB",
        "MIT",
        "hf download Salesforce/blip2-opt-2.7b-coco --revision b73fb748045e06eb59d3cd69f1a35a182c19256b",
        "RDPBENCH_WEIGHTS",
    ):
        assert part in lacks
    with pytest.raises(MissingNeed, match="not on this machine"):
        _captions("blip2", entries, CaptionSettings())


def test_a_folder_below_rdpbench_weights_is_used(
    models: dict[str, Path], entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models["blip2"], tmp_path / "weights" / "blip2-opt-2.7b-coco")
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path / "weights"))
    found = _captions("blip2", entries[:1], CaptionSettings())
    assert found == _captions(
        "blip2", entries[:1], CaptionSettings(path=str(models["blip2"]))
    )  # equal files, one memory


@pytest.mark.parametrize("lost", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_told(lost: str, models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["blip2"], tmp_path / "cut")
    (folder / lost).unlink()
    with pytest.raises(MissingNeed, match=f"lacks {lost}"):
        locate(CARDS["blip2"], CaptionSettings(path=str(folder)))


def test_a_shard_that_is_missing_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import BlipForConditionalGeneration

    folder = shutil.copytree(models["blip"], tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    BlipForConditionalGeneration.from_pretrained(models["blip"]).save_pretrained(folder, max_shard_size="20KB")
    whole = captioning.Captioner(CARDS["blip"], locate(CARDS["blip"], CaptionSettings(path=str(folder))))
    image = np.full((20, 30, 3), 77, np.uint8)
    assert whole(image)[0] == captioning.Captioner(CARDS["blip"], models["blip"])(image)[0]
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(MissingNeed, match=f"lacks {shard.name}"):
        locate(CARDS["blip"], CaptionSettings(path=str(folder)))


def test_weights_that_do_not_fill_the_model_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name, layer in (("blip", "vision_model.embeddings.class_embedding"), ("blip2", "language_projection.weight")):
        folder = shutil.copytree(models[name], tmp_path / name)
        tensors = load_file(folder / "model.safetensors")
        del tensors[layer]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(MissingNeed, match=r"1 missing keys: " + layer.replace(".", r"\.")):
            captioning.Captioner(CARDS[name], folder)


def test_damaged_and_foreign_folders_are_told(models: dict[str, Path], tmp_path: Path) -> None:
    cut = shutil.copytree(models["blip"], tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-7])
    with pytest.raises(MissingNeed, match="cannot load 'blip'"):
        captioning.Captioner(CARDS["blip"], cut)
    (cut / "config.json").write_text("{")
    with pytest.raises(MissingNeed, match=r"config\.json is damaged"):
        locate(CARDS["blip"], CaptionSettings(path=str(cut)))
    with pytest.raises(ConfigError, match="of type 'blip-2'; captions=blip needs 'blip'"):
        locate(CARDS["blip"], CaptionSettings(path=str(models["blip2"])))
    with pytest.raises(ConfigError, match=r"no such folder: .*nowhere"):
        locate(CARDS["blip"], CaptionSettings(path=str(tmp_path / "nowhere")))


def test_only_what_changes_the_words_is_part_of_the_identity() -> None:
    card = CARDS["blip2"]
    assert captioner_identity(card, CaptionSettings(device="cuda:1")) == captioner_identity(card, CaptionSettings())
    assert captioner_identity(card, CaptionSettings()) != captioner_identity(CARDS["blip"], CaptionSettings())
    revised = [replace(card, card=replace(card.card, revision=revision)) for revision in ("a", "b")]
    assert len({captioner_identity(one, CaptionSettings()) for one in revised}) == 2
    assert captioning.label(card, CaptionSettings(device="cuda")) == "blip2"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_says_the_same(models: dict[str, Path], entries: list[Entry]) -> None:
    here = _captions("blip2", entries, CaptionSettings(path=str(models["blip2"])))
    captioner = captioning.Captioner(CARDS["blip2"], models["blip2"], "cuda")
    images = [read_image(entry.sample.path).pixels for entry in entries]
    assert [captioner(image)[0] for image in images] == [here[entry.sample.id].text for entry in entries]
    assert captioner.made_on.startswith("cuda: ")


def test_images_are_resized_as_when_the_models_were_published(models: dict[str, Path]) -> None:
    from transformers import BlipImageProcessor

    noise = np.random.default_rng(2).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    expected = _tensor(noise, SIDE["blip"])
    ours = captioning.Captioner(CARDS["blip"], models["blip"])._prepare
    given: dict[str, Any] = {"images": [noise], "input_data_format": "channels_last", "return_tensors": "pt"}
    assert float((ours(**given)["pixel_values"] - expected).abs().max()) < 1e-6
    newer = BlipImageProcessor.from_pretrained(models["blip"])
    assert float((newer(**given)["pixel_values"] - expected).abs().max()) > 1e-3


def test_a_memory_that_cannot_be_used_costs_time_and_is_told(
    models: dict[str, Path], entries: list[Entry], capfd: pytest.CaptureFixture[str]
) -> None:
    cache_file().write_bytes(b"this is no database" * 50)
    settings = CaptionSettings(path=str(models["blip"]))
    first = _captions("blip", entries[:1], settings)
    assert "captions cannot be cached in" in capfd.readouterr().err
    cache_file().unlink()
    assert [one.text for one in _captions("blip", entries[:1], settings).values()] == [
        one.text for one in first.values()
    ]


def test_progress_is_told_on_stderr(
    models: dict[str, Path], entries: list[Entry], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = CaptionSettings(path=str(models["blip"]))
    captions_of(parse("blip"), entries, dataset="pictures", protocol="as-is", settings=settings)
    told = capfd.readouterr().err
    assert f"captioning 5 images with {label(CARDS['blip'], settings)} on cpu" in told
    assert "5/5 captions" in told


def test_the_index_of_a_folder_feeds_it(models: dict[str, Path], images: Callable[..., Path]) -> None:
    entries = index(ImageFolder(str(images(2, name="others"))))
    assert set(_captions("blip2", entries, CaptionSettings(path=str(models["blip2"])))) == {"image00", "image01"}
