"""Where a run works: its folder, what it keeps for ``--resume``, its temporary files; and how it is to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgec.compiler.pipeline.cache import PassCache
from edgec.compiler.pipeline.run import Step
from edgec.compiler.pipeline.run_folder import CACHE, RunFolder
from edgec.compiler.pipeline.sealed import SealedFolder, user_key
from edgec.compiler.read.brought import Brought, InMemory
from edgec.compiler.read.recipe import Recipe
from edgec.graph.foreign import Loading, Pending
from edgec.graph.scratch import scratch_folder
from edgec.passes.base import Progress


@dataclass(frozen=True)
class Settings:
    """How to run, as opposed to what to make: nothing here changes an artifact."""

    out: Path
    force: bool = False
    resume: bool = False
    measure: bool = True
    loading: Loading = field(default_factory=Loading)
    """How the model is read."""
    pending: Pending | None = None
    """The recipe's model, where somebody has begun to load it."""
    progress: Progress = field(default_factory=Progress)
    after_pass: Callable[[Step], None] | None = None
    given: InMemory | None = None


@dataclass(frozen=True)
class Workspace:
    """The places that the steps of one run share."""

    settings: Settings
    folder: RunFolder
    scratch: Path
    kept: SealedFolder

    @property
    def cache(self) -> PassCache:
        """The passes that are finished."""
        return PassCache(self.kept)

    def admit(self, recipe: Recipe) -> Brought:
        """The recipe with what a Python program holds in memory brought into files, and its model on the way."""
        settings = self.settings
        if settings.given is None:
            return Brought(recipe, settings.pending)
        return settings.given.bring(recipe, settings.loading, self.folder.part)

    def begin(self) -> None:
        """Forget what an earlier run left, unless this one resumes it."""
        if not self.settings.resume:
            self.cache.clear()
            self.folder.forget()

    def doubts(self) -> tuple[str, ...]:
        """What ``--resume`` found and did not take."""
        if not self.kept.refused:
            return ()
        count = len(self.kept.refused)
        what = f"{count} entries" if count > 1 else "an entry"
        return (
            f"--resume: {what} of {CACHE} not taken and computed anew: damaged, or not written by this user on this machine",
        )


@contextmanager
def workspace(settings: Settings) -> Iterator[Workspace]:
    """The run's folder, locked, and a folder for temporary files, as long as the context lasts."""
    with RunFolder(settings.out, force=settings.force) as folder, scratch_folder() as scratch:
        yield Workspace(settings, folder, scratch, SealedFolder(folder.cache, user_key()))
