"""Networks, and how they become flat vectors; the anchor that noisy marginals give them."""
