"""Cases of hostile texts: recipes, target cards, and labels."""

from __future__ import annotations

import random
import shutil
from importlib import resources

import mutate_tree
import yaml
from cell import Cell, Plan, Stock
from kind_pictures import pictures
from wild import integer, scramble, special, text

PASSES = (
    "prune-channels{macs=50%} recover-lsq", "quantize", "remove-blocks{macs=80%}", "decompose{macs=70%}", "equalise quantize",
    "prune-channels{macs=0%}", "prune-channels{macs=-5%}", "prune-channels{macs=1e999}", "prune-channels{multiple=0}",
    "prune-channels{", "}", "quantize{samples=-1}", "recover-lsq{lam=nan}", "a" * 3000, "quantize " * 300, "quantise", "{}",
    "quantize{a=b}", "quantize{{}}", "recover-lsq{lam=-3}", "prune-channels{macs=50}", "prune-channels{macs=50% macs=40%}",
    "\x1b[31m", "[red]", "quantize\x00", "quantize{=}", "prune-channels{macs=50%multiple=8}",
)  # fmt: skip


def _recipe(rng: random.Random) -> dict[str, object]:
    """A sound recipe with most of its keys."""
    return {
        "model": {"path": "net.onnx", "input_shape": [3, 8, 8]},
        "data": {"path": "random", "samples": 4, "skip_bad": False},
        "preprocess": {
            "mean": [0.5, 0.5, 0.5], "std": [1.0, 1.0, 1.0], "scale": 1.0, "layout": "auto", "resize": [8, 8], "crop": [8, 8],
            "channels": "rgb", "letterbox": 0,
        },
        "target": "host",
        "precision": rng.choice(("fp32", "int8")),
        "budget": rng.choice(("macs=50%", "params=40%", "size=4kB")),
        "formats": ["onnx"],
        "gates": {"max_drop": 0.5},
        "seed": 0,
        "threads": 1,
        "io_layout": "nhwc",
        "batch": 1,
        "split_unsupported": False,
    }  # fmt: skip


def recipe(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A recipe with one to three changes, or written badly."""
    shutil.copyfile(stock.model, cell.case / "net.onnx")
    tree = _recipe(rng)
    for key in rng.sample(sorted(tree), rng.randrange(8)):
        if key != "model":
            del tree[key]
    if rng.random() < 0.3:
        tree.pop("budget", None)
        chosen = rng.choice(PASSES)
        tree["passes"] = rng.choice(
            (
                [chosen],
                [{"name": chosen, "options": {}}],
                chosen,
                [{"name": "prune-channels", "options": {"macs": mutate_tree.wild_value(rng)}}],
            )
        )
    tree, done = mutate_tree.mutate_safely(rng, tree, rng.choice((0, 1, 1, 1, 2, 3)))
    if isinstance(tree, dict) and rng.random() < 0.1 and isinstance(tree.get("model"), dict):
        tree["model"]["path"] = rng.choice(
            (
                "../outside/secret.bin",
                "/dev/zero",
                "net.onnx:make",
                "x.py:f",
                "",
                ".",
                "recipe.yaml",
                text(rng),
            )
        )
        done.append("another path")
    data, how = mutate_tree.write_yaml(rng, tree)
    file = cell.case / "recipe.yaml"
    file.write_bytes(data)
    if rng.random() < 0.02:
        how = [f"in place of the file: {special(rng, file, cell.outside)}"]
    extra = () if rng.random() < 0.25 else ("--dry-run",)
    return Plan(("compile", "--recipe", "recipe.yaml", "-o", "out", "--no-bench", *extra), (*done, *how))


def _card(rng: random.Random) -> dict[str, object]:
    """A shipped target under another name, or one that extends it."""
    names = ("rpi4", "rpi5", "jetson-orin-nano", "pi-zero-2w", "x86-laptop")
    folder = resources.files("edgec.targets")
    shipped = [name for name in names if (folder / f"{name}.yaml").is_file()]
    if not shipped or rng.random() < 0.4:
        return {"name": "mine", "extends": "rpi4", "title": "mine", "memory_mb": 1000}
    tree: dict[str, object] = yaml.safe_load(
        (folder / f"{rng.choice(shipped)}.yaml").read_text(encoding="utf-8")
    )
    return {**tree, "name": "mine"}


def card(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A target file given by path, or lying in the user's folder when targets are listed or used."""
    tree, done = mutate_tree.mutate_safely(rng, _card(rng), rng.choice((0, 1, 1, 1, 2, 3)))
    data, how = mutate_tree.write_yaml(rng, tree)
    cell.targets.mkdir(parents=True)
    lies = rng.random() < 0.5
    name = text(rng) if rng.random() < 0.05 else "mine"
    folder = cell.targets if lies else cell.case
    try:
        file = folder / f"{name}.yaml"
        file.write_bytes(data)
    except (OSError, ValueError):
        file = folder / "mine.yaml"
        file.write_bytes(data)
    if rng.random() < 0.05:
        how = [f"in place of the file: {special(rng, file, cell.outside)}"]
    if lies:
        argv = rng.choice(
            (
                ("targets", "list"),
                ("targets", "list", "--json"),
                ("targets", "show", "mine"),
                ("targets", "check", "rpi4"),
                ("inspect", str(stock.model), "--target", "mine"),
            )
        )
    else:
        path = f"./{file.name}"
        argv = rng.choice(
            (
                ("targets", "add", path),
                ("targets", "show", path),
                ("targets", "check", path),
                ("inspect", str(stock.model), "--target", path),
                ("bench", str(stock.model), "--estimate", "--target", path),
            )
        )
    return Plan(argv, (*done, *how))


def labels(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A table of labels for pictures, or a file of class names."""
    pictures(cell.case / "eval", 3)
    lines = ["file,label", "p0.png,0", "p1.png,1", "p2.png,2"]
    how = rng.choice(
        (
            "cell",
            "cell",
            "line",
            "scramble",
            "encoding",
            "quotes",
            "many",
            "long",
            "special",
            "delimiter",
            "empty",
            "twice",
            "nul",
            "names",
        )
    )
    data = "\n".join(lines).encode()
    done = [how]
    if how == "cell":
        row = rng.randrange(len(lines))
        cells = lines[row].split(",")
        cells[rng.randrange(2)] = rng.choice(
            (text(rng), str(integer(rng)), "²", "١", "1.0", "--1", "-", "9" * 5000, "../outside/secret.bin")
        )
        lines[row] = ",".join(cells)
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
    elif how == "line":
        lines.insert(rng.randrange(5), rng.choice(("", ",", ",,,", "x", "a,b,c", text(rng), " ", '"')))
        data = "\n".join(lines).encode()
    elif how == "scramble":
        data, said = scramble(rng, data)
        done.append(said)
    elif how == "encoding":
        data = rng.choice(
            (
                data.decode().encode("utf-16"),
                data.decode().encode("utf-32"),
                b"\xef\xbb\xbf" + data,
                data + b"\n\xe9.png,3",
                data.replace(b"\n", b"\r"),
                data.replace(b"\n", b"\r\n"),
            )
        )
    elif how == "quotes":
        data = data.replace(b"p1", b'"p1')
    elif how == "many":
        data += b"\nx.png,1" * 300_000
    elif how == "long":
        data += b"\n" + b"y" * 5_000_000 + b",1"
    elif how == "delimiter":
        data = data.replace(b",", rng.choice((b";", b"\t", b" ")))
    elif how == "empty":
        data = b""
    elif how == "twice":
        data += b"\np0.png,5"
    elif how == "nul":
        data += b"\np\0.png,5"
    file = cell.case / "labels.csv"
    file.write_bytes(data)
    if how == "special":
        done.append(special(rng, file, cell.outside))
    if how == "names" or rng.random() < 0.1:
        shutil.copytree(stock.run, cell.case / "run", symlinks=True)
        return Plan(("deploy", "run", "-o", "bundle", "--labels", "labels.csv"), (*done, "of a deploy"))
    if rng.random() < 0.75:
        return Plan(("fuzz-data", "eval", str(stock.canonical), "--labels", "labels.csv"), tuple(done))
    argv = (
        "compile",
        str(stock.model),
        "--data",
        "random",
        "--samples",
        "2",
        "--eval",
        "eval",
        "--eval-labels",
        "labels.csv",
        "--no-bench",
        "-o",
        "out",
    )
    return Plan((*argv, "--dry-run") if rng.random() < 0.6 else argv, tuple(done))
