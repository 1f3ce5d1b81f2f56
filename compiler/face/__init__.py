"""What Python callers hold in memory: their models, their data, their metric, brought to the form that a run works with."""
