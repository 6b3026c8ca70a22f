"""Models in folders, as the coordinator writes them and both sides read them."""
