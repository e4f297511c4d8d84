"""PerCo's networks and files: published layouts, strict loading, shared parts, and what is in a section."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdpbench.assets.load import load_strictly, on_meta
from rdpbench.assets.weights import OwnFolder, how_to_get
from rdpbench.codecs.contract import Side
from rdpbench.codecs.diffusion import bases, fields, models, perco, sampling
from rdpbench.codecs.diffusion.bases import byte_vocabulary
from rdpbench.codecs.diffusion.library import diffusers
from rdpbench.codecs.diffusion.perco import POINTS, PerCo, printed_bits
from rdpbench.codecs.diffusion.perco import network as perco_network
from rdpbench.errors import BitstreamError, CodecError, MissingNeed, OutOfRange
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks import held

RATES = list(POINTS)


@pytest.fixture(autouse=True)
def nothing_loaded(alone: None) -> Iterator[None]:
    yield
    held.forget()


# Published layouts, without storage

LAYOUTS = {
    # Tensors as the official classes have them: digest of names and shapes, and the numbers inside.
    0.0019: ("1ade27ed0f7de995", 5_905_505),
    0.0024: ("a4ee5590765d9582", 5_955_425),
    0.0098: ("6a9eeed43e6cfa48", 5_936_993),
    0.0313: ("71dcbf0fd7a354ea", 5_002_337),
    0.0507: ("498ab0d44d8c043a", 5_518_437),
    0.0937: ("a185b43ee8124882", 4_105_121),
    0.1250: ("388ca7be3f6d60f7", 4_117_601),
}


def shapes(network: Any) -> dict[str, list[int]]:
    return {name: list(one.shape) for name, one in network.state_dict().items()}


def hyper_encoder(rate: float) -> Any:
    return on_meta(lambda: perco.hyper_of(rate, perco_network.PUBLISHED))


@pytest.mark.parametrize("rate", RATES)
def test_hyper_encoders_have_the_official_layout(rate: float) -> None:
    own = shapes(hyper_encoder(rate))
    digest = hashlib.sha256(json.dumps(sorted(own.items())).encode()).hexdigest()[:16]
    assert (digest, sum(map(math.prod, own.values()))) == LAYOUTS[rate]
    assert len(own) == 146


@pytest.mark.parametrize("rate", RATES)
def test_the_digests_are_those_of_the_official_classes(rate: float, shared: Path) -> None:
    """Names and shapes that the official classes were found to have."""
    name = "0.125" if rate == 0.125 else f"{rate:.4f}"
    official = json.loads((shared / "dossier" / "keys" / f"perco_hyperenc_{name}.json").read_text())
    assert shapes(hyper_encoder(rate)) == official


def test_the_u_net_has_the_official_layout() -> None:
    """Stable Diffusion 2.1's, with 320 further channels in the first layer, which has another name in the file."""
    build = lambda: perco.unet_of(bases.SD21, perco_network.PUBLISHED)  # noqa: E731 - three uses below
    unet = on_meta(build)
    own = shapes(unet)
    assert own["conv_in.weight"] == [320, 324, 3, 3]
    theirs = {**own, "conv_in.weight": [320, 4, 3, 3]}
    assert (len(theirs), sum(map(math.prod, theirs.values()))) == (686, 865_910_724)
    # The file: all of the plain U-Net, and the layer that takes the place of its first.
    file = {**theirs, "conv_in_extended.weight": [320, 324, 3, 3], "conv_in_extended.bias": [320]}
    assert sum(map(math.prod, file.values())) == 866_844_164
    tensors = {name: torch.empty(shape, device="meta") for name, shape in file.items()}
    load_strictly(build, tensors, "file", rename=perco.unet_name, drop=perco.DROPPED)
    with pytest.raises(CodecError, match=r"conv_in\.weight is \(320, 4, 3, 3\), must be \(320, 324, 3, 3\)"):
        load_strictly(build, {name: torch.empty(shape, device="meta") for name, shape in theirs.items()}, "x")


@pytest.mark.parametrize("rate", RATES)
def test_latents_become_a_grid(rate: float) -> None:
    """A 512 x 768 image at every rate, without storage."""
    with torch.device("meta"):
        net = perco.hyper_of(rate, perco_network.PUBLISHED)
        found = net.directions(torch.empty(1, 4, 64, 96))
    rows, columns = POINTS[rate].grid(512, 768)
    assert found.shape == (1, rows, columns, 32)
    assert net.quantizer.planes(found).shape == (1, 320, rows, columns)


# The quantiser


def test_the_nearest_entry_is_the_one_with_the_largest_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    net = perco.seeded(perco.hyper_of(0.0313, perco_network.TINY), 1)
    latents = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    quantiser, book = net.quantizer, net.quantizer._codebook.embed[0]
    assert torch.allclose(book.norm(dim=-1), torch.ones(256))
    with torch.no_grad():
        planes = net.backbone(latents)
        directions = net.directions(latents)
        indices = quantiser.indices(directions)
        inside = torch.nn.functional.linear(
            planes.permute(0, 2, 3, 1), quantiser.project_in.weight, quantiser.project_in.bias
        )
        cosines = torch.nn.functional.cosine_similarity(inside[..., None, :], book, dim=-1)
        assert torch.equal(indices, cosines.argmax(-1))
        assert len(indices.unique()) > 20
        out = torch.nn.functional.linear(book[indices], quantiser.project_out.weight, quantiser.project_out.bias)
        assert torch.allclose(quantiser.planes(quantiser.entries(indices)), out.permute(0, 3, 1, 2))
        monkeypatch.setattr(perco_network, "BLOCK", 7)
        assert torch.equal(quantiser.indices(directions), indices)


# Indices


@pytest.mark.parametrize(
    ("rate", "bits"),
    [(0.0019, 512), (0.0024, 640), (0.0098, 2560), (0.0313, 8192), (0.0507, 13313), (0.0937, 24576), (0.1250, 32768)],
)
def test_rates_by_hand(rate: float, bits: int) -> None:
    """h w log2 V bits at 512 x 512: the network's name."""
    rows, columns = POINTS[rate].grid(512, 512)
    entries = POINTS[rate].entries
    assert bits == math.ceil(rows * columns * math.log2(entries) - 1e-9)
    assert fields.index_bits(rows * columns, entries) == bits
    assert bits / 512**2 == pytest.approx(rate, abs=1e-4)
    packed = fields.pack_indices([entries - 1] * (rows * columns), entries)
    assert len(packed) == math.ceil(bits / 8)
    assert fields.unpack_indices(packed, rows * columns, entries).tolist() == [entries - 1] * (rows * columns)


@given(st.sampled_from([2, 64, 256, 1024, 8196]), st.data())
def test_indices_survive_as_one_number(entries: int, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, entries - 1), min_size=1, max_size=40))
    packed = fields.pack_indices(indices, entries)
    number = 0
    for one in indices:
        number = number * entries + one
    assert int.from_bytes(packed, "big") == number
    assert fields.unpack_indices(packed, len(indices), entries).tolist() == indices


@given(st.sampled_from([64, 256, 1024, 8196]), st.integers(1, 40), st.data())
def test_any_bytes_are_indices_or_refused(entries: int, count: int, data: st.DataObject) -> None:
    size = fields.index_bytes(count, entries)
    section = data.draw(st.binary(min_size=size - 1, max_size=size + 1))
    try:
        found = fields.unpack_indices(section, count, entries)
    except BitstreamError:
        return
    assert 0 <= found.min() <= found.max() < entries
    assert fields.pack_indices(found, entries) == section


def test_what_is_no_index_is_refused() -> None:
    for wrong in ([-1], [256]):
        with pytest.raises(CodecError, match="are not of a codebook of 256 entries"):
            fields.pack_indices(wrong, 256)
    with pytest.raises(BitstreamError, match="3 indices among 64 are 3 bytes, found 2"):
        fields.unpack_indices(b"ab", 3, 64)
    with pytest.raises(BitstreamError, match="bits before 3 indices among 64 are not zero"):
        fields.unpack_indices(b"\xff\0\0", 3, 64)
    with pytest.raises(BitstreamError, match="are no 1 indices among 8196"):
        fields.unpack_indices((8196).to_bytes(2, "big"), 1, 8196)
    with pytest.raises(BitstreamError, match="not finite"):
        fields.unpack_floats(np.array([np.nan], "<f4").tobytes(), (1, 1))
    with pytest.raises(BitstreamError, match="2 numbers are 8 bytes, found 4"):
        fields.unpack_floats(bytes(4), (1, 2))


@pytest.mark.parametrize(
    ("count", "entries", "width", "coded", "file"),
    [
        (4096, 256, 512, 4097, 4218),
        (4096, 64, 512, 3073, 3194),
        (1024, 8196, 512, 1665, 1786),
        (1536, 8196, 768, 2497, 2618),
        (1024, 256, 512, 1025, 1146),
        (256, 1024, 512, 321, 442),
        (64, 1024, 512, 81, 196),
        (64, 256, 512, 65, 180),
        (96, 256, 768, 97, 212),
    ],
)
def test_published_rates_are_those_of_the_official_code(
    count: int, entries: int, width: int, coded: int, file: int
) -> None:
    """Bytes that its arithmetic coder and its pickle were found to have, outside the project."""
    caption = "a red door in a white wall"
    bits = printed_bits(caption, count, entries, (512, width))
    assert bits["perco"] == 8 * (coded + len(zlib.compress(caption.encode(), 9)))
    assert bits["pickle"] == 8 * file


# Captions

TEXTS = ["", "a red door in a white wall", "naïve café, 日本 😀", "a very long caption, which goes on and on " * 40]


@pytest.mark.parametrize("code", fields.CAPTION_CODES)
@pytest.mark.parametrize("text", TEXTS)
def test_captions_come_back_as_what_the_text_tower_reads(code: str, text: str) -> None:
    words = byte_vocabulary()
    section = fields.pack_caption(text, code, words)
    found = fields.unpack_caption(section, code, words)
    assert found[:75] == words.encode(text)[:75]
    ready = models.load_models("sd-2.1", "random")
    with torch.no_grad():
        expected = sampling.condition(ready, words.encode(text)).hidden
        assert torch.equal(sampling.condition(ready, found).hidden, expected)


def test_sizes_of_captions_by_hand() -> None:
    full = byte_vocabulary(49408)
    text = "a red door"
    deflated = zlib.compress(text.encode(), 9)
    assert fields.pack_caption(text, "zlib", full) == deflated
    assert fields.pack_caption(text, "deflate", full) == deflated[2:-4]
    assert len(fields.pack_caption(text, "fixed", full)) == 2 * len(full.encode(text))
    bits = math.ceil(len(full.encode(text)) * math.log2(49408))
    assert len(fields.pack_caption(text, "rank", full)) == math.ceil(bits / 8)
    assert len(fields.pack_caption(TEXTS[3], "fixed", full)) == 150
    assert fields.pack_caption("", "rank", full) == b""


@given(st.binary(max_size=100), st.sampled_from(fields.CAPTION_CODES))
def test_any_bytes_are_a_caption_or_refused(section: bytes, code: str) -> None:
    words = byte_vocabulary()
    try:
        ids = fields.unpack_caption(section, code, words)
    except BitstreamError:
        return
    assert all(0 <= one < words.size for one in ids)


@pytest.mark.parametrize("code", ["zlib", "deflate"])
def test_texts_that_inflate_without_bound_are_refused(code: str) -> None:
    kind = zlib.MAX_WBITS if code == "zlib" else -zlib.MAX_WBITS
    for text in (bytes(10**7), b"\xff\xfe"):
        with pytest.raises(BitstreamError, match="the caption"):
            fields.unpack_caption(zlib.compress(text, 9, kind), code, byte_vocabulary())
    with pytest.raises(BitstreamError, match="does not end with its section"):
        fields.unpack_caption(zlib.compress(b"x", 9, kind) + b"y", code, byte_vocabulary())
    with pytest.raises(CodecError, match="a caption of 20000 bytes; at most 16384 are taken"):
        fields.pack_caption("x" * 20000, code, byte_vocabulary())


# Files


@pytest.fixture(scope="module")
def table() -> Path:
    package = pytest.importorskip("open_clip", reason="open_clip_torch carries the byte-pair table")
    return Path(package.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture
def saved(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Path]:
    """Writes a rate's tiny pipeline as the official code saves one; its tensors differ from rate to rate."""
    from safetensors.torch import save_file

    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / table.name).write_bytes(table.read_bytes())
    narrow = models.narrow(bases.SD21)
    sizes = bases.BaseSizes(narrow.unet, narrow.vae, narrow.texts, (0,), narrow.schedule, 49408)
    monkeypatch.setattr(perco, "PUBLISHED", sizes)
    monkeypatch.setattr(perco_network, "PUBLISHED", perco_network.TINY)

    beside = {
        "vae": diffusers.AutoencoderKL.from_config(dict(sizes.vae)),
        "text_encoder": models.text_tower(sizes, 0),
    }
    for part, network in beside.items():
        models.draw_weights(network, 3).save_pretrained(tmp_path / part)

    def write(rate: float) -> Path:
        root = tmp_path / "weights" / "perco" / f"{rate:.4f}"
        seed = round(rate * 10000)
        for part in beside:
            shutil.copytree(tmp_path / part, root / part, dirs_exist_ok=True)
        unet = models.draw_weights(perco.unet_of(sizes, perco_network.TINY), seed)
        tensors = {name.replace("conv_in.", "conv_in_extended."): one for name, one in unet.state_dict().items()}
        plain = models.draw_weights(diffusers.UNet2DConditionModel.from_config(dict(sizes.unet)), seed).conv_in
        tensors |= {"conv_in.weight": plain.weight, "conv_in.bias": plain.bias}
        config = {**dict(unet.config), "in_channels": 4}
        hyper = perco.seeded(perco.hyper_of(rate, perco_network.TINY), seed)
        for part, state, settings in (
            ("unet", tensors, {name: one for name, one in config.items() if not name.startswith("_")}),
            (
                "hyper_enc",
                hyper.state_dict(),
                {
                    "N": 16,
                    "M": 12,
                    "codebook_dim": 8,
                    "in_channels": 4,
                    "_class_name": "HyperEncoder",
                    "cfg_ss": 64 // POINTS[rate].stride,
                    "cfg_cs": POINTS[rate].entries,
                },
            ),
        ):
            (root / part).mkdir(exist_ok=True)
            save_file(dict(state), root / part / "diffusion_pytorch_model.safetensors")
            (root / part / "config.json").write_text(json.dumps(settings))
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        published = sampling.SAMPLERS["ddim"][1]
        diffusers.DDIMScheduler(prediction_type="v_prediction", **betas, **published).save_pretrained(
            root / "scheduler"
        )
        return root

    return write


def coded(image: Image, **options: Any) -> tuple[bytes, Image]:
    codec = PerCo(steps=2, **options)
    data = codec.encode(image, Side(caption="a woman")).data
    return data, PerCo(steps=2, **options).decode(data)


def test_a_sweep_loads_vae_and_text_tower_once(
    saved: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    """Rates from folders of their own, whose files of both parts have the same bytes."""
    folders_of = {rate: saved(rate) for rate in (0.0019, 0.0507, 0.125)}
    opened: list[str] = []
    read = OwnFolder.read
    monkeypatch.setattr(OwnFolder, "read", lambda folder: opened.append(Path(folder.folder).name) or read(folder))
    pictures = set()
    for rate, folder in folders_of.items():
        for guidance in ("none", "text") if rate < 0.01 else ("text",):
            _, picture = coded(photograph[:64, :64], nominal=rate, pipeline=str(folder), guidance=guidance)
            pictures.add(pixel_sha256(picture))
    assert len(pictures) == 4
    assert {part: opened.count(part) for part in opened} == {"vae": 1, "text_encoder": 1, "unet": 3, "hyper_enc": 3}
    # Other bytes are another network.
    other = saved(0.0019)
    models.draw_weights(diffusers.AutoencoderKL.from_config(dict(perco.PUBLISHED.vae)), 4).save_pretrained(
        other / "vae"
    )
    coded(photograph[:64, :64], nominal=0.0019, pipeline=str(other))
    assert opened.count("vae") == 2


def test_public_rates_are_found_by_their_cards(saved: Callable[[float], Path], photograph: Image) -> None:
    image = np.ascontiguousarray(photograph[:70, :100])
    for rate in perco.PUBLIC:
        codec = PerCo(nominal=rate)
        assert "perco/" in str(codec.weight_needs()[0].missing())
        folder = saved(rate)
        assert [need.missing() for need in codec.weight_needs()] == [None] * 5
        assert set(codec.hashes()) == {"unet", "vae", "text", "hyper"}
        assert all(one.startswith("unpinned:") and len(one) > 60 for one in codec.hashes().values())
        assert codec.weights_kind() == "unpinned"
        if rate != 0.0313:
            continue
        data, picture = coded(image, nominal=rate)
        assert picture.shape == image.shape
        # A folder of the user's with the same files is the same.
        other, again = coded(image, nominal=rate, pipeline=str(folder))
        assert other == data
        assert np.array_equal(again, picture)


def test_the_files_tensors_are_where_they_belong(saved: Callable[[float], Path]) -> None:
    from safetensors.torch import load_file

    folder = saved(0.0313)
    ready = perco.load_pipeline(0.0313, pipeline=str(folder))
    tensors = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(ready.unet.conv_in.weight, tensors["conv_in_extended.weight"])
    assert ready.unet.conv_in.weight.shape == (8, 16, 3, 3)
    assert ready.layout.schedule["prediction_type"] == "v_prediction"
    hyper = load_file(folder / "hyper_enc" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(one, hyper[name]) for name, one in ready.hyper.state_dict().items())
    assert sampling.scheduler(ready, "ddim", 20).timesteps[0] == 951


def test_files_of_another_rate_are_refused_by_name(saved: Callable[[float], Path]) -> None:
    folder = saved(0.0019)
    with pytest.raises(CodecError, match=r"is for 8 x 8 indices of 256 entries; at nominally 0\.0313 bpp"):
        perco.load_pipeline(0.0313, pipeline=str(folder))
    config = folder / "hyper_enc" / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps({name: one for name, one in known.items() if not name.startswith("cfg")}))
    with pytest.raises(CodecError, match=r"embed is \(1, 256, 8\), must be \(1, 1024, 8\)"):
        perco.load_pipeline(0.0024, pipeline=str(folder))
    with pytest.raises(CodecError, match=r"backbone\.4\.weight is \(16, 16, 5, 5\), must be \(16, 16, 1, 1\)"):
        perco.load_pipeline(0.0313, pipeline=str(folder))


def test_damaged_files_are_refused_by_name(saved: Callable[[float], Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(0.1250)
    for part, gone, odd in (
        ("unet", "conv_in_extended.weight", "conv_in.weight"),
        ("hyper_enc", "quantizer.project_in.bias", "quantizer.project_in.bias"),
    ):
        file = folder / part / "diffusion_pytorch_model.safetensors"
        whole = load_file(file)
        save_file({name: one for name, one in whole.items() if name != gone}, file)
        with pytest.raises(CodecError, match=rf"{odd} \([0-9, ]+\) is missing"):
            perco.load_pipeline(0.1250, pipeline=str(folder))
        save_file({**whole, "stray": torch.zeros(2)}, file)
        with pytest.raises(CodecError, match=r"stray \(2,\) has no place"):
            perco.load_pipeline(0.1250, pipeline=str(folder))
        save_file(whole, file)
    perco.load_pipeline(0.1250, pipeline=str(folder))


def test_what_is_not_public_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RDPBENCH_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert perco.PUBLIC == [0.0019, 0.0313, 0.125]
    for rate in RATES:
        told = "\n".join(str(need.missing()) for need in PerCo(nominal=rate).weight_needs())
        if rate in perco.PUBLIC:
            for part in ("unet", "vae", "text_encoder", "hyper_enc"):
                assert f"perco/{rate:.4f}/{part}" in told
            assert "11xHN61L7GqrJqEQbdtagbKBwMj1KZMf5" in told
            assert "CreativeML OpenRAIL++-M" in told
        else:
            assert f"no weights of PerCo at nominally {rate:.4f} bpp are public" in told
            assert "rate=0.0019,0.0313,0.125" in told
        with pytest.raises(MissingNeed):
            perco.load_pipeline(rate)
    with pytest.raises(OutOfRange, match=r"rate 0\.02: 'perco' has nominal 0\.0019, 0\.0024"):
        PerCo(nominal=0.02)
    assert "3467 MB" in how_to_get(perco.card(0.125, "unet"))


@pytest.mark.slow
def test_the_published_widths_compute() -> None:
    """One guided step of the full U-Net with a full hyper-encoder, random weights: 7 GB and a minute."""
    codec = PerCo(weights="random-full", steps=1)
    image = np.random.default_rng(0).integers(0, 256, (128, 64, 3), np.uint8)
    made = codec.encode(image, Side(caption="a cat"))
    assert made.parts["indices"] == 8 * 4
    assert codec.models().unet.config.in_channels == 324
    picture = codec.decode(made.data)
    assert picture.shape == image.shape
    assert picture.std() > 5
