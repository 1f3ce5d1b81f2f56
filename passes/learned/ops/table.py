"""All ops that torch computes here, by name."""

from __future__ import annotations

from edgec.passes.learned.ops import arithmetic, layers, layout, pointwise, pools, reductions, resize, rounded
from edgec.passes.learned.ops.op import Table

OPS: Table = {
    **arithmetic.OPS,
    **layers.OPS,
    **layout.OPS,
    **pointwise.OPS,
    **pools.OPS,
    **reductions.OPS,
    **resize.OPS,
    **rounded.OPS,
}
