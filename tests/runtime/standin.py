"""A program in the place of ssh: it runs the scripts here, with another home, and fails on demand."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgec.runtime.devices.openssh import LinkTimes

ADDRESS = "ssh://pi@standin"
HASTE = LinkTimes(connect=2, alive_interval=1, alive_count=1, reconnect=6.0)

# The last word is what ssh would hand to the device's shell. `fault` holds "KIND COUNT": so many of the next calls fail.
SSH = """#!/bin/sh
for command; do :; done
case "$*" in *"-O exit"*) exit 0 ;; esac
read -r kind count <{fault} 2>/dev/null || kind=none
if [ "$kind" != none ]; then
  if [ "$count" -gt 1 ]; then echo "$kind $((count - 1))" >{fault}; else rm -f {fault}; fi
fi
export HOME={home} PATH={path}
case $kind in
  refused) echo "ssh: connect to host standin port 22: Connection refused" >&2; exit 255 ;;
  reset) echo "kex_exchange_identification: read: Connection reset by peer" >&2; exit 255 ;;
  after) sh -c "$command" >/dev/null 2>&1; echo "client_loop: send disconnect: Broken pipe" >&2; exit 255 ;;
  midway) head -c 100000 | sh -c "$command" >/dev/null 2>&1; echo "lost connection" >&2; exit 255 ;;
esac
exec sh -c "$command"
"""


@dataclass(frozen=True)
class StandIn:
    """The device's home, and the file that spoils the link to it."""

    home: Path
    fault: Path

    def spoil(self, kind: str, count: int = 1) -> None:
        self.fault.write_text(f"{kind} {count}\n")

    def clean(self) -> None:
        """No process of a job and no half file is left."""
        left: list[Path] = []
        for _ in range(30):
            cache = self.home / ".cache" / "edgec"
            left = [*cache.rglob("*.part*"), *(cache / "jobs").glob("*"), *(cache / "tmp").glob("*")]
            running = subprocess.run(
                ["pgrep", "-f", str(self.home)], capture_output=True, text=True, check=False
            )
            if not left and not running.stdout.strip():
                return
            time.sleep(0.1)
        raise AssertionError((left, running.stdout))


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    home, fault, program = folder / "home", folder / "fault", folder / "ssh"
    home.mkdir()
    program.write_text(SSH.format(home=home, fault=fault, path=os.environ["PATH"]))
    program.chmod(0o755)
    monkeypatch.setenv("EDGEC_SSH_COMMAND", str(program))
    return StandIn(home, fault)
