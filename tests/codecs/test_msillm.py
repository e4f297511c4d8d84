"""MS-ILLM: the published keys, the published count of bits, decoded anywhere."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned import msillm
from rdpbench.codecs.learned.msillm_network import FULL, TINY, MsillmNetwork, random_network
from rdpbench.codecs.learned.systems import to_planes
from rdpbench.errors import MissingNeed, UnsupportedImage
from rdpbench.image import Image
from rdpbench.networks.precision import reproducible

ROOT = Path(__file__).parents[2]
CLASSES: dict[str, type[msillm.MSILLM]] = {cls.name: cls for cls in (msillm.MSILLM, msillm.NoGAN)}


def tiny(**options: Any) -> msillm.MSILLM:
    return msillm.MSILLM(**{"weights": "random", "quality": 3, **options})


# The published network


def digest(shapes: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()


def test_full_width_keys_and_shapes_are_those_of_the_checkpoints(
    shapes_of: Callable[..., dict[str, list[int]]],
) -> None:
    """The digest is of keys and shapes as the official class has them, version 0.3.1."""
    shapes = shapes_of(lambda: MsillmNetwork(FULL))
    assert len(shapes) == 163
    assert digest(shapes) == "86ed7ada1d7f668c0f647a4cb69c872074af32ffaad45b98cee75ec83c7c4b9c"
    net = {key: one for key, one in shapes.items() if not key.endswith((".bound", ".target", ".scale_bound"))}
    assert sum(int(np.prod(one)) for one in net.values()) == 181_481_103
    assert abs(4 * 181_481_103 / msillm.ABOUT - 1) < 0.001


def test_the_keys_of_the_dossier_are_these(shared: Path, shapes_of: Callable[..., dict[str, list[int]]]) -> None:
    found = json.loads((shared / "dossier" / "keys" / "msillm.json").read_text())
    assert shapes_of(lambda: MsillmNetwork(FULL)) == found


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


# Checkpoints


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
    made = tiny().encode(photograph[:100, :77], Side())
    printed = json.loads(made.info["legacy"])
    strings = [made.data[-made.parts["y"] :], made.data[-made.parts["y"] - 3 - made.parts["z"] :][: made.parts["z"]]]
    assert printed["pickle"] == 8 * len(pickle.dumps(official(*([one] for one in strings), (100, 77), (128, 128)), 4))
    assert printed["headerless"] == 8 * (made.parts["z"] + made.parts["y"])
    assert 110 <= (printed["pickle"] - printed["headerless"]) / 8 <= 126
    assert printed["nominal"] == pytest.approx(0.14 * 7700)


# Round trips


def test_what_reflection_cannot_pad_is_refused(photograph: Image) -> None:
    for height, width in ((1, 1), (32, 64), (128, 20)):
        with pytest.raises(UnsupportedImage, match="too few to be padded to a multiple of 64 by reflection"):
            tiny().encode(photograph[:height, :width], Side())


def test_the_decoder_gets_what_the_transforms_alone_give(photograph: Image) -> None:
    """Against the network written out, its latents rounded around the means."""
    image = photograph[:100, :77]
    net = random_network(TINY, 5)
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
