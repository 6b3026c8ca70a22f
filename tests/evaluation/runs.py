"""A run folder with a real, signed ledger and no model: what evaluation reads of a training."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from synclave_shared.canonical import FrozenModel, canonical_bytes
from synclave_shared.ledger.entry import (
    KeyRegistered,
    PlanAccepted,
    PlanProposed,
    SignedEntry,
    SpendReserved,
    UpdateReleased,
    sign_entry,
)
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.store import Ledger
from synclave_shared.models.stored.snapshot import SnapshotRecord
from synclave_shared.plan import Federation, Marginals, Privacy, SiteEntry, TrainPlan, signed_plan_bytes
from synclave_shared.privacy.budget import Budget

COORDINATOR = SigningKey.from_seed(b"c" * 32)
DELTA = Decimal("0.00001")


def site_key(name: str) -> SigningKey:
    return SigningKey.from_seed(name.encode().ljust(32, b"."))


def make_plan(name: str, sites: tuple[str, ...], rounds: int) -> TrainPlan:
    return TrainPlan(
        name=name,
        coordinator_key=COORDINATOR.public_text,
        schema_name="toy",
        schema_digest="0" * 64,
        privacy=Privacy(
            delta=DELTA,
            noise_multiplier=Decimal("2"),
            selection_rate=Decimal("0.05"),
            marginals=Marginals(noise_multiplier=Decimal("8")),
        ),
        federation=Federation(rounds=rounds, steps_per_round=10),
        sites=tuple(
            SiteEntry(name=site, public_key=site_key(site).public_text, nominal_patients=100) for site in sites
        ),
    )


def write_run(folder: Path, plans: list[TrainPlan], rounds_of: Mapping[str, int], budget: str = "3") -> Path:
    """Every site takes part in ``rounds_of[site]`` rounds of each plan; the folder is that of the last plan."""
    plan = plans[-1]
    entries: list[SignedEntry] = []

    def add(kind: str, actor: str, run: str, body: FrozenModel) -> None:
        key = COORDINATOR if actor == "coordinator" else site_key(actor)
        previous = next((entry.leaf for entry in reversed(entries) if entry.actor == actor), "")
        entries.append(sign_entry(kind, actor, run, body, key, datetime(2026, 1, 1, tzinfo=UTC), previous=previous))

    add("key-registered", "coordinator", "", KeyRegistered(
        name="coordinator", role="coordinator", public_key=COORDINATOR.public_text
    ))  # fmt: skip
    for site in rounds_of:
        add("key-registered", site, "", KeyRegistered(
            name=site, role="site", public_key=site_key(site).public_text
        ))  # fmt: skip
    for each in plans:
        digest = each.digest
        add("plan-proposed", "coordinator", digest, PlanProposed(
            plan=each.model_dump(mode="json"), plan_digest=digest,
            signature=COORDINATOR.sign_text(signed_plan_bytes(each.to_bytes())),
        ))  # fmt: skip
        for site, rounds in rounds_of.items():
            add("plan-accepted", site, digest, PlanAccepted(
                plan_digest=digest, dataset="adults", budget=Budget(epsilon=Decimal(budget), delta=DELTA),
                planned=tuple(each.mechanisms()), versions={},
            ))  # fmt: skip
            for number in range(each.first_round(), each.first_round() + rounds):
                add("spend-reserved", site, digest, SpendReserved(
                    plan_digest=digest, dataset="adults", round=number, mechanism=each.mechanism(number), delta=DELTA
                ))  # fmt: skip
                add("update-released", site, digest, UpdateReleased(
                    plan_digest=digest, round=number, update_digest="1" * 64
                ))  # fmt: skip
    ledger = Ledger.create(folder / "ledger", f"synclave/{plan.digest[:16]}", COORDINATOR)
    ledger.append([entry.to_bytes() for entry in entries])
    (folder / "plan.json").write_bytes(plan.to_bytes())
    return folder


def write_snapshot_record(folder: Path, plan_digest: str) -> None:
    record = SnapshotRecord(
        plan_digest=plan_digest,
        schema_digest="0" * 64,
        round=3,
        tensors_digest="a" * 64,
        sites=("north",),
        aggregate_digest="b" * 64,
        ledger_index=1,
    )
    (folder / "snapshot").mkdir()
    (folder / "snapshot" / "snapshot.json").write_bytes(canonical_bytes(record))
