"""What all tests share: tiny models written as text, and the networks that may lie beside the repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, settings

from edgec.graph.compare import relative_error
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.execute import Executor
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context

# The suite tries the same examples on every machine and every day; `HYPOTHESIS_PROFILE=search` looks for new ones.
# Neither says anything about speed: the machine may be busy.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("same"), derandomize=False, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep their secrets out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real networks and inputs, which no licence lets us ship."""
    folder = Path(os.environ.get("EDGEC_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "models").is_dir():
        pytest.skip("the shared networks and inputs are not here (EDGEC_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def _read_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that tests make are their own: no child process for each (two seconds), but where a test is marked ``foreign``."""
    if request.node.get_closest_marker("foreign") is None:
        monkeypatch.setattr("edgec.graph.foreign.models._child", lambda *_: None)
        monkeypatch.setattr("edgec.runtime.trial.try_file", lambda *_: None)


def parse(text: str, *, seed: int = 0) -> onnx.ModelProto:
    """A model from ONNX text. Initialisers declared without values, ``float[8,3,3,3] w``, get random ones.

    Write ``<float[8,3,3,3] w>`` after the outputs, as onnx.parser wants it.
    """
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]>\n' + text)
    rng = np.random.default_rng(seed)
    for value in model.graph.value_info:
        known = {tensor.name for tensor in model.graph.initializer}
        made = {name for node in model.graph.node for name in node.output}
        if value.name in known or value.name in made:
            continue
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        scale = 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
        array = (rng.standard_normal(shape) * scale).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return model


def output_error(teacher: ir.Model, student: ir.Model, data: Dataset) -> float:
    """Relative error of the student's first output over all of ``data``."""
    a, b = (
        np.concatenate([next(iter(Executor(one).run(feeds).values())) for feeds in data.batches(16)])
        for one in (teacher, student)
    )
    return relative_error(a, b)


@pytest.fixture
def make_model() -> Callable[..., onnx.ModelProto]:
    """`parse` as a fixture."""
    return parse


@pytest.fixture
def canonical() -> Callable[..., ir.Model]:
    """A canonical graph from ONNX text."""
    from edgec.graph.canonicalise import canonicalise

    return lambda text, seed=0: canonicalise(parse(text, seed=seed))


@pytest.fixture
def noise() -> Callable[..., Dataset]:
    """A data set of Gaussian samples for a model."""

    def make(model: ir.Model, count: int = 8, seed: int = 0) -> Dataset:
        rng = np.random.default_rng(seed)
        specs = InputSpec.of(model)
        arrays = {s.name: rng.standard_normal((count, *s.shape)).astype(np.float32) for s in specs}
        return Dataset("noise", ArraySource(arrays, Preprocess(layout="nchw"), specs), tuple(range(count)))

    return make


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """A pass context around a teacher."""
    return lambda teacher, data=None, target=None: Context(
        teacher=teacher, scratch=tmp_path, data=data, target=target
    )
