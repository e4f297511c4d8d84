"""Weights of the user's own: a file or folder in place of the published one, marked, keyed by content, or refused."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rdpbench import registry
from rdpbench.codecs.contract import Side, coder_of, own_options, weights_kind_of
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.zoo import MeanScaleHyperprior, Zoo, random_network
from rdpbench.config import bench
from rdpbench.config import typed as overrides
from rdpbench.errors import CodecError, ConfigError
from rdpbench.image import Image
from rdpbench.results.store.calls import codec_named
from rdpbench.results.store.keys import build, codec_identity
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import decode_row
from rdpbench.setting import CodecSetting

Write = Callable[[str, Any], Path]
LEARNED = sorted(name for name in registry.BUILTIN["codec"] if issubclass(registry.load("codec", name), LearnedCodec))


def trained(architecture: str = "mbt2018-mean", quality: int = 3, widths: tuple[int, ...] = (8, 12)) -> Any:
    """A tiny network of the real class, with tables."""
    return random_network(architecture, widths, quality)


def state(quality: int = 3) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in trained(quality=quality).state_dict().items()}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path / "none"))

    def file(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path)
        return path

    return file


def loaded(path: Path, key: str = "") -> dict[str, torch.Tensor]:
    system: Any = MeanScaleHyperprior(checkpoint=str(path), weights_key=key).system()
    return dict(system.net.state_dict())


def refused(path: Path, key: str = "") -> str:
    """What the plan is told, which must be no advice of torch's."""
    [need] = MeanScaleHyperprior(checkpoint=str(path), weights_key=key).weight_needs()
    text = need.missing()
    assert text is not None
    assert "weights_only" not in text
    return text


# What training leaves


WRAPS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "bare.pt": dict,
    "compressai.pth.tar": lambda tensors: {
        "epoch": 3,
        "state_dict": {f"module.{name}": one for name, one in tensors.items()},
        "best": np.float64(0.3),
        "optimizer": torch.optim.Adam(trained().parameters()).state_dict(),
    },
    "twice.pt": lambda tensors: {"model": {f"module.module.{name}": one for name, one in tensors.items()}},
    "compiled.pt": lambda tensors: {f"_orig_mod.{name}": one for name, one in tensors.items()},
    "epoch=3-step=20.ckpt": lambda tensors: {
        "hyper_parameters": {"args": argparse.Namespace(lr=1e-4), "out": Path("/runs")},
        "state_dict": {
            **{f"model._orig_mod.{name}": one for name, one in tensors.items()},
            **{f"lpips.net.{name}": torch.zeros(3) for name in ("a", "b")},
        },
    },
    "nested.pt": lambda tensors: {
        "nets": {"codec": {"state": tensors}, "discriminator": {"conv.weight": torch.ones(2)}}
    },
    "averaged.pt": lambda tensors: {
        "ema": {"n_averaged": torch.tensor(9), **{f"module.{k}": v for k, v in tensors.items()}}
    },
    "plain.safetensors": dict,
}


@pytest.mark.parametrize("name", WRAPS)
def test_ordinary_files_load_to_the_same_network(name: str, write: Write) -> None:
    tensors = state()
    found = loaded(write(name, WRAPS[name](tensors)))
    assert all(torch.equal(one, found[key]) for key, one in tensors.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_named(
    dtype: torch.dtype, write: Write, photograph: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    net = trained().to(dtype)
    codec = MeanScaleHyperprior(checkpoint=str(write("half.pt", net.state_dict())))
    [need] = codec.weight_needs()
    assert need.missing() is None
    told = f"{str(dtype).removeprefix('torch.')} converted to float32"
    assert told in capsys.readouterr().err
    made = codec.encode(photograph, Side())
    assert told in made.info["weights"]
    assert codec.decode(made.data).shape == photograph.shape
    system: Any = codec.system()
    assert torch.equal(system.net.g_a[0].weight, net.g_a[0].weight.float())


PAIRS = [
    ("state_dict", "ema_state_dict"),
    ("model", "ema"),
    ("params", "params_ema"),
    ("generator", "g_ema"),
    ("net", "averaged"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_of_two_sets_of_weights_none_is_taken_unasked(pair: tuple[str, str], write: Write) -> None:
    first, second = state(3), state(5)
    other = {"discriminator": {"conv.weight": torch.ones(2)}}
    path = write("two.pt", {pair[0]: first, pair[1]: {f"module.{key}": one for key, one in second.items()}, **other})
    text = refused(path)
    assert f"holds 2 sets of weights for this network: {pair[0]}, {pair[1]}; say which" in text
    for key, tensors in zip(pair, (first, second), strict=True):
        assert all(torch.equal(one, loaded(path, key)[name]) for name, one in tensors.items())
    assert "names no set of weights" in refused(path, "averagee")
    assert f"those that it holds: {pair[0]}, {pair[1]}" in refused(path, "nothing")


def test_two_sets_behind_prefixes_of_one_dictionary_are_two_as_well(write: Write) -> None:
    first, second = state(3), state(5)
    both = {f"model.{key}": one for key, one in first.items()} | {
        f"ema.module.{key}": one for key, one in second.items()
    }
    path = write("prefixes.ckpt", {"state_dict": both})
    assert "2 sets of weights for this network: state_dict.ema, state_dict.model" in refused(path)
    assert torch.equal(loaded(path, "state_dict.ema")["g_a.0.weight"], second["g_a.0.weight"])
    averaged = dict(trained(quality=5).named_parameters())  # parameters alone, without dots in their names
    named = {f"model_ema.{key.replace('.', '')}": one for key, one in averaged.items()} | {
        "model_ema.decay": torch.ones(())
    }
    latent = write("latent.ckpt", {"state_dict": {f"model.{key}": one for key, one in first.items()} | named})
    assert "2 sets of weights for this network: state_dict.model, state_dict.model_ema" in refused(latent)
    assert torch.equal(loaded(latent, "state_dict.model_ema")["g_a.0.weight"], second["g_a.0.weight"])
    bare = write("bare.pt", first | {f"ema.{key}": one for key, one in second.items()})
    assert "2 sets of weights for this network: ., ema" in refused(bare)
    assert torch.equal(loaded(bare, ".")["g_a.0.weight"], first["g_a.0.weight"])
    assert torch.equal(loaded(bare, "ema")["g_a.0.weight"], second["g_a.0.weight"])


class Config:
    """What training scripts leave in their files."""


def test_what_cannot_be_loaded_is_refused_in_one_sentence(write: Write, tmp_path: Path) -> None:
    broken = state()
    broken["g_a.0.weight"][0, 0, 0, 0] = torch.nan
    assert "holds NaN or infinite values: in g_a.0.weight (1 of 600)" in refused(write("nan.pt", broken))
    renamed = state()
    renamed["g_a.0.weights"] = renamed.pop("g_a.0.weight")
    renamed["h_a.0.bias"] = torch.zeros(3)
    text = refused(write("other.pt", renamed))
    assert "g_a.0.weight (8, 3, 5, 5) is missing; nearest: g_a.0.weights" in text
    assert "g_a.0.weights (8, 3, 5, 5) has no place" in text
    assert "h_a.0.bias is (3,), must be (8,)" in text
    text = refused(write("class.pt", {"config": Config(), "state_dict": state()}))
    assert "holds more than tensors and was not opened" in text
    assert "torch.save(network.state_dict(), FILE)" in text
    assert "holds more than tensors" in refused(write("whole.pt", trained()))
    cut = write("cut.pt", state())
    cut.write_bytes(cut.read_bytes()[:1000])
    assert "damaged" in refused(cut)
    assert "holds no tensors by name; it holds: epoch" in refused(write("empty.pt", {"epoch": 3}))
    assert f"did you mean {cut}?" in refused(tmp_path / "cot.pt")
    assert "is a folder, where one file of weights is needed" in refused(tmp_path)
    another = refused(write("another.pt", trained("bmshj2018-factorized").state_dict()))
    assert "do not fit its network" in another


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint='a\.pt' and weights=random: give one of them"):
        MeanScaleHyperprior(checkpoint="a.pt", weights="random")
    with pytest.raises(ConfigError, match="weights_key='ema' is of no use without checkpoint=FILE"):
        MeanScaleHyperprior(weights_key="ema")


# Tables


def test_tables_of_other_parameters_are_never_used_in_silence(
    write: Write, photograph: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = state()
    for name in [name for name in tensors if name.startswith("entropy_bottleneck.matrices")]:
        tensors[name] = tensors[name] + 0.05
    codec = MeanScaleHyperprior(checkpoint=str(write("stale.pt", tensors)))
    [need] = codec.weight_needs()
    assert need.missing() is None
    assert "tables of entropy_bottleneck rebuilt, since those of the file are not of its parameters" in (
        capsys.readouterr().err
    )
    bare = {name: one for name, one in tensors.items() if "_cdf" not in name and "_offset" not in name}
    bare.pop("gaussian_conditional.scale_table")
    fresh = MeanScaleHyperprior(checkpoint=str(write("bare.pt", bare)))
    made = codec.encode(photograph, Side())
    assert made.data == fresh.encode(photograph, Side()).data
    assert "rebuilt" in made.info["weights"]
    assert "weights" not in fresh.encode(photograph, Side()).info


def test_one_own_file_says_how_wide_its_network_is(write: Write, photograph: Image) -> None:
    for cls in Zoo.__subclasses__():
        cheng = "cheng" in cls.name
        net = trained(cls.name, 3, (12,) if cheng else (8, 12))
        codec = cls(checkpoint=str(write(f"{cls.name}.pt", {"state_dict": net.state_dict()})))
        made = codec.encode(np.ascontiguousarray(photograph[:64, :64]), Side())
        assert (
            made.data
            == cls(weights="random", quality=3).encode(np.ascontiguousarray(photograph[:64, :64]), Side()).data
        )


def small(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What stands beside the tensors in a codec's files; its full width is made the tiny one."""
    from rdpbench.codecs.learned import elic_network, msillm_network
    from rdpbench.codecs.learned.hific.network import HificWidths
    from rdpbench.codecs.learned.lic_tcm import network as lic_tcm_network
    from rdpbench.codecs.learned.taco import network as taco_network

    at = "rdpbench.codecs.learned."
    if name == "elic":
        monkeypatch.setattr(f"{at}elic_network.ElicLayout", lambda: elic_network.TINY)
    elif name == "taco":
        monkeypatch.setattr(f"{at}taco.network.TacoLayout", lambda: taco_network.TINY)
        monkeypatch.setattr(
            f"{at}taco.network.official_reader", lambda *_, **__: taco_network.random_reader(taco_network.TINY.text)
        )
    elif name == "lic-tcm":
        monkeypatch.setattr(f"{at}lic_tcm.network.TcmLayout", lambda *_: lic_tcm_network.TINY)
    elif name.startswith("msillm"):
        monkeypatch.setattr(f"{at}msillm_network.FULL", msillm_network.TINY)
    elif name == "hific":
        monkeypatch.setattr(f"{at}hific.network.HificWidths", lambda *_, **__: HificWidths((6, 8, 8, 12, 16), 12, 8, 2))
        args = {"regime": "mine", "latent_channels": 220, "likelihood_type": "gaussian"}
        args |= {"normalize_input_image": True, "n_residual_blocks": 2, "use_channel_norm": True}
        return {"args": argparse.Namespace(**args)}
    return {}


@pytest.mark.parametrize("name", [name for name in LEARNED if registry.load("codec", name) not in Zoo.__subclasses__()])
def test_every_codec_codes_with_the_network_of_its_own_file(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    cls: Any = registry.load("codec", name)
    random = cls(weights="random" if name != "mini" else "random-full")
    net = random.system().net
    image = np.ascontiguousarray(photograph[:128, :128])
    side = Side(caption="a photograph")
    expected = random.encode(image, side)
    beside = small(name, monkeypatch)
    path = write(
        f"{name}.ckpt", {**beside, "epoch": 1, "params": {f"net.{key}": one for key, one in net.state_dict().items()}}
    )
    codec = cls(checkpoint=str(path))
    assert weights_kind_of(codec) == "own"
    assert codec.weight_needs()[0].missing() is None
    made = codec.encode(image, side)
    assert made.data == expected.data
    assert "nominal" not in json.loads(made.info["legacy"]), "what it was trained for is not known"
    assert np.array_equal(cls(checkpoint=str(path)).decode(made.data), random.decode(made.data))


# Keys, labels and rate points


def setting(*overrides: str) -> CodecSetting:
    [(codec, _)] = bench.read_bench([*overrides, "data=samples"]).grid
    return codec


@pytest.mark.parametrize("name", LEARNED)
def test_every_learned_codec_takes_a_file_and_says_that_it_is_own(name: str, write: Write) -> None:
    path = write("weights/mine.pt", state())
    codec = setting(f"codec={name}", f"codec.options.checkpoint={path}")
    assert "[checkpoint=mine.pt@" in codec.name
    made = json.loads(codec_identity(codec))
    assert made["weights"] == "own"
    assert str(path) not in codec_identity(codec)
    assert "checkpoint" not in made["options"]
    published = setting(f"codec={name}")
    assert published.name != codec.name
    assert "checkpoint" not in codec_identity(published), "keys of published weights stay what they were"


def test_keys_are_of_the_content(write: Write, tmp_path: Path) -> None:
    path = write("a.pt", state())
    first = setting("codec=mbt2018-mean", f"codec.options.checkpoint={path}")
    key = codec_identity(first)
    shutil.copy(path, tmp_path / "copy.pt")
    assert codec_identity(setting("codec=mbt2018-mean", f"codec.options.checkpoint={tmp_path / 'copy.pt'}")) == key
    assert codec_identity(replace(first, options=(*first.options, ("weights_key", "ema")))) != key
    write("a.pt", state(5))  # trained further, under the same name, while this process runs
    again = setting("codec=mbt2018-mean", f"codec.options.checkpoint={path}")
    assert codec_identity(again) != key
    assert codec_identity(first) != key
    assert again.name != first.name
    (tmp_path / "b").mkdir()
    copy = shutil.copy(path, tmp_path / "b" / "a.pt")
    with pytest.raises(ConfigError, match="equal content, and are one curve"):
        setting("codec=mbt2018-mean", f"codec.options.checkpoint={path},{copy}")


def test_a_file_is_one_point_and_braces_are_a_curve(write: Write, tmp_path: Path) -> None:
    files = {quality: write(f"q{quality}.pt", state(quality)) for quality in (2, 4)}
    sweep = bench.read_bench(
        ["codec=mbt2018-mean", f"codec.options.checkpoint={files[2]},{files[4]}", "data=samples"]
    ).grid
    assert len({codec.name for codec, _ in sweep}) == 2
    alone = sweep[0][0]
    assert alone.rates == ()
    assert json.loads(codec_identity(alone))["weights"] == "own"
    with pytest.raises(ConfigError, match=r"has a single rate point; .* write \{quality\} in their name"):
        build(alone, 3)
    every = setting("codec=mbt2018-mean", f"codec.options.checkpoint={tmp_path}/q{{quality}}.pt")
    assert codec_identity(every, 2) != codec_identity(every, 4)
    weights = [
        json.loads(identity)["coder"]["weights"] for identity in (codec_identity(every, 2), codec_identity(alone))
    ]
    assert weights[0] == weights[1]
    mini = setting("codec=mini", f"codec.options.checkpoint={files[2]}")
    assert mini.rates == (1, 2, 3, 4, 5, 6), "one network of mini serves all rates"


def test_a_name_may_hold_what_hydra_would_take_apart(write: Write) -> None:
    path = write("my runs, two/epoch=3-step=20 (best).ckpt", state())
    codec = setting("codec=mbt2018-mean", f"codec.options.checkpoint={path}")
    assert dict(codec.options)["checkpoint"] == str(path)
    assert "epoch=3-step=20 (best).ckpt@" in codec.name
    # What is no path is Hydra's, as for any option.
    assert overrides.split(["codec.options.base=0.5"]).choices == [["codec.options.base=0.5"]]
    assert overrides.rewrite(["codec.options.base=0.5"]) == (["++codec.options.base=0.5"], {})
    assert overrides.split(["codec.options.clip=[1,2]"]).choices == [["codec.options.clip=[1,2]"]]


def test_a_folder_of_a_generative_codec_is_own(tmp_path: Path, write: Write) -> None:
    for name, option in (("pic", "base"), ("textual-inversion", "base"), ("sd-vae", "base"), ("perco", "pipeline")):
        cls: Any = registry.load("codec", name)
        codecs = [cls(**{each: str(tmp_path / "model")}) for each in ("checkpoint", option)]
        assert {weights_kind_of(codec) for codec in codecs} == {"own"}
        assert coder_of(codecs[0]) == coder_of(codecs[1])
        assert own_options(cls, vars(codecs[0]))
        assert weights_kind_of(cls(weights="random")) == "random"
        assert not own_options(cls, {option: "sd-2.1-bas"} if option == "base" else {})
        assert weights_kind_of(cls()) == "unpinned"
        with pytest.raises(ConfigError, match="give one of them"):
            cls(checkpoint=str(tmp_path / "model"), weights="random")


def test_a_run_marks_codes_again_and_never_mixes(write: Write, here: Callable[..., int], tmp_path: Path) -> None:
    """As an author does it: one training, a second under another name, then the first file trained further."""
    line = ["run", "codec=mbt2018-mean", "data=samples", "limit=1", "metrics=psnr", "figures=false", "workers=0"]
    first, second = write("one/best.pt", state(2)), write("two/best.pt", state(4))
    assert here(*line, f"codec.options.checkpoint={first},{second}", "verify=2") == 0
    [store] = [Store(path) for path in (tmp_path / "results" / "runs").iterdir()]
    rows = list(store.read().rows.values())
    assert len({row.codec for row in rows}) == len({row.bpp for row in rows}) == 2
    assert {(row.weights, row.rate, row.rate_field) for row in rows} == {("own", None, "")}
    assert all("best.pt" in row.codec and "official" not in row.coder + row.codec for row in rows)
    write("one/best.pt", state(3))
    assert {json.loads(row.options)["checkpoint"] for row in rows} == {"best.pt"}, "where it lies, calls know"
    [old] = [row for row in rows if (codec_named(store.folder, row) or ("", {}))[1]["checkpoint"] == str(first)]
    with pytest.raises(CodecError, match="hold other weights now"):
        decode_row(store, old)
    assert here(*line, f"codec.options.checkpoint={first}") == 0
    again = list(store.read().rows.values())
    assert len(again) == 3
    assert len({row.codec for row in again}) == 3, "another curve"
    assert here(*line, "codec.options.checkpoint=three.pt") != 0


def test_stale_tables_of_a_published_file_stop(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ELIC's files have no published hash: nobody says that these tables are its authors'."""
    from rdpbench.codecs.learned.elic import ELIC
    from rdpbench.codecs.learned.elic_network import TINY
    from rdpbench.codecs.learned.elic_network import random_network as elic

    monkeypatch.setattr("rdpbench.codecs.learned.elic_network.ElicLayout", lambda: TINY)
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    net = elic(TINY, 3)
    tensors = {name: one.clone() for name, one in net.state_dict().items()}
    for name in [name for name in tensors if ".entropy_bottleneck.biases" in name]:
        tensors[name] = tensors[name] + 0.3
    write("elic-lambda0.004.pth.tar", {"state_dict": tensors})
    with pytest.raises(
        CodecError,
        match=r"tables of latent_codec.hyper.entropy_bottleneck in elic/lambda0.004 do not match its parameters",
    ):
        ELIC(quality=1).make()
