"""How fast the artifacts are: the model of latency that budgets are priced by, calibrated on the host; measured or estimated times."""
