"""`resize-input`: the same network for pictures of another size, weights untouched.

Every map shrinks with the picture, so multiplications fall with its area. What a size means for each axis is followed through the
graph (`graph.resolution`); the cases:

1. Convolutions, local pools, and everything that works place by place or along channels: nothing changes but shapes.
2. A pool whose window covers the whole map goes on covering it; global pools do by themselves.
3. Sizes in a Reshape, Resize, Expand, Slice or Split are written anew: those of the map that they were made for.
4. Grids and anchors that are constants are made anew (`graph.resolution.grids`): places, pixels, and shares of the picture.
5. A flattened map in front of a linear layer, a kernel as large as the map, position embeddings, windows of attention: the size
   is refused, with the node.

It stands in front of all passes that look at data: they, and their teacher, see the new size. The network is judged against its
source at the source's own size, on the same pictures, each resized once from its own pixels.

A program before and after::

    x [N,3,224,224]                   ->   x [N,3,160,160]
    h = Conv(x, w[64,3,3,3])               h = Conv(x, w[64,3,3,3])
    p = AveragePool(h, 112x112)            p = AveragePool(h, 80x80)
    y = Gemm(Flatten(p), v[10,64])         y = Gemm(Flatten(p), v[10,64])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.errors import UsageError
from edgec.graph.resolution.resize import resized, size_of
from edgec.graph.values import NotAdmitted, sizes
from edgec.passes.base import Context, Note, Pass, PassResult, option

Size = tuple[int, int]


def _size(text: str) -> str:
    if not text.strip():
        return ""
    try:
        return "x".join(map(str, sizes(text)))
    except NotAdmitted as error:
        raise UsageError(str(error)) from None


@dataclass(frozen=True)
class ResizeInput(Pass):
    """Another size of the picture."""

    name: ClassVar[str] = "resize-input"
    summary: ClassVar[str] = "make the network for pictures of another size, weights untouched"
    changes_input: ClassVar[bool] = True

    size: str = option("", "height and width, 160 (the shorter side) or 160x192", reads=_size)

    def complete(self) -> None:
        """Raise UsageError for no size."""
        if not self.size:
            raise UsageError(f"{self.name} needs a size", hint=f"Write {self.name}{{size=160}}.")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises SizeError, naming the node, for a size that the network cannot take."""
        old = size_of(model)
        new = size_for(self.size, old)
        if new == old:
            return PassResult(model, modified=False, notes=(Note(f"the input is {shown(old)} px already"),))
        made = resized(model, new)
        share = cost(made).macs / max(1, cost(model).macs)
        notes = [Note(f"{shown(old)} → {shown(new)} px: macs at {share:.1%}")]
        if (
            context.data is not None
            and not context.data.is_random
            and context.data.at(made).is_resized_numbers
        ):
            notes.append(
                Note(
                    "the data are prepared arrays: they are resized as pictures are, and not from the pictures"
                )
            )
        data = {"resolution": {"source": list(old), "size": list(new), "share": share}}
        return PassResult(made, modified=True, notes=tuple(notes), data=data)


def size_for(text: str, source: Size) -> Size:
    """What ``160`` or ``160x192`` means for a network of ``source``: one number is the shorter side, and the shape stays."""
    found = sizes(text)
    if len(found) == 2:
        return found[0], found[1]
    ratio = found[0] / min(source)
    return round(source[0] * ratio), round(source[1] * ratio)


def shown(size: Size) -> str:
    """``160``, or ``160x192``."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
