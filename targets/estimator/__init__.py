"""The latency estimator: milliseconds of a model on a target, with the error of the estimate beside it."""
