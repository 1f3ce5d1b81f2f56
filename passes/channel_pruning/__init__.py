"""Which channels go: statistics of the consumers, error curves, what they do to the output, and widths for a budget."""
