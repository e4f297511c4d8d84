"""A run with names that are HTML, two sets of images and something that failed, and the report of it."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.cli import main
from rdpbench.report import command
from rdpbench.report.command import Decoding
from rdpbench.results.store.schema import SCHEMA_VERSION
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import decode_row

HOSTILE = "<td><script>alert(1)<img src=x onerror=alert(2)>&amp;"
CODEC = "jpeg<img src=x onerror=alert(3)>"
CAPTION = "</script><script>alert(4)</script>\u2028 a \"caption\" 'of' it"
PROMPT = "</script><img src=x onerror=alert(5)> a 'prompt'\u2028\nin two lines"
QUICK = ("workers=0", "verify=0", "figures=false")


def picture(path: Path, size: tuple[int, int], seed: int) -> None:
    """Coarse colours with fine noise: rates differ between codecs and settings."""
    rng = np.random.default_rng(seed)
    coarse = pil.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(size, pil.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-12, 13, (size[1], size[0], 3))
    pil.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder; not to be written to."""
    home = tmp_path_factory.mktemp("report")
    for folder, names in (("pictures", ("plain", HOSTILE, "third", "small")), ("more", ("one", "two"))):
        (home / folder).mkdir()
        for number, name in enumerate(names):
            size = (24, 20) if name == "small" else (208, 184)
            picture(home / folder / f"{name}.png", size, seed=len(folder) + number)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("RDPBENCH_CACHE", str(home / "cache"))
        # MS-SSIM refuses the small image: what failed is never empty.
        words = ["codec=jpeg,webp,jpeg2000", "data=folder:pictures,folder:more", "points=4", "metrics=psnr,ms-ssim"]
        assert main(["run", *words, "run=both", *QUICK]) == 0
    folder = home / "results/runs/both"
    add_hostile(Store(folder))
    return folder


TOLD = {"info": json.dumps({"prompt": PROMPT, HOSTILE: "0.5"}), "command": "paint <b>"}
"""What that codec told of each image."""


def add_hostile(store: Store) -> None:
    """A codec whose label is HTML, with captions, and a failure of it."""
    contents = store.read()
    lines: list[dict[str, Any]] = []
    for row in [row for row in contents.rows.values() if row.codec == "jpeg" and row.dataset == "folder-pictures"]:
        key = hashlib.sha256(row.task_key.encode()).hexdigest()
        scores = [one for one in contents.scores.values() if one.task_key == row.task_key]
        lines.append(
            {
                "v": SCHEMA_VERSION,
                "row": vars(replace(row, codec=CODEC, task_key=key, caption=CAPTION, **TOLD)),
                "scores": [{**vars(one), "task_key": key, "score_key": f"{key}{one.metric}"} for one in scores],
            }
        )
    failed = {**lines[0]["row"], "status": "error", "error": HOSTILE, "image": "lost", "task_key": "f" * 64}
    lines.append({"v": SCHEMA_VERSION, "row": failed})
    (store.parts / "zz-hostile.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture(scope="session")
def hostile() -> dict[str, str]:
    """Names that would be HTML, if they were not text."""
    return {"image": HOSTILE, "codec": CODEC, "caption": CAPTION, "prompt": PROMPT}


Report = Callable[..., Path]


@pytest.fixture(scope="session")
def make_report() -> Report:
    """``make_report(run, "--images", "all")``: as the command does it; returns the folder."""
    if importlib.util.find_spec("plotly") is None:
        pytest.skip("no plotly: pip install 'rdpbench[report]'")

    def make(*arguments: object, how: Decoding | None = None) -> Path:
        parser = argparse.ArgumentParser()
        parser.add_argument("name")
        parser.add_argument("--root", default="results/runs")
        command.add_arguments(parser)
        options = parser.parse_args([str(one) for one in arguments])
        said: list[str] = []
        stores = [Store(Path(name)) for name in (options.name, *options.also)]
        assert command.report_command(options, stores, how or Decoding(decode_row), said.append) == 0
        return Path(said[-1]).parent

    return make


@pytest.fixture(scope="session")
def site(made: Path, make_report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the run with all images; not to be written to."""
    return make_report(made, "--images", "all", "--out", tmp_path_factory.mktemp("site") / "report")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "both"))


def read_data(site: Path, name: str) -> Any:
    """What a data file hands over."""
    text = (site / "data" / f"{name}.js").read_text(encoding="ascii")
    head = f'rdpbench.put("{name}",'
    assert text.startswith(head)
    assert text.endswith(");\n")
    return json.loads(text[len(head) : -3])


@pytest.fixture(scope="session")
def data(site: Path) -> Callable[[str], Any]:
    """``data("report")`` of the report with all images."""
    return lambda name: read_data(site, name)


WAIT = 30
"""Seconds that a busy machine may take."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser; one for all tests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is not installed")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in ("--headless=new", "--window-size=1400,900", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(word)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """The report as a reader has it."""

    def __init__(self, browser: Any, site: Path) -> None:
        self.browser = browser
        self.address = site.joinpath("index.html").as_uri()

    def open(self, state: str = "") -> None:
        """Open the report at a state, as a link does."""
        self.browser.get("about:blank")
        self.browser.get(f"{self.address}#{state}")
        self.until(lambda: self.js("return document.documentElement.dataset.ready === 'yes'"))

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        self.until(lambda: self.all(selector))
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def press(self, *keys: str) -> None:
        self.mouse().send_keys(*keys).perform()

    def mouse(self) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.browser, duration=50)

    def until(self, true: Callable[[], Any]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, WAIT, poll_frequency=0.05).until(lambda _: true())

    @property
    def state(self) -> dict[str, str]:
        """What the address says."""
        parts = self.js("return location.hash").lstrip("#").split("&")
        return dict(part.split("=", 1) for part in parts if "=" in part)

    def column(self, number: int) -> list[str]:
        """The table's visible lines, one column of them."""
        rows = "[...document.querySelectorAll('.grid tbody tr[data-key]')]"
        script = f"return {rows}.map((row) => row.cells[arguments[0]].innerText)"
        found: list[str] = self.js(script, number)
        return found

    def points(self, metric: str, codec: str) -> list[Any]:
        """The drawn markers of one codec in the first panel of a metric that has it, as elements."""
        script = """
            const of = (trace) => rdpbench.points.get(trace.customdata?.[0])?.curve.codec;
            for (const plot of document.querySelectorAll(`.panel[data-metric="${arguments[0]}"] .plot`)) {
                const number = (plot._fullData ?? []).findIndex((trace) => of(trace) === arguments[1]);
                const drawn = plot.querySelectorAll(".scatterlayer .trace");
                if (number >= 0 && drawn.length > number) return [...drawn[number].querySelectorAll(".points path")];
            }
            return [];
        """
        self.until(lambda: self.js(script, metric, codec))
        found: list[Any] = self.js(script, metric, codec)
        return found


@pytest.fixture
def page(chromium: Any, site: Path) -> Iterator[Page]:
    """The report, anew for each test; nothing may have been said on the console in the end."""
    page = Page(chromium, site)
    chromium.set_window_size(1400, 900)
    page.open()
    yield page
    page.js("localStorage.clear()")
    assert chromium.get_log("browser") == []
    assert page.js("return window.alerted") is None
