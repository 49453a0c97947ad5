"""What /proc says of a process, whatever its name."""

import os
import subprocess
import sys

import pytest

from hypvl.io.processes import process_stat

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc on this system")  # noqa: PTH112

_NAMED = r"""
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"a) Z\xff(", 0, 0, 0)  # PR_SET_NAME
print("ready", flush=True)
sys.stdin.read()
"""


def test_fields_of_a_process_whose_name_is_no_text() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        fields = process_stat(process.pid)
        assert fields is not None and fields[0] in "RS"
        assert [int(field) for field in fields[1:4]] == [os.getpid(), process.pid, process.pid]
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, but not buried
        assert (process_stat(process.pid) or ["?"])[0] == "Z"
    assert process_stat(process.pid) is None
