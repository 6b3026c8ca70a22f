"""Clinical free text: which words identify a patient, which carry the medicine, and where they stand."""
