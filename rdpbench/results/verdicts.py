"""What the regression gate says: lines for people, JUnit for CI, Markdown for a pull request."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

from rdpbench.results import tables
from rdpbench.results.parts import unwritable
from rdpbench.results.regression import Finding, Verdict
from rdpbench.results.tables import Cell, Table


def lines(verdict: Verdict) -> list[str]:
    """For a terminal."""
    moved = {finding.where for finding in verdict.findings} - {"curve"}
    state = f"{len(moved)} not as stored" if moved else "as stored"
    if verdict.findings and not moved:
        state = "not the curve that is stored"
    out = [f"{verdict.codec} on {verdict.dataset}: {len(verdict.points)} points, {state} in {verdict.path}"]
    for finding in verdict.findings:
        out.append(f"  {finding.where}: {finding.text}")
        out += [f"      {line}" for line in finding.images]
    return out + [f"  note: {note}" for note in verdict.notes]


def junit(verdicts: Sequence[Verdict]) -> str:
    """One suite for each curve, one case for each point; without times, since none are compared."""
    root = ET.Element("testsuites", name="rdpbench regress")
    for verdict in verdicts:
        cases = ["curve", *verdict.points]
        failed = {finding.where for finding in verdict.findings}
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(f"{verdict.dataset}/{verdict.codec}"),
            tests=str(len(cases)),
            failures=str(len(failed)),
        )
        for case in cases:
            element = ET.SubElement(suite, "testcase", classname=_xml(f"{verdict.dataset}.{verdict.codec}"), name=case)
            found = [finding for finding in verdict.findings if finding.where == case]
            if found:
                failure = ET.SubElement(element, "failure", message=_xml("; ".join(one.text for one in found)))
                failure.text = _xml("\n".join(_with_images(found)))
        if verdict.notes:
            ET.SubElement(suite, "system-out").text = _xml("\n".join(verdict.notes))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _with_images(found: Iterable[Finding]) -> list[str]:
    return [line for one in found for line in (one.text, *(f"  {image}" for image in one.images))]


def _xml(text: str) -> str:
    """Without the characters that XML has no way to write."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A summary with a line for each curve, and one for each finding."""
    good = sum(not verdict.findings for verdict in verdicts)
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
    out = tables.markdown(summary)
    if findings:
        header = ("curve", "point", "finding", "images that moved most")
        out += "\n" + tables.markdown(Table("Findings", header, tuple(findings)))
    return out


def _cells(*texts: object) -> tuple[Cell, ...]:
    return tuple(Cell(str(text)) for text in texts)


def write_file(path: Path, content: str) -> None:
    """Write what CI asked for.

    Raises:
        StoreUnwritable: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
