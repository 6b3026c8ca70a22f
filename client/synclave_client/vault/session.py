"""One site's side of the protocol: every request is answered with a reply that the policy and the journal allow.

Nothing here trains, reads files or listens; the data sit behind :class:`Workload`, the socket in
:mod:`synclave_client.vault.service`. The order of steps in :meth:`Vault._round` is the promise of this project:
check, reserve, compute, store, and only then reply.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import AcceptedPlan, Journal
from synclave_client.vault.keyring import Keyring, registration_by
from synclave_client.vault.ledger_copies import SeenLedger
from synclave_client.vault.ledger_witness import LedgerWitness
from synclave_client.vault.policy import check_delta, check_held_out, check_round_budget, check_signer, decide
from synclave_client.vault.signed_entries import EntrySigner
from synclave_shared.canonical import FrozenModel, sha256_hex
from synclave_shared.errors import (
    ClippingError,
    NotConforming,
    PlanError,
    PolicyRefusal,
    SynclaveError,
)
from synclave_shared.ledger.checkpoint import parse_note
from synclave_shared.ledger.entry import (
    BudgetChanged,
    PlanAccepted,
    PlanRefused,
    SpendReserved,
    UpdateReleased,
    parse_entry,
    sign_entry,
)
from synclave_shared.ledger.keys import SIGNATURE_BYTES, SigningKey, decode_base64, verify_signature
from synclave_shared.plan import TrainPlan, signed_plan_bytes
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from synclave_shared.protocol import (
    NOT_READY,
    CloseRequest,
    Envelope,
    HelloRequest,
    ProposeRequest,
    Reply,
    RoundRequest,
    WitnessRequest,
    encode_update,
    failed,
    parse_reply,
    parse_request,
)

__all__ = ["MAX_REPLY_ENTRIES", "Vault", "Workload"]

MAX_REPLY_ENTRIES: Final = 64
"""Entries in one reply, as the protocol bounds them; the rest goes with the next. A site signs two per round."""

_VERSIONED: Final = ("synclave", "dp-accounting", "numpy", "opacus", "torch")
"""Packages whose versions an accepted plan records: those by which privacy stands or falls."""

_log = logging.getLogger("synclave.vault")


class Workload(Protocol):
    """The data and the model behind a vault, kept warm between rounds."""

    @property
    def schema_digest(self) -> str:
        """Digest of the installed schema."""
        ...

    @property
    def patient_ids(self) -> Sequence[str]:
        """Identifiers of the patients, as the data have them; for the journal's marks alone."""
        ...

    def check_model(self, plan: TrainPlan) -> None:
        """Raise ``ClippingError`` unless the plan's model can be clipped per patient here. Touches no data."""
        ...

    def check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        """Raise ``ProtocolError`` unless ``payload`` can be worked with. Looks at public values only."""
        ...

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        """Run the plan's mechanism for that round on the patients and return what may leave: fixed point, noised.

        Raises ``NotConforming`` if what was seen of it is not what the plan says.
        """
        ...


class Vault:
    """Answers the requests of one site.

    Args:
        settings: the site's settings.
        journal: its journal, opened for writing.
        key: its signing key when it registered; once that was replaced, the journal says which one counts.
        workload: data and training; None if they cannot be used, whatever the reason.
        training_lock: taken while patients' data are worked on; share it between the vaults of one process.
        clock: the present time; entries and cosignatures carry it in whole seconds.
    """

    def __init__(
        self,
        settings: SiteSettings,
        journal: Journal,
        key: SigningKey,
        workload: Workload | None,
        *,
        training_lock: threading.Lock,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._keys = Keyring(settings, journal, key)
        self._witness = LedgerWitness(settings, journal, self._keys, self._now)
        self._workload = workload
        self._training_lock = training_lock
        self._clock = clock
        # A vault answers one request after another: two rounds of one site at a time would race for its budget.
        self._lock = threading.Lock()

    def handle(self, request: Envelope) -> Envelope:
        """Answer a request. Never raises: an error becomes its closed code, and its text goes to the local log only."""
        try:
            message = parse_request(request)
            if isinstance(message, HelloRequest):
                # Not behind the lock: a coordinator that came back asks who is there while a training goes on.
                return self._hello(message)
            with self._lock:
                return self._answer(message, request.payload)
        except SynclaveError as error:
            _log.error("%s: %s\n%s", self._settings.name, error.code, error, exc_info=True)
            return failed(error.code)
        except Exception:  # noqa: BLE001 - whatever it is, its text may hold patients' data and must not travel
            _log.exception("%s: unexpected error", self._settings.name)
            return failed("internal")

    def _answer(
        self, message: ProposeRequest | RoundRequest | WitnessRequest | CloseRequest, payload: bytes
    ) -> Envelope:
        match message:
            case ProposeRequest():
                return self._propose(message)
            case RoundRequest():
                return self._round(message, payload)
            case WitnessRequest():
                return self._see(message)
            case CloseRequest():
                return self._close(message)

    def _hello(self, request: HelloRequest) -> Envelope:
        digest = request.plan_digest
        if self._workload is None:
            # With the site's name: the coordinator may say who cannot take part, though not why.
            return Envelope.of(self._reply(digest, status="failed", code=NOT_READY, entries=()))
        return Envelope.of(self._reply(digest, entries=(self._registration(digest).decode(),)))

    def _registration(self, digest: str) -> bytes:
        """This site's first entry in a plan's ledger; its very first one is made when it is first asked for."""
        self._keys.current()  # Whoever has the journal without its key signs nothing.
        return self._journal.signed.registration(
            digest, registration_by(self._settings.name, self._keys.current, self._now)
        )

    def _registered_key(self, digest: str) -> str:
        return parse_entry(self._registration(digest)).key

    def _propose(self, request: ProposeRequest) -> Envelope:
        if self._workload is None:
            return failed(NOT_READY)
        content = request.plan.encode()
        plan = TrainPlan.from_bytes(content)
        digest = plan.digest
        self._registration(digest)
        self._journal.data_sets.check(self._settings.dataset, self._settings.data_folder)
        try:
            check_signer(plan, self._settings, signature_valid=self._is_signed(content, request.signature))
            # Proposing again is how a coordinator asks for an answer that was lost: its ledger cannot hold that answer.
            seen = self._witness.see(
                digest, request.checkpoint, plan, demanded=lambda entry: entry.sent and not entry.of_plan
            )
            known = self._journal.plan(digest)
            if known is not None and known.closed:
                raise PolicyRefusal("plan-not-accepted", found="a plan that is closed", remedy="Sign a new plan.")
            if known is None:
                self._check_pause()
                verdict = decide(
                    plan,
                    self._settings,
                    schema_digest=self._workload.schema_digest,
                    public_key=self._registered_key(digest),
                    committed=self._journal.committed(self._settings.dataset),
                    uses=self._journal.uses(self._settings.dataset),
                )
                self._check_model(self._workload, plan)
                acceptance = PlanAccepted(
                    plan_digest=digest,
                    dataset=self._settings.dataset,
                    budget=self._settings.budget,
                    planned=tuple(plan.mechanisms()),
                    versions=_versions(),
                )
                self._journal.accept(
                    plan,
                    signature=request.signature,
                    dataset=self._settings.dataset,
                    folder=self._settings.data_folder,
                    patients=self._journal.data_sets.marks(self._settings.marks_file, self._workload.patient_ids),
                    budget=self._settings.budget,
                    entry=self._sign("plan-accepted", digest, acceptance),
                )
                _log.info(
                    "%s: accepted plan %s (%s): epsilon %.4g now, at most %.4g after it, %s allowed",
                    self._settings.name,
                    plan.name,
                    digest[:16],
                    verdict.spent_epsilon,
                    verdict.after_epsilon,
                    self._settings.budget.epsilon,
                )
        except PolicyRefusal as refusal:
            return self._refuse(digest, refusal, as_entry=self._journal.plan(digest) is None)
        return Envelope.of(self._reply(digest, seen=seen, entries=self._send_open(digest)))

    def _round(self, request: RoundRequest, payload: bytes) -> Envelope:
        digest, number = request.plan_digest, request.round
        try:
            # A stored release is sent again as it is, into a ledger that is the one seen before: its noise is drawn and
            # its spend made, whatever came between.
            replayed = self._replay(request)
            if replayed is not None:
                return replayed
            if self._workload is None:
                return failed(NOT_READY)
            accepted = self._journal.plan(digest)
            if accepted is None or accepted.closed or accepted.dataset != self._settings.dataset:
                raise PolicyRefusal(
                    "plan-not-accepted", found=f"a round of plan {digest[:16]}", remedy="Propose the plan first."
                )
            self._journal.data_sets.check(self._settings.dataset, self._settings.data_folder)
            self._check_pause()
            seen = self._witness.see(digest, request.checkpoint, accepted.plan)
            mechanism = _mechanism(accepted.plan, number)
            self._workload.check_payload(accepted.plan, number, payload)
            accepted = self._state_budget(accepted)
            # Always: since the plan was accepted, the budget may have been lowered or spent under other plans.
            if not self._journal.is_reserved(digest, number):
                # Nor need the patients still be held out.
                check_held_out(accepted.plan, self._settings, uses=self._journal.uses(accepted.dataset))
                check_round_budget(self._settings, mechanism, spent=self._journal.spent(accepted.dataset))
            spend = SpendReserved(
                plan_digest=digest,
                dataset=accepted.dataset,
                round=number,
                mechanism=mechanism,
                delta=accepted.budget.delta,
            )
            self._journal.reserve(
                digest,
                number,
                mechanism,
                request_digest=request.payload_digest,
                entry=self._sign("spend-reserved", digest, spend),
            )
        except PolicyRefusal as refusal:
            return self._refuse(digest, refusal, round_number=number)
        try:
            with self._training_lock:
                released = encode_update(self._workload.release(accepted.plan, number, payload))
        except NotConforming as refusal:
            # Of a mechanism that does what its plan says this is a false alarm, one in a million.
            return self._refuse(digest, refusal, round_number=number)
        except Exception:  # noqa: BLE001 - what failed may hang on a patient: its class must not travel either
            _log.exception("%s: round %d of plan %s was not released", self._settings.name, number, digest[:16])
            return failed("internal")
        update_digest = sha256_hex(released)
        body = UpdateReleased(plan_digest=digest, round=number, update_digest=update_digest)
        open_entries = self._journal.signed.open(digest)[: MAX_REPLY_ENTRIES - 1]
        earlier = tuple(entry.content.decode() for entry in open_entries)

        def header(entry: bytes) -> bytes:
            reply = self._reply(digest, seen=seen, entries=(*earlier, entry.decode()), payload_digest=update_digest)
            return Envelope.of(reply, released).header

        stored = self._journal.release(
            digest,
            number,
            payload=released,
            entry=self._sign("update-released", digest, body),
            header=header,
            sent=[entry.number for entry in open_entries],
        )
        _log.info("%s: round %d of plan %s released", self._settings.name, number, digest[:16])
        return Envelope(header=stored, payload=released)

    def _state_budget(self, accepted: AcceptedPlan) -> AcceptedPlan:
        """Tell the plan's ledger the budget of today, if the steward changed it since: each spend stands under its own.

        Raises:
            PolicyRefusal: ``delta-above-plan``.
        """
        plan, budget = accepted.plan, self._settings.budget
        if budget == accepted.budget:
            return accepted
        check_delta(plan, self._settings)
        change = BudgetChanged(plan_digest=plan.digest, dataset=accepted.dataset, budget=budget)
        self._journal.state_budget(plan.digest, budget, self._sign("budget-changed", plan.digest, change))
        _log.info("%s: plan %s is told the budget %s", self._settings.name, plan.digest[:16], budget.epsilon)
        return replace(accepted, budget=budget)

    def _replay(self, request: RoundRequest) -> Envelope | None:
        stored = self._journal.stored_release(request.plan_digest, request.round)
        if stored is None:
            return None
        if stored.request_digest != request.payload_digest or stored.payload is None:
            raise PolicyRefusal(
                "round-out-of-order",
                found=f"round {request.round} again, {'another model' if stored.payload else 'long after its release'}",
                remedy="A round is released once; go on with the next one.",
            )
        envelope = Envelope(header=stored.header, payload=stored.payload)
        accepted = self._journal.plan(request.plan_digest)
        # Asking again is how a coordinator gets a reply that was lost: its ledger cannot hold what came with that.
        carried = {text.encode() for text in parse_reply(envelope).entries}
        self._witness.see(
            request.plan_digest,
            request.checkpoint,
            None if accepted is None else accepted.plan,
            demanded=lambda entry: entry.sent and entry.content not in carried,
        )
        return envelope

    def _close(self, request: CloseRequest) -> Envelope:
        digest = request.plan_digest
        try:
            accepted = self._journal.plan(digest)
            if accepted is None:
                raise PolicyRefusal(
                    "plan-not-accepted", found=f"the end of plan {digest[:16]}", remedy="Nothing to do."
                )
            seen = self._witness.see(digest, request.checkpoint, accepted.plan)
        except PolicyRefusal as refusal:
            return self._refuse(digest, refusal)
        self._journal.close_plan(digest)
        self._keys.retire()
        return Envelope.of(self._reply(digest, seen=seen, entries=self._send_open(digest)))

    def _see(self, request: WitnessRequest) -> Envelope:
        """Copy a part of a ledger that is too long for one presentation. What was seen before is only answered."""
        digest = request.plan_digest
        seen = self._journal.ledgers.seen(digest)
        if seen is None or parse_note(request.checkpoint.note).checkpoint.size > seen.size:
            try:
                accepted = self._journal.plan(digest)
                plan = None if accepted is None else accepted.plan
                # At this size the ledger need not hold what this site sent last.
                seen = self._witness.see(digest, request.checkpoint, plan, demanded=lambda _: False)
            except PolicyRefusal as refusal:
                return self._refuse(digest, refusal)
        return Envelope.of(self._reply(digest, seen=seen, entries=()))

    def _refuse(
        self, digest: str, refusal: PolicyRefusal, *, round_number: int | None = None, as_entry: bool = False
    ) -> Envelope:
        """Answer with the code, and with every entry the ledger lacks: a coordinator that lost a reply can go on."""
        _log.warning("%s: refused (%s): %s. %s", self._settings.name, refusal.refusal, refusal.found, refusal.remedy)
        body = PlanRefused(plan_digest=digest, refusal=refusal.refusal)
        self._journal.refuse(
            digest,
            refusal.refusal,
            round_number=round_number,
            entry=self._sign("plan-refused", digest, body) if as_entry else None,
        )
        return Envelope.of(
            self._reply(
                digest,
                status="refused",
                code=refusal.refusal,
                seen=self._journal.ledgers.seen(digest),
                entries=self._send_open(digest),
            )
        )

    def _send_open(self, digest: str) -> tuple[str, ...]:
        entries = self._journal.signed.open(digest)[:MAX_REPLY_ENTRIES]
        self._journal.signed.mark_sent([entry.number for entry in entries])
        return tuple(entry.content.decode() for entry in entries)

    def _reply(
        self,
        digest: str,
        *,
        entries: tuple[str, ...],
        status: str = "ok",
        code: str = "",
        seen: SeenLedger | None = None,
        payload_digest: str | None = None,
    ) -> Reply:
        fields = {} if payload_digest is None else {"payload_digest": payload_digest}
        return Reply.model_validate(
            {
                "status": status,
                "code": code,
                "site": self._settings.name,
                "public_key": self._registered_key(digest),
                "seen_size": 0 if seen is None else seen.size,
                "cosignature": "" if seen is None else seen.cosignature,
                "entries": entries,
                **fields,
            }
        )

    @staticmethod
    def _check_model(workload: Workload, plan: TrainPlan) -> None:
        try:
            workload.check_model(plan)
        except (ClippingError, PlanError) as error:
            raise PolicyRefusal("model-not-clippable", found=error.found, remedy=error.remedy) from error

    def _check_pause(self) -> None:
        if self._settings.pause_file.exists():
            raise PolicyRefusal("paused", found="a paused site", remedy="`synclave-site resume` takes part again.")

    def _is_signed(self, content: bytes, signature: str) -> bool:
        try:
            raw = decode_base64(signature, SIGNATURE_BYTES)
            return verify_signature(self._settings.coordinator_key, signed_plan_bytes(content), raw)
        except ValueError:
            return False

    def _sign(self, kind: str, digest: str, body: FrozenModel) -> EntrySigner:
        """Signs an entry once the journal says which one it follows."""

        def sign(previous: str) -> bytes:
            # Asked for only now, inside the journal's transaction: a rotation comes before it or after it.
            key = self._keys.current()
            entry = sign_entry(kind, self._settings.name, digest, body, key, self._now(), previous=previous)
            return entry.to_bytes()

        return sign

    def _now(self) -> datetime:
        return self._clock().replace(microsecond=0)


def _mechanism(plan: TrainPlan, number: int) -> PoissonGaussian | GaussianSum:
    try:
        return plan.mechanism(number)
    except PlanError as error:
        raise PolicyRefusal("round-out-of-order", found=error.found, remedy=error.remedy) from None


def _versions() -> dict[str, str]:
    found = {}
    for package in _VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
