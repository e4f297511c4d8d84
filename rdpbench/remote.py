"""Files on servers: one request for a file or the rest of it, and what its answer says of the version of the file."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

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
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            fp.close()
            raise Refused(f"it redirects to {printable(newurl)}, and from {before} to {after} we do not follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Ask for a file; redirects are followed, but not to where the connection is no longer encrypted.

    Raises:
        Refused: another scheme than http and https, here or after a redirect.
        OSError: no connection, and as HTTPError any refusal.
    """
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
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if found is None:
            raise Refused("it sends a piece of the file without saying which")
        start = int(found[1])
        length = (start + length if length else 0) if found[2] == "*" else int(found[2])
    elif answer.status != http.client.OK:
        raise Refused(f"it answers {answer.status} {printable(answer.reason)}, which is no file")
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
