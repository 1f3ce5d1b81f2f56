"""Run emitted files on an Arm device over ssh, under both runtimes, and compare with the host's XNNPACK.

int8 outputs must be equal bit for bit between LiteRT here and LiteRT there; everything else is reported as it is found.
On an emulated device this says nothing about milliseconds.

    python bench/tflite_device.py --ssh-config FILE --host NAME [NETWORK...]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tflite_networks import NETWORKS, by_name, quantised, quiet, tflite_runner

from edgec.compiler.emit.tflite import emit

Array = np.ndarray[Any, np.dtype[Any]]

ON_DEVICE = """
import json, sys
import numpy as np

def engine(name):
    if name == "litert":
        from ai_edge_litert.interpreter import Interpreter
    else:
        from tflite_runtime.interpreter import Interpreter
    return Interpreter

for job in json.load(open("jobs.json")):
    result = {}
    for name in ("litert", "tflite-runtime"):
        try:
            made = engine(name)(model_path=job["model"], num_threads=1)
            made.allocate_tensors()
            feeds = np.load(job["inputs"])
            details = {d["name"]: d["index"] for d in made.get_input_details()}
            rows = []
            for k in range(len(feeds[feeds.files[0]])):
                for key in feeds.files:
                    made.set_tensor(details[key], feeds[key][k : k + 1])
                made.invoke()
                rows.append([made.get_tensor(d["index"]) for d in sorted(made.get_output_details(), key=lambda d: d["name"])])
            for i, column in enumerate(zip(*rows)):
                result["%s:%d" % (name, i)] = np.concatenate(column)
        except Exception as error:  # of any interpreter: a finding, and the next file has its turn
            result[name + ":error"] = np.frombuffer(str(error).encode()[:400], np.uint8)
    np.savez(job["outputs"], **result)
"""


class Device:
    """scp and ssh with a config file."""

    def __init__(self, config: str, host: str, folder: str = "edgec-tflite") -> None:
        self.base = ["-F", config, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        self.host, self.folder = host, folder

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["ssh", *self.base, self.host, command], capture_output=True, text=True, check=True
        )
        return done.stdout

    def put(self, *files: Path) -> None:
        target = f"{self.host}:{self.folder}/"
        subprocess.run(["scp", "-q", *self.base, *map(str, files), target], check=True)

    def get(self, name: str, target: Path) -> None:
        subprocess.run(
            ["scp", "-q", *self.base, f"{self.host}:{self.folder}/{name}", str(target)], check=True
        )


def compare(host: list[Array], device: Any, engine: str) -> str:
    """'equal', how far apart, or the error."""
    if f"{engine}:error" in device:
        return "error: " + bytes(device[f"{engine}:error"]).decode()[:80].replace("\n", " ")
    worst, same = 0.0, True
    for i, want in enumerate(host):
        have = device[f"{engine}:{i}"]
        same = same and np.array_equal(have, want)
        worst = max(worst, float(np.abs(have - want).max() / np.abs(want).max()))
    return "equal" if same else f"{worst:.1e}"


def main() -> None:
    import json

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--ssh-config", required=True)
    parser.add_argument("--host", default="device")
    parser.add_argument("--samples", type=int, default=2)
    options = parser.parse_args()
    quiet()
    device = Device(options.ssh_config, options.host)
    machine = device.run(
        f"mkdir -p {device.folder}; uname -m; cat /sys/firmware/devicetree/base/model"
    ).replace("\0", "")
    print("device:", " ".join(machine.split()), "\n")
    print(
        "| network | precision | LiteRT there against XNNPACK here | tflite-runtime there against XNNPACK here |"
    )
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "job.py").write_text(ON_DEVICE)
        for network in [by_name(n) for n in options.networks] or NETWORKS:
            model = network.load()
            data = network.calibration_data(model, options.samples)
            feeds = next(iter(data.batches(options.samples)))
            np.savez(folder / "inputs.npz", **feeds)
            names = sorted(value.name or "" for value in model.graph.outputs)
            files = {"fp32": emit(model), "int8": emit(quantised(network, model, 32), precision="int8")}
            for precision, content in files.items():
                (folder / "model.tflite").write_bytes(content)
                job = [{"model": "model.tflite", "inputs": "inputs.npz", "outputs": "outputs.npz"}]
                (folder / "jobs.json").write_text(json.dumps(job))
                device.put(*(folder / n for n in ("job.py", "inputs.npz", "model.tflite", "jobs.json")))
                device.run(f"cd {device.folder} && python3 job.py")
                device.get("outputs.npz", folder / "outputs.npz")
                run = tflite_runner(content, "litert", names)
                rows = [run({k: v[s : s + 1] for k, v in feeds.items()}) for s in range(options.samples)]
                here = [np.concatenate([row[i] for row in rows]) for i in range(len(names))]
                there = dict(np.load(folder / "outputs.npz"))
                found = [compare(here, there, engine) for engine in ("litert", "tflite-runtime")]
                print(f"| {network.name} | {precision} | {found[0]} | {found[1]} |", flush=True)


if __name__ == "__main__":
    main()
