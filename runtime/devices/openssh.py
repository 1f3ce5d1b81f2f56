"""The OpenSSH client in a subprocess: one connection for all commands, and exit codes that mean something.

ssh exits with 255 when the link fails, when the remote command does, and when a signal ended it. Here every
remote script reports its own exit code on stderr; when that report is missing, the link was lost.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from edgec.graph.errors import DeviceError, UsageError
from edgec.graph.scratch import scratch_folder
from edgec.runtime.devices.base import too_much
from edgec.runtime.replies import REPLY_MOST, said

COMMAND_VARIABLE = "EDGEC_SSH_COMMAND"  # such as 'ssh -F my_config', like git's GIT_SSH_COMMAND
_GLANCE = 0.05  # seconds between looks at how much has come
_REPORT = re.compile(rb"edgec-exit=(\d{1,3})\n?")
_NAME = re.compile(r"ssh://(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d+))?/?")
_HINTS = {
    "permission denied": "Copy your key there once: ssh-copy-id {0}",
    "host key verification failed": "Connect once by hand and accept the key: ssh {0}",
    "could not resolve": "Check the name, or give the address as a number.",
    "connection refused": "Is SSH switched on there? (Raspberry Pi OS: raspi-config, Interface Options)",
    "no route to host": "Is the device on, and in this network?",
    "timed out": "Is the device on, and in this network?",
}


@dataclass(frozen=True)
class LinkTimes:
    """Patience with a link, in seconds."""

    connect: int = 10
    alive_interval: int = 5
    alive_count: int = 3
    reconnect: float = 120.0
    """How long a lost link is tried again before the run is given up."""


@dataclass(frozen=True)
class Reply:
    """A remote script that ended: its exit code, and what it wrote."""

    code: int
    out: bytes
    err: str


class LinkLostError(Exception):
    """The link failed before the script reported its exit code: it may or may not have run, or run on."""


@dataclass
class Link:
    """The way to one device."""

    address: str
    destination: str
    port: int | None
    times: LinkTimes = field(default_factory=LinkTimes)
    command: Sequence[str] = ()
    notify: Callable[[str], None] = lambda text: None
    _scratch: ExitStack = field(default_factory=ExitStack)
    _folder: Path | None = None

    @classmethod
    def to(cls, address: str, times: LinkTimes | None = None) -> Link:
        """The link to ``ssh://[user@]host[:port]``; nothing is connected yet."""
        match = _NAME.fullmatch(address)
        if match is None:
            hint = "Write ssh://user@host or ssh://user@host:2222"
            raise UsageError(f"not a device address: {address!r}", hint=hint)
        host = match["host"].strip("[]")
        destination = f"{match['user']}@{host}" if match["user"] else host
        if destination.startswith("-"):
            raise UsageError(f"not a device address: {address!r}")
        port = int(match["port"]) if match["port"] else None
        command = shlex.split(os.environ.get(COMMAND_VARIABLE, "")) or ["ssh"]
        return cls(address.rstrip("/"), destination, port, times or LinkTimes(), command)

    def once(
        self,
        script: str,
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        timeout: float,
        most: int = REPLY_MOST,
    ) -> Reply:
        """Run ``script`` in the device's sh and take at most ``most`` bytes of what it prints.

        Raises LinkLostError when the link fails, DeviceError where there is no ssh or when more than that comes.
        """
        if shutil.which(self.command[0]) is None:
            raise DeviceError(f"no {self.command[0]} on this machine", hint="Install the OpenSSH client.")
        wrapped = f"({script}\n)\nprintf 'edgec-exit=%d\\n' $? >&2"
        with tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as out:
            # Files, not pipes: a connection that stays open in the background would keep pipes open, too.
            sink = stdout or out
            try:
                process = subprocess.Popen(
                    [*self._client(), "exec sh -c " + shlex.quote(wrapped)],
                    stdin=stdin if stdin is not None else subprocess.DEVNULL,
                    stdout=sink,
                    stderr=err,
                    start_new_session=True,  # Ctrl-C is ours to handle
                )
            except OSError as error:
                raise DeviceError(f"cannot start {self.command[0]}", why=str(error)) from error
            try:
                self._watch(process, timeout, {sink: most, err: REPLY_MOST})
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            err.seek(0)
            out.seek(0)
            told = err.read()
            codes = _REPORT.findall(told)
            text = said(_REPORT.sub(b"", told)).strip()
            if not codes:
                raise LinkLostError(text.rpartition("\n")[2] or f"ssh ended with {process.returncode}")
            return Reply(int(codes[-1]), b"" if stdout else out.read(), text)

    def _watch(self, process: subprocess.Popen[bytes], timeout: float, most: Mapping[IO[bytes], int]) -> None:
        """Wait for the client's end while no file grows beyond its bound."""
        patience = timeout + self.times.connect + self.times.alive_interval * self.times.alive_count
        end = time.monotonic() + patience
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GLANCE)
            for file, bound in most.items():
                if os.fstat(file.fileno()).st_size > bound:
                    raise too_much(self.address, bound)
            if process.poll() is not None:
                return
            if time.monotonic() >= end:
                raise LinkLostError(f"no answer within {timeout:.0f} s")

    def patiently(
        self,
        script: str,
        *,
        timeout: float,
        source: Path | None = None,
        sink: Path | None = None,
        most: int = REPLY_MOST,
    ) -> Reply:
        """Like ``once``, again and again while the link fails, for ``times.reconnect`` seconds.

        For scripts that may run twice. ``source`` is sent to its stdin, ``sink`` takes its stdout, both from
        the start on every try. Raises DeviceError when the link does not come back.
        """
        end, pause, told = time.monotonic() + self.times.reconnect, 0.5, False
        while True:
            try:
                with _opened(source, "rb") as stdin, _opened(sink, "wb") as stdout:
                    reply = self.once(script, stdin=stdin, stdout=stdout, timeout=timeout, most=most)
            except LinkLostError as error:
                if time.monotonic() >= end:
                    raise self.unreachable(error) from error
                if not told:
                    self.notify(f"{self.address}: link lost ({error}); trying again")
                    told = True
                self.disconnect()
                time.sleep(min(pause, max(0.0, end - time.monotonic())))
                pause = min(2 * pause, 8.0)
            else:
                if told:
                    self.notify(f"{self.address}: link is back")
                return reply

    def unreachable(self, error: LinkLostError) -> DeviceError:
        """The error to show for a link that does not work."""
        text = str(error)
        hint = next((hint for key, hint in _HINTS.items() if key in text.lower()), "Try: ssh -v {0}")
        there = self.destination if self.port is None else f"-p {self.port} {self.destination}"
        return DeviceError("cannot reach the device", where=self.address, why=text, hint=hint.format(there))

    def disconnect(self) -> None:
        """End the shared connection."""
        if self._folder is not None and (self._folder / "c").exists():
            command = [*self.command, "-O", "exit", "-o", f"ControlPath={self._folder}/c", self.destination]
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=5, check=False)

    def close(self) -> None:
        """End the shared connection and remove its socket."""
        self.disconnect()
        if self._folder is not None:
            self._scratch.close()
            self._folder = None

    def _client(self) -> list[str]:
        if self._folder is None:
            self._folder = self._scratch.enter_context(scratch_folder())
        times = self.times
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(times.connect),
            "ServerAliveInterval": str(times.alive_interval),
            "ServerAliveCountMax": str(times.alive_count),
            "ControlMaster": "auto",
            "ControlPath": f"{self._folder}/c",
            "ControlPersist": "30",  # should this process be killed, the connection ends by itself
            "LogLevel": "ERROR",
        }
        port = ["-p", str(self.port)] if self.port is not None else []
        flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        return [*self.command, "-T", *flags, *port, "--", self.destination]


@contextmanager
def _opened(path: Path | None, mode: str) -> Iterator[IO[bytes] | None]:
    """``path`` opened in ``mode``, or None without a path."""
    if path is None:
        yield None
    else:
        with path.open(mode) as file:
            yield cast("IO[bytes]", file)
