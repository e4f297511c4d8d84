"""``rdpbench merge``: one run of several, with nothing lost and nothing twice."""

from __future__ import annotations

import contextlib
import itertools
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rdpbench import read_results
from rdpbench.errors import StoreCorrupt
from rdpbench.image import pixel_sha256, read_image
from rdpbench.results.store.bitstreams import put_reconstruction, reconstruction_path
from rdpbench.results.store.merge import merge
from rdpbench.results.store.store import Store
from rdpbench.runners.verify import verify

helpers = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_store.py"))))
record, row, write = helpers.record, helpers.row, helpers.write


def test_two_runs_become_one(tmp_path: Path, here: Any, images: Any, capsys: Any) -> None:
    """They share some tasks; what came of all of them is what one run would have, and nothing is left to do."""
    line = [f"data=folder:{images(3)}", "metrics=psnr", "figures=false", "workers=0"]
    assert here("run", "codec=jpeg", "rate=20,40", *line, "run=a") == 0
    assert here("run", "codec=jpeg", "rate=40,60", *line, "run=b") == 0
    assert here("run", "codec=jpeg", "rate=20,40,60", *line, "run=whole") == 0
    assert here("merge", "a", "b", "--into", "c") == 0
    assert "c holds 9 rows now" in capsys.readouterr().out
    stores = {name: Store(tmp_path / "results/runs" / name) for name in ("c", "whole")}
    merged, whole = (store.read() for store in stores.values())
    assert {key: row.bitstream_sha256 for key, row in merged.rows.items()} == {
        key: row.bitstream_sha256 for key, row in whole.rows.items()
    }
    assert {key: score.value for key, score in merged.scores.items()} == {
        key: score.value for key, score in whole.scores.items()
    }
    assert verify(stores["c"], None).findings == ()
    assert here("run", "codec=jpeg", "rate=20,40,60", *line, "run=c") == 0
    assert "nothing to do: all 9 tasks" in capsys.readouterr().out
    assert here("merge", "a", "c", "--into", "c") == 2
    assert "cannot be merged into itself" in capsys.readouterr().err


def test_points_that_share_rows_are_whole_in_any_order(
    tmp_path: Path, here: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set and a part of it, each measured in a run of its own, are both whole in the run of both."""
    monkeypatch.setattr("rdpbench.results.store.merge.BLOCK", 3)  # rows are paired a block at a time
    whole = images(4)
    part = tmp_path / "part"
    part.mkdir()
    for path in sorted(whole.iterdir())[:2]:
        (part / path.name).write_bytes(path.read_bytes())
    line = ["codec=jpeg", "rate=40", "metrics=psnr", "figures=false", "workers=0"]
    for run, folder in (("a", whole), ("b", part)):
        assert here("run", *line, f"data=folder:{folder}", f"run={run}") == 0
    apart = read_results("a", "b").set_index("dataset")
    for into, runs in (("c", "ab"), ("d", "ba")):
        assert here("merge", *runs, "--into", into) == 0
        both = read_results(into).set_index("dataset")
        for column in ("n", "partial", "bpp", "value", "value_lo"):
            assert both[column].to_dict() == apart[column].to_dict()


def test_of_two_rows_of_a_task_the_later_good_one_stays_with_what_is_its(tmp_path: Path) -> None:
    """In any order of the runs: with the scores of its pixels, with what was verified, and no failure over a value."""
    told = {"bitstream_sha256": "ab" * 32, "bytes": None}
    early = {"session": "1", "reconstruction_sha256": "early", **told}
    late = {"session": "2", "reconstruction_sha256": "late", **told}
    pairs = [
        (record("k", 1.0, **early), record("k", 2.0, **late)),
        (record("k", 2.0, **{**early, "reconstruction_sha256": "late"}), record("k", None, **late)),
        (record("k", 2.0, **late), record("k", None, **{**late, "session": "3", "status": "error"})),
    ]
    for number, pair in enumerate(pairs):
        for order in itertools.permutations(pair):
            folder = tmp_path / f"{number}{order[0] is pair[0]}"
            stores = [Store(folder / name) for name in "xy"]
            for store, held in zip(stores, order, strict=True):
                write(store, held["row"]["session"], held)
            merge(stores, target := Store(folder / "z"))
            stored = target.read()
            assert (stored.rows["k"].status, stored.rows["k"].reconstruction_sha256) == ("ok", "late")
            assert [score.value for score in stored.scores.values()] == [2.0]


def test_what_one_run_refuted_stays_refuted(tmp_path: Path) -> None:
    """A copy of a run from before it was verified does not make it good again."""
    held = {"row": vars(replace(row("k", session="1", bitstream_sha256="ab" * 32), verified="fresh_object"))}
    for number, states in enumerate(itertools.permutations([[], [{"suspect": "k"}]])):
        stores = [Store(tmp_path / f"{number}{name}") for name in "xy"]
        for store, more in zip(stores, states, strict=True):
            write(store, "1", held, *more)
        merge(stores, target := Store(tmp_path / f"{number}z"))
        assert target.read().rows["k"].verified == "refuted"


def test_files_of_one_name_are_held_against_what_they_must_be(tmp_path: Path, here: Any, images: Any) -> None:
    """Of equal size they may differ: what says what it holds is put right, and of the others nobody knows which is."""
    line = ["codec=jpeg", f"data=folder:{images(2)}", "metrics=psnr", "figures=false", "workers=0", "keep=all"]
    assert here("run", *line, "rate=40", "run=a") == 0
    run = Store(tmp_path / "results/runs/a")
    arrays = run.folder / "features/kind/session.bin"
    arrays.parent.mkdir(parents=True)
    arrays.write_bytes(b"an array and another one")
    for name, mended in (("bitstreams", True), ("reconstructions", True), ("features", False), ("sessions", False)):
        file = next(path for path in sorted((run.folder / name).rglob("*")) if path.is_file())
        whole = file.read_bytes()
        changed = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
        other = shutil.copytree(run.folder, tmp_path / name)
        (other / name / file.relative_to(run.folder / name)).write_bytes(changed)
        with contextlib.nullcontext() if mended else pytest.raises(StoreCorrupt, match="have one name"):
            merge([run], Store(other))
            assert (other / name / file.relative_to(run.folder / name)).read_bytes() == whole
        if name == "bitstreams":
            file.write_bytes(changed)
            with pytest.raises(StoreCorrupt, match="changed after it was stored"):
                merge([run], Store(tmp_path / "d"))
            file.write_bytes(whole)
    grown = shutil.copytree(run.folder, tmp_path / "e") / "features/kind/session.bin"  # while the other one went on
    for held in (b"an array", b"an array and another one and more"):
        grown.write_bytes(held)
        merge([run], Store(tmp_path / "e"))
        assert grown.read_bytes() == max(held, arrays.read_bytes(), key=len)


def test_what_is_kept_is_of_the_row_that_stays(tmp_path: Path) -> None:
    """Two machines may decode one bitstream to other pixels."""
    pixels = [np.full((4, 4, 3), grey, np.uint8) for grey in (1, 2)]
    rows = [row("k", session=str(grey), reconstruction_sha256=pixel_sha256(pixels[grey])) for grey in (0, 1)]
    for kept in itertools.product([False, True], repeat=2):
        for order in ((0, 1), (1, 0)):
            folder = tmp_path / f"{kept}{order}"
            stores = [Store(folder / str(number)) for number in order]
            for store, number in zip(stores, order, strict=True):
                write(store, str(number), {"row": vars(rows[number])})
                if kept[number]:
                    put_reconstruction(store, rows[number], pixels[number])
            merge(stores, target := Store(folder / "both"))
            place = reconstruction_path(target, target.read().rows["k"])
            assert place.is_file() == kept[1]
            assert not kept[1] or np.array_equal(read_image(place).pixels, pixels[1])
