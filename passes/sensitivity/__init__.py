"""What an error inside the network does to its output, measured on samples that no statistics saw."""
