"""What a hospital runs: the Flower gateway (no data) and the vault (data, journal, private training)."""
