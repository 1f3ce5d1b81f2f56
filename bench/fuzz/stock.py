"""The sound inputs that cases start from, made by edgec itself: a network, a run with its cache, the agent's answers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import seeds
from cell import Stock

import edgec


def make(stock: Stock) -> None:
    """Fill the folder, or leave it where it is complete and this edgec made it."""
    mark = stock.root / "complete"
    if mark.exists() and mark.read_text(encoding="ascii") == _sources():
        return
    shutil.rmtree(stock.root, ignore_errors=True)
    stock.home.mkdir(parents=True)
    model = seeds.seed("residual")
    stock.model.write_bytes(model.SerializeToString())
    _canonical(stock)
    _edgec(
        *("compile", str(stock.model), "--data", "random", "--samples", "4", "--precision", "int8", "--format", "onnx,tflite"),
        *("--seed", "0", "--threads", "1", "--no-bench", "--force", "-o", str(stock.run)),
        stock=stock,
    )  # fmt: skip
    _replies(stock)
    _program(stock.program)
    mark.write_text(_sources(), encoding="ascii")


def _sources() -> str:
    """sha256 of edgec's own files: another edgec writes other runs."""
    digest = hashlib.sha256()
    for floor in sorted(Path(edgec.__file__).parent.iterdir()):
        for path in sorted(floor.resolve().rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _edgec(*argv: str, stock: Stock) -> None:
    command = [str(Path(sys.executable).parent / "edgec"), *argv]
    environment = {**os.environ, "HOME": str(stock.home)}
    environment = {key: value for key, value in environment.items() if not key.startswith("XDG_")}
    done = subprocess.run(
        command, cwd=stock.root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the stock cannot be made: {' '.join(argv)}: {done.stderr}")


def _canonical(stock: Stock) -> None:
    import onnx
    import onnx_ir as ir

    from edgec.graph.load import load

    onnx.save_model(ir.to_proto(load(stock.model)), stock.canonical)


def _replies(stock: Stock) -> None:
    """What the real agent says to each question."""
    from edgec.runtime.devices import open_device
    from edgec.runtime.devices.base import run_job

    stock.replies.mkdir(exist_ok=True)
    model = str(stock.model)
    short = ["--runs", "2", "--seconds", "0", "--warmup", "0", "--warmup-most", "0"]
    questions = {
        "bench": ["bench", *short, model],
        "interleave": ["bench", "--interleave", "--restarts", "1", *short, model, model],
        "profile": ["profile", "--seconds", "0", model],
        "info": ["info"],
    }
    with open_device("local") as device:
        for name, flags in questions.items():
            done = run_job(device, [*device.agent_command(), *flags], timeout=120.0)
            answer = done.stdout.strip().splitlines()[-1]
            json.loads(answer)
            (stock.replies / f"{name}.json").write_text(answer, encoding="utf-8")


def _program(path: Path) -> None:
    """A torch.export file, where torch is installed."""
    try:
        import torch
    except ImportError:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)
    ).eval()
    example = (torch.zeros(2, 3, 8, 8),)
    torch.export.save(torch.export.export(net, example), str(path))
