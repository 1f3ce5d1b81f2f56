"""The verbs of the package, for Python: what the command line does, with the same defaults."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.compiler.driver import compile_recipe
from edgec.compiler.pipeline.workspace import Settings
from edgec.compiler.plan.fields import read_path
from edgec.compiler.plan.recipe import Recipe, make_recipe
from edgec.graph.errors import UsageError
from edgec.graph.foreign import Loading
from edgec.graph.values import NotAdmitted

if TYPE_CHECKING:
    from edgec.runtime.measurement import Measurement
    from edgec.runtime.report.schema import Report


def compile(  # noqa: A001  (the verb of the product)
    model: str | Path | Recipe,
    out: str | Path,
    *,
    data: str | Path | None = None,
    samples: int | None = None,
    eval: str | Path | None = None,  # noqa: A002  (as on the command line)
    force: bool = False,
    resume: bool = False,
    measure: bool = True,
    trust: bool = False,
    load_timeout: float | None = None,
    load_memory: int | None = None,
    isolated: bool = True,
    **options: Any,
) -> Report:
    """Compile ``model`` (a file, a factory, or a whole `Recipe`) into the folder ``out``.

    ``options`` are the recipe's keys: ``target``, ``budget``, ``precision``, ``formats``, ``passes``, ``preprocess``, ``seed``,
    ``threads``.

    ``model`` is read in a child process that may take ``load_timeout`` seconds and ``load_memory`` bytes (None: by the
    file's size and the free memory), or in this one (``isolated=False``); ``trust`` runs what a ``.pt2`` holds.

    Raises EdgecError; gates that fail are in the report (``report.passed``).
    """
    if isinstance(model, Recipe) and (options or data is not None or samples is not None or eval is not None):
        raise UsageError("a whole recipe and options beside it", hint="Change the recipe instead.")
    recipe = model if isinstance(model, Recipe) else _recipe(model, data, samples, eval, options)
    loading = Loading(load_timeout, load_memory, trust, isolated)
    settings = Settings(_folder(out), force=force, resume=resume, measure=measure, loading=loading)
    return compile_recipe(recipe, settings)


def _folder(out: Any) -> Path:
    try:
        return Path(read_path(out))
    except NotAdmitted as error:
        raise UsageError(f"out: {error}") from None


def _recipe(
    model: str | Path,
    data: str | Path | None,
    samples: int | None,
    evaluation: str | Path | None,
    options: dict[str, Any],
) -> Recipe:
    values: dict[str, Any] = {"threads": os.cpu_count() or 1, **options, "model": {"path": model}}
    if data is None and samples is not None:
        raise UsageError("samples without data")
    if data is not None:
        values["data"] = {"path": data, "samples": samples}
    if evaluation is not None:
        values["eval"] = {"path": evaluation}
    return make_recipe(values)


def bench(
    artifacts: Sequence[str | Path], *, device: str = "local", threads: int = 1
) -> tuple[Measurement, ...]:
    """Measure artifacts one by one on a device: ``local`` or ``ssh://user@host``. Raises EdgecError."""
    from edgec.runtime.bench import BenchOptions
    from edgec.runtime.bench import bench as run
    from edgec.runtime.devices import open_device

    options = BenchOptions(threads=threads)
    paths = [Path(one) for one in ([artifacts] if isinstance(artifacts, (str, Path)) else artifacts)]
    if not paths:
        raise UsageError("no artifacts", hint="Give the paths of .onnx or .tflite files.")
    with open_device(device) as opened:
        return run(paths, options, opened)
