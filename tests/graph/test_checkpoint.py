"""Checkpoints: every place where trainers put weights, every wrapper's prefix, and words for what does not fit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from edgec.graph.errors import EdgecError
from edgec.graph.load import read

torch = pytest.importorskip("torch")
from edgec.graph.checkpoint import load_weights  # noqa: E402


def net() -> Any:
    return torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(3, 4, 3), norm=torch.nn.BatchNorm2d(4), head=torch.nn.Conv2d(4, 2, 1)
        )
    )


def wrapped(state: Any, *prefixes: str) -> Any:
    return {"".join(prefixes) + key: value for key, value in state.items()}


HELD = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {}}},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": torch.tensor(0.5).item()},
    "net": lambda s: {"net": s, "acc": 93.1},
    "beside a tensor": lambda s: {"loss": torch.tensor(0.5), "model": s},
    "deep": lambda s: {"model": {"state_dict": s}},
    "module.": lambda s: wrapped(s, "module."),
    "_orig_mod.": lambda s: {"model": wrapped(s, "_orig_mod.", "module.")},
    "lightning": lambda s: {"state_dict": wrapped(s, "model."), "pytorch-lightning_version": "2.1"},
}


@pytest.mark.parametrize("how", HELD)
def test_weights_are_found(how: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained, fresh = net(), net()
    torch.save(HELD[how](trained.state_dict()), tmp_path / "w.pth")
    load_weights(fresh, tmp_path / "w.pth", trust=False)
    for key, value in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


def test_a_whole_module_needs_trust(tmp_path: Path) -> None:
    trained, fresh = net(), net()
    torch.save({"model": trained}, tmp_path / "w.pt")
    with pytest.raises(EdgecError, match="more than plain tensors") as info:
        load_weights(fresh, tmp_path / "w.pt", trust=False)
    assert "--trust" in str(info.value)
    load_weights(fresh, tmp_path / "w.pt", trust=True)
    assert torch.equal(fresh.head.weight, trained.head.weight)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = net().state_dict()
    del state["conv.weight"]
    state["fc.weight"] = torch.zeros(2)
    state["head.weight"] = torch.zeros(7, 4, 1, 1)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(EdgecError) as info:
        load_weights(net(), tmp_path / "w.pth", trust=False)
    said = str(info.value)
    assert "1 missing: conv.weight" in said
    assert "1 unexpected: fc.weight" in said
    assert "head.weight is (7, 4, 1, 1), the network has (2, 4, 1, 1)" in said


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 5])
def test_no_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(EdgecError, match="no weights in this checkpoint"):
        load_weights(net(), tmp_path / "w.pth", trust=False)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "folder"])
def test_keras_gets_the_line_that_exports_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"x")
    else:
        path.write_bytes(b"PK\x03\x04")
    with pytest.raises(EdgecError, match="Export it: ") as info:
        read(path)
    assert path.name in str(info.value)
