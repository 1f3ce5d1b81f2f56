"""What each op of the canonical graph computes, in torch: one file per kind of op, one table of all (`table`)."""
