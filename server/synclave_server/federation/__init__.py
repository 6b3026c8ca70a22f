"""How a run's processes come about: a real deployment, or Flower's simulation engine."""
