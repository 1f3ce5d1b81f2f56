"""Answers of the agent as tables for people."""

from __future__ import annotations

from .base import Json, visible
from .engine import TENSORRT


def table(result: Json) -> str:
    """The result for people."""
    head = ("artifact", "engine", "p10 ms", "median", "p90", "p99", "peak MB")
    lines = ["{:<34} {:<22} {:>9} {:>9} {:>9} {:>9} {:>8}".format(*head)]
    for row in result["artifacts"]:
        engine = f"{row['engine']} {row['engine_version']}"
        engine += f" ({row['delegate']})" if row["engine"] == TENSORRT else ""
        values = [row[key] for key in ("p10_ms", "median_ms", "p90_ms", "p99_ms")]
        numbers = " ".join(f"{value:9.3f}" for value in values)
        lines.append(f"{row['name']:<34} {engine:<22} {numbers} {row['peak_rss_mb']:8.1f}")
        if row["power_w"]:
            watts = ", ".join(f"{visible(rail, 40)} {value:.2f} W" for rail, value in row["power_w"].items())
            lines.append(f"  power: {watts}")
        lines += [f"  INVALID: {text}" for text in row["invalid"]]
        lines += [f"  note: {text}" for text in row["notices"]]
    first = result["artifacts"][0]["name"]
    for row, ratio in zip(result["artifacts"][1:], result["ratios"]):
        spread = f"p10 {ratio['p10']:.3f}, p90 {ratio['p90']:.3f}, {ratio['rounds']} rounds"
        lines.append(f"{row['name']} takes {ratio['ratio']:.3f} of the time of {first} ({spread})")
    return "\n".join(lines)


def layer_table(result: Json) -> str:
    """Times per layer for people."""
    rows = [
        f"{row['us']:10.1f} {100 * row['share']:6.1f}%  {visible(row['name'], 160)}"
        for row in result["layers"]
    ]
    return "\n".join(["{:>10} {:>7}  {}".format("us", "share", "layer"), *rows])
