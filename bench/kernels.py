"""The kernels of OpenBLAS that this processor runs: sums differ in their last bits between them.

OPENBLAS_CORETYPE is taken at its word: a name whose instructions the processor lacks ends in SIGILL at the first product, some
names come out as another kernel, and one kernel has another name in the library than in the variable (Prescott is Katmai).
So each name is tried in a process of its own that multiplies and inverts, and each kernel that comes out is taken once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMES = (
    *("Prescott", "Core2", "Penryn", "Nehalem", "Barcelona", "Sandybridge", "Bulldozer", "Piledriver"),
    *("Steamroller", "Excavator", "Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids"),
    *("ARMV8", "CORTEXA57", "CORTEXA72", "NEOVERSEN1"),
)
"""What OPENBLAS_CORETYPE may be, on x86-64 and on 64-bit Arm."""
PROBE = """
import numpy as np, threadpoolctl
for precision in (np.float32, np.float64):
    square = np.random.default_rng(0).standard_normal((300, 300)).astype(precision)
    assert np.isfinite(np.linalg.inv(square) @ square).all()
blas = [one for one in threadpoolctl.threadpool_info() if one["internal_api"] == "openblas"]
print(next(one for one in blas if "numpy" in one["filepath"])["architecture"])  # scipy brings a copy of its own
"""


def runnable(python: str | Path = sys.executable, names: Sequence[str] = NAMES) -> Iterator[tuple[str, str]]:
    """(the variable's word, the kernel's name in numpy's OpenBLAS), each kernel once; what is left out is said on stderr."""
    seen: dict[str, str] = {}
    for name in names:
        around = {**os.environ, "OPENBLAS_CORETYPE": name}
        done = subprocess.run([python, "-c", PROBE], env=around, capture_output=True, text=True, check=False)
        kernel = done.stdout.strip()
        if done.returncode:
            print(
                f"{name}: does not run on this processor (exit {done.returncode})",
                file=sys.stderr,
                flush=True,
            )
        elif kernel in seen:
            print(f"{name}: {kernel}, as {seen[kernel]}", file=sys.stderr, flush=True)
        else:
            seen[kernel] = name
            yield name, kernel
