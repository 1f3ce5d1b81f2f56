"""The measuring agent: Python 3.8 or later, numpy and one inference engine; nothing else of edgec.

:mod:`edgec.runtime.pack` folds this package into one file, ``edgec-agent.pyz``. The same file measures on the
host (in a subprocess) and on a device (uploaded over SSH, or copied by hand):

    python3 edgec-agent.pyz bench model.int8.tflite            latency by the protocol below, one JSON line
    python3 edgec-agent.pyz bench a.onnx b.onnx --interleave   A B, B A, ... in one session, and the ratios
    python3 edgec-agent.pyz bench model.tflite --sustained 1800
    python3 edgec-agent.pyz profile model.onnx                 time per layer
    python3 edgec-agent.pyz outputs model.onnx --inputs x.npz --save y.npz
    python3 edgec-agent.pyz info                               this machine, and the engines that work on it

Protocol. Every artifact runs in a fresh process of its own that holds one engine, on one thread unless told
otherwise, pinned to the idlest of the fastest cores. The process loads the model (load time), infers once
(first inference), and warms up until the median of a window stops moving; then it is asked for short bursts
until there are at least ``--runs`` inferences and ``--seconds`` seconds of them. Between bursts the parent
reads the clock, governor, temperature, throttling bits and swap counters. A run during which the machine
throttled or swapped is INVALID: its numbers are printed and must not be used. A busy host is noticed.

Exit codes: 0 measured (validity is in the JSON) · 2 usage · 3 model or engine cannot run · 130 interrupted.
"""

from __future__ import annotations
