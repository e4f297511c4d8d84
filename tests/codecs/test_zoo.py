"""CompressAI's zoo: the same networks, the same strings, decoded anywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned import zoo
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.entropy import set_tables
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import decode_images, encode_images, to_images, to_planes
from rdpbench.codecs.learned.zoo import Hyperprior, network, random_network
from rdpbench.errors import BitstreamError, MissingNeed, OutOfRange
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.precision import reproducible

CLASSES: dict[str, type[zoo.Zoo]] = {cls.name: cls for cls in zoo.Zoo.__subclasses__()}
ROOT = Path(__file__).parents[2]
WHERE = {name: f"rdpbench.codecs.learned.zoo:{cls.__name__}" for name, cls in CLASSES.items()}
EVERY = pytest.mark.parametrize("name", sorted(CLASSES))


def tiny(name: str, **options: Any) -> zoo.Zoo:
    return CLASSES[name](**{"weights": "random", "quality": 3, **options})


# The same networks and files as CompressAI's


def test_files_and_widths_are_those_of_the_zoo() -> None:
    from compressai.zoo.image import cfgs, model_urls

    assert set(CLASSES) == set(model_urls) == set(zoo.FILES)
    count = 0
    for name, metrics in model_urls.items():
        for metric, files in metrics.items():
            rate = CLASSES[name].rate
            assert list(files) == list(rate.values) == list(range(1, int(rate.high) + 1))
            for quality, address in files.items():
                card = CLASSES[name](quality=quality, metric=metric).card()
                assert card.source == address
                assert zoo.widths(name, quality) == cfgs[name][quality]
                count += 1
    assert count == 88


@EVERY
def test_full_width_keys_and_shapes_are_compressais(name: str) -> None:
    """Nothing is allocated: tensors without storage."""
    from compressai.zoo.image import cfgs, model_architectures
    from torch._subclasses.fake_tensor import FakeTensorMode

    for quality in (1, int(CLASSES[name].rate.high)):
        with FakeTensorMode():
            own = network(name, zoo.widths(name, quality)).state_dict()
            theirs = model_architectures[name](*cfgs[name][quality]).state_dict()
        assert {key: one.shape for key, one in own.items()} == {key: one.shape for key, one in theirs.items()}
        assert own["g_a.0.conv1.weight" if "cheng" in name else "g_a.0.weight"].shape[0] == cfgs[name][quality][0]


def test_configurations_list_every_rate() -> None:
    found = set()
    for file in sorted((ROOT / "conf" / "codec").glob("*.yaml")):
        conf = yaml.safe_load(file.read_text())
        if conf["use"] in CLASSES:
            assert conf["name"] == file.stem
            assert conf["rates"] == list(CLASSES[conf["use"]].rate.values)
            for rate in conf["rates"]:
                CLASSES[conf["use"]](quality=rate, **conf["options"])
            found.add((conf["use"], conf["options"]["metric"]))
    assert len(found) == 12


def test_qualities_that_were_never_trained_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"'cheng2020-attn' takes: quality 1\.\.6"):
        zoo.Cheng2020Attention(quality=7)
    with pytest.raises(OutOfRange):
        zoo.Autoregressive(quality=9)


# Official files


def test_an_official_file_is_found_checked_loaded_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    codec = zoo.FactorizedPrior(quality=1)
    [need] = codec.weight_needs()
    for line in ("bmshj2018-factorized-prior-1-446d5c7f.pth.tar", "from     https://compressai", "licence  BSD-3"):
        assert line in str(need.missing())
    with pytest.raises(MissingNeed, match="'compressai/bmshj2018-factorized-mse-1' are not on this machine"):
        codec.encode(photograph, Side())
    assert codec.weights_kind() == "official"
    assert codec.coder()["weights"] == "sha256:446d5c7f"

    net = random_network("bmshj2018-factorized", (128, 192), 1)
    set_tables(net, {})
    file = tmp_path / "file"
    torch.save({f"module.{key}": one for key, one in net.state_dict().items()}, file)
    file.rename(tmp_path / "bmshj2018-factorized-prior-1-446d5c7f.pth.tar")
    assert "is not the file that its name says" in str(need.missing())

    digits = hashlib.sha256((tmp_path / "bmshj2018-factorized-prior-1-446d5c7f.pth.tar").read_bytes()).hexdigest()[:8]
    names = zoo.FILES["bmshj2018-factorized"]
    monkeypatch.setitem(names, "mse", names["mse"].replace("446d5c7f", digits))
    (tmp_path / "bmshj2018-factorized-prior-1-446d5c7f.pth.tar").rename(tmp_path / codec.published().card.file)
    assert codec.published().missing() is None
    made = codec.encode(photograph, Side())
    full = zoo.FactorizedPrior(quality=1, weights="random-full")
    assert made.data == full.encode(photograph, Side()).data
    assert full.weights_kind() == "random"
    assert full.weight_needs() == ()


# Round trips


@EVERY
@pytest.mark.parametrize("portable", [False, True])
def test_a_fresh_object_decodes_any_size_from_bytes_alone(name: str, portable: bool, photograph: Image) -> None:
    for image in (photograph[:64, :64], photograph[:61, :99], photograph[:1, :1]):
        made = tiny(name, portable=portable).encode(np.ascontiguousarray(image), Side())
        found = tiny(name, portable=portable).decode(bytes(made.data))
        assert found.shape == image.shape
        assert sum(made.parts.values()) == len(made.data)
        expected = {"header", "y"} | ({"z"} if name != "bmshj2018-factorized" else set())
        assert set(made.parts) == expected | ({"guard"} if portable else set())
        assert made.parts["header"] <= 9
        assert json.loads(made.info["legacy"])["headerless"] == 8 * sum(made.parts.get(one, 0) for one in "yz")


@EVERY
def test_random_rates_grow_with_quality(name: str, photograph: Image) -> None:
    image = np.ascontiguousarray(photograph[:128, :192])
    sizes = [len(tiny(name, quality=quality).encode(image, Side()).data) for quality in (1, 3, 6)]
    # The factorized model's untrained distribution is as good as flat up to 10.
    assert sizes[0] <= sizes[1] < sizes[2]


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean"])
def test_strings_and_pixels_are_compressais(name: str, photograph: Image) -> None:
    system = tiny(name).system()
    assert isinstance(system, Hyperprior)
    [made] = encode_images(name, system, [photograph], [Side()], 1 << 20)
    with reproducible():
        planes = system.frame.pad(to_planes([photograph], "cpu", torch.float32))
        theirs = system.net.compress(planes)
        planes = system.net.decompress(theirs["strings"], theirs["shape"])["x_hat"]
        [pixels] = to_images(system.frame.crop(planes, 192, 256))
    strings = (
        {"z": theirs["strings"][-1][0], "y": theirs["strings"][0][0]}
        if system.hyper
        else {"y": theirs["strings"][0][0]}
    )
    assert {key: made.parts[key] for key in strings} == {key: len(one) for key, one in strings.items()}
    assert all(one in made.data for one in strings.values())
    [found] = decode_images(name, system, [made.data], 1 << 20)
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("name", ["mbt2018", "cheng2020-anchor", "cheng2020-attn"])
def test_wavefronts_give_compressais_pixels_and_rate(name: str, photograph: Image) -> None:
    """In double precision: in single, sums in another order would end in other symbols on either side."""
    system = tiny(name).system()
    assert isinstance(system, Hyperprior)
    [made] = encode_images(name, system, [photograph[:128, :128]], [Side()], 1 << 20)
    [found] = decode_images(name, system, [made.data], 1 << 20)
    net = random_network(name, (12,) if "cheng" in name else (8, 12), 3)
    set_tables(net, {})
    net.double()
    torch.set_default_dtype(torch.float64)
    try:
        with reproducible():
            theirs = net.compress(to_planes([photograph[:128, :128]], "cpu", torch.float64))
            [pixels] = to_images(net.decompress(theirs["strings"], theirs["shape"])["x_hat"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.parts["z"] == len(theirs["strings"][1][0])
    assert abs(made.parts["y"] - len(theirs["strings"][0][0])) <= 4
    assert np.abs(found.astype(int) - pixels).max() <= 1


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "cheng" in name else name for name in sorted(CLASSES)]
)
@pytest.mark.parametrize("portable", [False, True])
def test_threads_and_batches_change_no_symbol(name: str, portable: bool, photograph: Image) -> None:
    codec = tiny(name, portable=portable)
    images = [np.ascontiguousarray(photograph[at : at + 100, at : at + 77]) for at in (0, 30, 60, 90)]
    threads = torch.get_num_threads()
    made: dict[tuple[int, int], list[bytes]] = {}
    pixels: dict[tuple[int, int], list[Image]] = {}
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            made[count, 1] = [codec.encode(image, Side()).data for image in images[: 4 // count**2]]
            made[count, 4] = [one.data for one in codec.encode_batch(images, [Side()] * 4)]
            pixels[count, 1] = [codec.decode(data) for data in made[1, 1][: 4 // count**2]]
            pixels[count, 4] = codec.decode_batch(made[1, 1])
    finally:
        torch.set_num_threads(threads)
    assert made[2, 1] == made[1, 1][:1]
    assert made[1, 4] == made[2, 4] == made[1, 1]
    for one in pixels.values():
        assert np.abs(np.stack(one).astype(int) - np.stack(pixels[1, 1][: len(one)])).max() <= 1
    with pytest.raises(BitstreamError, match="a batch holds images of one size"):
        codec.decode_batch([made[1, 1][0], codec.encode(photograph, Side()).data])


# In other processes


@pytest.mark.slow
@pytest.mark.parametrize("full", ["random", "random-full"])
def test_a_fresh_process_decodes_the_same_pixels(full: str, decoded_elsewhere: Any) -> None:
    """At full width: 256 x 256 and an odd size, one thread and batch 1 against two threads."""
    from skimage import data

    picture: Image = np.ascontiguousarray(data.astronaut()[:256, 100:356])
    threads = torch.get_num_threads()
    try:
        for portable in (False, True):
            hashes, files = {}, {}
            for name, cls in CLASSES.items():
                options: dict[str, Any] = {"weights": full, "quality": 6, "portable": portable}
                codec = cls(**options)
                torch.set_num_threads(1)
                image = picture if portable else np.ascontiguousarray(picture[:250, :171])
                made = codec.encode(image, Side())
                alone = codec.decode(made.data)
                files[name] = (WHERE[name], options, made.data)
                hashes[name] = pixel_sha256(alone)
                torch.set_num_threads(2)
                again = codec.encode(image, Side())
                if portable:
                    assert again.data == made.data
                assert np.abs(codec.decode(made.data).astype(int) - alone).max() <= 1
                pair = codec.decode_batch([made.data] * 2)
                assert max(np.abs(one.astype(int) - alone).max() for one in pair) <= 1
            assert decoded_elsewhere(files) == hashes
    finally:
        torch.set_num_threads(threads)


def test_the_contract_is_kept() -> None:
    from rdpbench.codecs.contract import Codec, coder_of, facts_of, rate_of

    codec = tiny("mbt2018", portable=True)
    assert isinstance(codec, Codec)
    assert isinstance(codec, LearnedCodec)
    assert rate_of(type(codec)) is not None
    assert all(need.missing() is None for need in facts_of(type(codec)).needs)
    coder = coder_of(codec)
    assert coder["weights"] == "random"
    assert coder["entropy coding"] == "portable"
    assert coder["compressai"] == compressai.__version__
