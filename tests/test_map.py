"""docs/design.md has a line for every folder and file, which is the first line of its docstring.

``python tests/test_map.py`` writes them again.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- files: python tests/test_map.py -->", "<!-- end of files -->"


def first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    sentence = " ".join(text.partition("\n\n")[0].split())
    return re.sub(r"``(.*?)``", r"`\1`", sentence).replace("|", "\\|")


def lines() -> str:
    package = ROOT / "rdpbench"
    folders = sorted({path.parent for path in package.rglob("*.py")})
    out = []
    for folder in folders:
        name = folder.relative_to(ROOT).as_posix()
        out += ["", f"**`{name}/`** - {first_line(folder / '__init__.py')}", "", "| file | is |", "| --- | --- |"]
        files = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("__")]
        out += [f"| `{path.name}` | {first_line(path)} |" for path in files]
    return "\n".join(out)


def written() -> str:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{lines()}\n\n{END}{rest.partition(END)[2]}"


def test_the_map_has_a_line_for_every_file() -> None:
    missing = [line for line in written().splitlines() if line not in PAGE.read_text().splitlines()]
    assert not missing, "docs/design.md lacks these lines; run python tests/test_map.py"
    assert len(PAGE.read_text()) == len(written()), "docs/design.md has lines of no file; run python tests/test_map.py"


@pytest.mark.parametrize("folder", ["benchmarks", "training"])
def test_scripts_beside_the_package_import_what_there_is(folder: str) -> None:
    """A module that moved is not missed by scripts that only slow tests start."""
    for path in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rdpbench":
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    known = hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
                    assert known, f"{path.name}:{node.lineno} imports {alias.name} from {node.module}"


if __name__ == "__main__":
    PAGE.write_text(written())
