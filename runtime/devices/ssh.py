"""A board over SSH (design section 9): whole uploads, jobs that survive a lost link, nothing left behind.

On the device everything lives in ``~/.cache/edgec``: ``files/<sha256>/<name>`` (kept, so that a second run
uploads nothing; dropped after two weeks without use), ``jobs/<id>/`` and ``tmp/<id>/`` (removed at the end),
and ``lock``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from getpass import getuser
from pathlib import Path

from edgec.graph.errors import DeviceError
from edgec.graph.scratch import scratch_folder
from edgec.graph.text import shortened
from edgec.runtime.devices import scripts
from edgec.runtime.devices.base import FILE_MOST, Completed, JobState
from edgec.runtime.devices.openssh import Link, LinkLostError, LinkTimes, Reply
from edgec.runtime.digest import sha256_of
from edgec.runtime.pack import write_agent
from edgec.runtime.replies import ERRORS_MOST, REPLY_MOST, not_understood, said

_SLOWEST = 20_000.0  # bytes per second below which an upload counts as stuck


class SshDevice:
    """A device reached with the OpenSSH client of this host and its configuration, keys, and jump hosts."""

    def __init__(self, link: Link, python: str | None = None) -> None:
        self.link = link
        self._python = python
        self._token = secrets.token_hex(6)
        self._ready = self._used_tmp = False
        self._count = 0
        self._root = ""  # absolute path of edgec's folder there, once connected
        self._pushed: dict[str, str] = {}
        self._jobs: set[str] = set()

    @classmethod
    def at(cls, address: str, *, times: LinkTimes | None = None, python: str | None = None) -> SshDevice:
        """The device at ``ssh://[user@]host[:port]``; ``python``: its interpreter (default: python3)."""
        return cls(Link.to(address, times), python)

    @property
    def name(self) -> str:
        return self.link.address

    def __enter__(self) -> SshDevice:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def connect(self) -> None:
        """Reach the device and prepare its folder. Raises DeviceError at once when it cannot be reached."""
        if self._ready:
            return
        try:
            reply = self.link.once(scripts.PREPARE, timeout=30.0)
        except LinkLostError as error:
            self.link.disconnect()
            raise self.link.unreachable(error) from error
        self._check(reply, "cannot prepare ~/.cache/edgec")
        self._root, self._ready = self._path(reply), True

    def agent_command(self) -> tuple[str, ...]:
        with scratch_folder() as folder:
            return (self._interpreter(), self.push(write_agent(folder)))

    def use_python(self, python: str) -> None:
        self._python = python

    def push(self, path: Path) -> str:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        name = re.sub(r"[^\w.+-]", "_", path.name)
        remote = self._pushed.get(digest + name)
        if remote is None:
            self.connect()
            remote = f"{self._root}/files/{digest[:24]}/{name}"
            limit = 30 + len(content) / _SLOWEST
            if self._run(scripts.present(remote, digest), timeout=limit).code != 0:
                script = scripts.upload(remote, digest, f"{remote}.{self._token}.part", limit)
                self._check(self._run(script, timeout=limit + 30, source=path), f"cannot upload {path.name}")
            self._pushed[digest + name] = remote
        return remote

    def pull(self, remote: str, path: Path, *, most: int = FILE_MOST) -> None:
        self.connect()
        part = path.with_name(f"{path.name}.{self._token}.part")
        try:
            for _ in range(3):
                digest = self._run(f"sha256sum < {shlex.quote(remote)} | cut -c1-64", timeout=120.0)
                self._check(digest, f"cannot read {remote}")
                self._run(f"cat {shlex.quote(remote)}", timeout=3600.0, sink=part, most=most)
                if sha256_of(part) == digest.out.decode("ascii", "replace").strip():
                    part.replace(path)
                    return
            raise DeviceError(f"{remote} does not arrive whole", where=self.name)
        finally:
            part.unlink(missing_ok=True)

    def temporary(self, name: str) -> str:
        self.connect()
        self._used_tmp = True
        self._count += 1
        folder = f"{self._root}/tmp/{self._token}"
        self._check(self._run(f"mkdir -p {shlex.quote(folder)}", timeout=30.0), "cannot make a folder")
        return f"{folder}/{self._count}-{name}"

    def run(self, command: Sequence[str], *, timeout: float = 60.0) -> Completed:
        self.connect()
        script = f"timeout -k 5 {timeout:.0f} {shlex.join(command)} </dev/null"
        reply = self._run(script, timeout=timeout + 5)
        return Completed(reply.code, reply.out.decode("utf-8", "replace"), reply.err)

    def start(
        self, command: Sequence[str], *, timeout: float, wait: float | None, notify: Callable[[str], None]
    ) -> str:
        self.connect()
        self.link.notify = notify
        self._count += 1
        job = f"{self._token}-{self._count}"
        owner = f"{getuser()}@{socket.gethostname()}, process {os.getpid()}"
        script = scripts.start(job, shlex.join(command), timeout, wait, owner)
        self._jobs.add(job)
        self._check(self._run(script, timeout=30.0), "cannot start the run")
        return job

    def poll(self, job: str) -> JobState:
        reply = self._run(scripts.poll(job), timeout=30.0)
        state, _, progress = said(reply.out).partition("\n")
        progress = progress.strip()
        if state == "running":
            return JobState(None, progress)
        if state == "gone":
            why = "its process is gone and left no exit code: a restart, or killed for want of memory?"
            raise DeviceError("the run vanished", where=self.name, why=why)
        done = re.fullmatch(r"done (\d{1,3})", state)
        if done is None:
            raise not_understood(f"a job is running, gone, or done, not {state[:60]!r}", self.name)
        with scratch_folder() as folder:
            self.pull(f"{self._root}/jobs/{job}/out", folder / "out", most=REPLY_MOST)
            stdout = (folder / "out").read_text(encoding="utf-8", errors="replace")
        err = self._run(f"tail -c {ERRORS_MOST} {shlex.quote(self._root)}/jobs/{job}/err", timeout=60.0)
        code = int(done[1])
        code = code if code < 128 or code == 255 else 128 - code  # the shell's way to say 'ended by a signal'
        return JobState(Completed(code, stdout, said(err.out)), progress)

    def stop(self, job: str) -> None:
        self._jobs.discard(job)
        # Without a link nothing more can be done: the job's timeout ends it, the next visit removes its files.
        for _ in range(3):
            try:
                self.link.once(scripts.stop(job), timeout=30.0)
            except LinkLostError:
                self.link.disconnect()
                time.sleep(0.5)
            else:
                return

    def close(self) -> None:
        for job in list(self._jobs):
            self.stop(job)
        if self._ready and self._used_tmp:
            with suppress(LinkLostError):
                self.link.once(f"rm -rf {shlex.quote(self._root)}/tmp/{self._token}", timeout=30.0)
        self.link.close()
        self._ready = False

    def _interpreter(self) -> str:
        if self._python is None:
            self.connect()
            reply = self._run(scripts.FIND_PYTHON, timeout=60.0)
            if reply.code != 0:
                hint = "Install it there: sudo apt install python3 python3-venv"
                raise DeviceError("no Python 3.8 or later on the device", where=self.name, hint=hint)
            self._python = self._path(reply)
        return self._python

    def _path(self, reply: Reply) -> str:
        """The absolute path that a script printed."""
        path = reply.out.decode("utf-8", "replace").rstrip("\n")
        if not path.startswith("/") or len(path) > 4096 or not path.isprintable():
            raise not_understood(f"expected a path, not {shortened(path, 60)!r}", self.name)
        return path

    def _run(
        self,
        script: str,
        *,
        timeout: float,
        source: Path | None = None,
        sink: Path | None = None,
        most: int = REPLY_MOST,
    ) -> Reply:
        return self.link.patiently(script, timeout=timeout, source=source, sink=sink, most=most)

    def _check(self, reply: Reply, what: str) -> None:
        if reply.code == 0:
            return
        why = reply.err.rpartition("\n")[2] or f"exit code {reply.code}"
        hint = None
        if "no space left" in reply.err.lower():
            why, hint = "the disk there is full", "Free some space; edgec's own files are in ~/.cache/edgec."
        raise DeviceError(what, where=self.name, why=why, hint=hint)
