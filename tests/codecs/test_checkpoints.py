"""Official state dicts into the real classes: everything has a place, or is named."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rdpbench.assets import load, weights
from rdpbench.codecs.learned.entropy import check_tables, load_with_tables
from rdpbench.codecs.learned.zoo import network, random_network
from rdpbench.errors import CodecError, MissingNeed

NARROW = (8, 12)
OLD = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}


def trained(architecture: str = "mbt2018-mean", quality: int = 4) -> Any:
    """A tiny network of the real class, with tables."""
    return random_network(architecture, NARROW, quality)


def aged(name: str) -> str:
    """A name as files of 2020 have it."""
    for new, old in OLD.items():
        name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
    return f"module.{name}"


def copy(net: Any) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in net.state_dict().items()}


def fitted(tensors: dict[str, torch.Tensor], **options: Any) -> Any:
    net = network("mbt2018-mean", NARROW)
    net.tables = load_with_tables(net, tensors, "example", **options)
    return net.eval()


def test_old_names_prefixes_and_baked_tables_load_to_the_same_network() -> None:
    net = trained()
    net.entropy_bottleneck._quantized_cdf[0, 1] += 1  # as built on another machine
    again = fitted({aged(name): one for name, one in copy(net).items()})
    assert again.tables == {"entropy_bottleneck": "baked", "gaussian_conditional": "baked"}
    for name, one in net.state_dict().items():
        assert torch.equal(one, again.state_dict()[name]), name


def test_tables_that_are_absent_or_empty_are_built() -> None:
    net = trained()
    full = copy(net)
    absent = {
        name: one for name, one in full.items() if "_cdf" not in name and not name.endswith(("_offset", "_table"))
    }
    empty = absent | {name: one[:0] for name, one in full.items() if name not in absent}
    for tensors in (absent, empty):
        again = fitted(tensors)
        assert set(again.tables.values()) == {"rebuilt"}
        assert torch.equal(again.entropy_bottleneck._quantized_cdf, net.entropy_bottleneck._quantized_cdf)
        assert torch.equal(again.gaussian_conditional._quantized_cdf, net.gaussian_conditional._quantized_cdf)


def test_everything_that_does_not_fit_is_named() -> None:
    tensors = copy(trained())
    del tensors["g_a.0.weight"]
    del tensors["h_s.2.bias"]
    tensors["g_a.2.weight"] = tensors["g_a.2.weight"][:, :3]
    tensors["g_a.1.beta"] = tensors["g_a.1.beta"].int()
    tensors["discriminator.0"] = torch.zeros(2)
    tensors["gaussian_conditional.lower_bound_scale.bound"] += 0.1
    with pytest.raises(CodecError) as error:
        fitted(tensors)
    for line in (
        "tensors of example do not fit",
        "g_a.0.weight (8, 3, 5, 5) is missing",
        "h_s.2.bias (18,) is missing",
        "g_a.2.weight is (8, 3, 5, 5), must be (8, 8, 5, 5)",
        "g_a.1.beta is torch.int32, must be torch.float32",
        "discriminator.0 (2,) has no place",
        "gaussian_conditional.lower_bound_scale.bound is a constant",
    ):
        assert line in str(error.value)
    assert len(str(error.value).splitlines()) == 7


def test_drops_and_renames_are_those_of_the_codec() -> None:
    net = trained()
    tensors = {name.replace("h_a.", "analysis."): one for name, one in copy(net).items()}
    tensors["optimizer.step"] = torch.zeros(1)
    with pytest.raises(CodecError, match=r"h_a.0.weight .* is missing(.|\n)*optimizer.step .* has no place"):
        fitted(tensors)
    again = fitted(tensors, drop=["optimizer.*"], rename=lambda name: name.replace("analysis.", "h_a."))
    assert torch.equal(again.h_a[0].weight, net.h_a[0].weight)
    with pytest.raises(CodecError, match=r"h_a.0.weight is there twice"):
        fitted(tensors | {"h_a.0.weight": net.h_a[0].weight}, rename=lambda name: name.replace("analysis.", "h_a."))


def test_constants_may_be_absent() -> None:
    tensors = {name: one for name, one in copy(trained()).items() if name.rpartition(".")[2] not in load.CONSTANTS}
    assert "gaussian_conditional.scale_bound" not in tensors
    fitted(tensors)


def test_tables_that_are_no_distributions_are_refused() -> None:
    """The C++ coder would read beside them."""
    tensors = copy(trained())
    for name, change in (
        ("entropy_bottleneck._quantized_cdf", lambda one: one.flip(1)),
        ("entropy_bottleneck._cdf_length", lambda one: one + 1000),
        ("gaussian_conditional._quantized_cdf", lambda one: one[:-1]),
        ("gaussian_conditional._offset", lambda one: one - (1 << 25)),
        ("gaussian_conditional.scale_table", lambda one: one.flip(0)),
    ):
        with pytest.raises(CodecError, match=r"table"):
            fitted(tensors | {name: change(tensors[name])})
    del tensors["gaussian_conditional._offset"]
    with pytest.raises(CodecError, match=r"_quantized_cdf, _cdf_length, scale_table of gaussian_conditional"):
        fitted(tensors)
    with pytest.raises(CodecError, match=r"row 1 "):
        check_tables(np.array([[0, 5, 65536], [0, 5, 65535]]), [3, 3], [0, 0])


def place(folder: Path, content: Any, monkeypatch: pytest.MonkeyPatch, digits: str = "") -> weights.Weights:
    """A file as a publisher names it, with the digits of its hash in the name, unless others are given."""
    file = folder / "part.pth"
    torch.save(content, file)
    digits = digits or hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    file.rename(folder / f"example-{digits}.pth")
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(folder))
    monkeypatch.setenv("RDPBENCH_CACHE", str(folder / "cache"))
    return weights.Weights(
        weights.Card("example", "https://example.org/x.pth", "1", f"example-{digits}.pth", "MIT", "example")
    )


class Settings:
    """What training scripts leave in their files."""


def test_files_are_read_without_code_and_unwrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = copy(trained())
    harmless = {"args": argparse.Namespace(lr=1e-4), "best": np.float64(0.3), "out": Path("/runs/1")}
    for number, content in enumerate(
        [tensors, {"epoch": 3, "state_dict": tensors}, {**harmless, "network": {"of": tensors}}]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        fitted(place(folder, content, monkeypatch).read())
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(
        CodecError, match=r"holds more than tensors and was not opened: .*Settings.* torch.save\("
    ) as error:
        place(other, {"args": Settings(), **tensors}, monkeypatch).read()
    assert "weights_only" not in str(error.value), "torch's advice, which is to run what is in the file"
    with pytest.raises(CodecError, match=r"example holds no tensors by name; it holds: epoch, weights"):
        fitted({"epoch": 1, "weights": {}})


def test_a_file_must_have_the_hash_that_its_name_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = place(tmp_path, {"a": torch.zeros(1)}, monkeypatch)
    assert good.missing() is None
    assert good.published
    assert good.identity == f"sha256:{good.card.digits}"
    bad = place(tmp_path, {"a": torch.zeros(1)}, monkeypatch, digits="00000000")
    assert "is not the file that its name says: its sha256 is " in str(bad.missing())
    with pytest.raises(MissingNeed, match="00000000"):
        bad.read()
