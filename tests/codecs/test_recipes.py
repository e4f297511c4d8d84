"""Recipes: short, read by the loader, and their classes written for the oldest Python that hosts them."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import cli
from rdpbench.codecs.external import declared
from rdpbench.config.listing import listing
from rdpbench.results.store.store import Store

FOLDER = Path(__file__).parents[2] / "conf" / "codec" / "recipe"
RECIPES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_short_declaration_beside_a_short_class(path: Path) -> None:
    declaration = declared.read(path)
    assert declaration.title
    assert declaration.paper.startswith("https://")
    assert not declaration.python
    assert not declaration.source, "whoever runs it says where these are"
    assert len(path.read_text().splitlines()) <= 40
    where, _, name = declaration.use.rpartition(":")
    text = (path.parent / where).read_text()
    assert len(text.splitlines()) <= 60
    tree = ast.parse(text, feature_version=(3, 8))
    [cls] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    methods = {node.name: node.args for node in cls.body if isinstance(node, ast.FunctionDef)}
    assert {"encode", "decode"} <= set(methods)
    taken = {argument.arg for argument in methods["__init__"].args}
    named = {*declaration.options, declaration.rate_field} - {""}
    assert {"device", *named} <= taken, "options and the rate are keyword arguments of the class"


def test_every_class_of_the_folder_has_its_recipe_and_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {path.stem for path in RECIPES}
    lines = listing("recipes")
    assert [line.split()[0] for line in lines] == [f"recipe/{path.stem}" for path in RECIPES]
    assert all("Needs " in line for line in lines)


CLASS = """
import zlib
import numpy as np

class Official:
    def __init__(self, checkpoint, strength=None, device="cpu"):  # as most have it: weights are needed
        with open(checkpoint) as file:
            self.step = int(file.read())

    def encode(self, image, side):
        return bytes(image.shape[:2]) + zlib.compress((image // self.step).tobytes())

    def decode(self, data):
        return np.frombuffer(zlib.decompress(data[2:]), "u1").reshape(data[0], data[1], 3) * np.uint8(self.step)
"""


def test_a_file_for_each_rate_is_a_curve_and_one_file_is_one_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pil.fromarray(pixels).save("images/first.png")
    Path("net.py").write_text(CLASS)
    Path("net.yaml").write_text(
        "name: net\nuse: ./net.py:Official\noptions: {checkpoint: 'net_{strength}.pt'}\n"
        "rate_field: strength\nrates: [2, 4]\nrises: false\n"
    )
    (tmp_path / "weights").mkdir()
    for strength in (2, 4):
        Path("weights", f"net_{strength}.pt").write_text(str(8 * strength))
    shutil.copy("weights/net_4.pt", "weights/mine.pt")
    words = ("codec=./net.yaml", f"python={sys.executable}", "data=folder:images", "metrics=psnr", "figures=false")
    assert cli.main(["plan", *words]) == 2
    assert "write codec.options.checkpoint=/FOLDER/net_{strength}.pt" in capsys.readouterr().err
    for number, name in enumerate(("net_{strength}.pt", "mine.pt")):
        line = [*words, f"codec.options.checkpoint=weights/{name}", "workers=0", f"run=run{number}"]
        assert cli.main(["run", *line]) == 0
    many, single = (
        list(Store(tmp_path / "results" / "runs" / f"run{number}").read().rows.values()) for number in (0, 1)
    )
    assert sorted(row.rate for row in many) == [2, 4]
    assert [row.rate for row in single] == [None]
    assert single[0].bitstream_sha256 == min(many, key=lambda row: row.bytes).bitstream_sha256
