"""Studies: questions that `tttab bench` does not ask, answered with its store and its executors."""
