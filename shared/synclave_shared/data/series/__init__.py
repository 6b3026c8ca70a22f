"""ICU time series: channels on a regular grid of time, with what was observed and what was not."""
