"""The ground floor: load and canonicalise, spec and verify, cost, channel groups, execute, compare."""
