"""QuantizeLinear and DequantizeLinear: where real numbers and codes meet."""

from __future__ import annotations

import onnx_ir as ir

from edgec.compiler.emit.tflite.context import Home, Lowering, Placed, RefusalError, dequantise
from edgec.compiler.emit.tflite.quantisation import code_form, quantise, signed
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.views import constant

QDQ = Registry()


@QDQ.register("QuantizeLinear")
def quantize(ctx: Lowering, node: ir.Node) -> None:
    """Nothing where the operator in front wrote codes already; else QUANTIZE, from numbers or from other codes."""
    target, source = node.outputs[0], node.inputs[0]
    if source is None:
        raise RefusalError("its input is missing")
    if ctx.codes(target) is not None:
        return
    form = code_form(node)
    if len(form.quantization.scale) > 1:
        raise RefusalError("it quantises activations per channel", "Quantise activations per tensor.")
    home = ctx.codes(source) or ctx.real(source)
    name = target.name or "codes"
    if home.array is not None:
        real = dequantise(home.array, home.quantization)
        codes = quantise(real, form)
        ctx.bind_codes(target, Home(name, home.shape, array=codes, quantization=form.quantization))
        return
    result = Home(name, ctx.shape(target), quantization=form.quantization)
    x = ctx.take(home)
    y = ctx.requantise(x.tensor, form.quantization, form.type, name)
    result.placements.append(Placed(y, x.layout))
    ctx.bind_codes(target, result)


@QDQ.register("DequantizeLinear")
def dequantize(ctx: Lowering, node: ir.Node) -> None:
    """Nothing yet: the result is the codes' home. A DEQUANTIZE follows when somebody asks for the numbers."""
    source = node.inputs[0]
    if source is None:
        raise RefusalError("its input is missing")
    home = ctx.codes(source)
    if home is None:
        form = code_form(node)
        array = constant(source)
        if array is None:
            raise RefusalError("it reads codes that are a model input", "Give the model real inputs.")
        home = Home(
            source.name or "codes", tuple(array.shape), array=signed(array), quantization=form.quantization
        )
    ctx.bind_codes(node.outputs[0], home)
