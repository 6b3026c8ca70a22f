"""A ledger of as many entries as wanted, each as a real run leaves it, signed by keys that anybody can make again.

Entries are put together as text: signing takes 50 µs each, so a million takes minutes and not hours. The ledger's own
types never see them here; verification does, and finds nothing wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from synclave_shared.ledger.checkpoint import Checkpoint, Note, sign_checkpoint
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.ledger.tiles import (
    CHECKPOINT_PATH,
    TILE_WIDTH,
    encode_bundle,
    entries_path,
    tile_content,
    tile_path,
    tile_positions,
)
from synclave_shared.plan import Federation, Privacy, SiteEntry, TrainPlan, signed_plan_bytes
from synclave_shared.privacy.accountant import merge_equal

__all__ = ["SITES", "Run", "make_plan", "rounds_for", "write_ledger"]

SITES = tuple(f"site-{number}" for number in range(8))
ROUNDS = 8000
"""Rounds of one plan; a longer ledger goes on with another plan."""


def key_of(name: str) -> SigningKey:
    """The key of a site or the coordinator; it protects nothing."""
    return SigningKey.from_seed(hashlib.sha256(name.encode()).digest())


def make_plan(number: int) -> TrainPlan:
    """A plan whose rounds cost little, so that thousands of them stay within a budget."""
    return TrainPlan(
        name=f"plan-{number}",
        coordinator_key=key_of("coordinator").public_text,
        schema_name="toy",
        schema_digest="0" * 64,
        privacy=Privacy(noise_multiplier=Decimal(20), selection_rate=Decimal("0.001")),
        federation=Federation(rounds=ROUNDS + 100, steps_per_round=1, minimum_sites=len(SITES)),
        sites=tuple(SiteEntry(name=site, public_key=key_of(site).public_text, nominal_patients=1000) for site in SITES),
    )


@dataclass
class Run:
    """Signs the entries of everyone in turn."""

    keys: dict[str, SigningKey] = field(
        default_factory=lambda: {name: key_of(name) for name in ("coordinator", *SITES)}
    )
    newest: dict[str, str] = field(default_factory=dict)
    clock: int = 0

    def tell(self, kind: str, actor: str, run: str, body: str) -> bytes:
        """One entry, canonical JSON; ``body`` is canonical JSON as well."""
        self.clock += 1
        minutes, second = divmod(self.clock, 60)
        hours, minute = divmod(minutes, 60)
        days, hour = divmod(hours, 24)
        time = f"2026-{1 + days // 28:02d}-{1 + days % 28:02d}T{hour:02d}:{minute:02d}:{second:02d}Z"
        key = self.keys[actor]
        head = (
            f'{{"actor":"{actor}","body":{body},"key":"{key.public_text}","kind":"{kind}",'
            f'"previous":"{self.newest.get(actor, "")}","run":"{run}"'
        )
        tail = f',"time":"{time}","version":1}}'
        signature = key.sign_text(f"synclave-entry/v1\n{head}{tail}".encode())
        content = f'{head},"signature":"{signature}"{tail}'.encode()
        self.newest[actor] = leaf_hash(content).hex()
        return content

    def opening(self) -> Iterator[bytes]:
        """Everyone's registration."""
        for name, key in self.keys.items():
            role = "coordinator" if name == "coordinator" else "site"
            body = {"name": name, "not_after": "", "public_key": key.public_text, "role": role}
            yield self.tell("key-registered", name, "", _text(body))

    def agreement(self, plan: TrainPlan) -> Iterator[bytes]:
        """The plan and every site's acceptance."""
        signature = self.keys["coordinator"].sign_text(signed_plan_bytes(plan.to_bytes()))
        proposal = {"plan": json.loads(plan.to_bytes()), "plan_digest": plan.digest, "signature": signature}
        yield self.tell("plan-proposed", "coordinator", plan.digest, _text(proposal))
        acceptance = {
            "budget": {"delta": "0.00001", "epsilon": "100"},
            "dataset": "patients",
            "plan_digest": plan.digest,
            "planned": [each.model_dump(mode="json") for each in merge_equal(plan.mechanisms())],
            "versions": {},
        }
        for site in SITES:
            yield self.tell("plan-accepted", site, plan.digest, _text(acceptance))

    def spends(self, plan: TrainPlan, number: int) -> Iterator[bytes]:
        """What the sites say about a round: a reservation and a release each."""
        digest = plan.digest
        mechanism = _text(plan.mechanism(number).model_dump(mode="json"))
        spend = (
            f'{{"dataset":"patients","delta":"0.00001","mechanism":{mechanism},"plan_digest":"{digest}",'
            f'"round":{number}}}'
        )
        for site in SITES:
            yield self.tell("spend-reserved", site, digest, spend)
            update = hashlib.sha256(f"{site} {number}".encode()).hexdigest()
            released = f'{{"plan_digest":"{digest}","round":{number},"update_digest":"{update}"}}'
            yield self.tell("update-released", site, digest, released)

    def result(self, plan: TrainPlan, number: int) -> Iterator[bytes]:
        """What the coordinator says about it: the aggregate and the snapshot."""
        digest, made = plan.digest, hashlib.sha256(f"{plan.digest} {number}".encode()).hexdigest()
        aggregate = {"aggregate_digest": made, "plan_digest": digest, "round": number, "sites": SITES}
        yield self.tell("aggregate", "coordinator", digest, _text(aggregate))
        snapshot = {"plan_digest": digest, "round": number, "snapshot_digest": made}
        yield self.tell("snapshot", "coordinator", digest, _text(snapshot))


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def rounds_for(run: Run, size: int) -> Iterator[bytes]:
    """Entries without end: plan after plan; ends after the round in which ``size`` is reached."""
    count = 0
    for content in run.opening():
        count += 1
        yield content
    number = 0
    while count < size:
        plan = make_plan(number)
        for content in run.agreement(plan):
            count += 1
            yield content
        for round_number in range(1, ROUNDS + 1):
            for content in (*run.spends(plan, round_number), *run.result(plan, round_number)):
                count += 1
                yield content
            if count >= size:
                return
        number += 1


def write_ledger(folder: Path, size: int) -> tuple[Run, int]:
    """Write a ledger of about ``size`` entries, up to the end of a round.

    Returns:
        Who can go on signing, and how many entries there are.
    """
    run, tree, bundle = Run(), MerkleTree(), list[bytes]()
    for content in rounds_for(run, size):
        tree.append(leaf_hash(content))
        bundle.append(content)
        if len(bundle) == TILE_WIDTH:
            _write(folder / entries_path(tree.size // TILE_WIDTH - 1, TILE_WIDTH), encode_bundle(bundle))
            bundle.clear()
    if bundle:
        _write(folder / entries_path(tree.size // TILE_WIDTH, len(bundle)), encode_bundle(bundle))
    for level, index, width in tile_positions(tree.size):
        _write(folder / tile_path(level, index, width), tile_content(tree, level, index, width))
    checkpoint = Checkpoint(origin=f"synclave/{make_plan(0).digest[:16]}", size=tree.size, root=tree.root())
    note = Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, run.keys["coordinator"]),))
    _write(folder / CHECKPOINT_PATH, note.text.encode())
    return run, tree.size


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
