"""What stands in for a patient's identifiers in rewritten notes: typed, the same throughout, by a secret key."""

from synclave_shared.text.replacements.draws import KeyedDraws
from synclave_shared.text.replacements.patient import Replacements

__all__ = ["KeyedDraws", "Replacements"]
