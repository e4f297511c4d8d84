"""HiFiC's official models through ``tfci``: only the plumbing, with a stand-in for the program.

The real program needs TensorFlow 2.14 and models that are not here; it was never run by these tests. The stand-in keeps
its command line and its file format, and stores the PNG file where the latents would be.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rdpbench.codecs.contract import Side, coder_of, facts_of, needs_of_built, weights_kind_of
from rdpbench.codecs.learned.hific.tfci import HiFiCTensorFlow, check_model
from rdpbench.errors import BitstreamError, CoderFailed, ConfigError, MissingNeed, OutOfRange
from rdpbench.image import Image

ROOT = Path(__file__).parents[2]

STAND_IN = """#!{python}
import argparse, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--metagraph_cache")
commands = parser.add_subparsers(dest="command")
one = commands.add_parser("compress")
one.add_argument("model")
for command in (one, commands.add_parser("decompress")):
    command.add_argument("input_file")
    command.add_argument("output_file")
args = parser.parse_args()
def field(data):
    length, out = len(data), b""
    while length > 127:
        out, length = out + bytes([length & 127 | 128]), length >> 7
    return bytes([10]) + out + bytes([length]) + data
def entry(key, value):
    feature = field(field(field(value)))
    return field(field(key) + bytes([18]) + feature[1:])
data = pathlib.Path(args.input_file).read_bytes()
if args.command == "compress":
    graph = pathlib.Path(args.metagraph_cache, args.model + ".metagraph").read_bytes()
    assert graph == b"graph", "tfci would download it"
    data = field(entry(b"\\x01", data) + entry(b"MD", args.model.encode()))
else:
    data = data[data.index(b"\\x89PNG"):data.index(b"IEND") + 8]
pathlib.Path(args.output_file).write_bytes(data)
"""


@pytest.fixture
def tfci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in and three models' files; returns the folder of these."""
    program = tmp_path / "tfci"
    program.write_text(STAND_IN.replace("{python}", sys.executable))
    program.chmod(0o755)
    graphs = tmp_path / "my graphs"
    graphs.mkdir()
    for name in ("lo", "mi", "hi"):
        (graphs / f"hific-{name}.metagraph").write_bytes(b"graph")
    monkeypatch.setenv("RDPBENCH_TFCI", str(program))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(graphs))
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    return graphs


def picture(height: int, width: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("target", "model"), [(0.14, "hific-lo"), (0.3, "hific-mi"), (0.45, "hific-hi")])
def test_the_file_is_the_bitstream(tfci: Path, target: float, model: str) -> None:
    image = picture(33, 47)
    made = HiFiCTensorFlow(target=target).encode(image, Side())
    assert made.parts == {"file": len(made.data)}
    assert model.encode() in made.data, "the model's name is in the file, and counted"
    assert np.array_equal(HiFiCTensorFlow(target=target).decode(bytes(made.data)), image)
    assert made.info["command"] == f"tfci --metagraph_cache metagraphs compress {model} in.png out.tfci".replace(
        "metagraphs compress", "'metagraphs' compress"
    )
    assert json.loads(made.info["legacy"]) == {"nominal": target * 33 * 47}


def test_files_of_other_models_never_reach_the_program(tfci: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look for that model's graph anywhere, on the network too."""
    made = HiFiCTensorFlow(target=0.14).encode(picture(16, 16), Side())
    monkeypatch.setenv("RDPBENCH_TFCI", "/nowhere")
    with pytest.raises(MissingNeed):
        HiFiCTensorFlow(target=0.14).decode(made.data)
    for data in (made.data.replace(b"hific-lo", b"../hific"), b"", made.data[:-3], b"\x0b" + made.data, made.data * 2):
        with pytest.raises(BitstreamError, match="tfci bitstream"):
            HiFiCTensorFlow(target=0.14).decode(data)
    with pytest.raises(BitstreamError, match="not a tfci bitstream of 'hific-hi': it names"):
        HiFiCTensorFlow(target=0.45).decode(made.data)


def test_damaged_files_end_in_an_error_or_are_passed_on(tfci: Path) -> None:
    whole = HiFiCTensorFlow().encode(picture(8, 8), Side()).data
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(2000):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] ^= 1 << int(rng.integers(8))
        try:
            check_model(bytes(data[: rng.integers(1, len(data) + 1)]), "hific-lo")
        except BitstreamError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo 'No module named tensorflow' >&2; exit 1", r"tfci returned 1(.|\n)*\| No module named tensorflow"),
        ("exit 0", "tfci wrote nothing to out.tfci"),
        ("sleep 60", r"timeout_s=0\.5 seconds"),
    ],
)
def test_a_program_that_fails_is_quoted(tfci: Path, body: str, says: str) -> None:
    (tfci.parent / "tfci").write_text(f"#!/bin/sh\n{body}\n")
    with pytest.raises(CoderFailed, match=says):
        HiFiCTensorFlow(timeout_s=0.5).encode(picture(8, 8), Side())


def test_pixels_must_be_a_png_of_ours(tfci: Path) -> None:
    made = HiFiCTensorFlow().encode(picture(8, 8), Side())
    (tfci.parent / "tfci").write_text('#!/bin/sh\necho GIF89a > "$5"\n')
    with pytest.raises(BitstreamError, match="damaged"):
        HiFiCTensorFlow().decode(made.data)


def test_plan_and_provenance(tfci: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = HiFiCTensorFlow()
    assert all(need.missing() is None for need in needs_of_built(codec))
    assert weights_kind_of(codec) == "unpinned"
    coder = coder_of(codec)
    assert coder["tfci"].startswith("sha256:")
    assert coder["weights"].startswith("unpinned:")
    (tfci / "hific-lo.metagraph").unlink()
    [text] = [said for need in needs_of_built(codec) if (said := need.missing())]
    for line in ("tensorflow_compression/metagraphs/hific-lo.metagraph", "licence  Apache-2.0"):
        assert line in text
    with pytest.raises(MissingNeed, match="'tfci/hific-lo' are not on this machine"):
        codec.encode(picture(8, 8), Side())
    monkeypatch.delenv("RDPBENCH_TFCI")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "export RDPBENCH_TFCI=" in str(facts_of(HiFiCTensorFlow).needs[0].missing())


def test_illegal_options_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"'hific-tfci' has target 0\.14, 0\.3, 0\.45 only"):
        HiFiCTensorFlow(target=0.2)
    with pytest.raises(ConfigError, match="more than 0"):
        HiFiCTensorFlow(timeout_s=0)


def test_configuration_lists_every_rate() -> None:
    conf = yaml.safe_load((ROOT / "conf" / "codec" / "hific-tfci.yaml").read_text())
    models = [HiFiCTensorFlow(target=rate, **conf["options"]).model for rate in conf["rates"]]
    assert models == ["hific-lo", "hific-mi", "hific-hi"]
