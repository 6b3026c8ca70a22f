"""Every error a user can meet, on one page.

::

    SynclaveError                what was expected, what was found, what to do
    ├── ConfigurationError       settings, plan or schema files that cannot be used
    │   ├── PlanError
    │   └── SchemaError
    ├── ClippingError            a network or loss whose gradients cannot be bounded per patient
    ├── DataError                patient data that does not fit its schema
    ├── SnapshotError            a stored model that is missing, damaged or of another plan
    ├── SamplingError            synthetic patients that could not be drawn to the end
    ├── LedgerError              a ledger that cannot be read, extended or trusted
    ├── JournalError             a site's journal that cannot be read or written
    ├── ProtocolError            a message that is malformed, oversized or out of order
    ├── FederationError          processes, ports and rounds that did not come about
    └── PolicyRefusal            the site said no; only its closed code leaves the site
        ├── BudgetExceeded
        └── NotConforming        a training did not do what its plan says

``code`` is the only part of an error that may cross from a site to the coordinator: it is a constant of the class or
one of :data:`REFUSAL_CODES`, never text that was computed from data.
"""

from __future__ import annotations

from typing import ClassVar, Final

__all__ = [
    "REFUSAL_CODES",
    "BudgetExceeded",
    "ClippingError",
    "ConfigurationError",
    "DataError",
    "FederationError",
    "JournalError",
    "LedgerError",
    "NotConforming",
    "PlanError",
    "PolicyRefusal",
    "ProtocolError",
    "SamplingError",
    "SchemaError",
    "SnapshotError",
    "SynclaveError",
]

REFUSAL_CODES: Final = {
    "budget-exceeded": "the plan would spend more than this site's privacy budget for the data set",
    "modality-not-allowed": "the site's policy does not allow this kind of data",
    "noise-below-floor": "the plan's noise multiplier is below the site's floor",
    "delta-above-plan": "the site states its budget at a larger delta than the plan states its epsilon",
    "trust-mode-not-allowed": "the site's policy does not allow this trust mode",
    "schema-mismatch": "the plan names another schema than the one installed at the site",
    "not-held-out": "the plan asks how well patients are predicted of whom models have learnt at this site",
    "model-not-clippable": "the site cannot bound this model's gradients per patient",
    "model-not-installed": "the plan names a model that sites install themselves, and the site has none or another one",
    "not-in-roster": "the plan does not name this site with this site's key",
    "coordinator-unknown": "the plan is not signed by the coordinator whose key the site pinned",
    "plan-not-accepted": "a round was requested for a plan that this site has not accepted",
    "round-out-of-order": "the requested round does not follow the last one this site took part in",
    "ledger-inconsistent": "the presented ledger does not extend the one this site saw before, or omits its entries",
    "not-conforming": "a training at the site did not do what the plan says, by the site's own measurement",
    "paused": "the data steward has paused this site",
}
"""Closed vocabulary of refusals: code -> what it means, the same text at site, coordinator and auditor."""


class SynclaveError(Exception):
    """An error that answers: what was expected, what was found, what to do.

    Args:
        expected: what would have been right.
        found: what is there instead. At a site this may contain local detail; it is never sent.
        remedy: what the person reading it should do next.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, *, expected: str, found: str, remedy: str) -> None:
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(f"expected {expected}; found {found}. {remedy}")


class ConfigurationError(SynclaveError):
    """Settings that cannot be used."""

    code = "configuration"


class PlanError(ConfigurationError):
    """A training plan that cannot be used."""

    code = "plan"


class SchemaError(ConfigurationError):
    """A schema file that cannot be used."""

    code = "schema"


class ClippingError(SynclaveError):
    """A network or loss whose gradients cannot be bounded per patient."""

    code = "clipping"


class DataError(SynclaveError):
    """Patient data that does not fit its schema."""

    code = "data"


class SnapshotError(SynclaveError):
    """A stored model that is missing, damaged or belongs to another plan."""

    code = "snapshot"


class SamplingError(SynclaveError):
    """Synthetic patients that could not be drawn to the end; finished parts are kept."""

    code = "sampling"


class LedgerError(SynclaveError):
    """A ledger that cannot be read, extended or trusted."""

    code = "ledger"


class JournalError(SynclaveError):
    """A site's journal that cannot be read or written."""

    code = "journal"


class ProtocolError(SynclaveError):
    """A message that is malformed, oversized or out of order."""

    code = "protocol"


class FederationError(SynclaveError):
    """Processes, ports or rounds that did not come about."""

    code = "federation"


class PolicyRefusal(SynclaveError):  # noqa: N818 - a refusal is a decision, not a defect
    """The site refuses. ``refusal`` is one of :data:`REFUSAL_CODES` and is all that leaves the site.

    Raises:
        ValueError: if ``refusal`` is not in the closed vocabulary (a programming error).
    """

    code = "refused"

    def __init__(self, refusal: str, *, found: str, remedy: str) -> None:
        if refusal not in REFUSAL_CODES:
            raise ValueError(f"unknown refusal code {refusal!r}")
        self.refusal = refusal
        super().__init__(expected=f"a plan this site may accept ({refusal})", found=found, remedy=remedy)


class BudgetExceeded(PolicyRefusal):
    """The cumulative composed spend would exceed the budget."""

    def __init__(self, *, found: str, remedy: str) -> None:
        super().__init__("budget-exceeded", found=found, remedy=remedy)


class NotConforming(PolicyRefusal):
    """Noise, clipping or selection of a training were not those of its plan; nothing of it was released."""

    def __init__(self, *, found: str, remedy: str) -> None:
        super().__init__("not-conforming", found=found, remedy=remedy)
