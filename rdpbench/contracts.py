"""Does a class of the user's do what a codec, metric or dataset must? Asked before anything is coded.

A function for each kind of class lives beside its contract (`faults_of` in ``codecs/contract.py``,
``metrics/contract.py`` and ``datasets/contract.py``); here is what these three share. A fault is a sentence that says
what is missing or odd, and what to write.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

MISSING = object()


def shape_of(cls: type, method: str, arguments: tuple[str, ...], keywords: Iterable[str] = ()) -> Iterator[str]:
    """A fault if a class has no such method, or one that cannot be called so.

    >>> list(shape_of(type("Mine", (), {"decode": lambda self: 0}), "decode", ("data",)))
    ['decode() cannot be called with (data): too many positional arguments; write def decode(self, data)']
    """
    by_name = tuple(keywords)
    words = ", ".join([*arguments, *([f"*, {', '.join(by_name)}"] if by_name else [])])
    write = f"write def {method}(self{', ' if words else ''}{words})"
    function = inspect.getattr_static(cls, method, None)
    if function is None:
        yield f"{method}({words}) is missing; {write}"
        return
    if not callable(getattr(cls, method)):
        yield f"{method} is {getattr(cls, method)!r:.60}, and no method; {write}"
        return
    bound = () if isinstance(function, (staticmethod, classmethod)) else (None,)
    why = refusal(getattr(cls, method), (*bound, *arguments), by_name)
    if why:
        yield f"{method}() cannot be called with ({words}): {why}; {write}"


def refusal(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Iterable[str] = ()) -> str:
    """Why a function cannot be called with these arguments; empty if it can, or if nobody knows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""  # of compiled code
    try:
        signature.bind(*arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return ""


def type_of(
    cls: Any, name: str, types: type | tuple[type, ...], write: str, *, required: bool = False
) -> Iterator[str]:
    """A fault if what a class states is of another type, or if it must state it and does not.

    >>> list(type_of(type("Mine", (), {"unit": 3}), "unit", str, 'unit = "dB"'))
    ['unit is 3 (int); write unit = "dB"']
    """
    value = getattr(cls, name, MISSING)
    if value is MISSING:
        if required:
            yield f"{name} is missing; write {write}"
    elif not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        yield f"{name} is {value!r:.60} ({type(value).__name__}); write {write}"


def texts_in(cls: Any, name: str, write: str) -> Iterator[str]:
    """A fault if what a class states is no list of texts."""
    value = getattr(cls, name, ())
    if isinstance(value, str) or not _all(value, lambda text: isinstance(text, str)):
        yield f"{name} is {value!r:.60}; write {write}"


def needs_in(cls: Any) -> Iterator[str]:
    """A fault if what a class needs is no list of what `rdpbench.needs` has."""
    value = getattr(cls, "needs", ())
    if not _all(value, lambda need: callable(getattr(need, "missing", None))):
        yield f'needs is {value!r:.60}; write needs = (), or such as needs = (rdpbench.needs.Package("scipy"),)'


def abstract_in(cls: type) -> Iterator[str]:
    """A fault if a class cannot be built, since methods of its base are left open."""
    if inspect.isabstract(cls):
        open_ = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        yield f"it is abstract; write its methods {open_}"


def _all(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, (tuple, list, set, frozenset)) and all(map(fits, value))
