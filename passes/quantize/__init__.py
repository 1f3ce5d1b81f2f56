"""Static int8 quantisation in QDQ form (design section 4).

`rules` is TFLite's table of rules, `plan` applies it to a graph, `calibrate` finds ranges, `insert` writes
the QDQ pairs.
"""

from edgec.passes.quantize.quantiser import Quantize

__all__ = ["Quantize"]
