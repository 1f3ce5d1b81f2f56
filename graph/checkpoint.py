"""Weights out of what training leaves behind: under which key they lie, and which wrapper's name stands before each of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.graph.boundary import first_line
from edgec.graph.errors import ModelError

if TYPE_CHECKING:
    import torch

_HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Where trainers put the weights, the likelier first."""
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Written before every name by DataParallel, torch.compile, and modules that hold the network."""
_SHOWN = 3
_DEPTH = 3


def load_weights(module: torch.nn.Module, path: Path, trust: bool) -> None:
    """Put the weights of a checkpoint into ``module``. ``trust``: unpickle whatever it holds, which may run code.

    Raises ModelError for a file that holds none, and where they are not those of ``module``.
    """
    import torch

    if not path.is_file():
        raise ModelError("no such file", where=str(path))
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=not trust)
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError("not a checkpoint of torch", where=str(path), why=first_line(error)) from error
    except Exception as error:  # torch raises pickle.UnpicklingError for anything but plain tensors
        hint = "If the file is your own, add --trust: unpickling it runs what it holds."
        what = "the checkpoint holds more than plain tensors"
        raise ModelError(what, where=str(path), why=first_line(error), hint=hint) from error
    found = _tensors(loaded, _DEPTH)
    if not found:
        keys = (
            ", ".join(map(str, list(loaded)[:_SHOWN]))
            if isinstance(loaded, Mapping)
            else type(loaded).__name__
        )
        hint = f"Weights are looked for at the top, and under {', '.join(_HOLDERS)}."
        raise ModelError("no weights in this checkpoint", where=str(path), why=f"it holds {keys}", hint=hint)
    wanted = dict(module.state_dict())
    state = _unwrapped(found, wanted)
    _check(state, wanted, path)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:300]
        raise ModelError("the weights do not fit the network", where=str(path), why=why) from error


def _tensors(loaded: Any, depth: int) -> dict[str, Any]:
    """The state_dict in a checkpoint; empty where there is none."""
    import torch

    if isinstance(loaded, torch.nn.Module):
        return dict(loaded.state_dict())
    if not isinstance(loaded, Mapping) or not loaded:
        return {}
    for key in _HOLDERS if depth else ():
        found = _tensors(loaded.get(key), depth - 1)
        if found:
            return found
    named = all(isinstance(key, str) for key in loaded)
    return dict(loaded) if named and all(isinstance(value, torch.Tensor) for value in loaded.values()) else {}


def _unwrapped(state: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names of wrappers that stand before every key, as long as the keys are not the network's own."""
    while not wanted.keys() & state.keys():
        prefix = next((one for one in _WRAPPERS if all(key.startswith(one) for key in state)), None)
        if prefix is None:
            return state
        state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def _check(state: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Raise ModelError, naming the first keys, where some are missing, left over, or of another shape."""
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted]
    shapes = [
        f"{key} is {_shape(state[key])}, the network has {_shape(wanted[key])}"
        for key in wanted
        if key in state and _shape(state[key]) != _shape(wanted[key])
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"
        for what, found in (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
        if found
    ]
    if problems:
        raise ModelError("the weights do not fit the network", where=str(path), why="; ".join(problems))


def _shape(tensor: Any) -> Any:
    return tuple(getattr(tensor, "shape", ()))
