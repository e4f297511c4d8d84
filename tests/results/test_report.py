"""The report through the command: one file with the numbers of the summary, escaped, and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.cli import main
from rdpbench.results.report import _key

QUICK = ("workers=0", "verify=0", "figures=false")
HOSTILE = "<td><script>alert(1)<img src=x onerror=alert(2)>&amp;"


class Page(HTMLParser):
    """What a browser would make of it: elements, the tables' cells, and every address."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in ("td", "th"):
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("tr", "table")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data.rstrip("\n")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of two codecs on images of hostile names, one of which a metric refuses."""
    home = tmp_path_factory.mktemp("report")
    (home / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("plain", (200, 180)), (HOSTILE, (200, 180)), ("small", (24, 20))):
        coarse = pil.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        coarse.resize(size, pil.Resampling.BICUBIC).save(home / f"pictures/{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("RDPBENCH_CACHE", str(home / "cache"))
        words = ["codec=jpeg,webp", "data=folder:pictures", "rate=20,80", "metrics=psnr,ms-ssim"]
        assert main(["run", *words, *QUICK]) == 0
        assert main(["report", "folder-pictures"]) == 0
    return Page(home / "results/runs/folder-pictures/report.html")


def test_it_has_the_numbers_of_the_summary(page: Page) -> None:
    summary = page.path.with_name("tables").joinpath("summary.md").read_text()
    rows = [line.strip("| \n").split(" | ") for line in summary.splitlines() if line.startswith("|")]
    wanted = [cell.replace("**", "").replace("\\_", "_") for row in rows for cell in row if "---" not in cell]
    wanted = [re.sub(r"</?u>", "", cell) for cell in wanted]
    assert len(wanted) > 4 * 5
    assert [cell for cell in wanted if cell not in page.cells] == []
    assert "psnr dB ↑" in page.cells
    assert "rdpbench run codec=jpeg,webp data=folder:pictures rate=20,80 metrics=psnr,ms-ssim" in unescape(page.source)
    assert page.tags.count("svg") == 2


def test_names_of_files_are_text(page: Page) -> None:
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert" not in page.source
    # MS-SSIM refuses the small image: what failed names it.
    assert "small" in page.cells
    assert "ms-ssim" in page.cells


def test_hostile_text_is_escaped_everywhere(
    here: Callable[..., int], images: Callable[..., Path], tmp_path: Path
) -> None:
    """A folder's name becomes the title; an error and an image's name become cells."""
    name = "x<img src=y onerror=alert(3)>-->"
    folder = images(2, name=name, size=(20, 24))
    (folder / "image01.png").rename(folder / f"{HOSTILE}.png")
    assert here("run", "codec=jpeg", f"data=folder:{name}", "rate=50", "metrics=ms-ssim", *QUICK) in (0, 1)
    assert here("report", f"folder-{name}") == 0
    page = Page(tmp_path / "results/runs" / f"folder-{name}" / "report.html")
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert f"folder-{name}" in unescape(page.source)
    assert HOSTILE in page.cells


def test_it_needs_nothing_from_elsewhere(page: Page) -> None:
    addresses = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert addresses
    assert all(value.startswith("#") for value in addresses)
    assert "url(http" not in page.source
    assert "@import" not in page.source
    assert "link" not in page.tags
    script = re.search(r"<script>(.*?)</script>", page.source, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policies = [value for name, value in page.attributes if name == "content" and "default-src" in value]
    assert policies == [f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]


def test_ids_that_are_used_exist(page: Page) -> None:
    """Figures share one document: what one refers to must be there."""
    ids = {value for name, value in page.attributes if name == "id"}
    used = {value[1:] for name, value in page.attributes if name == "xlink:href"}
    used |= set(re.findall(r"url\(#([^)]+)\)", page.source))
    assert used
    assert used <= ids


def test_the_same_run_gives_the_same_bytes(page: Page, here: Callable[..., int]) -> None:
    assert here("report", str(page.path.parent)) == 0
    assert page.path.read_text(encoding="utf-8") == page.source


def test_failed_tasks_and_broken_provenance_are_told(
    here: Callable[..., int], images: Callable[..., Path], tmp_path: Path
) -> None:
    images(2)
    (tmp_path / "bad.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from rdpbench import Bitstream, Rate\n"
        "@dataclass(frozen=True)\n"
        "class Bad:\n"
        "    step: int = 1\n"
        "    rate: ClassVar[Rate] = Rate('step', 1, 9, points=(1, 2))\n"
        "    def encode(self, image, side):\n"
        "        raise RuntimeError('<b>no</b> & never')\n"
        "    def decode(self, data):\n"
        "        return data\n"
    )
    assert here("run", "codec=jpeg,./bad.py:Bad", "data=folder:pictures", "metrics=psnr", "points=2", *QUICK) == 1
    for path in (tmp_path / "results/runs/folder-pictures/sessions").iterdir():
        path.write_text("{")
    assert here("report", "folder-pictures") == 0
    page = Page(tmp_path / "results/runs/folder-pictures/report.html")
    assert sum("<b>no</b> & never" in cell for cell in page.cells) == 4
    assert "Failed or out of range: 4." in page.source
    assert "provenance" in page.source
    assert "cannot be read" in page.source


def test_a_run_that_is_not_there(rdpbench: Any) -> None:
    assert "unknown run 'nothing'" in rdpbench("report", "nothing", code=2).stderr


@pytest.mark.parametrize(
    ("text", "key"), [("-3.5", "-3.5"), ("target 0.25 bpp", "0.25"), ("11*", "11"), ("–", ""), ("1e-05", "1e-05")]
)
def test_cells_are_sorted_by_their_number(text: str, key: str) -> None:
    assert _key(text) == key
