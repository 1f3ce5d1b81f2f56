"""Device classes as data files, and the latency estimator."""
