"""The model of time series: what is public of them, and the networks that denoise them."""
