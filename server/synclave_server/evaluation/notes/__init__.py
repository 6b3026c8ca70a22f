"""How well synthetic notes protect patients and keep the medicine."""
