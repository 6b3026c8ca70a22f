"""Continuous diffusion over 0/1 rows: posteriors, loss, noise levels, samplers and guidance."""
