"""Two models side by side: what of them is comparable, how far it is apart, and which layer is the cause."""
