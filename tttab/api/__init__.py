"""tttab for Python: `run` and `adapt`, the scikit-learn estimators, and what `doctor` finds."""
