"""A study's result as tables: scores beside metrics, raters, and how often a metric chose as people did."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

from rdpbench.results import tables
from rdpbench.results.stats.bootstrap import Interval
from rdpbench.results.tables import Cell, Table, cell
from rdpbench.study.bradley_terry import share
from rdpbench.study.scores import Group, Scored


def all_tables(found: Scored) -> list[Table]:
    """Scores at each rate, agreement with metrics, raters."""
    out = [_scores(found, group) for group in found.groups]
    if found.agreement:
        out.append(_agreement(found))
    return [*out, _raters(found)]


def remarks(found: Scored) -> list[str]:
    """What a reader must know beside the tables."""
    out = [f"at {group.target:g} bpp there are no scores: {group.why}" for group in found.groups if group.fit is None]
    failed = [one.name for one in found.raters if not one.passed]
    if failed:
        out.append(f"missed the catch trials: {', '.join(failed)}")
    if math.isfinite(found.left):
        out.append(f"{100 * found.left:.1f} % of the votes are for the left side, on which each codec is equally often")
    return out


def _scores(found: Scored, group: Group) -> Table:
    """By falling score; a codec's chance is that of being preferred to one of score 0."""
    header = ["codec", "bpp", "score [95 %]", "chosen over the mean %", "won", "tied", "lost"]
    header += [f"{name} {'↑' if better else '↓'}" for name, better in found.key.better.items()]
    order = list(range(len(group.codecs)))
    fit = group.fit
    if fit is not None:
        order.sort(key=lambda item: -float(fit.scores[item]))
    lines = []
    for item in order:
        cells = [group.codecs[item], f"{group.bpp[item]:.4f}", "–", "–"]
        if fit is not None:
            cells[2] = f"{fit.scores[item]:+.2f} [{fit.low[item]:+.2f}, {fit.high[item]:+.2f}]"
            cells[3] = f"{100 * share([float(fit.scores[item]), 0.0], 0, 1):.0f}"
        cells += [str(count[item]) for count in (group.wins, group.ties, group.losses)]
        cells += [f"{group.metrics[name][item]:.4f}" for name in found.key.better]
        lines.append(tuple(Cell(text) for text in cells))
    caption = f"{found.key.dataset} ({found.key.protocol}) at {group.target:g} bpp: Bradley-Terry scores"
    return Table(caption, tuple(header), tuple(lines), tuple(_notes(found, group)))


def _notes(found: Scored, group: Group) -> list[str]:
    if group.fit is None:
        return [f"no scores: {group.why}"]
    images = len({one.image for one in found.key.shown.values()})
    counted = sum(one.passed for one in found.raters)
    note = (
        "scores are natural logarithms of odds and add up to 0; intervals are over raters and images "
        f"({counted} who passed, {images} images), Student's with {group.fit.freedom} degrees of freedom"
    )
    notes = [note]
    if group.fit.tie is not None:
        notes.append(f"ties by Davidson's model, t = {group.fit.tie:.2f}")
    if group.fit.freedom < 4:
        notes.append("few raters or images: such intervals are wide, and only roughly of 95 %")
    return notes


def _agreement(found: Scored) -> Table:
    lines = []
    for name, of in found.agreement.items():
        lines.append((Cell(name), Cell(_percent(of)), Cell(str(of.n))))
    note = "means over images of the share of votes for the copy that the metric prefers; 50 % is chance"
    return Table("Agreement of metrics with people", ("metric", "agrees % [95 %]", "images"), tuple(lines), (note,))


def _percent(of: Interval) -> str:
    text = f"{100 * of.value:.1f}"
    return text + (f" [{100 * of.low:.1f}, {100 * of.high:.1f}]" if math.isfinite(of.low) else "")


RATER = ("rater", "sheets", "votes", "missing", "catch trials", "left %", "ties", "median s", "counts")


def _raters(found: Scored) -> Table:
    lines = [tuple(Cell(text) for text in line) for line in _rater_lines(found)]
    return Table("Raters", RATER, tuple(lines))


def _rater_lines(found: Scored) -> Iterable[tuple[str, ...]]:
    for one in found.raters:
        decided = one.votes - one.ties
        yield (
            one.name,
            " ".join(map(str, one.sheets)),
            str(one.votes),
            str(one.missing),
            f"{one.caught} of {one.catch}",
            f"{100 * one.left / decided:.0f}" if decided else "–",
            str(one.ties),
            f"{one.median_ms / 1000:.1f}" if math.isfinite(one.median_ms) else "–",
            "yes" if one.passed else "no",
        )


def markdown(found: Scored) -> str:
    """The page."""
    parts = [
        f"# {_md(found.key.title)}",
        "",
        f"Study {found.key.study}. Made by `{found.key.command}`.",
        "",
    ]
    parts += [tables.markdown(table) for table in all_tables(found)]
    parts += [f"- {_md(line)}" for line in remarks(found)]
    return "\n".join(parts) + "\n"


def _md(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|\\<>_*`[]" else letter for letter in text)


def scores_csv(found: Scored) -> str:
    """A line for each codec and rate: score, interval, counts, rate and metrics."""
    names = list(found.key.better)
    header = [
        "dataset",
        "protocol",
        "target_bpp",
        "codec",
        "bpp",
        "score",
        "score_lo",
        "score_hi",
        "won",
        "tied",
        "lost",
    ]
    lines: list[Sequence[object]] = [[*header, *names]]
    for group in found.groups:
        for item, codec in enumerate(group.codecs):
            fit = group.fit
            value = ["", "", ""] if fit is None else [f"{of[item]:.6f}" for of in (fit.scores, fit.low, fit.high)]
            counts = [count[item] for count in (group.wins, group.ties, group.losses)]
            where = [found.key.dataset, found.key.protocol, f"{group.target:g}", codec, f"{group.bpp[item]:.8g}"]
            lines.append([*where, *value, *counts, *(f"{group.metrics[name][item]:.8g}" for name in names)])
    return _csv(lines)


def raters_csv(found: Scored) -> str:
    """A line for each rater."""
    return _csv([RATER, *_rater_lines(found)])


def _csv(lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(cell, line) for line in lines)
    return out.getvalue()
