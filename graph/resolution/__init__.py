"""Another size of the input: what every axis becomes, which constants follow, and which node forbids it."""
