"""Reading a ``.pt2`` without running anything that it holds.

torch.export.load runs what the file says in more ways than one: pickles (weights, constants, sample inputs, custom objects),
compiled libraries (AOTInductor), strings that sympy evaluates (the sizes of dynamic shapes), strings that become Python code
(names, guards), and any function that can be reached from ``torch.`` as the target of a node. So, without trust:
- every pickle goes through ``torch.load(weights_only=True)``, which builds tensors and plain containers and refuses the rest;
- compiled libraries and custom objects are refused;
- the program's JSON is checked first: targets are operators by name, sizes are arithmetic, names are identifiers.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgec.graph.boundary import first_line
from edgec.graph.errors import ModelError, UsageError
from edgec.graph.external import MOST_BYTES
from edgec.graph.listener import Listener

HINT = (
    "--trust (trust=True) loads it all the same and runs what it holds, with your rights. "
    "Use it only for a file of your own; else ask its author for an ONNX file."
)
SAFE_TORCH = (2, 6)
"""Before 2.6 a file could run code through torch.load(weights_only=True) as well (CVE-2025-32434)."""

_MOST_TEXT = 10_000
_NAME = re.compile(r"[\w.+:%$\-\[\]<>/ ]*", re.ASCII)
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?", re.ASCII)
_NAMESPACES = frozenset({"aten", "prims", "quantized_decomposed", "torchvision", "torchao"})
_TOUCHES_FILES = frozenset({"save", "load", "from_file", "_load_from_file"})
_HIGHER_ORDER = frozenset(
    {
        "cond", "while_loop", "scan", "map", "map_impl", "associative_scan", "wrap_with_set_grad_enabled",
        "wrap_with_autocast", "wrap", "wrap_activation_checkpoint", "tag_activation_checkpoint",
        "invoke_subgraph", "flex_attention",
    }
)  # fmt: skip
_ARITHMETIC = frozenset(
    {
        "getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "eq", "ne", "lt", "le",
        "gt", "ge", "and_", "or_", "xor", "not_", "inv", "invert", "lshift", "rshift", "index", "contains",
    }
)  # fmt: skip
_TORCH = frozenset(
    {
        "sym_int",
        "sym_float",
        "sym_max",
        "sym_min",
        "sym_not",
        "sym_ite",
        "sym_sum",
        "sym_fresh_size",
        "_sym_sqrt",
    }
)
_SYMPY = frozenset(
    {
        "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
        "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt",
        "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "Max", "Min", "Abs", "Eq", "Ne", "Le", "Lt", "Ge", "Gt",
        "floor", "ceiling", "Integer", "Symbol", "IsNonOverlappingAndDenseIndicator", "OpaqueUnaryFn_sqrt", "Rational",
        "Add", "Mul", "Pow", "Float", "And", "Or", "Not", "Equality", "Unequality", "GreaterThan", "LessThan",
        "StrictGreaterThan", "StrictLessThan",
    }
)  # fmt: skip
_GUARD_CALLS = frozenset(
    {"size", "stride", "storage_offset", "dim", "numel", "len", "max", "min", "int", "float"}
)
_EXPRESSION = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Constant, ast.Name, ast.Load, ast.Call, ast.operator,
    ast.unaryop, ast.boolop, ast.cmpop, ast.keyword,
)  # fmt: skip
_FREE_TEXT = frozenset({"metadata", "as_string", "as_strings", "stack_trace", "torch_version", "verifiers"})
"""Fields that are text and stay text."""


def load_guarded(path: Path, listener: Listener) -> Any:
    """The exported program in the file at ``path``; torch unpickles nothing but tensors and plain containers.

    Raises ModelError that says what asked to be run, and what --trust would mean; UsageError with a torch too old to refuse.
    """
    import torch

    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < SAFE_TORCH:
        why = f"torch {torch.__version__} runs code that a file holds even where it is told not to"
        raise UsageError("this torch cannot read a foreign file safely", where=str(path), why=why, hint=HINT)
    archive = _checked_copy(path, listener)
    try:
        with _plain_unpickling():
            return torch.export.load(archive)
    except Exception as error:  # torch raises its own tree of errors, json's, zipfile's and pickle's
        if _was_refused(error):
            why = "it holds a pickle that is more than tensors and plain containers"
            raise _asks(str(path), why) from error
        raise


def _was_refused(error: BaseException | None) -> bool:
    """Somewhere in the chain, torch or the replaced functions refused to unpickle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, pickle.UnpicklingError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _plain_unpickling() -> Iterator[None]:
    """torch.load as if every caller had said weights_only=True, and the two ways around it shut."""
    import torch

    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch's own switch; it wins over weights_only=False in the call
    other = os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    before = os.environ.get(name)
    os.environ[name] = "1"
    package = sys.modules.get("torch.export.pt2_archive._package")
    places: list[tuple[Any, str, Any]] = []
    try:
        if package is None:
            try:
                from torch.export.pt2_archive import _package as package
            except ImportError:
                package = None  # torch 2.6, whose archives hold no custom objects
        for owner, attribute, stand_in in (
            (package, "pickle", _NoPickle),
            (package, "_load_aoti", _refuse),
            (torch._C, "_pickle_load_obj", _refuse),
        ):
            if owner is not None and hasattr(owner, attribute):
                places.append((owner, attribute, getattr(owner, attribute)))
                setattr(owner, attribute, stand_in)
        yield
    finally:
        for owner, attribute, original in places:
            setattr(owner, attribute, original)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
        if other is not None:
            os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = other


def _refuse(*_: object, **__: object) -> Any:
    raise pickle.UnpicklingError("not without trust")


class _NoPickle:
    """Stands for the module pickle where torch would unpickle by itself."""

    loads = load = Unpickler = staticmethod(_refuse)
    UnpicklingError = pickle.UnpicklingError
    DEFAULT_PROTOCOL = pickle.DEFAULT_PROTOCOL


def _checked_copy(path: Path, listener: Listener) -> io.BytesIO:
    """The archive, checked member by member and written anew, so that torch reads the very bytes that were checked."""
    where = str(path)
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as clean:
            members = archive.infolist()
            size = sum(member.file_size for member in members)  # unpacked: a bomb is small in its archive
            if size > MOST_BYTES:
                raise ModelError("models above 2 GB are not supported", where=where)
            listener.size(size)
            for member in members:
                content = archive.read(member)
                _check_member(member.filename, content, where)
                clean.writestr(member.filename, content)
    # zipfile raises NotImplementedError for a compression that it lacks, RuntimeError for an encrypted member.
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ModelError("not a torch.export file", where=where, why=first_line(error)) from error
    copy.seek(0)
    return copy


def _check_member(name: str, content: bytes, where: str) -> None:
    inner = name.partition("/")[2]  # behind the archive's own name
    if "aotinductor" in name:
        raise _asks(where, f"{name!r} is a compiled library")
    if re.search(r"constants/(custom_obj|opaque_obj)", inner):
        raise _asks(where, f"{name!r} is a pickled object")
    extra = inner.startswith("extra/") or name.startswith("extra_files/")  # text that torch hands through
    if name.endswith(".json") and not extra:
        _check_json(json.loads(content), where, inner or name)


def _check_json(value: Any, where: str, place: str) -> None:
    """Every text in the program must be of its field's kind."""
    if isinstance(value, list):
        for item in value:
            _check_json(item, where, place)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not _NAME.fullmatch(key[:_MOST_TEXT]) and not _is_expression(key):
                raise _asks(where, f"the name {key[:80]!r} in {place} is no name")
            _check_field(key, item, where, f"{place}: {key}")
    elif isinstance(value, str) and not _NAME.fullmatch(value[:_MOST_TEXT]):
        raise _asks(where, f"the text {value[:80]!r} in {place} is no name")


def _check_field(key: str, value: Any, where: str, place: str) -> None:
    if key in _FREE_TEXT and not isinstance(value, (list, dict)):
        return
    if key == "metadata" or (key in _FREE_TEXT and isinstance(value, list)):
        return
    if key in ("target", "as_operator") and isinstance(value, str):
        if not _is_operator(value):
            raise _asks(where, f"a node calls {value[:80]!r}")
    elif key == "name" and isinstance(value, str):
        if not re.fullmatch(r"[\w.]*", value):
            raise _asks(where, f"the name {value[:80]!r} is no name")
    elif key == "expr_str" and isinstance(value, str):
        if not _is_expression(value):
            raise _asks(where, f"the size {value[:80]!r} is no arithmetic")
    elif key == "guards_code":
        for guard in value if isinstance(value, list) else [value]:
            if not isinstance(guard, str) or not _is_guard(guard):
                raise _asks(where, f"the guard {str(guard)[:80]!r} is no comparison")
    elif key in ("in_spec", "out_spec", "dataclass_name") and isinstance(value, str):
        if "default_factory" in value:  # torch imports the module that it names
            raise _asks(where, f"{key} names a module to import")
    else:
        _check_json(value, where, place)


def _is_operator(target: str) -> bool:
    """An operator of torch by its registered name, arithmetic on sizes, or a name within the graph."""
    match = _OPERATOR.fullmatch(target)
    if match is not None:
        namespace, name = match[1], match[2]
        if namespace == "higher_order":
            return name in _HIGHER_ORDER
        return namespace in _NAMESPACES and name not in _TOUCHES_FILES and not name.startswith("__")
    head, _, name = target.partition(".")
    if head == "_operator":
        return name in _ARITHMETIC
    if head == "math":
        return name.isidentifier() and not name.startswith("_")
    if head == "torch":
        return name in _TORCH or name in {f"sym_{one}" for one in ("sqrt", "abs", "floor", "ceil")}
    return target in ("<built-in function getitem>",)


def _is_expression(text: str) -> bool:
    """Arithmetic over sizes: numbers, names, operators, and the functions that torch writes."""
    tree = _parsed(text)
    if tree is None:
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _EXPRESSION):
            return False
        if isinstance(node, ast.Constant) and not isinstance(node.value, (int, float)):
            plain = isinstance(node.value, str) and re.fullmatch(
                r"[A-Za-z]\w*|-?[\d.]+(e[+-]?\d+)?", node.value
            )
            if not plain:  # Symbol('s0', integer=True), Float('0.5', precision=53)
                return False
        if isinstance(node, ast.Name) and node.id.startswith("_"):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _SYMPY):
            return False
        if isinstance(node, ast.keyword) and not isinstance(node.value, ast.Constant):
            return False
    return True


def _is_guard(text: str) -> bool:
    """A comparison of sizes of the inputs: ``L['x'].size()[0] >= 2``."""
    tree = _parsed(text)
    if tree is None:
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            func = node.func
            name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
            if name not in _GUARD_CALLS | _SYMPY or node.keywords:
                return False
        elif isinstance(node, ast.Attribute):
            if node.attr not in _GUARD_CALLS | {"shape", "ndim", "math", "floor", "ceil", "trunc"}:
                return False
        elif isinstance(node, ast.Constant):
            if not (isinstance(node.value, (int, float)) or re.fullmatch(r"\w+", str(node.value), re.ASCII)):
                return False  # torch writes the guard into a quoted string of code as well
        elif isinstance(node, ast.Name):
            if node.id.startswith("_"):
                return False
        elif not isinstance(node, (*_EXPRESSION, ast.Subscript, ast.Tuple)):
            return False
    return True


def _parsed(text: str) -> ast.Expression | None:
    if len(text) > _MOST_TEXT:
        return None
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _asks(where: str, why: str) -> ModelError:
    return ModelError("it asks for code to be run", where=where, why=why, hint=HINT)
