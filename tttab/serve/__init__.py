"""Predictions over HTTP: bundles behind FastAPI, requests that come together answered together."""
