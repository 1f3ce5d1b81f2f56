"""The report of a run as Python has it: with its folder, it shows itself and loads its artifacts."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PrivateAttr

from edgec.compiler.face.artifact import LoadedArtifact
from edgec.compiler.face.kinds import PathLike
from edgec.graph.errors import UsageError, did_you_mean
from edgec.runtime.report import schema

if TYPE_CHECKING:
    from edgec.passes.learned.executor import GraphModule

_LINES = 10
_NOTEBOOK_HEIGHT = "36em"


class Report(schema.Report):
    """All figures of one run (docs/report.md), and its files.

    >>> report = edgec.compile("net.onnx", "out", data="images/", precision="int8")
    >>> report                         # ten lines; in a notebook, the page
    >>> report.load("int8")(array)     # the artifact, as a function
    """

    _folder: Path | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, report: schema.Report, folder: PathLike) -> Report:
        """``report`` with the folder that its files are in."""
        made = cls.model_construct(report.model_fields_set, **dict(report))
        made._folder = Path(folder)
        return made

    @classmethod
    def open(cls, folder: PathLike) -> Report:
        """The report of a finished run. Raises DataError where ``folder`` holds none."""
        from edgec.runtime.report.store import read

        path = Path(folder)
        return cls.of(read(path), path if path.is_dir() else path.parent)

    @property
    def folder(self) -> Path:
        """Where the run's files are. Raises UsageError for a report that was made without one."""
        if self._folder is None:
            raise UsageError("this report has no folder", hint="Open it with edgec.Report.open(FOLDER).")
        return self._folder

    def path(self, name: str | None = None) -> Path:
        """The file of an artifact: by file name, or by precision (where there are several, the headline's format first).

        None: the headline's artifact. Raises UsageError where the run has no such artifact.
        """
        from edgec.runtime.report import facts

        main = facts.headline_artifact(self)
        ordered = sorted(
            self.artifacts, key=lambda one: (one is not main, main is not None and one.format != main.format)
        )
        for one in ordered:
            if name is None or name in (one.path, one.precision):
                return self.folder / one.path
        if name is None:
            raise UsageError("this run has no artifacts")
        known = [text for one in self.artifacts for text in (one.path, one.precision)]
        raise UsageError(f"no artifact {name!r} in this run", hint=did_you_mean(name, set(known)))

    def load(self, name: str | None = None, *, threads: int = 1) -> LoadedArtifact:
        """An artifact as a function of arrays; ``name`` as for `path`. Raises UsageError, ModelError, DeviceError."""
        return LoadedArtifact(self.path(name), threads=threads)

    def torch(self) -> GraphModule:
        """The compressed network as a torch.nn.Module, in float32: to be trained, and to be compiled again.

        Its state dict has the weights by the names of the source's. Where the run quantised, this is the network in front of
        that. Raises UsageError without torch, UnsupportedError for an op that the module has not, ModelError for a damaged file.
        """
        from edgec.graph.foreign import load
        from edgec.passes.learned.extra import require_torch

        require_torch("report.torch()")
        path = self.path("fp32")
        from edgec.passes.learned.executor import GraphModule

        return GraphModule(load(path))

    def show(self) -> None:
        """Print what the command line prints at the end of a run; in a notebook too."""
        from edgec.compiler.cli.output import stdout
        from edgec.runtime.report import render_terminal

        render_terminal(self, stdout())

    def __repr__(self) -> str:
        from edgec.runtime.report import summary_lines

        lines = summary_lines(self)
        if len(lines) > _LINES:
            lines = [*lines[: _LINES - 1], f"  … {len(lines) - _LINES + 1} more lines: .show()"]
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The page, in a frame of its own: its style does not touch the notebook's, nor theirs the page."""
        from edgec.runtime.report import page

        text = page(self, "" if self._folder is None else self._folder.resolve().name)
        return f'<iframe sandbox style="width:100%;height:{_NOTEBOOK_HEIGHT};border:0" srcdoc="{escape(text)}"></iframe>'
