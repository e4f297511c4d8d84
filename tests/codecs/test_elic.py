"""ELIC: the published keys through CompressAI's class, CompressAI's strings, decoded anywhere."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rdpbench.codecs.contract import Codec, Side, coder_of
from rdpbench.codecs.learned import elic
from rdpbench.codecs.learned.elic import ELIC
from rdpbench.codecs.learned.elic_network import TINY, ElicLayout, ElicSystem, network, put, random_network, take
from rdpbench.codecs.learned.entropy import load_with_tables
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import decode_images, encode_images, to_images, to_planes
from rdpbench.errors import BitstreamError, CodecError, MissingNeed, OutOfRange
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.precision import reproducible

ROOT = Path(__file__).parents[2]
WHERE = "rdpbench.codecs.learned.elic:ELIC"


def tiny(**options: Any) -> ELIC:
    return ELIC(**{"weights": "random", "quality": 3, **options})


def cut(image: Image, height: int, width: int) -> Image:
    return np.ascontiguousarray(image[:height, :width])


# The published network


def digest(shapes: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()


def full_shapes() -> dict[str, list[int]]:
    """Nothing is allocated: tensors without storage."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return {key: list(one.shape) for key, one in network(ElicLayout()).state_dict().items()}


def published(name: str) -> str:
    """The name in the published files, written the other way round; those of five Gaussian models become one."""
    name = name.removeprefix("latent_codec.hyper.")
    name = re.sub(r"latent_codec\.y\.latent_codec\.y\d\.y\.gaussian", "gaussian", name)
    name = re.sub(r"latent_codec\.y\.latent_codec\.y(\d)\.context_prediction", r"context_prediction.\1", name)
    name = re.sub(r"latent_codec\.y\.latent_codec\.y(\d)\.entropy_parameters", r"ParamAggregation.\1", name)
    return re.sub(r"latent_codec\.y\.channel_context\.y(\d)", lambda at: f"cc_transforms.{int(at[1]) - 1}", name)


def test_full_width_keys_and_shapes_are_those_of_the_checkpoints() -> None:
    """The digests are of keys and shapes of both official classes, CompressAI 1.2.8 and the re-implementation."""
    shapes = full_shapes()
    files = {published(key): shape for key, shape in shapes.items()}
    assert (len(shapes), len(files)) == (412, 384)
    assert digest(shapes) == "832206522ac7c8f17dcfca2755d9208bf45dab086de46163654f82880661e9dd"
    assert digest(files) == "c134eb5150d46ff1e39100e26df0b7c074daa5d141769d78e896c1c8a7499b01"
    assert {elic.renamed(key): shape for key, shape in elic.spread(files).items()} == shapes  # type: ignore[arg-type]


def test_the_keys_of_the_dossier_are_these(shared: Path) -> None:
    keys = {file: json.loads((shared / "dossier" / "keys" / f"{file}.json").read_text()) for file in DOSSIER}
    chandelier, own, official = (keys[file] for file in DOSSIER)
    shapes = full_shapes()
    assert own == shapes
    assert {elic.renamed(key): shape for key, shape in elic.spread(chandelier).items()} == shapes
    assert official != own


DOSSIER = ("elic_chandelier", "compressai_elic2022_chandelier", "compressai_elic2022_official")


def test_every_published_file_has_a_card() -> None:
    cards = [ELIC(quality=quality).card() for quality in ELIC.rate.values]
    assert [card.id for card in cards] == [f"elic/lambda{one:g}" for one in (0.004, 0.008, 0.016, 0.032, 0.15, 0.45)]
    assert len({card.source for card in cards}) == len({card.file for card in cards}) == 6
    assert cards[5].source == "https://drive.google.com/file/d/1uuKQJiozcBfgGMJ8CfM6lrXOZWv6RUDN/view"
    assert ["0.0016" in card.note for card in cards] == [False, False, True, False, False, False]
    assert ELIC().weights_kind() == "unpinned"  # no hash is published


def test_the_configuration_lists_every_rate() -> None:
    conf = yaml.safe_load((ROOT / "conf" / "codec" / "elic.yaml").read_text())
    assert (conf["name"], conf["use"]) == ("elic", "elic")
    assert conf["rates"] == list(ELIC.rate.values)
    for rate in conf["rates"]:
        ELIC(quality=rate, **conf["options"])
    with pytest.raises(OutOfRange, match=r"'elic' takes: quality 1\.\.6"):
        ELIC(quality=7)


# Checkpoints

OLD = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}


def as_published(net: Any) -> dict[str, torch.Tensor]:
    """With the names of a file of 2022, trained in parallel."""
    out = {}
    for key, tensor in net.state_dict().items():
        name = published(key)
        for new, old in OLD.items():
            name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
        out[f"module.{name}"] = tensor.clone()
    return out


def test_published_names_prefixes_and_baked_tables_load_to_the_same_network() -> None:
    net = random_network(TINY, 3)
    tensors = as_published(net)
    tensors["module.gaussian_conditional._quantized_cdf"][3, 1] += 1  # as built on another machine
    again = network(TINY)
    made = load_with_tables(again, elic.spread(tensors), "example", rename=elic.renamed)
    assert len(made) == 6
    assert set(made.values()) == {"baked"}
    for name, one in net.state_dict().items():
        off = name.endswith("gaussian_conditional._quantized_cdf")
        assert int((one != again.state_dict()[name]).sum()) == off, name
    bare = {key: one for key, one in tensors.items() if not re.search(r"_cdf|_offset|_table$|\.bound$|mask$", key)}
    assert set(load_with_tables(network(TINY), elic.spread(bare), "example", rename=elic.renamed).values()) == {
        "rebuilt"
    }


def test_what_does_not_fit_is_named() -> None:
    tensors = as_published(random_network(TINY, 3))
    del tensors["module.cc_transforms.0.0.weight"]
    tensors["module.context_prediction.5.weight"] = torch.zeros(2)
    tensors["module.h_a.0.weight"] = torch.zeros(8, 20, 5, 5)
    with pytest.raises(CodecError) as caught:
        load_with_tables(network(TINY), elic.spread(tensors), "another", rename=elic.renamed)
    for line in (
        "latent_codec.y.channel_context.y1.0.weight (224, 2, 5, 5) is missing",
        "latent_codec.y.latent_codec.y5.context_prediction.weight (2,) has no place",
        "latent_codec.hyper.h_a.0.weight is (8, 20, 5, 5), must be (8, 20, 3, 3)",
    ):
        assert line in str(caught.value)


def test_the_network_of_the_paper_is_another() -> None:
    theirs = compressai.models.sensetime.Elic2022Official(TINY.width, sum(TINY.groups), list(TINY.groups))
    with pytest.raises(CodecError, match=r"y3\.0\.weight is \(224, 8, 5, 5\), must be \(224, 6, 5, 5\)") as caught:
        load_with_tables(network(TINY), elic.spread(theirs.state_dict()), "official", rename=elic.renamed)
    assert "h_s.4.weight" in str(caught.value)


def test_a_published_file_is_asked_for_read_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    """The width is narrowed so that the file is small; the way is the same."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("rdpbench.codecs.learned.elic_network.ElicLayout", lambda: TINY)
    codec = ELIC(quality=6)
    [need] = codec.weight_needs()
    for line in ("lambda 0.45", "from     https://drive.google.com/file", "licence  none stated", "135 MB"):
        assert line in str(need.missing())
    with pytest.raises(MissingNeed, match=r"'elic/lambda0\.45' are not on this machine"):
        codec.encode(photograph, Side())
    beside = {"epoch": 4200, "loss": torch.zeros(()), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]}}
    tensors = as_published(random_network(TINY, 6))
    torch.save({**beside, "state_dict": tensors}, tmp_path / "elic-lambda0.45.pth.tar")
    assert need.missing() is None
    made = codec.encode(photograph, Side())
    assert made.data == tiny(quality=6).encode(photograph, Side()).data
    assert np.array_equal(codec.decode(made.data), tiny(quality=6).decode(made.data))
    assert codec.coder()["weights"].startswith("unpinned:")


# Round trips


def test_halves_of_a_checkerboard_are_those_of_compressai() -> None:
    planes = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    board = network(TINY).latent_codec["y"]["y0"]
    assert board.anchor_parity == "even"
    for parity, theirs in enumerate(board.unembed(planes)):
        assert torch.equal(take(planes, parity), theirs)
    assert torch.equal(put(take(planes, 0), 0) + put(take(planes, 1), 1), planes)


@pytest.mark.parametrize("portable", [False, True])
def test_a_fresh_object_decodes_any_size_from_bytes_alone(portable: bool, photograph: Image) -> None:
    halves = {f"y{group}-{half}" for group in range(5) for half in ("anchors", "others")}
    for height, width in ((64, 64), (61, 99), (1, 1), (65, 2)):
        image = cut(photograph, height, width)
        made = tiny(portable=portable).encode(image, Side())
        assert tiny(portable=portable).decode(bytes(made.data)).shape == image.shape
        assert sum(made.parts.values()) == len(made.data)
        assert set(made.parts) == {"header", "z", *halves} | ({"guard"} if portable else set())
        # The published count: the strings, over the image's own pixels.
        strings = sum(made.parts.values()) - made.parts["header"] - made.parts.get("guard", 0)
        assert json.loads(made.info["legacy"])["headerless"] == 8 * strings


def test_random_rates_grow_with_quality(photograph: Image) -> None:
    image = cut(photograph, 96, 96)
    sizes = [len(tiny(quality=quality).encode(image, Side()).data) for quality in ELIC.rate.values]
    assert sizes == sorted(set(sizes))


def test_strings_and_pixels_are_compressais(photograph: Image) -> None:
    """Padded with zeros right and below, as the published script does."""
    codec = tiny()
    system = codec.system()
    assert isinstance(system, ElicSystem)
    image = cut(photograph, 100, 77)
    made = codec.encode(image, Side())
    net = random_network(TINY, 3)
    with reproducible():
        planes = torch.nn.functional.pad(to_planes([image], "cpu", torch.float32), (0, 51, 0, 28))
        theirs = net.compress(planes)
        [pixels] = to_images(net.decompress(theirs["strings"], theirs["shape"])["x_hat"][..., :100, :77])
    *y, z = [one for [one] in theirs["strings"]]
    assert [made.parts[name] for name in system.sections(128, 128)] == [len(one) for one in (z, *y)]
    assert made.data.endswith(y[-1])
    assert all(one in made.data for one in (z, *y))
    assert np.abs(codec.decode(made.data).astype(int) - pixels).max() <= 1
    assert pixels.std() > 20


@pytest.mark.parametrize("portable", [False, True])
def test_threads_and_batches_change_no_symbol(portable: bool, photograph: Image) -> None:
    codec = tiny(portable=portable)
    images = [np.ascontiguousarray(photograph[at : at + 100, at : at + 77]) for at in (0, 30, 60)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        datas = [codec.encode(image, Side()).data for image in images]
        alone = np.stack([codec.decode(data) for data in datas]).astype(int)
        for count in (1, 2):
            torch.set_num_threads(count)
            assert [one.data for one in codec.encode_batch(images, [Side()] * 3)] == datas
            assert np.abs(np.stack(codec.decode_batch(datas)) - alone).max() <= 1
        assert codec.encode(images[0], Side()).data == datas[0]
        assert np.abs(codec.decode(datas[0]) - alone[0]).max() <= 1
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(BitstreamError, match="a batch holds images of one size"):
        codec.decode_batch([datas[0], codec.encode(photograph, Side()).data])


def disturbed(portable: bool) -> ElicSystem:
    """As another machine may have it: every parameter of a distribution off by up to half the guard."""
    system = ElicSystem(random_network(TINY, 3), portable=portable)
    for group in range(5):
        system.contexts[f"y{group}"].entropy_parameters.register_forward_hook(
            lambda _module, _given, values: shifted(values, 2.0**-33 if portable else 1e-4)
        )
    return system


def shifted(values: torch.Tensor, amount: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(values.numel())
    noise = 2 * torch.rand(values.shape, generator=generator, dtype=values.dtype) - 1
    return values + noise * amount * values.abs().clamp(min=1)


def test_portable_files_survive_a_machine_that_computes_otherwise(photograph: Image) -> None:
    for portable in (True, False):
        codec = tiny(portable=portable)
        made = codec.encode(photograph, Side())
        try:
            [found] = decode_images("other", disturbed(portable), [made.data], 1 << 20)
        except BitstreamError:  # noise may be no bitstream
            assert not portable
        else:
            assert np.array_equal(found, codec.decode(made.data)) == portable
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
            codec = ELIC(**options)
            for image in (picture, cut(picture, 250, 171)):
                torch.set_num_threads(1)
                made = codec.encode(image, Side())
                alone = codec.decode(made.data)
                assert len(made.data) == sum(made.parts.values())
                name = str(len(hashes))
                files[name] = (WHERE, options, made.data)
                hashes[name] = pixel_sha256(alone)
                torch.set_num_threads(2)
                if portable:
                    assert [one.data for one in codec.encode_batch([image] * 2, [Side()] * 2)] == [made.data] * 2
                pair = codec.decode_batch([made.data] * 2)
                assert max(np.abs(one.astype(int) - alone).max() for one in pair) <= 1
    finally:
        torch.set_num_threads(threads)
    assert decoded_elsewhere(files) == hashes


def test_the_contract_is_kept() -> None:
    coder = coder_of(tiny(portable=True))
    assert isinstance(tiny(), Codec)
    assert (coder["weights"], coder["entropy coding"]) == ("random", "portable")
