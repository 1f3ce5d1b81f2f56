"""`.pt2` files: ordinary ones load without a flag, and nothing that one holds is run without trust."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.graph import torch_guard
from edgec.graph.errors import ModelError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.listener import Listener
from edgec.graph.load import load

torch = pytest.importorskip("torch")
Members = dict[str, bytes]


class Evil:
    """Unpickling one writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "ran"))


def network() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torch writes it, with a free batch axis."""
    path = tmp_path_factory.mktemp("pt2") / "good.pt2"
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network(), (torch.ones(2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, content: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def member(content: Members, pattern: str) -> str:
    return next(name for name in content if re.search(pattern, name))


def edit(content: Members, pattern: str, change: Callable[[Any], None]) -> None:
    """Change a member that is JSON."""
    name = member(content, pattern)
    values = json.loads(content[name])
    change(values)
    content[name] = json.dumps(values).encode()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_an_ordinary_file_loads(archive: Path) -> None:
    model = load(archive)
    assert [node.op_type for node in model.graph][:2] == ["Conv", "Relu"]
    assert Executor(model).run({model.graph.inputs[0].name: np.ones((3, 3, 8, 8), np.float32)})


def test_extra_files_are_text_of_any_kind(archive: Path, tmp_path: Path) -> None:
    content = members(archive)
    root = member(content, "model.json").split("/")[0]
    content[f"{root}/extra/notes.json"] = b'{"a (b)": "c; d"'
    assert torch_guard.load_guarded(write(tmp_path / "m.pt2", content), Listener()).graph.nodes


def _sample_inputs(content: Members, target: Path) -> None:
    content[member(content, "sample_inputs")] = saved(Evil(target))


def _raw_pickle(content: Members, target: Path) -> None:
    content[member(content, "sample_inputs")] = pickle.dumps(Evil(target))


def _weight(content: Members, target: Path) -> None:
    def change(values: Any) -> None:
        first = next(iter(values["config"].values()))
        first["use_pickle"] = True
        name = member(content, f"weights/{first['path_name']}$")
        content[name] = saved(Evil(target))

    edit(content, "weights_config.json", change)


def _constant(kind: str) -> Callable[[Members, Path], None]:
    def make(content: Members, target: Path) -> None:
        root = member(content, "constants_config").rpartition("/")[0]
        content[f"{root}/{kind}_0"] = pickle.dumps(Evil(target))
        meta = {"path_name": f"{kind}_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        edit(content, "constants_config", lambda values: values["config"].update(c=meta))

    return make


def _library(content: Members, target: Path) -> None:
    root = member(content, "model.json").split("/")[0]
    content[f"{root}/data/aotinductor/model/m.so"] = b"\x7fELF"


def _nodes(values: Any) -> Any:
    return values["graph_module"]["graph"]["nodes"]


def _target(text: str) -> Callable[[Members, Path], None]:
    """A node that calls what it should not, with a text as its operand."""

    def make(content: Members, target: Path) -> None:
        def change(values: Any) -> None:
            node = _nodes(values)[0]
            node["target"] = text
            node["inputs"] = [{"name": "a", "arg": {"as_string": f"echo ran > {target}"}, "kind": 1}]

        edit(content, "models/.*json", change)

    return make


def _size(text: str) -> Callable[[Members, Path], None]:
    """Sizes are evaluated by sympy."""

    def make(content: Members, target: Path) -> None:
        name = member(content, "models/.*json")
        values = content[name].decode()
        given = json.dumps(text.format(target=target))
        changed = re.sub(r'"expr_str": "(?:[^"\\]|\\.)*"', lambda _: f'"expr_str": {given}', values)
        assert changed != values
        content[name] = changed.encode()

    return make


def _guard(text: str) -> Callable[[Members, Path], None]:
    return lambda content, target: edit(
        content, "models/.*json", lambda values: values.update(guards_code=[text.format(target=target)])
    )


def _name(content: Members, target: Path) -> None:
    name = member(content, "models/.*json")
    bad = f"x=open('{target}','w')"
    content[name] = content[name].replace(b'"name": "input"', b'"name": ' + json.dumps(bad).encode())
    assert bad.encode()[:6] in content[name]


OPEN = "open('{target}', 'w')"
HOSTILE: dict[str, Callable[[Members, Path], None]] = {
    "sample inputs": _sample_inputs,
    "sample inputs as a bare pickle": _raw_pickle,
    "weight": _weight,
    "tensor constant": _constant("tensor"),
    "custom object": _constant("custom_obj"),
    "opaque object": _constant("opaque_obj"),
    "compiled library": _library,
    "os.system": _target("torch.os.system"),
    "torch.load": _target("torch.load"),
    "load_library": _target("torch.ops.load_library"),
    "aten.save": _target("torch.ops.aten.save.default"),
    "operator.call": _target("_operator.call"),
    "operator.attrgetter": _target("_operator.attrgetter"),
    "size that opens": _size(OPEN),
    "size that imports": _size("__import__('pathlib').Path('{target}').touch()"),
    "size with an attribute": _size("Symbol('s0').__class__"),
    "size in a text": _size('Symbol("s0\');{target}")'),
    "guard that opens": _guard(OPEN + " is None"),
    "guard with a quote": _guard("L['a\"+str(open(1))+\"'].size()[0] == 1"),
    "name that is code": _name,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_in_the_file_is_run(
    make: Callable[[Members, Path], None], archive: Path, tmp_path: Path
) -> None:
    content, target = members(archive), tmp_path / "ran"
    make(content, target)
    with pytest.raises(ModelError) as caught:
        load(write(tmp_path / "m.pt2", content))
    assert not target.exists()
    assert "asks for code to be run" in str(caught.value)
    assert "--trust" in str(caught.value)
    assert "with your rights" in str(caught.value)


def test_trust_runs_it(archive: Path, tmp_path: Path) -> None:
    """The cases above would do what they say: the guard is what stops them."""
    for make in (_sample_inputs, _size(OPEN)):
        content, target = members(archive), tmp_path / make.__name__
        make(content, target)
        with pytest.raises(ModelError):
            load(write(tmp_path / "m.pt2", content), trust=True)
        assert target.exists()


def test_the_guard_leaves_torch_as_it_was(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from torch.export.pt2_archive import _package

    before = (_package.pickle, torch._C._pickle_load_obj, _package._load_aoti)
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # which torch would take over everything else
    torch_guard.load_guarded(archive, Listener())
    assert (_package.pickle, torch._C._pickle_load_obj, _package._load_aoti) == before
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def test_a_torch_that_cannot_refuse_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UsageError, match=r"2\.5\.1"):
        load(archive)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(40)])
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(ModelError):
        load(tmp_path / "m.pt2")


def test_an_archive_that_swells_is_refused(archive: Path, tmp_path: Path) -> None:
    content = members(archive)
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as swelling:
        for name, data in content.items():
            swelling.writestr(name, data)
        for number in range(3):
            info = zipfile.ZipInfo(f"x/{number}")
            info.compress_type = zipfile.ZIP_DEFLATED
            with swelling.open(info, "w") as stream:
                for _ in range(3):
                    stream.write(bytes(1 << 20))
    raw = bytearray(path.read_bytes())
    for at in [match.start() for match in re.finditer(rb"PK\x01\x02", bytes(raw))][-3:]:
        raw[at + 24 : at + 28] = (1 << 30).to_bytes(4, "little")  # the size that the directory says
    path.write_bytes(raw)
    with pytest.raises(ModelError, match="2 GB"):
        load(path)
