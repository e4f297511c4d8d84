"""Names to classes: what ships, files of one's own, installed packages, and what is said when there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rdpbench import registry
from rdpbench.config.bench import read_bench
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.results.store.keys import build, codec_identity, definition, features_key, forget

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
    assert len(registry.source_sha256("codec", "rdpbench.codecs.classical.pillow:JPEG")) == 64


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("./gone.py:Mine", "no such file"),
        ("no_such_module:Mine", "cannot import 'no_such_module'"),
        (":Mine", "cannot import ''"),
        (".relative:Mine", "cannot import '.relative'"),
        ("rdpbench.codecs.classical.pillow:Jpeg", "unknown class 'Jpeg': did you mean 'JPEG'"),
    ],
)
def test_what_cannot_be_loaded_is_named(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.load("codec", reference)


@pytest.mark.parametrize("text", ["this is no Python", "raise RuntimeError('at import')", "import no_such_module"])
def test_a_file_that_breaks_is_quoted_and_forgotten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine.py cannot be loaded: (SyntaxError|RuntimeError|it imports)"):
        registry.load("codec", f"{path}:Mine")
    path.write_text(CODEC.format(default=5))
    assert registry.load("codec", f"{path}:Mine")().strength == 5


def test_a_module_that_is_missing_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import no_such_module.inner")
    with pytest.raises(ConfigError) as caught:
        registry.load("codec", f"{tmp_path}/mine.py:Mine")
    said = str(caught.value)
    assert f"it imports 'no_such_module', and there is no such module in {tmp_path}" in said
    assert sys.executable in said
    assert "python=~/envs/mine/bin/python" in said
    with pytest.raises(ConfigError, match=r"no such file: .*/mime\.py, .*; did you mean .*/mine\.py\?"):
        registry.load("codec", f"{tmp_path}/mime.py:Mine")


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


FILES = {
    "early.py": "VALUE = 1\n",
    "late.py": "VALUE = 2\n",
    "pack/__init__.py": "from . import inner\nfrom .deep import *\n",
    "pack/inner.py": "from ..pack.deep.leaf import VALUE\n",
    "pack/deep/__init__.py": "__all__ = ['starred', 'leaf']\n",
    "pack/deep/leaf.py": "VALUE = 3\n",
    "pack/deep/starred.py": "VALUE = 4\n",
    "space/module.py": "VALUE = 5\n",
    "named.py": "VALUE = 6\n",
    "typed.py": "import early, json as early_json\nVALUE = early.VALUE\n",
}
MINE = """
import importlib
import json, numpy
import early
import pack.inner as inner
from space import module
class Mine:
    def values(self):
        import late
        from pack.deep import starred
        named = importlib.import_module("named")
        typed = __import__("typed")
        return [early.VALUE, late.VALUE, inner.VALUE, starred.VALUE, module.VALUE, named.VALUE, typed.VALUE]
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_a_file_imports_from_its_folder_is_imported_and_hashed(tmp_path: Path) -> None:
    write(tmp_path, {**FILES, "mine.py": MINE, "unused.py": "", "json.txt": ""})
    reference = f"{tmp_path}/mine.py:Mine"
    first = registry.source_sha256("codec", reference)
    assert registry.load("codec", reference)().values() == [1, 2, 3, 4, 5, 6, 1]
    assert registry.source_now("codec", reference) == first
    for name in FILES:
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(before + "# another line\n")
        assert registry.source_now("codec", reference) != first, name
        (tmp_path / name).write_text(before)
    (tmp_path / "unused.py").write_text("VALUE = 7")
    assert registry.source_now("codec", reference) == first
    # Of the same size, in the same second: no .pyc is believed, and late imports are of the state that was hashed.
    (tmp_path / "late.py").write_text("VALUE = 8\n")
    assert registry.load("codec", reference)().values()[1] == 2
    assert registry.source_sha256("codec", reference) == registry.source_now("codec", reference) != first
    assert registry.load("codec", reference)().values()[1] == 8
    (tmp_path / "mine.py").unlink()
    assert registry.source_now("codec", reference) == ""


def test_the_source_is_read_without_executing_it(tmp_path: Path) -> None:
    write(tmp_path, {"mine.py": "import helper\nraise SystemExit\n", "helper.py": "raise SystemExit\n"})
    (tmp_path / "pack").mkdir()
    write(tmp_path / "pack", {"__init__.py": "raise SystemExit\n", "codec.py": "from . import __init__, gone\n"})
    assert len(registry.source_now("codec", f"{tmp_path}/mine.py:Mine")) == 64
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from rdpbench import registry\n"
        "print(registry.source_now('codec', 'pack.codec:Mine'), registry.source_now('codec', 'no_such:Mine'))\n"
        "assert 'pack' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(done.stdout.strip()) == 64


def test_folders_do_not_get_modules_of_one_another(tmp_path: Path) -> None:
    text = "import helper\nclass Mine:\n    def value(self):\n        import later.part as part\n"
    text += "        return helper.VALUE, part.VALUE, helper.pickled()\n"
    helper = "import pickle\nVALUE = {0}\nclass Net:\n    value = {0}\n"
    helper += "def pickled():\n    return pickle.loads(b'chelper\\nNet\\n.').value\n"
    classes = []
    for number in (1, 2):
        files = {"mine.py": text, "helper.py": helper.format(number), "later/part.py": f"VALUE = {number}\n"}
        write(tmp_path / str(number), files)
        classes.append(registry.load("codec", f"{tmp_path}/{number}/mine.py:Mine"))
    values = [registry.load("codec", f"{tmp_path}/{number}/mine.py:Mine")().value() for number in (1, 2, 1)]
    assert values == [(1, 1, 1), (2, 2, 2), (1, 1, 1)]
    assert [cls().value()[:2] for cls in classes] == [(1, 1), (2, 2)]


def test_relative_imports_of_a_file_in_a_package(tmp_path: Path) -> None:
    files = {
        "mypack/__init__.py": "from .top import START\n",
        "mypack/top.py": "START = 1\n",
        "mypack/codecs/__init__.py": "",
        "mypack/codecs/mine.py": "from ..top import START\nfrom . import near\nimport near as same\n"
        "from mypack.top import START as whole\nclass Mine:\n    value = START + near.VALUE, same is near, whole\n",
        "mypack/codecs/near.py": "VALUE = 1\n",
        "beside/mine.py": "from .near import VALUE\nclass Mine:\n    value = VALUE\n",
        "beside/near.py": "VALUE = 9\n",
    }
    write(tmp_path, files)
    reference = f"{tmp_path}/mypack/codecs/mine.py:Mine"
    assert registry.load("codec", reference).value == (2, True, 1)  # type: ignore[attr-defined]
    assert registry.load("codec", f"{tmp_path}/beside/mine.py:Mine").value == 9  # type: ignore[attr-defined]
    first = registry.source_now("codec", reference)
    for name in ("__init__", "top", "codecs/__init__", "codecs/near"):
        before = (tmp_path / f"mypack/{name}.py").read_text()
        (tmp_path / f"mypack/{name}.py").write_text(before + "#\n")
        assert registry.source_now("codec", reference) != first, name
        (tmp_path / f"mypack/{name}.py").write_text(before)


def test_names_of_installed_packages_and_of_pythons_core_are_theirs(tmp_path: Path) -> None:
    """A folder of data called numpy is no package, a file utils.py is; ours is never another's."""
    files = {
        "numpy/a.txt": "",
        "sys.py": "raise OSError",
        "os.py": "raise OSError",
        "rdpbench/__init__.py": "raise OSError",
    }
    text = "import numpy, sys, os, rdpbench, statistics\nfrom rdpbench import Bitstream\nclass Mine:\n"
    text += "    value = numpy.float32(1), os.sep, statistics.VALUE\n"
    write(tmp_path, {**files, "mine.py": text, "statistics.py": "VALUE = 2"})
    reference = f"{tmp_path}/mine.py:Mine"
    assert registry.load("codec", reference).value == (1, "/", 2)  # type: ignore[attr-defined]
    import statistics

    assert statistics.mean([1, 3]) == 2
    first = registry.source_now("codec", reference)
    (tmp_path / "rdpbench/__init__.py").write_text("another")
    assert registry.source_now("codec", reference) == first


def test_a_file_alone_keeps_its_hash_and_a_folder_may_move(tmp_path: Path) -> None:
    """The key of a codec in one file is what it was before imports were followed."""
    import hashlib

    (tmp_path / "mine.py").write_text(CODEC.format(default=3))
    alone = registry.source_now("codec", f"{tmp_path}/mine.py:Mine")
    assert alone == hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    hashes = set()
    for name in ("one", "other"):
        write(tmp_path / name, {**FILES, "mine.py": MINE})
        hashes.add(registry.source_now("codec", f"{tmp_path}/{name}/mine.py:Mine"))
    assert len(hashes) == 1


def test_what_an_installed_package_imports_of_its_own_is_hashed(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    write(
        site,
        {
            "mine/__init__.py": "from .codec import Mine\n",
            "mine/codec.py": "import helper, other, numpy\nclass Mine: ...\n",
        },
    )
    write(site, {"helper.py": "", "other.py": ""})
    for name, tops in (("mine", "mine\nhelper\n"), ("other", "other\n")):
        write(
            site / f"{name}-1.dist-info",
            {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", "top_level.txt": tops},
        )
    write(site / "mine-1.dist-info", {"entry_points.txt": "[rdpbench.codecs]\nmine = mine:Mine\n"})
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from rdpbench import registry\n"
        "now = registry.source_now('codec', 'mine')\n"
        "assert registry.source_sha256('codec', 'mine') == now and len(now) == 64\n"
        "print(now)\n"
    )

    def now() -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    first = now()
    (site / "other.py").write_text("another = 1\n")
    assert now() == first
    for name in ("helper", "mine/codec", "mine/__init__"):
        with (site / f"{name}.py").open("a") as file:
            file.write("# more\n")
        first, before = now(), first
        assert first != before, name


FIELDS = {
    "path": ("from pathlib import Path", "Path", "Path('w.bin')"),
    "optional": ("from pathlib import Path\nfrom typing import Optional", "Optional[Path]", "Path('w.bin')"),
    "text": ("from __future__ import annotations\nfrom pathlib import Path", "Path | None", "Path('w.bin')"),
    "renamed": ("from __future__ import annotations\nfrom pathlib import Path as P", "P", "P('w.bin')"),
    "unimported": ("from __future__ import annotations\nimport pathlib as p", "Path", "p.Path('w.bin')"),
    "tuple": ("from pathlib import Path", "tuple[Path, ...]", "(Path('v.bin'), Path('w.bin'))"),
    "list": (
        "from pathlib import Path\nfrom dataclasses import field",
        "list[Path]",
        "field(default_factory=lambda: [Path('w.bin')])",
    ),
    "folder": ("from pathlib import Path", "Path", "Path('inner')"),
    "or text": ("from pathlib import Path", "str | Path", "'w.bin'"),
    "any": ("from pathlib import Path", "object", "Path('w.bin')"),
}


@pytest.mark.parametrize("how", FIELDS)
def test_fields_of_type_path_are_in_the_key_by_content(tmp_path: Path, monkeypatch: Any, how: str) -> None:
    """However they are declared, and though nothing that Python sees opens them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    imports, hint, default = FIELDS[how]
    body = (
        f"from dataclasses import dataclass\n@dataclass(frozen=True)\nclass MyCodec:\n    weights: {hint} = {default}\n"
    )
    body += "    def encode(self, image, side): ...\n    def decode(self, data): ...\n"
    (tmp_path / "mine.py").write_text(f"{imports}\n{body}")
    for name in ("v.bin", "w.bin", "inner/w.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def key(*typed: str) -> str:
        bench = read_bench(["codec=./mine.py:MyCodec", "data=samples", *typed])
        forget()
        return codec_identity(bench.grid[0][0])

    first = key()
    assert key() == first
    assert str(tmp_path) not in first
    for name in ("w.bin", "inner/w.bin"):
        (tmp_path / name).write_text("another")
    assert key() != first
    if how in ("path", "optional", "text", "renamed", "or text"):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/moved.bin").write_text("w.bin")
        assert key("codec.options.weights=deep/moved.bin") == first
        (tmp_path / "deep/moved.bin").write_text("another")
        assert key(f"codec.options.weights={tmp_path}/deep/moved.bin") == key()
        setting = read_bench(["codec=./mine.py:MyCodec", "data=samples", "codec.options.weights=deep/moved.bin"]).grid[
            0
        ][0]
        assert str(build(setting, None).weights) == f"{tmp_path}/deep/moved.bin"  # type: ignore[attr-defined]
        monkeypatch.chdir(tmp_path / "deep")  # a row is decoded wherever one is
        assert str(build(setting, None).weights) == f"{tmp_path}/deep/moved.bin"  # type: ignore[attr-defined]


def test_a_metric_of_ones_own_is_what_it_imports_and_has_as_fields(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\nimport helper\n"
        "@dataclass\nclass Field:\n    weights: Path = Path('w.bin')\n"
        "class Attribute:\n    weights = Path('w.bin')\n"
        "class Features:\n    id = 'mine'\n    version = '1'\n"
    )
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    (tmp_path / "w.bin").write_text("one")

    def keys() -> tuple[str, ...]:
        registry.forget()
        forget()
        features = features_key(registry.load("metric", "./own.py:Features"))
        return definition("./own.py:Field"), definition("./own.py:Attribute"), features

    first = keys()
    assert keys() == first
    (tmp_path / "w.bin").write_text("two")
    second = keys()
    assert [old == new for old, new in zip(first, second, strict=True)] == [False, False, True]
    (tmp_path / "helper.py").write_text("VALUE = 2\n")
    assert not {*second} & {*keys()}
