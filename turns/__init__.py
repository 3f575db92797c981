"""What runs a turn: the wrapper that gives a chain its history, the run, its outputs, what the model is shown."""
