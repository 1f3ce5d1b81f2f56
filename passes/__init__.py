"""One pass per file. `passes.base` is the contract, `passes.table` the list, `passes.solvers` the mathematics."""
