"""What the user typed: checked, and rewritten into what Hydra understands.

Hydra's override grammar is the user's, so ``codec=jpeg,webp rate=range(10,100,10)`` means what a Hydra user expects.
What it would not understand, or would take apart, is rewritten before Hydra sees it:

``codec=./mine.py:MyCodec``   a class of the user's, or of an entry point; under another interpreter with ``python=``
``codec=./mine.yaml``         a class or programs as a file declares them; ``codec=recipe/NAME``: one that ships
``data=folder:PATH``          any folder
``data=manifest:FILE``        any folder whose files a manifest pins
``metrics=psnr,lpips/alex``   a list, not a sweep; lists may have brackets: ``codec=[jpeg,webp]``
``captions=human,file:PATH``  swept after composing, for codecs that take a caption
``+key=value``                as without plus signs, which are needed for no key

An unknown key is refused, with the nearest known one; Hydra would add it with a plus sign, and ignore it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rdpbench import own, registry
from rdpbench.codecs.contract import OWN_WEIGHTS, option_names, set_elsewhere
from rdpbench.codecs.external import declared
from rdpbench.errors import ConfigError, UnknownName, nearest
from rdpbench.own import full_path
from rdpbench.paths import RUNS, available, conf_folder, experiment, read_yaml, records
from rdpbench.setting import PRESENTED

AXES = ("rate", "bpp", "seed")
"""Expanded after composing, since one compose takes 28 ms."""
LITERAL = ("root", "run", "data.path", "python", "grades", *PRESENTED)
"""Taken as they are typed: folder names may hold spaces, commas, quotes and ``${``, which mean something to Hydra."""


LISTS = (*AXES, "codec", "data", "metrics", "captions", "experiment", "grades")
"""What takes several values, with commas between them."""
SEARCHES = ("image", "dataset", "pooled")
"""What a target rate may be of: each image, the mean of bpp over the dataset, or all its bits over all its pixels."""


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


_FLAG = (lambda value: isinstance(value, bool), "true or false")
CHECKED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "points": (_or_null(_whole(1)), "a whole number from 1, or null for all"),
    "limit": (_or_null(_whole(1)), "a whole number from 1, or null for all"),
    "decodes": (_whole(1), "a whole number from 1"),
    "batch": (_whole(1), "a whole number from 1"),
    "verify": (_whole(0), "a whole number from 0"),
    "runner.workers": (_or_null(_whole(0)), "a whole number from 0, or null for one per core; 0 means this process"),
    "max_failures": (_or_null(_whole(1)), "a whole number from 1, or null for no limit"),
    "runner.workers_per_device": (_whole(1), "a whole number from 1"),
    "timeout": (_or_null(_is_number), "seconds for each task, 0 for no limit, or null for a generous one"),
    "search": (lambda value: value in SEARCHES, " or ".join(SEARCHES)),
    "tolerance": (lambda value: _is_number(value) and value > 0, "a number above 0; 0.1 takes rates 10 % from bpp="),
    "keep": (
        lambda value: value in ("all", "none") or _whole(0)(value),
        "all, none, or a number of images per rate point",
    ),
    "weights": (
        lambda value: value in (None, "official", "random", "random-full"),
        "official, random (tiny networks), or random-full",
    ),
    **dict.fromkeys(("allow_partial", "allow_unreliable", "retry_failed", "download", "figures", "timing"), _FLAG),
}
"""Settings whose values are checked alone: what fits, and what they must be."""
LAUNCHER = ("jobs", "minutes", "partition", "account", "cpus", "gpus", "memory_gb", "parameters", "cluster", "address")
"""What a launcher can be told, as ``runner.jobs=8``."""
SETTINGS = (
    *(
        "codec",
        "data",
        "metrics",
        "runner",
        "experiment",
        "captions",
        "run",
        "root",
        "workers",
        "device",
        "workers_per_device",
        "python",
        "grades",
        *PRESENTED,
    ),
    *AXES,
    *CHECKED,
    *("runner.device", "data.path", "metrics.names", "metrics.available"),
    *(f"runner.{name}" for name in LAUNCHER),
)
"""All that can be typed, but for ``codec.options.*`` and ``data.options.*``, which the classes at hand decide."""


def check_values(composed: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a value that a setting cannot have."""
    for name, (fits, must) in CHECKED.items():
        group, _, key = name.rpartition(".")
        value = composed[group][key] if group else composed[name]
        if not fits(value):
            raise ConfigError(f"{key}={value} must be {must}")


def plain(overrides: Iterable[str]) -> list[str]:
    """Overrides as they are recorded: without Hydra's plus signs, which no key needs, and lists without brackets.

    >>> plain(["+limit=2", "++codec.options.step=3", "codec=[jpeg, webp]"])
    ['limit=2', 'codec.options.step=3', 'codec=jpeg,webp']
    """
    lines = []
    for line in overrides:
        key, sign, value = line.lstrip("+").partition("=") if line.startswith("+") else line.partition("=")
        if key in LISTS and value.startswith("[") and value.endswith("]"):
            value = ",".join(part.strip().strip("'\"") for part in value[1:-1].split(","))
        elif key in LISTS and value.startswith("["):
            raise ConfigError(
                f"{line!r} has no ]; write {key}=A,B or {key}=[A,B] without spaces, or with quotes around"
            )
        lines.append(f"{key}{sign}{value}")
    return lines


def from_keywords(settings: Mapping[str, Any]) -> list[str]:
    """Overrides of what a Python program gives; a list is what has commas between on the command line.

    Raises:
        ConfigError: what could not be typed, such as a class.

    >>> from_keywords({"codec": ["jpeg", "webp"], "limit": None, "timing": True, "codec.options.effort": 6})
    ['codec=jpeg,webp', 'limit=null', 'timing=true', 'codec.options.effort=6']
    """
    return [f"{key}={_as_typed(key, value)}" for key, value in settings.items()]


def _as_typed(key: str, value: object) -> str:
    if isinstance(value, (list, tuple, range)):
        return ",".join(_as_typed(key, part) for part in value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (str, Path, Real)):
        return str(value)
    kind, own = type(value).__name__, ""
    if isinstance(value, type):
        kind, own = "class", f'; yours is named by its file, {key}="./mine.py:{value.__name__}"'
    must = "give text, a number, True or False, a path, or a list of these"
    raise ConfigError(f"{key}={value!r:.60} is a {kind}; {must}{own}")


def runs_of(overrides: Sequence[str]) -> list[list[str]]:
    """Put the overrides of ``experiment=NAME`` first, run by run; what the user typed beside it wins in each.

    >>> len(runs_of(["experiment=taco-a1", "limit=2"])), len(runs_of(["codec=webp"]))
    (3, 1)
    """
    overrides = plain(overrides)
    named = [line.partition("=")[2] for line in overrides if line.startswith("experiment=")]
    own = [line for line in overrides if not line.startswith("experiment=")]
    chosen = [name.strip() for names in named for name in names.split(",")]
    if not chosen and not any(line.startswith(("codec=", "data=")) for line in own):
        chosen = ["default"]
    typed = {line.partition("=")[0] for line in own}
    bases: list[list[str]] = [plain(run) for name in chosen for run in experiment(name)] or [[]]
    return [[line for line in base if line.partition("=")[0] not in typed] + own for base in bases]


class Typed(NamedTuple):
    """What the user typed, taken apart."""

    choices: list[list[str]]
    """What Hydra composes, one list per combination."""
    axes: dict[str, list[float]]
    """Numbers that are swept after composing."""
    metrics: list[str] | None
    captions: list[str]
    literal: dict[str, str | None]
    """What is set as it was typed."""


def split(overrides: Sequence[str]) -> Typed:
    """Take overrides apart.

    Raises:
        ConfigError: a line that is no override, or a sweep of what cannot be swept.

    >>> split(["codec=jpeg,webp", "rate=10,20"])[:2]
    ([['codec=jpeg'], ['codec=webp']], {'rate': [10.0, 20.0]})
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    choices: list[list[str]] = []
    axes: dict[str, list[float]] = {}
    metrics: list[str] | None = None
    captions: list[str] = []
    literal: dict[str, str | None] = {}
    for given in overrides:
        line = re.sub(r"^((?:runner\.)?device)=\[?([^\]]*)\]?$", r"\1='\2'", given)  # a list, and no sweep
        key, _, value = line.partition("=")
        _check_key(line, overrides)
        if key == "metrics" and value not in available("metrics"):
            metrics = list(dict.fromkeys(name.strip() for name in value.strip("[]").split(",") if name.strip()))
            continue
        if key == "captions":
            captions = [name for name in split_names(key, value) if name != "null"]
            continue
        if key in ("codec", "data") or _is_path(key, value):
            names = split_names(key, value)
            if not names:
                raise ConfigError(f"{line!r} has no value; choose from {', '.join(_shown(key))}")
            choices.append([f"{key}={name}" for name in names])
            continue
        if key in LITERAL:
            literal["data.options.path" if key == "data.path" else key] = None if value in ("", "null") else value
            continue
        try:
            parsed = OverridesParser.create().parse_overrides([line])[0]
        except OverrideParseException as error:
            raise ConfigError(
                f"cannot read {line!r}; write {key}=VALUE; a list has no spaces: {key}=A,B; quotes go around "
                f"""spaces and signs: {key}="'...'\""""
            ) from error
        swept = parsed.is_sweep_override()
        values = list(parsed.sweep_string_iterator()) if swept else [parsed.get_value_element_as_str()]
        # Hydra writes a swept true as True; one setting must not have two labels.
        values = [value.lower() if value in ("True", "False") else value for value in values]
        if key in AXES:
            if values != ["null"]:
                axes[key] = [_number(key, text) for value in values for text in value.strip("[]").split(",")]
        elif key == "runner" and values[0] not in available("runner"):
            raise UnknownName("runner", values[0], available("runner"))
        elif len(values) > 1 and not key.startswith(("codec.", "data.")):
            raise ConfigError(f"{key} takes one value, found {value!r}; codec, data, rate, bpp and seed can be swept")
        else:
            choices.append([f"{key}={value}" for value in values])
    return Typed([list(choice) for choice in itertools.product(*choices)], axes, metrics, captions, literal)


def typed_value(text: str) -> Any:
    """A list or mapping that was typed, as options have it; any other text as it is.

    >>> typed_value("[1,a/b.pt]"), typed_value("{x:a/b.pt}"), typed_value("3")
    ((1, 'a/b.pt'), {'x': 'a/b.pt'}, '3')
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    with contextlib.suppress(OverrideParseException):
        if text.startswith(("[", "{")):
            return own.mapped(OverridesParser.create().parse_overrides([f"value={text}"])[0].value(), str)
    return text


def split_names(key: str, value: str) -> list[str]:
    """Split ``codec=`` and ``data=`` at commas by hand; a comma in the path of a file or folder that exists stays."""
    pieces = value.split(",")
    names: list[str] = []
    while pieces:
        # The longest run of pieces that is an existing place; else a single piece.
        ends = (end for end in range(len(pieces), 1, -1) if _exists(key, ",".join(pieces[:end]).strip()))
        end = next(ends, 1)
        names.append(",".join(pieces[:end]).strip())
        del pieces[:end]
    return [name for name in names if name]


def _is_path(key: str, value: str) -> bool:
    """Is it a path to weights, with signs that mean something to Hydra? Plain words and Hydra's own forms are not.

    >>> _is_path("codec.options.checkpoint", "runs/epoch=3.ckpt"), _is_path("codec.options.base", "sd-1.5")
    (True, False)
    """
    simple = re.fullmatch(r"[\w.+-]*|\[.*|['\"].*|\w+\(.*|\{.*\}", value)
    placed = key.startswith("codec.options.") and value.startswith(("~", "/", "./", "../"))
    return placed or (key in OWN_WEIGHTS and not simple)


def _exists(key: str, name: str) -> bool:
    if key in OWN_WEIGHTS:
        return Path(name).expanduser().exists()
    if key == "captions" or (key in ("codec", "data") and name.startswith(("folder:", "manifest:"))):
        kind, _, path = name.partition(":")
        return (key in ("codec", "data") or kind == "file") and Path(path).expanduser().exists()
    where, _, attribute = name.rpartition(":")
    return attribute.isidentifier() and Path(where).expanduser().is_file()


def _shown(key: str) -> list[str]:
    return [name for name in available(key) if name != _OWN]


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    must, example = {
        "bpp": ("a number above 0, of bits per pixel", "0.25,0.5"),
        "seed": ("a whole number from 0", "0,1"),
        "rate": ("a number, in the unit of the codec's own setting", "20,50,80"),
    }[key]
    legal = {"bpp": number > 0, "seed": number >= 0 and number == number // 1, "rate": True}[key]
    if not (math.isfinite(number) and legal):
        text = text.replace("\\", "")  # Hydra's, before a colon
        raise ConfigError(f"{key}={text} must be {must}, such as {key}={example}")
    return number


def rewrite(choice: Sequence[str], python: str = "") -> tuple[list[str], dict[str, Any]]:
    """One combination in the words of Hydra's groups, and what is set after composing; ``python`` as it was typed."""
    typed = dict(line.partition("=")[::2] for line in choice)
    options = {key: value for key, value in typed.items() if key.startswith(_OPTIONS)}
    apart = external(typed.get("codec", ""), python, options)
    words: list[str] = [f"codec={_OWN}"] if apart else []
    settings: dict[str, Any] = dict(apart or {})
    taken = {"codec", *settings, *(f"{_OPTIONS}{name}" for name in declared.IN_REFERENCE)} if apart else set()
    for line in choice:
        key, _, value = line.partition("=")
        if key in taken:
            continue
        if key == "codec" and value not in _shown("codec"):
            if ":" not in value and value not in registry.names("codec"):
                known = {*_shown("codec"), *registry.names("codec")}
                if (file := Path(value).expanduser()).suffix == ".py" and file.is_file():
                    classes = re.findall(r"^class (\w+)", file.read_text(encoding="utf-8", errors="replace"), re.M)
                    raise ConfigError(f"which class of {value}? codec={value}:{' or :'.join(classes) or 'CLASS'}")
                raise UnknownName("codec", value, known, "your own: codec=./my_codec.py:MyCodec")
            registry.source_sha256("codec", value)  # loads it as it is now
            words.append(f"codec={_OWN}")
            settings |= {"codec.name": value.rpartition(":")[2], "codec.use": full_reference(value)}
            # A class that ships under several names of conf, and not under its own, has the rate points of the first.
            rates = [record["rates"] for record in records("codec") if record["use"] == value and record["rates"]]
            settings |= {"codec.rates": rates[0]} if rates else {}
        elif key == "data" and value.startswith(("folder:", "manifest:")):
            kind, _, lies = value.partition(":")
            words.append(f"data={kind}")
            settings[f"data.options.{'path' if kind == 'folder' else 'file'}"] = lies
        elif key == "data" and value not in available("data"):
            if ":" not in value and value not in registry.names("dataset"):
                known = {*available("data"), *registry.names("dataset")}
                place = Path(value).expanduser()
                near = f"folder:{place.parent if place.is_file() else value}" if place.exists() else None
                raise UnknownName(
                    "dataset", value, known, "your own: data=folder:PATH or data=manifest:FILE", near=near
                )
            words += ["data=folder", "~data.options.path"]
            settings |= {"data.use": full_reference(value), "data.name": value.rpartition(":")[2]}
        elif _is_path(key, value):
            settings[key] = value
        elif key.startswith(("codec.options.", "data.options.")):
            words.append(f"++{line}")
        elif key in ("workers", "device", "workers_per_device"):
            words.append(f"runner.{line}")
        else:
            words.append(line)
    return words, settings


_OWN, _OPTIONS = "own", "codec.options."


def external(name: str, python: str, options: Mapping[str, str]) -> dict[str, Any] | None:
    """What to set for a codec in an environment of its own; None for one that runs in ours.

    Args:
        name: what was typed for ``codec=``.
        python: the interpreter that was typed, or empty.
        options: what was typed for options, by ``codec.options.NAME``.

    Raises:
        ConfigError: no such file or recipe, or a file that says what nothing reads; or no interpreter.
    """
    given = {key.removeprefix(_OPTIONS): value for key, value in options.items()}
    if name.startswith("folder:"):
        sizes = given.get("sizes", "")
        folder = full_path(name.removeprefix("folder:"))
        return {"codec.name": folder.name, "codec.use": declared.refer_pictures(folder, sizes)}
    path = declared.find(name)
    if path is None and not (python and name.rpartition(":")[0].endswith(".py")):
        return None
    stated, source = declared.read(path) if path else None, given.pop("source", "")
    root = source or (stated.source if stated else "")
    sources = [full_path(root)] if root else []
    files = declared.in_full(given, Path.cwd(), *sources)
    settings = {f"{_OPTIONS}{key}": value for key, value in files.items() if key in declared.files_in(files)}
    if stated is None or path is None:
        where, _, cls = name.rpartition(":")
        return {**settings, "codec.name": cls, "codec.use": declared.refer_class(where, cls, python, source, files)}
    if stated.name in _shown("codec") or stated.name in registry.names("codec"):
        raise ConfigError(f"name: {stated.name} in {path} is that of a codec that ships; choose another")
    every = declared.in_full(stated.options, path.parent, *sources)
    preset = {key: value for key, value in every.items() if key not in given}
    stated = declared.for_options(stated, {**preset, **files})
    reference = declared.refer(stated, python, source, {**preset, **files})
    about = {"name": stated.name, "title": stated.title, "paper": stated.paper, "rates": list(stated.rates)}
    settings |= {f"codec.{key}": value for key, value in about.items()} | {"codec.use": reference}
    return {f"{_OPTIONS}{key}": value for key, value in preset.items()} | settings


def full_reference(reference: str) -> str:
    """With the full path of a file: rows outlive the folder that a command was typed in."""
    where, _, name = reference.rpartition(":")
    return f"{Path(where).expanduser().resolve()}:{name}" if where.endswith(".py") else reference


def _check_key(line: str, overrides: Sequence[str]) -> None:
    """Raise `ConfigError`, with the nearest key there is, unless something reads this override."""
    key, sign, _ = line.partition("=")
    if key.startswith("~"):
        raise ConfigError(f"{line!r}: a setting cannot be removed; write {key.strip('~')}=VALUE")
    if not sign:
        from rdpbench.results.store.store import Store

        kinds = [kind for kind in ("codec", "data", "experiment") if line in available(kind)]
        kinds += ["metrics"] if line in registry.BUILTIN["metric"] else []
        root = next((word.partition("=")[2] for word in reversed(overrides) if word.startswith("root=")), RUNS)
        kinds += ["run"] if Store(Path(root).expanduser() / line).exists() else []
        such = f"{line}=VALUE" if line in SETTINGS else f"{kinds[0]}={line}" if kinds else "codec=webp or limit=4"
        raise ConfigError(
            f"{line!r} is no override; write key=value, such as {such}; a list has no spaces: codec=jpeg,webp"
        )
    if key == "resume":
        raise ConfigError(
            "a run resumes by itself: type the same command again; retry_failed=true tries failed tasks, too"
        )
    *group, last = key.split(".")
    if key in SETTINGS or (group in (["codec", "options"], ["data", "options"]) and last):
        return
    options = {option: word for kind in ("codec", "data") for option, word in _options_typed(kind, overrides)}
    if group and group[0] in {name.partition(".")[0] for name in SETTINGS}:
        options = {option: word for option, word in options.items() if word.startswith((f"{group[0]}.", "rate"))}
    # What stands after the dots is what was meant: data.protocol is data.options.protocol.
    meant = group[2] if len(group) > 2 else last
    settings = [name for name in SETTINGS if not group or "." not in name or name.startswith(f"{group[0]}.")]
    by_last = {name.rpartition(".")[2]: name for name in settings}
    near = options.get(meant, "")
    for words in (options, by_last) if group else (by_last, options):
        close = nearest(meant, words) if meant != "options" and not near else []
        near = words[close[0]] if close else near
    own = f"{meant} of the codec is set by {near}=; " if options.get(meant) == near == "rate" else ""
    hint = f"{own}`rdpbench run --help` explains each; options are written codec.options.NAME= and data.options.NAME="
    raise UnknownName("setting", key, {*SETTINGS, *(options.values() if group else ())}, hint, near=near)


def _options_typed(kind: Literal["codec", "data"], overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of the codecs or datasets that were typed, as far as these exist, each with what is typed for it."""
    if kind == "codec" and any(line.startswith("python=") for line in overrides):
        return  # its class is not to be imported here
    typed = [line.partition("=")[2] for line in overrides if line.startswith(f"{kind}=")]
    for name in (name for value in typed for name in split_names(kind, value)):
        path = conf_folder() / kind / f"{name.partition(':')[0]}.yaml"
        try:
            use = read_yaml(path)["use"] if path.is_file() else name
            cls = registry.load("codec" if kind == "codec" else "dataset", use)
        except (ConfigError, KeyError, TypeError):  # another message is about these
            continue
        elsewhere = set_elsewhere(cls)
        yield from ((option, elsewhere.get(option, f"{kind}.options.{option}")) for option in option_names(cls) or ())


def explain(message: str) -> ConfigError:
    """Hydra's message without its advice: a plus sign adds what nothing reads."""
    lines = [line for line in message.splitlines() if not line.startswith(("To append to your config", "Or add a"))]
    return ConfigError("\n".join(lines).strip())
