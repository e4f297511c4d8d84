"""Networks are held once, and those of one codec at a time: the old ones go before the new ones load."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.codecs.contract import Side
from rdpbench.metrics.contract import WithNetwork
from rdpbench.networks import held
from rdpbench.results.store.keys import build
from rdpbench.setting import CodecSetting

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def nothing_held(alone: None) -> Iterator[None]:
    held.forget()
    yield
    held.forget()


class Network:
    """What a loader makes."""


def of(codec: str, events: list[str], kind: str = "unet", key: str = "") -> Network:
    """Hold a network for a codec, and note when it comes and goes."""

    def load() -> Network:
        events.append(f"{codec}{key} loads")
        network = Network()
        weakref.finalize(network, events.append, f"{codec}{key} is gone")
        return network

    held.begin(codec)
    return held.held(kind, (codec, key), load)


def test_the_old_codecs_networks_are_gone_before_the_new_one_loads() -> None:
    events: list[str] = []
    of("pic", events)
    of("pic", events, "clip", " clip")
    of("perco", events)
    assert events == ["pic loads", "pic clip loads", "pic is gone", "pic clip is gone", "perco loads"]


def test_of_one_codec_the_old_rate_points_weights_go_first_and_what_it_shares_stays() -> None:
    events: list[str] = []
    vae = of("perco", events, "vae", " vae")
    for rate in (" 1", " 2"):
        of("perco", events, key=rate)
        assert of("perco", events, "vae", " vae") is vae
    assert events == ["perco vae loads", "perco 1 loads", "perco 1 is gone", "perco 2 loads"]


def test_a_network_that_refers_to_itself_is_gone_too() -> None:
    events: list[str] = []
    gc.disable()
    try:
        network: Any = of("pic", events)
        network.itself = network
        del network
        of("perco", events)
    finally:
        gc.enable()
    assert events == ["pic loads", "pic is gone", "perco loads"]


def test_a_codec_that_loads_nothing_and_a_metric_take_nothing_away() -> None:
    events: list[str] = []
    first = of("pic", events)
    held.begin("jpeg")

    class Metric(WithNetwork[Network]):
        needs = ()

        def load(self, given: Any) -> Network:
            return Network()

    metric = weakref.ref(Metric().network)
    assert of("pic", events) is first
    del first
    of("perco", events)
    assert metric() is not None, "a metric's network stays"
    assert events[-2:] == ["pic is gone", "perco loads"]


def layers() -> list[weakref.ref[Any]]:
    """All layers of this process that have weights."""
    torch = sys.modules["torch"]
    modules = [entry for entry in gc.get_objects() if issubclass(type(entry), torch.nn.Module)]
    return [weakref.ref(module) for module in modules if any(one is not None for one in module._parameters.values())]


def test_codecs_that_ship_leave_no_layer_behind_for_the_next() -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("compressai")
    before: list[weakref.ref[Any]] = []
    quick = {"weights": "random", "search_steps": 1, "steps": 1, "candidates": 1}
    for name, rate in (("mbt2018-mean", 1), ("mbt2018-mean", 3), ("pic", None), ("perco", None), ("elic", 1)):
        fields = registry.load("codec", name).__dataclass_fields__
        options = tuple(sorted((key, value) for key, value in quick.items() if key in fields))
        codec = build(CodecSetting(name, name, options, ()), rate)
        codec.decode(codec.encode(IMAGE, Side("a cat")).data)
        left = [ref() for ref in before if ref() is not None]
        assert not left, f"{name} computes beside {len(left)} layers of the codec before it"
        before = layers()
        assert before, name


RESIDENT = """
import re, torch
from pathlib import Path
from rdpbench.networks import held
from rdpbench.runners.pool import set_up
def highest_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
set_up()
before = highest_mb()
for number in range(4):
    held.begin(number)
    # Blocks that a worker keeps for its next image when they are freed, unless it is told otherwise.
    held.held("unet", number, lambda: [torch.ones(5_000_000) for _ in range(10)])
print(highest_mb() - before)
"""


def test_four_codecs_of_200_mb_in_turn_take_the_memory_of_one() -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    assert 180 < float(done.stdout) < 260, f"at most {done.stdout} MB were resident"
