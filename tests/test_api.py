"""`rdpbench.run`, `rdpbench.score` and `rdpbench.Scorer`: the numbers and refusals of the command line, from Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import RdpbenchError, Scorer, read_results, run, score
from rdpbench.errors import ConfigError, ImageError, MetricError, MissingNeed, UnknownName
from rdpbench.image import read_image, to_uint8
from rdpbench.results.store.calls import original_path
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import decode_row

PAGES = Path(__file__).parents[1] / "docs"
IN_PROCESS: dict[str, Any] = {"workers": 0, "verify": 0, "figures": False}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def pair(height: int = 40, width: int = 48) -> tuple[Any, Any]:
    original = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return original, original // 2 + np.uint8(60)


# Runs


def test_a_run_gives_the_frame_of_its_points_and_stores_what_the_command_stores(images: Any, rdpbench: Any) -> None:
    pictures = images(3)
    asked: dict[str, Any] = {"data": f"folder:{pictures}", "metrics": ["psnr"], **IN_PROCESS}
    frame = run(codec="jpeg,webp", rate=[20, 60], **asked)
    points = list(zip(frame["codec"], frame["rate"], strict=True))
    assert points == [("jpeg", 20), ("jpeg", 60), ("webp", 20), ("webp", 60)]
    assert frame.equals(read_results("folder-pictures"))
    words = ("codec=webp,jpeg", "rate=20,60", f"data=folder:{pictures}", "metrics=psnr", "workers=0", "figures=false")
    assert "nothing to do" in rdpbench("run", *words, code=0).stdout
    # Of this call alone, though more is stored.
    assert list(run("jpeg", rate=60, **asked)["rate"]) == [60]
    assert Path("results/runs/folder-pictures/tables/summary.csv").is_file()


SCRIPT = """
import logging, os, signal, sys, threading
import torch, matplotlib as mpl
from hydra import compose, initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra
from multiprocessing import forkserver
import rdpbench

print("started")
torch.set_num_threads(2)
with initialize_config_dir(CONF, version_base="1.2"):
    def state():
        return {
            "variables": dict(os.environ), "folder": os.getcwd(), "handlers": list(logging.root.handlers),
            "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
            "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()), "threads": torch.get_num_threads(),
            "backend": mpl.get_backend(), "size": mpl.rcParams["font.size"], "hydra": GlobalHydra.instance().hydra,
            "version": version.getbase(), "server": forkserver._forkserver._forkserver_pid,
            "preload": forkserver._forkserver._preload_modules, "tf32": torch.backends.cudnn.allow_tf32,
            "arguments": sys.argv, "stderr": sys.stderr, "random": torch.get_rng_state().sum().item(),
        }
    before = state()
    for workers in (2, 0):
        frame = rdpbench.run("jpeg", "folder:pictures", rate=20 + workers, metrics="psnr", workers=workers)
        print(len(frame), {name for name, value in state().items() if value != before[name]})
    rdpbench.score("pictures/image00.png", "pictures/image01.png", "psnr")
    print({name for name, value in state().items() if value != before[name]}, compose("config").mine)
"""


def test_a_script_needs_no_guard_and_finds_everything_as_it_was(folder: Path, images: Any, environment: Any) -> None:
    images(2)
    (folder / "conf").mkdir()
    (folder / "conf/config.yaml").write_text("mine: 7\n")
    (folder / "script.py").write_text(SCRIPT.replace("CONF", repr(str(folder / "conf"))))
    line = [sys.executable, "script.py"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("started\n1 set()\n1 set()\nset() 7\n", "")


def test_inside_a_worker_of_the_user_no_process_is_started(folder: Path, images: Any, environment: Any) -> None:
    images(1)
    program = (
        "import multiprocessing, rdpbench\n"
        "def go(**more):\n"
        "    try:\n"
        "        print(len(rdpbench.run('jpeg', 'folder:pictures', rate=20, metrics='psnr', **more)), flush=True)\n"
        "    except rdpbench.RdpbenchError as error:\n"
        "        print(error, flush=True)\n"
        "for more in ({}, {'workers': 0, 'verify': 0}):\n"
        "    worker = multiprocessing.get_context('fork').Process(target=go, kwargs=more, daemon=True)\n"
        "    worker.start(); worker.join()\n"
    )
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    refusal = "this process is itself a worker, and may start no others; write workers=0 and verify=0"
    assert (done.stdout, done.stderr) == (f"{refusal}\n1\n", "")


def test_progress_is_shown_if_it_is_wanted(images: Any, capsys: Any) -> None:
    asked: dict[str, Any] = {"data": f"folder:{images(1)}", "metrics": "psnr", **IN_PROCESS}
    run("jpeg", rate=20, **asked)
    assert capsys.readouterr() == ("", "")
    run("jpeg", rate=30, progress=True, **asked)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/1 tasks" in shown.err


def test_failures_are_warned_of_and_counted(folder: Path, images: Any) -> None:
    (folder / "own.py").write_text(
        "from dataclasses import dataclass\nfrom rdpbench import Bitstream\n\n@dataclass(frozen=True)\nclass Broken:\n"
        "    def encode(self, image, side):\n        raise ValueError('not today')\n    def decode(self, data): ...\n"
    )
    with pytest.warns(UserWarning, match="failed: Broken, the only point, image00: ValueError: not today"):
        frame = run("./own.py:Broken", f"folder:{images(1)}", metrics="psnr", **IN_PROCESS)
    assert frame.empty or list(frame["failed"]) == [1]


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"codec": "jpg"}, UnknownName, "did you mean 'jpeg'"),
        ({"codec": "jpeg", "dta": "kodak"}, UnknownName, "unknown setting 'dta': did you mean 'data'"),
        ({"codec": "webp", "codec.options.efort": 3, "data": "samples"}, UnknownName, "unknown option"),
        ({"codec": "jpeg", "data": "samples", "metrics": ["psrn"]}, UnknownName, "did you mean 'psnr'"),
        ({"codec": "jpeg", "data": "samples", "metrics": "psnr,lpips/alex"}, MissingNeed, "alexnet-imagenet"),
        ({"codec": Path}, ConfigError, r'is a class; .* codec="./mine.py:Path"'),
        ({"codec": "jpeg", "data": {"path": "x"}}, ConfigError, "data={'path': 'x'} is a dict"),
        ({"codec": "jpeg", "data": "samples", "limit": 0}, ConfigError, "limit=0 must be a whole number from 1"),
    ],
)
def test_refusals_of_a_run_are_those_of_the_command(settings: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        run(**settings, download=False, **IN_PROCESS)
    assert not Path("results").exists()


# Scores


def test_scores_equal_those_of_a_run_to_the_last_bit(folder: Path, images: Any, monkeypatch: Any) -> None:
    """Also of networks, here with random weights, and of sets."""
    import torch
    from torchvision.models import alexnet, inception_v3

    torch.manual_seed(0)
    trunk, inception = alexnet().state_dict(), inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    monkeypatch.setattr("rdpbench.assets.weights.Weights.missing", lambda self: None)
    monkeypatch.setattr("rdpbench.assets.weights.Weights.identity", property(lambda self: "random"))
    monkeypatch.setattr("rdpbench.metrics.lpips.read_tensors", lambda card: trunk)
    monkeypatch.setattr("rdpbench.metrics.inception_distances.read_tensors", lambda card: inception.state_dict())
    text = (PAGES / "own-metric.md").read_text()
    (folder / "distance.py").write_text(re.findall(r"```python\n# distance\.py\n(.*?)```", text, re.DOTALL)[0])
    metrics = [
        "psnr",
        "psnr-pooled",
        "ms-ssim",
        "ssimulacra2",
        "lpips/alex",
        "fid/clean",
        "./distance.py:ColourDistance",
    ]
    asked: dict[str, Any] = {"metrics": metrics, "allow_unreliable": True, **IN_PROCESS}
    frame = run("jpeg", f"folder:{images(3, size=(170, 180))}", rate=30, **asked)
    measured = dict(zip(frame["metric"], frame["value"], strict=True))

    store = Store(Path("results/runs/folder-pictures"))
    rows = sorted(store.read().rows.values(), key=lambda row: row.image)
    decoded = [decode_row(store, row) for row in rows]
    scorer = Scorer(metrics, allow_unreliable=True)
    torch.set_num_threads(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for row, image in zip(rows, decoded, strict=True):
            scorer.update(original_path(store, row), torch.from_numpy(image).permute(2, 0, 1))
    assert torch.get_num_threads() == 2
    with pytest.warns(UserWarning, match="fid/clean needs at least 2048 images, has 3: the value is not reliable"):
        assert scorer.compute() == measured
    lines = read_results("folder-pictures", per="image")
    every = score([original_path(store, row) for row in rows], decoded, metrics[:5])
    for name in metrics[:5]:
        values = lines[lines["metric"] == name].sort_values("image")["value"]
        assert scorer.scores[name] == values.tolist() == every[name].tolist()
    assert len(scorer) == 3
    scorer.reset()
    with pytest.raises(MetricError, match="no image"):
        scorer.compute()


def test_everything_that_holds_an_image_gives_the_same_number(folder: Path) -> None:
    import torch

    original, decoded = pair()
    pil.fromarray(original).save("a.png")
    tensor = torch.from_numpy(original).permute(2, 0, 1)
    expected = score(original, decoded, "psnr")["psnr"]
    frozen = original.copy()
    frozen.flags.writeable = False
    alike = ["a.png", Path("a.png"), pil.fromarray(original), frozen, original[..., ::-1][..., ::-1], original / 255]
    alike += [tensor, tensor.float() / 255, (tensor.double() / 255).requires_grad_(), original.astype(np.float32) / 255]
    assert [score(image, decoded, "psnr") for image in alike] == [{"psnr": expected}] * len(alike)
    for batch in (np.stack([original] * 2), torch.stack([tensor] * 2), torch.stack([tensor] * 2) / 255, ["a.png"] * 2):
        values = score(batch, [decoded, original], metrics="psnr,psnr-pooled")
        assert values["psnr"].tolist() == [expected, np.inf]
    # As files: alpha over white, grey in three channels.
    clear = pil.fromarray(np.dstack([original, original[..., 0]]))
    clear.save("clear.png")
    assert score(clear, decoded, "psnr") == score("clear.png", decoded, "psnr") != {"psnr": expected}
    half = np.float32([[[0.5, 0.25, 1.0]]])
    assert score(half, to_uint8(half), "psnr") == {"psnr": np.inf}


def test_what_is_no_image_is_refused_in_a_sentence() -> None:
    import torch

    original, decoded = pair()
    tensor = torch.from_numpy(original)
    refused: list[tuple[Any, str]] = [
        (np.dstack([original, original[..., :1]]), r"must be an array \(H, W, 3\), found \(40, 48, 4\); drop alpha"),
        (original[..., 0], r"found \(40, 48\); repeat grey to three channels"),
        (original.transpose(2, 0, 1), r"found \(3, 40, 48\); write \.transpose\(1, 2, 0\)"),
        (tensor, r"must be a tensor \(3, H, W\), found \(40, 48, 3\); write \.permute\(2, 0, 1\)"),
        (tensor.permute(2, 0, 1)[:1], r"found \(1, 40, 48\); repeat grey"),
        (original.astype(float), r"floats from 0 to 255, and they must be in \[0, 1\]; divide by 255"),
        (tensor.permute(2, 0, 1).float(), "divide by 255"),
        (original / 127.5 - 1, r"floats from -1 to 1, .*\(x \+ 1\) / 2"),
        (original / 250, r"floats from 0 to 1\.02, .*\.clip\(0, 1\)"),
        (original * np.nan, "nan"),
        (original.astype(int), "is of int64; give uint8"),
        (np.ma.masked_array(original, original > 9), r"is a masked array, and all pixels are scored"),
        (tensor.to_sparse(), "is a torch.sparse_coo tensor of torch.uint8 on cpu; give a dense one"),
        (tensor.to("meta"), "tensor of torch.uint8 on meta; give a dense one"),
        (tensor.float().to_mkldnn(), "is a torch._mkldnn tensor of torch.float32 on cpu"),
        (original[:0], "has no pixels"),
        (None, "is a NoneType; give a path"),
        ((image for image in [original]), "is a generator; .* a list or a batch"),
        ("gone.png", "no such image: gone.png"),
        (".", "is the folder .; give a list of its files"),
        (pil.fromarray(np.full((40, 48), -1, np.float32)), "original is a Pillow image of mode F that cannot be read"),
        (pil.fromarray(original[..., 0].astype(np.int32)), "of mode I, whose range nobody knows"),
        (pil.new("RGB", (0, 5)), "has no pixels"),
    ]
    for image, told in refused:
        with pytest.raises(ImageError, match=told):
            score(image, decoded, "psnr")
    for images in ([original, decoded], original[:-1], np.stack([original] * 3), []):
        with pytest.raises(MetricError, match=r"each original needs|is 48 x 39 and the reconstruction|no image"):
            score(images, [decoded] * 2 if len(images) == 3 else [] if not len(images) else decoded, "psnr")
    with pytest.raises(ImageError, match="original 1 is of int64"):
        score([original, original.astype(int)], [decoded] * 2, "psnr")
    with pytest.raises(MetricError, match="image 0: ms-ssim needs at least 161 pixels"):
        score([original], [decoded], ["psnr", "ms-ssim"])


def test_metrics_are_refused_before_anything_is_downloaded(monkeypatch: Any) -> None:
    monkeypatch.setattr("rdpbench.assets.weights.fetch", lambda card: pytest.fail(f"downloads {card.id}"))
    original, decoded = pair()
    for metrics, told in {
        "psrn": "unknown metric 'psrn': did you mean 'psnr'",
        "fid": "did you mean 'fid/clean'",
        "fid/clean": "fid/clean needs at least 2048 images, has 1",
        "clip-score/b32": "needs captions beside the images",
        "miou/coco-panoptic-133": "unknown metric|needs labels",
        "diversity/deviation/5": "compares decodes of one bitstream",
        "": "no metric is named",
    }.items():
        with pytest.raises(RdpbenchError, match=told):
            score(original, decoded, metrics)
    with pytest.raises(ConfigError, match="kid/clean needs at least 1000 images, has 500"):
        Scorer("kid/clean", images=500)
    with pytest.raises(RdpbenchError, match="weights 'alexnet-imagenet' are not on this machine"):
        score(original, decoded, "lpips/alex", download=False)
    with pytest.raises(ConfigError, match="'gpu' is none of cpu, cuda"):
        Scorer("psnr", device="gpu")


OF_ONE_NAME = """
import numpy as np
from rdpbench.metrics.contract import Estimate, PairMetric, SetMetric

class Told(PairMetric):
    name, higher_is_better = "told", True
    def prepare(self, original):
        return original
    def score(self, prepared, reconstruction):
        return float(reconstruction.mean()) * FACTOR

class Features:
    id, version, needs, dim, beside, uses_device = "mine/mean", "1", (), 1, (), False
    def extract(self, images, **beside):
        return [np.full((1, 1), image.mean() * FACTOR, np.float32) for image in images]

class Together(SetMetric):
    kind, name, version, unit, source, needs = "set", "together", "1", "", "", ()
    higher_is_better, perceptual, features, minimum_images = True, False, Features, 1
    def reduce(self, reference, distorted):
        return Estimate(float(np.concatenate(list(distorted)).mean()) * FACTOR)
"""


def test_a_scorer_keeps_its_metrics_when_others_of_their_names_are_typed_or_their_file_is_edited(folder: Path) -> None:
    pixels = np.full((8, 8, 3), 50, np.uint8)

    def names(where: str, factor: int) -> list[str]:
        (folder / where).mkdir(exist_ok=True)
        (folder / where / "metric.py").write_text(OF_ONE_NAME.replace("FACTOR", str(factor)))
        return [f"{where}/metric.py:Told", f"{where}/metric.py:Together"]

    first, second = Scorer(names("a", 1)), Scorer(names("b", 2))
    expected = (
        {"metric.py:Told": 50.0, "metric.py:Together": 50.0},
        {"metric.py:Told": 100.0, "metric.py:Together": 200.0},
    )
    for scorer, values in ((first, expected[0]), (second, expected[1]), (first, expected[0])):
        scorer.update(pixels, pixels)
        assert scorer.compute() == values
    assert score(pixels, pixels, names("a", 3))["metric.py:Told"] == 150.0
    first.update(pixels, pixels)
    assert first.compute() == expected[0], "as it was when the Scorer was made"


def test_nothing_heavy_is_imported_with_the_package(environment: dict[str, str]) -> None:
    program = (
        "import sys, rdpbench, numpy as np\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'hydra', 'PIL', 'rich', 'pyarrow', 'imagecodecs', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sys.modules['torch'] = None\n"  # as if it were not installed
        "a = np.full((170, 170, 3), 9, np.uint8)\n"
        "print(sorted(rdpbench.score(a, a + np.uint8(1), ['psnr', 'ms-ssim', 'ssimulacra2'])))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['ms-ssim', 'psnr', 'ssimulacra2']\n", "")


def test_the_examples_of_the_page_run(folder: Path, images: Any, capsys: Any) -> None:
    (folder / "decoded").mkdir()
    for number, path in enumerate(sorted(images(2, size=(170, 180)).iterdir())):
        name = "ab"[number]
        path.rename(path.with_name(f"{name}.png"))
        pil.open(f"pictures/{name}.png").save("x.jpg", quality=30)
        pil.open("x.jpg").save(f"decoded/{name}.png")
    pictures = [
        (read_image(Path(f"pictures/{n}.png")).pixels, read_image(Path(f"decoded/{n}.png")).pixels) for n in "ab"
    ]
    names: dict[str, Any] = {"batches": pictures}
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(names["curve"]) == 2
    assert printed[-1] == printed[-2].replace("0 ", "1 ", 1)
    assert "psnr" in printed[-1]
