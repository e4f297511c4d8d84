"""Rows have names of files, for they are published; where a file lay, the record of a call says (``sessions/*.json``).

`published` turns paths into names before a row is stored. Who needs a file again looks it up: in what is typed now
(`CodecFiles.of`, `setting_of`), or in the records of the run's calls (`codec_named`, `original_path`). Rows of earlier
versions of rdpbench hold whole paths, and are read as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from rdpbench import own, registry
from rdpbench.assets.hashes import content_sha256
from rdpbench.codecs.contract import facts_of
from rdpbench.errors import CodecError, StoreCorrupt
from rdpbench.provenance import as_typed
from rdpbench.results.store.schema import AS_RAN, Row, Score, place_name
from rdpbench.setting import CodecSetting, digits

if TYPE_CHECKING:
    from rdpbench.results.store.store import Store


class CodecFiles(NamedTuple):
    """Where the files of a codec lie: what it was called with, and the folder of its class."""

    root: str
    """Empty for a codec that ships."""
    given: tuple[tuple[str, str], ...]
    """Options that are paths, in full; those of one option that have one name are numbered."""

    @classmethod
    def of(cls, use: str, options: Mapping[str, Any]) -> CodecFiles:
        """Of a codec as it is named, with its options."""
        given: list[tuple[str, str]] = []
        for option, value in options.items():
            paths = [leaf for leaf in own.leaves(own.mapped(value, str)) if _is_path(leaf)]
            names = [PurePath(path).name for path in paths]
            for number, (path, name) in enumerate(zip(paths, names, strict=True)):
                given.append((option if names.count(name) == 1 else f"{option}.{number}", path))
        return cls(_root("codec", use), tuple(given))

    def name(self, path: str) -> str:
        """What a row calls a file: by the option that it is, or lies below; else from the folder of the class."""
        for option, given in self.given:
            if path == given or path.startswith(f"{given}/"):
                return f"{option}={PurePath(given).name}{path.removeprefix(given)}"
            if _is_of(given, path):
                return f"{option}={PurePath(path).name}"
        return os.path.relpath(path, self.root or "/")

    def path(self, name: str) -> Path:
        """Where the file lies that a row calls so; a file or folder that an option names may have another name now."""
        option, _, rest = name.partition("=")
        given = [path for of, path in self.given if of == option]
        first, _, below = rest.partition("/")
        same = [str(PurePath(path).with_name(first)) for path in given if _is_of(PurePath(path).name, first)]
        same = same or (given if len(given) == 1 else [])
        return Path(same[0], below) if same else Path(self.root or "/", name)


def _is_of(given: str, path: str) -> bool:
    """Is it what an option names, where ``{...}`` stands for a rate, which may have a file of its own?"""
    words = re.split(r"\{\w+\}", given)
    return re.fullmatch("[^/]*".join(map(re.escape, words)), path) is not None


@cache
def _root(kind: registry.Kind, reference: str) -> str:
    where, name, _ = registry.parse(reference)
    if where == "folder":
        return name
    place = registry.own_place(kind, reference)
    if not place or place.endswith((".py", ".yaml")):
        return str(PurePath(place).parent) if place else ""
    source = own.read_module(place)
    return str(source.root) if source else ""


def _is_path(value: object) -> bool:
    return isinstance(value, str) and PurePath(value).is_absolute() and bool(PurePath(value).name)


def _named(value: Any, name: Callable[[str], str] = lambda path: PurePath(path).name) -> Any:
    """A value with names in the place of paths."""
    return own.mapped(value, str, text=lambda text: name(text) if _is_path(text) else text)


def name_of(use: str) -> str:
    """What a row says was loaded.

    >>> name_of("/home/me/mine.py:Mine"), name_of('/a/b.py:B@{"python": "/env/bin/python"}'), name_of("jpeg")
    ('mine.py:Mine', 'b.py:B@{"python": "python"}', 'jpeg')
    """
    if ":" not in use:
        return use
    where, name, apart = registry.parse(use)
    more = f"@{json.dumps(_named(json.loads(apart)))}" if apart else ""
    return f"{_named(where)}:{_named(name)}{more}"


def options_named(options: Mapping[str, Any], keyed: Mapping[str, Any]) -> dict[str, Any]:
    """Options with names in the place of paths.

    A file or folder is in the coder by its content, whatever its path. A path that is ``keyed`` as it is written counts
    by that, so a hash tells it from others of its name.
    """
    return {name: _named(value, place_name) if name in keyed else _named(value) for name, value in options.items()}


@lru_cache(256)
def _held(setting: CodecSetting) -> tuple[CodecFiles, dict[tuple[str, Any], str]]:
    """Where a codec's files lie, and what is written in a row for what: of the environment, and of paths."""
    files_of = CodecFiles.of(setting.use, dict(setting.options))
    paths = {path: PurePath(path).name for _, path in files_of.given}
    folders = {f"{PurePath(path).parent}/": "" for path in paths} | _above(files_of.root)
    # The longest first: one path may be the start of another.
    ordered = sorted({**folders, **paths}.items(), key=lambda pair: -len(pair[0]))
    return files_of, {**dict(setting.typed), **{("", path): name for path, name in ordered}}


def _above(root: str) -> dict[str, str]:
    """A folder and those above it, as they are named from it; not what every machine has, such as ``/home``."""
    folders = [PurePath(root), *PurePath(root).parents] if root else []
    return {f"{folder}/": "../" * steps for steps, folder in enumerate(folders) if len(folder.parts) > 2}


FROM_ENVIRONMENT = "options with what the environment held"
"""In the coder of a row whose options were typed as ``${oc.env:NAME}``: a hash of them, to tell two values apart."""


def published(row: Row, setting: CodecSetting, image: Path | None = None) -> Row:
    """A row as it is stored: with names in the place of paths, and what was typed in that of what the environment held.

    What was typed is such as ``${oc.env:TOKEN}``. ``image`` is where the row's image lies, which an error may say.
    """
    files_of, held = _held(setting)
    if image and row.error:
        held = {("", str(image)): row.path, **held}
    if not held:
        return row
    told, configuration, files = (json.loads(text or "{}") for text in (row.options, row.configuration, row.files))
    ran = configuration.pop(AS_RAN, None)
    typed = {name: text for (name, _), text in setting.typed if name in told}
    configuration = options_named(configuration, configuration)
    coder = as_typed(json.loads(row.coder), dict(setting.typed))
    if as_typed(configuration, dict(setting.typed)) != configuration:
        # Not what the environment held, yet two values are two editions. The key tells no less of it.
        coder[FROM_ENVIRONMENT] = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:8]
    configuration |= {AS_RAN: _named(ran)} if ran else {}
    texts: dict[str, Any] = {
        # An option that is a path is made absolute, so that the value is a part of it, or is written otherwise.
        "options": options_named(told, configuration) | typed,
        "configuration": as_typed(configuration, held),
        "coder": coder,
        "info": as_typed(json.loads(row.info), held),
        "files": {name: files[path] for name, path in sorted((files_of.name(path), path) for path in files)},
    }
    shown: dict[str, Any] = {name: json.dumps(value) for name, value in texts.items()}
    shown |= {name: as_typed(getattr(row, name), held) for name in ("error", "command")}
    return replace(row, use=name_of(row.use), **shown)


def score_published(score: Score) -> Score:
    """A score as it is stored: what a metric of the user's says names files from the folder of its class."""
    if ":" not in score.metric or not (score.error or score.note):
        return score
    root = _root("metric", registry.metric_places.get(score.metric, score.metric))
    held = {("", path): text for path, text in _above(root).items()}
    return replace(score, error=as_typed(score.error, held), note=as_typed(score.note, held))


# Looked up in what calls noted


def codec_named(folder: Path | None, row: Row) -> tuple[str, dict[str, Any]] | None:
    """A row's codec and its options with whole paths, as the last call that names them says; None if none does.

    Two files may have one name, so a call comes first that states the row's coder, which has the hashes of all.
    """
    use, options, coder = name_of(row.use), json.loads(row.options or "{}"), json.loads(row.coder or "{}")
    keyed = {name: value for name, value in json.loads(row.configuration or "{}").items() if name != AS_RAN}
    named = [
        (called, given, stated.items() <= coder.items())
        for _, called, given, stated in (_calls(folder) if folder else ())
        if name_of(called) == use and options_named(given, keyed) == options_named(options, keyed) and _is_here(called)
    ]
    for called, given, _ in sorted(named, key=lambda call: not call[2]):
        return called, given
    where = registry.parse(row.use).where
    # Of a file only the name is known; what ships or is installed has no other place.
    return None if where.endswith((".py", ".yaml")) and not PurePath(where).is_absolute() else (row.use, options)


def label_of(row: Row) -> str:
    """A row's codec as its call named it, without the grade that tables add."""
    return row.codec.removesuffix(f" ({row.grade})")


def codec_now(folder: Path | None, label: str) -> tuple[str, dict[str, Any]] | None:
    """What a label stands for, with whole paths: what the last call took for it, of what is here; None if none is.

    Two files in different folders may have one label.
    """
    for called_so, use, given, _ in _calls(folder) if folder else ():
        if called_so == label and _is_here(use):
            options = {name: own.mapped(value, str, text=_filled) for name, value in given.items()}
            if all(is_of_rates(path) or Path(path).exists() for _, path in CodecFiles.of(use, options).given):
                return use, options
    return None


def is_of_other_files(folder: Path | None, row: Row) -> bool:
    """Is a file that its rate point has for itself, where the last call of its label has it, not the one that coded it?

    Of a file that is gone nobody can tell, so it is none.
    """
    _, options = codec_now(folder, label_of(row)) or ("", {})
    stated = json.loads(row.coder or "{}")
    held = {f"file {name}": _content(value, row) for name, value in options.items() if is_of_rates(value)}
    return any(content and content != stated.get(name, content) for name, content in held.items())


def is_of_rates(value: object) -> bool:
    """Is there a file for each rate point, as in ``net_{quality}.pt``?

    >>> is_of_rates("net_{quality}.pt"), is_of_rates("${oc.env:NET}")
    (True, False)
    """
    return re.search(r"\{\w+\}", str(value)) is not None


def _filled(text: str) -> str:
    """With what the environment holds, of which the record has what was typed."""
    return _FROM_ENVIRONMENT.sub(lambda name: os.environ.get(name[1], name[0]), text)


def _is_here(use: str) -> bool:
    where = registry.parse(use).where
    return not PurePath(where).is_absolute() or Path(where).is_file()


def _calls(folder: Path) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """The codecs that calls of a run named: label, what it was, options, coder; those of the newest call first."""
    for path in sorted((folder / "sessions").glob("*.json"), reverse=True):
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            for label, codec in _of_call(path, "codecs").items():
                yield label, str(codec["use"]), dict(codec["options"]), dict(codec["coder"])


@lru_cache(1024)
def _of_call(record: Path, what: str) -> Any:
    """A part of a record; nothing is known of one that is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(record.read_text(encoding="utf-8"))[what]
    return {}


def stated_source(row: Row) -> str:
    """Hash of the file that a codec of the user's was, when it made a row."""
    try:
        return str(json.loads(row.coder).get("source_sha256", ""))
    except (ValueError, AttributeError):
        return ""


# A codec of one's own is named again


@dataclass(frozen=True)
class Named:
    """What the user says of codecs that are not ours, to decode rows that anybody may have written."""

    uses: tuple[str, ...] = ()
    """Classes of one's own, as ``./mine.py:MyCodec``."""
    options: frozenset[tuple[str, Any]] = frozenset()
    """Options and their values: texts as they were typed, lists and mappings as `own.mapped` has them."""


NOBODY = Named()


def setting_of(store: Store, row: Row, named: Named = NOBODY) -> CodecSetting:
    """The codec setting that made a row, as far as the row may say it.

    A row says which codec that ships or is installed, and its options. A class of one's own is taken from ``named``
    alone: the one of the row's class name and source. What is no number or yes/no may name a program or a file, so a
    codec that does not ship gets texts only as its defaults and as the user typed them. Of a file a row has the name:
    where it lies is typed, too, or is what the run's calls say of weights for a codec that ships.

    Raises:
        CodecError: the user must name the codec or the option first.
    """
    options = json.loads(row.options)
    if not isinstance(options, dict):
        raise CodecError(f"the options of the row are no list of names: {row.options!r:.80}")
    options = {name: _typed(row, name, value, named) for name, value in options.items()}
    use = _named_use(row, named) if ":" in row.use else row.use
    if use in registry.BUILTIN["codec"]:
        return CodecSetting(row.codec, use, tuple(sorted(_with_weights(store, row, options, named).items())), ())
    cls = registry.load("codec", use)
    fields, stated = getattr(cls, "__dataclass_fields__", {}), json.loads(row.coder or "{}")
    for name, value in options.items():
        harmless = _is_harmless(value)
        typed = [text for option, text in named.options if option == name and _means(text, value)]
        typed.sort(key=lambda text: _content(text, row) != stated.get(f"file {name}"))  # two may have one name
        default = own.default_of(cls, name) if name in fields else None
        if typed or (name in fields and _means(default, value) and not harmless):
            options[name] = typed[0] if typed and not harmless else value if harmless else default
        elif not harmless:
            raise CodecError(
                f"not decoded: option {name} of {use} may name a program or a file, and a row says {value!r:.80}; "
                f"type it if it is yours: codec.options.{name}=..."
            )
    options = {name: own.mapped(value, str) for name, value in options.items()}
    if registry.own_place("codec", use):
        try:
            options = own.absolute(cls, options)
        except OSError as error:
            raise CodecError(f"not decoded: {error}") from error
    return CodecSetting(row.codec, use, tuple(sorted(options.items())), ())


def _content(typed: Any, row: Row) -> Any:
    """What files hold that were typed for an option, as the coder of a row says it; None if one cannot be read."""

    def sha256(text: str) -> str:
        rate = "" if row.rate is None else digits(row.rate)
        return content_sha256(own.full_path(text.replace(f"{{{row.rate_field}}}", rate)))

    with contextlib.suppress(OSError):
        return json.loads(json.dumps(own.mapped(typed, str, text=sha256)))
    return None


def _is_harmless(value: object) -> bool:
    """Can it name no program and no file?"""
    return all(map(_is_harmless, value)) if isinstance(value, list) else isinstance(value, int | float | None)


def _typed(row: Row, name: str, value: object, named: Named) -> object:
    """A value as it is, or as the user types it where the row has only that it is out of somebody's environment."""
    if not (isinstance(value, str) and "${" in value):
        return value
    typed = [text for option, text in named.options if option == name]
    if not typed:
        raise CodecError(
            f"not decoded: option {name} of {row.use:.80} was {value!r:.80}, from the environment where it was coded; "
            f"type its value: codec.options.{name}=..."
        )
    try:
        return json.loads(typed[0]) if isinstance(typed[0], str) else typed[0]
    except ValueError:
        return typed[0]


def _means(typed: object, value: object) -> bool:
    """Is a value what a row says? Of a path a row has the name; earlier versions had it in full."""
    if isinstance(value, list) and isinstance(typed, list | tuple):
        return len(typed) == len(value) and all(map(_means, typed, value))
    if isinstance(value, Mapping) and isinstance(typed, Mapping):
        return typed.keys() == value.keys() and all(_means(typed[name], value[name]) for name in value)
    path = str(own.full_path(typed)) if isinstance(typed, str | PurePath) else ""
    return typed == value or str(typed) == str(value) or str(value) in (path, PurePath(path).name, place_name(path))


def _with_weights(store: Store, row: Row, options: dict[str, Any], named: Named) -> dict[str, Any]:
    """Options in which weights of the user's are paths, as they are typed now, or were when the row was made."""
    takes = facts_of(registry.load("codec", row.use)).takes_own
    typed = {name: str(own.full_path(text)) for name, text in named.options if _means(text, options.get(name))}
    _, called = codec_named(store.folder, row) or ("", options)
    return options | {name: typed.get(name, called[name]) for name in takes if name in called}


def _named_use(row: Row, named: Named) -> str:
    """The user's class of a row's name and source."""
    name, then = registry.parse(row.use).name, stated_source(row)
    of_name = [use for use in named.uses if registry.parse(use).name == name]
    for use in of_name:
        if then and registry.source_sha256("codec", use) == then:
            return use
    if of_name:
        raise CodecError(f"not decoded: {of_name[0]} did not make the row: its source differs")
    raise CodecError(
        f"not decoded: {name!r:.80} is a codec of one's own, which rows cannot load; "
        f"if it is yours, type codec={'FILE.yaml' if '.yaml' in row.use else f'FILE.py:{name:.80}'}"
    )


# Images


def original_path(store: Store, row: Row) -> Path:
    """The file of an image that was coded: a row has its name, and the record of its call says where that lay.

    Raises:
        StoreCorrupt: the record does not say it.
    """
    path = Path(row.path)
    if path.is_absolute():  # of an earlier version
        return path
    record = store.folder / "sessions" / f"{row.session}.json"
    with contextlib.suppress(KeyError, TypeError):
        for data in _of_call(record, "data"):
            if (data["name"], data["root"]) == (row.dataset, row.root):
                return Path(_filled(data["folder"]), path)
    raise StoreCorrupt(f"{record} does not say where {row.path} of {row.dataset} lay. Put it back from a copy")


_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+)\}")
