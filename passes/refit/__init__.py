"""What the recovery and pruning passes share: walking a network front to back, and fitting a layer where the walk stands."""
