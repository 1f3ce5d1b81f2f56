"""Cases of a machine that lies, and of run folders and caches that somebody changed."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import mutate_onnx
import mutate_tree
import seeds
from cell import Cell, Plan, Stock
from wild import scramble, special, text


def _spoil_json(rng: random.Random, source: bytes) -> tuple[bytes, list[str]]:
    """One JSON object with changes, or damaged as text."""
    if rng.random() < 0.75:
        try:  # an earlier change may have left no JSON
            tree, done = mutate_tree.mutate_safely(rng, json.loads(source), rng.choice((1, 1, 2, 3)))
            return json.dumps(tree).encode(), done
        except (ValueError, RecursionError):
            return source, ["none"]
    tricks = {
        "deep": b"[" * 100_000,
        "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "digits": source.replace(b": 1", b": 1" + b"0" * 5000, 1),
        "infinity": source.replace(b": 1", b": 1e999", 1)
        .replace(b": 2", b": Infinity", 1)
        .replace(b": 0", b": NaN", 1),
        "surrogate": source.replace(b'": "', b'": "\\ud800', 1),
        "escapes": source.replace(b'": "', b'": "\\u001b[2J\\u001b]0;x\\u0007', 3),
        "markup": source.replace(b'": "', b'": "[/red][link=x]', 3),
        "script": source.replace(b'": "', b'": "<script>alert(1)</script>', 3),
        "empty": b"",
        "lines": source + b"\n" + rng.choice((b"{}", b"null", b"[]", b"{", b"\xff\xff")) + b"\n",
        "before": b"noise\x1b[31m\n" * 1000 + source,
        "key twice": source.replace(b"{", b'{"error": 1, "error": 2, ', 1),
        "error": b'{"error": "\\u001b[31mno", "kind": "nobody"}',
        "error type": b'{"error": {"a": 1}, "kind": ["model"]}',
        "error without kind": b'{"error": "no"}',
        "latin": source.replace(b'": "', b'": "\xe9\xff', 1),
        "utf-16": source.decode("utf-8", "replace").encode("utf-16"),
    }
    name = rng.choice((*tricks, "bytes", "bytes"))
    if name == "bytes":
        data, how = scramble(rng, source)
        return data, [how]
    return tricks[name], [name]


def reply(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """What the board answers when it is asked: see `doors.liar`."""
    kinds = {
        "bench": ("bench", "net.onnx", "--device", "ssh://pi@board"),
        "interleave": ("bench", "net.onnx", "net.onnx", "--compare", "--device", "ssh://pi@board"),
        "profile": ("bench", "net.onnx", "--per-layer", "--device", "ssh://pi@board"),
        "info": ("targets", "check", rng.choice(("rpi4", "host")), "--device", "ssh://pi@board"),
    }
    kind = rng.choice(sorted(kinds))
    source = (stock.replies / f"{kind}.json").read_bytes()
    data, done = _spoil_json(rng, source)
    (cell.case / "reply").write_bytes(data)
    other = (stock.replies / "bench.json").read_bytes() if kind == "profile" else data
    (cell.case / "reply.bench").write_bytes(other)
    if rng.random() < 0.04:
        done = ["without end"]
        (cell.case / "endless").touch()
    (cell.case / "code").write_text(str(rng.choice((0, 0, 0, 0, 1, 3, 75, 124, 137, 255))), encoding="ascii")
    (cell.case / "noise").write_bytes(
        rng.choice(
            (b"", b"\x1b[31mred\x07\n", b"x" * 3_000_000, b"\xff\xfe\n", text(rng).encode("utf-8", "replace"))
        )
    )
    shutil.copyfile(stock.model, cell.case / "net.onnx")
    argv = (*kinds[kind], "--json") if rng.random() < 0.4 else kinds[kind]
    return Plan(argv, (kind, *done))


def run_folder(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A run that somebody sent: its report, recipe and artifacts as they please."""
    run = cell.case / (
        "run"
        if rng.random() < 0.95
        else rng.choice(("[red]run", "-run", "a b", "r\x1b[31mun", "r|u&n\\", "r\nun"))
    )
    shutil.copytree(stock.run, run, symlinks=True)
    done: list[str] = []
    for _ in range(rng.choice((1, 1, 2))):
        done += _spoil_run(rng, cell, run)
    argv = rng.choice((
        ("report", run.name), ("report", run.name, "--md"), ("report", run.name, "--csv"), ("report", run.name, "--json"),
        ("report", run.name, "-o", "page.html"), ("report", run.name, run.name, "-o", "page.html"),
        ("deploy", run.name, "-o", "bundle"), ("deploy", run.name, "-o", "bundle", "--target", "rpi4"),
        ("deploy", run.name, "-o", "bundle", "--json"),
        ("compile", "--recipe", f"{run.name}/recipe.yaml", "-o", "out", "--no-bench", "--dry-run"),
    ))  # fmt: skip
    if run.name.startswith("-"):
        argv = tuple(f"./{word}" if word == run.name else word for word in argv)
    return Plan(argv, tuple(done))


def _spoil_run(rng: random.Random, cell: Cell, run: Path) -> list[str]:
    files = sorted(
        p
        for p in run.iterdir()
        if p.is_file() and p.suffix in (".onnx", ".tflite", ".html", ".json", ".yaml")
    )
    if not files:
        return []
    how = rng.choice(
        (
            "report",
            "report",
            "report",
            "report",
            "recipe",
            "paths",
            "artifact",
            "special",
            "delete",
            "link",
            "mark",
        )
    )
    report, recipe = run / "report.json", run / "recipe.yaml"
    if how == "report" and report.is_file():
        data, done = _spoil_json(rng, report.read_bytes())
        report.write_bytes(data)
        return [how, *done]
    if how == "recipe" and recipe.is_file():
        import yaml

        try:
            tree, done = mutate_tree.mutate_safely(rng, yaml.safe_load(recipe.read_bytes()), 1)
        except (yaml.YAMLError, ValueError):
            return ["recipe as it was"]
        data, said = mutate_tree.write_yaml(rng, tree)
        recipe.write_bytes(data)
        return [how, *done, *said]
    if how == "paths" and report.is_file():
        return [how, _other_path(rng, cell, run)]
    one = rng.choice(files)
    if how == "artifact":
        data, said = scramble(rng, one.read_bytes())
        one.write_bytes(data)
        return [how, one.name, said]
    if how == "special":
        return [how, one.name, special(rng, one, cell.outside)]
    if how == "link":
        one.unlink()
        one.symlink_to("../../outside/secret.bin")
        return [how, one.name]
    if how == "mark":
        (run / ".edgec").unlink(missing_ok=True)
        part = run / ".part"
        part.unlink() if part.is_symlink() else shutil.rmtree(part, ignore_errors=True)
        part.symlink_to("../../outside")
        return [how]
    one.unlink()
    return ["delete", one.name]


def _other_path(rng: random.Random, cell: Cell, run: Path) -> str:
    """An artifact of the report that lies elsewhere, with the right hash, or has a name that means something."""
    try:
        tree = json.loads((run / "report.json").read_text(encoding="utf-8"))
        artifact = rng.choice(tree["artifacts"])
    except (ValueError, KeyError, IndexError, TypeError, OSError, RecursionError):
        return "none"
    path = rng.choice(
        (
            "../../outside/secret.bin",
            str(cell.outside / "secret.bin"),
            "linked/secret.bin",
            "a/../../../outside/secret.bin",
            "..",
            "",
            ".",
            "model.onnx\x00",
            text(rng),
            "SHA256SUMS",
            "run.py",
            "install.sh",
            "sub/run.py",
            "bundle.json",
        )
    )
    (run / "linked").unlink(missing_ok=True)  # an earlier change of this case may have made it
    (run / "linked").symlink_to("../../outside")
    artifact["path"] = path
    artifact["sha256"] = (
        hashlib.sha256((cell.outside / "secret.bin").read_bytes()).hexdigest()
        if "secret" in path
        else artifact["sha256"]
    )
    if (
        rng.random() < 0.5
        and "secret" not in path
        and path not in ("", ".", "..")
        and "\0" not in path
        and len(path) < 200
    ):
        target = run / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / "model.onnx", target)
        except OSError:
            return f"{path!r}"
        artifact["sha256"] = hashlib.sha256((run / "model.onnx").read_bytes()).hexdigest()
    (run / "report.json").write_text(json.dumps(tree), encoding="utf-8")
    return f"{path[:60]!r}"


def cache(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A run to be resumed whose kept passes were changed, moved, or replaced; or the user's own key for them."""
    shutil.copytree(stock.run, cell.case / "run", symlinks=True)
    shutil.copyfile(stock.model, cell.case / "net.onnx")
    folder = cell.case / "run" / ".cache"
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    how = rng.choice(
        (
            "bytes",
            "bytes",
            "bytes",
            "model",
            "swap",
            "link",
            "cache link",
            "special",
            "log",
            "json",
            "empty",
            "key",
        )
    )
    done = [how]
    log, key = cell.case / "run" / "log.jsonl", cell.home / ".local" / "state" / "edgec" / "seal.key"
    if how == "cache link" or not files:
        shutil.rmtree(folder, ignore_errors=True)
        folder.symlink_to("../../outside")
    elif how == "log":
        log.unlink(missing_ok=True)
        done.append(special(rng, log, cell.outside))
    elif how == "key":
        key.parent.mkdir(parents=True, exist_ok=True)
        done.append(special(rng, key, cell.outside))
    else:
        done += _spoil_kept(rng, cell, files, how)
    resume = ("--resume",) if rng.random() < 0.85 else ()
    return Plan((*RESUMED, "-o", "run", *resume), tuple(done))


RESUMED = (
    "compile", "net.onnx", "--data", "random", "--samples", "4", "--precision", "int8", "--format", "onnx,tflite", "--seed", "0",
    "--threads", "1", "--no-bench",
)  # fmt: skip
"""The command that made the stock's run."""


def _spoil_kept(rng: random.Random, cell: Cell, files: list[Path], how: str) -> list[str]:
    """Change one kept file, or its neighbour."""
    one, other = rng.choice(files), rng.choice(files)
    if how == "model":
        changed = seeds.seed(rng.choice(seeds.NAMES))
        said = mutate_onnx.mutate(rng, changed, 1)
        one.write_bytes(changed.SerializeToString())
        _seal(one.parent)
        return [one.name, *said]
    if how == "swap":
        shutil.copyfile(other, one) if one != other else one.unlink()
    elif how == "json":
        one.write_bytes(_spoil_json(rng, b'{"seconds": 1.0, "notes": []}')[0])
    elif how == "empty":
        one.write_bytes(b"")
    elif how == "link":
        one.unlink()
        one.symlink_to(cell.outside / "secret.bin")
    elif how == "special":
        return [one.name, special(rng, one, cell.outside)]
    else:
        data, said_ = scramble(rng, one.read_bytes())
        one.write_bytes(data)
        return [one.name, said_]
    return [one.name]


def _seal(entry: Path) -> None:
    """A hash that lies beside the model, made right again: whoever can change the one can change the other."""
    step = entry / "step.json"
    try:
        figures = json.loads(step.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(figures, dict) and "sha256" in figures:
        figures["sha256"] = hashlib.sha256((entry / "model.onnx").read_bytes()).hexdigest()
        step.write_text(json.dumps(figures), encoding="utf-8")
