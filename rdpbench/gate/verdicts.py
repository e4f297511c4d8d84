"""What the regression gate says: lines for people, JUnit for CI, Markdown for a pull request.

How far a run may be from its stored curve: ``conf/regress.yaml``.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdpbench.gate.compare import BD, Drift, Finding, Verdict, said
from rdpbench.paths import write_file
from rdpbench.results import tables
from rdpbench.results.tables import Cell, Table


def lines(verdict: Verdict) -> list[str]:
    """For a terminal."""
    moved = {finding.where for finding in verdict.findings} & set(verdict.points)
    state = f"{len(moved)} not as stored" if moved else "as stored"
    if verdict.findings and not moved:
        state = "but not the curve that is stored"
    out = [f"{verdict.codec} on {verdict.dataset}: {len(verdict.points)} points, {state} in {verdict.path}"]
    for finding in verdict.findings:
        out.append(f"  {finding.where}: {finding.text}")
        out += [f"      {line}" for line in finding.images]
    out += [f"  {one.metric}: {one}" for one in verdict.drifts]
    return out + [f"  note: {note}" for note in verdict.notes]


def junit(verdicts: Sequence[Verdict], error: str = "") -> str:
    """One suite for each curve, one case for each point; without times, since none are compared.

    ``error`` is what ended the command before all curves were compared: a suite of its own.
    """
    root = ET.Element("testsuites", name="rdpbench regress")
    if error:
        suite = ET.SubElement(root, "testsuite", name="rdpbench", tests="1", failures="0", errors="1")
        ended = ET.SubElement(suite, "testcase", classname="rdpbench", name="regress")
        ET.SubElement(ended, "error", message=_xml(error.partition("\n")[0])).text = _xml(error)
    for verdict in verdicts:
        cases = ["curve", *verdict.points, BD]
        failed = {finding.where for finding in verdict.findings}
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(f"{verdict.dataset}/{verdict.codec}"),
            tests=str(len(cases)),
            failures=str(len(failed)),
            errors="0",
        )
        for case in cases:
            element = ET.SubElement(suite, "testcase", classname=_xml(f"{verdict.dataset}.{verdict.codec}"), name=case)
            found = [finding for finding in verdict.findings if finding.where == case]
            if found:
                failure = ET.SubElement(element, "failure", message=_xml("; ".join(one.text for one in found)))
                failure.text = _xml("\n".join(_with_images(found)))
        if said := [*(f"{one.metric}: {one}" for one in verdict.drifts), *verdict.notes]:
            ET.SubElement(suite, "system-out").text = _xml("\n".join(said))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _with_images(found: Iterable[Finding]) -> list[str]:
    return [line for one in found for line in (one.text, *(f"  {image}" for image in one.images))]


def _xml(text: str) -> str:
    """Without the characters that XML has no way to write."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def markdown(verdicts: Sequence[Verdict], error: str = "") -> str:
    """A summary with a line for each curve, and one for each finding; and what ended the command early, if anything."""
    good = sum(not verdict.findings for verdict in verdicts)
    if error and not verdicts:
        return _ended(error)
    summary = Table(
        f"rdpbench regress: {good} of {len(verdicts)} curves as stored",
        ("curve", "points", "findings"),
        tuple(_cells(f"{v.codec} on {v.dataset}", len(v.points), len(v.findings)) for v in verdicts),
        tuple(f"{v.codec} on {v.dataset}: {note}" for v in verdicts for note in v.notes),
    )
    findings = [
        _cells(f"{v.codec} on {v.dataset}", one.where, one.text, "; ".join(one.images))
        for v in verdicts
        for one in v.findings
    ]
    out = (_ended(error) + "\n" if error else "") + tables.markdown(summary)
    if findings:
        header = ("curve", "point", "finding", "images that moved most")
        out += "\n" + tables.markdown(Table("Findings", header, tuple(findings)))
    moved = [_cells(f"{v.codec} on {v.dataset}", one.metric, *_both(one)) for v in verdicts for one in v.drifts]
    if moved:
        header = ("curve", "metric", "BD-rate", "BD-metric")
        out += "\n" + tables.markdown(Table("The run against the stored curves", header, tuple(moved)))
    return out


def _both(drift: Drift) -> tuple[str, str]:
    return said(drift.rate, drift.rate_bound, "%"), said(drift.metric_delta, drift.metric_bound, drift.unit)


def _ended(error: str) -> str:
    """What ended the command, as a block that Markdown leaves as it is."""
    block = "\n".join(f"    {line}" for line in error.splitlines())
    return f"rdpbench regress: ended before all curves were compared\n\n{block}\n"


def _cells(*texts: object) -> tuple[Cell, ...]:
    return tuple(Cell(str(text)) for text in texts)


@dataclass(frozen=True)
class Files:
    """Where CI wants to read what was found; None for nowhere.

    They are written when the command starts, too: one that is killed leaves files that say it did not finish, not those
    of an earlier call.
    """

    junit: Path | None = None
    markdown: Path | None = None

    def write(self, found: Sequence[Verdict], error: str = "") -> None:
        """Write both.

        Raises:
            StoreUnwritable: a file cannot be written.
        """
        for path, how in ((self.junit, junit), (self.markdown, markdown)):
            if path is not None:
                write_file(path, how(found, error))
