"""Loading ahead: order, errors at their place, bounded memory, threads that end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.datasets.contract import dataset_of
from rdpbench.datasets.folder import ImageFolder
from rdpbench.datasets.index import ahead, index
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ConfigError, ImageError, OutOfRange
from rdpbench.image import pixel_sha256
from rdpbench.setting import DataSetting


def loading_threads() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


def all_threads_end() -> bool:
    deadline = time.monotonic() + 5
    while loading_threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    return not loading_threads()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 5, 100])
def test_results_come_in_order(depth: int, threads: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.003 * (3 - item % 4))
        return 10 * item

    assert list(ahead(range(20), slow_first, depth, threads=threads)) == [10 * item for item in range(20)]
    assert all_threads_end()


def test_nothing_to_load() -> None:
    assert list(ahead([], pytest.fail)) == []


def test_the_next_ones_are_loaded_while_the_consumer_works() -> None:
    begun: list[int] = []
    results = ahead(range(100), lambda item: begun.append(item) or item, depth=3)
    assert next(results) == 0
    deadline = time.monotonic() + 5
    while len(begun) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert begun == [0, 1, 2, 3]  # three ahead of the one that is out, and no more
    results.close()


def test_threads_load_at_once() -> None:
    meeting = threading.Barrier(3, timeout=5)  # breaks unless three are in `load` together
    assert sorted(ahead(range(6), lambda item: (meeting.wait(), item)[1], 3, threads=3)) == list(range(6))


def test_an_error_comes_at_its_item_and_the_others_are_not_lost() -> None:
    def load(item: int) -> int:
        if item % 3 == 1:
            raise ImageError(f"item {item}")
        return item

    results, seen = ahead(range(7), load), []
    while True:
        try:
            seen.append(next(results))
        except ImageError as error:
            seen.append(str(error))
        except StopIteration:
            break
    assert seen == [0, "item 1", 2, 3, "item 4", 5, 6]
    assert list(results) == []
    assert all_threads_end()


def test_an_error_of_the_items_comes_after_those_before_it() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ImageError("no more")

    results, seen = ahead(items(), lambda item: item, depth=10), []
    with pytest.raises(ImageError, match="no more"):
        seen.extend(results)
    with pytest.raises(StopIteration):
        next(results)
    again = ahead(items(), lambda item: item, depth=10)
    assert [next(again), next(again), next(again)] == [1, 2, 3]


def test_memory_is_constant() -> None:
    alive: set[int] = set()
    most = 0

    def load(item: int) -> np.ndarray:
        made = np.full((8, 8, 3), item % 256, np.uint8)
        alive.add(item)
        weakref.finalize(made, alive.discard, item)
        return made

    for item, image in enumerate(ahead(range(3000), load, depth=4, threads=2)):
        assert image[0, 0, 0] == item % 256
        most = max(most, len(alive))
    del image
    assert most <= 4 + 2  # those ahead, the one that is out, the one just handed over
    assert len(alive) == 0


@pytest.mark.parametrize("leave", ["break", "close", "with", "error"])
def test_threads_end_when_the_consumer_stops(leave: str) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            asked.append(item)
            yield item

    results = ahead(items(), lambda item: item, depth=2, threads=2)
    if leave == "break":
        for item in results:
            if item == 5:
                break
        del results
        gc.collect()
    elif leave == "close":
        next(results)
        results.close()
        assert list(results) == []
    elif leave == "with":
        with results:
            next(results)
    else:
        with pytest.raises(ZeroDivisionError), results:
            raise ZeroDivisionError(next(results))  # of the consumer
    assert all_threads_end()
    assert len(asked) < 20


def test_what_nobody_waits_for_is_not_loaded() -> None:
    loaded: list[int] = []

    def slow(item: int) -> int:
        time.sleep(0.01)
        loaded.append(item)
        return item

    results = ahead(range(1000), slow, depth=50)
    next(results)
    del results
    assert all_threads_end()
    assert len(loaded) < 10


@pytest.mark.parametrize("setting", [{"depth": 0}, {"depth": -1}, {"threads": 0}])
def test_depths_and_threads_that_cannot_be(setting: dict[str, int]) -> None:
    with pytest.raises(OutOfRange, match="must be at least 1"):
        ahead([], str, **setting)


def test_images_are_those_of_the_index_and_a_broken_one_is_named(images, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    folder = ImageFolder(str(images(6)))
    entries = index(folder)
    loaded = ahead(entries, lambda entry: load_under("as-is", entry.sample.path))
    assert [pixel_sha256(one.pixels) for one in loaded] == [entry.sha256 for entry in entries]
    entries[2].sample.path.write_bytes(b"no image")
    results = ahead(entries, lambda entry: load_under("as-is", entry.sample.path))
    next(results), next(results)
    with pytest.raises(ImageError, match="image02"):
        next(results)
    assert len(list(results)) == 3


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ("", "yields no images"),
        ("yield ('a', FILE)", "yields .*tuple.*write Sample"),
        ("yield Sample('a', FILE); yield Sample('a', FILE)", r"share an id, and ids must differ: a \(a.png, a.png\)"),
        ("yield Sample('a', FILE, 'photo')", "tags of a sample is 'photo'; write a tuple"),
        ("yield Sample(3, FILE)", "id of a sample is 3; write a text"),
        ("yield Sample('a', 'a.png')", "path of a sample is 'a.png'; write a Path"),
        ("yield Sample('a', FILE, references='a cup')", "references of a sample is 'a cup'; write a tuple of texts"),
        ("yield Sample('a', FILE, ('photo', 3))", "tags of a sample is .*; write a tuple of texts"),
        (
            "yield Sample('a', FILE); raise KeyError('b')",
            r"samples\(\) of dataset 'own' failed: KeyError: 'b' .*line 9",
        ),
    ],
)
def test_what_a_dataset_of_ones_own_yields_is_looked_at(
    samples: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image without an id of its own would leave the mean, while messages blame something else."""
    from rdpbench.cli import main

    monkeypatch.chdir(tmp_path)
    pil.fromarray(np.zeros((8, 8, 3), np.uint8)).save("a.png")
    body = "\n        ".join(["return", "yield"] if not samples else samples.split("; "))
    Path("own.py").write_text(
        "from pathlib import Path\nfrom rdpbench import Sample\nFILE = Path('a.png').absolute()\n\n"
        f"class Own:\n    name, protocol, needs = 'own', 'as-is', ()\n    def samples(self):\n        {body}\n"
        "    def __len__(self): return 1\n"
    )
    with pytest.raises(ConfigError, match=told):
        index(dataset_of(DataSetting("own", f"{tmp_path / 'own.py'}:Own", ())))
    assert main(["plan", "codec=jpeg", "data=./own.py:Own", "metrics=psnr"]) == 2
