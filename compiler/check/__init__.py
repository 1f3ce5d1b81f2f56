"""What a runtime would say to a written file: read alone, by rules of its own, knowing nothing of who wrote it."""
