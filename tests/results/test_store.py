"""The store: what is written is read again, whatever the moment a process is killed, and damage is never read."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from rdpbench.errors import StoreBusy, StoreCorrupt, StoreError, StoreUnwritable
from rdpbench.results.store.log import PartReader, PartWriter
from rdpbench.results.store.schema import REFUTED, SCHEMA_VERSION, Measure, Row, Score, Timing
from rdpbench.results.store.store import Store


def row(key: str = "a", **changes: Any) -> Row:
    """A row that could have been measured."""
    plain: dict[str, Any] = {}
    for field in fields(Row):
        kind = str(field.type)
        plain[field.name] = "" if kind in ("str", "Status") else 1.5 if kind.startswith("float") else 7
    return replace(Row(**plain), **{"task_key": key, "status": "ok", "bitstream_sha256": key * 8, **changes})


def score(task: str, value: float | None = 30.5, metric: str = "psnr") -> Score:
    return Score(f"{task}/{metric}", task, metric, value)


def timing(task: str) -> Timing:
    plain = {field.name: 1.0 if "float" in str(field.type) else 1 for field in fields(Timing)}
    return Timing(**{**plain, "timing_key": f"{task}/t", "task_key": task, "device": "cpu"})


def write(store: Store, session: str, *records: dict[str, Any]) -> Path:
    writer = store.writer(session)
    for one in records:
        writer.append(one)
    writer.close()
    return writer.path


def record(key: str, value: float | None = 30.5, **changes: Any) -> dict[str, Any]:
    return {"row": dict(vars(row(key, **changes))), "scores": [vars(score(key, value))]}


def test_what_is_said_of_rows_that_are_still_written_is_not_put_away_before_them(tmp_path: Path) -> None:
    """As `rdpbench verify` says it during a run of days, whose full parts are put away meanwhile."""
    store = Store(tmp_path / "run")
    live = store.writer("1")
    for key in ("a", "b", "c", "d"):
        live.append(record(key, verified="fresh_object"))
    lost = Score("d/psnr", "d", "psnr", None, REFUTED + "other pixels")
    said = {"refuted": "b", "error": REFUTED + "other pixels"}
    write(store, "2", {"verified": "a"}, said, {"suspect": "c"}, {"scores": [vars(lost)]}, record("e"))
    before = store.read()
    for ended in (False, True):
        if ended:
            live.close()
        for _ in range(2):
            store.compact(writing=[] if ended else ["1"])
            assert store.read() == before
    assert not [*store.parts.glob("*.jsonl")]
    rows = store.read().rows
    assert [rows[key].verified for key in ("a", "b", "c")] == ["fresh_process", "refuted", "refuted"]
    assert (rows["b"].status, store.read().scores["d/psnr"].value) == ("error", None)
    write(store, "3", {"suspect": "gone"})
    store.compact()
    assert not [*store.parts.glob("*.jsonl")]


def test_everything_survives_parts_and_parquet(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    assert not store.exists()
    write(store, "1", record("a"), record("b", float("inf"), target_bpp=None, rate=None), {"timing": vars(timing("a"))})
    write(store, "2", record("c", None, status="error", bpp=None, error="it's ∞ \n broken"))
    assert store.exists()
    before = store.read()
    store.compact()
    assert list(store.parts.glob("*.jsonl")) == []
    assert store.read() == before
    assert before.rows["b"].rate is None
    assert before.scores["b/psnr"].value == float("inf")
    assert before.rows["c"].error == "it's ∞ \n broken"
    assert before.timings == {"a/t": timing("a")}
    store.compact()
    write(store, "3", record("d"))
    store.compact()
    assert set(store.read().rows) == {"a", "b", "c", "d"}


def test_the_checksums_are_those_that_sha256sum_reads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, "1", record("a"))
    store.compact()
    subprocess.run(["sha256sum", "--check", "--strict", "parquet.sha256"], cwd=tmp_path, check=True)


def test_success_replaces_failure_and_never_the_other_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, "1", record("a", status="error"), record("b"))
    write(store, "2", record("a"), record("b", status="error"))
    assert {key: one.status for key, one in store.read().rows.items()} == {"a": "ok", "b": "ok"}


def test_other_pixels_take_the_old_scores_with_them(tmp_path: Path) -> None:
    """A score of pixels that are no longer the row's would be a number of nothing."""
    store = Store(tmp_path)
    old = record("a", reconstruction_sha256="old")
    old["scores"].append(vars(score("a", 0.9, "ms-ssim")))
    write(store, "1", old, {"timing": vars(timing("a"))}, record("b"))
    write(store, "2", record("a", 40.0, reconstruction_sha256="new"))
    store.compact()
    found = store.read()
    assert {key: one.value for key, one in found.scores.items()} == {"a/psnr": 40.0, "b/psnr": 30.5}
    assert found.timings == {}


SEEDED = """
import sys
from pathlib import Path
from rdpbench.results.store.store import Store
print(sorted(Store(Path(sys.argv[1])).read().timings))
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_new_row_keeps_the_times_that_came_with_it(tmp_path: Path, seed: int) -> None:
    """In whatever order this process iterates over sets: the row drops what is of old pixels, then its own come in."""
    store = Store(tmp_path)
    for pixels in ("old", "new"):
        write(store, pixels, {**record("a", reconstruction_sha256=pixels), "timing": vars(timing("a"))})
    line = [sys.executable, "-c", SEEDED, str(tmp_path)]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    assert subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout == "['a/t']\n"


def test_verified_stays_when_an_old_part_is_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = write(store, "1", record("a", verified="fresh_object"))
    stays = path.read_bytes()
    write(store, "2", {"verified": "a"})
    store.compact()
    assert store.read().rows["a"].verified == "fresh_process"
    path.write_bytes(stays)  # as after a kill before the parts were deleted
    assert store.read().rows["a"].verified == "fresh_process"


def test_what_was_read_is_gone_on_from_unless_others_wrote(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, "1", record("a"))
    store.compact()
    killed = write(store, "2", record("b"))
    killed.write_bytes(b"".join(killed.read_bytes().splitlines(keepends=True)[:-1]))  # the part stays open
    known = store.read()
    write(store, "3", record("c"), {"refuted": "b", "error": "refuted: other pixels"})
    assert store.read(known) is known
    assert known == store.read()
    assert known.rows["b"].status == "error"
    Store(tmp_path).compact()  # another process
    write(store, "4", record("d"))
    stored = store.compact(known)
    assert stored == store.read()
    assert (set(stored.rows), stored.rows["b"].status) == ({"a", "b", "c", "d"}, "error")


def test_an_unfinished_last_line_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = write(store, "1", record("a"), record("b"))
    first, second, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:-20])
    part = PartReader(path)
    assert len(list(part)) == 1
    assert (part.records, part.closed, part.cut) == (1, False, True)
    assert set(store.read().rows) == {"a"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:30] + b"\x00" + data[31:],
        lambda data: data.replace(b'"value":30.5', b'"value":31.5', 1),
        lambda data: b"".join(data.splitlines(keepends=True)[1:]),
        lambda data: data + b'{"v":1}\n',
        lambda data: b"[1]\n" + data,
        lambda data: data.replace(b'"end":2', b'"end":1'),
    ],
    ids=["zero byte", "another number", "a line less", "a line more", "no record", "another count"],
)
def test_a_damaged_part_is_not_read(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = Store(tmp_path)
    path = write(store, "1", record("a"), record("b"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreCorrupt, match=r"1\.jsonl"):
        store.read()


def test_no_flipped_bit_of_an_open_part_changes_a_number(tmp_path: Path) -> None:
    """A run that was killed leaves such a part; each of its lines has a checksum."""
    store = Store(tmp_path)
    path = write(store, "1", record("a"), record("b", 12.25), record("c", float("inf")))
    data = b"".join(path.read_bytes().splitlines(keepends=True)[:-1])
    path.write_bytes(data)
    before, rng = store.read(), random.Random(1)
    for at in [*range(40), *rng.sample(range(len(data)), 560)]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(StoreCorrupt):
            found = store.read()  # only the last line end may go: that line is not finished then
            assert at == len(data) - 1
            assert found.rows.items() < before.rows.items()


@pytest.mark.parametrize("change", ["lost", "repeated", "swapped"])
def test_a_lost_line_in_the_middle_of_an_open_part_is_found(tmp_path: Path, change: str) -> None:
    store = Store(tmp_path)
    path = write(store, "1", record("a"), record("b"), record("c"))
    first, second, third, _ = path.read_bytes().splitlines(keepends=True)
    kept = {"lost": [first, third], "repeated": [first, second, second], "swapped": [second, first, third]}[change]
    path.write_bytes(b"".join(kept))
    with pytest.raises(StoreCorrupt, match=r"1\.jsonl:[123]: it, or a line before it, is not what was written"):
        store.read()


MISTYPED: list[Any] = [
    {"row": 5},
    {"row": {**record("a")["row"], "bpp": "0.5"}},
    {"row": {**record("a")["row"], "bytes": True}},
    {"row": {**record("a")["row"], "codec": None}},
    {"row": {**record("a")["row"], "image": [["a"]]}},
    {"row": {**record("a")["row"], "status": "good"}},
    {"row": {**record("a")["row"], "options": "[1]"}},
    {"row": {**record("a")["row"], "parts": "{" * 50_000}},
    {"scores": {"value": 1}},
    {"scores": [[]]},
    {"scores": [{**vars(score("a")), "value": {"psnr": 30}}]},
    {"timing": {**vars(timing("a")), "encode_s": None}},
    {
        "measure": {
            **vars(Measure("m 1", "m", "1", "", "pair", "", True, True, "mean", 0.0, 1.0, "s")),
            "perceptual": "no",
        }
    },
    {"verified": ["a"]},
    {"refuted": "a"},
    {"session": 1},
    {"surprise": 1},
    {"end": {"deep": 1}},
]


@pytest.mark.parametrize("strange", MISTYPED, ids=range(len(MISTYPED)))
def test_a_record_that_is_none_is_named(tmp_path: Path, strange: Any) -> None:
    """Written as ours is, with all checksums: no traceback, nor a value that breaks something later."""
    store = Store(tmp_path)
    path = write(store, "1", record("a"), strange)
    with pytest.raises(StoreCorrupt, match=r"1\.jsonl"):
        store.read()
    path.unlink()
    if "row" in strange and isinstance(strange["row"], dict):
        pa = pytest.importorskip("pyarrow")
        table = pa.Table.from_pylist([strange["row"]]).replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(table, tmp_path / "rows.parquet")
        subprocess.run("sha256sum *.parquet > parquet.sha256", cwd=tmp_path, shell=True, check=True)
        with pytest.raises(StoreCorrupt, match=r"rows\.parquet"):
            store.read()


def test_a_line_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_bytes(b'{"v":3,"row":' + b"[" * 200_000 + b"\n")
    with pytest.raises(StoreCorrupt, match=r"1\.jsonl:1: not a record"):
        list(PartReader(tmp_path / "1.jsonl"))


def test_half_a_pair_of_surrogates_is_spelled_out(tmp_path: Path) -> None:
    """JSON takes it, Parquet and a terminal do not."""
    store = Store(tmp_path)
    write(store, "1", record("a", status="error", error="half \ud800 of 😀"))
    assert store.read().rows["a"].error == "half \\ud800 of 😀"
    store.compact()
    assert store.read().rows["a"].error == "half \\ud800 of 😀"


def test_it_says_which_is_damaged_and_gives_up_no_good_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, "1", record("a"))
    store.compact()
    before, notes, rows = store.read(), tmp_path / "parquet.sha256", tmp_path / "rows.parquet"
    good, rng = notes.read_bytes(), random.Random(2)
    for at in rng.sample(range(good.index(b"\n") + 1, len(good)), 30):
        damaged = bytearray(good)
        damaged[at] ^= 1
        notes.write_bytes(damaged)
        assert store.damaged_notes({}) == [f"{notes} was damaged after writing"]
        try:
            store.read()
        except StoreCorrupt as error:
            told = str(error)
            assert "parquet.sha256 was damaged" in told
            assert "itself can be read, and the checksums inside it are right: keep it" in told
    subprocess.run(told.rpartition("type: ")[2], shell=True, check=True)
    assert store.read() == before
    rows.write_bytes(rows.read_bytes()[:-1])
    notes.write_bytes(damaged)
    with pytest.raises(StoreCorrupt, match=r"rows\.parquet was damaged or cut .*parquet\.sha256 was damaged .*, too"):
        store.read()


def test_a_part_has_one_writer(tmp_path: Path) -> None:
    PartWriter(tmp_path / "a.jsonl").close()
    with pytest.raises(StoreUnwritable, match=r"a\.jsonl"):
        PartWriter(tmp_path / "a.jsonl")


@pytest.mark.parametrize("where", ["part", "parquet"])
def test_a_newer_version_says_to_upgrade(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for module in ("columns", "log", "store"):
        monkeypatch.setattr(f"rdpbench.results.store.{module}.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr("rdpbench.results.store.schema.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    write(store, "1", record("a"))
    if where == "parquet":
        store.compact()
    monkeypatch.undo()
    with pytest.raises(StoreError, match=rf"schema version {SCHEMA_VERSION + 1}.*pip install --upgrade rdpbench"):
        store.read()


def test_fields_that_are_not_ours_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = record("a")
    made["row"]["surprise"] = 1
    write(store, "1", made)
    with pytest.raises(StoreError, match=r"1\.jsonl:1: a Row with unexpected or missing fields: surprise"):
        store.read()


class Killed(BaseException):
    """As a kill at this moment."""


@pytest.mark.parametrize("moment", range(16))
def test_a_kill_at_any_step_of_compaction_loses_nothing(
    tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    write(store, "1", record("a"), {"timing": vars(timing("a"))})
    store.compact()
    write(store, "2", record("b"), record("a"))
    write(store, "3", record("c"))
    before = store.read()
    steps = 0

    def counted(name: str) -> None:
        original = getattr(Path, name)

        def step(self: Path, *arguments: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps > moment:
                raise Killed
            return original(self, *arguments, **options)

        monkeypatch.setattr(Path, name, step)

    for name in ("replace", "unlink", "write_text"):
        counted(name)
    try:
        store.compact()
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()
    found = store.read()
    assert found == before
    assert found.missing == [], "a kill is no file that somebody deleted"
    store.compact()
    assert store.read() == before
    assert list(store.parts.glob("*.jsonl")) == []
    assert store.missing_files() == []
    assert finished == (moment >= 13), "the steps of compaction changed: let the moments cover all of them"


def test_bitstreams_lie_under_their_hash_and_heal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.bitstreams.put(b"some bytes")
    assert store.bitstreams.get(name) == b"some bytes"
    for damage in (b"some bytez", b"some"):
        store.bitstreams.path(name).write_bytes(damage)
        with pytest.raises(StoreCorrupt, match="changed after it was stored"):
            store.bitstreams.get(name)
        store.bitstreams.put(b"some bytes")
        assert store.bitstreams.get(name) == b"some bytes"
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_workers_that_write_the_same_bytes_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    program = (
        "from rdpbench.results.store.store import Store; from pathlib import Path; import sys, time\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "for n in range(300): Store(Path(sys.argv[1])).bitstreams.put(n.to_bytes(2, 'big') * 5000)"
    )
    line = [sys.executable, "-c", program, str(tmp_path), str(time.time() + 2)]
    workers = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.communicate()[1] == ""
    store = Store(tmp_path)
    names = [path.stem for path in tmp_path.rglob("*.bin")]
    assert len(names) == 300
    assert sum(len(store.bitstreams.get(name)) for name in names) == 300 * 10_000
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    with store.lock():
        program = (
            "from rdpbench.results.store.store import Store; from pathlib import Path; import sys\n"
            "with Store(Path(sys.argv[1])).lock(): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(store.folder)], capture_output=True, text=True, check=False
        )
        assert "StoreBusy: another rdpbench is writing to" in done.stderr
        with pytest.raises(StoreBusy), store.lock():
            pass
    with store.lock():
        pass


def history(rng: random.Random, store: Store, steps: int) -> None:
    """What commands may write one after the other: new rows, failures, other pixels, verdicts; some compact."""
    for step in range(steps):
        records: list[dict[str, Any]] = []
        for _ in range(rng.randrange(1, 9)):
            key = f"task{rng.randrange(40):02d}"
            what = rng.random()
            if what < 0.6:
                pixels = rng.choice(["old", "old", "old", "new"])
                status = rng.choice(["ok", "ok", "ok", "error"])
                made = record(key, rng.random(), status=status, reconstruction_sha256=pixels, session=f"{step:03d}")
                made["scores"] += [vars(score(key, rng.random(), "ms-ssim"))] * (rng.random() < 0.5)
                records.append({**made, **({"timing": vars(timing(key))} if rng.random() < 0.3 else {})})
            elif what < 0.75:
                records.append({"scores": [vars(score(key, rng.random(), rng.choice(["flip", "psnr"])))]})
            else:
                verdicts = [{"verified": key}, {"suspect": key}, {"refuted": key, "error": "refuted: other pixels"}]
                records.append(rng.choice(verdicts))
        write(store, f"{step:03d}", *records)
        if rng.random() < 0.5:
            store.compact()


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 40))])
def test_segments_hold_what_one_file_would(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the segments are, and whatever later ones say of earlier rows: read is the same, in columns too."""
    whole, cut = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    history(random.Random(seed), whole, 16)
    monkeypatch.setattr("rdpbench.results.store.store.SEALED", 5)
    monkeypatch.setattr("rdpbench.results.store.store.MERGED", 3)
    monkeypatch.setattr("rdpbench.results.store.store.BLOCK", 4)
    monkeypatch.setattr("rdpbench.results.store.records.BLOCK", 4)
    monkeypatch.setattr("rdpbench.results.store.records.INDEXED", random.Random(seed).choice([3, 1000]))
    history(random.Random(seed), cut, 16)
    numbers = [int(path.stem[-6:]) for path in cut.folder.glob("segments/rows-*.parquet")]
    assert max(numbers) > 1  # there were several, which may be one by now
    expected, found = whole.read(), cut.read()
    for kind in ("row", "score", "timing"):
        theirs, ours = expected.of_kind(kind), found.of_kind(kind)
        assert dict(ours) == dict(theirs)
        assert len(ours) == len(theirs) == len(set(ours))
        assert {key: ours[key] for key in theirs} == dict(theirs)
        places = ours.locate(list(theirs))
        assert [vars(one) for one in ours.at(places)] == [vars(one) for one in theirs.values()]
    columns = dict(zip(found.rows, found.of_kind("row").codes("status").texts(), strict=True))
    assert columns == {key: one.status for key, one in expected.rows.items()}
    owners = found.of_kind("score").owners(found.of_kind("row"))
    keys = [*found.rows, None]
    assert [keys[owner] for owner in owners] == [
        one.task_key if one.task_key in found.rows else None for one in found.scores.values()
    ]
    subprocess.run("sha256sum --check --strict parquet.sha256", cwd=cut.folder, shell=True, check=True)
    assert {path.name for path in cut.folder.glob("segments/*")} == {
        name.partition("/")[2] for _, name in cut._checksums() if name.startswith("segments/")
    }


def test_a_segment_that_is_damaged_or_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdpbench.results.store.store.SEALED", 2)
    store = Store(tmp_path)
    for step in range(3):
        write(store, str(step), record(f"a{step}"), record(f"b{step}"))
        store.compact()
    path = tmp_path / "segments" / "rows-000002.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(StoreCorrupt, match=r"rows-000002\.parquet was damaged or cut"):
        store.read()
    path.unlink()
    with pytest.raises(StoreCorrupt, match=r"rows-000002\.parquet is missing"):
        store.read()
    path.write_bytes(data)
    assert len(store.read().rows) == 6


def test_bitstreams_of_a_segment_are_packed_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a flipped bit, a pack that is gone, and one that is written again are found out."""
    monkeypatch.setattr("rdpbench.results.store.store.SEALED", 3)
    store, streams = Store(tmp_path), {}
    for step in range(4):
        records = []
        for number in range(3):
            data = random.Random(10 * step + number).randbytes(50 + number)
            streams[store.bitstreams.put(data)] = data
            sha256 = list(streams)[-1]
            records.append(record(f"{step}{number}", bitstream_sha256=sha256, bytes=len(data), grade="decoded"))
        write(store, str(step), *records)
        store.compact()
    assert not list(tmp_path.glob("bitstreams/??/*.bin"))
    contents = store.read()
    for sha256, data in streams.items():
        assert store.bitstreams.get(sha256) == data
        assert store.bitstreams.size(sha256) == len(data)
    rows = contents.of_kind("row")
    places = rows.locate(list(rows))
    assert store.has_bitstreams(rows, places).all()
    assert all(store.has_bitstream(one) for one in contents.rows.values())
    pack = tmp_path / "bitstreams" / "packs" / "000002.bin"
    data = pack.read_bytes()
    pack.write_bytes(data[:5] + bytes([data[5] ^ 4]) + data[6:])
    damaged = [sha256 for sha256 in streams if not holds(store, sha256)]
    assert len(damaged) == 1
    store.bitstreams.put(streams[damaged[0]])  # as the command that made it does
    assert holds(store, damaged[0])
    # Of a pack that is cut or gone the plan sees what is lost, so that it is made again.
    for lost, change in ((1, lambda: pack.write_bytes(data[:-1])), (2, pack.unlink)):
        change()
        assert (~store.has_bitstreams(rows, places)).sum() == lost


def holds(store: Store, sha256: str) -> bool:
    """Is a bitstream there, and whole?"""
    try:
        store.bitstreams.get(sha256)
    except StoreCorrupt:
        return False
    return True


def test_a_row_that_is_written_again_keeps_its_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets another place among the rows, though their number stays: what was told of places before is not."""
    monkeypatch.setattr("rdpbench.results.store.store.SEALED", 2)
    store = Store(tmp_path)
    write(store, "1", record("a", 1.0), record("b", 2.0), record("c", 3.0))
    store.compact()
    known = store.read()

    def told() -> dict[str, float | None]:
        rows, scores = known.of_kind("row"), known.of_kind("score")
        keys, values = list(rows), [one.value for one in scores.values()]
        return {keys[owner]: value for owner, value in zip(scores.owners(rows), values, strict=True)}

    assert told() == {"a": 1.0, "b": 2.0, "c": 3.0}
    write(store, "2", {"verified": "a"})
    store.read(known)
    assert list(known.rows) == ["b", "c", "a"]
    assert told() == {"a": 1.0, "b": 2.0, "c": 3.0}
