"""CompressAI's zoo: the same networks, the same strings, decoded anywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned import zoo
from rdpbench.codecs.learned.systems import decode_images, encode_images, to_images, to_planes
from rdpbench.codecs.learned.zoo import Hyperprior, network, random_network
from rdpbench.errors import MissingNeed
from rdpbench.image import Image
from rdpbench.networks.precision import reproducible

CLASSES: dict[str, type[zoo.Zoo]] = {cls.name: cls for cls in zoo.Zoo.__subclasses__()}
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
