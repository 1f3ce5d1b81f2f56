"""`edgec deploy`: from a run folder to a folder that installs, runs, tests, and measures itself on a device."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from edgec.compiler.deploy.picture import PICTURE
from edgec.compiler.plan.names import own_format
from edgec.compiler.read.recipe import Recipe, read_recipe
from edgec.graph.disk import disk_error
from edgec.graph.errors import DataError, ModelError, UsageError, did_you_mean
from edgec.graph.files import read_text
from edgec.graph.sizes import has_open_size
from edgec.graph.text import markdown, shortened, visible
from edgec.graph.values import THREADS, NotAdmitted, Range, whole
from edgec.graph.version import __version__
from edgec.runtime.digest import sha256_of
from edgec.runtime.report.inside import file_inside
from edgec.targets.engines import agent_name, engines_for

if TYPE_CHECKING:
    from edgec.runtime.report.schema import Artifact, Report
    from edgec.targets import System, Target

BUNDLE_JSON = "bundle.json"
RECIPE = "recipe.yaml"
_BUILD = "build.sh"
_SUMS = "SHA256SUMS"
_RECIPE_MOST = 2**20  # bytes
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.+-]{0,199}\.(onnx|tflite)", re.ASCII)
_PRECISIONS = ("int8", "mixed", "fp16", "fp32")  # in order of preference
_MOST_LABELS = 1 << 24
_NUMPY = {"tflite-runtime": "numpy<2"}


@dataclass(frozen=True)
class DeployOptions:
    """What goes into the bundle."""

    target: str | None = None
    """Target name; None: the run's own."""
    artifacts: tuple[str, ...] = ()
    """File names in the run; empty: all of them."""
    labels: Path | None = None
    """A text file with one class name per line."""
    wheels_for: tuple[str, ...] = ()
    """Names of the target's systems whose wheels are put into the bundle, for installing without a network."""
    threads: int | None = None
    """Of run.py and the self-test; None: the target's, which its estimates are for, too."""
    samples: int = 4
    """Recorded samples of the self-test."""
    force: bool = False

    def __post_init__(self) -> None:
        try:
            if self.threads is not None:
                object.__setattr__(self, "threads", whole(self.threads, THREADS))
            object.__setattr__(self, "samples", whole(self.samples, Range(1, 1000)))
        except NotAdmitted as error:
            raise UsageError(f"deploying: {error}") from None


@dataclass(frozen=True)
class Bundle:
    """A finished bundle folder."""

    path: Path
    target: str
    artifacts: tuple[str, ...]
    wheels: tuple[str, ...]
    bytes: int
    accelerator: str | None = None
    """'tensorrt' where engines for the board's GPU are built there."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        names = {"artifacts": list(self.artifacts), "wheels": list(self.wheels)}
        about = {"target": self.target, "accelerator": self.accelerator}
        return {"path": str(self.path), **about, **names, "bytes": self.bytes}


def make_bundle(
    run: Path, out: Path, options: DeployOptions, notify: Callable[[str], None] = lambda text: None
) -> Bundle:
    """Assemble the bundle of ``run`` in ``out``, whole or not at all.

    Raises DataError for a folder that is no run, UsageError for an ``out`` that holds something else or options that
    do not fit, ModelError for an artifact that was changed since the run, EdgecError where the disk refuses.
    """
    report, target, chosen = check_bundle(run, out, options)
    recipe = recipe_of(run)
    part = out.with_name(out.name + ".part")
    if part.is_symlink() or part.is_file():
        part.unlink()
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        for artifact in chosen:
            shutil.copyfile(artifact_file(run, artifact), part / Path(artifact.path).name)
        wheels = _fill(part, report, recipe, target, chosen, options, notify)
        sums = "".join(
            f"{sha256_of(p)}  {p.relative_to(part)}\n" for p in sorted(part.rglob("*")) if p.is_file()
        )
        (part / _SUMS).write_text(sums, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except OSError as error:
        raise disk_error(error, out) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    names = tuple(Path(a.path).name for a in chosen)
    return Bundle(out, target.name, names, wheels, size, accelerator_of(target, chosen))


def check_bundle(run: Path, out: Path, options: DeployOptions) -> tuple[Report, Target, list[Artifact]]:
    """What goes into the bundle; nothing is written. Raises what `make_bundle` raises for its arguments."""
    from edgec.runtime.report import read

    report = read(run)
    target = target_of(report, options.target)
    chosen = _choose(report, target, options.artifacts, run)
    for artifact in chosen:
        _require_size(run, artifact)
    for name in options.wheels_for:
        _system(target, name)
    _refuse_foreign(run, out, options.force)
    return report, target, chosen


def _system(target: Target, name: str) -> System:
    system = target.system(name)
    if system is None:
        known = [one.name for one in target.systems]
        raise UsageError(f"{target.name} has no system {name!r}", hint=did_you_mean(name, known))
    return system


def accelerator_of(target: Target, chosen: Sequence[Artifact]) -> str | None:
    """'tensorrt' where the target's GPU can run one of the artifacts, else None."""
    has_it = any("tensorrt" in one.runtimes for one in target.accelerators)
    return "tensorrt" if has_it and any(one.format == "onnx" for one in chosen) else None


def engine_lines(target: Target) -> list[str]:
    """Lines of engines.txt: architecture, Python, engine, requirements; what is known to load comes first."""
    lines: list[str] = []
    for system in target.systems:
        for runtime in system.runtimes:
            engine = agent_name(runtime.engine)
            if engine is not None and runtime.install == "pip":
                numpy = "" if system.arch == "armv7l" else f" {_NUMPY.get(runtime.engine, 'numpy')}"
                lines.append(
                    f"{system.arch} {system.python} {engine} {runtime.engine}=={runtime.version}{numpy}"
                )
    return list(dict.fromkeys(lines))


def requirements(system: System, formats: Sequence[str]) -> list[str]:
    """What pip must install on ``system`` for artifacts of ``formats``: the first engine for each, and Pillow."""
    found: list[str] = []
    for form in formats:
        runtime = next(
            (r for one in engines_for(form) if (r := system.runtime(one.package)) is not None), None
        )
        if runtime is not None:
            found += [f"{runtime.engine}=={runtime.version}", _NUMPY.get(runtime.engine, "numpy")]
    return list(dict.fromkeys([*found, "pillow", "pip"])) if found else []


def target_of(report: Report, name: str | None) -> Target:
    """The target called ``name``, else the run's own. Raises UsageError for the first, DataError for the second."""
    from edgec.targets import target as find_target
    from edgec.targets import target_names

    if name is None and report.target not in target_names():
        what = f"the run is for {visible(shortened(report.target, 60))!r}, which is no target here"
        raise DataError(what, hint="Name one with --target; `edgec targets list` shows all.")
    return find_target(name or report.target)


def recipe_of(run: Path) -> Recipe:
    """The recipe of a run, whose folder may come from anybody. Raises DataError where it is missing or damaged."""
    try:
        file_inside(run, RECIPE, _RECIPE_MOST)
        return read_recipe(run / RECIPE)
    except FileNotFoundError:
        raise DataError("the run lacks its recipe", where=str(run / RECIPE)) from None
    except UsageError as error:
        raise DataError("damaged recipe", where=error.where, why=error.what, hint=error.hint) from error
    except RecursionError:
        raise DataError("damaged recipe", where=str(run / RECIPE), why="nested too deeply") from None


def artifact_file(run: Path, artifact: Artifact) -> Path:
    """An artifact of the run, which must lie in its folder and be the one of the report. Raises ModelError otherwise."""
    where = str(run / artifact.path)
    try:
        path = file_inside(run, artifact.path, artifact.bytes)
    except FileNotFoundError:
        raise ModelError("the run lacks an artifact of its report", where=where) from None
    except DataError as error:
        raise ModelError("the artifact is not the one of the report", where=where, why=str(error)) from error
    if sha256_of(path) != artifact.sha256:
        raise ModelError("the artifact is not the one of the report", where=where, hint="Compile again.")
    return path


def _choose(report: Report, target: Target, names: Sequence[str], run: Path) -> list[Artifact]:
    """The artifacts asked for, in the order in which a device should prefer them."""
    known = {Path(artifact.path).name: artifact for artifact in report.artifacts}
    for name in known:
        if not _PLAIN.fullmatch(name):
            why = f"an artifact named {visible(shortened(name, 60))!r}, where letters, digits, and . _ + - are expected"
            raise DataError("damaged report", where=str(run), why=why)
    if len(known) < len(report.artifacts):
        raise DataError("damaged report", where=str(run), why="two artifacts of one name")
    for name in names:
        if name not in known:
            raise UsageError(f"the run has no artifact {name!r}", hint=did_you_mean(name, known))
    chosen = [known[name] for name in (names or known)]
    if not chosen:
        raise DataError("the run has no artifacts")
    first = own_format(target)
    return sorted(
        chosen, key=lambda a: (a.path != report.headline, _PRECISIONS.index(a.precision), a.format != first)
    )


def _require_size(run: Path, artifact: Artifact) -> None:
    if artifact.format == "onnx" and has_open_size(artifact_file(run, artifact)):
        why = "a bundle prepares and tests pictures of one size, and the height or width of its input is open"
        hint = "Compile again with --input-shape 3,224,224 (channels, height, width)."
        raise UsageError("no bundle of this artifact", where=artifact.path, why=why, hint=hint)


def _refuse_foreign(run: Path, out: Path, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError("this is a link or a file, not a folder", where=str(out))
    for inside, what in ((run.resolve(), "the run is in it"), (Path.cwd(), "you are in it")):
        if out.resolve() in (inside, *inside.parents):  # --force or an earlier bundle would delete it
            why = f"{what}, and a bundle takes the place of the folder"
            raise UsageError("output folder refused", where=str(out), why=why, hint="Name another folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / BUNDLE_JSON).exists() and not force:
        raise UsageError(
            "output folder refused",
            where=str(out),
            why="it is not empty and is not a bundle",
            hint="Choose another, or add --force (what is in it will be deleted).",
        )


def _fill(
    part: Path,
    report: Report,
    recipe: Recipe,
    target: Target,
    chosen: Sequence[Artifact],
    options: DeployOptions,
    notify: Callable[[str], None],
) -> tuple[str, ...]:
    """Everything but the artifacts themselves; the names of the wheels."""
    from edgec.compiler.deploy.selftest import record
    from edgec.compiler.deploy.wheels import download
    from edgec.runtime.pack import write_agent

    templates = resources.files("edgec.deploy") / "bundle"
    accelerator = accelerator_of(target, chosen)
    for entry in templates.iterdir():
        if entry.name == _BUILD and accelerator is None:
            continue
        if not entry.name.endswith((".in", ".pyc")) and entry.is_file():
            (part / entry.name).write_bytes(entry.read_bytes())
            if entry.name.endswith((".sh", ".py")):
                (part / entry.name).chmod(0o755)
    write_agent(part)
    if options.labels is not None:
        _copy_labels(options.labels, part / "labels.txt")
    elif report.model.labels:
        _write_labels(report.model.labels, part / "labels.txt")
    (part / "engines.txt").write_text("\n".join(engine_lines(target)) + "\n", encoding="utf-8")
    notify("recording the self-test")
    paths = [part / Path(a.path).name for a in chosen]
    recorded = record(paths, report, recipe, part / "selftest.npz", options.samples)
    formats = sorted({artifact.format for artifact in chosen})
    wheels: list[str] = []
    for name in options.wheels_for:
        system = _system(target, name)
        notify(f"fetching wheels for {system.title}")
        wheels += download(system, requirements(system, formats), part / "wheels")
    preprocess = recipe.preprocess.build()
    if report.resolution is not None:
        preprocess = preprocess.at(report.resolution.source, report.resolution.size)
    bundle: dict[str, Any] = {
        "edgec": __version__,
        "target": target.name,
        "model": report.model.name,
        "threads": options.threads or target.threads,
        "preprocess": preprocess.to_dict(),
        "selftest": recorded.source,
        "accelerator": accelerator,
        "inputs": list(recorded.inputs),
        "artifacts": [
            {
                "file": Path(artifact.path).name,
                "format": artifact.format,
                "precision": artifact.precision,
                "bytes": artifact.bytes,
                "sha256": artifact.sha256,
                **recorded.facts[Path(artifact.path).name],
            }
            for artifact in chosen
        ],
    }
    if report.resolution is not None:
        bundle["resolution"] = report.resolution.sizes
    (part / BUNDLE_JSON).write_text(json.dumps(bundle, indent=1) + "\n", encoding="utf-8")
    text = (templates / "README.md.in").read_text(encoding="utf-8")
    example = "picture.jpg" if (part / PICTURE).exists() else "x.npy"
    (part / "README.md").write_text(_readme(text, bundle, target, wheels, options, example), encoding="utf-8")
    return tuple(sorted(set(wheels)))


def _copy_labels(source: Path, copy: Path) -> None:
    text = read_text(source, _MOST_LABELS, "a list of labels")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    _write_labels(lines, copy)


def _write_labels(labels: Sequence[str], copy: Path) -> None:
    shown = [f"{visible(line.strip())}\n" for line in labels]  # the device prints them
    copy.write_text("".join(shown), encoding="utf-8")


def _readme(
    text: str,
    bundle: Mapping[str, Any],
    target: Target,
    wheels: Sequence[str],
    options: DeployOptions,
    example: str,
) -> str:
    rows = [f"- `{a['file']}`: {a['precision']}, {a['bytes'] / 1000:.1f} kB" for a in bundle["artifacts"]]
    steps = {key: value for key, value in bundle["preprocess"].items() if value is not None}
    systems = []
    for system in target.systems:
        engines = ", ".join(f"{r.engine} {r.version}" for r in system.runtimes if r.install == "pip")
        offline = ", wheels included" if system.name in options.wheels_for else ""
        systems.append(
            f"- {markdown(system.title)} (Python {system.python}): {engines or 'no engine exists'}{offline}"
        )
    return Template(text).substitute(
        example=example,
        title=markdown(f"{bundle['model']} for {target.title}"),
        version=bundle["edgec"],
        target=markdown(target.title),
        offline=" (no network needed)" if wheels else "",
        artifacts="\n".join(rows),
        preprocess="\n".join(f"- {key}: {value}" for key, value in steps.items()),
        samples=bundle["selftest"],
        systems="\n".join(systems),
    )
