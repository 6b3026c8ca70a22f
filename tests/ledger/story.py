"""A small training as the ledger tells it: one coordinator, two sites, marginals and two rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from synclave_shared.canonical import FrozenModel, sha256_hex
from synclave_shared.ledger.entry import (
    COORDINATOR,
    Aggregate,
    BudgetChanged,
    KeyRegistered,
    KeyRotated,
    PlanAccepted,
    PlanProposed,
    RunClosed,
    SamplesReleased,
    SignedEntry,
    SnapshotWritten,
    SpendReserved,
    UpdateReleased,
    sign_entry,
)
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.store import Ledger
from synclave_shared.ledger.witness import cosign
from synclave_shared.plan import Federation, Marginals, Privacy, SiteEntry, TrainPlan, signed_plan_bytes
from synclave_shared.privacy.budget import Budget

START = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
SITES = ("berlin", "oslo")
DATASET = "admissions"


def key_of(name: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(name.encode()).digest())


def make_plan(rounds: int = 2, name: str = "demo", noise: str = "1.1", minimum_sites: int = 2) -> TrainPlan:
    return TrainPlan(
        name=name,
        coordinator_key=key_of(COORDINATOR).public_text,
        schema_name="diabetes",
        schema_digest=sha256_hex(b"schema"),
        privacy=Privacy(
            noise_multiplier=Decimal(noise),
            selection_rate=Decimal("0.02"),
            marginals=Marginals(noise_multiplier=Decimal(10)),
        ),
        federation=Federation(rounds=rounds, steps_per_round=5, minimum_sites=minimum_sites),
        sites=tuple(SiteEntry(name=site, public_key=key_of(site).public_text, nominal_patients=2000) for site in SITES),
    )


class Story:
    """Signs entries, one after another, an hour apart."""

    def __init__(self, plan: TrainPlan | None = None, epsilon: str = "3") -> None:
        self.plan = plan or make_plan()
        self.budget = Budget(epsilon=Decimal(epsilon), delta=Decimal("0.00001"))
        self.entries: list[SignedEntry] = []
        self.keys: dict[str, SigningKey] = {}

    def tell(
        self,
        kind: str,
        actor: str,
        body: FrozenModel,
        *,
        run: str | None = None,
        key: SigningKey | None = None,
        previous: str | None = None,
    ) -> SignedEntry:
        time = START + timedelta(hours=len(self.entries))
        run = self.plan.digest if run is None else run
        if previous is None:
            previous = next((entry.leaf for entry in reversed(self.entries) if entry.actor == actor), "")
        entry = sign_entry(
            kind, actor, run, body, key or self.keys.get(actor) or key_of(actor), time, previous=previous
        )
        self.entries.append(entry)
        return entry

    def register(self, name: str, role: str, not_after: str = "") -> SignedEntry:
        body = KeyRegistered(name=name, role=role, public_key=key_of(name).public_text, not_after=not_after)
        return self.tell("key-registered", name, body, run="")

    def propose(self) -> SignedEntry:
        plan = self.plan
        signature = key_of(COORDINATOR).sign_text(signed_plan_bytes(plan.to_bytes()))
        body = PlanProposed(plan=plan.model_dump(mode="json"), plan_digest=plan.digest, signature=signature)
        return self.tell("plan-proposed", COORDINATOR, body)

    def accept(self, site: str) -> SignedEntry:
        body = PlanAccepted(
            plan_digest=self.plan.digest,
            dataset=DATASET,
            budget=self.budget,
            planned=tuple(self.plan.mechanisms()),
            versions={"synclave": "0.1.0"},
        )
        return self.tell("plan-accepted", site, body)

    def reserve(self, site: str, number: int, **changes: object) -> SignedEntry:
        body = SpendReserved(
            plan_digest=self.plan.digest,
            dataset=DATASET,
            round=number,
            mechanism=self.plan.mechanism(min(number, self.plan.federation.rounds)),
            delta=self.budget.delta,
        )
        return self.tell("spend-reserved", site, body.model_copy(update=changes))

    def release(self, site: str, number: int, content: bytes = b"update") -> SignedEntry:
        body = UpdateReleased(plan_digest=self.plan.digest, round=number, update_digest=sha256_hex(content))
        return self.tell("update-released", site, body)

    def aggregate(self, number: int, sites: Sequence[str] = SITES) -> SignedEntry:
        digest = self.plan.digest
        body = Aggregate(plan_digest=digest, round=number, sites=tuple(sites), aggregate_digest=sha256_hex(b"sum"))
        return self.tell("aggregate", COORDINATOR, body)

    def snapshot(self, number: int) -> SignedEntry:
        body = SnapshotWritten(plan_digest=self.plan.digest, round=number, snapshot_digest=sha256_hex(b"model"))
        return self.tell("snapshot", COORDINATOR, body)

    def introduce(self, count: int) -> Story:
        """The coordinator says its key again, ``count`` times: entries that change nothing."""
        for _ in range(count):
            self.register(COORDINATOR, "coordinator")
        return self

    def change_budget(self, site: str, epsilon: str, delta: str = "0.00001", dataset: str = DATASET) -> SignedEntry:
        self.budget = Budget(epsilon=Decimal(epsilon), delta=Decimal(delta))
        body = BudgetChanged(plan_digest=self.plan.digest, dataset=dataset, budget=self.budget)
        return self.tell("budget-changed", site, body)

    def sample(self, model: bytes = b"model") -> SignedEntry:
        body = SamplesReleased(
            plan_digest=self.plan.digest,
            snapshot_digest=sha256_hex(model),
            request_digest=sha256_hex(b"request"),
            cohort_digest=sha256_hex(b"cohort"),
            patients=1000,
        )
        return self.tell("samples-released", COORDINATOR, body)

    def rotate(self, name: str, new: SigningKey, not_after: str = "") -> SignedEntry:
        """The name signs with ``new`` from here on."""
        body = KeyRotated(name=name, public_key=new.public_text, not_after=not_after)
        entry = self.tell("key-rotated", name, body, run="")
        self.keys[name] = new
        return entry

    def close(self, rounds: int) -> SignedEntry:
        return self.tell("run-closed", COORDINATOR, RunClosed(plan_digest=self.plan.digest, rounds=rounds))

    def opening(self) -> Story:
        self.register(COORDINATOR, "coordinator")
        self.propose()
        for site in SITES:
            self.register(site, "site")
            self.accept(site)
        return self

    def round(self, number: int) -> None:
        for site in SITES:
            self.reserve(site, number)
            self.release(site, number)
        self.aggregate(number)
        self.snapshot(number)

    def whole(self) -> Story:
        self.opening()
        for number in range(self.plan.federation.rounds + 1):
            self.round(number)
        self.close(self.plan.federation.rounds)
        return self

    @property
    def origin(self) -> str:
        return f"synclave/{self.plan.digest[:16]}"

    def write(self, folder: Path, *, witnessed: bool = True, in_steps: int = 0) -> Ledger:
        """Write the entries to a ledger, all at once or ``in_steps`` at a time; both sites co-sign the end."""
        ledger = Ledger.create(folder, self.origin, key_of(COORDINATOR))
        data = [entry.to_bytes() for entry in self.entries]
        step = in_steps or len(data)
        for start in range(0, len(data), step):
            ledger.append(data[start : start + step])
        for site in SITES if witnessed else ():
            ledger.add_cosignature(ledger.size, site, cosign(ledger.checkpoint(), site, key_of(site), START))
        return ledger


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Path -> content of every file below a folder: what must not change in a refusal."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
