"""What a network is for: its answers in the task's own terms, the same way for the source and for what was made of it."""
