"""From what was seen of a case to its class, and to the place that a finding is filed under."""

from __future__ import annotations

import re
import signal
from dataclasses import asdict, dataclass, field
from typing import Any

GOOD = ("right", "clear error")
BAD = (
    "code executed",
    "file outside",
    "secret read",
    "signal",
    "traceback",
    "hang",
    "memory",
    "terminal",
    "unclear",
    "left behind",
    "fuzzer",
)
"""Worst first; a case is filed under the worst of what it did."""
CLASSES = (*GOOD, *BAD)
HANG_SECONDS = 20.0
KILL_SECONDS = 25.0
"""When a case is ended. Times are without the time that a case stood ready while other programs had the cores."""
MEMORY_MB = 2048
_CODES = {0, 1, 2, 3, 4}
_OBEYED = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
"""What a terminal obeys rather than shows: control characters but for tab and newline, and those that turn the text around."""


@dataclass(frozen=True)
class Seen:
    """What the watcher saw. ``code`` is negative for a signal; ``trace`` what Python said of itself."""

    code: int
    seconds: float
    cpu: float
    rss_mb: int
    stdout: bytes
    stderr: bytes
    trace: str
    made: bool
    outside: tuple[str, ...] = ()
    leaked: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    killed: str = ""


@dataclass(frozen=True)
class Outcome:
    """One line of the journal."""

    kind: str
    number: int
    argv: tuple[str, ...]
    done: tuple[str, ...]
    verdict: str
    where: str
    code: int
    seconds: float
    cpu: float
    rss_mb: int
    said: str
    true_command: bool = False
    also: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def verdicts(seen: Seen) -> dict[str, str]:
    """Every class that applies, with its place."""
    found: dict[str, str] = {}
    if not seen.made:
        return {"fuzzer": _site(seen.trace)}
    if any(name.endswith("executed") for name in seen.outside):
        found["code executed"] = ", ".join(seen.outside)
    if seen.outside:
        found["file outside"] = ", ".join(seen.outside)[:200]
    if seen.leaked:
        found["secret read"] = ", ".join(seen.leaked)[:200]
    if seen.killed:
        found[seen.killed] = _site(seen.trace)
    elif seen.code < 0:
        found["signal"] = f"{_signal(-seen.code)} {_site(seen.trace)}"
    elif seen.code == 70 or b"Traceback (most recent call last)" in seen.stderr:
        found["traceback"] = _site(seen.trace) or _first(seen.stderr)
    elif _unclear(seen):
        found["unclear"] = _unclear(seen)
    if seen.rss_mb > MEMORY_MB:
        found["memory"] = found.get("memory") or _site(seen.trace) or "in passing"
    if not seen.killed and seen.seconds > HANG_SECONDS:
        found["hang"] = _site(seen.trace) or "ended by itself"
    obeyed = _OBEYED.search(seen.stdout) or _OBEYED.search(seen.stderr)
    if obeyed:
        found["terminal"] = f"{obeyed.group()!r} after {_before(obeyed)}"
    if seen.left:
        found["left behind"] = ", ".join(re.sub(r"[a-z0-9_]{8}(?=[/,]|$)", "*", name) for name in seen.left)[
            :200
        ]
    return found


def verdict(seen: Seen) -> tuple[str, str, tuple[str, ...]]:
    """(class, place, other classes)."""
    found = verdicts(seen)
    for name in BAD:
        if name in found:
            return (
                name,
                found[name],
                tuple(f"{other}: {place}" for other, place in found.items() if other != name),
            )
    return ("right" if seen.code in (0, 1) else "clear error"), "", ()


def _unclear(seen: Seen) -> str:
    """Why an exit is not one that a person can act on."""
    if seen.code not in _CODES:
        return f"exit code {seen.code}"
    text = seen.stderr.strip()
    if seen.code in (2, 3, 4) and b"rror:" not in text:
        return f"exit code {seen.code} without an error message"
    if seen.code in (2, 3, 4) and len(text) > 4000:
        return f"a message of more than 4,000 characters: {_first(text)[:60]}"
    if len(seen.stdout) > 20_000_000:
        return "floods stdout"
    return ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+),? in (?P<name>\S+)')


def _site(trace: str) -> str:
    """The innermost frame of edgec in a traceback, and the error: what findings are grouped by."""
    if not trace:
        return ""
    frames = [m.groupdict() for m in _FRAME.finditer(trace)]
    ours = [
        f
        for f in frames
        if re.search(r"/(graph|compiler|passes|runtime|targets|edgec|deploy)/", f["file"])
        and "site-packages" not in f["file"]
    ]
    deepest_first = "most recent call first" in trace
    chosen = (
        (ours[0] if deepest_first else ours[-1])
        if ours
        else (frames[0] if deepest_first else frames[-1])
        if frames
        else None
    )
    last = trace.strip().splitlines()[-1].split(":", 1)[0] if not deepest_first else ""
    place = ""
    if chosen is not None:
        short = re.sub(
            r".*/((?:graph|compiler|passes|runtime|targets|edgec|deploy|bench)/.*)", r"\1", chosen["file"]
        )
        place = f"{short}:{chosen['line']} {chosen['name']}"
    return f"{place} {last}".strip()[:160]


def _first(text: bytes) -> str:
    return (text.strip().splitlines() or [b""])[-1].decode("utf-8", "replace")[:100]


def _before(match: re.Match[bytes]) -> str:
    head = match.string[max(0, match.start() - 30) : match.start()].decode("utf-8", "replace")
    return repr(re.sub(r"\d+", "0", head.rpartition("\n")[2])[-25:])
