"""Drawing synthetic patients from a trained model."""
