"""Text that comes from files and devices, made fit to be shown: names are words, never commands to a terminal or a browser."""

from __future__ import annotations

import unicodedata

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that steer instead of showing: controls, marks of direction, halves of pairs, line ends."""
_JOINERS = "\u200c\u200d"  # spelling in Persian, Hindi, and of emoji; they change no other character


def visible(text: str, keep: str = "") -> str:
    r"""``text`` with every steering character written out: ``\x1b``, ``\n``, ``\u202e``.

    What is left can neither move a cursor nor colour, link, ring, start a line, or turn the direction of reading. ``keep`` are
    characters to leave, such as line ends where the text has lines of its own. Doing it twice changes nothing more.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _steers(c) else _written_out(c) for c in text)


def shortened(text: str, most: int) -> str:
    """``text``, of at most ``most`` characters; where something is left out, three dots say so."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table too; a line end becomes a blank."""
    plain = visible(text.replace("\r", " ").replace("\n", " "))
    return "".join(f"\\{c}" if c in "\\`*_[]<>|&~" else c for c in plain)


def markdown_code(text: str) -> str:
    """Inline code; in a table even code must escape its bars."""
    plain = visible(text.replace("\r", " ").replace("\n", " "))
    return "`" + plain.replace("`", "'").replace("|", "\\|") + "`"


def size(count: float) -> str:
    """Bytes for people, in decimal units."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(count) >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f} B"


def _steers(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN and character not in _JOINERS


def _written_out(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
