"""Reports that look like real runs. All figures are invented: they exercise the page, and mean nothing."""

from __future__ import annotations

import math

import pytest

from edgec.runtime.report.schema import (
    Artifact,
    Comparison,
    Compressed,
    DataInfo,
    FittedLayer,
    Gate,
    Latency,
    LatencySection,
    Layer,
    PassNote,
    PassRun,
    Quality,
    Ratio,
    Report,
    Size,
    SourceModel,
    Tradeoff,
    TradeoffPoint,
)

TEACHER = Size(macs=325_434_368, params=2_578_600, nodes=58)
SLIM = Size(macs=260_101_120, params=2_204_112, nodes=58)


_PI4 = {"fp32": 61.0, "int8": 20.0}
_RUNTIME = {"onnx": "onnxruntime 1.31", "tflite": "TFLite 2.5"}


def mobilenet_layers() -> tuple[Layer, ...]:
    """MobileNetV1-0.75 at 224 x 224: a stem, 13 depthwise-separable blocks, and a classifier."""
    layers = []
    size, channels, total = 112, 24, TEACHER.macs
    stem = size * size * 27 * channels
    layers.append(_layer("MobilenetV1/Conv2d_0", "Conv", stem, 1.0, 672, stem / total + 0.03, 38.2))
    for block in range(1, 14):
        stride = 2 if block in (2, 4, 6, 12) else 1
        out = min(768, 24 * 2 ** (1 + (block >= 2) + (block >= 4) + (block >= 6) + (block >= 12)))
        size //= stride
        keep = 0.95 - 0.025 * (block % 7) if block > 3 else 1.0
        share = size * size * channels * out / total
        name = f"MobilenetV1/Conv2d_{block}"
        wave = 4 * math.sin(1.7 * block)
        layers.append(
            _layer(
                f"{name}_depthwise",
                "Conv (depthwise)",
                size * size * 9 * channels,
                keep,
                10 * channels,
                0.018,
                27 + wave,
            )
        )
        pointwise = size * size * channels * out
        params = channels * out + out
        layers.append(_layer(f"{name}_pointwise", "Conv", pointwise, keep**2, params, 0.7 * share, 31 - wave))
        channels = out
    layers.append(_layer("MobilenetV1/Logits", "Gemm", 768_000, 0.9, 769_000, 0.012, 33.0))
    return tuple(layers)


def _layer(name: str, op: str, macs: int, keep: float, params: int, share: float, db: float) -> Layer:
    return Layer(
        name=name,
        op=op,
        macs_before=macs,
        macs_after=int(macs * keep),
        params_before=params,
        params_after=int(params * keep),
        bytes_before=4 * params,
        bytes_after=int(params * keep),
        latency_share=share,
        latency_ms=8.1 * share,
        sqnr_db=db,
        error=0.002 * (1 + len(name) % 5) if keep < 1 else 0.0,
    )


def measured(median: float, runtime: str = "onnxruntime 1.31.1") -> Latency:
    return Latency(
        measured=True,
        median_ms=median,
        p10_ms=0.97 * median,
        p90_ms=1.06 * median,
        p99_ms=1.3 * median,
        runs=240,
        runtime=runtime,
        load_ms=41.0,
        first_ms=2.2 * median,
        peak_rss_mb=96.0,
    )


def _passes() -> tuple[PassRun, ...]:
    fits = tuple(
        FittedLayer(
            node=f"MobilenetV1/Conv2d_{block}_pointwise",
            rows=100_352,
            unknowns=385 + 12 * block,
            condition=3.1e4 * block,
            error_before=0.04 + 0.006 * block,
            error_after=0.012 + 0.003 * block,
            kept=block != 13,
            note="" if block != 13 else "error on held-out rows rose from 0.041 to 0.047",
        )
        for block in range(4, 14)
    )
    return (
        PassRun(name="normalise", seconds=0.8, peak_rss_mb=310, before=TEACHER, after=TEACHER),
        PassRun(
            name="fold",
            seconds=0.3,
            peak_rss_mb=318,
            before=TEACHER,
            after=TEACHER,
            notes=(PassNote(text="27 BatchNorms were already folded"),),
        ),
        PassRun(
            name="prune-channels",
            options={"macs": "80%", "criterion": "obs", "multiple": 8},
            seconds=21.4,
            peak_rss_mb=1290,
            before=TEACHER,
            after=SLIM,
            notes=(
                PassNote(text="10 of 13 groups narrowed, widths in multiples of 8"),
                PassNote(text="not prunable: read by Softmax", level="warning", node="MobilenetV1/Logits"),
            ),
            data={"groups": 13, "plan": [1, 2, 3]},
        ),
        PassRun(
            name="recover-lsq",
            options={"sweeps": 1},
            seconds=32.9,
            peak_rss_mb=1350,
            before=SLIM,
            after=SLIM,
            layers=fits,
            notes=(
                PassNote(
                    text="old weights put back: error on held-out rows rose from 0.041 to 0.047",
                    level="reverted",
                    node="MobilenetV1/Conv2d_13_pointwise",
                ),
            ),
        ),
        PassRun(
            name="equalise",
            seconds=1.9,
            peak_rss_mb=1010,
            reverted=True,
            before=SLIM,
            after=SLIM,
            notes=(PassNote(text="output SQNR fell from 21.3 to 20.8 dB", level="reverted"),),
        ),
        PassRun(
            name="quantize",
            options={"calibration": "mse"},
            seconds=11.2,
            peak_rss_mb=1120,
            before=SLIM,
            after=SLIM,
        ),
    )


@pytest.fixture
def mobilenet() -> Report:
    """A full run: every part of a report is there."""
    images = 1000
    curve = [
        TradeoffPoint(macs=int(TEACHER.macs * x / 20), predicted_error=0.9 * (1 - x / 20) ** 2.2)
        for x in range(6, 21)
    ]
    return Report(
        edgec="0.1.0",
        model=SourceModel(
            name="mobilenet_v1_0.75_224.onnx",
            sha256="6a1f" * 16,
            macs=TEACHER.macs,
            params=TEACHER.params,
            bytes=10_358_212,
            latency=measured(14.9),
        ),
        target="host",
        target_title="this machine, Intel Xeon",
        compressed=Compressed(macs=SLIM.macs, params=SLIM.params),
        quality={
            "teacher": Quality(
                images=images, top1=0.786, agreement=1.0, sqnr_db=math.inf, kl=0.0, cosine=1.0
            ),
            "float": Quality(
                images=images, top1=0.771, agreement=0.921, sqnr_db=15.2, kl=0.061, cosine=0.985
            ),
            "int8": Quality(images=images, top1=0.768, agreement=0.911, sqnr_db=14.1, kl=0.072, cosine=0.981),
        },
        artifacts=(
            Artifact(
                path="model.onnx",
                format="onnx",
                precision="fp32",
                bytes=8_852_000,
                sha256="0a" * 32,
                latency=measured(12.1),
            ),
            Artifact(
                path="model.int8.onnx",
                format="onnx",
                precision="int8",
                bytes=2_390_417,
                sha256="0b" * 32,
                latency=measured(4.62),
            ),
            Artifact(
                path="model.tflite",
                format="tflite",
                precision="fp32",
                bytes=8_841_220,
                sha256="0c" * 32,
                latency=measured(13.4, "LiteRT 2.3.0"),
            ),
            Artifact(
                path="model.int8.tflite",
                format="tflite",
                precision="int8",
                bytes=2_341_904,
                sha256="0d" * 32,
                latency=measured(5.02, "LiteRT 2.3.0"),
            ),
        ),
        passes=_passes(),
        gates=(
            Gate(name="budget macs", passed=True, value="79.9%", limit="80%"),
            Gate(name="top-1 drop", passed=True, value="1.8%", limit="2%", why="paired on 1000 images"),
            Gate(
                name="fp32 emission",
                passed=True,
                value=3.1e-6,
                limit=1e-4,
                why="relative difference to the graph",
            ),
        ),
        latency=LatencySection(
            measured=True,
            comparison=Comparison(
                baseline="source",
                runtime="onnxruntime 1.31.1",
                ratios=(
                    Ratio(path="model.onnx", ratio=0.81, p10=0.79, p90=0.84, rounds=40),
                    Ratio(path="model.int8.onnx", ratio=0.309, p10=0.29, p90=0.33, rounds=40),
                ),
            ),
        ),
        layers=mobilenet_layers(),
        tradeoff=Tradeoff(
            points=tuple(curve), this=TradeoffPoint(macs=SLIM.macs, predicted_error=0.026), budget="macs=80%"
        ),
        recipe={
            "model": "mobilenet_v1_0.75_224.onnx",
            "target": "host",
            "seed": 0,
            "passes": [
                {"name": "prune-channels", "options": {"macs": "80%"}},
                {"name": "quantize", "options": {}},
            ],
        },
        command="edgec compile mobilenet_v1_0.75_224.onnx --recipe run/recipe.yaml --data calib -o again",
        environment={
            "python": "3.11.2",
            "cpu": "Intel Xeon @ 2.60GHz",
            "versions": {"onnxruntime": "1.31.1", "numpy": "1.26.4"},
        },
        data=DataInfo(
            name="calib",
            samples=512,
            fingerprint="9c" * 32,
            eval_name="eval",
            eval_samples=1000,
            eval_fingerprint="4e" * 32,
        ),
        seconds=78.4,
        peak_rss_mb=1350.0,
    )


@pytest.fixture
def minimal() -> Report:
    """The least that a run leaves: no data, no latency, one artifact."""
    return Report(
        edgec="0.1.0",
        model=SourceModel(name="net.onnx", sha256="ab" * 32, macs=1000, params=100, bytes=1600),
        target="rpi4",
        compressed=Compressed(macs=1000, params=100),
        artifacts=(
            Artifact(path="model.onnx", format="onnx", precision="fp32", bytes=1500, sha256="cd" * 32),
        ),
    )


@pytest.fixture
def estimated(mobilenet: Report) -> Report:
    """A run for a board that is not there: estimated latencies, random calibration data, a failed gate."""

    def guess(median: float, runtime: str = "TFLite 2.5") -> Latency:
        return Latency(
            measured=False,
            median_ms=median,
            device="rpi4",
            runtime=runtime,
            threads=4,
            error_pct=7.6,
            low_ms=0.92 * median,
            high_ms=1.08 * median,
            basis="fitted on 37 models",
        )

    artifacts = tuple(
        artifact.model_copy(update={"latency": guess(_PI4[artifact.precision], _RUNTIME[artifact.format])})
        for artifact in mobilenet.artifacts
    )
    return mobilenet.model_copy(
        update={
            "model": mobilenet.model.model_copy(update={"latency": guess(78.0)}),
            "target": "rpi4",
            "target_title": "Raspberry Pi 4 Model B",
            "artifacts": artifacts,
            "latency": LatencySection(measured=False, note="No device given: latencies are estimates."),
            "data": DataInfo(name="random", samples=64, fingerprint="00" * 32, random=True),
            "gates": (
                *mobilenet.gates,
                Gate(name="latency", passed=False, value="20 ms", limit="18 ms", why="budget"),
            ),
            "warnings": ("int8 pays 1.6 to 2 times on this CPU: it has no dot product",),
        }
    )
