"""The journal as Markdown: kinds and classes, then the findings, each once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from classify import BAD, CLASSES, GOOD

TITLES = {
    "onnx": "changed ONNX", "op": "every ONNX op", "pt2": "torch programs", "tflite": "TFLite", "recipe": "recipes",
    "card": "target files", "labels": "labels", "picture": "pictures", "array": "arrays", "reply": "a board's answers",
    "run": "run folders", "cache": "pass caches", "given": "given files",
}  # fmt: skip


def show(outcomes: list[dict[str, Any]], *, findings: bool) -> int:
    """Print; 1 when something was found."""
    print("\n".join(_table(outcomes)))
    bad = [one for one in outcomes if one["verdict"] not in GOOD]
    if findings and bad:
        print("\n" + "\n".join(_findings(bad)))
    return 1 if bad else 0


def _table(outcomes: list[dict[str, Any]]) -> list[str]:
    seen = {one["verdict"] for one in outcomes}
    shown = [name for name in CLASSES if name in GOOD or name in seen or name in BAD[:7]]
    lines = [
        "| input | cases | " + " | ".join(shown) + " | slowest | peak memory | cases a minute |",
        "|---|" + "---:|" * (len(shown) + 4),
    ]
    kinds = [kind for kind in TITLES if any(one["kind"] == kind for one in outcomes)]
    lines += [_row(TITLES[kind], [one for one in outcomes if one["kind"] == kind], shown) for kind in kinds]
    return [*lines, _row("all", outcomes, shown)]


def _row(title: str, some: list[dict[str, Any]], shown: list[str]) -> str:
    counts = Counter(one["verdict"] for one in some)
    slowest = max((one["seconds"] for one in some), default=0.0)
    peak = max((one["rss_mb"] for one in some), default=0)
    rate = 60 * len(some) / max(1e-9, sum(one["seconds"] for one in some))
    cells = [str(counts[name]) for name in shown]
    return (
        f"| {title} | {len(some)} | " + " | ".join(cells) + f" | {slowest:.1f} s | {peak} MB | {rate:.0f} |"
    )


def _findings(bad: list[dict[str, Any]]) -> list[str]:
    """One line for each class and place, the commonest first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in bad:
        groups[one["verdict"], one["where"]].append(one)
    lines = [
        "| finding | where | cases | first: `--only` | command | what was done |",
        "|---|---|---:|---|---|---|",
    ]
    for (name, where), some in sorted(
        groups.items(), key=lambda item: (BAD.index(item[0][0]), -len(item[1]))
    ):
        first = min(some, key=lambda one: (len(one["done"]), one["number"]))
        words = "; ".join(first["done"])[:140].replace("|", "\\|").replace("\n", " ")
        lines.append(
            f"| {name} | `{where}` | {len(some)} | {first['kind']}:{first['number']} | {' '.join(first['argv'][:1])} | {words} |"
        )
    return lines
