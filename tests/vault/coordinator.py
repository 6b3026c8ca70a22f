"""A coordinator and a workload for tests: the real protocol and a real Merkle tree in memory, no network, no torch."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synclave_client.settings import SitePolicy, SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.session import Vault, Workload
from synclave_shared.ledger.checkpoint import Checkpoint, Note, sign_checkpoint
from synclave_shared.ledger.entry import COORDINATOR, KeyRegistered, PlanProposed, parse_entry, sign_entry
from synclave_shared.ledger.keys import SigningKey, encode_base64
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.plan import (
    Federation,
    Marginals,
    ModelSpec,
    Privacy,
    ScoresSpec,
    SiteEntry,
    TrainPlan,
    signed_plan_bytes,
)
from synclave_shared.privacy.budget import Budget
from synclave_shared.protocol import (
    EMPTY_DIGEST,
    CheckpointPresentation,
    CloseRequest,
    Envelope,
    HelloRequest,
    ProposeRequest,
    Reply,
    RoundRequest,
    WitnessRequest,
    parse_reply,
)

COORDINATOR_KEY = SigningKey.from_seed(b"c" * 32)
SITE_KEY = SigningKey.from_seed(b"s" * 32)
SCHEMA_DIGEST = "5" * 64
MODEL = b"\x01\x02\x03\x04"
OTHER_MODEL = b"\x04\x03\x02\x01"


def make_plan(name: str = "first", **changes: Any) -> TrainPlan:
    """A plan of three cheap rounds and marginals, with the site ``north`` in its roster; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "name": name,
        "coordinator_key": COORDINATOR_KEY.public_text,
        "schema_name": "toy",
        "schema_digest": SCHEMA_DIGEST,
        "model": ModelSpec(noise_levels=1),
        "privacy": Privacy(
            noise_multiplier=Decimal(4),
            selection_rate=Decimal("0.05"),
            marginals=Marginals(noise_multiplier=Decimal(8)),
        ),
        "federation": Federation(rounds=3, steps_per_round=5),
        "sites": (SiteEntry(name="north", public_key=SITE_KEY.public_text, nominal_patients=200),),
    }
    return TrainPlan(**{**fields, **changes})


def make_scores_plan(name: str = "scores") -> TrainPlan:
    """A plan of the same site that asks how well a clinical model predicts its patients."""
    return make_plan(
        name,
        modality="series",
        model=ScoresSpec(),
        privacy=Privacy(noise_multiplier=Decimal(8)),
        federation=Federation(),
        warm_start="7" * 64,
    )


def make_settings(folder: Path, **changes: Any) -> SiteSettings:
    """Settings of the site ``north`` below ``folder``; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "name": "north",
        "coordinator_key": COORDINATOR_KEY.public_text,
        "dataset": "north-patients",
        "data_folder": folder / "data",
        "schema_file": folder / "schema.toml",
        "state_folder": folder / "state",
        "socket_path": folder / "run" / "vault.sock",
        "budget": Budget(epsilon=Decimal(3), delta=Decimal("0.00001")),
        "policy": SitePolicy(minimum_noise_multiplier=Decimal("0.5")),
    }
    return SiteSettings(**{**fields, **changes})


@dataclass
class FakeWorkload:
    """Stands for data and training. Each release is other random bytes, as noise makes it."""

    schema_digest: str = SCHEMA_DIGEST
    patient_ids: tuple[str, ...] = ("p1", "p2")
    error: Exception | None = None
    releases: list[tuple[int, bytes]] = field(default_factory=list)

    def check_model(self, plan: TrainPlan) -> None:
        pass

    def check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        """Nothing to check."""

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        self.releases.append((round_number, payload))
        if self.error is not None:
            raise self.error
        return np.frombuffer(os.urandom(64), dtype=np.int64)


def open_vault(
    settings: SiteSettings, workload: Workload | None, *, key: SigningKey = SITE_KEY
) -> tuple[Vault, Journal]:
    """A vault over the site's journal, which is made if it does not exist."""
    if not settings.journal_file.exists():
        settings.state_folder.mkdir(parents=True)
        Journal.create(settings.journal_file)
    journal = Journal.open(settings.journal_file)
    return Vault(settings, journal, key, workload, training_lock=threading.Lock()), journal


class Coordinator:
    """Speaks to one vault about one plan, and keeps the plan's ledger.

    Args:
        vault: whom to ask; may be replaced by a restarted one.
        plan: the plan.
    """

    def __init__(self, vault: Vault, plan: TrainPlan, *, key: SigningKey = COORDINATOR_KEY) -> None:
        self.vault = vault
        self.plan = plan
        self.key = key
        self.origin = f"synclave/{plan.digest[:16]}"
        self.entries: list[bytes] = []
        self.tree = MerkleTree()
        self.seen_size = 0

    def fork(self, vault: Vault) -> Coordinator:
        """A coordinator in the same state that goes its own way with ``vault``."""
        other = Coordinator(vault, self.plan, key=self.key)
        other.append(*self.entries)
        other.seen_size = self.seen_size
        return other

    @property
    def kinds(self) -> list[str]:
        """Kinds of the ledger's entries of the site, in order."""
        return [parse_entry(content).kind for content in self.entries if content.startswith(b"{")]

    def append(self, *contents: bytes) -> None:
        for content in contents:
            if content not in self.entries:
                self.entries.append(content)
                self.tree.append(leaf_hash(content))

    def begin(self) -> None:
        """What a coordinator writes first: its key and the plan. Tests that do not verify the ledger leave it away."""
        registration = KeyRegistered(name=COORDINATOR, role="coordinator", public_key=self.key.public_text)
        proposal = PlanProposed(
            plan=json.loads(self.plan.to_bytes()),
            plan_digest=self.plan.digest,
            signature=encode_base64(self.key.sign(signed_plan_bytes(self.plan.to_bytes()))),
        )
        first = sign_entry("key-registered", COORDINATOR, "", registration, self.key, previous="")
        second = sign_entry("plan-proposed", COORDINATOR, self.plan.digest, proposal, self.key, previous=first.leaf)
        self.append(first.to_bytes(), second.to_bytes())

    def note(self) -> str:
        checkpoint = Checkpoint(origin=self.origin, size=self.tree.size, root=self.tree.root())
        return Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, self.key),)).text

    def present(self) -> CheckpointPresentation:
        new = self.entries[self.seen_size :]
        return CheckpointPresentation(
            note=self.note(), previous_size=self.seen_size, entries=tuple(content.decode() for content in new)
        )

    def take(self, envelope: Envelope) -> Reply:
        """What a coordinator does with every reply: check it and append its entries to the ledger."""
        reply = parse_reply(envelope)
        if reply.status != "failed":
            self.seen_size = max(self.seen_size, reply.seen_size)
            for text in reply.entries:
                entry = parse_entry(text.encode())
                assert entry.verify()
                self.append(text.encode())
        return reply

    def hello(self) -> Reply:
        return self.take(self.vault.handle(Envelope.of(HelloRequest())))

    def propose_request(self, *, signature: str | None = None) -> Envelope:
        content = self.plan.to_bytes()
        signed = encode_base64(self.key.sign(signed_plan_bytes(content))) if signature is None else signature
        return Envelope.of(ProposeRequest(plan=content.decode(), signature=signed, checkpoint=self.present()))

    def propose(self) -> Reply:
        return self.take(self.vault.handle(self.propose_request()))

    def round_request(self, number: int, model: bytes = MODEL) -> Envelope:
        payload = b"" if number == 0 else model
        digest = hashlib.sha256(payload).hexdigest() if payload else EMPTY_DIGEST
        return Envelope.of(
            RoundRequest(plan_digest=self.plan.digest, round=number, payload_digest=digest, checkpoint=self.present()),
            payload,
        )

    def round(self, number: int, model: bytes = MODEL) -> Reply:
        return self.take(self.vault.handle(self.round_request(number, model)))

    def witness_request(self) -> Envelope:
        return Envelope.of(WitnessRequest(plan_digest=self.plan.digest, checkpoint=self.present()))

    def witness(self) -> Reply:
        return self.take(self.vault.handle(self.witness_request()))

    def close_request(self) -> Envelope:
        return Envelope.of(CloseRequest(plan_digest=self.plan.digest, checkpoint=self.present()))

    def close(self) -> Reply:
        return self.take(self.vault.handle(self.close_request()))

    def join(self) -> None:
        """Hello and an accepted plan."""
        assert self.hello().status == "ok"
        reply = self.propose()
        assert (reply.status, reply.code) == ("ok", "")
