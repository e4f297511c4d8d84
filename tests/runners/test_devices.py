"""Which GPUs a command takes, what each worker sees of them, and which worker a chunk goes to.

There is no GPU here: ``CUDA_VISIBLE_DEVICES`` names instances of one that is split, which torch does not count, and the
codecs of these tests compute on none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from rdpbench.config.bench import read_bench
from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.networks.precision import devices_of, quick, see_only, visible
from rdpbench.results.store.keys import build
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.runners.execute import seats_of
from rdpbench.runners.preflight import check_devices
from rdpbench.runners.server import start_server
from rdpbench.setting import CodecSetting

CODECS = """
import os, sys, time, zlib
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from rdpbench import Bitstream, Rate

@dataclass(frozen=True)
class OnCPU:
    step: int = 16
    rate: ClassVar[Rate] = Rate("step", 1, 128, rises=False, points=(16, 64))

    def told(self):
        return {"visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "process": str(os.getpid())}

    def encode(self, image, side):
        time.sleep(0.1)
        size = np.array(image.shape[:2], ">u2").tobytes()
        return Bitstream.whole(size + zlib.compress((image // self.step).tobytes()), **self.told())

    def decode(self, data):
        size = np.frombuffer(data[:4], ">u2")
        return np.frombuffer(zlib.decompress(data[4:]), "u1").reshape(*size, 3) * np.uint8(self.step)

@dataclass(frozen=True)
class OnGPU(OnCPU):
    device: str = "cpu"
    heavy: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    def told(self):
        if self.device == "cpu":
            return super().told()
        torch = sys.modules["torch"]
        switches = torch.backends.cuda.matmul, torch.backends.cudnn
        return super().told() | {
            "called": self.device,
            "workspace": os.environ["CUBLAS_WORKSPACE_CONFIG"],
            "started": str(torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()),
            "on": " ".join(name for place in switches for name in dir(place) if name.startswith("allow_")
                           and name != "allow_fp16_accumulation" and getattr(place, name)),
            "deterministic": str(torch.backends.cudnn.deterministic),
        }
"""
OTHERS = (
    CODECS
    + """
import signal

@dataclass(frozen=True)
class Exact(OnGPU):
    portable: bool = False
    by: ClassVar[int] = 0  # how far a GPU's pixels are from those of the processor, in the first rows
    rows: ClassVar[int] = 10

    def encode(self, image, side):
        stream = super().encode(image, side)
        return Bitstream.whole(stream.data + self.device[:2].encode())

    def decode(self, data):
        image = super().decode(data[:-2]).copy()
        if self.device != "cpu" and data[-2:] != b"cu":
            image[: self.rows] ^= np.uint8(self.by)
        return image

class ByOne(Exact):
    by = 1

class Far(Exact):
    by, rows = 64, 1000

class Fails(Exact):
    def decode(self, data):
        if self.device == "cpu" and data[-2:] == b"cu":
            raise ValueError("these symbols are of a GPU")
        return super().decode(data)

class Dies(Exact):
    def decode(self, data):
        if self.device != "cpu":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().decode(data)
"""
)
SPLIT = "MIG-a,MIG-b"


@pytest.fixture(scope="module")
def split_server() -> Iterator[None]:
    """A fork server, which keeps the environment it was started in, whose workers see two instances of a GPU."""
    server: Any = forkserver._forkserver
    server._stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", SPLIT)
        start_server(("torch", "rdpbench.codecs.learned.library"))
    yield
    server._stop()


@pytest.fixture
def run(split_server: None, here: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process, which has imported torch; what it printed. ``env=None``: no GPU is here."""

    def command(*words: str, code: int | None = None, env: str | None = None) -> Any:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", env or "")
        if env is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        capsys.readouterr()
        ended = here(*words)
        printed = capsys.readouterr()
        assert code is None or ended == code, f"exit code {ended}\n{printed.out}\n{printed.err}"
        return printed

    return command


def rows_by_codec(folder: Path) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in Store(folder).read().rows.values():
        rows[row.codec].append(row)
    return rows


def told(row: Row) -> dict[str, str]:
    texts: dict[str, str] = json.loads(row.info)
    return texts


def test_each_gpu_has_a_worker_that_sees_it_alone_and_the_cores_do_the_rest(
    run: Any, images: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(CODECS)
    codecs, words = "codec=./mine.py:OnCPU,./mine.py:OnGPU", ("metrics=psnr", "workers=2", "verify=0", "figures=false")
    run("run", codecs, f"data=folder:{images(6)}", *words, "run=two", "device=cuda", code=0, env=SPLIT)
    folder = tmp_path / "results/runs/two"
    rows = rows_by_codec(folder)
    assert {row.status for of_codec in rows.values() for row in of_codec} == {"ok"}
    on_gpu, on_cpu = rows["OnGPU"], rows["OnCPU"]
    assert {row.device for row in on_cpu} == {"cpu"}
    seen = {(row.device, told(row)["visible"], told(row)["called"]) for row in on_gpu}
    assert seen == {("cuda:0", "MIG-a", "cuda:0"), ("cuda:1", "MIG-b", "cuda:0")}
    assert len({(row.device, told(row)["process"]) for row in on_gpu}) == 2, "one worker for each GPU"
    assert not {told(row)["process"] for row in on_cpu} & {told(row)["process"] for row in on_gpu}
    for row in on_gpu:
        assert told(row)["workspace"] == ":4096:8"
        assert told(row)["started"] == "False", "the fork server started CUDA"
        assert (told(row)["on"], told(row)["deterministic"]) == ("", "True")
        assert json.loads(row.hardware).keys() == {"name", "driver", "not known"}, "no GPU is here, and none is made up"
    assert {row.hardware for row in on_cpu} == {json.dumps({"name": json.loads(on_cpu[0].hardware)["name"]})}
    [session] = (folder / "sessions").glob("*.json")
    assert json.loads(session.read_text())["device"] == ["cuda:0", "cuda:1"]

    # One of them alone gives the same results under the same keys.
    words = (f"data=folder:{tmp_path / 'pictures'}", *words)
    run("run", codecs, *words, "run=one", "device=cuda:1", code=0, env=SPLIT)
    again = rows_by_codec(tmp_path / "results/runs/one")
    assert {row.device for row in again["OnGPU"]} == {"cuda:1"}
    assert {told(row)["visible"] for row in again["OnGPU"]} == {"MIG-b"}
    for codec in rows:
        assert {(row.task_key, row.bitstream_sha256) for row in again[codec]} == {
            (row.task_key, row.bitstream_sha256) for row in rows[codec]
        }


def test_without_torch_no_gpu_is_here() -> None:
    script = (
        "import sys\nsys.modules['torch'] = None\n"
        "from rdpbench.networks.precision import devices_of, is_here\nprint(devices_of(['cuda']), is_here('cuda:0'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "('cuda',) False\n", done.stderr


def test_a_run_without_torch_stays_without() -> None:
    words = ["codec=jpeg", "data=samples", "limit=1", "device=cpu", "metrics=psnr", "figures=false", "verify=1"]
    script = (
        "import sys\nsys.modules['torch'] = None  # an import of it fails\n"
        "from rdpbench.config.bench import read_bench\nfrom rdpbench.runners.execute import seats_of\n"
        "from rdpbench.runners.preflight import check_devices\n"
        f"bench = read_bench({words})\ncheck_devices(bench.devices)\nprint(len(seats_of(bench)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environment", "device", "seen"),
    [
        (None, "cuda:2", "2"),
        (None, "cuda", "0"),
        ("5,3", "cuda:1", "3"),
        ("GPU-8932f937-d72c,GPU-1a", "cuda:0", "GPU-8932f937-d72c"),
        ("MIG-a, MIG-b", "cuda:1", "MIG-b"),
    ],
)
def test_a_worker_sees_its_gpu_under_the_name_that_the_environment_has_for_it(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, device: str, seen: str
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", environment or "")
    if environment is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert see_only(device) == "cuda:0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_codec_is_built_on_a_gpu_with_full_precision() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("compressai")
    matmul, setting = (
        torch.backends.cuda.matmul,
        CodecSetting("mbt2018-mean", "mbt2018-mean", (("weights", "random"),), ()),
    )
    with quick():
        build(setting, 1)
        assert matmul.allow_bf16_reduced_precision_reduction
        assert matmul.allow_tf32
        build(setting, 1, "cuda:0")
        assert not matmul.allow_bf16_reduced_precision_reduction
        assert not matmul.allow_tf32


def test_what_computes_on_no_gpu_sees_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert see_only("cpu") == "cpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,3"


def test_instances_of_a_split_gpu_are_counted_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b,MIG-c")
    assert visible() == 3
    assert devices_of(["cuda"]) == ("cuda:0", "cuda:1", "cuda:2")
    assert devices_of(["cuda:2", "cuda"]) == ("cuda:2", "cuda:0", "cuda:1")
    check_devices(["cuda:0", "cuda:2"])
    with pytest.raises(MissingNeed, match=r"cuda:3 is not here.* sees cuda:0, cuda:1, cuda:2, by CUDA_VISIBLE_DEV"):
        check_devices(["cuda:0", "cuda:3"])


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        (["cpu", "cuda:1"], "write device=cuda:1"),
        (["gpu"], "none of cpu, cuda"),
        (["cuda:"], "none of cpu, cuda"),
        (["cuda:x"], "none of cpu, cuda"),
    ],
)
def test_devices_that_cannot_be_meant_are_refused(devices: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_devices(devices)


def test_the_places_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b,MIG-c")

    def seats(*words: str) -> list[tuple[str, str]]:
        bench = read_bench(["data=samples", "weights=random", "codec=mbt2018-mean,jpeg", "workers=3", *words])
        return [(seat.device, "/".join(seat.kinds)) for seat in seats_of(bench)]

    assert seats() == [("cpu", "device/cpu")] * 3
    on_gpus = [("cuda:2", "device"), ("cuda:0", "device")]
    cores = [("cuda:2", "cpu"), ("cuda:0", "cpu"), ("cuda:2", "cpu")]  # where their metrics compute
    assert seats("device=cuda:2,cuda:0") == on_gpus + cores
    assert seats("device=cuda:2,cuda:0", "workers_per_device=2") == on_gpus * 2 + cores
    assert seats("device=cuda:2,cuda:0", "codec=mbt2018-mean") == on_gpus
    assert len(seats("device=cuda", "codec=jpeg")) == 3
    assert seats("device=cuda:1", "timing=true") == [("cuda:1", "device/cpu")]
    assert seats("device=cuda", "workers=0") == []


@pytest.mark.parametrize(("word", "says"), [("timing=true", "names several"), ("workers=0", "names several")])
def test_one_process_takes_one_device(word: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_bench(["codec=jpeg", "data=samples", "device=cuda:0,cuda:1", word])


# Which device decodes what another coded


def test_a_matrix_of_devices_says_which_decodes_what_others_coded(run: Any, images: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OTHERS)
    names = ("Exact", "ByOne", "Far", "Fails", "Dies", "OnCPU")
    codecs = "codec=" + ",".join(f"./mine.py:{name}" for name in names)
    words = ("rate=16", "metrics=psnr", "verify=0", "figures=false")
    run("run", codecs, f"data=folder:{images(3)}", *words, "run=one", code=0)
    done = run("verify", "one", codecs, "--device", "cpu,cuda:1", code=1, env=SPLIT)
    assert "18 bitstreams decoded in a fresh process to the recorded pixels" in done.out

    folder = tmp_path / "results/runs/one"
    record = json.loads((folder / "decodes.json").read_text())
    cells = {(cell.pop("codec"), cell.pop("coded on"), cell.pop("decoded on")): cell for cell in record["cells"]}
    [cpu] = {coder for _, coder, _ in cells} - {"cuda:1"}
    assert cpu.startswith("cpu (")
    assert len(cells) == 5 * 2 * 2, "what computes on no device has none"

    def cell(codec: str, coder: str, decoder: str) -> dict[str, Any]:
        full = {"cpu": cpu, "cuda": "cuda:1"}
        return {name: value for name, value in cells[codec, full[coder], full[decoder]].items() if value}

    for codec in ("Exact", "ByOne", "Far", "Fails"):
        assert cell(codec, "cpu", "cpu") == cell(codec, "cuda", "cuda") == {"same": 3}
    assert cell("Exact", "cpu", "cuda") == cell("Exact", "cuda", "cpu") == {"same": 3}
    assert cell("ByOne", "cpu", "cuda") == {"within one": 3, "largest": 1, "share": 10 / 40}
    assert cell("Far", "cpu", "cuda") == {"other": 3, "largest": 64, "share": 1.0}
    assert cell("Fails", "cuda", "cpu") == {"failed": 3}
    assert cell("Dies", "cpu", "cuda") == {"failed": 3}
    notes = "\n".join(record["notes"])
    assert "ByOne: cuda:1 coded 0 of 3 images to the bytes that cpu" in notes
    assert f"Fails: coded on cuda:1, decoded on {cpu}: ValueError: these symbols are of a GPU" in notes
    assert f"Far: coded on {cpu}, decoded on cuda:1; codec.options.portable=true writes" in notes
    assert "SIGSEGV" in notes
    assert "3 within 1 (up to 1 of 255 in 25 % of pixels)" in done.out

    # What is tried later, here without the device that coded, stands beside it; the report shows all.
    run("verify", "one", codecs, "--device", "cuda:0", "--sample", "12", env=SPLIT, code=1)
    more = json.loads((folder / "decodes.json").read_text())["cells"]
    assert {cell["decoded on"] for cell in more} == {cpu, "cuda:1", "cuda:0"}
    far = [cell for cell in more if (cell["codec"], cell["coded on"], cell["decoded on"]) == ("Far", cpu, "cuda:0")]
    assert [(cell["largest"], cell["same"]) for cell in far] == [(None, 0)], "only the hash of its pixels is known"
    run("report", "one", codecs, "--images", "none", code=0)
    assert "Bitstreams decoded on other devices" in (folder / "report/data/report.js").read_text()

    (folder / "decodes.json").write_text("[")
    assert "is damaged" in run("report", "one", codecs, "--images", "none").err


def test_bitstreams_of_a_device_that_is_not_here_are_not_called_wrong(run: Any, images: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODECS)
    words = ("metrics=psnr", "figures=false", "run=gpu", "codec=./mine.py:OnGPU")
    done = run("run", f"data=folder:{images(1)}", *words, "device=cuda:1", code=0, env=SPLIT)
    assert "2 of them decoded again in a fresh process" in done.out
    # On another machine.
    done = run("verify", "gpu", "codec=./mine.py:OnGPU", code=1)
    assert "FOUND" not in done.out
    assert "NOT DECODED 2 bitstreams of OnGPU: coded on cuda:1, which is not here; --device cpu" in done.out
    done = run("verify", "gpu", "codec=./mine.py:OnGPU", "--device", "cpu")
    assert "2 same" in done.out
    done = run("verify", "gpu", "codec=./mine.py:OnGPU", "--device", "cuda:0", code=2)
    assert "cuda:0 is not here" in done.err
