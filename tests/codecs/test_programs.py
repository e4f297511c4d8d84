"""BPG, VTM and VVenC through their programs: round trips, refusals, damage, and programs that misbehave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from rdpbench import registry
from rdpbench.assets import program
from rdpbench.assets.program import In, Out, run_program
from rdpbench.codecs.classical.bpg import BPG, read_ppm
from rdpbench.codecs.classical.vvc import CONFIG, VTM, VVenC, decode_420, double, halve
from rdpbench.codecs.contract import Side, facts_of, rate_of
from rdpbench.errors import (
    BitstreamError,
    CodecError,
    CoderFailed,
    ConfigError,
    MissingNeed,
    UnsupportedImage,
)
from rdpbench.image import Image, read_image

CONF = Path(__file__).parents[2] / "conf" / "codec"


def picture(height: int, width: int) -> Image:
    """Smooth colours with some texture: codecs have something to do."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 24, (height, width))
    return np.stack([(3 * x + noise) % 256, (2 * y + x) % 256, (x + y) % 256], axis=2).astype(np.uint8)


def psnr(one: Image, other: Image) -> float:
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def need_all(codec: type) -> None:
    for need in facts_of(codec).needs:
        if need.missing():
            pytest.skip(f"{codec.__name__} cannot run here: {need.missing()}")


# --- programs that misbehave, under the names of real ones ---------------------------------------------------------


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv(variable, str(path))
    return path


def test_crashing_bpgenc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, "RDPBENCH_BPGENC", "bpgenc", "echo 'bad preset' >&2; kill -SEGV $$")
    with pytest.raises(CoderFailed) as caught:
        BPG(qp=42).encode(picture(32, 32), Side())
    message = str(caught.value)
    assert "bpgenc was killed by SIGSEGV" in message
    assert "bpgenc -q 42 -f 444 -e x265 -c ycbcr -b 8 -m 8 -o out.bpg in.png" in message
    assert "| bad preset" in message


def test_hanging_vtm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = pretend(tmp_path, monkeypatch, "RDPBENCH_VTM_ENCODER", "EncoderAppStatic", "sleep 60")
    (encoder.parent / "encoder_intra_vtm.cfg").write_text("")
    monkeypatch.delenv("RDPBENCH_VTM_CFG", raising=False)
    with pytest.raises(CoderFailed, match=r"(?s)timeout_s=0\.2 seconds.*-q 30 -o /dev/null -b out\.bin -wdt 8 -hgt 4"):
        VTM(qp=30, timeout_s=0.2).encode(picture(4, 8), Side())


@pytest.mark.parametrize("written", ["P6 2 1 255 12345", "P5 2 1 255 12", "P6 2 1 65535 123456123456", "x"])
def test_bpgdec_writes_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    pretend(tmp_path, monkeypatch, "RDPBENCH_BPGDEC", "bpgdec", f'printf "{written}" >"$2"')
    with pytest.raises(CoderFailed, match="decoder wrote"):
        BPG().decode(b"BPG\xfb1234")


def test_ppm_comes_back_writable() -> None:
    image = read_ppm(b"P6\n1 2\n255\n" + bytes(range(6)))
    image[0, 0] = 9
    assert image.tolist() == [[[9, 9, 9]], [[3, 4, 5]]]


def test_vtm_config_is_found_beside_or_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RDPBENCH_VTM_CFG", raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "cfg").mkdir()
    encoder = pretend(tmp_path / "bin", monkeypatch, "RDPBENCH_VTM_ENCODER", "EncoderAppStatic", "true")
    assert CONFIG.missing() is not None
    for folder in ("cfg", "bin"):
        config = tmp_path / folder / "encoder_intra_vtm.cfg"
        config.write_text("QP: 1")
        assert CONFIG.find() == config
    monkeypatch.setenv("RDPBENCH_VTM_CFG", str(encoder))
    assert CONFIG.find() == encoder


@pytest.mark.parametrize("codec", [BPG, VTM])
def test_absent_programs_say_what_to_type(codec: type, monkeypatch: pytest.MonkeyPatch) -> None:
    for need in facts_of(codec).needs:
        monkeypatch.delenv(need.variable, raising=False)  # type: ignore[attr-defined]
    monkeypatch.setenv("PATH", "/nowhere")
    for need in facts_of(codec).needs:
        assert "export RDPBENCH_" in (need.missing() or "")
    with pytest.raises(MissingNeed, match="export RDPBENCH_"):
        codec().encode(picture(32, 32), Side())


# --- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "options", "legal"),
    [
        (BPG, {"qp": 52}, "0..51"),
        (BPG, {"chroma": "420"}, "'4:2:0'"),
        (BPG, {"encoder": "hm"}, "'jctvc'"),
        (BPG, {"bit_depth": 9}, "12"),
        (BPG, {"colour": "bt709"}, "'ycbcr_bt709'"),
        (BPG, {"level": 0}, "9"),
        (BPG, {"colour": "rgb", "chroma": "4:2:0"}, "4:4:4"),
        (BPG, {"timeout_s": 0}, "more than 0"),
        (VTM, {"qp": 64}, "0..63"),
        (VTM, {"input_depth": 12}, "10, 8"),
        (VTM, {"chroma": "4:2:0"}, "'4:4:4'"),
        (VVenC, {"preset": "placebo"}, "'slower'"),
        (VVenC, {"qp": -1}, "0..63"),
        (VVenC, {"timeout_s": -1}, "more than 0"),
    ],
)
def test_illegal_options_list_the_legal_ones(codec: type, options: dict[str, object], legal: str) -> None:
    with pytest.raises(ConfigError) as caught:
        codec(**options)
    assert legal in str(caught.value)


@pytest.mark.parametrize("name", ["bpg", "bpg-420", "bpg-jctvc", "vtm", "vtm-8bit", "vvenc"])
def test_shipped_configuration(name: str) -> None:
    conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert set(conf) == {"name", "title", "use", "options", "rates", "role", "paper"}
    assert conf["name"] == name
    codec = registry.load("codec", conf["use"])
    rate = rate_of(codec)
    assert rate is not None
    for value in conf["rates"]:
        codec(**conf["options"], **{rate.field: rate.check(name, value)})


# --- real programs -------------------------------------------------------------------------------------------------

DAMAGE = 40


def damaged(data: bytes) -> list[bytes]:
    """Cut and flipped copies, always the same ones."""
    random = np.random.default_rng(1)
    cut = [data[: random.integers(len(data))] for _ in range(DAMAGE // 2)]
    flipped = []
    for _ in range(DAMAGE // 2):
        copy = bytearray(data)
        copy[random.integers(len(copy))] ^= 1 << random.integers(8)
        flipped.append(bytes(copy))
    return [*cut, *flipped, b"", b"\0" * 50]


def check_damage(codec: BPG | VTM | VVenC, data: bytes) -> None:
    refused = 0
    for bad in damaged(data):
        try:
            image = codec.decode(bad)
        except CodecError:  # anything else fails the test
            refused += 1
        else:
            assert (image.dtype, image.shape[2:]) == (np.uint8, (3,))
    assert refused > DAMAGE // 4


@pytest.mark.parametrize("size", [(32, 48), (33, 25), (1, 31), (101, 67)])
@pytest.mark.parametrize(
    "options",
    [{}, {"chroma": "4:2:0"}, {"encoder": "jctvc"}, {"bit_depth": 10}, {"colour": "rgb"}],
    ids=lambda options: "-".join(options) or "default",
)
def test_bpg_round_trip(size: tuple[int, int], options: dict[str, object]) -> None:
    need_all(BPG)
    image = picture(*size)
    codec = BPG(qp=12, timeout_s=60, **options)  # type: ignore[arg-type]
    stream = codec.encode(image, Side())
    assert stream.data == codec.encode(image, Side(seed=1)).data
    assert stream.parts == {"file": len(stream.data)}
    decoded = BPG(qp=12, timeout_s=60, **options).decode(stream.data)  # type: ignore[arg-type]
    assert decoded.shape == image.shape
    assert psnr(decoded, image) > (25 if "chroma" in options else 33)


def test_bpg_sizes_that_crash_are_refused() -> None:
    need_all(BPG)
    with pytest.raises(UnsupportedImage, match="24 wide; encoder='jctvc'"):
        BPG().encode(picture(64, 24), Side())
    assert BPG(encoder="jctvc").decode(BPG(encoder="jctvc").encode(picture(1, 1), Side()).data).shape == (1, 1, 3)


def test_bpg_damage_and_identity() -> None:
    need_all(BPG)
    check_damage(BPG(timeout_s=20), BPG().encode(picture(40, 56), Side()).data)
    assert BPG().coder()["bpgenc"].startswith("0.9.")
    with pytest.raises(BitstreamError, match="not a BPG file"):
        BPG().decode(b"\xff\xd8\xff\xe0")


def test_bpg_published_size(shared: Path) -> None:
    """One image of those whose mean CompressAI publishes; 4334 bytes is also what bpgenc 0.9.8 writes when typed."""
    need_all(BPG)
    image = read_image(shared / "data" / "kodak" / "kodim23.png").pixels
    stream = BPG(qp=42).encode(image, Side())
    assert stream.info["command"] == "bpgenc -q 42 -f 444 -e x265 -c ycbcr -b 8 -m 8 -o out.bpg in.png"
    assert len(stream.data) == 4334


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("size", [(1, 1), (9, 7), (17, 33)])
def test_vtm_round_trip(size: tuple[int, int], depth: int) -> None:
    need_all(VTM)
    image = picture(*size)
    stream = VTM(qp=12, input_depth=depth, timeout_s=300).encode(image, Side())
    decoded = VTM(qp=12, input_depth=depth, timeout_s=300).decode(stream.data)
    assert decoded.shape == image.shape
    assert psnr(decoded, image) > 40
    assert f"-wdt {size[1]} -hgt {size[0]}" in stream.info["command"]
    assert "/proc" not in stream.info["command"]


def test_vtm_damage_determinism_and_identity() -> None:
    need_all(VTM)
    image = picture(16, 24)
    streams = [VTM(timeout_s=60).encode(image, Side(seed=seed)).data for seed in range(2)]
    assert streams[0] == streams[1]
    check_damage(VTM(timeout_s=20), streams[0])
    assert set(VTM().coder()) == {"vtm-encoder", "vtm-decoder", "encoder_intra_vtm.cfg"}


@pytest.mark.parametrize("preset", ["faster", "slow"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (8, 8), (9, 7), (17, 16), (33, 65), (1, 70)])
def test_vvenc_round_trip(size: tuple[int, int], preset: str) -> None:
    need_all(VVenC)
    image = picture(*size)
    stream = VVenC(qp=10, preset=preset).encode(image, Side())
    decoded = VVenC(qp=10, preset=preset).decode(stream.data)
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    assert sum(stream.parts.values()) == len(stream.data)
    assert 3 <= stream.parts["header"] <= 6
    assert "-qp 10 -qpa 0" in stream.info["command"]


def test_vvenc_holds_a_stream_and_nothing_else() -> None:
    """libvvenc's warnings on stdout once were 110 bytes of the stream."""
    need_all(VVenC)
    grey = np.full((64, 64, 3), 128, np.uint8)
    stream = VVenC(qp=37).encode(grey, Side())
    assert len(stream.data) < 90
    assert b"warning" not in stream.data
    assert np.array_equal(VVenC(qp=37).decode(stream.data), grey)


def test_vvenc_determinism_and_damage() -> None:
    need_all(VVenC)
    image = picture(48, 80)
    streams = [VVenC(preset="faster").encode(image, Side(seed=seed)).data for seed in range(2)]
    assert streams[0] == streams[1]
    check_damage(VVenC(), streams[0])
    assert set(VVenC().coder()) == {"ffmpeg with libvvenc", "av", "libavcodec"}
    header, body = streams[0][:2], streams[0][2:]
    with pytest.raises(BitstreamError, match="the container says 4:2:0, 10 bits, 50 x 80"):
        VVenC().decode(bytes([header[0] + 2, header[1]]) + body)


def test_vvenc_and_vtm_decode_the_same_samples() -> None:
    need_all(VVenC)
    need_all(VTM)
    from rdpbench.codecs.classical.vvc import DECODER
    from rdpbench.codecs.container import unpack

    (stream,) = unpack(VVenC(qp=22).encode(picture(64, 96), Side()).data, 1)[2]
    ours = b"".join(plane.astype("<u2").tobytes() for plane in decode_420(stream, 64, 96))
    theirs = run_program(program.require(DECODER), ["-b", In("i", stream), "-o", Out("o"), "-d", "0"], 60).outputs["o"]
    assert ours == theirs


def test_chroma_doubling_undoes_halving_where_it_can() -> None:
    flat = np.full((6, 8), 777)
    assert np.array_equal(double(halve(flat)), flat)
    ramp = np.broadcast_to(np.arange(0, 960, 8), (8, 120))
    inner = double(halve(ramp))[:, 4:-4]
    assert np.array_equal(inner, ramp[:, 4:-4]), "no shift: centres stay where they are"
    steps = np.zeros((4, 8), np.int64)
    steps[:, 4:] = 1023
    assert double(steps).min() == 0
    assert double(steps).max() == 1023
