"""Set metrics from the command line: arrays made once, values per point, refused on too few images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics.contract import Estimate
from rdpbench.results.read import read_results
from rdpbench.results.stats.bootstrap import BLOCKS, jackknife
from rdpbench.results.store.calls import original_path
from rdpbench.results.store.log import load_arrays
from rdpbench.results.store.store import Store

OWN = """
import numpy as np
from pathlib import Path
from rdpbench.errors import MetricError
from rdpbench.metrics.contract import Estimate
from rdpbench.results.read import read_results

class Colours:
    id = "colours/mean"
    version = "1"
    needs = ()
    dim = 3
    beside = ()
    uses_device = False

    def extract(self, images):
        with open("extracted.txt", "a") as log:
            log.write(f"{len(images)}\\n")
        if min(images[0].shape[:2]) < 32:
            raise MetricError("smaller than a patch")
        return [image.reshape(1, -1, 3).mean(axis=1).astype(np.float32) for image in images]

class Distance:
    name = "distance/colours"
    kind = "set"
    version = "1"
    higher_is_better = False
    unit = ""
    perceptual = True
    source = "test"
    needs = ()
    features = Colours
    minimum_images = 4

    def reduce(self, reference, distorted):
        gap = np.concatenate(reference).mean(axis=0) - np.concatenate(distorted).mean(axis=0)
        return Estimate(float(np.abs(gap.astype(float)).sum()), extra={"rows": len(distorted)})

class Odd(Distance):
    name = "odd"

    def reduce(self, reference, distorted):
        return Estimate(1.5, reason="it is odd", extra={"ratio": float("nan"), "most": float("inf")})

class Hungry(Distance):
    name = "hungry"
    minimum_images = 1000
"""
RUN = ["run", "codec=jpeg", "rate=5,30", "figures=false", "verify=0", "workers=1"]


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return "metrics=psnr,./own.py:Distance"


def extracted(folder: Path) -> int:
    path = folder / "extracted.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def stored(folder: Path) -> Store:
    return Store(folder / "results/runs/folder-pictures")


def test_a_set_metric_end_to_end(tmp_path: Path, rdpbench: Any, images: Any, own: str) -> None:
    folder = images(24)
    done = rdpbench(*RUN, own, f"data=folder:{folder}", code=0)
    assert "own.py:Distance ↓" in done.stdout
    assert extracted(tmp_path) == 24 + 2 * 24  # each original once, each reconstruction once

    contents = stored(tmp_path).read()
    low, high = sorted(contents.sets.values(), key=lambda one: one.value or 0, reverse=True)
    assert low.images == high.images == 24
    assert low.reliable
    assert json.loads(low.extra) == {"rows": 24}
    assert low.lo is not None
    assert low.hi is not None
    assert low.lo < (low.value or 0) < low.hi

    # The value is what the images say, computed here by hand.
    from rdpbench.image import read_image
    from rdpbench.runners.worker import decode_row

    for one, rate in ((low, 5), (high, 30)):
        rows = [row for row in contents.rows.values() if row.rate == rate]
        ours = np.mean([decode_row(stored(tmp_path), row).reshape(-1, 3).mean(axis=0) for row in rows], axis=0)
        originals = [read_image(original_path(stored(tmp_path), row)) for row in rows]
        theirs = np.mean([image.pixels.reshape(-1, 3).mean(axis=0) for image in originals], axis=0)
        assert one.value == pytest.approx(np.abs(ours - theirs).sum(), abs=1e-4)

    again = rdpbench(*RUN, own, f"data=folder:{folder}", code=0)
    assert "nothing to do" in again.stdout
    assert "own.py:Distance ↓" in again.stdout
    assert extracted(tmp_path) == 72

    # Another run of the same images takes the originals from the cache.
    rdpbench(*RUN, own, f"data=folder:{folder}", "run=other", code=0)
    assert extracted(tmp_path) == 72 + 48


def test_a_plan_tells_that_values_are_of_another_edition(own: str, here: Any, images: Any, capsys: Any) -> None:
    line = [own, f"data=folder:{images(5)}", "workers=0"]
    assert here(*RUN, *line) == 0
    capsys.readouterr()
    assert here("plan", *RUN[1:], *line) == 0
    assert "again" not in capsys.readouterr().out
    Path("own.py").write_text(OWN.replace("distorted)})", "distorted)}, spread=0.5)"))
    assert here("plan", *RUN[1:], *line, "rate=5") == 0
    printed = capsys.readouterr().out
    assert re.search(r"again +own.py:Distance: 1 values are stored, but of its version \S+; now it is \S+", printed)
    assert here(*RUN, *line) == 0
    capsys.readouterr()
    assert here("plan", *RUN[1:], *line) == 0
    assert "again" not in capsys.readouterr().out


def test_a_finished_run_reads_each_stored_file_once(
    own: str, here: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning, set metrics, compaction and tables share what was read."""
    from rdpbench.results.store import store

    line = [*RUN, own, f"data=folder:{images(4)}", "workers=0"]
    assert here(*line) == 0
    parsed: list[bytes] = []
    parse = store._records
    monkeypatch.setattr(store, "_records", lambda kind, data, where: (parsed.append(data), parse(kind, data, where))[1])
    assert here(*line) == 0
    files = [path.read_bytes() for path in Path("results/runs/folder-pictures").glob("*.parquet")]
    assert len(files) > 3
    assert sorted(parsed) == sorted(files)


def test_a_metric_added_later_decodes_and_never_encodes(tmp_path: Path, rdpbench: Any, images: Any, own: str) -> None:
    line = [f"data=folder:{images(6)}", "codec=jpeg", "rate=30", "figures=false", "verify=0"]
    rdpbench("run", *line, "metrics=psnr", code=0)
    before = {row.task_key: row.time for row in stored(tmp_path).read().rows.values()}
    done = rdpbench("score", *line, own, code=0)
    assert "0 tasks coded, 6 scored" in done.stdout
    after = stored(tmp_path).read()
    assert {row.task_key: row.time for row in after.rows.values()} == before
    assert [one.images for one in after.sets.values()] == [6]


def test_too_few_images_are_refused_or_marked(tmp_path: Path, rdpbench: Any, images: Any, own: str) -> None:
    line = [*RUN, f"data=folder:{images(6)}", "metrics=psnr,./own.py:Hungry"]
    refused = rdpbench(*line, code=2)
    assert "own.py:Hungry needs at least 1000 images, folder-pictures has 6 here" in refused.stderr
    assert "allow_unreliable=true" in refused.stderr
    assert not (tmp_path / "results").exists()
    done = rdpbench(*line, "allow_unreliable=true", code=0)
    assert "†" in done.stdout
    assert "fewer images than this metric needs" in " ".join(done.stdout.split())
    assert {one.reliable for one in stored(tmp_path).read().sets.values()} == {False}
    assert all(one.lo is None for one in stored(tmp_path).read().sets.values())
    assert "no interval: own.py:Hungry needs at least 1000 images" in " ".join(done.stdout.split())


def test_what_is_no_number_is_json_and_a_remark_is_in_the_table(
    tmp_path: Path, rdpbench: Any, images: Any, own: str
) -> None:
    line = [*RUN, f"data=folder:{images(6)}", "metrics=./own.py:Odd"]
    done = rdpbench(*line, code=0)

    def strict(text: str) -> Any:
        return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))

    assert [strict(one.extra) for one in stored(tmp_path).read().sets.values()] == [{"ratio": None, "most": "inf"}] * 2
    told = " ".join(done.stdout.split())
    assert "own.py:Odd: it is odd; no interval: an interval needs at least 20 images, and these are 6" in told
    for path in (tmp_path / "results").rglob("*.json"):
        strict(path.read_text())


def test_images_that_the_protocol_refuses_are_told_and_counted(
    tmp_path: Path, rdpbench: Any, images: Any, own: str
) -> None:
    folder = images(5)
    images(1, name="pictures/small", size=(20, 56), seed=9)
    done = rdpbench(*RUN, own, f"data=folder:{folder}", code=0)
    assert "5 of 6" in done.stdout
    contents = stored(tmp_path).read()
    assert {one.images for one in contents.sets.values()} == {5}
    errors = [one for one in contents.scores.values() if one.error]
    assert {one.error for one in errors} == {"smaller than a patch"}
    count = extracted(tmp_path)
    assert "nothing to do" in rdpbench(*RUN, own, f"data=folder:{folder}", code=0).stdout
    assert extracted(tmp_path) == count


def test_lost_arrays_are_made_again(tmp_path: Path, rdpbench: Any, images: Any, own: str) -> None:
    line = [*RUN, own, f"data=folder:{images(4)}"]
    rdpbench(*line, code=0)
    before = {one.point_key: one.value for one in stored(tmp_path).read().sets.values()}
    [binary] = (tmp_path / "results/runs/folder-pictures/features").rglob("*.bin")
    binary.write_bytes(binary.read_bytes()[:-5])
    done = rdpbench(*line, code=0)
    assert "1 scored" in done.stdout
    assert {one.point_key: one.value for one in stored(tmp_path).read().sets.values()} == before
    store = stored(tmp_path)
    [kind] = store.features.kinds()
    places = store.features.places(kind)
    assert all(np.isfinite(array).all() for array in load_arrays(places, [*places]))


def test_verify_names_damaged_arrays(tmp_path: Path, rdpbench: Any, images: Any, own: str) -> None:
    rdpbench(*RUN, own, f"data=folder:{images(4)}", code=0)
    assert "0 findings" in rdpbench("verify", "folder-pictures", code=0).stdout
    [binary] = (tmp_path / "results/runs/folder-pictures/features").rglob("*.bin")
    data = bytearray(binary.read_bytes())
    data[1] ^= 1
    binary.write_bytes(data)
    found = rdpbench("verify", "folder-pictures", code=1)
    assert f"FOUND {binary.relative_to(tmp_path)} changed after it was written" in found.stdout


class Mean:
    """The simplest set metric."""

    def reduce(self, _: Any, arrays: Any) -> Estimate:
        return Estimate(float(np.concatenate(list(arrays)).mean()))


def test_the_jackknife_covers_the_truth() -> None:
    """Of 200 samples, about 95 % of the intervals hold the true mean: between 90 % and 99 %."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        ours = [row[None] for row in rng.normal(3.0, 1.0, (60, 1))]
        interval = jackknife(Mean(), ours, ours, value=float(np.concatenate(ours).mean()))
        assert not isinstance(interval, str)
        hits += interval[0] < 3.0 < interval[1]
    assert 0.90 <= hits / 200 <= 0.99


def test_without_an_interval_there_is_a_reason() -> None:
    ones = [np.ones((1, 1))] * (2 * BLOCKS - 1)
    assert jackknife(Mean(), ones, ones, value=1.0) == "an interval needs at least 20 images, and these are 19"

    class Strict(Mean):
        def reduce(self, _: Any, arrays: Any) -> Estimate:
            if len(arrays) < 30:
                raise MetricError("30 at least")
            return super().reduce(_, arrays)

    more = [np.ones((1, 1))] * 30
    told = jackknife(Strict(), more, more, value=1.0)
    assert told == "without a tenth of the images there is no value: 30 at least"
    rising = [np.full((1, 1), value) for value in np.linspace(0, 1, 30)]
    told = jackknife(Mean(), rising, rising, value=1.0, bounds=(0, 1))
    assert told == "the value is at the end of its range"


def of_gaussians(rng: np.random.Generator, images: int, loss: float = 0.3) -> tuple[list[Any], list[Any]]:
    """Features of originals, and of reconstructions that resemble them."""
    wide = np.linspace(1, 0.3, 12)
    first = rng.normal(size=(images, 12)) * wide + 0.3
    second = (1 - loss) * first + loss * (rng.normal(size=(images, 12)) * wide * 0.8 + 0.3)
    return [row[None].astype(np.float32) for row in first], [row[None].astype(np.float32) for row in second]


@pytest.mark.parametrize("name", ["kid/clean/full", "kid/clean/split", "cmmd/unbiased", "cmmd/split", "fid/clean"])
def test_a_hundred_images_have_an_interval_that_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as DIV2K's validation set has, and as the metric needs: the value without a tenth is of fewer.

    What they hold is the value that such a set has on average; for the last, which knows no pair of an image with its
    reconstruction, that is the distance of the two populations.
    """
    from rdpbench.metrics.contract import bounds_of
    from rdpbench.runners.sets import set_metric

    cls: Any = set_metric(name)
    monkeypatch.setattr(cls, "features", type("Small", (), {"dim": 12}))
    metric, rng = cls(), np.random.default_rng(4)
    values, ends = [], []
    for _ in range(60):
        ours, theirs = of_gaussians(rng, 100)
        values.append(metric.reduce(ours, theirs).value)
        interval = jackknife(metric, ours, theirs, value=values[-1], bounds=bounds_of(cls))
        assert not isinstance(interval, str)
        ends.append(interval)
    held = np.mean([low <= np.mean(values) <= high for low, high in ends])
    assert 0.89 <= held <= 1
    if name != "fid/clean":
        return
    assert all(low > 0 for low, _ in ends)


def test_few_images_of_a_hundred_classes_have_no_miou(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images counted as reliable; the interval of those near zero or one stays between."""
    from rdpbench.metrics.contract import bounds_of
    from rdpbench.runners.sets import set_metric

    cls: Any = set_metric("miou/eomt-small")
    assert cls.minimum_images == 100
    rng = np.random.default_rng(0)
    counts = [np.diag(rng.poisson(0.05, 133)) + (rng.random((133, 133)) < 0.02) for _ in range(100)]
    metric = cls()
    value = metric.reduce(counts, counts).value
    interval = jackknife(metric, counts, counts, value=value, bounds=bounds_of(cls))
    assert not isinstance(interval, str)
    assert 0 < interval[0] < value < interval[1] < 1


METRICS = ["fid/clean", "kid/clean/full", "kid/clean/split", "cmmd", "cmmd/unbiased", "cmmd/split", "miou/eomt-small"]


def slowly(metric: Any) -> Any:
    """The same metric without its way of leaving out blocks in one pass."""

    class Slow:
        reduce = staticmethod(metric.reduce)

    return Slow()


@pytest.mark.parametrize("name", METRICS)
def test_leaving_blocks_out_in_one_pass_is_leaving_them_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdpbench.runners.sets import set_metric

    rng = np.random.default_rng(1)
    cls: Any = set_metric(name)
    if name.startswith("miou"):
        ours, theirs = ([rng.integers(0, 9, (133, 133)) for _ in range(40)] for _ in range(2))
    else:
        monkeypatch.setattr(cls, "features", type("Small", (), {"dim": 12}))
        # Images bring one to three rows each, as patches do.
        ours, theirs = ([rng.normal(size=(1 + n % 3, 12)).astype(np.float32) for n in range(40)] for _ in range(2))
    metric = cls()
    value = metric.reduce(theirs, ours).value
    quick = jackknife(metric, theirs, ours, value=value)
    slow = jackknife(slowly(metric), theirs, ours, value=value)
    assert not isinstance(quick, str)
    assert quick == pytest.approx(slow, rel=1e-6, abs=1e-9)
    assert quick[0] < value < quick[1]


def test_a_reference_set_that_changes_gives_another_value(tmp_path: Path, here: Any, images: Any, own: str) -> None:
    """Of a folder of the user's; as it was again, it gives the value that is stored."""
    code = tmp_path / "own.py"
    code.write_text(
        f"{code.read_text()}\nclass Apart(Distance):\n    name, reference = 'apart', 'folder:others@as-is'\n"
    )
    other, more = images(4, "others", seed=1), images(1, "more", seed=2) / "image00.png"
    line = ["run", "codec=jpeg", "rate=5", f"data=folder:{images(4)}", "metrics=./own.py:Apart", "figures=false"]

    def value() -> float:
        assert here(*line, "verify=0", "workers=0") == 0
        return float(read_results("folder-pictures")["value"].iloc[0])

    before = value()
    more.rename(other / "more.png")
    assert abs(value() - before) > 0.1
    (other / "more.png").unlink()
    assert value() == before
    assert len(stored(tmp_path).read().sets) == 2
