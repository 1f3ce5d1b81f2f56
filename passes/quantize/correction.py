"""What the passes that correct a quantised graph have in common.

They compare the quantised graph with the float graph it was made from (`Context.reference`; the teacher where no pass ran
before `quantize`), and keep what they did only if the outputs come nearer to it on held-out samples.
"""

from __future__ import annotations

from dataclasses import asdict

import onnx_ir as ir

from edgec.graph.errors import DataError, PassError
from edgec.passes.base import Choice, Context, Note, PassResult
from edgec.passes.quantize.compose import split_data
from edgec.passes.quantize.dialects import TENSORRT, TFLITE
from edgec.passes.quantize.fit import FitOptions, Student, fit
from edgec.passes.quantize.layer import layers
from edgec.passes.quantize.pairs import pair_weights, unpair_weights
from edgec.passes.quantize.rewrites import prepare
from edgec.passes.quantize.score import Reference, nearer


def correct(name: str, model: ir.Model, options: FitOptions, samples: int, context: Context) -> PassResult:
    """Fit the layers of the quantised ``model`` in place as ``options`` say, or leave it as it is."""
    if context.data is None:
        hint = "Give --data, or --data random for noise."
        raise DataError("no calibration data", where=name, hint=hint)
    original = (context.reference or context.teacher).clone()
    paired = unpair_weights(model)
    prepare(original, TENSORRT if paired else TFLITE)
    if not any(True for _ in layers(model, original)):
        raise PassError(
            "no quantised layer to correct",
            where=name,
            why="the graph holds none that the float network has too",
            hint="Run it after quantize.",
        )
    fitting, check = split_data(context.data, samples, context.seed)
    corrected = model.clone()
    with Reference(original, check, context) as reference:
        before = reference.score(model)
        reports = fit(Student(corrected, options), original, fitting, context)
        after = reference.score(corrected)
    text = f"SQNR {before.typical_db:.1f} -> {after.typical_db:.1f} dB per held-out sample"
    verdict = nearer(before, after, drawn=options.weights)
    data = {"choices": [asdict(Choice.of("corrections", verdict))]}
    for one in (model, corrected) if paired else ():
        pair_weights(one)
    if not verdict.kept:
        return PassResult(model, False, (Note(text + verdict.doubt, "reverted"),), reports, data)
    return PassResult(corrected, True, (Note(text),), reports, data)
