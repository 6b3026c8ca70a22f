"""Evaluation of synthetic time series beside held-out real ones."""
