"""Arrays of set metrics: what is written is read, whatever is killed or changed."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench.errors import MetricError, StoreCorrupt
from rdpbench.results.store import log
from rdpbench.results.store.log import Extracted, FeatureStore, PartReader, PartWriter, kind_of, load_arrays

KIND = kind_of("inception/test", "0" * 64)


def arrays(count: int, rows: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(rows, 8)).astype(np.float32) for _ in range(count)]


def write(store: FeatureStore, session: str, made: list[np.ndarray], first: int = 0) -> None:
    writer = store.writer(session)
    for number, array in enumerate(made, first):
        writer.append(Extracted(KIND, f"s{number}", array))
    writer.close()


def test_arrays_of_several_sessions_come_back_in_any_order(tmp_path: Path) -> None:
    store, made = FeatureStore(tmp_path), arrays(6, rows=3)
    write(store, "a", made[:2])
    write(store, "b", made[2:], 2)
    write(store, "a", [], 0)
    places = store.places(KIND)
    order = [5, 0, 3, 1, 4, 2]
    for number, array in zip(order, load_arrays(places, [f"s{n}" for n in order]), strict=True):
        assert array.dtype == np.float32
        assert np.array_equal(array, made[number])
    assert store.kinds() == [KIND]


def test_counts_are_compressed_and_exact(tmp_path: Path) -> None:
    counts = np.zeros((171, 171), np.int64)
    counts[3, 5] = 2**40
    store = FeatureStore(tmp_path)
    write(store, "a", [counts, counts.T.copy()])
    places = store.places(KIND)
    assert sum(place.bytes for place in places.values()) < 5000
    first, second = load_arrays(places, ["s0", "s1"])
    assert np.array_equal(first, counts)
    assert np.array_equal(second, counts.T)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


def test_a_kill_between_bytes_and_line_loses_one_array_and_no_other(tmp_path: Path) -> None:
    store, made = FeatureStore(tmp_path), arrays(4)
    write(store, "a", made[:2])
    with (tmp_path / KIND / "a.bin").open("ab") as file:
        file.write(b"half an arr")  # killed before the line
    write(store, "a", made[2:3], 2)  # the same session goes on behind it
    assert [
        np.array_equal(x, y) for x, y in zip(load_arrays(store.places(KIND), ["s0", "s1", "s2"]), made, strict=False)
    ] == [True] * 3
    with (tmp_path / KIND / "a.jsonl").open("ab") as file:
        file.write(b'{"subject":"s9","at":0')  # killed within the line
    assert set(store.places(KIND)) == {"s0", "s1", "s2"}


def test_bytes_that_were_lost_are_not_promised(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    write(store, "a", arrays(3))
    binary = tmp_path / KIND / "a.bin"
    binary.write_bytes(binary.read_bytes()[:-1])
    assert set(store.places(KIND)) == {"s0", "s1"}
    with pytest.raises(MetricError, match="1 of 2 images are missing"):
        load_arrays(store.places(KIND), ["s0", "s2"])


def test_a_changed_byte_is_found_and_named(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    write(store, "a", arrays(3))
    binary = tmp_path / KIND / "a.bin"
    data = bytearray(binary.read_bytes())
    data[40] ^= 1
    binary.write_bytes(data)
    places = store.places(KIND)
    load_arrays(places, ["s0"])
    with pytest.raises(StoreCorrupt, match=r"a\.bin changed after it was written"):
        load_arrays(places, ["s1"])
    (tmp_path / KIND / "a.jsonl").write_text('{"subject": 1}\n')
    with pytest.raises(StoreCorrupt, match="no record of features"):
        store.places(KIND)


def test_no_flipped_bit_of_a_line_gives_another_array(tmp_path: Path) -> None:
    store, made = FeatureStore(tmp_path), arrays(2)
    write(store, "a", made)
    path = tmp_path / KIND / "a.jsonl"
    good = path.read_bytes()
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        with contextlib.suppress(StoreCorrupt):
            for subject, place in store.places(KIND).items():
                assert np.array_equal(load_arrays({subject: place}, [subject])[0], made[int(subject[1:])])


def test_lines_of_an_earlier_version_have_no_checksum(tmp_path: Path) -> None:
    store, made = FeatureStore(tmp_path), arrays(2)
    write(store, "a", made)
    path = tmp_path / KIND / "a.jsonl"
    lines = [
        {name: value for name, value in json.loads(line).items() if name != "crc"}
        for line in path.read_text().splitlines()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert np.array_equal(load_arrays(store.places(KIND), ["s1"])[0], made[1])


@pytest.mark.parametrize("bad", [np.empty((0, 8), np.float32), np.full((1, 8), np.nan, np.float32)])
def test_arrays_that_nobody_could_use_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(MetricError, match="empty or not finite"):
        FeatureStore(tmp_path).writer("a").append(Extracted(KIND, "s0", bad))


def test_thirty_thousand_arrays_need_few_files_and_no_copy(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    writer = store.writer("a")
    one = np.ones((1, 64), np.float32)
    for number in range(30_000):
        writer.append(Extracted(KIND, f"s{number}", one))
    writer.close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = load_arrays(store.places(KIND), [f"s{n}" for n in range(30_000)])
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 2
    assert not found[17].flags.owndata
    assert len(found) == 30_000


@pytest.mark.parametrize("part", [True, False])
def test_ctrl_c_amid_a_line_leaves_a_file_as_a_kill_does(tmp_path: Path, *, part: bool) -> None:
    """It comes at each instruction of writing in turn; closing then says nothing false of what was written."""
    [array] = arrays(1)
    for at in itertools.count():
        name, instructions = f"{at:04d}", itertools.count()
        writer: Any = PartWriter(tmp_path / f"{name}.jsonl") if part else FeatureStore(tmp_path).writer(name)
        first, second = ({"n": n} if part else Extracted(KIND, f"s{n}", array) for n in (0, 1))
        writer.append(first)

        def interrupt(frame: Any, event: str, _: Any, at: int = at, instructions: Any = instructions) -> Any:
            if frame.f_code.co_filename != log.__file__:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and next(instructions) == at:
                raise KeyboardInterrupt
            return interrupt

        traced = sys.gettrace()
        with contextlib.suppress(KeyboardInterrupt), contextlib.closing(writer):
            sys.settrace(interrupt)
            try:
                writer.append(second)
            finally:
                sys.settrace(traced)
        if part:
            found = [line["n"] for line in PartReader(tmp_path / f"{name}.jsonl")]
        else:
            found = [int(subject[1:]) for subject in FeatureStore(tmp_path).places(KIND, f"{name}.jsonl")]
        assert found in ([0], [0, 1])
        if next(instructions) < at:  # it came too late
            break
    assert at > 100
