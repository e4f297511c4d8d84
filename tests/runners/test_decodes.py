"""``decodes=``: how much decodes of one bitstream differ, as scores of the row; stored rows stay what they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.codecs.classical.pillow import JPEG
from rdpbench.codecs.contract import facts_of
from rdpbench.config.bench import read_bench
from rdpbench.errors import CodecError, ConfigError, MetricError, OutOfRange, UnknownName
from rdpbench.metrics.contract import DecodesMetric
from rdpbench.metrics.diversity import METRICS, Deviation, pixel_deviation
from rdpbench.results.store.schema import Score
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import (
    DETERMINISTIC,
    Named,
    decode_further,
    decode_seed,
    fingerprint,
    is_stochastic,
    note_of,
    noted,
)
from rdpbench.runners.verify import verify
from rdpbench.setting import CodecSetting

NAMED = "diversity/deviation" in registry.BUILTIN["metric"]
named = pytest.mark.skipif(not NAMED, reason="the registry does not name the metrics over decodes")

CODEC = """
import os, zlib
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from rdpbench.codecs.container import pack, unpack, varint
from rdpbench.codecs.contract import Rate

@dataclass(frozen=True)
class Grain:
    '''Coarse levels, and grain that the decoder draws; its seed is in the container.'''
    step: int = 32
    rate: ClassVar[Rate] = Rate("step", 1, 64, rises=False, points=(16, 48))
    seeded: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def encode(self, image, side):
        levels = zlib.compress((image // self.step).tobytes())
        return pack(*image.shape[:2], {"seed": bytes([side.seed]), "step": bytes([self.step]), "levels": levels})

    def decode(self, data, *, seed=None):
        height, width, (own, step, levels) = unpack(data, 3)
        coarse = np.frombuffer(zlib.decompress(levels), np.uint8).reshape(height, width, 3).astype(int) * step[0]
        draws = self.draws(own[0] if seed is None else seed, seed)
        return np.clip(coarse + draws.integers(0, step[0], coarse.shape), 0, 255).astype(np.uint8)

    def draws(self, seed, given):
        return np.random.default_rng(seed)

class Unrepeatable(Grain):
    def draws(self, seed, given):
        return np.random.default_rng(None if given else seed)

class Breaks(Grain):
    def draws(self, seed, given):
        assert given is None, "only one sample"
        return super().draws(seed, given)

class NoSeed(Grain):
    stochastic = False

    def decode(self, data):
        return super().decode(data)

class SaysSo(NoSeed):
    seeded = False
    stochastic = True

class SaysNothing(Grain):
    seeded = False
    stochastic = False
"""
SPREAD = """
import numpy as np
class Spread:
    decodes = 3
    higher_is_better = False
    unit = ''
    perceptual = False
    def score(self, decodes):
        assert len(decodes) == 3
        return float(np.ptp(np.stack(decodes).astype(float), axis=0).mean())
    def reduce(self, values):
        return sum(values) / len(values)
"""


@pytest.fixture
def line(tmp_path: Path, images: Any) -> list[str]:
    (tmp_path / "grain.py").write_text(CODEC)
    return ["run", f"data=folder:{images(2)}", "figures=false", "workers=0"]


def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results/runs/folder-pictures")


def scores(tmp_path: Path, metric: str) -> list[Score]:
    return [one for one in store(tmp_path).read().scores.values() if one.metric == metric]


# Seeds and notes


def test_seeds_follow_from_the_bitstream_and_the_number() -> None:
    seeds = {decode_seed(data, index) for data in (b"a", b"b", b"") for index in range(1, 200)}
    assert len(seeds) == 3 * 199
    assert 0 <= min(seeds) <= max(seeds) < 2**32
    assert max(seeds) > 2**31
    assert decode_seed(b"a", 7) == decode_seed(b"a", 7)


def test_notes_are_read_again() -> None:
    images = [np.full((4, 5, 3), value, np.uint8) for value in (1, 2, 3)]
    values = [Score(str(k), "t", f"diversity/deviation/{k}", 1.0, note=note_of(images[: k - 1])) for k in (2, 4)]
    assert noted(values) == (4, fingerprint(images))
    assert noted([*values, Score("p", "t", "psnr", 30.0, note="a caption was cut")]) == (4, fingerprint(images))
    assert noted([Score("d", "t", "diversity/deviation/3", 0.0, note=DETERMINISTIC)]) is None
    assert noted([Score("d", "t", "diversity/deviation/4", None, "refused", note=values[1].note)]) is None
    assert fingerprint(images) != fingerprint(images[::-1])


def test_who_is_asked() -> None:
    assert not is_stochastic(CodecSetting("jpeg", "jpeg", (), ()))
    sizes = iter([4, 4, 5])

    class Changing:
        def encode(self, image: Any, side: Any) -> Any: ...

        def decode(self, data: bytes, *, seed: int | None = None) -> Any:
            return np.zeros((next(sizes), 4, 3), np.uint8)

    with pytest.raises(CodecError, match=r"decodes of one bitstream have several sizes: \[\(4, 4, 3\), \(5, 4, 3\)\]"):
        decode_further(Changing(), b"", 4)
    with pytest.raises(TypeError):
        decode_further(JPEG(), b"", 2)


# Metrics


def test_a_metric_says_how_many() -> None:
    metric = Deviation.over(3)
    assert metric.name == "diversity/deviation/3"
    assert metric is Deviation.over(3)
    assert isinstance(metric(), DecodesMetric)
    assert METRICS["diversity/lpips-alex"].over(5).needs == METRICS["diversity/lpips-alex"].needs
    images = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2)]
    with pytest.raises(MetricError, match="diversity/deviation/3 compares 3 decodes, found 2"):
        metric().score(images)
    for count in (0, 1, 1001):
        with pytest.raises(OutOfRange, match=f"diversity/deviation/{count}: diversity compares 2 to 1000"):
            Deviation.over(count)


# Runs


@named
def test_the_row_stays_and_the_values_are_those_computed_by_hand(tmp_path: Path, here: Any, line: list[str]) -> None:
    line += ["codec=./grain.py:Grain", "metrics=psnr"]
    assert here(*line, "verify=0", "run=alone") == 0
    assert here(*line, "decodes=4", "verify=9") == 0
    alone, found = Store(tmp_path / "results/runs/alone").read(), store(tmp_path).read()
    for key, row in alone.rows.items():
        other = found.rows[key]
        assert (row.bitstream_sha256, row.reconstruction_sha256) == (
            other.bitstream_sha256,
            other.reconstruction_sha256,
        )
        assert other.verified == "fresh_process"
    assert {one.score_key for one in alone.scores.values()} < set(found.scores)
    assert all(found.scores[key].value == one.value for key, one in alone.scores.items())
    codec = registry.load("codec", f"{tmp_path}/grain.py:Grain")()
    for one in scores(tmp_path, "diversity/deviation/4"):
        row = found.rows[one.task_key]
        data = store(tmp_path).bitstreams.get(row.bitstream_sha256)
        decodes = [codec.decode(data), *(codec.decode(data, seed=decode_seed(data, index)) for index in (1, 2, 3))]
        assert one.value == pytest.approx(pixel_deviation(decodes).mean(), rel=1e-12)
        assert one.value > row.rate / 5
    # More is invented where less is sent.
    by_rate: dict[float | None, list[float]] = {}
    for one in scores(tmp_path, "diversity/deviation/4"):
        by_rate.setdefault(found.rows[one.task_key].rate, []).append(one.value or 0)
    assert np.mean(by_rate[48.0]) > 2 * np.mean(by_rate[16.0])


@named
def test_what_is_asked_later_is_added_and_nothing_is_coded(
    tmp_path: Path, here: Any, line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line += ["codec=./grain.py:Grain", "rate=32", "metrics=psnr"]
    assert here(*line) == 0
    for count, told in ((3, "0 tasks coded, 2 scored"), (3, "nothing to do"), (5, "0 tasks coded, 2 scored")):
        capsys.readouterr()
        assert here(*line, f"decodes={count}") == 0
        output = capsys.readouterr()
        assert told in output.out
        # Nobody named it, so that its missing weights stop nothing.
        assert f"left out  diversity/lpips-alex/{count}: " in output.err
    assert len(scores(tmp_path, "diversity/deviation/3")) == len(scores(tmp_path, "diversity/deviation/5")) == 2
    # The first decodes of five are those of three.
    contents = store(tmp_path).read()
    assert {noted([one])[0] for one in contents.scores.values() if noted([one])} == {3, 5}
    assert not (found := verify(store(tmp_path), None, named=Named(("./grain.py:Grain",)))).findings + found.undecoded
    assert "diversity/deviation/5" in output.out + (store(tmp_path).folder / "tables/summary.md").read_text()


@named
def test_a_deterministic_decoder_has_none(tmp_path: Path, here: Any, line: list[str]) -> None:
    assert here(*line, "codec=jpeg,./grain.py:Grain", "rate=32", "metrics=diversity/deviation", "decodes=2") == 0
    rows = store(tmp_path).read().rows
    for one in scores(tmp_path, "diversity/deviation/2"):
        if rows[one.task_key].codec == "jpeg":
            assert (one.value, one.note) == (0.0, DETERMINISTIC)
        else:
            assert one.value is not None
            assert one.value > 5
            assert re.fullmatch("pixels of decodes 1 to 1: sha256 [0-9a-f]{64}", one.note)
    assert len(scores(tmp_path, "diversity/deviation/2")) == 4


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        ("NoSeed", "it draws random numbers (seeded), but its decode() takes no seed"),
        ("SaysSo", "its class says stochastic, but its decode() takes no seed"),
        ("SaysNothing", "its decode() takes a seed, but its class does not say stochastic = True"),
    ],
)
def test_a_decoder_that_cannot_be_given_a_seed_stops_the_plan(
    tmp_path: Path, here: Any, line: list[str], capsys: pytest.CaptureFixture[str], codec: str, why: str
) -> None:
    (tmp_path / "own.py").write_text(SPREAD)
    line = [*line, f"codec=jpeg,./grain.py:{codec}", "rate=32"]
    for asked in ("decodes=3", "metrics=diversity/deviation/3", "metrics=./own.py:Spread"):
        assert here(*line, asked) == 2
        said = capsys.readouterr().err
        assert f"codec {codec!r} cannot decode one bitstream several times with other random numbers: {why}" in said
        assert "leave out decodes= and the metrics diversity/" in said
        assert not (tmp_path / "results").exists(), "nothing was coded"
    assert here(*line, "metrics=psnr") == 0


def test_every_codec_that_draws_can_be_asked_again() -> None:
    """All that are shipped, so that none is refused after hours of coding."""
    seeded = [
        name
        for name in registry.names("codec")
        if getattr(cls := registry.load("codec", name), "seeded", False) or getattr(cls, "stochastic", False)
    ]
    assert {"pic", "pics", "pics-sketch", "textual-inversion", "perco", "perco-image"} <= set(seeded)
    for name in registry.names("codec"):
        assert is_stochastic(CodecSetting(name, name, (), ())) == (name in seeded)


@named
def test_decodes_that_fail_leave_the_row(tmp_path: Path, here: Any, line: list[str]) -> None:
    assert here(*line, "codec=./grain.py:Breaks", "rate=32", "metrics=psnr", "decodes=3") == 1
    assert {row.status for row in store(tmp_path).read().rows.values()} == {"ok"}
    assert all(one.value is not None for one in scores(tmp_path, "psnr"))
    for one in scores(tmp_path, "diversity/deviation/3"):
        assert one.value is None
        assert "AssertionError: only one sample" in one.error


@named
def test_decodes_that_cannot_be_repeated_are_found(
    tmp_path: Path, here: Any, line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line += ["codec=./grain.py:Unrepeatable", "rate=32", "metrics=psnr", "decodes=3"]
    assert here(*line, "verify=0") == 0
    assert all(one.value is not None for one in scores(tmp_path, "diversity/deviation/3"))
    found = verify(store(tmp_path), None, named=Named(("./grain.py:Unrepeatable",)))
    assert len(found.findings) == 2
    assert all(re.search("bitstream .{12}, decodes 1 to 2, decodes to other pixels: ", one) for one in found.findings)
    assert len(found.decoded) == 2, "the reconstructions themselves are right"
    # Found at the end of a run, such a value is taken back; the row is good.
    assert here(*line, "verify=9", "run=again") == 1
    assert capsys.readouterr().out.count("FOUND Unrepeatable, step 32") == 2
    contents = Store(tmp_path / "results/runs/again").read()
    assert {(row.status, row.verified) for row in contents.rows.values()} == {("ok", "fresh_process")}
    refuted = [one for one in contents.scores.values() if one.metric == "diversity/deviation/3"]
    assert [one.value for one in refuted] == [None, None]
    assert all(one.error.startswith("refuted: Unrepeatable, step 32") for one in refuted)


@named
def test_encoding_with_several_seeds_is_another_axis(tmp_path: Path, here: Any, line: list[str]) -> None:
    assert here(*line, "codec=./grain.py:Grain,jpeg", "rate=32", "metrics=psnr", "seed=0,1,2", "decodes=2") == 0
    rows = store(tmp_path).read().rows.values()
    grain = [row for row in rows if row.codec == "Grain"]
    assert sorted(row.seed for row in grain) == [0, 0, 1, 1, 2, 2]
    assert len({row.reconstruction_sha256 for row in grain}) == len({row.bitstream_sha256 for row in grain}) == 6
    assert [row.seed for row in rows if row.codec == "jpeg"] == [0, 0], "no random numbers, no axis"
    assert len({one.note for one in scores(tmp_path, "diversity/deviation/2")}) == 7


@named
def test_through_worker_processes(tmp_path: Path, rdpbench: Any, line: list[str]) -> None:
    line = [*line[:-1], "workers=2", "codec=./grain.py:Grain", "metrics=diversity/deviation/3"]
    assert "4 of them decoded again" in rdpbench(*line, code=0).stdout
    assert "0 findings" in rdpbench("verify", "folder-pictures", "--all", "codec=./grain.py:Grain", code=0).stdout
    assert "nothing to do" in rdpbench(*line, code=0).stdout
    assert "diversity/deviation/3" in rdpbench("show", "folder-pictures", code=0).stdout


QUICK = {
    "pic": ("rate=8", "steps=2", "search_steps=3", "candidates=1"),
    "perco": ("rate=0.0313", "steps=1", "conditioning=spatial"),
    "perco-image": ("rate=0.0313", "steps=1"),
}


@named
@pytest.mark.slow
@pytest.mark.parametrize("codec", QUICK)
def test_generative_codecs_through_random_networks(tmp_path: Path, here: Any, line: list[str], codec: str) -> None:
    rate, *options = QUICK[codec]
    quick = [f"codec.options.{one}" for one in options]
    line += [f"codec={codec}", "weights=random", rate, "limit=1", *quick]
    line += ["captions=file:none.json"] if facts_of(registry.load("codec", codec)).uses_caption else []
    (tmp_path / "none.json").write_text('{"image00": "a red door"}')
    assert here(*line, "metrics=psnr", "decodes=3") == 0
    [found] = scores(tmp_path, "diversity/deviation/3")
    assert found.value is not None
    assert found.value > 0.5
    assert not (found := verify(store(tmp_path), None, named=Named(("./grain.py:Grain",)))).findings + found.undecoded


def test_a_metric_of_ones_own(tmp_path: Path, here: Any, line: list[str]) -> None:
    (tmp_path / "own.py").write_text(SPREAD)
    line += ["codec=./grain.py:Grain,jpeg", "rate=32", "metrics=psnr,./own.py:Spread"]
    assert here(*line, "verify=9") == 0
    contents = store(tmp_path).read()
    codec = registry.load("codec", f"{tmp_path}/grain.py:Grain")()
    for one in scores(tmp_path, "own.py:Spread"):
        row = contents.rows[one.task_key]
        if row.codec == "jpeg":
            assert (one.value, one.note) == (0.0, DETERMINISTIC)
            continue
        data = store(tmp_path).bitstreams.get(row.bitstream_sha256)
        decodes = [codec.decode(data), *decode_further(codec, data, 3)]
        assert one.value == np.ptp(np.stack(decodes).astype(float), axis=0).mean() > 5
        assert noted([one]) == (3, fingerprint(decodes[1:]))
    assert len(scores(tmp_path, "own.py:Spread")) == 4
    assert not (found := verify(store(tmp_path), None, named=Named(("./grain.py:Grain",)))).findings + found.undecoded


# What is typed


def test_what_cannot_be_meant_is_refused() -> None:
    assert read_bench(["decodes=5"]).decodes == 5
    assert read_bench([]).decodes == 1
    for wrong in ("0", "-1", "2.5", "many"):
        with pytest.raises(ConfigError, match=r"decodes=.* must be a whole number from 1"):
            read_bench([f"decodes={wrong}"])
    with pytest.raises(UnknownName, match="unknown metric 'diversity/deviatoin/5'"):
        read_bench(["metrics=diversity/deviatoin/5"])


@named
def test_the_number_is_in_the_name() -> None:
    assert read_bench(["metrics=psnr,diversity/deviation", "decodes=3"]).metrics == ("psnr", "diversity/deviation/3")
    assert read_bench(["metrics=diversity/deviation/3,diversity/lpips-vgg/8"]).metrics[1] == "diversity/lpips-vgg/8"
    with pytest.raises(ConfigError, match="write diversity/deviation/5, or decodes=5"):
        read_bench(["metrics=diversity/deviation"])
    with pytest.raises(ConfigError, match="diversity/deviation/3 compares 3 decodes, and decodes=5 is another number"):
        read_bench(["metrics=diversity/deviation/3", "decodes=5"])
    with pytest.raises(OutOfRange, match="diversity/deviation/1"):
        read_bench(["metrics=diversity/deviation/1"])
    with pytest.raises(UnknownName):
        registry.load("metric", "diversity/deviation/05")
    with pytest.raises(UnknownName):
        registry.load("metric", "psnr/5")
    assert registry.source_sha256("metric", "diversity/deviation/5") == ""
