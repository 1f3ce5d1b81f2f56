"""A run folder becomes a bundle for a board: its wheels, its self-test, and the way onto the device."""
