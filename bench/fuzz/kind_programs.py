"""Cases of hostile torch programs, torch weights, and TFLite files."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile

from cell import PAYLOAD, Cell, Plan, Stock
from wild import scramble, special, text


class _Payload:
    """What a pickle runs when it is loaded: it leaves a file where nothing should be written."""

    def __init__(self, path: str, how: str) -> None:
        self._path, self._how = path, how

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        if self._how == "system":
            return os.system, (f"touch {self._path}",)
        if self._how == "exec":
            return exec, (f"open({self._path!r}, 'w')",)
        return open, (self._path, "w")


def payload(rng: random.Random, cell: Cell) -> bytes:
    """A pickle that executes."""
    import torch

    how = rng.choice(("system", "exec", "open"))
    content = _Payload(str(cell.environment()[PAYLOAD]), how)
    if rng.random() < 0.4:
        return pickle.dumps(content, protocol=rng.choice((2, 4)))
    stream = io.BytesIO()
    torch.save({"state_dict": content, "weight": torch.zeros(2)} if rng.random() < 0.5 else content, stream)
    return stream.getvalue()


def program(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A torch.export file with members swapped, cut, blown up; or a factory's weights that are not what they say."""
    if rng.random() < 0.2:
        return _weights(rng, cell)
    with zipfile.ZipFile(stock.program) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    done = [_spoil_member(rng, cell, members) for _ in range(rng.choice((1, 1, 2)))]
    file = cell.case / "net.pt2"
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as out:
        for name, data in members.items():
            out.writestr(name, data)
    if rng.random() < 0.15:
        data, how = scramble(rng, file.read_bytes())
        file.write_bytes(data)
        done.append(f"bytes: {how}")
    argv = ("inspect", "net.pt2") if rng.random() < 0.7 else ("compile", "net.pt2", "--no-bench", "-o", "out")
    return Plan(argv, tuple(done))


def _spoil_member(rng: random.Random, cell: Cell, members: dict[str, bytes]) -> str:
    name = rng.choice(sorted(members))
    how = rng.choice(
        ("payload", "payload", "scramble", "delete", "json", "rename", "bomb", "extra", "archive")
    )
    if how == "payload":
        members[name] = payload(rng, cell)
    elif how == "scramble":
        members[name], _ = scramble(rng, members[name])
    elif how == "delete":
        del members[name]
    elif how == "json":
        members[name] = rng.choice(
            (b"{}", b"[]", b"null", b"[" * 100_000, b'{"graph_module": 1}', b'"x"', b"1e999")
        )
    elif how == "rename":
        members[rng.choice(("../outside/written", "/etc/x", text(rng) or "x"))] = members.pop(name)
    elif how == "bomb":
        members[name] = b"\0" * 300_000_000
    elif how == "extra":
        members["net/extra/evil.pkl"] = payload(rng, cell)
    else:
        members[name.split("/", 1)[0] + "/archive_format"] = rng.choice((b"pt2", b"pt1", b"", b"\xff"))
    return f"{how} {name}"


FACTORY = (
    "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())\n"
)


def _weights(rng: random.Random, cell: Cell) -> Plan:
    import torch

    (cell.case / "net.py").write_text(FACTORY, encoding="utf-8")
    file = cell.case / "w.pt"
    how = rng.choice(("payload", "payload", "bytes", "shapes", "types", "special"))
    if how == "payload":
        file.write_bytes(payload(rng, cell))
    elif how == "special":
        file.write_bytes(b"")
        how += f" {special(rng, file, cell.outside)}"
    else:
        state: object = {"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.zeros(4)}
        if how == "shapes":
            state = {"0.weight": torch.zeros(rng.choice(((1,), (4, 3, 3), (0,)))), text(rng): torch.zeros(1)}
        elif how == "types":
            state = rng.choice(
                (
                    [1, 2],
                    {"0.weight": 3, "0.bias": "x"},
                    torch.zeros(2),
                    {"state_dict": {"state_dict": 1}},
                    {1: 2},
                )
            )
        torch.save(state, file)
        if how == "bytes":
            data, said = scramble(rng, file.read_bytes())
            file.write_bytes(data)
            how += f" {said}"
    return Plan(
        ("inspect", "net.py:make", "--weights", "w.pt", "--input-shape", "3,8,8"), (f"weights: {how}",)
    )


def flat(rng: random.Random, cell: Cell, stock: Stock) -> Plan:
    """A TFLite file of ours with damaged bytes: the words of a flatbuffer are offsets, so a flip sends its reader anywhere."""
    source = rng.choice(sorted(stock.run.glob("*.tflite")))
    data = source.read_bytes()
    done = [source.name]
    for _ in range(rng.choice((1, 1, 2, 5))):
        if rng.random() < 0.6:
            at = 4 * rng.randrange(len(data) // 4)
            word = rng.choice(
                (
                    b"\xff\xff\xff\xff",
                    b"\0\0\0\0",
                    b"\xff\xff\xff\x7f",
                    b"\0\0\0\x80",
                    rng.randbytes(4),
                    bytes([rng.randrange(64), 0, 0, 0]),
                )
            )
            data = data[:at] + word + data[at + 4 :]
            done.append(f"word at {at}: {word.hex()}")
        else:
            data, how = scramble(rng, data)
            done.append(how)
    (cell.case / "net.tflite").write_bytes(data)
    (cell.case / "net.onnx").write_bytes(stock.model.read_bytes())
    argv = rng.choices(
        (
            ("inspect", "net.tflite"), ("inspect", "net.tflite", "--layers", "--json"),
            ("verify", "net.onnx", "net.tflite", "--samples", "2"), ("bench", "net.tflite", "--runs", "1", "--seconds", "0"),
            ("bench", "net.tflite", "--estimate", "--target", "rpi4"),
        ),
        (40, 15, 25, 8, 12),
    )[0]  # fmt: skip
    return Plan(argv, tuple(done))
