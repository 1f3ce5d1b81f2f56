"""Values that break things: numbers at the edges, texts that others obey, bytes that are damaged."""

from __future__ import annotations

import random
from pathlib import Path

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

INTS = (
    0,
    -1,
    1,
    2,
    3,
    7,
    -2,
    255,
    256,
    2**16,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    10**10,
    2**40,
    INT_MAX,
    INT_MIN,
)
SMALL = (0, -1, 1, 2, 3, 5, -2)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"), 1e10)

TEXTS = (
    "",
    " ",
    ".",
    "..",
    "../outside/written",
    "/",
    "a/b",
    "a\\b",
    "-o",
    "--help",
    "[red]x[/red]",
    "[/]",
    "[/bold]",
    "[link=file:///etc/passwd]x[/link]",
    "x[",
    "\x1b[2J\x1b[31mx",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\nb",
    "a\rerror: b",
    "a\tb",
    "a\x00b",
    "\x7f\x08\x08",
    "‮txt.exe",
    "é" * 3,
    "\U0001f4a9",
    "\ufeffx",
    "x" * 300,
    "x" * 70_000,
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}",
    "{% for x in y %}",
    "$(touch ../outside/executed)",
    "`touch ../outside/executed`",
    "; touch ../outside/executed #",
    "%s%n%d",
    "!!python/object/apply:os.system ['touch ../outside/executed']",
    "null",
    "true",
    "1e999",
    "NaN",
    "CON",
    "con.onnx",
    "name: x",
    "- x",
    "&a *a",
)


def integer(rng: random.Random) -> int:
    """Half of them small: an attribute of 2**63 is refused early, one of 0 gets deep."""
    if rng.random() < 0.5:
        return rng.choice(SMALL)
    return (
        rng.choice(INTS)
        if rng.random() < 0.8
        else rng.getrandbits(rng.randrange(1, 63)) * rng.choice((1, -1))
    )


def number(rng: random.Random) -> float:
    return rng.choice(FLOATS) if rng.random() < 0.7 else rng.uniform(-10, 10)


def text(rng: random.Random) -> str:
    return rng.choice(TEXTS)


def scramble(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Damage without understanding: flips, cuts, holes, repeats."""
    how = rng.choice(
        ("flip", "flip", "flips", "truncate", "insert", "delete", "repeat", "zeros", "ones", "magic")
    )
    if not data:
        return rng.randbytes(rng.randrange(64)), "random bytes"
    out = bytearray(data)
    at = rng.randrange(len(out))
    size = rng.choice((1, 2, 4, 8, 16, 64))
    if how == "flip":
        out[at] ^= 1 << rng.randrange(8)
    elif how == "flips":
        for _ in range(rng.randrange(2, 40)):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif how == "truncate":
        del out[at:]
    elif how == "insert":
        out[at:at] = rng.randbytes(size)
    elif how == "delete":
        del out[at : at + size]
    elif how == "repeat":
        out[at:at] = out[at : at + size * 16] * rng.choice((1, 2, 50))
    else:
        filler = {
            "zeros": b"\0" * 8,
            "ones": b"\xff" * 8,
            "magic": rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\x80")),
        }[how]
        out[at : at + len(filler)] = filler
    return bytes(out), f"{how} at {at}"


def splice(rng: random.Random, one: bytes, other: bytes) -> bytes:
    """The head of one and the tail of another."""
    return one[: rng.randrange(len(one) + 1)] + other[rng.randrange(len(other) + 1) :]


SPECIAL = (
    "fifo",
    "zero",
    "random",
    "folder",
    "sparse",
    "loop",
    "dangling",
    "secret",
    "empty",
    "unreadable",
    "socket",
)


def special(rng: random.Random, path: Path, outside: Path) -> str:
    """Something in the place of a file that is none, or no ordinary one."""
    import os
    import socket

    how = rng.choice(SPECIAL)
    path.unlink(missing_ok=True)
    if how == "fifo":
        os.mkfifo(path)
    elif how in ("zero", "random"):
        path.symlink_to("/dev/zero" if how == "zero" else "/dev/urandom")
    elif how == "folder":
        path.mkdir()
    elif how == "sparse":
        with path.open("wb") as stream:
            stream.truncate(rng.choice((10**8, 3 * 10**9, 10**11)))
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("nothing-there")
    elif how == "secret":
        path.symlink_to(outside / "secret.bin")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "unreadable":
        path.write_bytes(b"x")
        path.chmod(0)
    else:
        with socket.socket(socket.AF_UNIX) as one:
            here = os.open(path.parent, os.O_RDONLY)  # socket paths are short; go by the descriptor
            one.bind(f"/proc/self/fd/{here}/{path.name}")
            os.close(here)
    return how
