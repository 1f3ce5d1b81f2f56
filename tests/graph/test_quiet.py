"""What libraries print from compiled code is kept quiet, and afterwards a process prints as before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgec.graph.quiet import silent

SCRIPT = """
import os
from edgec.graph.quiet import silent
with silent():
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"compiled code")
        except OSError:
            pass
os.write(9, b"through")
"""


def test_both_descriptors_are_silent_and_come_back(capfd) -> None:
    with silent():
        subprocess.run([sys.executable, "-c", "import os; os.write(1, b'a'); os.write(2, b'b')"], check=True)
    subprocess.run([sys.executable, "-c", "import os; os.write(1, b'c'); os.write(2, b'd')"], check=True)
    assert capfd.readouterr() == ("c", "d")


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the descriptors")
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_process_without_descriptors_is_no_error(closed) -> None:
    """As a daemon's, or a windowed program's: Python's own streams are None then."""
    line = f'exec 9>&1; exec "$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", line, sys.executable, SCRIPT], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"through"), done.stderr.decode()
