"""Downloads from a real server that cuts, lies, refuses, redirects and changes its mind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rdpbench import progress
from rdpbench.assets import download as module
from rdpbench.assets.download import download
from rdpbench.errors import MissingNeed

ROOT = Path(__file__).parents[2]
BYTES = hashlib.sha256(b"seed").digest() * 30_000  # 960 kB
OTHER = hashlib.sha256(b"other").digest() * 30_000
SHA256 = hashlib.sha256(BYTES).hexdigest()
MD5 = hashlib.md5(BYTES).hexdigest()
CUT = 400_000
HINT = "  size 0.96 MB, licence CC0, put it at /somewhere/file.bin"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(module, "_WAITS_S", (0.0, 0.0, 0.0))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "file.bin"


def get(site, target, **given):
    given = {"sha256": SHA256, "size": len(BYTES), "exact": True, "hint": HINT} | given
    download(given.pop("url", site.url), target, **given)


def fails(site, target, match, **given):
    with pytest.raises(MissingNeed, match=match) as caught:
        get(site, target, **given)
    assert given.get("url", site.url) in str(caught.value)
    assert str(caught.value).endswith(HINT)
    assert not target.exists()
    return str(caught.value)


def cut_once(site, target, monkeypatch):
    """A try that leaves `CUT` bytes."""
    with monkeypatch.context() as patched:
        patched.setattr(module, "_WAITS_S", ())
        site.plan = [site.answer(cut=CUT)]
        fails(site, target, "cut after")
    assert left(target) == PARTS


def left(target):
    return sorted(path.name for path in target.parent.iterdir() if not path.name.endswith(".lock"))


PARTS = [".file.bin.part", ".file.bin.part.json"]


def test_a_whole_file_leaves_nothing_else(site, target, capsys):
    get(site, target, md5=MD5)
    assert target.read_bytes() == BYTES
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]
    assert capsys.readouterr().err == f"downloading {site.url} (1.0 MB)\n"


def test_a_file_that_is_right_is_not_asked_for_and_a_wrong_one_is_replaced(site, target):
    get(site, target)
    get(site, target)
    assert site.asked == ["all"]
    target.write_bytes(OTHER)
    get(site, target)
    assert target.read_bytes() == BYTES
    assert site.asked == ["all", "all"]


def test_a_connection_cut_once_is_continued_without_a_byte_twice(site, target, capsys):
    site.plan = [site.answer(cut=CUT)]
    get(site, target)
    assert target.read_bytes() == BYTES
    assert site.asked == ["all", f"bytes={CUT}-"]
    assert site.served == len(BYTES)
    assert f"cut after {CUT} of {len(BYTES)} bytes; next try in 0 s" in capsys.readouterr().err


def test_a_server_that_always_cuts_is_given_up_but_bytes_stay(site, target):
    site.plan = [site.answer(cut=100_000) for _ in range(4)]
    said = fails(site, target, rf"cut after {CUT} of {len(BYTES)} bytes \(4 tries\)")
    assert f"{CUT} bytes are kept, and the same command goes on from there" in said
    assert len(site.asked) == 4
    assert left(target) == PARTS
    get(site, target)
    assert site.asked[4:] == [f"bytes={CUT}-"]
    assert site.served == len(BYTES)


def test_tries_that_bring_much_do_not_count(site, target, monkeypatch):
    monkeypatch.setattr(module, "_ADVANCE", 100_000)
    site.plan = [site.answer(cut=100_000) for _ in range(9)]
    get(site, target)
    assert target.read_bytes() == BYTES
    assert len(site.asked) == 10


def test_a_server_without_ranges_starts_anew(site, target):
    site.ranges = False
    site.plan = [site.answer(cut=CUT)]
    get(site, target)
    assert target.read_bytes() == BYTES
    assert site.served == len(BYTES) + CUT


@pytest.mark.parametrize("honours", [True, False])
@pytest.mark.parametrize(("etag", "modified"), [('"two"', ""), ("", "Tue, 02 Jan 2024 00:00:00 GMT"), ('W/"two"', "x")])
def test_a_file_that_changes_between_tries_starts_anew(site, target, monkeypatch, honours, etag, modified):
    site.honours_if_range = honours
    site.content = OTHER
    site.etag, site.modified = ('"one"', "") if modified == "" else ("", "Mon") if etag == "" else ('W/"one"', "y")
    cut_once(site, target, monkeypatch)
    site.content, site.etag, site.modified = BYTES, etag, modified
    get(site, target)
    assert target.read_bytes() == BYTES
    # One that does not honour If-Range is asked once more.
    assert site.asked == ["all", f"bytes={CUT}-"] + ["all"] * (not honours)


@pytest.mark.parametrize(
    ("etag", "modified", "mark"),
    [('"one"', "Mon", '"one"'), ("", "Mon", "Mon"), ('W/"one"', "Mon", "Mon"), ('W/"one"', "", None)],
)
def test_only_marks_that_stand_for_every_byte_are_asked_for(site, target, etag, modified, mark):
    site.etag, site.modified, site.plan = etag, modified, [site.answer(cut=CUT)]
    get(site, target)
    assert site.marks == [None, mark]
    assert site.asked == ["all", f"bytes={CUT}-"]


def test_a_file_of_another_length_starts_anew_where_the_server_gives_no_marks(site, target, monkeypatch):
    site.etag = site.modified = ""
    cut_once(site, target, monkeypatch)
    site.content = BYTES + b"more"
    longer = hashlib.sha256(site.content).hexdigest()
    get(site, target, sha256=longer, exact=False)
    assert target.read_bytes() == site.content
    assert site.asked[-1] == "all"


def test_without_marks_and_without_a_hash_nothing_is_continued(site, target):
    site.etag = site.modified = ""
    site.plan = [site.answer(cut=CUT)]
    get(site, target, sha256=None)
    assert site.asked == ["all", "all"]
    site.plan = [site.answer(cut=CUT)]
    target.unlink()
    get(site, target)  # with a hash it may be: the hash tells in the end
    assert site.asked[2:] == ["all", f"bytes={CUT}-"]


def test_a_part_of_another_address_or_without_a_note_is_not_used(site, target, monkeypatch):
    cut_once(site, target, monkeypatch)
    get(site, target, url=site.url + "?mirror")
    assert site.asked[-1] == "all"
    target.unlink()
    (target.parent / PARTS[0]).write_bytes(BYTES[:CUT])
    for note in ("", "{", "[]", '{"url": 1}'):
        (target.parent / PARTS[1]).write_text(note)
        get(site, target)
        target.unlink()
        assert site.asked[-1] == "all"


def test_a_part_that_is_whole_is_only_checked(site, target):
    target.parent.mkdir()
    (target.parent / PARTS[0]).write_bytes(BYTES)
    note = {"url": site.url, "etag": '"one"', "modified": "", "length": len(BYTES)}
    (target.parent / PARTS[1]).write_text(json.dumps(note))
    get(site, target)
    assert site.asked == []
    assert target.read_bytes() == BYTES


def test_416_starts_anew(site, target):
    target.parent.mkdir()
    (target.parent / PARTS[0]).write_bytes(BYTES + b"x")
    note = {"url": site.url, "etag": '"one"', "modified": "", "length": 0}
    (target.parent / PARTS[1]).write_text(json.dumps(note))
    get(site, target)
    assert site.asked == [f"bytes={len(BYTES) + 1}-", "all"]
    assert target.read_bytes() == BYTES
    site.always = site.answer(status=416)
    target.unlink()
    fails(site, target, r"answers 416 .* \(4 tries\)")


@pytest.mark.parametrize(("hashes", "named"), [({}, "sha256"), ({"sha256": None, "md5": MD5}, "md5")])
def test_wrong_bytes_are_deleted_and_the_next_try_starts_clean(site, target, hashes, named):
    site.content = OTHER
    said = fails(site, target, rf"gave other bytes: {named} \w+, expected {MD5 if hashes else SHA256}", **hashes)
    assert f"({len(OTHER)} bytes); they are deleted" in said
    assert list(target.parent.iterdir()) == []
    site.content = BYTES
    get(site, target, **hashes)
    assert site.asked == ["all", "all"]


def test_both_hashes_have_to_agree(site, target):
    fails(site, target, "other bytes: md5", md5="0" * 32)
    assert left(target) == []


def test_a_web_page_instead_of_the_file_is_called_one(site, target):
    site.content = b"<!doctype html> please log in"
    assert "begins like a web page" in fails(site, target, "other bytes", exact=False)
    site.always = site.answer(extra={"Content-Type": "text/html; charset=utf-8"})
    fails(site, target, "answers with a web page", sha256=None, exact=False)


@pytest.mark.parametrize("announced", [len(BYTES) - 1, len(BYTES) + 1])
def test_a_length_that_is_not_the_exact_size_is_refused_before_a_byte_is_kept(site, target, announced):
    site.always = site.answer(announce=announced)
    fails(site, target, f"announces {announced} bytes, expected {len(BYTES)}", sha256=None)
    assert left(target) == []
    assert len(site.asked) == 1


def test_an_empty_answer_is_no_file(site, target):
    site.always = site.answer(announce=0)
    fails(site, target, "cut after 0 of", sha256=None)
    fails(site, target, "does not say how long", sha256=None, size=None)
    fails(site, target, "other bytes", size=None)
    assert left(target) == []


def test_a_size_that_is_not_exact_says_only_what_must_be_free(site, target):
    get(site, target, size=700_000, exact=False)
    get(site, target.with_name("second"), size=None, exact=False)
    assert target.read_bytes() == target.with_name("second").read_bytes() == BYTES


def test_an_announced_length_that_is_too_long_is_a_cut(site, target):
    site.always = site.answer(announce=len(BYTES) + 5)
    site.ranges = False
    fails(site, target, rf"cut after {len(BYTES)} of {len(BYTES) + 5} bytes", exact=False)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_long_is_stopped_at_the_exact_size(site, target, chunked):
    site.content = BYTES + OTHER
    site.always = site.answer(announce=None, chunked=chunked)
    fails(site, target, f"sends more than the {len(BYTES)} bytes")
    assert left(target) == []


def test_a_body_that_is_longer_than_announced_is_read_to_its_announced_end(site, target):
    site.content = BYTES + OTHER
    site.always = site.answer(announce=len(BYTES))
    get(site, target)
    assert target.read_bytes() == BYTES


def test_without_content_length(site, target):
    site.always = site.answer(announce=None)
    get(site, target)
    get(site, target.with_name("about"), exact=False)
    said = fails(site, target.with_name("unknown"), "does not say how long", exact=False, sha256=None)
    assert "an early end would not be noticed" in said
    site.always = site.answer(chunked=True)
    get(site, target.with_name("chunked"), exact=False, sha256=None, size=None)
    assert target.with_name("chunked").read_bytes() == BYTES


@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_without_content_length_is_continued(site, target, chunked):
    site.plan = [site.answer(announce=None, chunked=chunked, cut=CUT)]
    get(site, target)
    assert target.read_bytes() == BYTES
    assert site.asked == ["all", f"bytes={CUT}-"]


def test_chunks_that_are_cut_are_noticed_without_size_and_hash(site, target):
    site.always = site.answer(chunked=True, cut=CUT)
    site.ranges = False
    fails(site, target, f"cut after {CUT} of unknown bytes", exact=False, sha256=None, size=None)


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (410, 1), (500, 4), (503, 4), (429, 4)])
def test_refusals_are_quoted_and_only_passing_ones_are_tried_again(site, target, status, times):
    site.always = site.answer(status=status)
    said = fails(site, target, rf"the server answers {status} No \[31mfile")
    assert "\x1b" not in said  # a server does not write to the user's terminal
    assert len(site.asked) == times
    assert left(target) == []


def test_a_server_that_recovers(site, target, monkeypatch):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(module, "_WAITS_S", (1.0, 3.0))
    site.plan = [site.answer(status=500), site.answer(status=503, extra={"Retry-After": "7"})]
    get(site, target)
    assert target.read_bytes() == BYTES
    assert waited == [1, 7]


def test_an_answer_that_is_no_file(site, target):
    site.always = site.answer(status=203)
    fails(site, target, "answers 203 .* not with the file")
    site.always = site.answer(status=206)
    fails(site, target, "sends a piece of the file without saying which")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_also_when_continuing(site, target, status):
    there = site.answer(status=status, location=site.url + "/there")
    site.plan = [there, site.answer(cut=CUT), there]
    get(site, target)
    assert target.read_bytes() == BYTES
    assert site.asked == ["all", "all", f"bytes={CUT}-", f"bytes={CUT}-"]


def test_redirects_without_end(site, target):
    site.always = site.answer(status=302, location=site.url)
    fails(site, target, "answers 302 and redirects without end")
    assert len(site.asked) < 15


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_lead_to_no_other_kind_of_place(site, target, to):
    site.always = site.answer(status=302, location=to)
    fails(site, target, "redirects to|not allowed")


def test_https_is_checked_and_never_left(secure, site, target, tmp_path, monkeypatch):
    url = f"https://localhost:{secure.server_address[1]}/file.bin"
    fails(secure, target, "CERTIFICATE_VERIFY_FAILED", url=url)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    get(secure, target, url=url)
    assert target.read_bytes() == BYTES
    target.unlink()
    secure.always = secure.answer(status=302, location=site.url)
    fails(secure, target, "from https to http is not followed", url=url)
    assert site.asked == []
    site.always = site.answer(status=302, location=url)
    secure.always = None
    get(site, target)  # upwards it may


def test_other_addresses_are_refused(site, target):
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd"):
        fails(site, target, "must begin with https", url=url)


def test_no_network_is_told_at_once_in_one_message(site, target):
    said = fails(site, target, r"cannot download http://127\.0\.0\.1:9/x: .*refused", url="http://127.0.0.1:9/x")
    assert said.count("\n") == 1
    assert "tries" not in said


def test_a_silent_server(site, target, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    site.plan = [site.answer(cut=CUT, hold=True)]
    get(site, target)
    assert target.read_bytes() == BYTES
    assert site.asked == ["all", f"bytes={CUT}-"]


def test_disk_is_checked_for_what_is_missing(site, target, monkeypatch):
    free = SimpleNamespace(free=len(BYTES) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    fails_with = pytest.raises(MissingNeed, match=r"file\.bin needs 1 MB and .* has 1 MB left")
    with fails_with:
        get(site, target)
    assert site.asked == []
    with fails_with:  # the size that the server says is larger
        get(site, target, size=10, exact=False)
    free.free = 10**9
    cut_once(site, target, monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(BYTES) - CUT))
    get(site, target)
    assert target.read_bytes() == BYTES


def test_a_full_disk_or_a_folder_that_cannot_be_written_is_not_tried_again(site, target, monkeypatch):
    target.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(MissingNeed, match="cannot download"):
        get(site, target)
    target.parent.unlink()
    real = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, block):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: Full(real(self, *a, **k)) if a == ("ab",) else real(self, *a, **k)
    )
    fails(site, target, r"cannot write .*\.file\.bin\.part: No space left on device")
    assert len(site.asked) == 1


# Processes

SCRIPT = """
import sys
from pathlib import Path
from rdpbench.assets.download import download
url, target, sha256, size = sys.argv[1:]
download(url, Path(target), sha256=sha256, size=int(size), exact=True, hint="by hand")
assert "rich" not in sys.modules or sys.stderr.isatty(), "rich is for terminals"
"""


def start(site, target, stderr=subprocess.PIPE):
    line = [sys.executable, "-c", SCRIPT, site.url, str(target), SHA256, str(len(BYTES))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm"}
    return subprocess.Popen(line, env=environment, stderr=stderr, text=stderr == subprocess.PIPE)


def wait_for(what):
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


def holds(target, size):
    part = target.parent / PARTS[0]
    return lambda: part.is_file() and part.stat().st_size == size


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_stopped_download_goes_on(site, target, how):
    site.plan = [site.answer(cut=CUT, hold=True)]
    process = start(site, target)
    wait_for(holds(target, CUT))
    process.send_signal(how)
    _, said = process.communicate(timeout=20)
    assert process.returncode != 0
    assert (f"stopped; {CUT} bytes are kept" in said) == (how == signal.SIGINT)
    assert left(target) == PARTS
    again = start(site, target)
    _, said = again.communicate(timeout=20)
    assert again.returncode == 0, said
    assert said == f"downloading {site.url} (1.0 MB, 0.4 MB are here)\n"
    assert target.read_bytes() == BYTES
    assert site.asked == ["all", f"bytes={CUT}-"]
    assert site.served == len(BYTES)  # not a byte twice
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_of_two_processes_the_second_waits_and_finds_the_file(site, target):
    site.plan = [site.answer(cut=CUT, hold=True)]
    first = start(site, target)
    wait_for(holds(target, CUT))
    second = start(site, target)
    assert second.stderr is not None
    assert "waiting for it" in second.stderr.readline()
    site.go.set()
    for process in (first, second):
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert site.served == len(BYTES)
    assert target.read_bytes() == BYTES


def test_of_two_processes_the_second_goes_on_where_the_first_was_killed(site, target):
    site.plan = [site.answer(cut=CUT, hold=True)]
    first = start(site, target)
    wait_for(holds(target, CUT))
    second = start(site, target)
    assert second.stderr is not None
    assert "waiting for it" in second.stderr.readline()
    first.kill()
    first.communicate()
    second.communicate(timeout=20)
    assert second.returncode == 0
    assert site.served == len(BYTES)


def test_a_terminal_gets_a_bar(site, target):
    site.plan = [site.answer(cut=CUT)]
    ours, theirs = pty.openpty()
    process = start(site, target, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(ours, 4096):
            said += piece
    os.close(ours)
    assert process.wait(20) == 0
    text = said.decode()
    assert "━" in text
    assert "B/s" in text
    assert "cut after 400000 of 960000 bytes" in text


# What is told


def test_plain_lines_tell_rate_and_time_left(site, target, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    get(site, target)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert lines[1].startswith("  file.bin: ")
    assert "of 1.0 MB, " in lines[1]
    assert " MB/s, 0:00:0" in lines[1]
    assert "100 %" in lines[-1]


def test_lines_become_rarer_and_bytes_that_were_here_make_no_speed(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress.show_progress("big") as told:
        for second in range(3601):
            clock[0] = float(second)
            told(10**9 + second * 10**6, 10**10)
    lines = capsys.readouterr().err.splitlines()
    assert 20 < len(lines) < 60
    assert lines[0] == "  big: 10 %, 1010.0 of 10000.0 MB, 1.0 MB/s, 2:29:50 left"


def test_progress_of_the_caller_is_called_instead(site, target, capsys):
    told = []
    site.plan = [site.answer(cut=CUT)]
    get(site, target, progress=lambda here, whole: told.append((here, whole)))
    assert capsys.readouterr().err == ""
    assert [here for here, _ in told] == sorted({here for here, _ in told})
    assert told[-1] == (len(BYTES), len(BYTES))
