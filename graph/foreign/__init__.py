"""Model files from elsewhere, read in a child process with a memory and a time limit.

    with begin("model.onnx", Loading()) as pending:   # the child starts here
        ...                                           # imports of one's own, meanwhile
        model = pending.model()

A model file is input from the internet: libraries in C++ parse it, fold its constants and run it, and a file that was
made to can crash them, hang them, or make them fill the memory. All of that happens in the child. What comes back is the
canonical graph, or an error of `graph.errors`; a crash is a ModelError. `graph.load.load` does the same work in this process,
for files that are one's own.
"""

from edgec.graph.foreign.loading import Loading
from edgec.graph.foreign.models import Pending, begin, load
from edgec.graph.foreign.process import Child, DefectError

__all__ = ["Child", "DefectError", "Loading", "Pending", "begin", "load"]
