"""Have the next images ready: decode ahead of the codec, and put images of equal size together.

Pillow decodes without holding the interpreter lock, so a thread is enough; worker processes, which each code images of
their own, need no more beside them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from rdpbench.errors import OutOfRange

Item = TypeVar("Item")
Result = TypeVar("Result")


class ahead(Generic[Item, Result], Iterator[Result]):  # noqa: N801 (used like a function)
    """Yield ``load(item)`` in order while a thread does the next ones.

    At most ``depth`` results are ready or in the making beside the one that is out. An exception of ``load`` is raised
    where its result would have come; the next call of ``next`` goes on with the next item. So does one of ``items``,
    which ends the iteration. The threads end with the iteration, with ``close``, or when the object is dropped.

    Args:
        items: what to load; asked for from the thread of the consumer.
        load: called once for each item, in another thread.
        depth: how many results may wait.
        threads: how many items are loaded at once; no more than ``depth``.

    Raises:
        OutOfRange: ``depth`` or ``threads`` below 1.

    >>> with ahead([1, 2, 3], lambda item: item * item) as squares:
    ...     sum(squares)
    14
    """

    def __init__(
        self, items: Iterable[Item], load: Callable[[Item], Result], depth: int = 2, *, threads: int = 1
    ) -> None:
        if depth < 1 or threads < 1:
            raise OutOfRange(f"depth={depth}, threads={threads}: both must be at least 1")
        self._items = iter(items)
        self._load = load
        self._depth = depth
        self._failure: BaseException | None = None
        self._waiting: deque[Future[Result]] = deque()
        self._pool = ThreadPoolExecutor(min(threads, depth), thread_name_prefix="ahead")
        # Without waiting: the last reference may go in a thread of the pool, which cannot wait for itself.
        self._stop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._more = True

    def __iter__(self) -> ahead[Item, Result]:
        return self

    def __next__(self) -> Result:
        self._fill()
        if self._waiting:
            first = self._waiting.popleft()
            self._fill()
            return first.result()
        self.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        raise StopIteration

    def _fill(self) -> None:
        while self._more and len(self._waiting) < self._depth:
            try:
                item = next(self._items)
            except StopIteration:
                self._more = False
            except Exception as error:  # whatever it is, the items before it come first
                self._more, self._failure = False, error
            else:
                self._waiting.append(self._pool.submit(self._load, item))

    def close(self) -> None:
        """Start nothing more and wait for what is in the making."""
        self._more = False
        self._waiting.clear()
        self._stop.detach()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ahead[Item, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Sized2D(Protocol):
    """Such as an `Entry` of the index."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


AnySized = TypeVar("AnySized", bound=Sized2D)


def buckets(entries: Iterable[AnySized], batch: int) -> Iterator[list[AnySized]]:
    """Batches of at most ``batch`` entries of equal height and width; the same entries give the same batches.

    Within a size the order stays. A batch comes as soon as it is full; the rest comes at the end, in the order in
    which the sizes were first met.

    Raises:
        OutOfRange: ``batch`` below 1.

    >>> from types import SimpleNamespace
    >>> entries = [SimpleNamespace(height=size, width=8, id=id) for id, size in enumerate([4, 6, 4, 4, 6, 9])]
    >>> [[entry.id for entry in batch] for batch in buckets(entries, 2)]
    [[0, 2], [1, 4], [3], [5]]
    """
    if batch < 1:
        raise OutOfRange(f"batch={batch}: a batch holds at least 1 image")
    return _buckets(entries, batch)


def _buckets(entries: Iterable[AnySized], batch: int) -> Iterator[list[AnySized]]:
    open_ones: dict[tuple[int, int], list[AnySized]] = {}
    for entry in entries:
        held = open_ones.setdefault((entry.height, entry.width), [])
        held.append(entry)
        if len(held) == batch:
            yield open_ones.pop((entry.height, entry.width))
    yield from open_ones.values()
