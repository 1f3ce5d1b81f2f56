"""What reading a model says about itself while it runs, so that a crash can be told where it was."""

from __future__ import annotations


class Listener:
    """Hears the stages of a load. This one does nothing with them."""

    def stage(self, text: str) -> None:
        """What comes next, in words: 'folding constants', 'node 'c1' (Conv)'."""

    def size(self, count: int) -> None:
        """The bytes of the model and of the data beside it, known before they are read."""
