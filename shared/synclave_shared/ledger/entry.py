"""Entries of the ledger: who did what, signed by who did it.

An entry is one canonical JSON object (RFC 8785, no floats). Its signature is Ed25519 over the line
``synclave-entry/v1`` followed by the same object without its ``signature`` field; the prefix keeps a signature on an
entry from being one on a checkpoint or a plan. The ledger is public: nothing in an entry is computed from patients,
except digests of values that were noised before they were hashed.

Each entry names the one before it of the same actor (``previous``), so what an actor did is a chain of hashes: its
newest signature vouches for everything before, and an entry that was left out, moved or told twice breaks the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from synclave_shared.canonical import FrozenModel, canonical_bytes
from synclave_shared.errors import REFUSAL_CODES, LedgerError
from synclave_shared.ledger.keys import TIME_FORMAT, SigningKey, verify_signature
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.plan import Digest, Name, PublicKeyText, explain_validation
from synclave_shared.privacy.accountant import merge_equal
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import Delta, GaussianSum, Mechanism, PoissonGaussian

__all__ = [
    "BODIES",
    "COORDINATOR",
    "MAX_ENTRY_BYTES",
    "Aggregate",
    "BudgetChanged",
    "KeyRegistered",
    "KeyRotated",
    "PlanAccepted",
    "PlanProposed",
    "PlanRefused",
    "RunClosed",
    "SamplesReleased",
    "SignedEntry",
    "SnapshotWritten",
    "SpendReserved",
    "UpdateReleased",
    "parse_entry",
    "sign_entry",
]

COORDINATOR: Final = "coordinator"
"""The actor's name under which a coordinator signs."""

MAX_ENTRY_BYTES: Final = 65_535
"""Entry bundles carry 16-bit lengths (C2SP tlog-tiles); a plan with about 500 sites still fits."""

_DOMAIN: Final = b"synclave-entry/v1\n"

_SIGNATURE_STOP: Final = len(',"time":"2026-11-21T08:00:00Z","version":1}')
_SIGNATURE_START: Final = _SIGNATURE_STOP + len(',"signature":""') + 88


def _existing_time(value: str) -> str:
    datetime.strptime(value, TIME_FORMAT)
    return value


SignatureText = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]
LeafText = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
TimeText = Annotated[
    str,
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
    AfterValidator(_existing_time),
]
DatasetName = Annotated[str, Field(min_length=1, max_length=200)]
RoundNumber = Annotated[int, Field(ge=0, le=10_000)]


class KeyRegistered(FrozenModel):
    """A key introduces itself; it signs its own registration. What it is trusted for, the signed plan says.

    Attributes:
        name: whose key it is.
        role: what it signs for.
        public_key: the key.
        not_after: the last moment at which it may sign, in the form of an entry's time; empty if it has no end.
    """

    name: Name
    role: Literal["coordinator", "site"]
    public_key: PublicKeyText
    not_after: TimeText | Literal[""] = ""


class KeyRotated(FrozenModel):
    """A site's key hands over to a new one, which counts from then on. Signed by the old key.

    Attributes:
        name: whose key it is.
        public_key: the new key.
        not_after: the last moment at which the new key may sign; empty if it has no end.
    """

    name: Name
    public_key: PublicKeyText
    not_after: TimeText | Literal[""] = ""


class PlanProposed(FrozenModel):
    """The coordinator puts a plan before the sites.

    Attributes:
        plan: the plan, as the JSON object whose canonical form was signed.
        plan_digest: SHA-256 of that canonical form.
        signature: the coordinator's Ed25519 signature over it, base64.
    """

    plan: dict[str, Any]
    plan_digest: Digest
    signature: SignatureText


class PlanAccepted(FrozenModel):
    """A site agrees to a plan.

    Attributes:
        plan_digest: which plan.
        dataset: the site's name for the data set whose budget is charged.
        budget: the site's cumulative budget for that data set, over all plans.
        planned: everything the plan will do to the data; neighbours that differ only in ``steps`` are written as one.
        versions: versions of the software with which the site will do it.
    """

    plan_digest: Digest
    dataset: DatasetName
    budget: Budget
    planned: tuple[Mechanism, ...]
    versions: dict[str, str]

    @field_validator("planned")
    @classmethod
    def _merged(cls, value: tuple[PoissonGaussian | GaussianSum, ...]) -> tuple[PoissonGaussian | GaussianSum, ...]:
        # One form, and a plan of thousands of rounds stays a short entry.
        return tuple(merge_equal(value))


class PlanRefused(FrozenModel):
    """A site declines a plan, with a code of the closed vocabulary and nothing else."""

    plan_digest: Digest
    refusal: str

    @field_validator("refusal")
    @classmethod
    def _closed(cls, value: str) -> str:
        if value not in REFUSAL_CODES:
            raise ValueError("not a refusal code")
        return value


class BudgetChanged(FrozenModel):
    """A site's steward changed the budget of the data set; it holds for everything the site spends from here on."""

    plan_digest: Digest
    dataset: DatasetName
    budget: Budget


class SpendReserved(FrozenModel):
    """A site charges its budget, before any gradient exists. Counts as spent whatever happens afterwards.

    Attributes:
        plan_digest: for which plan.
        dataset: which data set is charged.
        round: for which round.
        mechanism: what will be done in it.
        delta: the delta of the site's budget.
    """

    plan_digest: Digest
    dataset: DatasetName
    round: RoundNumber
    mechanism: Mechanism
    delta: Delta


class UpdateReleased(FrozenModel):
    """A site let a privatised update leave; ``update_digest`` is the SHA-256 of its fixed-point bytes."""

    plan_digest: Digest
    round: RoundNumber
    update_digest: Digest


class Aggregate(FrozenModel):
    """The coordinator combined the updates of ``sites``; ``aggregate_digest`` is the SHA-256 of the result."""

    plan_digest: Digest
    round: RoundNumber
    sites: tuple[Name, ...]
    aggregate_digest: Digest


class SnapshotWritten(FrozenModel):
    """The coordinator stored the model after a round; ``snapshot_digest`` is the SHA-256 of its tensors file."""

    plan_digest: Digest
    round: RoundNumber
    snapshot_digest: Digest


class SamplesReleased(FrozenModel):
    """The coordinator drew synthetic patients from a model of this ledger.

    Attributes:
        plan_digest: of the model's plan.
        snapshot_digest: which model, as its ``snapshot`` entry states it.
        request_digest: SHA-256 of the canonical JSON of what was asked for.
        cohort_digest: SHA-256 of the canonical JSON of the tables that came out, file by file.
        patients: how many synthetic patients.
    """

    plan_digest: Digest
    snapshot_digest: Digest
    request_digest: Digest
    cohort_digest: Digest
    patients: Annotated[int, Field(ge=0, le=1_000_000_000)]


class RunClosed(FrozenModel):
    """The training is over after ``rounds`` training rounds."""

    plan_digest: Digest
    rounds: RoundNumber


BODIES: Final[Mapping[str, type[FrozenModel]]] = {
    "key-registered": KeyRegistered,
    "key-rotated": KeyRotated,
    "plan-proposed": PlanProposed,
    "plan-accepted": PlanAccepted,
    "plan-refused": PlanRefused,
    "budget-changed": BudgetChanged,
    "spend-reserved": SpendReserved,
    "update-released": UpdateReleased,
    "aggregate": Aggregate,
    "snapshot": SnapshotWritten,
    "run-closed": RunClosed,
    "samples-released": SamplesReleased,
}
"""The closed list of kinds and the type of each kind's body."""


class SignedEntry(FrozenModel):
    """One entry.

    Attributes:
        version: of the format.
        kind: one of :data:`BODIES`.
        actor: name of the site, or the coordinator's.
        run: digest of the plan it belongs to; empty for registrations and rotations of keys, which belong to none.
        previous: leaf hash, hex, of the same actor's entry before it in this ledger; empty for the actor's first.
        time: UTC in whole seconds, as the actor's clock showed it; evidence of order is the index, not this.
        body: what happened; its type follows from ``kind``.
        key: the actor's public key.
        signature: by that key.
    """

    version: Literal[1] = 1
    kind: str
    actor: Name
    run: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    previous: LeafText
    time: TimeText
    body: SerializeAsAny[FrozenModel]
    key: PublicKeyText
    signature: SignatureText

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BODIES:
            raise ValueError(f"unknown kind, expected one of {', '.join(BODIES)}")
        return value

    @field_validator("body", mode="before")
    @classmethod
    def _typed(cls, value: Any, info: ValidationInfo) -> FrozenModel:
        expected = BODIES.get(info.data.get("kind", ""))
        if expected is None:
            raise ValueError("of an unknown kind")
        try:
            return expected.model_validate(value)
        except ValidationError as error:
            raise ValueError(explain_validation(error)) from None

    def to_bytes(self) -> bytes:
        """The canonical JSON that the ledger holds."""
        return canonical_bytes(self)

    @property
    def leaf(self) -> str:
        """The entry's leaf hash in the Merkle tree, hex."""
        return leaf_hash(self.to_bytes()).hex()

    def verify(self) -> bool:
        """Whether the signature is that of ``key``. Whose key it is, the ledger's registrations and the plan say."""
        return self.is_signed(self.to_bytes())

    def is_signed(self, content: bytes) -> bool:
        """:meth:`verify` for an entry whose canonical JSON is at hand."""
        # Only the time and the version come after the signature, and each of the three has one length.
        signed = content[:-_SIGNATURE_START] + content[-_SIGNATURE_STOP:]
        return verify_signature(self.key, _DOMAIN + signed, self.signature)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """See :func:`parse_entry`."""
        if len(data) > MAX_ENTRY_BYTES:
            raise _malformed(f"{len(data)} bytes")
        try:
            entry = cls.model_validate_json(data)
            canonical = entry.to_bytes()
        except ValidationError as error:
            raise _malformed(explain_validation(error)) from None
        except ValueError as error:
            raise _malformed(str(error)) from None
        if canonical != data:
            raise _malformed("the same entry in another form")
        return entry


def _malformed(found: str) -> LedgerError:
    return LedgerError(
        expected="a ledger entry in canonical JSON",
        found=found,
        remedy="The entry is not accepted; check that all parties run the same version of Synclave.",
    )


def _signed_bytes(fields: dict[str, Any]) -> bytes:
    return _DOMAIN + canonical_bytes({name: value for name, value in fields.items() if name != "signature"})


def sign_entry(
    kind: str,
    actor: str,
    run: str,
    body: FrozenModel,
    key: SigningKey,
    time: datetime | None = None,
    *,
    previous: str,
) -> SignedEntry:
    """Make a signed entry.

    Args:
        kind: one of :data:`BODIES`.
        actor: who signs; a site's name or :data:`COORDINATOR`.
        run: the plan's digest, or empty for a registration or rotation.
        body: of the type that belongs to the kind.
        key: the actor's key.
        time: timezone-aware, kept to whole seconds; now by default.
        previous: leaf hash (hex) of the actor's entry before this one in the same ledger, empty if there is none.

    Raises:
        LedgerError: if a field does not fit, the entry is larger than :data:`MAX_ENTRY_BYTES`, or the key has ended.
    """
    moment = (time or datetime.now(UTC)).astimezone(UTC).strftime(TIME_FORMAT)
    if key.not_after and moment > key.not_after:
        raise LedgerError(
            expected=f"a key that may sign at {moment}",
            found=f"the key of {actor}, which ended {key.not_after}",
            remedy="Nothing is signed. A site: `synclave-site rotate-key`. A coordinator: make a new key, plan anew.",
        )
    fields: dict[str, Any] = {
        "version": 1,
        "kind": kind,
        "actor": actor,
        "run": run,
        "previous": previous,
        "time": moment,
        "body": body.model_dump(mode="json"),
        "key": key.public_text,
    }
    try:
        entry = SignedEntry.model_validate({**fields, "signature": key.sign_text(_signed_bytes(fields))})
    except ValidationError as error:
        raise _malformed(explain_validation(error)) from None
    size = len(entry.to_bytes())
    if size > MAX_ENTRY_BYTES:
        raise LedgerError(
            expected=f"a ledger entry of at most {MAX_ENTRY_BYTES} bytes",
            found=f"{size} bytes ({kind})",
            remedy="Split the roster into several plans.",
        )
    return entry


def parse_entry(data: bytes) -> SignedEntry:
    """Read an entry; only its canonical form is accepted. Does not check the signature (:meth:`SignedEntry.verify`).

    Raises:
        LedgerError: if it is malformed, oversized, of an unknown kind, or not in canonical form.
    """
    return SignedEntry.from_bytes(data)
