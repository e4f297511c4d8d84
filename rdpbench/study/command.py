"""``rdpbench study``: a pack of pairs for raters from kept images, scores from votes, and which metric agrees."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rdpbench.errors import ConfigError
from rdpbench.paths import RUNS, write_file
from rdpbench.results import tables
from rdpbench.results.read import open_run, read_results
from rdpbench.results.tables import say
from rdpbench.setting import split_list
from rdpbench.study import scores
from rdpbench.study.pack import Wanted, choose, write
from rdpbench.study.votes import read_key, read_votes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench study``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="export|import|agreement")
    export = actions.add_parser("export", help="write a folder with a voting page, and a key beside it")
    export.add_argument("runs", nargs="+", metavar="RUN", help="runs that kept reconstructions (keep=all)")
    export.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the folder for raters; new or empty")
    export.add_argument("--key", type=Path, metavar="FILE", help="the key, which you keep (default: FOLDER-key.json)")
    export.add_argument(
        "--root", metavar="FOLDER", default=RUNS, help="where runs lie; or root=FOLDER (default: %(default)s)"
    )
    export.add_argument("--codec", default="", metavar="A,B", help="these curves (default: all that kept images)")
    export.add_argument("--bpp", default="", metavar="R,S", help="rates (default: the lowest that all reach)")
    export.add_argument("--tolerance", type=float, default=0.1, help="how far a mean rate may be off (%(default)s)")
    export.add_argument("--dataset", default="", metavar="NAME", help="the dataset, if runs have several")
    export.add_argument("--image", default="", metavar="A,B", help="these images (default: all that were kept)")
    export.add_argument("--sheets", type=int, default=8, help="number of sheets, one for each rater (%(default)s)")
    export.add_argument("--trials", type=int, metavar="N", help="pairs on a sheet (default: all)")
    export.add_argument("--catch", type=int, default=4, metavar="N", help="catch trials on a sheet (%(default)s)")
    export.add_argument("--ties", action="store_true", help="raters may say that they cannot tell")
    export.add_argument("--title", default="Which image is closer?", help="title of the page")
    export.add_argument("--question", default="Which copy is closer to the original?", help="what raters are asked")
    export.add_argument("--seed", type=int, help="seed of order and names (default: random; the key states it)")
    read = actions.add_parser("import", help="scores from votes")
    read.add_argument("votes", nargs="+", type=Path, metavar="VOTES", help="files that the page saved, JSON or CSV")
    read.add_argument("--key", type=Path, required=True, metavar="FILE", help="the key that export wrote")
    read.add_argument("--out", type=Path, metavar="FOLDER", help="write study.md and CSV: scores, raters, opinions")
    read.add_argument(
        "--catch-share", type=float, default=0.75, metavar="S", help="share a rater must get right (%(default)s)"
    )
    agreement = actions.add_parser("agreement", help="which metric of a run ranks images as people do?")
    agreement.add_argument("name", metavar="RUN", help="the run whose scores are compared")
    agreement.add_argument(
        "--opinions", type=Path, required=True, metavar="FILE", help="CSV: image, codec, opinion, and setting or rate"
    )
    agreement.add_argument("--root", metavar="FOLDER", default=RUNS, help="where runs lie (default: %(default)s)")
    agreement.add_argument("--out", type=Path, metavar="FOLDER", help="write agreement.md, agreement.csv and a plot")
    read.add_argument("--keep-failed", action="store_true", help="count raters who missed catch trials, too")


def run(options: argparse.Namespace, console: Console) -> int:
    """Export, import or compare; 1 if votes give no scores, or no metric can be compared.

    Raises:
        RdpbenchError: what cannot be meant, is missing, or breaks a rule.
    """
    return {"export": _export, "import": _import, "agreement": _agreement}[options.action](options, console)


def _export(options: argparse.Namespace, console: Console) -> int:
    seed = secrets.randbits(32) if options.seed is None else options.seed
    stores = [open_run(name, options.root) for name in options.runs]
    chosen = choose(
        [(store, store.read()) for store in stores],
        targets=_rates(options.bpp),
        codecs=split_list(options.codec),
        images=split_list(options.image),
        dataset=options.dataset,
        tolerance=options.tolerance,
    )
    key = options.key or options.out.with_name(f"{options.out.name}-key.json")
    texts = {"title": options.title, "question": options.question, "command": " ".join(_command(options, seed))}
    numbers = {"sheets": options.sheets, "trials": options.trials, "catch": options.catch, "seed": seed}
    lines = write(chosen, Wanted(**texts, **numbers, ties=options.ties), options.out, key)
    say(console, *chosen.notes, *lines)
    say(console, f"for raters: {options.out} (open index.html; ?sheet=2&rater=ann chooses)", f"for you:    {key}")
    say(console, f"then:       rdpbench study import VOTES... --key {key}")
    return 0


def _command(options: argparse.Namespace, seed: int) -> list[str]:
    words = ["rdpbench study export", *options.runs]
    words += [f"root={options.root}"] if str(options.root) != RUNS else []
    for name in ("codec", "bpp", "tolerance", "dataset", "image", "sheets", "trials", "catch"):
        value = getattr(options, name)
        words += [f"--{name} {value}"] if value not in ("", None) else []
    return [*words, *(["--ties"] if options.ties else []), f"--seed {seed}"]


def _import(options: argparse.Namespace, console: Console) -> int:
    if not 0 <= options.catch_share <= 1:
        raise ConfigError(f"--catch-share {options.catch_share:g} is no share, from 0 to 1")
    key = read_key(options.key)
    sheets = read_votes(options.votes, key)
    result = scores.score(key, sheets, least=options.catch_share, keep_failed=options.keep_failed)
    say(console, *scores.all_tables(result), *scores.remarks(result))
    if options.out:
        texts = {"study.md": scores.page(result), "scores.csv": scores.scores_csv(result)}
        texts |= {"raters.csv": scores.raters_csv(result), "opinions.csv": scores.opinions_csv(result)}
        for name, text in texts.items():
            write_file(options.out / name, text)
            say(console, f"  {options.out / name}")
    return 1 if any(group.fit is None for group in result.groups) else 0


def _agreement(options: argparse.Namespace, console: Console) -> int:
    measured = read_results(options.name, per="image", root=options.root)
    opinions = scores.read_opinions(options.opinions)
    both = scores.matched(opinions, measured)
    metrics = [str(name) for name in both if name not in scores.MEANT]
    agreements = scores.agree(both, metrics)
    compared = {each.metric for each in agreements}
    left_out = [name for name in metrics if name not in compared]
    shown = scores.agreement_table(agreements, left_out, len(opinions) - len(both))
    say(console, shown)
    if options.out and agreements:
        texts = {"agreement.md": tables.markdown(shown), "agreement.csv": scores.agreement_csv(agreements)}
        for name, text in texts.items():
            write_file(options.out / name, text)
        plots = scores.agreement_plot(agreements, options.out / "agreement")
        say(console, *(f"  {path}" for path in (*(options.out / name for name in texts), *plots)))
    return 0 if agreements else 1


def _rates(text: str) -> Sequence[float]:
    try:
        rates = [float(part) for part in split_list(text)]
    except ValueError:
        rates = [0.0]
    if any(not 0 < rate < 100 for rate in rates):
        raise ConfigError(f"--bpp {text} must be rates above 0, such as --bpp 0.1,0.3")
    return list(dict.fromkeys(rates))
