"""Pure mathematics on arrays: no graph, no file, no state."""
