"""The learned half: the canonical graph in torch, and what is learned with it. Nothing here is imported where torch is absent."""
