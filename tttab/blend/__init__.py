"""Predictions shared between an adapted model and boosted trees fitted on the same labelled rows."""
