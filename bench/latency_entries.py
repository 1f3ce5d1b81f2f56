"""From fits to the coefficient files of the targets: what was fitted, and what is borrowed where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping

import latency_models
import numpy as np
from latency_sets import Fit, Key, Published, fit_all

from edgec.targets import target
from edgec.targets.estimator.coefficients import Coefficients, Entry

DEVICES = {
    "Raspberry Pi 3B+": "rpi3",
    "Raspberry Pi 4B": "rpi4",
    "Raspberry Pi 5": "rpi5",
    "Raspberry Pi Zero 2 W": "rpi-zero2w",
    "Jetson Nano": "jetson-nano",
    "Jetson Orin Nano": "jetson-orin-nano",
    "Jetson AGX Orin": "jetson-agx-orin",
    "Jetson AGX Orin (CPU)": "jetson-agx-orin",
    "Jetson AGX Xavier": "jetson-agx-xavier",
    "Jetson AGX Xavier (CPU)": "jetson-agx-xavier",
    "Firefly-RK3588": "rk3588",
    "Orange Pi 5 [big cores]": "rk3588",
    "Orange Pi 5": "rk3588",
    "RK3588 board (rk3588 section 1) [big cores]": "rk3588",
}
NAMES = {"tflite-ruy": "TFLite (ruy)", "xnnpack": "XNNPACK", "armnn": "Arm NN", "ncnn": "ncnn"}
_NARROWEST = 1.05
_BORROWED = (
    1.25  # two engines or boards of one kind differ by this much at least from one network to the next
)
_PI4 = "Raspberry Pi 4B"
Ratios = Mapping[Key, Mapping[str, float]]


def all_coefficients(data: Published, held_out: Ratios) -> dict[str, Coefficients]:
    """The coefficient file of every target that has any data."""
    fits = fit_all(data)
    entries: dict[str, list[Entry]] = {name: [] for name in sorted(set(DEVICES.values()))}
    for key, found in fits.items():
        if key.device not in DEVICES or not _usable(key):
            continue
        name = DEVICES[key.device]
        entries[name].append(_fitted(data, key, found, held_out.get(key, {})))
    _borrow(data, entries)
    return {
        name: Coefficients(name, tuple(sorted(found, key=_order)), *_threads(data, name))
        for name, found in entries.items()
    }


def _usable(key: Key) -> bool:
    # The delegate did not take the uint8 networks of that table: its int8 rows repeat the plain TFLite ones.
    return not (key.engine == "xnnpack" and key.precision == "int8" and "Orin" in key.device)


def _thread_count(key: Key) -> int:
    if key.threads.isdigit():
        return int(key.threads)
    if key.engine == "xnnpack":
        return 1  # published as 'all', but below the peak of one core throughout
    name = DEVICES[key.device]
    return target(name).threads if name == "rk3588" else target(name).cores  # little cores do not help


def _fitted(data: Published, key: Key, fit: Fit, ratios: Mapping[str, float]) -> Entry:
    networks = list(data.ms[key])
    families = len({latency_models.family(m) for m in networks})
    logs = -np.log(np.array(list(ratios.values()))) if ratios else np.array([])
    if len(logs) >= 10:
        low, high = np.exp(np.quantile(logs, 0.1)), np.exp(np.quantile(logs, 0.9))
    else:  # too few for quantiles: 1.6 times their root mean square, both ways
        spread = np.exp(1.6 * np.sqrt(np.mean(logs**2))) if len(logs) else 2.0
        low, high = 1 / spread, spread
    count = _thread_count(key)
    threads = f"{count} thread{'s' if count > 1 else ''}" + ("" if key.threads.isdigit() else " (assumed)")
    return Entry(
        runtime=key.engine,
        version=key.version,
        precision=key.precision,  # type: ignore[arg-type]
        threads=count,
        ms=tuple(float(c) for c in fit.coefficients),
        switch=fit.switch,
        low=float(f"{min(low, 1 / _NARROWEST):.3f}"),
        high=float(f"{max(high, _NARROWEST):.3f}"),
        kind="fitted",
        error=float(f"{np.mean(np.abs(np.array(list(ratios.values())) - 1)):.4f}") if ratios else None,
        networks=len(networks),
        basis=f"fitted on {len(networks)} networks of {families} families, {NAMES[key.engine]} {key.version}, {threads}, "
        f"{key.device.split(' [')[0]} ({data.soc[key]})",
    )


def _factor(data: Published, top: Key, bottom: Key) -> tuple[float, float, int]:
    """Latency of one set over another on the networks that both have: median, spread, and how many."""
    common = [m for m in data.ms[top] if m in data.ms[bottom]]
    logs = np.log([data.ms[top][m] / data.ms[bottom][m] for m in common])
    middle = float(np.median(logs))
    return float(np.exp(middle)), max(_BORROWED, float(np.exp(1.28 * np.std(logs)))), len(common)


def _borrow(data: Published, entries: dict[str, list[Entry]]) -> None:
    """XNNPACK (in LiteRT) where it was not measured, and onnxruntime, which hardly anybody published."""

    def take(name: str, engine: str, precision: str, threads: int | None = None) -> Entry:
        found = [e for e in entries[name] if e.runtime == engine and e.precision == precision]
        found = [e for e in found if threads in (None, e.threads)]
        return max(found, key=lambda e: (e.kind == "fitted", e.version, e.networks))

    def add(name: str, base: Entry, factor: float, spread: float, reason: str) -> None:
        entry = base.scaled(factor, spread, reason)
        entries[name].append(Entry(**(entry.__dict__ | {"runtime": "xnnpack", "version": "scaled"})))

    for precision in ("fp32", "int8"):
        ruy = Key(_PI4, "tflite-ruy", "2.5.0", precision, "all (unstated)")
        xnn = Key(_PI4, "xnnpack", "git 2022-02-08", precision, "4")
        factor, spread, count = _factor(data, xnn, ruy)
        reason = (
            f"XNNPACK taken as {factor:.2f} times TFLite (ruy), as on {count} networks on a Raspberry Pi 4"
        )
        names = ["rk3588", "jetson-agx-xavier", "jetson-agx-orin"] + (["rpi4"] if precision == "int8" else [])
        for name in names:
            add(name, take(name, "tflite-ruy", precision), factor, spread, reason)
    pi3, pi4 = (Key(d, "xnnpack", "git 2022-02-08", "int8", "4") for d in ("Raspberry Pi 3B+", _PI4))
    factor, spread, count = _factor(data, pi3, pi4)
    add(
        "rpi3",
        take("rpi4", "xnnpack", "int8"),
        factor,
        spread,
        f"{factor:.2f} times a Raspberry Pi 4, as on {count} networks",
    )

    boards = (
        ("rpi-zero2w", "Raspberry Pi Zero 2 W", "rpi3", "Raspberry Pi 3B+"),
        ("jetson-nano", "Jetson Nano", "rpi4", _PI4),
    )
    for name, device, other, other_device in boards:
        for precision in ("fp32", "int8"):
            top, bottom = (_ncnn(data, d, precision, "4") for d in (device, other_device))
            factor, spread, count = _factor(data, top, bottom)
            reason = f"{factor:.2f} times a {other_device}, as ncnn on {count} networks"
            add(name, take(other, "xnnpack", precision, 4), factor, spread, reason)
    for precision, shown in (("fp32", "fp16"), ("int8", "int8")):
        top, bottom = _ncnn(data, "Jetson Orin Nano", shown, "6"), _ncnn(data, "Jetson AGX Orin", shown, "12")
        factor, spread, count = _factor(data, top, bottom)
        reason = f"{factor:.2f} times a Jetson AGX Orin, as ncnn {shown} on {count} networks"
        base = take("jetson-agx-orin", "xnnpack", precision, 12)
        add("jetson-orin-nano", Entry(**(base.__dict__ | {"threads": 6})), factor, spread, reason)
        _anchor_pi5(data, entries, take("rk3588", "xnnpack", precision), precision)
    _onnxruntime(data, entries)


def _ncnn(data: Published, device: str, precision: str, threads: str) -> Key:
    return next(
        k
        for k in data.ms
        if (k.device, k.engine, k.precision, k.threads) == (device, "ncnn", precision, threads)
    )


def _anchor_pi5(data: Published, entries: dict[str, list[Entry]], base: Entry, precision: str) -> None:
    """Raspberry Pi 5: the same cores and clock as the RK3588's big ones, set right by the few networks published."""
    logs = []
    for key, rows in data.ms.items():
        if key.device.startswith("Raspberry Pi 5") and key.engine == "xnnpack" and key.precision == precision:
            logs += [np.log(ms / base.model_ms(data.costs[m])) for m, ms in rows.items()]
    factor = float(np.exp(np.median(logs)))
    spread = max(1.5, float(np.exp(1.28 * np.std(logs))))
    reason = f"{factor:.2f} times an RK3588, as ExecuTorch (XNNPACK) on {len(logs)} networks"
    scaled = base.scaled(factor, spread, reason)
    entries["rpi5"].append(
        Entry(**(scaled.__dict__ | {"runtime": "xnnpack", "version": "scaled", "threads": 4}))
    )


def _onnxruntime(data: Published, entries: dict[str, list[Entry]]) -> None:
    top, bottom = (
        next(k for k in data.ms if k.device == "Khadas VIM3" and k.engine == engine)
        for engine in ("onnxruntime", "xnnpack")
    )
    factor, _, count = _factor(data, top, bottom)
    reason = (
        f"onnxruntime taken as {factor:.2f} times XNNPACK, as on {count} networks on a Khadas VIM3 in 2022"
    )
    for found in entries.values():
        for base in [e for e in found if e.runtime == "xnnpack" and e.threads > 1]:
            scaled = base.scaled(factor, 1.8, reason)
            found.append(Entry(**(scaled.__dict__ | {"runtime": "onnxruntime", "version": "scaled"})))


def _threads(data: Published, name: str) -> tuple[dict[str, dict[int, tuple[float, float, float]]], str]:
    """How much faster ncnn was with more threads on the same board: median, and the range of 80 % of networks."""
    tables: dict[str, dict[int, tuple[float, float, float]]] = {}
    for one in data.ms:
        same_board = one.engine == "ncnn" and one.threads == "1" and DEVICES.get(one.device) == name
        if not same_board:
            continue
        for many in data.ms:
            if many != one and many._replace(threads="1") == one:
                common = [m for m in data.ms[one] if m in data.ms[many]]
                gains = np.array([data.ms[one][m] / data.ms[many][m] for m in common])
                middle = tuple(float(f"{q:.3f}") for q in np.quantile(gains, (0.5, 0.1, 0.9)))
                precision = "fp32" if one.precision == "fp16" else one.precision
                tables.setdefault(precision, {})[int(many.threads)] = middle  # type: ignore[assignment]
    basis = "the gain of ncnn on this board" if tables else ""
    return {p: dict(sorted(t.items())) for p, t in sorted(tables.items())}, basis


def _order(entry: Entry) -> tuple[str, str, str, int]:
    return entry.runtime, entry.version, entry.precision, entry.threads
