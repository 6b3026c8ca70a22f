"""MEDS, the Medical Event Data Standard: read a hospital's dataset, write synthetic patients (version 0.4)."""
