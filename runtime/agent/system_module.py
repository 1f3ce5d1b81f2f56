"""NVIDIA's Python modules: JetPack and apt put them into the system's folders, which a virtual environment does not look into."""

from __future__ import annotations

import sys
from importlib import import_module, util
from importlib.machinery import PathFinder
from typing import Any, List

from .base import AgentError, first_line


def import_system(name: str) -> Any:
    """The module from this environment, or else from the system's folders; nothing else of the system's is taken.

    None where neither has it. Raises AgentError for one that is there and does not load: of another Python, or another CUDA.
    """
    root = name.partition(".")[0]
    try:
        if root not in sys.modules and util.find_spec(root) is None:
            spec = PathFinder.find_spec(root, system_folders())
            if spec is None:
                return None
            sys.modules[root] = module = util.module_from_spec(spec)
            if spec.loader is not None:  # a namespace has none before Python 3.11
                spec.loader.exec_module(module)
        return import_module(name)
    except ModuleNotFoundError as error:
        if name.startswith(str(error.name)):  # an older cuda-python has no such part
            return None
        raise _broken(name, error) from error
    except Exception as error:  # a module of NVIDIA's runs code of its own, and raises what it likes
        sys.modules.pop(root, None)
        raise _broken(name, error) from error


def system_folders() -> List[str]:
    """Where Debian's packages, and ``sudo pip install``, put modules for this Python."""
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return [
        f"/usr/local/lib/{own}/dist-packages",
        f"/usr/lib/{own}/dist-packages",
        "/usr/lib/python3/dist-packages",
    ]


def _broken(name: str, error: Exception) -> AgentError:
    return AgentError("accelerator", f"the module {name} does not load: {first_line(error)}")
