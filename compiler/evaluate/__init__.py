"""How good the artifacts are: quality against the teacher, layer by layer, and the gates."""
