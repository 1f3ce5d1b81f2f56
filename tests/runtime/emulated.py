"""An emulated Arm board (`device/arm64-device.sh` of the shared folder) and a proxy that spoils its link."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "arm64-device"


@dataclass
class Board:
    """A running board: how to reach it, and its script."""

    script: Path
    folder: Path
    port: int
    profile: str
    engines: bool = True
    """Whether the board's own Python has inference engines."""
    user: IO[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"ssh://pi@127.0.0.1:{self.port}"

    def ssh_command(self) -> str:
        """Value for EDGEC_SSH_COMMAND; the board's key is found whatever port a proxy listens on."""
        config = self.folder / "any_port_config"
        lines = (
            "Host *",
            f"  IdentityFile {self.folder}/id_ed25519",
            "  IdentitiesOnly yes",
            "  IdentityAgent none",
            f"  UserKnownHostsFile {self.folder}/known_hosts",
            f"  HostKeyAlias [127.0.0.1]:{self.port}",
            "  StrictHostKeyChecking yes",
        )
        config.write_text("\n".join(lines) + "\n")
        return f"ssh -F {config}"

    def sh(self, command: str) -> str:
        """Output of a command on the board, by plain ssh."""
        words = [*self.ssh_command().split(), "-p", str(self.port), "pi@127.0.0.1", command]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout

    def set(self, key: str, value: str) -> None:
        """Change what the board reports: governor, temp, throttled, freq."""
        self._script("set", key, value)

    def join(self) -> None:
        """Count as a user of the board until `stop`: other test processes may share it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.user = (self.folder / "users").open("wb")
        fcntl.flock(self.user, fcntl.LOCK_SH)

    def stop(self) -> None:
        """Leave the board; the last user switches it off."""
        assert self.user is not None
        try:
            fcntl.flock(self.user, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._script("stop")
        except BlockingIOError:
            pass
        finally:
            self.user.close()

    def as_root(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this host in the board's mount namespace."""
        leader = int((self.folder / "pid").read_text().split()[0])
        (inner,) = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
        words = ["nsenter", "-t", inner, "-U", "-m", "--preserve-credentials", *command]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)

    def left_behind(self) -> tuple[list[str], list[str]]:
        """(processes of user pi but for ssh's own, half files and job folders) on the board now."""
        found = self.sh(
            "ps -u pi -o args=; echo ---; find .cache/edgec -name '*.part*' -o -path '*/jobs/*' -o -path '*/tmp/*'"
        )
        processes, _, files = found.partition("---\n")
        own = ("sshd", "ps -u pi", "/bin/bash -c ps", "bash -c ps", "find .cache")
        return [
            line for line in processes.splitlines() if not any(word in line for word in own)
        ], files.split()

    def _script(self, *words: str) -> None:
        subprocess.run(
            ["bash", self.script, *words], env=self.environment(), check=True, capture_output=True, timeout=60
        )

    def environment(self) -> dict[str, str]:
        own = {"DEV": str(self.folder), "PORT": str(self.port), "PROFILE": self.profile}
        return {**os.environ, **own, **({} if self.engines else {"WHEELS": ""})}


def start_board(shared: Path, profile: str, port: int, *, engines: bool = True) -> Board | str:
    """A running board, or the reason why there is none."""
    script = shared / "device" / "arm64-device.sh"
    if not script.is_file():
        return "no arm64-device.sh beside the repository"
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return "the emulated board needs root on Linux"
    board = Board(script, CACHE / profile, port, profile, engines)
    board.join()
    command = ["bash", str(script), "start"]
    done = subprocess.run(
        command, env=board.environment(), capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode != 0:
        board.stop()
        return f"the emulated board does not start: {done.stderr.strip().rpartition(chr(10))[2]}"
    return board


class FaultyLink:
    """A proxy in front of a board; ``do('blackhole 1')``, ``do('drop')``, ``do('delay 0.1')`` spoil the link."""

    def __init__(self, shared: Path, board: Board, *settings: str) -> None:
        command = [sys.executable, str(shared / "device" / "faultproxy.py"), "0", str(board.port), *settings]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().split()[1])

    @property
    def address(self) -> str:
        return f"ssh://pi@127.0.0.1:{self.port}"

    def do(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        time.sleep(0.2)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
