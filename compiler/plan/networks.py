"""The networks that passes name in their options, read as the source is: in a child process, within its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from edgec.graph.errors import ModelError, UsageError
from edgec.graph.files import identity, is_factory
from edgec.graph.foreign import Loading, begin
from edgec.graph.load import check_file
from edgec.passes.base import Pass
from edgec.passes.distil import Distil


def read_networks(
    passes: tuple[Pass, ...], loading: Loading
) -> tuple[tuple[Pass, ...], Mapping[str, ir.Model]]:
    """``passes`` with the hashes of their files, and what lies in these, by path.

    Raises ModelError for a file that is not the one that a recipe was made with, or that cannot be read; UsageError for no file.
    """
    found: dict[str, ir.Model] = {}
    known = []
    for one in passes:
        if isinstance(one, Distil) and one.student:
            one = replace(one, sha256=_hash_of(one))
            if one.student not in found:
                with begin(one.student, loading) as pending:
                    found[one.student] = pending.model()
        known.append(one)
    return tuple(known), found


def _hash_of(one: Distil) -> str:
    if is_factory(one.student):
        hint = "Export the module to ONNX, or to a .pt2, and name that file."
        raise UsageError(
            "a student is read from a file", where=f"{one.name}{{student={one.student}}}", hint=hint
        )
    check_file(Path(one.student))  # before all of it is read for its hash
    sha256, _ = identity(one.student, None)
    if one.sha256 not in ("", sha256):
        why = f"sha256 {sha256[:12]}..., the recipe was made for {one.sha256[:12]}..."
        hint = f"Bring the old file, or delete sha256= from {one.name} to accept the new one."
        raise ModelError("this is not the recipe's student", where=one.student, why=why, hint=hint)
    return sha256
