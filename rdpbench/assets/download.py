"""Download one file so that it appears under its name only when it is whole and its hash is right.

A download that is cut, stopped or killed goes on where it was: the bytes lie in ``.NAME.part`` beside the target, and
``.NAME.part.json`` holds what the server said about that version of the file (ETag, Last-Modified, length). Asked for
the rest, a server that has another version by now, or that cannot send pieces, sends all of it, and it starts anew.

Our own, since pooch and torch.hub do not resume, and huggingface_hub resumes by size, whatever the server holds by
then. With any library the rules of RFC 9110 for ``Range`` and ``If-Range`` would be left to write.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from rdpbench.assets.hashes import digests
from rdpbench.errors import MissingNeed
from rdpbench.progress import Progress, Report, show_progress

TIMEOUT_S = 30


class Refused(Exception):
    """Trying again would not help."""


@dataclass(frozen=True)
class Version:
    """What tells one version of a remote file from another, as its server says it."""

    url: str
    etag: str
    modified: str
    length: int
    """0 if it was not said."""

    @property
    def mark(self) -> str:
        """What ``If-Range`` takes; a weak ETag says nothing about single bytes."""
        return self.modified if self.etag.startswith("W/") or not self.etag else self.etag

    def contradicts(self, other: Version) -> bool:
        """Do the two differ in something that both say?"""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.length, other.length))
        return any(mine != theirs for mine, theirs in pairs if mine and theirs)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            fp.close()
            raise Refused(f"it redirects to {printable(newurl)}; from {before} to {after} is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Ask for a file; redirects are followed, but not to where the connection is no longer encrypted."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise Refused("the address must begin with https:// or http://")
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the scheme is checked above)
    answer = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    assert isinstance(answer, http.client.HTTPResponse)
    return answer


def read_head(url: str, answer: http.client.HTTPResponse) -> tuple[int, Version]:
    """Offset of the first byte that comes, and the version that it is of."""
    start, length = 0, answer.length or 0
    if answer.status == http.client.PARTIAL_CONTENT:
        piece = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if piece is None:
            raise Refused("it sends a piece of the file without saying which")
        start = int(piece[1])
        length = (start + length if length else 0) if piece[2] == "*" else int(piece[2])
    elif answer.status != http.client.OK:
        raise Refused(f"it answers {answer.status} {printable(answer.reason)}, not with the file")
    etag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
    return start, Version(url, etag, modified, length)


def reason(error: Exception) -> str:
    """What went wrong, in words that name no class.

    >>> reason(urllib.error.URLError("timed out"))
    'timed out'
    """
    if isinstance(error, urllib.error.HTTPError):
        if "infinite loop" in str(error.reason):
            return f"the server answers {error.code} and redirects without end"
        return f"the server answers {error.code} {printable(str(error.reason))}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return printable(str(error)) or type(error).__name__


def printable(text: str) -> str:
    """What a server wrote, without what would move a terminal's cursor.

    >>> printable("Not\\x1b[2J Found"), len(printable("x" * 1000))
    ('Not[2J Found', 200)
    """
    return "".join(letter for letter in text if letter.isprintable())[:200]


_BLOCK = 1 << 18
_WAITS_S = (1.0, 3.0, 9.0)
"""Before each new try; a try that brings `_ADVANCE` bytes more than any before counts as none."""
_ADVANCE = 1 << 20
_LONGEST_WAIT_S = 60.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Refusals that may be gone a moment later."""


class _Changed(Exception):
    """What is here cannot be continued; the next try starts anew."""


@dataclass(frozen=True)
class _Job:
    url: str
    target: Path
    hashes: dict[str, str]
    size: int | None
    exact: bool
    hint: str


class _Part:
    """The bytes that are here so far, and the version of the file that they are of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self.note = target.with_name(f".{target.name}.part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> Version | None:
        try:
            return Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, version: Version) -> None:
        # In this order: killed in between, no bytes lie under the note of another version.
        self.discard()
        self.note.write_text(json.dumps(asdict(version)))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None,
    size: int | None,
    hint: str,
    progress: Report | None = None,
    md5: str | None = None,
    exact: bool = False,
) -> None:
    """Download ``url`` to ``target``; go on where an earlier try was cut. A target that is right is left alone.

    Two processes may do this at once: the second waits for the first and finds the file.

    Args:
        url: where the file is, ``https://`` or ``http://``.
        target: its path here; folders above it are made.
        sha256: of its bytes; None if nobody published it.
        size: its bytes, or about that; None if nobody knows. What is missing of it must be free on the disk.
        hint: how to get the file by hand, with its size, licence and where to put it; ends each error.
        progress: called after each block, in place of a bar or lines on stderr.
        md5: of its bytes, where that is what was published; checked too.
        exact: ``size`` is not about, but exactly that; a server that announces another is refused before a byte comes.

    Raises:
        MissingNeed: no network, a refusal, a connection cut again and again, other bytes or too little disk.
    """
    hashes = {name: value for name, value in (("sha256", sha256), ("md5", md5)) if value}
    job = _Job(url, target, hashes, size, exact and size is not None, hint)
    part = _Part(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target, part):
            there = target.is_file() and (not job.exact or target.stat().st_size == size)
            if there and digests(target, hashes) == hashes:
                return
            _fetch(job, part, progress)
            _check(job, part)
            with part.path.open("rb+") as opened:
                os.fsync(opened.fileno())  # the name must not outlive the bytes when the power goes
            part.path.replace(target)
            part.discard()
    except (OSError, http.client.HTTPException, Refused) as error:
        raise MissingNeed(f"cannot download {url}: {reason(error)}{_kept(part)}\n{hint}") from error
    except KeyboardInterrupt:
        print(f"download of {target.name} stopped{_kept(part)}", file=sys.stderr)
        raise


@contextlib.contextmanager
def _alone(target: Path, part: _Part) -> Iterator[None]:
    lock = FileLock(target.with_name(f".{target.name}.lock"), poll_interval=0.2)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{target.name} is being downloaded by another process; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        # Whoever still gets in through the removed file finds a target that is right, or starts from nothing.
        if not part.size():
            part.discard()
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _fetch(job: _Job, part: _Part, progress: Report | None) -> None:
    """Bring the part to its full length, in as many tries as that is worth."""
    here = part.size()
    _check_disk(job, (job.size or 0) - here)
    if progress is None:
        sizes = [f"{job.size / 1e6:.1f} MB"] if job.size else []
        sizes += [f"{here / 1e6:.1f} MB are here"] if here else []
        said = f" ({', '.join(sizes)})" if sizes else ""
        print(f"downloading {job.url}{said}", file=sys.stderr, flush=True)
    farthest, failures, reached = here, 0, False
    with show_progress(job.target.name, report=progress) as shown:
        while True:
            try:
                _try(job, part, shown)
                return
            except (OSError, http.client.HTTPException, _Changed) as error:
                if _is_final(error, reached):
                    raise
                reached = True
                if part.size() >= farthest + _ADVANCE:
                    farthest, failures = part.size(), 0
                if failures == len(_WAITS_S):
                    raise Refused(f"{reason(error)} ({failures + 1} tries)") from error
                wait = _wait(error, _WAITS_S[failures])
                failures += 1
                if isinstance(error, urllib.error.HTTPError) and error.code == 416:
                    part.discard()  # the piece that was asked for does not exist: this is no longer the same file
                shown.say(f"  {job.target.name}: {reason(error)}; next try in {wait:.0f} s")
            time.sleep(wait)


def _is_final(error: Exception, reached: bool) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # a refusal is also an answer, with an open connection
        return error.code not in _PASSING and error.code != 416
    # Without any connection at the start there is most likely no network: that is told at once.
    return isinstance(error, urllib.error.URLError | http.client.InvalidURL) and not reached


def _wait(error: Exception, planned: float) -> float:
    if isinstance(error, _Changed):
        return 0
    asked = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    return max(planned, min(float(asked), _LONGEST_WAIT_S)) if asked.isdecimal() else planned


def _try(job: _Job, part: _Part, shown: Progress) -> None:
    """One request for what is missing, and its answer."""
    here, known = part.size(), part.version()
    if known is None or not _may_go_on(job, here, known):
        part.discard()
        here, known = 0, None
    if known and known.length and here == known.length:
        return
    headers = {"User-Agent": "rdpbench"}
    if known and here:
        headers["Range"] = f"bytes={here}-"
        if known.mark:
            headers["If-Range"] = known.mark
    with open_url(job.url, headers) as answer:
        start, version = read_head(job.url, answer)
        if start and (start != here or known is None or version.contradicts(known)):
            part.discard()
            raise _Changed("the file has changed on the server")
        _check_announced(job, answer, version)
        _check_disk(job, (version.length or job.size or 0) - start)
        if start == 0:
            part.begin(version)
        _receive(job, answer, part, start, version.length, shown)


def _may_go_on(job: _Job, here: int, known: Version) -> bool:
    # Where the server gave no mark, the length has to agree, and a hash must tell in the end.
    sure = known.mark or (known.length and job.hashes)
    return bool(known.url == job.url and sure and (not known.length or here <= known.length))


def _check_announced(job: _Job, answer: http.client.HTTPResponse, version: Version) -> None:
    if job.exact and version.length and version.length != job.size:
        raise Refused(f"it announces {version.length} bytes, expected {job.size}: this is another file")
    if job.hashes:
        return
    # Nothing would tell later that these are other bytes, or not all of them.
    if answer.headers.get_content_type() == "text/html" and job.target.suffix not in (".html", ".htm"):
        raise Refused("it answers with a web page")
    if not (version.length or job.exact or answer.chunked):
        raise Refused("it does not say how long the file is, and no hash is known: an early end would not be noticed")


def _receive(job: _Job, answer: http.client.HTTPResponse, part: _Part, here: int, length: int, shown: Progress) -> None:
    whole = length or (job.size if job.exact and job.size else 0)
    cut = None
    with part.path.open("ab") as out:
        while True:
            try:
                # Whatever has come, at most a block: a kill then loses little.
                block = answer.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                cut = error
                break
            if not block:
                break
            here += len(block)
            if whole and here > whole:
                part.discard()
                raise Refused(f"it sends more than the {whole} bytes of the file")
            try:
                out.write(block)
                out.flush()
            except OSError as error:
                raise Refused(f"cannot write {part.path}: {error.strerror or error}") from error
            shown(here, whole)
    # A connection that is cut ends quietly or loudly; after the last byte either will do.
    if here != whole if whole else cut:
        why = f"nothing came for {TIMEOUT_S} s" if isinstance(cut, TimeoutError) else "the connection was cut"
        raise ConnectionError(f"{why} after {here} of {whole or 'unknown'} bytes") from cut


def _check_disk(job: _Job, needed: int) -> None:
    folder = job.target.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MissingNeed(
            f"{job.target.name} needs {needed / 1e6:.0f} MB and {folder} has {free / 1e6:.0f} MB left\n{job.hint}"
        )


def _check(job: _Job, part: _Part) -> None:
    """What lies on the disk is measured and hashed, not what came: bytes of earlier tries are among it."""
    if job.exact and part.size() != job.size:
        size = part.size()
        part.discard()
        raise Refused(f"it gave {size} bytes, expected {job.size}; they are deleted")
    for name, digest in digests(part.path, job.hashes).items():
        if digest != job.hashes[name]:
            with part.path.open("rb") as opened:
                page = "; it begins like a web page" if opened.read(64).lstrip().startswith(b"<") else ""
            size = part.size()
            part.discard()
            raise MissingNeed(
                f"{job.url} gave other bytes: {name} {digest}, expected {job.hashes[name]} ({size} bytes{page}); "
                f"they are deleted\n{job.hint}"
            )


def _kept(part: _Part) -> str:
    with contextlib.suppress(OSError):
        if here := part.size():
            return f"; {here} bytes are kept, and the same command goes on from there"
    return ""
