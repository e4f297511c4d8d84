"""What is typed of a codec in an environment of its own, or written into a YAML file, and the reference it becomes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.own import full_path
from rdpbench.paths import conf_folder, read_yaml
from rdpbench.registry import parse
from rdpbench.setting import digits

RECIPE = "recipe/"
IN_REFERENCE = ("source", "sizes")
"""What is typed as an option, and says how a codec runs."""
PLACES = ("images", "streams", "reconstructions", "discard", "captions", "rate", "seed", "device", "python", "source")
"""Placeholders of argument lists; the rate's name and options are placeholders, too."""
SHAPES = ("file", "folder")


@dataclass(frozen=True)
class Declaration:
    """A YAML file of the user's, or a recipe: ``codec=./stable.yaml``, ``codec=recipe/taco``."""

    path: Path
    name: str
    title: str = ""
    paper: str = ""
    use: str = ""
    """A class, ``./taco.py:Official``, beside the file; or ``programs``."""
    python: str = ""
    source: str = ""
    """A folder of sources, of which the state is in the key."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class; what names a file or folder is in the key by its content."""
    rate_field: str = ""
    rates: tuple[float, ...] = ()
    rises: bool = True
    """Do the bytes grow with the rate value?"""
    encode: tuple[str, ...] = ()
    """The program's argument list, with placeholders."""
    decode: tuple[str, ...] = ()
    """The same for the decoder. Without it the encoder writes reconstructions too, and the grade is ``joint``."""
    shape: str = "folder"
    stream: str = "{stem}.bin"
    """The name of an image's bitstream in the folder of streams."""
    reconstruction: str = "{stem}.png"
    wrap: tuple[str, ...] = ()
    """What goes before the argument lists, such as the command line of a container."""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 3600
    """Seconds for one call of a program."""
    time: str = ""
    """A pattern with a group: seconds that the program states in what it prints; ``file`` reads ``STREAM.time``."""

    @property
    def sha256(self) -> str:
        """Hash of all that changes a result, but for paths."""
        kept = ("use", "encode", "decode", "shape", "stream", "reconstruction", "wrap", "env", "rate_field")
        record = {name: getattr(self, name) for name in kept}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def find(name: str) -> Path | None:
    """The file of ``recipe/taco`` or of ``./stable.yaml``; None for what is no such name."""
    if name.startswith(RECIPE) and not name.endswith(".yaml"):
        recipes = {path.stem: path for path in sorted((conf_folder() / "codec" / "recipe").glob("*.yaml"))}
        wanted = name.removeprefix(RECIPE)
        if wanted not in recipes:
            raise UnknownName("recipe", name, [RECIPE + stem for stem in recipes], near=None)
        return recipes[wanted]
    return full_path(name) if name.endswith((".yaml", ".yml")) else None


def read(path: Path) -> Declaration:
    """Read a declaration.

    Raises:
        ConfigError: no such file, a key that nothing reads, or one that is missing.
    """
    if not path.is_file():
        raise ConfigError(f"codec={path}: no such file")
    record = read_yaml(path)
    known = [each.name for each in fields(Declaration) if each.name != "path"]
    if odd := [str(key) for key in record if key not in known]:
        raise UnknownName("key", odd[0], known, f"in {path}")
    record = {key: value for key, value in record.items() if value is not None}
    for key in ("rates", "encode", "decode", "wrap"):
        if key in record and not isinstance(record[key], list):
            raise ConfigError(f"{key} in {path} is {record[key]!r:.80}; write a list: {key}: [first, second]")
    lists = {key: tuple(record[key]) for key in ("rates", "encode", "decode", "wrap") if key in record}
    lists |= {key: tuple(map(str, lists[key])) for key in ("encode", "decode", "wrap") if key in lists}
    places = {key: _place(str(record[key]), path.parent) for key in ("python", "source") if record.get(key)}
    declared = Declaration(**{"path": path, "name": path.stem, **record, **lists, **places})
    if declared.encode and declared.use:
        raise ConfigError(f"{path} names a class (use:) and programs (encode:); leave one of them out")
    if not declared.encode and not declared.use.rpartition(":")[0].endswith(".py"):
        raise ConfigError(
            f"{path} says use: {declared.use!r}; name a class (use: ./mine.py:MyCodec) or programs (encode: [...])"
        )
    if declared.shape not in SHAPES:
        raise ConfigError(f"shape in {path} is {declared.shape!r}; choose from {', '.join(SHAPES)}")
    if bool(declared.rate_field) != bool(declared.rates):
        raise ConfigError(
            f"{path} has {'rate_field' if declared.rate_field else 'rates'} alone; rates go with rate_field"
        )
    _check_files(declared)
    if declared.encode:
        _check_programs(declared)
    return declared


def _place(text: str, folder: Path) -> str:
    """A path of a declaration in full: from the folder that it lies in, or a program on PATH."""
    if os.sep not in text and (program := shutil.which(text)):
        return program
    return str(full_path(text if text.startswith("~") else folder / text))


def _check_files(declared: Declaration) -> None:
    """Raise `ConfigError` for an option that names a file by ``./``, ``../`` or ``~``, and there is none."""
    for name, value in declared.options.items():
        if isinstance(value, str) and value.startswith(("./", "../", "~")) and "{" not in value:
            path = full_path(value if value.startswith("~") else declared.path.parent / value)
            if not path.exists():
                raise ConfigError(f"{name}: {value} in {declared.path}: no such file or folder: {path}")


def _check_programs(declared: Declaration) -> None:
    """Raise `ConfigError` for argument lists that cannot work: before anything runs, not once for each image."""
    named = {*PLACES, *declared.options, *([declared.rate_field] if declared.rate_field else [])}
    used = {}
    for key in ("encode", "decode"):
        words = [*getattr(declared, key), *map(str, declared.env.values())]
        try:
            used[key] = {name for word in words for _, name, _, _ in string.Formatter().parse(word) if name is not None}
        except ValueError as error:
            raise ConfigError(f"{key} in {declared.path}: {error}; a brace that is meant is written twice") from error
        if odd := sorted(used[key] - named):
            raise UnknownName("placeholder", odd[0], named, f"in {key} of {declared.path}")
    needed = {"encode": ("images", "streams", *(() if declared.decode else ("reconstructions",)))}
    needed |= {"decode": ("streams", "reconstructions")} if declared.decode else {}
    for key, names in needed.items():
        if lacking := [name for name in names if name not in used[key]]:
            without = "; without decode: it must write the pictures too" if lacking == ["reconstructions"] else ""
            raise ConfigError(f"{key} in {declared.path} does not use {{{lacking[0]}}}{without}")
    rate = {"rate", declared.rate_field}
    template = f"{{{declared.rate_field}}}"
    if declared.rate_field and not rate & used["encode"] and template not in str(dict(declared.options)):
        raise ConfigError(
            f"encode in {declared.path} uses neither {{rate}} nor {template}, so all of its rate points would be one"
        )


def for_options(declared: Declaration, options: Mapping[str, Any]) -> Declaration:
    """The declaration as options were typed: one rate point if its files are one for each rate and those typed are not.

    Raises:
        ConfigError: a file for each rate, in no folder that exists: a recipe's own, for which none was typed.

    >>> curve = Declaration(Path("x.yaml"), "x", rate_field="ft", rates=(2, 3), options={"checkpoint": "net_{ft}.pt"})
    >>> [for_options(curve, {"checkpoint": name}).rates for name in ("/w/{ft}.pt", "/w/mine.pt")]
    [(2, 3), ()]
    """
    place = f"{{{declared.rate_field}}}"
    of_rates = [name for name, value in declared.options.items() if place in str(value)]
    for name in of_rates:
        if declared.use and place in str(options.get(name)) and name not in files_in(options):
            told = f"{declared.name} needs {name}: {options[name]} names no file in a folder that exists"
            raise ConfigError(f"{told}; write codec.options.{name}=/FOLDER/{Path(options[name]).name}")
    if not of_rates or any(place in str(options.get(name)) for name in of_rates):
        return declared
    return replace(declared, rate_field="", rates=())


def refer(declared: Declaration, python: str, source: str, options: Mapping[str, Any]) -> str:
    """The reference of a declaration, with the interpreter and the sources that were typed in the place of its own.

    Raises:
        ConfigError: a class without an interpreter.
    """
    python, source = python or declared.python, source or declared.source
    if declared.encode:
        if not python and any("{python}" in word for word in (*declared.encode, *declared.decode)):
            raise ConfigError(f"{declared.name} uses {{python}}; write python=~/envs/NAME/bin/python")
        apart = {"python": str(full_path(python)) if python else "", "source": str(full_path(source)) if source else ""}
        return f"{declared.path}:{declared.name}@{json.dumps(apart)}"
    where, _, cls = declared.use.rpartition(":")
    more: dict[str, Any] = {"declared": str(declared.path)}
    if declared.rates:
        more |= {"rate_field": declared.rate_field, "rates": list(declared.rates), "rises": declared.rises}
    return refer_class(str(declared.path.parent / where), cls, python, source, options, more)


def typed_as(reference: str) -> list[str]:
    """What is typed for the codec of a reference.

    >>> typed_as('/home/me/mine.py:Mine@{"python": "/env/bin/python", "source": ""}')
    ['codec=/home/me/mine.py:Mine', 'python=/env/bin/python']
    """
    where, name, text = parse(reference)
    apart = json.loads(text)
    words = [f"codec={where}" if where.endswith(".yaml") else f"codec={where}:{name}"]
    if declared := apart.get("declared", ""):
        words = [f"codec={declared}"]
    words += [f"python={apart['python']}"] if apart.get("python") else []
    return words + [f"codec.options.{name}={apart[name]}" for name in IN_REFERENCE if apart.get(name)]


def refer_class(
    where: str, name: str, python: str, source: str, options: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> str:
    """The reference of a class in another interpreter; paths in full, since rows outlive the folder of a command."""
    if not python:
        raise ConfigError(
            f"{name} runs in an environment of its own, and none is named; write python=~/envs/NAME/bin/python"
        )
    if not full_path(where).is_file():
        raise ConfigError(f"no such file: {full_path(where)}, named by codec={where}:{name}")
    apart: dict[str, Any] = {"python": str(full_path(python)), "source": str(full_path(source)) if source else ""}
    return f"{full_path(where)}:{name}@{json.dumps({**apart, **(more or {}), 'files': sorted(files_in(options))})}"


def refer_pictures(folder: Path, sizes: str) -> str:
    """The reference of a folder of pictures that somebody else made."""
    return f"folder:{folder}@{json.dumps({'sizes': str(full_path(sizes)) if sizes else ''})}"


def files_in(options: Mapping[str, Any]) -> Iterable[str]:
    """The options that name files or folders: what exists, or would with the rate in the place of ``{...}``."""
    for name, value in options.items():
        if isinstance(value, str) and value and (os.sep in value or value.startswith("~") or Path(value).is_file()):
            path = full_path(value)
            if path.exists() or ("{" in path.name and path.parent.is_dir()):
                yield name


def fill_in_rate(codec: Any, field_name: str) -> None:
    """In files of a codec, put its rate in the place of ``{NAME}``: each rate point may have a file of its own."""
    for each in fields(codec):
        path = getattr(codec, each.name)
        if isinstance(path, Path) and f"{{{field_name}}}" in path.name:
            filled = path.name.replace(f"{{{field_name}}}", digits(getattr(codec, field_name)))
            object.__setattr__(codec, each.name, path.with_name(filled))  # a frozen dataclass, while it is built


def in_full(options: Mapping[str, Any], *folders: Path) -> dict[str, Any]:
    """Options with files in full: relative ones from the first folder that has them, or where the command was typed."""
    full = dict(options)
    for name, value in options.items():
        if isinstance(value, str) and value and not value.startswith("~"):
            places = [folder / value for folder in folders if (folder / value).exists()]
            full[name] = str(full_path(places[0])) if places else value
    return full | {name: str(full_path(full[name])) for name in files_in(full)}


def wrapped(words: Sequence[str], folder: Path) -> tuple[str, ...]:
    """A command line in which paths that begin with ``~``, and files beside the declaration, are in full."""
    full = {word: full_path(word if word.startswith("~") else folder / word) for word in words}
    return tuple(str(full[word]) if word.startswith("~") or full[word].is_file() else word for word in words)
