"""The command line. Each command imports what it needs when it runs: ``ls`` must answer at once."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import rdpbench
from rdpbench import registry
from rdpbench.config.typed import SETTINGS, plain
from rdpbench.errors import CALLED, SPELLED, ConfigError, RdpbenchError, nearest
from rdpbench.needs import absent
from rdpbench.paths import RUNS, check_variables
from rdpbench.setting import FLAGS, PRESENTED, Presentation

if TYPE_CHECKING:
    from rich.console import Console

    from rdpbench.results.store.calls import Named
    from rdpbench.results.store.store import Store
    from rdpbench.runners.conformance import Check

INTRO = """\
Measure image codecs on rate, distortion and perception.

  rdpbench run                                       seven codecs on embedded images, offline
  rdpbench run codec=webp data=kodak                 a codec on Kodak, at the rate points of its curve
  rdpbench run codec=jpeg,webp rate=20,50,80         native settings
  rdpbench run codec=jpeg,webp bpp=0.25,0.5          target rates, searched per image; search=dataset, pooled: over all
  rdpbench run codec=./mine.py:MyCodec data=folder:pictures metrics=psnr,lpips/alex
  rdpbench run codec=webp data=kodak timing=true     latency: nothing else runs, warm-up, repeats

The same command typed again resumes a run: what is stored is not done again.
Settings are Hydra overrides; `rdpbench run --help` explains each. Runs lie in results/runs; every command that makes or
reads some takes root=FOLDER, or --root FOLDER.
"""


APART = {
    "worker": ("rdpbench.runners.work", "take part in a run that is under way, here or on another machine"),
    "merge": ("rdpbench.results.store.merge", "one run of several, such as those of machines that share no disk"),
    "gc": ("rdpbench.runners.garbage", "remove files of a run that no row refers to"),
    "data": ("rdpbench.datasets.command", "datasets: what is here, fetch, verify, a manifest of your own"),
    "study": ("rdpbench.study.command", "a human study: a pack of pairs for raters, and scores from their votes"),
    "reproduce": ("rdpbench.gate.reproduce", "does this machine give published numbers again?"),
    "figure": ("rdpbench.figures.command", "a paper's figure or table, from published numbers, runs, or both"),
}
"""Commands whose module has ``add_arguments`` and ``run``; it is imported where its command is typed."""
_SWEEPS = "several values with commas are all run, as in codec=jpeg,webp"
_SHOWS = "`rdpbench plan` says what a run would do"
HYDRA = {
    **dict.fromkeys(("-m", "--multirun"), _SWEEPS),
    **dict.fromkeys(("-c", "--cfg", "--info", "-r", "--resolve", "-p", "--package"), _SHOWS),
    **dict.fromkeys(
        ("-cn", "--config-name", "-cp", "--config-path", "-cd", "--config-dir"), "experiment=NAME names a run"
    ),
}
"""Options that users of Hydra type, and what serves here."""
OF_REPORTS = ("out", "author", "images", "limit")
OF_FIGURES = ("over", "bpp", "codec", "metric", "dataset", "style")
EXPLAINED = "settings; `rdpbench run --help` explains them"
SPELT = "settings are written NAME=VALUE, such as codec=webp"
OWN_CODECS = "a codec of your own: its bitstreams are decoded only if you name it"


class Parser(argparse.ArgumentParser):
    """With what was meant behind what it refuses."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("required: COMMAND"):
            self.print_help(sys.stderr)
        if invalid := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            choices = re.findall(r"'(.*?)'", invalid[2])
            called = CALLED["command"].get(invalid[1], "")
            near = [called] if called in choices else nearest(invalid[1], choices)
            message += f"; did you mean {near[0]}?" if near else ""
        if "required: name" in message:  # argparse also asks for what may be left out
            message = f"{message.partition(': name')[0]}: name; `rdpbench ls runs` lists the runs"
        for option in re.findall(r"--[a-z-]+", message.partition("required: ")[2]):
            action = self._option_string_actions[option]
            message += f"; {option} {action.metavar or action.dest.upper()}: {action.help}"
        if valued := re.search(r"argument (\S+): ignored explicit argument '(.*)'", message):
            message = (
                f"{valued[1]} takes no value, found {valued[2]!r}; what a command prints goes into a file by > FILE"
            )
        super().error(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 good, 1 a finding or failed tasks, 2 an error."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    for word in typed:
        if not word.isascii() and word != word.encode(errors="replace").decode():
            print(f"rdpbench: {os.fsencode(word)!r} is not UTF-8: rename the file or folder", file=sys.stderr)
            return 2
    words, root = _take_root(typed)
    if words[:1] in (["show"], ["report"], ["figure"]):
        words = _as_options(words)
    options, rest = _parser(words).parse_known_args(words)
    if hasattr(options, "named"):
        options.named += [word for word in rest if _is_of_codec(word)]
        rest = [word for word in rest if not _is_of_codec(word)]
    # argparse gives up on settings that follow an option: `rdpbench plan codec=webp --json data=kodak`.
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}{_meant(rest, options)}")
    if hasattr(options, "overrides") and (root is None or options.run is not _check):
        options.overrides += [*rest, *([f"root={root}"] if root is not None else [])]
    elif root is not None and (not hasattr(options, "root") or getattr(options, "what", "runs") != "runs"):
        options.parser.error(f"root={root} means nothing here: this command neither makes nor reads runs")
    elif hasattr(options, "root"):
        given = root or options.root
        options.root = Path(RUNS if given in (None, "", "null") else given).expanduser()
    registry.forget()
    try:
        _prepare(options)
        code: int = options.run(options)
        return code
    except (RdpbenchError, ModuleNotFoundError) as error:
        print(f"rdpbench: {_said(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nrdpbench: interrupted; what was finished is stored, the same command goes on from there", file=sys.stderr
        )
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # `rdpbench show | head`: nobody is reading any more
        return 0


def _prepare(options: argparse.Namespace) -> None:
    """What is the same for all commands. Raises `ConfigError`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.casefold().startswith("utf"):
            stream.reconfigure(errors=SPELLED)
    check_variables()
    if hasattr(options, "overrides"):
        options.overrides = plain(options.overrides)


def _said(error: Exception) -> str:
    """What the user is told; a module that no extra brings is a fault of ours, or of the user's code."""
    text = absent(error) if isinstance(error, ModuleNotFoundError) else str(error)
    if text is None:
        raise error
    return text


def _is_of_codec(word: str) -> bool:
    return word.startswith(("codec=", "codec.options.", "python="))


def _take_root(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words without ``root=FOLDER``, ``--root FOLDER`` or ``--root=FOLDER``, and that folder: the last one counts.

    >>> _take_root(["show", "kodak", "root=/big/runs", "--by-tag"])
    (['show', 'kodak', '--by-tag'], '/big/runs')
    """
    left: list[str] = []
    root = None
    for word in words:
        if left and left[-1] == "--root":
            left.pop()
            root = word
        elif word.lstrip("+-").startswith("root="):
            root = word.partition("=")[2]
        else:
            left.append(word)
    return left, root


def _as_options(words: Sequence[str]) -> list[str]:
    """Settings of how results are shown, written as options.

    >>> _as_options(["show", "kodak", "size=page", "notes=true", "siunitx=false"])
    ['show', 'kodak', '--size=page', '--notes']
    """
    options = {f"{name}={value}": [f"--{name}"] * (value == "true") for name in FLAGS for value in ("true", "false")}
    names = {"grades", *PRESENTED, *{"figure": OF_FIGURES, "report": OF_REPORTS}.get(words[0], ())}
    shown = [[f"--{word}"] if word.partition("=")[0] in names and "=" in word else [word] for word in words]
    return [part for word, own in zip(words, shown, strict=True) for part in options.get(word, own)]


def _meant(words: Sequence[str], options: argparse.Namespace) -> str:
    """What to type instead of an option or setting that a command does not have."""
    names = [word.strip("-").partition("=")[0].replace("-", "_") for word in words]
    settings = [name for name in names if name in SETTINGS]
    known = re.findall(r"--[a-z-]+", options.parser.format_help())
    near = nearest(words[0].partition("=")[0], known, cutoff=0.8 if settings else 0.6)
    lone = options.run in (_show, _bd, _verify) and not words[0].startswith("-") and "=" not in words[0]
    several = f"rdpbench report {getattr(options, 'name', '')} {words[0]}"
    for meant, what in (
        (lone and options.run is _bd, f"did you mean --anchor {words[0]}?"),
        (
            lone,
            f"this command takes one run; several in one page: {several}",
        ),
        (words[0] == "--run" and hasattr(options, "name"), f"a run's name stands alone: {options.parser.prog} NAME"),
        (words[0] in HYDRA, f"this is Hydra's, and not needed: {HYDRA.get(words[0])}; {SPELT}"),
    ):
        if meant:
            return f"; {what}"
    if near or not settings:
        if not near and hasattr(options, "overrides"):
            return f"; {SPELT}"
        return f"; did you mean {near[0]}?" if near else ""
    if hasattr(options, "overrides"):
        return f"; settings are written without dashes: {settings[0]}=VALUE"
    return f"; {settings[0]}= is a setting of what makes a run, such as `rdpbench run`"


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """What can be typed; of commands with modules of their own, only of those that these words name."""
    parser = Parser(prog="rdpbench", description=INTRO, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"rdpbench {rdpbench.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, text: str, *, overrides: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, parser=command)
        if overrides:
            where = "settings, explained below" if name == "run" else EXPLAINED
            command.add_argument("overrides", nargs="*", metavar="key=value", help=where)
        return command

    run = add("run", _run, "encode, decode, score; then tables and figures", overrides=True)
    if words[:1] == ["run"] and {"-h", "--help"} & set(words):
        _explain_settings(run)
    plan = add("plan", _plan, "what run would do: cells, tasks left, expected time, what is missing", overrides=True)
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")
    add("score", _score, "score what is stored with more metrics; nothing is encoded", overrides=True)
    regress = add("regress", _regress, "does a run still give the stored curves? never compares times", overrides=True)
    _gate_arguments(regress, add("curves", _curves, "store curves for `rdpbench regress` to compare with"))
    ls = add("ls", _ls, "what exists")
    kinds = ["all", "codecs", "datasets", "metrics", "runs", "experiments", "recipes"]
    ls.add_argument("what", nargs="?", default="all", choices=kinds)
    add(
        "check",
        _check,
        "do a codec, dataset, metrics keep their contracts here? codec=NAME, data=NAME, metrics=NAME",
        overrides=True,
    )
    add("metric", _metric, "now: rdpbench check metrics=all").add_argument("action", nargs="*")
    add("doctor", _doctor, "what this machine can run, and how to get what is missing").add_argument(
        "name", nargs="*", help="all about this codec, dataset or metric"
    )
    show = add("show", _show, "print the tables of a run and draw its figures again")
    verify = add("verify", _verify, "check a run: files, images, and bitstreams decoded in a fresh process")
    report = add("report", _report, "a folder to open in a browser: a run's curves, tables, and the images themselves")
    bd = add("bd", _bd, "every codec of a run against an anchor: BD-rate, BD-metric, crossover rates, pairs of images")
    if "bd" in words:
        bd_arguments(bd)
    for command in (ls, show, verify, report, bd):
        if command is not ls:
            command.add_argument("name", help="the run's name, or its folder")
        where = "where runs lie; or root=FOLDER (default: %(default)s)"
        command.add_argument("--root", metavar="FOLDER", default=RUNS, help=where)
    for name, (module, text) in APART.items():
        command = add(name, partial(_apart, module), text)
        if name in words:
            importlib.import_module(module).add_arguments(command)
    if "report" in words:
        from rdpbench.report.command import add_arguments

        report.set_defaults(named=[])
        add_arguments(report)  # after the name: more names may follow
    if "show" in words:
        _show_arguments(show)
    _verify_arguments(verify)
    return parser


def _verify_arguments(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("--sample", type=_count, default=64, help="bitstreams to decode again (default: %(default)s)")
    verify.add_argument("--all", action="store_true", help="decode all of them")
    verify.add_argument("named", nargs="*", metavar="codec=FILE:CLASS", help=OWN_CODECS)
    verify.add_argument("--seed", type=int, default=0, help="chooses which ones")
    verify.add_argument(
        "--device", default="", metavar="A,B", help="code and decode them on each: which decode what others coded?"
    )


def _gate_arguments(regress: argparse.ArgumentParser, curves: argparse.ArgumentParser) -> None:
    regress.add_argument("--junit", type=Path, metavar="FILE", help="the result as JUnit XML, for CI")
    regress.add_argument("--markdown", type=Path, metavar="FILE", help="the result as Markdown, for a pull request")
    regress.add_argument("--fresh", action="store_true", help="code all images again, even if they are stored")
    curves.add_argument("action", choices=["update"], help="run what is missing and write the curves")
    curves.add_argument("overrides", nargs="*", metavar="key=value", help=EXPLAINED)
    for command in (regress, curves):
        command.add_argument(
            "--curves", type=Path, metavar="FOLDER", help="the folder of curves (default: results/curves)"
        )


def _explain_settings(run: argparse.ArgumentParser) -> None:
    from rdpbench.config.listing import settings_help

    run.formatter_class = argparse.RawDescriptionHelpFormatter
    width = min(shutil.get_terminal_size((120, 24)).columns, 140)
    run.epilog = "\n".join(["settings with their defaults (null: none)", *settings_help(width)])


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _console() -> Console:
    from rich.console import Console

    # Rich cuts tables to 80 columns where there is no terminal; files and pipes take any width.
    return Console() if sys.stdout.isatty() else Console(width=200)


def _run(options: argparse.Namespace) -> int:
    from rdpbench.runners.server import start_early

    start_early(options.overrides)  # it imports in another process what this one imports next
    return _outcome(options, encode=True)


def _score(options: argparse.Namespace) -> int:
    return _outcome(options, encode=False)


def _outcome(options: argparse.Namespace, *, encode: bool) -> int:
    from rdpbench.api import run_benches

    return int(any(outcome.wrong for outcome in run_benches(options.overrides, _console(), encode=encode)))


def _plan(options: argparse.Namespace) -> int:
    from rdpbench.config.bench import read_benches
    from rdpbench.runners.execute import seats_of, store_of
    from rdpbench.runners.plan import as_json, lines, make_plan

    benches = [replace(bench, download=False, dry=True) for bench in read_benches(options.overrides)]
    if whole := [bench.search for bench in benches if bench.targets and bench.search != "image"]:
        raise ConfigError(
            f"search={whole[0]} decides the settings while it runs; plan it with rate=, or use search=image"
        )
    plans = [(bench, store, make_plan(bench, store)) for bench in benches for store in [store_of(bench)]]
    if options.json:
        shown = [as_json(plan, store) for _, store, plan in plans]
        print(json.dumps(shown[0] if len(shown) == 1 else shown, indent=1))
    else:
        told = [lines(plan, store, len(seats_of(bench)), bench.device) for bench, store, plan in plans]
        print("\n\n".join(map("\n".join, told)))
    return 0


def _ls(options: argparse.Namespace) -> int:
    from rdpbench.config.listing import listing

    print("\n".join(listing(options.what, options.root)))
    return 0


def _metric(_: argparse.Namespace) -> int:
    raise ConfigError("metrics are checked by another command now; type: rdpbench check metrics=all")


def _check(options: argparse.Namespace) -> int:
    """A card for each codec, dataset and metric that is named, or the values that shipped metrics must give."""
    from tempfile import TemporaryDirectory

    from rdpbench.codecs.contract import facts_of
    from rdpbench.config.bench import read_bench, read_benches
    from rdpbench.config.typed import split_names
    from rdpbench.datasets.contract import dataset_of
    from rdpbench.runners.conformance import PROOFS, conform, conform_dataset, conform_metric

    metrics = [name for word in options.overrides if word.startswith("metrics=") for name in word[8:].split(",")]
    of_data = [word for word in options.overrides if not word.startswith(("metrics=", "codec"))]
    words = [word for word in options.overrides if not word.startswith(("metrics=", "codec=", "data"))]
    named = [word.partition("=")[2] for word in options.overrides if word.startswith("codec=")]
    codecs = [name for value in named for name in split_names("codec", value)]
    sets = any(word.startswith("data") for word in of_data)
    if not metrics and not codecs and not sets:
        raise ConfigError(
            "check what? type rdpbench check codec=NAME, codec=./mine.py:MyCodec, data=./mine.py:MySet, or metrics=all"
        )
    failed = 0
    for name in codecs:
        print(f"codec {name}")
        with TemporaryDirectory() as folder:
            wrong = _card(conform(read_bench, [f"codec={name}", *words], Path(folder)))
        grade = PROOFS[facts_of(read_bench([f"codec={name}", *words]).codecs[0].cls).grade]
        print("grade      none" if wrong else f"grade      {grade}")
        failed += wrong
    for bench in read_benches([*of_data, "codec=jpeg", "metrics=psnr"]) if sets else ():
        for _, setting in bench.grid:
            print(f"dataset {setting.name}")
            failed += _card(conform_dataset(dataset_of(setting), bench.limit))
    for name in metrics:
        print(f"metric {name}")
        failed += _expected_values() if name == "all" else _card(conform_metric(name))
    return 1 if failed else 0


def _card(checks: Iterable[Check]) -> int:
    """Print a line for each check; how many failed."""
    failed = 0
    for check in checks:
        print(f"{check.verdict:5}  {check.name:10}  {check.note}", flush=True)
        failed += check.verdict == "FAILS"
    return failed


def _expected_values() -> int:
    from rdpbench.metrics.self_check import deltas, run
    from rdpbench.results.stats.bd import bd_metric, bd_rate

    checks = [*run(), *deltas(bd_rate, bd_metric)]
    for check in checks:
        state, values = "ok     " if check.ok else "DIFFERS", f"{check.expected:<22.12g} found {check.found:<22.12g}"
        print(f"{state}  {check.name:44}  expected {values} {check.difference:.1e}")
    wrong = sum(not check.ok for check in checks)
    print(f"{len(checks) - wrong} of {len(checks)} as expected")
    return wrong


def _apart(module: str, options: argparse.Namespace) -> int:
    options.read = lambda overrides: importlib.import_module("rdpbench.config.bench").read_bench(overrides)
    code: int = importlib.import_module(module).run(options, _console())
    return code


def _doctor(options: argparse.Namespace) -> int:
    from rdpbench.config.listing import doctor

    print("\n".join(doctor(options.name)))
    return 0


def _show(options: argparse.Namespace) -> int:
    from rdpbench.figures.command import by_tag, show
    from rdpbench.results.stats.current import of_store, read_grades
    from rdpbench.results.stats.meanings import metric_order
    from rdpbench.results.tables import say
    from rdpbench.runners.queue import living

    store = _stored(options)
    contents = store.read()
    before = contents.checksums, {**contents.parts}
    points = of_store(contents, grades=read_grades(options.grades))
    metrics = sorted(points.metrics, key=metric_order)
    console = _console()
    if options.by_tag:
        of_tags = list(by_tag(points, metrics))
        say(console, *of_tags)
        if not of_tags:
            say(
                console,
                f"no image of {options.name} has a tag, such as the photo and text of data=samples; a dataset class of "
                f"yours can give some (docs/own.md). For tables of all images type: rdpbench show {options.name}",
            )
        return 0
    shown = Presentation.read({name: getattr(options, name) for name in PRESENTED})
    written = show(store, contents, points, metrics, console, presented=shown, rows=options.rows)
    say(console, *(f"  {path}" for path in written))
    after = store.read(contents)
    if (after.checksums, after.parts) != before and not living(store.folder):
        # What just ended may have written its files before this call did. What is still under way writes them later.
        say(console, f"{options.name} went on meanwhile; all of it again:")
        return _show(options)
    return 0


def _report(options: argparse.Namespace) -> int:
    from rdpbench.report.command import Decoding, report_command
    from rdpbench.runners.coding import decode_row
    from rdpbench.runners.pool import set_up
    from rdpbench.runners.server import start_server

    if options.images != "none":
        start_server()  # it imports what decodes while this process reads the run
    named = _named([*options.named, *(word for word in options.also if _is_of_codec(word))])
    options.also = [word for word in options.also if not _is_of_codec(word)]
    stores = [_stored(argparse.Namespace(name=name, root=options.root)) for name in (options.name, *options.also)]
    return report_command(options, stores, Decoding(partial(decode_row, codec=named), set_up))


def _bd(options: argparse.Namespace) -> int:
    from rdpbench.figures.command import bd

    return bd(options, _stored(options), _console())


def _regress(options: argparse.Namespace) -> int:
    from rdpbench.gate.command import regress

    files = {"junit": options.junit, "markdown": options.markdown}
    return regress(options.overrides, options.curves, **files, fresh=options.fresh)


def _curves(options: argparse.Namespace) -> int:
    from rdpbench.gate.command import update

    return update(options.overrides, options.curves)


def _verify(options: argparse.Namespace) -> int:
    from rdpbench.runners.execute import cross_devices, verify_store

    chosen = _stored(options), None if options.all else options.sample, options.seed, _named(options.named)
    code = verify_store(*chosen)
    devices = [name.strip() for name in options.device.split(",") if name.strip()]
    return cross_devices(*chosen, devices, _console()) or code if devices else code


def _named(words: Sequence[str]) -> Named:
    """What is typed of codecs of one's own: ``codec=./mine.py:MyCodec``, ``codec.options.NAME=VALUE``."""
    from rdpbench.config.typed import external, split_names, typed_value
    from rdpbench.results.store.calls import Named

    uses, typed = [], []
    settings = dict(word.partition("=")[::2] for word in words)
    options = {key: value for key, value in settings.items() if key.startswith("codec.options.")}
    for word in words:
        key, _, value = word.partition("=")
        names = split_names(key, value) if key == "codec" else []
        for name in names:
            if apart := external(name, settings.get("python", ""), options):
                uses.append(apart["codec.use"])
                typed += [(key.removeprefix("codec.options."), str(apart[key])) for key in apart if "options" in key]
            elif ":" in name:
                registry.load("codec", name)  # a name that is misspelled is told
                uses.append(name)
            else:
                names = []
        if names or (key == "python" and value):
            continue
        if key.startswith("codec.options.") and value:
            typed.append((key.removeprefix("codec.options."), typed_value(value)))
        else:
            raise ConfigError(
                f"{word!r} is no codec of one's own and none of its options; "
                "type codec=FILE.py:CLASS, codec=FILE.yaml, or codec.options.NAME=VALUE"
            )
    return Named(tuple(uses), frozenset(typed))


def _stored(options: argparse.Namespace) -> Store:
    from rdpbench.results.read import open_run

    return open_run(options.name, options.root)


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    from rdpbench.figures.command import add_presentation

    add_presentation(parser)
    parser.add_argument("--grades", default="", metavar="A,B", help="of rates: decoded (default), joint, reported")
    parser.add_argument("--by-tag", action="store_true", help="a table for each kind of image, such as photo and scan")
    parser.add_argument("--rows", action="store_true", help="write rows.csv of a run of more than 100,000 rows, too")


def bd_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench bd RUN --anchor CODEC``, without the run itself."""
    from rdpbench.results.stats.bd import METHODS

    parser.add_argument("--anchor", default="", metavar="CODEC", help="the curve that the others are compared with")
    parser.add_argument("--metric", action="append", default=[], metavar="M", help="repeat for several (default: all)")
    parser.add_argument("--method", default="pchip", metavar="|".join(METHODS), help="(default: %(default)s)")
    parser.add_argument("--matched", action="store_true", help="also image by image, at each point of the anchor")
    parser.add_argument("--crossover", action="store_true", help="also the rates at which a codec crosses the anchor")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables for Markdown")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="write the tables for LaTeX, with booktabs")
