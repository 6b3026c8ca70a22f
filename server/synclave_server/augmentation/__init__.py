"""Real patients enlarged by synthetic ones, and what that is worth on held-out real patients."""
