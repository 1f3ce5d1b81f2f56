"""The systemd unit of this bundle on stdout: edgec-model.service for the folder that it lies in now, and for this user.

The folder's name goes into one quoted assignment, in systemd's own way of writing (systemd.syntax(7), systemd.exec(5)):
backslash, quote, tab, and newline as in C, and a percent sign twice. The shell that starts the program takes it from there as a
value, so spaces, ``$``, ``&``, ``|`` and the like mean nothing.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%"}


def quoted(text: str) -> str:
    """``text`` for use inside double quotes in a unit. Raises ValueError where systemd has no way to write it."""
    if re.search("[\x01-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text):
        raise ValueError(
            f"{text!r} has control characters or is not UTF-8, which systemd does not take: move the bundle"
        )
    return "".join(_ESCAPES.get(c, c) for c in text)


def unit(template: str, folder: str, user: str) -> str:
    """The template with the folder and the user in their places."""
    values = {"@DIR@": quoted(folder), "@USER@": user}
    return re.sub("@DIR@|@USER@", lambda match: values[match[0]], template)


def this_user() -> str:
    """The user's name; the number where there is no name, or one that systemd might read otherwise."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = ""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}", name) else str(os.getuid())


if __name__ == "__main__":
    try:
        text = unit((HERE / "edgec-model.service").read_text(encoding="utf-8"), str(HERE), this_user())
    except (OSError, ValueError) as problem:
        print(f"error: no service: {problem}", file=sys.stderr)
        sys.exit(3)
    sys.stdout.write(text)
