"""How long the report takes: building it for 10 codecs x 8 rates x the images of a folder, and its first view.

    python benchmarks/report.py FOLDER [--keep] [--images matched|all] [--work FOLDER]

The store is real: every image is coded by ten codecs at eight rates, scored with PSNR, and stored; this takes minutes,
once if --work keeps it. With --keep the run keeps its reconstructions as PNG; without, the report decodes bitstreams
again. Then the report is built in a fresh process into an empty folder, with the peak of all its processes' memory; and
headless Chromium opens it from the disk, each time with a new profile, until the first curves are drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODECS = {
    "jpeg,jpeg-444,mozjpeg,mozjpeg-444,webp,avif,avif-420,jpeg2000,jpegxl": "points=8",
    "hevc": "rate=22,26,30,34,38,42,46,51",
}
FIRST_VIEW = "return document.documentElement.dataset.drawn === 'yes'"


def rdpbench(*words: str, cwd: Path) -> str:
    """Run a command of rdpbench; its output."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "rdpbench", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"rdpbench {' '.join(words)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def make_store(images: Path, work: Path, *, keep: bool) -> Path:
    """A run of ten curves; what is there is not coded again."""
    for codec, rates in CODECS.items():
        words = [f"codec={codec}", f"data=folder:{images}", rates, "metrics=psnr", "run=bench"]
        rdpbench("run", *words, "verify=0", "figures=false", f"keep={'all' if keep else 'none'}", cwd=work)
    return work / "results/runs/bench"


def build(work: Path, images: str) -> tuple[float, float, Path]:
    """Seconds, the most memory of all its processes together in MB, and the folder."""
    out = work / f"report-{images}"
    if out.exists():
        shutil.rmtree(out)
    root = Path(__file__).parents[1]
    words = [sys.executable, "-m", "rdpbench", "report", "bench", "--images", images, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    started = time.perf_counter()
    process = subprocess.Popen(words, cwd=work, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    most = 0.0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{' '.join(words)}: exit code {process.returncode}")
    return time.perf_counter() - started, most, out


def memory(session: int) -> float:
    """Resident MB of a session's processes, each with what it shares with others."""
    pages = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            pages += int(fields[21]) if int(fields[3]) == session else 0
    return pages * resource.getpagesize() / 1e6


def first_view(site: Path, times: int) -> list[float]:
    """Seconds from the address to drawn curves, each in a new browser."""
    from selenium import webdriver

    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as profile:
            options = webdriver.ChromeOptions()
            options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
            for word in ("--headless=new", "--window-size=1400,900", "--disable-dev-shm-usage", "--no-first-run"):
                options.add_argument(word)
            options.add_argument(f"--user-data-dir={profile}")
            if os.geteuid() == 0:
                options.add_argument("--no-sandbox")
            service = webdriver.ChromeService(shutil.which("chromedriver"))
            browser = webdriver.Chrome(options=options, service=service)
            try:
                started = time.perf_counter()
                browser.get(site.joinpath("index.html").as_uri())
                while not browser.execute_script(FIRST_VIEW):
                    time.sleep(0.005)
                found.append(time.perf_counter() - started)
            finally:
                browser.quit()
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images, such as the 24 of Kodak")
    parser.add_argument("--keep", action="store_true", help="the run keeps its reconstructions")
    parser.add_argument("--images", nargs="+", default=["matched", "all"], choices=["none", "matched", "all"])
    parser.add_argument("--work", type=Path, help="where the store is kept for another time")
    parser.add_argument("--times", type=int, default=5, help="browsers that open it")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        print(f"coding (kept: {options.keep})")
        make_store(options.folder.resolve(), work.resolve(), keep=options.keep)
        for images in options.images:
            seconds, peak, out = build(work.resolve(), images)
            pictures = [path for name in ("images", "thumbs") for path in (out / name).rglob("*.*")]
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
            made = f"{len(pictures) // 2} images, {size:.0f} MB on disk"
            print(f"--images {images}: {seconds:.1f} s, {made}, {peak:.0f} MB in memory at most", flush=True)
            views = first_view(out, options.times)
            print(f"  first view: {statistics.median(views):.2f} s (median of {len(views)}; worst {max(views):.2f})")


if __name__ == "__main__":
    main()
