"""The closed protocol between coordinator and vault: five requests, one reply each, every field bounded.

A message is an :class:`Envelope`: a JSON header of one of the types below and an optional binary payload (a flat
vector). The gateway and Flower carry envelopes without reading them; see docs/architecture.md for the sequence.

Payloads: a model or an anchor goes out as little-endian float32; an update or a sum over patients comes back as
little-endian int64 fixed point (:mod:`synclave_shared.fixed_point`). The header holds the payload's SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from synclave_shared.canonical import FrozenModel, canonical_bytes, sha256_hex
from synclave_shared.errors import ProtocolError
from synclave_shared.ledger.entry import MAX_ENTRY_BYTES
from synclave_shared.plan import Digest, Name, PublicKeyText, explain_validation

__all__ = [
    "EMPTY_DIGEST",
    "MAX_HEADER_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_SHOWN_BYTES",
    "MAX_SHOWN_ENTRIES",
    "NOT_READY",
    "VALUE_BYTES",
    "CheckpointPresentation",
    "CloseRequest",
    "Envelope",
    "HelloRequest",
    "ProposeRequest",
    "Reply",
    "Request",
    "RoundRequest",
    "WitnessRequest",
    "decode_model",
    "decode_update",
    "encode_model",
    "encode_update",
    "failed",
    "parse_reply",
    "parse_request",
]

MAX_HEADER_BYTES: Final = 4 * 2**20
"""A ledger entry has at most 65,535 bytes, which bounds a plan of 500 sites as well; 64 of them fit into a reply."""

MAX_PAYLOAD_BYTES: Final = 2**31 - 2**20
"""Below Flower's and gRPC's 2 GiB: 260 million int64 coordinates, twice the largest model of the project."""

MAX_SHOWN_BYTES: Final = 2**20
"""Bytes of the entries of one presentation. Quoting at most doubles them: with a plan beside them they fit a header."""

MAX_SHOWN_ENTRIES: Final = 2048
"""Entries of one presentation: a round of 500 sites has 1,002. To check that many takes a site under a second."""

NOT_READY: Final = "not-ready"
"""Code of a site whose data, schema or device cannot be used. One for all: which it is may hang on a single record."""

VALUE_BYTES: Final = 4
"""Bytes of a number of a model as it travels."""

EMPTY_DIGEST: Final = sha256_hex(b"")


class CheckpointPresentation(FrozenModel):
    """The ledger as the coordinator shows it to one site: what it gained since the site saw it last.

    Attributes:
        note: the signed checkpoint (C2SP signed note) of the size at which ``entries`` ends.
        previous_size: size of the ledger that the site saw last, as far as the coordinator knows; 0 if none.
        entries: the entries (canonical JSON) from ``previous_size`` on.
    """

    note: Annotated[str, Field(max_length=262_144)]
    previous_size: Annotated[int, Field(ge=0)]
    entries: Annotated[
        tuple[Annotated[str, Field(max_length=MAX_ENTRY_BYTES)], ...], Field(max_length=MAX_SHOWN_ENTRIES)
    ]

    @property
    def end(self) -> int:
        """Size of the ledger as it is shown."""
        return self.previous_size + len(self.entries)


class HelloRequest(FrozenModel):
    """Who are you in the ledger of a plan? Answered with the site's signed ``key-registered`` entry.

    Attributes:
        plan_digest: the plan; empty to ask for the key under which the site accepts new plans.
    """

    kind: Literal["hello"] = "hello"
    plan_digest: Digest | Literal[""] = ""


class ProposeRequest(FrozenModel):
    """Will you take part? Answered with a signed ``plan-accepted`` or ``plan-refused`` entry.

    Attributes:
        plan: canonical JSON of the plan.
        signature: Ed25519 over that JSON by the coordinator, base64.
    """

    kind: Literal["propose"] = "propose"
    plan: Annotated[str, Field(max_length=MAX_HEADER_BYTES)]
    signature: Annotated[str, Field(max_length=128)]
    checkpoint: CheckpointPresentation


class RoundRequest(FrozenModel):
    """Train a round (payload: the global model), or release a sum over patients (payload: what it is taken about).

    Nothing here can change the noise, the clip norm or the selection rate: they are those of the accepted plan.
    """

    kind: Literal["round"] = "round"
    plan_digest: Digest
    round: Annotated[int, Field(ge=0, le=10_000)]
    payload_digest: Digest
    checkpoint: CheckpointPresentation


class WitnessRequest(FrozenModel):
    """See more of the ledger. Comes before a request whose presentation could not hold everything that is new."""

    kind: Literal["witness"] = "witness"
    plan_digest: Digest
    checkpoint: CheckpointPresentation


class CloseRequest(FrozenModel):
    """The training is over: see the final ledger, keep and co-sign it."""

    kind: Literal["close"] = "close"
    plan_digest: Digest
    checkpoint: CheckpointPresentation


Request = HelloRequest | ProposeRequest | RoundRequest | WitnessRequest | CloseRequest
_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])


class Reply(FrozenModel):
    """What a vault answers.

    Attributes:
        status: ``ok``; ``refused`` by policy; ``failed`` for everything else that went wrong at the site.
        code: with ``refused`` one of :data:`synclave_shared.errors.REFUSAL_CODES`; with ``failed`` the closed code of
            the error's class, or :data:`NOT_READY`; once patients are computed with, ``internal`` whatever it is.
            Never a text computed at the site.
        site: the site's name.
        public_key: the key that the site registered in the plan's ledger; one that replaced it stands there.
        seen_size: size of the newest ledger checkpoint that the site has verified.
        cosignature: the site's witness line for that checkpoint, or empty.
        entries: signed ledger entries (canonical JSON) that the coordinator must append.
        payload_digest: SHA-256 of the payload that follows.
    """

    status: Literal["ok", "refused", "failed"]
    code: Annotated[str, Field(pattern=r"^[a-z-]{0,40}$")] = ""
    site: Name | None = None
    public_key: PublicKeyText | None = None
    seen_size: Annotated[int, Field(ge=0)] = 0
    cosignature: Annotated[str, Field(max_length=4096)] = ""
    entries: Annotated[tuple[Annotated[str, Field(max_length=MAX_HEADER_BYTES)], ...], Field(max_length=64)] = ()
    payload_digest: Digest = EMPTY_DIGEST


@dataclass(frozen=True, slots=True)
class Envelope:
    """A header (canonical JSON) and its payload, as they travel."""

    header: bytes
    payload: bytes = b""

    @classmethod
    def of(cls, message: Request | Reply, payload: bytes = b"") -> Envelope:
        """Wrap a message; the payload must be the one whose digest the message states."""
        return cls(header=canonical_bytes(message), payload=payload)


def failed(code: str) -> Envelope:
    """The reply to send when anything went wrong: a closed code and nothing else."""
    return Envelope.of(Reply(status="failed", code=code))


def _check(envelope: Envelope) -> None:
    if len(envelope.header) > MAX_HEADER_BYTES or len(envelope.payload) > MAX_PAYLOAD_BYTES:
        raise ProtocolError(
            expected=f"at most {MAX_HEADER_BYTES} header and {MAX_PAYLOAD_BYTES} payload bytes",
            found=f"{len(envelope.header)} and {len(envelope.payload)}",
            remedy="The message was dropped.",
        )


def _check_payload(message: Any, envelope: Envelope) -> None:
    if sha256_hex(envelope.payload) != getattr(message, "payload_digest", EMPTY_DIGEST):
        raise ProtocolError(
            expected="a payload with the digest that the header states",
            found=f"{len(envelope.payload)} bytes with another digest",
            remedy="The message was dropped; send it again.",
        )


def parse_request(envelope: Envelope) -> Request:
    """Validate what a coordinator sent.

    Raises:
        ProtocolError: if it is oversized, malformed, of an unknown kind, or its payload does not match.
    """
    _check(envelope)
    try:
        message = _REQUEST.validate_json(envelope.header)
    except ValidationError as error:
        raise ProtocolError(
            expected="a hello, propose, round, witness or close request",
            found=explain_validation(error),
            remedy="The message was dropped.",
        ) from None
    _check_payload(message, envelope)
    return message


def parse_reply(envelope: Envelope) -> Reply:
    """Validate what a site sent.

    Raises:
        ProtocolError: if it is oversized, malformed, or its payload does not match.
    """
    _check(envelope)
    try:
        message = Reply.model_validate_json(envelope.header)
    except ValidationError as error:
        raise ProtocolError(
            expected="a reply", found=explain_validation(error), remedy="The reply was dropped."
        ) from None
    _check_payload(message, envelope)
    return message


def encode_model(values: NDArray[np.float32]) -> bytes:
    """A flat model vector as it travels to the sites."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def decode_model(payload: bytes, size: int) -> NDArray[np.float32]:
    """Read a model vector of ``size`` coordinates.

    Raises:
        ProtocolError: if the size differs or a value is not finite.
    """
    if len(payload) != VALUE_BYTES * size:
        raise ProtocolError(
            expected=f"a model of {size} coordinates ({VALUE_BYTES * size} bytes)",
            found=f"{len(payload)} bytes",
            remedy="Check that coordinator and site run the same version of Synclave.",
        )
    values = np.frombuffer(payload, dtype="<f4").astype(np.float32)
    if not np.all(np.isfinite(values)):
        raise ProtocolError(expected="finite model values", found="NaN or infinity", remedy="The model was dropped.")
    return values


def encode_update(values: NDArray[np.int64]) -> bytes:
    """A fixed-point vector as it travels to the coordinator."""
    return np.ascontiguousarray(values, dtype="<i8").tobytes()


def decode_update(payload: bytes, size: int) -> NDArray[np.int64]:
    """Read a fixed-point vector of ``size`` coordinates.

    Raises:
        ProtocolError: if the size differs.
    """
    if len(payload) != 8 * size:
        raise ProtocolError(
            expected=f"an update of {size} coordinates ({8 * size} bytes)",
            found=f"{len(payload)} bytes",
            remedy="The reply was dropped; check that the site runs the same version of Synclave.",
        )
    return np.frombuffer(payload, dtype="<i8").astype(np.int64)
