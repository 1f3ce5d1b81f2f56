"""Bring a bundle to a device: install, self-test, and measure it there in one go."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.compiler.deploy.accelerator import BUILD_SECONDS, Engines, build_engines, measure_engines
from edgec.compiler.deploy.bundle import Bundle, DeployOptions, make_bundle, recipe_of, target_of
from edgec.graph.errors import DeviceError
from edgec.runtime.bench import BenchOptions, bench, device_info
from edgec.runtime.check import Check, check_target, matching_system
from edgec.runtime.devices import Device, run_job
from edgec.runtime.measurement import Measurement
from edgec.runtime.replies import Failure, Info, SelfTest, not_understood, parse, words

if TYPE_CHECKING:
    from edgec.runtime.report.schema import Artifact, Latency
    from edgec.targets import Target

_INSTALL_SECONDS = 1800.0
_TEST_SECONDS = 600.0
_EXPECTED_BEFORE = ("engines", "trap")  # what installing mends, or install.sh knows


@dataclass(frozen=True)
class Deployed:
    """What came of it: ``selftest`` is what selftest.py printed, one entry per artifact."""

    bundle: Bundle
    device: str
    folder: str
    check: Check
    selftest: SelfTest
    measurements: tuple[Measurement, ...]
    engines: Engines
    """Of the GPU; without rows where the target has none."""

    @property
    def passed(self) -> bool:
        """Whether the device computes what the host computed."""
        return self.selftest.passed

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "bundle": self.bundle.to_dict(),
            "device": self.device,
            "folder": self.folder,
            "check": self.check.to_dict(),
            "selftest": {"passed": self.passed, **self.selftest.model_dump(exclude_none=True)},
            "engines": self.engines.to_dict(),
            "measurements": [asdict(m) for m in self.measurements],
        }


def deploy(
    run: Path,
    out: Path,
    options: DeployOptions,
    device: Device,
    *,
    bench_options: BenchOptions | None = None,
    wheels: bool = True,
    notify: Callable[[str], None] = lambda text: None,
) -> Deployed:
    """Make the bundle of ``run`` for what ``device`` turns out to be, install it there, test it, and measure it.

    ``wheels`` are fetched here, so the device needs no network. The measured latencies are added to the run's report.
    Raises DeviceError for a device that cannot be reached or is of another architecture than the target.
    """
    from edgec.runtime.report import read

    target = target_of(read(run), options.target)
    notify(f"looking at {device.name}")
    info = device_info(device)
    check = _checked(info, target, device, notify)
    system = matching_system(info, target)
    if wheels and system is not None and system.arch != "armv7l" and not options.wheels_for:
        options = replace(options, wheels_for=(system.name,))
    cores = sum(cluster.count for cluster in info.clusters) or target.threads
    threads = options.threads or min(target.threads, cores)
    options = replace(options, threads=threads)
    bundle = make_bundle(run, out, options, notify)
    folder = _bring(bundle.path, device, notify)
    selftest = _install(folder, bundle, device, notify)
    device.use_python(f"{folder}/.venv/bin/python")
    engines = Engines()
    if bundle.accelerator is not None:
        files = [name for name in bundle.artifacts if name.endswith(".onnx")]
        engines = build_engines(folder, files, device, notify)
    settings = replace(bench_options or BenchOptions(), threads=threads)
    testable = {line.artifact for line in selftest.artifacts if not line.skipped and not line.accelerated}
    paths = [bundle.path / name for name in bundle.artifacts if name in testable]
    source = None if info.emulated else _source(run, paths)
    found = bench([*([source] if source else []), *paths], settings, device, notify) if paths else ()
    before, measured = (found[:1], found[1:]) if source else ((), found)
    if engines.built:
        fast = [bundle.path / name for name in engines.built]
        on_gpu, source_there = measure_engines(folder, fast, source, settings, device, notify)
        measured, before = (*measured, *on_gpu), (*before, *([source_there] if source_there else []))
    _add_to_report(run, measured, before, of_target=target.name == read(run).target)
    return Deployed(bundle, device.name, folder, check, selftest, measured, engines)


def _source(run: Path, paths: Sequence[Path]) -> Path | None:
    """The model that the run started from, where the device can run it too: what the artifacts are compared with."""
    path = Path(recipe_of(run).model.path)
    runs_onnx = any(one.suffix == ".onnx" for one in paths)
    return path if runs_onnx and path.suffix == ".onnx" and path.is_file() else None


def _checked(info: Info, target: Target, device: Device, notify: Callable[[str], None]) -> Check:
    check = check_target(info, target)
    for difference in check.differences:
        if difference.what == "architecture":
            what = f"the device is {difference.device}, {target.name} is {difference.target}"
            raise DeviceError(what, where=device.name, hint=difference.advice)
        if difference.what not in _EXPECTED_BEFORE:
            notify(f"{difference.what}: {difference.device}, {target.name} has {difference.target}")
    return check


def _bring(bundle: Path, device: Device, notify: Callable[[str], None]) -> str:
    """Copy the bundle there, whole or not at all; files that an earlier bundle had are not sent again. Its folder."""
    if device.name == "local":
        return str(bundle.resolve())
    home = device.run(["pwd"]).stdout.rstrip("\n")
    if not home.startswith("/") or "\n" in home:
        raise not_understood(f"expected the home folder, not {home[:60]!r}", device.name)
    folder = f"{home}/edgec-bundles/{bundle.name}"
    target, part = shlex.quote(folder), shlex.quote(f"{folder}.part")
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files)
    notify(f"sending {len(files)} files, {total / 1e6:.1f} MB")
    # What the board runs at every start must be writable by nobody else.
    lines = ["umask 022", f"rm -rf {part}", f"mkdir -p {part}/wheels"]
    for path in files:
        to = shlex.quote(f"{folder}.part/{path.relative_to(bundle)}")
        lines.append(f"cp {shlex.quote(device.push(path))} {to}")
        if path.stat().st_mode & 0o100:
            lines.append(f"chmod 755 {to}")
    lines += [
        f"rmdir {part}/wheels 2>/dev/null || true",
        # install.sh and build.sh keep what still fits
        *(f"[ ! -d {target}/{kept} ] || mv {target}/{kept} {part}/{kept}" for kept in (".venv", "engines")),
        f"rm -rf {target}",
        f"mv {part} {target}",
    ]
    done = run_job(device, ["sh", "-ec", "\n".join(lines)], timeout=_TEST_SECONDS)
    if done.returncode != 0:
        why = done.stderr.strip().rpartition("\n")[2]
        raise DeviceError("cannot put the bundle in place", where=device.name, why=why)
    return folder


def _install(folder: str, bundle: Bundle, device: Device, notify: Callable[[str], None]) -> SelfTest:
    """Run install.sh and then the self-test; the latter's result."""
    there = shlex.quote(folder)
    limit = _INSTALL_SECONDS + (BUILD_SECONDS if bundle.accelerator is not None else 0.0)
    done = run_job(device, ["sh", "-c", f"cd {there} && ./install.sh"], timeout=limit, notify=notify)
    if done.returncode not in (0, 1):
        why = done.stderr.strip().rpartition("\n")[2].removeprefix("install: ")
        raise DeviceError("the bundle does not install there", where=device.name, why=why)
    command = f"cd {there} && .venv/bin/python selftest.py --json"
    tested = run_job(device, ["sh", "-c", command], timeout=_TEST_SECONDS)
    if tested.returncode not in (0, 1):
        why = tested.stderr.strip().rpartition("\n")[2] or f"exit code {tested.returncode}"
        raise DeviceError("the self-test does not run there", where=device.name, why=why)
    result = parse(SelfTest, tested.stdout.rstrip().rpartition("\n")[2], device.name)
    if isinstance(result, Failure):
        raise DeviceError("the self-test does not run there", where=device.name, why=result.error)
    if {line.artifact for line in result.artifacts} != set(bundle.artifacts):
        names = ", ".join(sorted(line.artifact for line in result.artifacts)) or "nothing"
        raise not_understood(f"the self-test is of {words(names, most=200)}", device.name)
    return result


def _add_to_report(
    run: Path, measured: Sequence[Measurement], source: Sequence[Measurement], *, of_target: bool
) -> None:
    """Put the latencies into the report: in the place of estimates where a real board of the run's target gave them.

    Otherwise beside what the report has, in place of older ones of the same device, engine, and threads.
    """
    from edgec.compiler.latency.timings import measured_record
    from edgec.runtime.report import read, write
    from edgec.runtime.report.schema import Latency

    def latency(one: Measurement) -> Latency:
        return Latency.model_validate(measured_record(one))

    report = read(run)
    artifacts, model = report.artifacts, report.model
    for one in measured:  # the GPU's come last, and stand first where they are valid
        name, found = Path(one.artifact).name, latency(one)
        artifacts = tuple(
            _with(a, found, of_target=of_target) if Path(a.path).name == name else a for a in artifacts
        )
    for one in source:
        if of_target and _supersedes(latency(one), model.latency):
            model = model.model_copy(update={"latency": latency(one)})
    changed = {"artifacts": artifacts, "model": model}
    if of_target and report.headline in (
        None,
        _fastest(report.artifacts),
    ):  # else it is what a latency budget is for
        changed["headline"] = _fastest(artifacts)
    write(run, report.model_copy(update=changed))


def _fastest(artifacts: Sequence[Artifact]) -> str | None:
    from edgec.runtime.report.facts import fastest

    best = fastest(artifacts)
    return None if best is None else best.path


def _with(artifact: Artifact, new: Latency, *, of_target: bool) -> Artifact:
    kept = tuple(old for old in artifact.others if _how(old) != _how(new))
    if of_target and _supersedes(new, artifact.latency):
        before = artifact.latency
        beside = (before,) if before and not (before.measured and _how(before) == _how(new)) else ()
        return artifact.model_copy(update={"latency": new, "others": (*kept, *beside)})
    return artifact.model_copy(update={"others": (*kept, new)})


def _how(latency: Latency) -> tuple[str, str, int]:
    """Device, engine and threads: a new time of the same takes an old one's place."""
    return latency.device, latency.runtime, latency.threads


def _supersedes(new: Latency, old: Latency | None) -> bool:
    """Whether a measurement takes the place of what stands there: an estimate, or an earlier one of the same device."""
    usable = new.valid and not new.emulated
    return usable and (old is None or not old.measured or old.device == new.device)
