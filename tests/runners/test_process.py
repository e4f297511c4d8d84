"""How worker processes are set up; each case in a process of its own, which it changes for good."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from rdpbench.runners.server import undisturbed

FAULTS = """
import json, resource, sys
from rdpbench.runners.pool import reuse_memory
import numpy as np

kept = reuse_memory() if sys.argv[1] == "kept" else False
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(int(sys.argv[2]) << 17)  # so many MiB
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(how: str, mebibytes: int) -> tuple[bool, int]:
    """Was anything set, and how often the system had to bring a page while 20 blocks came and went?"""
    line = [sys.executable, "-c", FAULTS, how, str(mebibytes)]
    kept, found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return kept, found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory can be kept")
def test_blocks_are_used_again_and_not_fetched_anew() -> None:
    kept, few = faults("kept", 64)
    _, many = faults("as it is", 64)
    assert kept
    assert many > 5 * few  # pages of 20 blocks against pages of one


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory can be kept")
def test_what_is_larger_goes_back_to_the_system() -> None:
    _, many = faults("kept", 300)
    assert many > 19 * 300 / 2  # pages of 2 MB, which numpy asks for; there are more if they are smaller


def test_one_thread() -> None:
    code = "import torch, os; from rdpbench.runners.pool import set_up; torch.set_num_threads(2); set_up(); "
    line = [sys.executable, "-c", code + "print(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout.split() == ["1", "1"]


def test_ctrl_c_waits_until_a_worker_has_started_although_other_threads_run() -> None:
    ended, done = threading.Event(), []
    threading.Thread(target=ended.wait, daemon=True).start()  # a mask would let this one take the signal

    def disturbed() -> None:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            done.append("started")
        done.append("went on")

    try:
        with pytest.raises(KeyboardInterrupt):
            disturbed()
        assert done == ["started"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        ended.set()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which signals a process holds back")
def test_no_signal_to_all_processes_ends_the_fork_server_amid_its_imports() -> None:
    code = "from rdpbench.runners.server import running, start_server; start_server()"
    code += "; print(open(f'/proc/{running()}/status').read())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    held = int(told.partition("SigBlk:")[2].split()[0], 16)
    assert [
        name for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if not held >> signal.Signals[name] - 1 & 1
    ] == []
