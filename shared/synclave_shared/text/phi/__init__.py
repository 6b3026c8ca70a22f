"""Detection of the 18 HIPAA identifiers in notes: patterns, lists, context, the patient's own record, a tagger."""

from synclave_shared.text.phi.detector import Detector, SpanTagger
from synclave_shared.text.phi.record import RecordIdentifiers
from synclave_shared.text.phi.rules import Rules, read_rules

__all__ = ["Detector", "RecordIdentifiers", "Rules", "SpanTagger", "read_rules"]
