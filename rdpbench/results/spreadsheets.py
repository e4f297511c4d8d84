"""CSV files that people open in a spreadsheet, which takes a text that begins with ``=`` for a formula and runs it.

A quote is put before such a text. Numbers stay numbers. `read_cell` takes the quote off again, so nothing is lost.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""What a formula may begin with; the last four are the wide forms, which some spreadsheets read as the others."""


def cell(value: object) -> str:
    """A value as the text of a cell that is no formula.

    >>> cell("=1+1"), cell(-5.5), cell("-5.5"), cell("kodak"), cell("-1+cmd")
    ("'=1+1", '-5.5', '-5.5', 'kodak', "'-1+cmd")
    """
    text = str(value)
    # Of a text that has quotes before such a letter already, one more: so that taking one off is always right.
    return f"'{text}" if text.lstrip("'")[:1] in tuple(_STARTS) and not _is_number(text) else text


def read_cell(text: str) -> str:
    """What `cell` was given, as text.

    >>> [read_cell(cell(text)) for text in ("=1+1", "'=1", "'quoted'", "-5")]
    ['=1+1', "'=1", "'quoted'", '-5']
    """
    return text[1:] if text[:1] == "'" and text.lstrip("'")[:1] in tuple(_STARTS) else text


def to_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame whose texts are cells; other columns are as they were.

    What lies at the path is replaced, not written into: in a folder from elsewhere it may be a link out of it.

    Raises:
        OSError: it cannot be written.

    >>> import pandas as pd, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_csv(pd.DataFrame({"image": ["@a", "b"], "bpp": [-1.5, 2.0]}), Path(folder, "a.csv"))
    ...     Path(folder, "a.csv").read_text().split()
    ['image,bpp', "'@a,-1.5", 'b,2.0']
    """
    texts = [name for name in frame.columns if frame[name].map(lambda value: isinstance(value, str)).any()]
    made = {name: frame[name].map(lambda value: cell(value) if isinstance(value, str) else value) for name in texts}
    # Python's writer leaves a carriage return bare, where readers see the end of a line.
    bare = any("\r" in value for column in made.values() for value in column if isinstance(value, str))
    path.unlink(missing_ok=True)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    frame.assign(**made).to_csv(path, index=False, quoting=quoting)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "\n" not in text and "\r" not in text and "\t" not in text
