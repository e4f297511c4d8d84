"""Names to classes: what ships, files of one's own, installed packages, and what is said when there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rdpbench import registry
from rdpbench.errors import ConfigError, UnknownName

CODEC = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    strength: int = {default}
"""


@pytest.mark.parametrize("kind", ["codec", "dataset", "metric"])
def test_everything_that_ships_loads(kind: registry.Kind) -> None:
    for name in registry.BUILTIN[kind]:
        assert isinstance(registry.load(kind, name), type)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown codec 'webpp': did you mean 'webp'\?") as caught:
        registry.load("codec", "webpp")
    assert "codecs that exist: avif" in str(caught.value)
    assert "codec=./my_codec.py:MyClass" in str(caught.value)
    with pytest.raises(UnknownName, match=r"unknown metric 'msssim': did you mean 'ms-ssim'\?"):
        registry.load("metric", "msssim")


def test_nothing_like_it_suggests_nothing() -> None:
    with pytest.raises(UnknownName) as caught:
        registry.load("dataset", "zzzzz")
    assert "did you mean" not in str(caught.value)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CODEC.format(default=3))
    loaded = registry.load("codec", f"{path}:Mine")
    assert loaded().strength == 3
    assert registry.load("codec", f"{path}:Mine") is loaded


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        path = tmp_path / str(number) / "codec.py"
        path.parent.mkdir()
        path.write_text(CODEC.format(default=number))
        found.append(registry.load("codec", f"{path}:Mine")().strength)
    assert found == [1, 2]


def test_the_source_of_ones_own_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CODEC.format(default=3))
    first = registry.source_sha256("codec", f"{path}:Mine")
    path.write_text(CODEC.format(default=4))
    assert registry.source_sha256("codec", f"{path}:Mine") != first
    assert registry.source_sha256("codec", "jpeg") == ""
    assert len(registry.source_sha256("codec", "rdpbench.codecs.jpeg:JPEG")) == 64


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("./gone.py:Mine", "no such file"),
        ("no_such_module:Mine", "cannot import 'no_such_module'"),
        (":Mine", "cannot import ''"),
        (".relative:Mine", "cannot import '.relative'"),
        ("rdpbench.codecs.jpeg:Jpeg", "unknown class 'Jpeg': did you mean 'JPEG'"),
    ],
)
def test_what_cannot_be_loaded_is_named(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.load("codec", reference)


@pytest.mark.parametrize("text", ["this is no Python", "raise RuntimeError('at import')", "import no_such_module"])
def test_a_file_that_breaks_is_quoted_and_forgotten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine.py cannot be loaded: (SyntaxError|RuntimeError|ModuleNotFoundError)"):
        registry.load("codec", f"{path}:Mine")
    path.write_text(CODEC.format(default=5))
    assert registry.load("codec", f"{path}:Mine")().strength == 5


def test_a_broken_entry_point_is_a_message_not_a_crash(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rdpbench.codecs]\nbroken = broken_package:Codec\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from rdpbench import registry, errors\n"
        "assert 'broken' in registry.names('codec')\n"
        "try: registry.load('codec', 'broken')\n"
        "except errors.ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot import 'broken_package', named by entry point 'broken' of an installed package" in done.stdout
