"""What a run decides by trying: the size of the input under a budget."""
