"""Atoms: one per channel of what a layer makes; labels: which atom each part of a tensor belongs to.

The labels of a tensor are an integer array of the tensor's own rank. An axis along which the atom does not
change has length 1, so a feature map (N, C, H, W) is labelled by a (1, C, 1, 1) array and the heads of an attention
(N, L, heads, dims) by a (1, 1, heads, dims) array, and numpy's indexing,
transposition, concatenation and broadcasting do to labels exactly what the ONNX operators do to tensors.
Atoms that must be removed together are united (union-find); atoms that must stay are frozen with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Dims = tuple[int | None, ...]

MAX_EXPANDED = 4_000_000
"""A reshape is traced only while its labels stay below this many elements."""

_BATCH = 2_147_483_629
"""A prime that stands for an unknown batch size in products of dimensions."""


class UntraceableError(Exception):
    """A rule cannot follow channels through its node; the text says why."""


class Atoms:
    """Allocates atoms, and collects which of them are equal and which may not go."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: list[str] = []
        self._pairs: list[tuple[Labels, Labels]] = []
        self._frozen: list[tuple[Labels, int]] = []

    def fresh(self, count: int) -> Labels:
        """``count`` new atoms."""
        first, self.count = self.count, self.count + count
        return np.arange(first, self.count, dtype=np.int64)

    def unite(self, one: Labels, other: Labels) -> None:
        """Atoms at the same place of the two (broadcast) label arrays go together."""
        if one is other:
            return
        one, other = np.broadcast_arrays(one, other)
        self._pairs.append((one.ravel(), other.ravel()))

    def unite_along(self, labels: Labels, axis: int) -> Labels:
        """Unite all atoms along ``axis``; returns the labels with that axis collapsed."""
        first = labels.take([0], axis)
        self.unite(labels, first)
        return first

    def freeze(self, labels: Labels, reason: str) -> None:
        """These atoms must stay, for this reason."""
        self.reasons.append(reason)
        self._frozen.append((labels.ravel(), len(self.reasons) - 1))

    def solve(self) -> tuple[Labels, dict[int, int]]:
        """The component of every atom, and for each frozen component the first reason found."""
        roots = np.arange(self.count, dtype=np.int64)
        if self._pairs:
            left = np.concatenate([pair[0] for pair in self._pairs])
            right = np.concatenate([pair[1] for pair in self._pairs])
            roots = _components(roots, left, right)
        frozen: dict[int, int] = {}
        for atoms, reason in self._frozen:
            for root in np.unique(roots[atoms]).tolist():
                frozen.setdefault(root, reason)
        return roots, frozen


def _components(roots: Labels, left: Labels, right: Labels) -> Labels:
    """Connected components by hooking larger roots to smaller ones and halving paths."""
    while True:
        a, b = roots[left], roots[right]
        open_ = a != b
        if not open_.any():
            return roots
        left, right, a, b = left[open_], right[open_], a[open_], b[open_]
        np.minimum.at(roots, np.maximum(a, b), np.minimum(a, b))
        while True:
            flat = roots[roots]
            if np.array_equal(flat, roots):
                break
            roots = flat


def varying(labels: Labels) -> tuple[int, ...]:
    """The axes along which the atom changes."""
    return tuple(axis for axis, size in enumerate(labels.shape) if size > 1)


def collapse(labels: Labels) -> Labels:
    """The same labels, with axes along which the atom does not change cut to length 1."""
    for axis in varying(labels):
        first = labels.take([0], axis)
        if (labels == first).all():
            labels = first
    return labels


def cut_to(labels: Labels, axes: Sequence[int]) -> Labels:
    """The labels at the first position of every axis but ``axes``."""
    return labels[tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(labels.ndim))]


def expand_axis(labels: Labels, axis: int, size: int) -> Labels:
    """Labels whose ``axis`` has its full length."""
    if labels.shape[axis] == size:
        return labels
    return np.repeat(labels, size, axis)


def along(labels: Labels, axis: int, size: int | None) -> Labels:
    """The atoms along ``axis`` as a vector of ``size``; refuses labels that change along another axis."""
    if any(other != axis for other in varying(labels)):
        raise UntraceableError("channels lie on an axis that it mixes")
    if size is None:
        raise UntraceableError("the size of its channel axis is not known")
    return np.broadcast_to(labels.ravel(), (size,))


def on_axis(atoms: Labels, rank: int, axis: int) -> Labels:
    """A vector of atoms as the labels of a tensor of this rank."""
    shape = [1] * rank
    shape[axis] = len(atoms)
    return collapse(atoms.reshape(shape))


def reshape_labels(labels: Labels, old: Dims, new: Dims) -> Labels:
    """The labels after a Reshape from ``old`` to ``new`` (None = batch), maybe varying on several axes."""
    pieces = _pieces(old, new)
    full: list[int] = []
    for before, _ in pieces:
        sizes = [_size(old[axis]) for axis in before]
        moving = any(labels.shape[axis] > 1 for axis in before)
        if moving and _BATCH in sizes:
            raise UntraceableError("it merges channels with the batch axis")
        full.extend(sizes if moving else [1] * len(before))
    if np.prod(full, dtype=np.float64) > MAX_EXPANDED:
        raise UntraceableError("the reshaped tensor is too large to trace")
    out = np.broadcast_to(labels, full)
    shape: list[int] = []
    for before, after in pieces:
        moving = any(labels.shape[axis] > 1 for axis in before)
        shape.extend([_size(new[axis]) for axis in after] if moving else [1] * len(after))
    return collapse(out.reshape(shape))


def _pieces(old: Dims, new: Dims) -> list[tuple[list[int], list[int]]]:
    """What a reshape merges and splits among themselves; where it merges the batch with other axes (windows), these are
    one piece with it."""
    try:
        return _segments([_size(dim) for dim in old], [_size(dim) for dim in new])
    except UntraceableError:
        open_ = [dims.index(None) + 1 if None in dims else 0 for dims in (old, new)]
        if not all(open_):
            raise
    tails: list[tuple[list[int], list[int]]] = []
    i, j = len(old), len(new)
    while (tail := _last_piece(old[:i], new[:j], open_[0], open_[1])) is not None:
        tails.append(tail)
        i, j = tail[0][0], tail[1][0]
    return [(list(range(i)), list(range(j))), *reversed(tails)]


def _last_piece(old: Dims, new: Dims, least: int, least_new: int) -> tuple[list[int], list[int]] | None:
    """The fewest last axes with equal products that do not reach below the axes ``least``; None where there are none."""
    i, j = len(old) - 1, len(new) - 1
    if i < least or j < least_new:
        return None
    a, b = _size(old[i]), _size(new[j])
    while a != b:
        if a < b and i > least:
            i -= 1
            a *= _size(old[i])
        elif b < a and j > least_new:
            j -= 1
            b *= _size(new[j])
        else:
            return None
    return list(range(i, len(old))), list(range(j, len(new)))


def _size(dim: int | None) -> int:
    return _BATCH if dim is None else dim


def _segments(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes with equal products: what a reshape merges and splits among themselves."""
    pieces: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before: list[int] = []
        after: list[int] = []
        a = b = 1
        if i < len(old):
            a, i = old[i], i + 1
            before.append(i - 1)
        if j < len(new) and (not before or a != 1 or new[j] == 1):
            b, j = new[j], j + 1
            after.append(j - 1)
        while a != b:
            if a < b and i < len(old):
                a, i = a * old[i], i + 1
                before.append(i - 1)
            elif b < a and j < len(new):
                b, j = b * new[j], j + 1
                after.append(j - 1)
            else:
                raise UntraceableError("its shapes do not divide each other")
        pieces.append((before, after))
    return pieces


def as_ints(array: npt.ArrayLike) -> tuple[int, ...]:
    """A small integer constant as plain ints."""
    return tuple(int(v) for v in np.asarray(array).reshape(-1))
