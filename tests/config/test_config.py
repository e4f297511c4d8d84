"""What the user types, and what it is taken for. Mistakes must be named, never guessed at or dropped in silence."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from hydra.conf import HydraConf

import rdpbench
from rdpbench import paths, registry
from rdpbench.codecs.contract import rate_of
from rdpbench.config import bench as config
from rdpbench.config import typed as overrides
from rdpbench.config.bench import KEYS, read_bench
from rdpbench.config.listing import settings_help
from rdpbench.config.typed import SETTINGS
from rdpbench.errors import CALLED, ConfigError, UnknownName
from rdpbench.paths import VARIABLES, available, check_variables, conf_file, conf_folder
from rdpbench.progress import tell
from rdpbench.setting import CodecSetting

MINE = (
    "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    depth: int = 1\n"
    "    def encode(self, image, side): ...\n    def decode(self, data): ...\n"
)


def codecs(*overrides: str) -> list[CodecSetting]:
    return list(dict.fromkeys(codec for codec, _ in read_bench(overrides).grid))


def test_nothing_typed_is_the_default_experiment() -> None:
    bench = read_bench([])
    assert [codec.name for codec, _ in bench.grid] == ["jpeg", "jpeg2000", "webp", "avif", "hevc", "jpegxl", "mini"]
    assert {data.name for _, data in bench.grid} == {"samples"}
    assert bench.points == 5
    assert bench.metrics == ("psnr", "ms-ssim", "ssimulacra2")


def test_what_is_typed_wins_over_the_experiment() -> None:
    bench = read_bench(["experiment=default", "codec=webp", "points=2"])
    assert [codec.name for codec, _ in bench.grid] == ["webp"]
    assert bench.points == 2
    assert read_bench(["limit=3"]).limit == 3
    assert len(read_bench(["limit=3"]).grid) == 7


def test_sweeps_make_a_grid() -> None:
    bench = read_bench(["codec=jpeg,webp", "data=samples,kodak", "rate=10,20", "seed=0,1"])
    pairs = [(codec.name, data.name) for codec, data in bench.grid]
    assert pairs == [("jpeg", "samples"), ("jpeg", "kodak"), ("webp", "samples"), ("webp", "kodak")]
    assert bench.rates == (10.0, 20.0)
    assert bench.seeds == (0, 1)


@pytest.mark.parametrize(
    ("typed", "rates"),
    [
        ("10", (10,)),
        ("10,20", (10, 20)),
        ("[10,20]", (10, 20)),
        ("range(10,40,10)", (10, 20, 30)),
        ("0.5,1e1", (0.5, 10)),
    ],
)
def test_rates(typed: str, rates: tuple[float, ...]) -> None:
    assert read_bench(["codec=jpeg", f"rate={typed}"]).rates == rates


def test_null_rates_are_those_of_the_codec() -> None:
    bench = read_bench(["codec=jpeg", "rate=null", "bpp=null"])
    assert bench.rates is None
    assert bench.targets is None
    assert bench.grid[0][0].rates == tuple(range(5, 100, 5))


def test_options_become_part_of_the_label() -> None:
    assert [one.name for one in codecs("codec=jpeg", "codec.options.optimize=true,false")] == [
        "jpeg[optimize=true]",
        "jpeg[optimize=false]",
    ]
    assert codecs("codec=jpeg", "++codec.options.optimize=true")[0].name == "jpeg[optimize=true]"
    assert dict(codecs("codec=jpeg", "codec.options.chroma=4:4:4")[0].options)["chroma"] == "4:4:4"


@pytest.mark.parametrize("typed", ["codec=[jpeg,webp]", "codec=[jpeg, webp]", "+codec=['jpeg','webp']"])
def test_lists_may_have_brackets(typed: str) -> None:
    bench = read_bench([typed, "data=samples", "rate=[20,50]", "metrics=[psnr,flip]", "seed=[0]", "grades=[decoded]"])
    plainly = read_bench(
        ["codec=jpeg,webp", "data=samples", "rate=20,50", "metrics=psnr,flip", "seed=0", "grades=decoded"]
    )
    assert bench == plainly, "what was typed is recorded as the plain command, too"


def test_the_usual_variant_of_a_family_is_taken_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    tell.cache_clear()
    assert read_bench(["codec=jpeg", "metrics=psnr,lpips,clip-i"]).metrics == ("psnr", "lpips/alex", "clip-i/b32")
    said = capsys.readouterr().err
    assert "metrics=lpips: taken as lpips/alex; its other variants are lpips/squeeze, " in said
    assert "metrics=clip-i: taken as clip-i/b32\n" in said


def test_metrics_are_a_list() -> None:
    assert read_bench(["codec=jpeg", "metrics=psnr,ms-ssim,psnr"]).metrics == ("psnr", "ms-ssim")
    assert read_bench(["codec=jpeg", "metrics=[psnr]"]).metrics == ("psnr",)
    assert read_bench(["codec=jpeg", "metrics=available"]).metrics_available
    assert read_bench(["codec=jpeg", "metrics="]).metrics == ()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("codec=jpg", r"unknown codec 'jpg': did you mean 'jpeg'\?"),
        ("codec=jpeg,wepb", r"unknown codec 'wepb': did you mean 'webp'\?"),
        ("data=kodac", r"unknown dataset 'kodac': did you mean 'kodak'\?"),
        ("metrics=pnsr", r"unknown metric 'pnsr': did you mean 'psnr'\?"),
        ("captions=humn", r"unknown caption source 'humn': did you mean 'human'\?"),
        (
            "metrics=fid",
            r"did you mean 'fid/clean'\?\n  metrics that begin with 'fid': fid/clean, fid/clean/fast, fid/hfd",
        ),
        ("metrics=zzz", r"unknown metric 'zzz'\n  [0-9]+ metrics exist, and `rdpbench ls metrics` lists them"),
        ("codec=h265", r"did you mean 'hevc'\?"),
        ("metrics=ssim", r"did you mean 'ms-ssim'\?"),
        ("quality=50", r"did you mean 'rate'\?(.|\n)*quality of the codec is set by rate="),
        ("gpu=true", r"did you mean 'device'\?"),
        ("codec=cheng", r"codecs that begin with 'cheng': cheng2020-anchor, "),
        ("experiment=defualt", r"unknown experiment 'defualt': did you mean 'default'\?"),
        ("limt=3", r"unknown setting 'limt': did you mean 'limit'\?"),
        ("own=1", "unknown setting 'own'"),
        ("codec=own", "unknown codec 'own'"),
    ],
)
def test_unknown_names(typed: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        read_bench(["codec=jpeg", "data=samples", typed] if not typed.startswith(("codec", "data")) else [typed])


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("data.protocol=taco-256", "data.options.protocol"),
        ("protocol=taco-256", "data.options.protocol"),
        ("metric=psnr", "metrics"),
        ("gibberish=1", None),
        ("limt=3", "limit"),
        ("codec.gibberish=1", None),
        ("codec.chroma=4:4:4", "codec.options.chroma"),
        ("codec.options=3", None),
        ("codec.options.chroma.low=3", "codec.options.chroma"),
        ("codec.rates=[1,2]", "rate"),
        ("codec.use=webp", None),
        ("codec.name=webp", None),
        ("data.gibberish=1", None),
        ("data.pth=x", "data.path"),
        ("metrics.options=3", None),
        ("metrics.name=[psnr]", "metrics.names"),
        ("runner.worker=2", "runner.workers"),
        ("hydra.run.dir=x", "root"),
        ("codec@other=webp", "codec"),
        ("codec.options.qualty=3", "rate"),
        ("codec.options.optimise=true", "codec.options.optimize"),
        ("codec.options.nonsense=true", None),
        ("options.chroma=4:2:0", "codec.options.chroma"),
        ("data.options.protocl=x", "data.options.protocol"),
        ("data.options.nonsense=x", None),
        ("data.path=x", None),
    ],
)
def test_a_key_that_nothing_reads_is_refused_with_or_without_a_plus(plus: str, typed: str, nearest: str | None) -> None:
    """Hydra takes any key with a plus, and its message and habit lead there; what it adds is read by nobody."""
    with pytest.raises(UnknownName) as caught:
        read_bench(["codec=jpeg", "data=samples", f"{plus}{typed}"])
    message = str(caught.value)
    assert f"did you mean {nearest!r}?" in message if nearest else "did you mean" not in message
    assert "+" not in message


@pytest.mark.parametrize("plus", ["+", "++"])
def test_a_plus_before_a_key_that_is_read_changes_nothing(plus: str) -> None:
    typed = [
        "codec=jpeg",
        "data=samples",
        "rate=5",
        "metrics=psnr",
        "limit=2",
        "root=here",
        "codec.options.optimize=true",
    ]
    bench = read_bench([f"{plus}{line}" for line in typed])
    assert bench == read_bench(typed)
    assert (bench.rates, bench.metrics, bench.limit, bench.root) == ((5,), ("psnr",), 2, Path("here"))
    assert read_bench([f"{plus}experiment=default"]) == read_bench(["experiment=default"])


@pytest.mark.parametrize(
    "typed", ["~limit", "~limit=3", "~codec.options.chroma", "~codec.options.chroma=4:2:0", "~codec"]
)
def test_nothing_can_be_taken_away(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"a setting cannot be removed; write \w+"):
        read_bench(["codec=jpeg", "data=samples", typed])


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["codec=jpeg", "codec.options.quality=50"], "quality is the rate of codec 'jpeg'; write rate=50"),
        (["codec=mini", "codec.options.device=cuda"], "device is the device of codec 'mini'; write device=cuda"),
        (["codec=jpeg", "runner=slrm"], "unknown runner 'slrm': did you mean 'slurm'?"),
    ],
)
def test_what_another_setting_would_overwrite_is_refused(typed: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_bench(typed)


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("config.yaml", "limits: 3", "unknown key 'limits': did you mean 'limit'?"),
        ("codec/webp.yaml", "rate: [1, 2]", "unknown key 'rate': did you mean 'rates'?"),
        ("data/samples.yaml", "protocol: as-is", "unknown key 'protocol'"),
        ("metrics/default.yaml", "availble: true", "unknown key 'availble': did you mean 'available'?"),
        ("runner/local.yaml", "worker: 2", "unknown key 'worker': did you mean 'workers'?"),
        (
            "codec/webp.yaml",
            "options: {metod: 4}",
            "unknown option 'codec.options.metod': did you mean 'codec.options.method'?",
        ),
        ("data/samples.yaml", "options: {protocl: x}", "unknown option 'data.options.protocl'"),
        ("experiment/default.yaml", "- limt=3", "unknown setting 'limt': did you mean 'limit'?"),
        ("codec/webp.yaml", "use:", "webp.yaml has no use; it can hold name"),
    ],
)
def test_a_file_of_the_users_is_held_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, line: str, told: str
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(conf_folder(), conf)
    for module in (config, overrides, paths):
        monkeypatch.setattr(module, "conf_folder", lambda: conf)
    key = line.partition(":")[0]
    kept = [one for one in (conf / file).read_text().splitlines() if not one.startswith(f"{key}:")]
    (conf / file).write_text("\n".join([*kept, line]) + "\n")
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_bench(["experiment=default", "codec=webp", "data=samples"])


def test_the_lists_of_what_is_read_are_those_of_the_files() -> None:
    record = yaml.safe_load((conf_folder() / "config.yaml").read_text())
    groups = {next(iter(entry)) for entry in record.pop("defaults") if isinstance(entry, dict)}
    composed = {group: choice for entry in HydraConf().defaults for group, choice in entry.items()}
    left_out = {f"override hydra/{group}" for group, choice in composed.items() if choice}
    assert left_out <= groups, "composing what Hydra sets of itself takes half of the time"
    groups -= left_out
    top = {name for name in SETTINGS if "." not in name} - {"experiment", "workers", "device", "workers_per_device"}
    assert record.keys() | groups == top
    assert groups == KEYS.keys()
    source = "".join(path.read_text() for path in Path(rdpbench.__file__).parent.rglob("*.py"))
    assert set(re.findall(r"\bRDPBENCH_[A-Z_]+[A-Z]\b", source)) == set(VARIABLES)


def test_a_misspelt_variable_is_refused_and_another_codecs_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_MYENCODER", "x")
    check_variables()
    monkeypatch.setenv("RDPBENCH_WEIGTHS", "x")
    with pytest.raises(UnknownName, match="'RDPBENCH_WEIGTHS': did you mean 'RDPBENCH_WEIGHTS'"):
        check_variables()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("rate=ten", "rate=ten must be a number, in the unit of the codec's own setting, such as rate=20,50,80"),
        ("rate=nan", "rate=nan must be a number"),
        ("rate=inf", "rate=inf must be a number"),
        ("bpp=0", "bpp=0 must be a number above 0, of bits per pixel, such as bpp=0.25,0.5"),
        ("bpp=-0.5", "must be a number above 0"),
        ("bpp=nan", "bpp=nan must be a number above 0"),
        ("bpp=", "bpp= must be a number above 0"),
        ("codec=[jpeg,", r"'codec=\[jpeg,' has no ]; write codec=A,B"),
        ("resume=true", "a run resumes by itself: type the same command again"),
        ("kodak", "'kodak' is no override; write key=value, such as data=kodak"),
        ("rate=10:90:10", "rate=10:90:10 must be a number"),
        ("captions=human", "captions=human is for codecs that take a caption, and jpeg takes none; leave it out"),
        ("seed=1.5", "seed=1.5 must be a whole number"),
        ("seed=-1", "seed=-1 must be a whole number"),
        ("limit=0", "limit=0 must be a whole number from 1"),
        ("limit=-3", "limit=-3 must"),
        ("limit=2.5", "limit=2.5 must"),
        ("limit=many", "limit=many must"),
        ("limit=true", "limit=True must"),
        ("limit=1,2", "limit takes one value, found '1,2'"),
        ("points=0", "points=0 must"),
        ("verify=-1", "verify=-1 must"),
        ("verify=some", "verify=some must"),
        ("workers=-1", "workers=-1 must be a whole number from 0"),
        ("workers=two", "workers=two must"),
        ("keep=some", "keep=some must be all, none, or a number"),
        ("keep=true", "keep=True must"),
        ("timing=flase", "timing=flase must be true or false"),
        ("figures=no", "figures=no must be true or false"),
        ("retry_failed=1", "retry_failed=1 must"),
        ("timing=true,false", "timing takes one value"),
        ("search=both", "search=both must be image or dataset or pooled"),
        ("search=pooled", "search=pooled is for target rates, and none is given; add bpp="),
        ("tolerance=0.5", "tolerance=0.5 is for target rates, and none is given"),
        ("tolerance=0", "tolerance=0 must be a number above 0"),
        ("tolerance=-0.1", "tolerance=-0.1 must"),
        ("tolerance=true", "tolerance=True must"),
        ("tolerance=inf", "tolerance=inf must"),
        ("tolerance=0.1,0.2", "tolerance takes one value"),
        ("codec=", "has no value"),
        ("data=,", "has no value"),
        ("limit", "'limit' is no override"),
        ("limit=[1", "cannot read"),
        ("rate=50,", "a list has no spaces: rate=A,B"),
    ],
)
def test_values_that_cannot_be_meant(typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_bench([*(["codec=jpeg"] if not typed.startswith("codec") else []), typed])


def test_rate_and_target_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="type only one of them"):
        read_bench(["codec=jpeg", "rate=10", "bpp=0.5"])


def test_a_codec_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    (codec,) = codecs("codec=./mine.py:Mine", "codec.options.depth=3")
    assert codec.name == "Mine[depth=3]"
    assert codec.use == f"{tmp_path}/mine.py:Mine"
    assert dict(codec.options) == {"depth": 3}


@pytest.mark.parametrize(
    "name", ["with space", "com,ma", "quo'te", 'dou"ble', "doll${ar}", "back\\slash", "a=b", "[x]"]
)
def test_paths_are_taken_as_typed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    bench = read_bench([f"codec={folder}/mine.py:Mine,jpeg", f"data=folder:{folder},samples", f"root={folder}"])
    assert {codec.use for codec, _ in bench.grid} == {"jpeg", f"{folder}/mine.py:Mine"}
    assert [dict(data.options).get("path") for _, data in bench.grid][:2] == [str(folder), None]
    assert bench.root == folder
    assert dict(read_bench(["codec=jpeg", "data=kodak", f"data.path={folder}"]).grid[0][1].options)["path"] == str(
        folder
    )


def test_a_comma_still_separates_where_no_such_folder_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = read_bench(["codec=jpeg", f"data=folder:{tmp_path}/a,folder:{tmp_path}/b"])
    assert [dict(data.options)["path"] for _, data in bench.grid] == [f"{tmp_path}/a", f"{tmp_path}/b"]


@pytest.mark.parametrize("typed", ["timeout=-1", "timeout=true", "timeout=inf", "timeout=[1]", "timeout=ever"])
def test_a_limit_that_is_no_number_of_seconds(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"timeout=.* must be seconds for each task"):
        read_bench(["codec=jpeg", typed])


def test_a_limit_needs_a_process_that_can_be_ended() -> None:
    assert read_bench(["codec=jpeg", "timeout=0.5"]).timeout == 0.5
    assert read_bench(["codec=jpeg", "timeout=0", "workers=0"]).timeout == 0
    assert read_bench(["codec=jpeg"]).timeout is None
    with pytest.raises(ConfigError, match=r"timeout=3 needs a worker process.* workers=0 has none"):
        read_bench(["codec=jpeg", "timeout=3", "workers=0"])


def test_two_curves_must_not_share_a_name(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(MINE)
    with pytest.raises(ConfigError, match="two curves would have the name 'Mine'"):
        read_bench([f"codec={tmp_path}/a.py:Mine,{tmp_path}/b.py:Mine"])


def test_a_run_may_be_called_by_a_number() -> None:
    assert read_bench(["codec=jpeg", "run=2024"]).run == "2024"
    assert read_bench(["codec=jpeg", "run=null"]).run is None


@pytest.mark.parametrize("name", registry.names("codec"))
def test_every_codec_has_rate_points_by_its_own_name_too(name: str) -> None:
    """``codec=lic-tcm`` names a class that ships under other names only: for each width a file."""
    [codec] = read_bench([f"codec={name}", "data=samples", "weights=random"]).codecs
    assert codec.rates or rate_of(codec.cls) is None or rate_of(codec.cls).points


@pytest.mark.parametrize("name", [name for name in available("codec") if name != "own"])
def test_every_codec_file_composes(name: str) -> None:
    (codec,) = codecs(f"codec={name}")
    assert codec.name == name
    assert codec.title
    assert codec.rates


def test_help_explains_every_setting_from_the_file_that_has_their_defaults() -> None:
    """One place: `run --help` prints ``conf/config.yaml``, and nothing of it may be missing or made up."""
    text = "\n".join(settings_help(120))
    explained = dict(re.findall(r"^  ([\w.]+)=(\S*) ", text, re.M))
    short = {f"runner.{name}": name for name in ("device", "workers", "workers_per_device")}
    short |= {"metrics.names": "metrics"}
    wanted = {short.get(name, name) for name in SETTINGS} - {"metrics.available"}
    of_launchers = {name for name in wanted if name.startswith("runner.")}  # explained in the files of conf/runner
    stated = {name for file in ("slurm", "ray") for name in yaml.safe_load(conf_file("runner", file).read_text())}
    assert {name.removeprefix("runner.") for name in of_launchers} | {*KEYS["runner"]} == stated
    wanted -= of_launchers
    assert set(explained) == wanted | {"codec.options.NAME", "data.options.NAME"}
    plain = yaml.safe_load((conf_folder() / "config.yaml").read_text())
    runner = yaml.safe_load((conf_folder() / "runner" / "local.yaml").read_text())
    defaults = {name: value for entry in plain["defaults"][1:] for name, value in entry.items()} | plain | runner
    for name, stated in explained.items():
        if name in defaults:
            assert yaml.safe_load(stated) == defaults[name]
    flowed = re.sub(r"\s+", " ", text)
    for example in re.findall(r"such as ([\w.]+=\S+)", flowed):
        key = example.partition("=")[0]
        assert key in SETTINGS or key.startswith(("codec.options.", "data.options.")), example
        if key in ("rate", "bpp", "seed", "points", "tolerance", "decodes", "limit", "batch", "verify", "timeout"):
            read_bench(["codec=jpeg", example, *(["bpp=0.5"] if key == "tolerance" else [])])
    assert len(re.findall("such as", flowed)) == len(explained)


def test_what_other_tools_call_our_names_is_one_of_ours() -> None:
    known = {
        "codec": registry.names("codec") + available("codec"),
        "metric": registry.names("metric"),
        "command": ["fetch", "ls", "figure", "run", "show"],
        "setting": SETTINGS,
    }
    for kind, words in CALLED.items():
        assert set(words.values()) <= set(known[kind])
        assert not set(words) & set(known[kind])
