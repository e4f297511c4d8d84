"""MS-ILLM: the published keys, the published count of bits, decoded anywhere."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

from rdpbench.codecs.contract import Codec, Side, coder_of
from rdpbench.codecs.learned import msillm
from rdpbench.codecs.learned.entropy import load_with_tables, set_tables
from rdpbench.codecs.learned.msillm_network import FULL, TINY, MsillmNetwork, MsillmSystem, random_network
from rdpbench.codecs.learned.systems import decode_images, encode_images, to_planes
from rdpbench.errors import BitstreamError, CodecError, MissingNeed, OutOfRange, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.precision import reproducible

ROOT = Path(__file__).parents[2]
WHERE = "rdpbench.codecs.learned.msillm:MSILLM"
CLASSES: dict[str, type[msillm.MSILLM]] = {cls.name: cls for cls in (msillm.MSILLM, msillm.NoGAN)}


def tiny(**options: Any) -> msillm.MSILLM:
    return msillm.MSILLM(**{"weights": "random", "quality": 3, **options})


def cut(image: Image, height: int, width: int) -> Image:
    return np.ascontiguousarray(image[:height, :width])


# The published network


def digest(shapes: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()


def full_shapes() -> dict[str, list[int]]:
    """Nothing is allocated: tensors without storage."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return {key: list(one.shape) for key, one in MsillmNetwork(FULL).state_dict().items()}


def test_full_width_keys_and_shapes_are_those_of_the_checkpoints() -> None:
    """The digest is of keys and shapes as the official class has them, version 0.3.1."""
    shapes = full_shapes()
    assert len(shapes) == 163
    assert digest(shapes) == "86ed7ada1d7f668c0f647a4cb69c872074af32ffaad45b98cee75ec83c7c4b9c"
    net = {key: one for key, one in shapes.items() if not key.endswith((".bound", ".target", ".scale_bound"))}
    assert sum(int(np.prod(one)) for one in net.values()) == 181_481_103
    assert abs(4 * 181_481_103 / msillm.ABOUT - 1) < 0.001


def test_the_keys_of_the_dossier_are_these(shared: Path) -> None:
    found = json.loads((shared / "dossier" / "keys" / "msillm.json").read_text())
    assert full_shapes() == found


def test_files_are_those_of_torch_hub() -> None:
    files = {
        (name, quality): cls(quality=quality).published().card
        for name, cls in CLASSES.items()
        for quality in cls.rate.values
    }
    assert len(files) == 14
    lowest, middle = files["msillm", -1], files["msillm-nogan", 3]
    assert (lowest.id, lowest.file) == ("msillm/msillm_quality_vlo1", "msillm_target_0.00218bpp.ckpt")
    assert files["msillm", 0].id == "msillm/msillm_quality_vlo2"
    assert middle.source == f"{msillm.ROOT}/noganms_target_0.14bpp.ckpt"
    assert {card.licence for card in files.values()} == {"CC-BY-NC 4.0 (the code is MIT)"}
    assert len({card.source for card in files.values()}) == 14
    assert tiny(weights="official").weights_kind() == "unpinned"  # no hash is published


def test_configurations_list_every_rate() -> None:
    for name, cls in CLASSES.items():
        conf = yaml.safe_load((ROOT / "conf" / "codec" / f"{name}.yaml").read_text())
        assert (conf["name"], conf["use"]) == (name, name)
        assert conf["rates"] == list(cls.rate.values)
        for rate in conf["rates"]:
            cls(quality=rate, **conf["options"])


def test_rates_that_were_never_published_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"'msillm' takes: quality -1\.\.6"):
        msillm.MSILLM(quality=7)
    with pytest.raises(OutOfRange, match=r"'msillm-nogan' takes: quality 1\.\.6"):
        msillm.NoGAN(quality=0)


# Checkpoints


def test_checkpoints_load_with_old_names_prefixes_and_tables() -> None:
    net = random_network(TINY, 3)
    bare = {f"module.{key}": one.clone() for key, one in net.state_dict().items()}
    old = {
        key.replace("matrices.", "_matrix").replace("biases.", "_bias").replace("factors.", "_factor"): one
        for key, one in bare.items()
    }
    assert any("_matrix0" in key for key in old)
    loaded = MsillmNetwork(TINY)
    assert load_with_tables(loaded, old, "old") == {"hyper_bottleneck": "rebuilt", "latent_bottleneck": "rebuilt"}
    assert all(torch.equal(one, bare[f"module.{key}"]) for key, one in loaded.named_parameters())
    again = MsillmNetwork(TINY)
    baked = load_with_tables(again, loaded.state_dict(), "baked")
    assert baked == {"hyper_bottleneck": "baked", "latent_bottleneck": "baked"}
    assert torch.equal(again.latent_bottleneck._quantized_cdf, loaded.latent_bottleneck._quantized_cdf)


def test_checkpoints_that_do_not_fit_are_refused_by_name() -> None:
    state = random_network(TINY, 3).state_dict()
    state["decoder.resid_blocks.9.sequence.0.weight"] = torch.zeros(12, 12, 3, 3)
    del state["encoder.blocks.2.1.gamma"]
    state["hyper_analysis.0.weight"] = torch.zeros(8, 9, 3, 3)
    with pytest.raises(CodecError) as caught:
        load_with_tables(MsillmNetwork(TINY), state, "another")
    for line in (
        "encoder.blocks.2.1.gamma (1, 8, 1, 1) is missing",
        "decoder.resid_blocks.9.sequence.0.weight (12, 12, 3, 3) has no place",
        "hyper_analysis.0.weight is (8, 9, 3, 3), must be (8, 10, 3, 3)",
    ):
        assert line in str(caught.value)


def test_an_official_file_is_asked_for_read_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    """The widths are narrowed so that the file is small; the way is the same."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("rdpbench.codecs.learned.msillm_network.FULL", TINY)
    codec = msillm.MSILLM(quality=-1)
    [need] = codec.weight_needs()
    for line in ("msillm_quality_vlo1", "from     https://dl.fba", "licence  CC-BY-NC 4.0", "726 MB"):
        assert line in str(need.missing())
    with pytest.raises(MissingNeed, match="'msillm/msillm_quality_vlo1' are not on this machine"):
        codec.encode(photograph, Side())
    torch.save(random_network(TINY, -1).state_dict(), tmp_path / "msillm_target_0.00218bpp.ckpt")
    assert need.missing() is None
    assert codec.encode(photograph, Side()).data == tiny(quality=-1).encode(photograph, Side()).data
    assert codec.coder()["weights"].startswith("unpinned:")


# Bits


def test_bits_are_also_counted_as_the_official_script_does(monkeypatch: pytest.MonkeyPatch, photograph: Image) -> None:
    """Against a pickle of a class of the official name, in modules of the official names."""

    class HyperpriorCompressedOutput(NamedTuple):
        latent_strings: list[bytes]
        hyper_latent_strings: list[bytes]
        image_size: tuple[int, int]
        padded_size: tuple[int, int]

    official: Any = HyperpriorCompressedOutput
    official.__module__, official.__qualname__ = msillm.OFFICIAL_MODULE, "HyperpriorCompressedOutput"
    parts = msillm.OFFICIAL_MODULE.split(".")
    for count in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:count]), ModuleType(parts[count - 1]))
    monkeypatch.setattr(sys.modules[msillm.OFFICIAL_MODULE], "HyperpriorCompressedOutput", official, raising=False)
    for y, z, size in ((4, 4, (33, 64)), (300, 200, (512, 768)), (70_000, 300, (512, 768)), (200_000, 70_000, (1, 9))):
        padded = (512, 768)
        theirs = pickle.dumps(official([bytes(y)], [bytes(z)], size, padded), protocol=4)
        assert msillm.pickled(bytes(y), bytes(z), size, padded) == 8 * len(theirs)
    made = tiny().encode(cut(photograph, 100, 77), Side())
    printed = json.loads(made.info["legacy"])
    strings = [made.data[-made.parts["y"] :], made.data[-made.parts["y"] - 3 - made.parts["z"] :][: made.parts["z"]]]
    assert printed["pickle"] == 8 * len(pickle.dumps(official(*([one] for one in strings), (100, 77), (128, 128)), 4))
    assert printed["headerless"] == 8 * (made.parts["z"] + made.parts["y"])
    assert 110 <= (printed["pickle"] - printed["headerless"]) / 8 <= 126
    assert printed["nominal"] == pytest.approx(0.14 * 7700)


# Round trips


@pytest.mark.parametrize("portable", [False, True])
def test_a_fresh_object_decodes_any_size_from_bytes_alone(portable: bool, photograph: Image) -> None:
    for height, width in ((64, 64), (61, 99), (33, 33), (192, 255)):
        image = cut(photograph, height, width)
        made = tiny(portable=portable).encode(image, Side())
        assert tiny(portable=portable).decode(bytes(made.data)).shape == image.shape
        assert sum(made.parts.values()) == len(made.data)
        assert set(made.parts) == {"header", "z", "y"} | ({"guard"} if portable else set())
        assert made.parts["header"] <= 9


def test_what_reflection_cannot_pad_is_refused(photograph: Image) -> None:
    for height, width in ((1, 1), (32, 64), (128, 20)):
        with pytest.raises(UnsupportedImage, match="too few to be padded to a multiple of 64 by reflection"):
            tiny().encode(cut(photograph, height, width), Side())


def test_random_rates_grow_with_quality(photograph: Image) -> None:
    image = cut(photograph, 96, 96)
    sizes = [len(tiny(quality=quality).encode(image, Side()).data) for quality in msillm.MSILLM.rate.values]
    assert sizes == sorted(set(sizes))


def test_the_decoder_gets_what_the_transforms_alone_give(photograph: Image) -> None:
    """Against the network written out, its latents rounded around the means."""
    image = cut(photograph, 100, 77)
    net = random_network(TINY, 5)
    set_tables(net, {})
    net.requires_grad_(False)
    with reproducible():
        planes = to_planes([image], "cpu", torch.float32)
        planes = torch.nn.functional.pad(planes, (0, 51, 0, 28), mode="reflect")
        y = net.encoder(planes)
        medians = net.hyper_bottleneck.quantiles[:, 0, 1].reshape(1, -1, 1, 1)
        z = torch.round(net.hyper_analysis(y) - medians) + medians
        means = net.hyper_synthesis_mean(z)
        expected = net.decoder(torch.round(y - means) + means)[0, :, :100, :77].clamp(0, 1)
    found = tiny(quality=5).decode(tiny(quality=5).encode(image, Side()).data)
    assert np.abs(found / 255 - expected.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-5
    assert found.std() > 20


@pytest.mark.parametrize("portable", [False, True])
def test_threads_and_batches_change_no_symbol(portable: bool, photograph: Image) -> None:
    codec = tiny(portable=portable)
    images = [np.ascontiguousarray(photograph[at : at + 100, at : at + 77]) for at in (0, 30, 60, 90)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        datas = [codec.encode(image, Side()).data for image in images]
        alone = np.stack([codec.decode(data) for data in datas]).astype(int)
        for count in (1, 2):
            torch.set_num_threads(count)
            assert [one.data for one in codec.encode_batch(images, [Side()] * 4)] == datas
            assert np.abs(np.stack(codec.decode_batch(datas)) - alone).max() <= 1
        assert [codec.encode(image, Side()).data for image in images] == datas
        assert np.abs(np.stack([codec.decode(data) for data in datas]) - alone).max() <= 1
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(BitstreamError, match="a batch holds images of one size"):
        codec.decode_batch([datas[0], codec.encode(photograph, Side()).data])


def disturbed(portable: bool) -> MsillmSystem:
    """As another machine may have it: every output of the hyperprior off by up to half the guard."""
    net = random_network(TINY, 3)
    set_tables(net, {})
    system = MsillmSystem(net, portable=portable)

    def shift(module: torch.nn.Module, given: Any, values: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(values.numel())
        amount = 2.0**-33 if portable else 1e-4
        noise = torch.rand(values.shape, generator=generator, dtype=values.dtype)
        return values + (2 * noise - 1) * amount * values.abs().clamp(min=1)

    for part in (net.hyper_synthesis_mean, net.hyper_synthesis_scale):
        part.register_forward_hook(shift)
    return system


def test_portable_files_decode_on_a_machine_that_computes_otherwise(photograph: Image) -> None:
    for portable in (True, False):
        codec = tiny(portable=portable)
        made = codec.encode(photograph, Side())
        [found] = decode_images("other", disturbed(portable), [made.data], 1 << 20)
        expected = codec.decode(made.data)
        assert np.array_equal(found, expected) == portable


def test_the_encoder_of_such_a_machine_writes_what_this_one_reads(photograph: Image) -> None:
    [made] = encode_images("other", disturbed(True), [photograph], [Side()], 1 << 20)
    [expected] = decode_images("other", disturbed(True), [made.data], 1 << 20)
    assert np.array_equal(tiny(portable=True).decode(made.data), expected)


# In other processes


@pytest.mark.slow
def test_a_fresh_process_decodes_the_same_pixels_at_full_width(decoded_elsewhere: Any) -> None:
    """256 x 256 and an odd size, one thread and batch 1 against two threads and a batch."""
    from skimage import data

    picture: Image = np.ascontiguousarray(data.astronaut()[:256, 100:356])
    threads = torch.get_num_threads()
    hashes, files = {}, {}
    try:
        for portable in (False, True):
            options: dict[str, Any] = {"weights": "random-full", "quality": 6, "portable": portable}
            codec = msillm.MSILLM(**options)
            for image in (picture, cut(picture, 250, 171)):
                torch.set_num_threads(1)
                made = codec.encode(image, Side())
                alone = codec.decode(made.data)
                assert len(made.data) == sum(made.parts.values())
                name = str(len(hashes))
                files[name] = (WHERE, options, made.data)
                hashes[name] = pixel_sha256(alone)
                torch.set_num_threads(2)
                again = codec.encode_batch([image] * 2, [Side()] * 2)
                if portable:  # an encoder's own rounding may differ; what it wrote is what counts
                    assert [one.data for one in again] == [made.data] * 2
                assert np.abs(codec.decode(made.data).astype(int) - alone).max() <= 1
                pair = codec.decode_batch([made.data] * 2)
                assert max(np.abs(one.astype(int) - alone).max() for one in pair) <= 1
    finally:
        torch.set_num_threads(threads)
    assert decoded_elsewhere(files) == hashes


def test_the_contract_is_kept() -> None:
    codec = tiny(portable=True)
    assert isinstance(codec, Codec)
    coder = coder_of(codec)
    assert (coder["weights"], coder["entropy coding"]) == ("random", "portable")
