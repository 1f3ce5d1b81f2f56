"""How fast the artifacts are: measured or estimated times, and the estimates that budgets are priced by."""
