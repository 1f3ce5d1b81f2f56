"""Names that would do something if they were not words, and how to see whether they do."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

HOSTILE = {
    "markup": "[red]{}[/red]",
    "unbalanced": "[/]{}",
    "link": "[link=http://x]{}",
    "emoji code": ":skull:{}",
    "clear": "\x1b[2J{}",
    "osc": "\x1b]8;;http://x\x07{}\x1b]8;;\x07",
    "c1": "\x9b31m{}",
    "bell": "\x07{}\x08\x7f",
    "return": "{}\rok",
    "line": "{}\nerror: all is well",
    "bidi": "\u202e{}\u2066",
    "separator": "{}\u2028\u2029\x85",
    "html": "<script>alert('{}')</script>",
    "attribute": "\" onload='x' style=\"{}",
    "comment": "--><svg onload=x>{}<!--",
    "cdata": "]]></style>{}",
    "template": "{{{{ 7 * 7 }}}}{{% raw %}}{}",
    "svg": 'font: 3px {} url(#x) id="',
    "path": "../../../../tmp/{}",
    "root": "/etc/{}",
    "shell": "'; touch pwned; $(touch pwned) `touch pwned` {}",
    "option": "-{}",
    "yaml": "{}: [&a *a !!x",
    "long": "{}" + "n" * 3000,
    "blank": " {} ",
    "percent": "%s%n{}",
}


def steers(text: str) -> bool:
    """Whether a terminal would do more than show it."""
    kinds = {unicodedata.category(c) for c in text} - {"Cf"}
    return bool(kinds & {"Cc", "Cs", "Zl", "Zp"}) or bool(re.search("[\u202a-\u202e\u2066-\u2069]", text))


class Skeleton(HTMLParser):
    """Tags and attributes of a page in order, without what they hold; and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[tuple[str, tuple[str, ...]]] = []
        self.ends: list[str] = []
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.order.append((tag, tuple(name for name, _ in attrs)))
        self.links |= {str(value) for name, value in attrs if tag == "a" and name == "href"}

    def handle_endtag(self, tag: str) -> None:
        self.ends.append(tag)

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.order}


def skeleton(html: str) -> Skeleton:
    found = Skeleton()
    found.feed(html)
    found.close()
    return found
