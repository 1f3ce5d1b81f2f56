"""What reading a model says about itself while it runs, so that a crash can be told where it was."""

from __future__ import annotations

STARTING = "starting"
IMPORTING = "importing its libraries"
READING = "reading the file"
CHECKING = "checking its form"
GRAPH_STAGES = CONVERTING, INFERRING, FOLDING, FUSING, RUNNING = (
    "converting its opset",
    "inferring its shapes",
    "folding its constants",
    "fusing its layers",
    "running it on random input",
)
"""Stages in which a library works on the nodes, so that one of them can be to blame."""


class Listener:
    """Hears the stages of a load. This one does nothing with them."""

    def stage(self, text: str) -> None:
        """What comes next, in words: 'folding constants', 'node 'c1' (Conv)'."""

    def size(self, count: int) -> None:
        """The bytes of the model and of the data beside it, known before they are read."""
