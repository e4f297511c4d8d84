"""How long the rest of a run takes, against how long it took: on the log of the default run's first six images.

Its seconds are those of the processor (``time.perf_counter = time.process_time``, ``workers=0``), so that what else the
machine did is not in them. ``python tests/runners/test_cost.py RUN`` writes the log of another run over it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from rdpbench.progress import Progress
from rdpbench.runners.cost import Costs, Kind, Left, kind_of_work
from rdpbench.setting import Setting

LOG = Path(__file__).with_name("default_run.json")
METRICS = ("psnr", "ms-ssim", "ssimulacra2")


class Line(NamedTuple):
    """What the log has of a task, in the order in which they were done."""

    done_s: float
    codec: str
    field: str
    rate: float
    height: int
    width: int
    encode_s: float
    decode_s: float
    score_s: float


def log() -> list[Line]:
    return [Line(*line) for line in json.loads(LOG.read_text())]


def work_of(line: Line) -> Any:
    codec = SimpleNamespace(name=line.codec, use=line.codec)
    setting, pixels = Setting(line.field, line.rate), line.height * line.width
    task = SimpleNamespace(codec=codec, setting=setting, pixels=pixels)
    return SimpleNamespace(task=task, row=None, metrics=METRICS, features=(), originals=(), timing=False)


def row_of(line: Line) -> Any:
    setting = Setting(line.field, line.rate)
    told = {"use": line.codec, "setting": setting, "status": "ok", "attempts": 1}
    return SimpleNamespace(**line._asdict(), **told)


def ratios(costs: Costs, *, by_count: bool = False) -> list[float]:
    """From a quarter of the run until 3 s before its end: the time that was announced over the time that it took."""
    lines = log()
    whole = lines[-1].done_s
    kinds: Counter[Kind] = Counter()
    for line in lines:
        kinds[kind_of_work(work_of(line))] += line.height * line.width
    left = Left(kinds, 0.0, costs, 2)
    out = []
    for number, line in enumerate(lines):
        left.done(work_of(line), row_of(line))
        told = left.seconds(line.done_s)
        if by_count:
            told = line.done_s / (number + 1) * (len(lines) - number - 1)
        if whole / 4 <= line.done_s < whole - 3:
            out.append(told / (whole - line.done_s))
    return out


def learned() -> Costs:
    costs = Costs()
    for line in log():
        costs.learn(row_of(line), METRICS)
    return costs


@pytest.mark.parametrize("costs", [Costs, learned])
def test_the_time_left_is_right_within_half_from_a_quarter_of_the_run_on(costs: Any) -> None:
    told = ratios(costs())
    assert len(told) > 80
    assert 1 / 1.5 < min(told) <= max(told) < 1.5


def test_the_number_of_tasks_alone_would_not_tell_it() -> None:
    told = ratios(Costs(), by_count=True)
    assert min(told) < 1 / 1.5 or max(told) > 1.5


def test_earlier_rows_tell_how_long_a_run_takes_before_it_starts() -> None:
    lines, costs = log(), learned()
    expected = sum(costs.seconds(work_of(line)) for line in lines)
    measured = sum(line.encode_s + line.decode_s + line.score_s for line in lines)
    assert expected == pytest.approx(measured, rel=0.25)


def test_other_metrics_cost_what_the_table_says_at_this_speed() -> None:
    costs = Costs()
    costs.learn_scoring(("psnr",), 1_000_000, 0.02)  # half as fast as the table
    assert costs.scoring(("psnr", "flip"), 1_000_000) == pytest.approx(2 * (0.01 + 2.3))


def test_new_rows_outweigh_those_of_another_machine() -> None:
    costs = Costs()
    for seconds, rows in ((1.0, 1000), (0.1, 128)):
        for _ in range(rows):
            costs.learn_coding("mine", "mine", Setting("step", 1.0), 1_000_000, seconds)
    assert costs.coding("mine", "mine", Setting("step", 1.0), 1_000_000) == pytest.approx(0.1, rel=0.3)


def test_what_scores_only_is_counted_by_what_decoding_takes() -> None:
    row = SimpleNamespace(decode_s=0.5)
    pieces = [work_of(log()[0]) for _ in range(4)]
    for piece in pieces:
        piece.row, piece.metrics = row, ()
    left = Left(Counter({kind_of_work(pieces[0]): 4 * pieces[0].task.pixels}), 4 * 0.5, Costs(), 2)
    assert left.seconds(0) == pytest.approx(1.0)
    left.done(pieces[0], None)
    left.done(pieces[1], None)
    assert left.seconds(3.0) == pytest.approx(0.5)  # workers started meanwhile
    left.done(pieces[2], None)
    assert 0.25 < left.seconds(5.0) < 2.0


def test_a_line_of_progress_says_what_it_is_told(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("rdpbench.progress.LINE_EVERY_S", 0.0)
    shown = Progress("", 4, "tasks", left=lambda elapsed: 90.0 + 0 * elapsed)
    shown.advance()
    assert "1/4 tasks, 0 s elapsed, 1 min 30 s left" in capsys.readouterr().err


def write_log(run: Path) -> None:
    """Rows in the order in which they were made, as two workers do them that each take the next."""
    from rdpbench.results.store.store import Store

    rows = [row for row in Store(run).read().rows.values() if row.encode_s is not None and row.rate is not None]
    free, lines = [0.0, 0.0], []
    for row in sorted(rows, key=lambda row: row.time):
        seconds = [value or 0 for value in (row.encode_s, row.decode_s, row.score_s)]
        worker = free.index(min(free))
        free[worker] += sum(seconds)
        lines.append([free[worker], row.codec, row.rate_field, row.rate, row.height, row.width, *seconds])
    texts = (
        json.dumps([round(part, 4) if isinstance(part, float) else part for part in line]) for line in sorted(lines)
    )
    LOG.write_text("[\n" + ",\n".join(texts) + "\n]\n")


if __name__ == "__main__":
    write_log(Path(sys.argv[1]))
