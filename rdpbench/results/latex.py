"""Tables for LaTeX with booktabs: the best in bold, the second underlined, intervals and arrows in math mode.

Whatever a name holds comes out as text. Letters that LaTeX's usual encodings lack are written as their code point, so
that a table never stops a document from compiling.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdpbench.results.tables import Cell, Table

_MARKS = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
_TEX = {
    **{mark: f"\\{mark}" for mark in "%_&#${}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "°": r"$^{\circ}$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "∞": r"$\infty$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\N{NO-BREAK SPACE}": "~",
}
"""What LaTeX writes otherwise, letter by letter: a replacement must not be replaced again."""


def latex(table: Table) -> str:
    r"""A ``table`` environment; the first column holds labels, and equal ones are written once.

    >>> from rdpbench.results.tables import Cell, Table
    >>> text = latex(Table("Rates", ("codec", "psnr ↑"), ((Cell("a_b"), Cell("31.2 ±0.1", 1)),)))
    >>> r"a\_b & \textbf{31.2 $\pm$0.1} \\" in text, text.count(r"\toprule")
    (True, 1)
    """
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(' '.join((table.caption + '.', *table.notes)))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            _line([escape(name) for name in table.header]),
            r"\midrule",
            *_body(table),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _body(table: Table) -> Iterator[str]:
    """The rows, with a rule between groups of equal labels."""
    labels = [line[0].text for line in table.lines]
    grouped = len(set(labels)) < len(labels)
    previous = None
    for line in table.lines:
        label = line[0].text
        if grouped and previous not in (None, label):
            yield r"\midrule"
        yield _line(["" if label == previous else _cell(line[0]), *(_cell(cell) for cell in line[1:])])
        previous = label


def _cell(cell: Cell) -> str:
    return _MARKS.get(cell.rank, "{}").format(escape(cell.text))


def _line(cells: list[str]) -> str:
    row = " & ".join(cells)
    # After the line break above, a bracket would be read as its length, and a star as its form.
    return f"{'{}' if row[:1] in ('[', '*') else ''}{row} \\\\"


def escape(text: str) -> str:
    r"""Text as LaTeX writes it.

    >>> escape("50 % of a_b, 3±1")
    '50 \\% of a\\_b, 3$\\pm$1'
    >>> escape("é, 中"), len(escape("$"))
    ('é, \\texttt{U+4E2D}', 2)
    """
    return "".join(_TEX.get(letter) or _letter(letter) for letter in " ".join(text.split("\n")))


def _letter(letter: str) -> str:
    """A letter of the encodings that LaTeX loads by itself (ASCII and Latin), or its code point."""
    if "\x20" <= letter <= "\x7e" or ("À" <= letter <= "ž" and unicodedata.category(letter)[0] == "L"):
        return letter
    return rf"\texttt{{U+{ord(letter):04X}}}"
