"""Torch modules, datasets and loaders, straight from the process that trained them."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import edgec

torch = pytest.importorskip("torch", reason="torch modules need torch")
nn = torch.nn
FAST = {"measure": False, "quiet": True, "passes": ""}
ROOT = Path(__file__).parents[2]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop, self.head = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Dropout(0.5),
            nn.Linear(4, 5),
        )

    def forward(self, image):
        return self.head(self.drop(torch.relu(self.norm(self.conv(image)))).mean((2, 3)))


class Branches(Small):
    """Python decides by the data: torch.export refuses, TorchScript writes down one way."""

    def forward(self, image):
        if float(image.detach().sum()) > 1e9:
            return image
        return super().forward(image)


class Two(Small):
    def forward(self, image, bias):
        return super().forward(image) + bias


class Unheard(Small):
    """An operator that ONNX lacks."""

    def forward(self, image):
        return self.head(torch.linalg.eigvalsh(image.mean(1)[:, :4, :4]))


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)


EXAMPLES = {
    "example_input": lambda x: {"example_input": torch.from_numpy(x[:1])},
    "example array": lambda x: {"example_input": x},
    "input_shape": lambda x: {"input_shape": (3, 8, 8)},
    "array": lambda x: {"data": x},
    "tensor": lambda x: {"data": torch.from_numpy(x)},
    "dataset": lambda x: {"data": torch.utils.data.TensorDataset(torch.from_numpy(x))},
    "generator of samples": lambda x: {"data": iter(torch.from_numpy(x))},
    "loader": lambda x: {
        "data": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(x)), 5)
    },
    "labelled loader": lambda x: {
        "eval": torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.from_numpy(x), torch.arange(12) % 5), batch_size=5
        )
    },
    "channels last": lambda x: {"data": (np.abs(x) * 50).astype(np.uint8).transpose(0, 2, 3, 1)},
}


SOON = ("input_shape", "dataset", "labelled loader", "channels last")
"""One of each way: named, an item, a batch with labels, whole numbers; an export takes seconds."""


@pytest.mark.parametrize(
    "kind", [one if one in SOON else pytest.param(one, marks=pytest.mark.slow) for one in EXAMPLES]
)
def test_a_module_is_exported_with_an_example_from_anywhere(kind, pictures, tmp_path) -> None:
    torch.manual_seed(0)
    module = Small().train()
    module.drop.eval()
    report = edgec.compile(module, tmp_path / "out", **EXAMPLES[kind](pictures), **FAST)
    assert module.training  # and its parts as they were
    assert module.norm.training
    assert not module.drop.training
    assert report.model.name == "Small (torch.nn.Module)"
    assert report.load().inputs == {"image": (3, 8, 8)}
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(report.load()(pictures), expected, atol=1e-4)


def test_a_module_of_two_inputs_takes_its_example_from_a_dict(pictures, tmp_path) -> None:
    module = Two()
    bias = np.ones((12, 5), np.float32)
    report = edgec.compile(module, tmp_path / "out", data={"bias": bias, "image": pictures}, **FAST)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(pictures), torch.from_numpy(bias)).numpy()
    np.testing.assert_allclose(report.load()({"image": pictures, "bias": bias}), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_a_module_takes_its_example_from_a_file_of_arrays(kind, pictures, tmp_path) -> None:
    path = tmp_path / f"x.{kind}"
    (np.savez if kind == "npz" else np.save)(path, pictures)
    assert edgec.compile(Small(), tmp_path / "out", data=path, **FAST).load()(pictures).shape == (12, 5)


def test_what_torch_export_refuses_torchscript_may_take(pictures, tmp_path) -> None:
    module = Branches()
    report = edgec.compile(module, tmp_path / "out", data=pictures, **FAST)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(report.load()(pictures), expected, atol=1e-4)


@pytest.mark.parametrize("earlier", ["nothing exported before", "an export by torch's own hand before"])
def test_where_both_exporters_fail_one_error_gives_both_reasons(earlier, pictures, tmp_path, capfd) -> None:
    """After any TorchScript export torch's log stays on, in C++: what ran earlier in the process must not matter."""
    log = earlier.startswith("an export")
    torch._C._jit_set_onnx_log_enabled(log)
    with pytest.raises(edgec.ModelError, match=r"Unheard .*torch\.export: .*; TorchScript: .*") as caught:
        edgec.compile(Unheard(), tmp_path / "out", data=pictures, **FAST)
    assert len(str(caught.value)) < 1500
    assert capfd.readouterr() == ("", "")
    assert torch._C._jit_is_onnx_log_enabled() == log
    torch._C._jit_set_onnx_log_enabled(False)


def test_a_module_without_an_example_asks_for_one(tmp_path) -> None:
    (tmp_path / "pictures").mkdir()
    for given in ({}, {"data": str(tmp_path / "pictures")}):
        with pytest.raises(edgec.UsageError, match=r"needs an example(.|\n)*example_input="):
            edgec.compile(Small(), tmp_path / "out", **given, **FAST)
    with pytest.raises(TypeError, match="example_input: got a str"):
        edgec.compile(Small(), tmp_path / "out", example_input="3,8,8", **FAST)


def test_a_dataset_is_chosen_from_by_number_and_its_labels_judge(pictures, tmp_path) -> None:
    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int):
            if index >= 12:
                raise IndexError(index)
            return torch.from_numpy(pictures[index]), index % 5

    report = edgec.compile(Small(), tmp_path / "out", data=Pictures(), samples=4, eval=Pictures(), **FAST)
    with np.load(tmp_path / "out" / "data.npz") as arrays:
        chosen = np.sort(np.random.default_rng(0).permutation(12)[:4])
        np.testing.assert_array_equal(arrays["x"], pictures[chosen])
    assert report.quality["teacher"].top1 is not None
    assert report.data.eval_samples == 12


def test_the_example_runs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "python.py"))
    said = capsys.readouterr().out
    assert "worst_class on 200 samples" in said
    assert "answers" in said
    report = edgec.Report.open(tmp_path / "out")
    assert report.quality["int8"].top1 > 0.8
    assert sum(1 for line in (ROOT / "examples" / "python.py").read_text().splitlines() if line.strip()) <= 25


def test_the_compressed_network_is_trained_and_compiled_again(tmp_path, pictures) -> None:
    example = torch.from_numpy(pictures[:2])
    options = {**FAST, "data": pictures, "passes": "prune-channels{macs=50% multiple=1}"}
    report = edgec.compile(Small().eval(), tmp_path / "one", example_input=example, **options)
    module = report.torch()
    assert dict(module.named_parameters())["head.weight"].shape == (5, 2)
    before = module(example).detach()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        module(example).square().mean().backward()
        optimiser.step()
    wanted = module(example).detach().numpy()
    assert np.abs(wanted - before.numpy()).max() > 1e-3
    again = edgec.compile(module, tmp_path / "two", example_input=example, **{**FAST, "data": pictures})
    np.testing.assert_allclose(again.load()(pictures[:2]), wanted, atol=1e-5)
    assert again.model.macs == report.compressed.macs
    loaded = again.load()
    assert list(loaded.inputs) == list(report.load().inputs) == ["image"]


def test_without_torch_the_report_says_so(tmp_path, pictures, monkeypatch) -> None:
    report = edgec.compile(
        Small().eval(), tmp_path / "out", example_input=torch.from_numpy(pictures[:2]), **FAST
    )
    monkeypatch.setattr("edgec.passes.learned.extra.find_spec", lambda _: None)
    with pytest.raises(edgec.UsageError, match="needs torch") as caught:
        report.torch()
    assert "edgec[torch]" in str(caught.value.hint)
