"""Make results/published from the shared table of published points; runs without network.

    python benchmarks/build_published.py ../shared/curves/published_curves.csv results/published
    python benchmarks/build_published.py ../shared/curves/published_curves.csv results/published --check

The table's columns are ``codec, variant, dataset, protocol, bpp, metric, value, source, digitised``. What each source
means is written here, once per source: our name of codec, dataset, metric and protocol where it is the same thing, what
its rates count, and what is doubtful. A row is kept, or goes to ``dropped.csv`` with its reason. Files of a dataset and
source that the table has nothing of are left alone: they were added by hand, from the source that they name.

``--check`` writes nothing and says which files differ.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from published_files import check, in_order, write, write_sources
from published_origins import DATASETS, DOUBTS, LEVELS, METRICS, NAMES, ORIGINS, PROTOCOLS, SCALE, Origin, Rule

from rdpbench.gate.curves import rounded
from rdpbench.results.names import family
from rdpbench.results.published import PublishedNumber, PublishedSource, read, read_sources

DROPPED = ("reason", "codec", "variant", "dataset", "protocol", "bpp", "metric", "value", "source", "digitised")


class Unknown(Exception):
    """A row that no rule covers."""


def number(row: Mapping[str, str]) -> PublishedNumber:
    """A row of the table in our words. Raises `Unknown`."""
    source, origin = _origin(row["source"])
    place = row["source"][len(origin.where) :]
    if origin.where.endswith(("results/", "models/hific/")):
        place = f"{origin.where.rpartition(':')[2]}{place}"
    place = place.partition(" (metrics of")[0].replace(" comment", "")
    subject = f"{row['codec']}|{row['variant']}|{place}"
    for rule in origin.rules:
        found = re.match(rule.pattern, subject)
        if found:
            break
    else:
        raise Unknown(f"no rule of {source} covers {subject!r}")
    groups = {name: text or "" for name, text in found.groupdict().items()}
    rate = groups.get("rate")
    dataset = DATASETS[row["dataset"]]
    if source == "diffeic" and dataset == "tecnick":
        dataset = "tecnick@diffeic"
    codec, variant = (template.format(**groups).strip() for template in (rule.codec, rule.variant))
    metric = _metric(source, origin, rule, row["metric"])
    metric = METRICS.get((source, dataset, metric), metric)
    bits = rule.bits or origin.bits
    one = PublishedNumber(
        dataset=dataset,
        source=source,
        codec=codec.lower(),
        variant=variant,
        rate_field=rule.setting,
        rate=None if rate is None else float(LEVELS.get(rate, rate)),
        protocol=PROTOCOLS.get((source, dataset), origin.protocol),
        bpp=rounded(float(row["bpp"])) if row["bpp"] else None,
        bits_kind=bits,
        metric=metric,
        value=rounded(float(row["value"]) * SCALE.get(family(metric), 1)),
        place=place,
        digitised=row["digitised"] == "yes",
        doubtful="",
    )
    return replace(one, doubtful=_doubt(one))


def _origin(source: str) -> tuple[str, Origin]:
    for name, origin in ORIGINS.items():
        if source.startswith(origin.where):
            return name, origin
    raise Unknown(f"no source begins like {source!r}")


def _metric(source: str, origin: Origin, rule: Rule, raw: str) -> str:
    known = {**origin.metrics, **rule.metrics}
    if raw in known:
        return known[raw]
    name = NAMES.get(raw, raw)
    if name in known:
        return known[name]
    return f"{name}{origin.default if origin.default != '@unstated' else f'@{source}'}"


def _doubt(one: PublishedNumber) -> str:
    what = "|".join((one.dataset, one.codec, one.variant, one.metric, one.place))
    return "; ".join(why for source, where, why in DOUBTS if source == one.source and re.match(where, what))


def sort(rows: Sequence[dict[str, str]]) -> tuple[list[PublishedNumber], list[dict[str, str]]]:
    """The numbers to keep, and the rows to drop with their reason."""
    pairs = [(row, number(row)) for row in rows if not _why_not(row)]
    dropped = [{"reason": why, **row} for row in rows if (why := _why_not(row))]
    again = _copies([one for _, one in pairs])
    kept = [one for _, one in pairs if _curve(one) not in again]
    dropped += [{"reason": again[_curve(one)], **row} for row, one in pairs if _curve(one) in again]
    return kept, dropped


def _why_not(row: Mapping[str, str]) -> str:
    if row["codec"] == "PICS-0.5" and row["dataset"] == "CLIC2020-test":
        return "the number of scripts/FID.sh and KID.sh a second time, without its rate"
    if "8bit-decoded" in row["source"] and "_ms-ssim_" in row["source"]:
        return "the file named ms-ssim has the rates, PSNR and MS-SSIM of the file named mse"
    return ""


def _curve(one: PublishedNumber) -> tuple[str, ...]:
    return (
        one.dataset,
        one.source,
        one.codec,
        one.variant,
        family(one.metric),
        one.metric.rpartition("@")[2],
        one.place,
    )


def _copies(found: Sequence[PublishedNumber]) -> dict[tuple[str, ...], str]:
    """Curves that equal another point by point, to six digits, and whose they are.

    CompressAI ran its models on two devices: that those agree makes neither a copy.
    """
    curves: dict[tuple[str, ...], list[PublishedNumber]] = {}
    for one in found:
        curves.setdefault(_curve(one), []).append(one)
    owners: dict[tuple[object, ...], PublishedNumber] = {}
    out = {}
    for key in sorted(curves, key=_rank):
        first = curves[key][0]
        points = sorted((f"{one.bpp or 0:.6g}", f"{one.value:.6g}") for one in curves[key])
        owner = owners.setdefault((key[0], key[4], tuple(points)), first)
        if owner is first or len(points) < 4 or {owner.variant, first.variant} == {"cpu", "cuda"}:
            continue
        whose = f"{owner.source}'s {owner.codec} {owner.variant}".strip()
        out[key] = f"a copy: the same {len(points)} points as {whose}, {owner.place}"
    return out


def _rank(key: tuple[str, ...]) -> int:
    """Who owns a curve: whoever made it. CompressAI's files of papers are copies, and so are C3's baselines."""
    source, _, variant = key[1:4]
    if source == "compressai" and variant.startswith("paper"):
        return 2
    return {"tensorflow": 1, "c3": 3}.get(source, 0)


def build(table: Path, root: Path) -> tuple[int, int]:
    """Write all files below ``root``; how many numbers were kept and dropped."""
    with table.open(encoding="utf-8", newline="") as stream:
        kept, dropped = sort(list(csv.DictReader(stream)))
    about = {
        name: PublishedSource(name, one.shown or one.where.partition(":")[0], one.title, one.counted)
        for name, one in ORIGINS.items()
    }
    old = root / "sources.csv"
    about = {**(read_sources(old) if old.is_file() else {}), **about}
    problems = check(kept, about)
    if problems:
        raise SystemExit("\n".join(problems))
    by_file: dict[tuple[str, str], list[PublishedNumber]] = {}
    for one in kept:
        by_file.setdefault((one.dataset, one.source), []).append(one)
    for (dataset, source), numbers in by_file.items():
        path = root / dataset / f"{source}.csv"
        write(path, numbers)
        if read(path) != sorted(numbers, key=in_order):
            raise SystemExit(f"{path} does not read back as what was written")
    write_sources(old, about.values())
    with (root / "dropped.csv").open("w", encoding="utf-8", newline="") as stream:
        stream.write("# rdpbench-published-dropped v1\n")
        writer = csv.DictWriter(stream, DROPPED, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dropped)
    return len(kept), len(dropped)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path, help="the shared CSV file")
    parser.add_argument("root", type=Path, help="results/published")
    parser.add_argument("--check", action="store_true", help="write nothing; say what differs")
    given = parser.parse_args()
    if not given.check:
        kept, dropped = build(given.table, given.root)
        print(f"{kept} numbers kept, {dropped} rows dropped")
        return 0
    with tempfile.TemporaryDirectory() as made:
        fresh = Path(made)
        (fresh / "sources.csv").write_bytes((given.root / "sources.csv").read_bytes())
        build(given.table, fresh)
        names = sorted(path.relative_to(fresh) for path in fresh.rglob("*.csv"))
        odd = [name for name in names if not _same(fresh / name, given.root / name)]
    print("\n".join(f"differs: {name}" for name in odd) or f"{len(names)} files are what the table gives")
    return 1 if odd else 0


def _same(first: Path, second: Path) -> bool:
    return second.is_file() and first.read_bytes() == second.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
