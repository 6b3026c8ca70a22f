"""Sites with a real vault (journal, policy, ledger checks) over a toy workload, and a prepared run for them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.session import Vault, Workload
from synclave_client.vault_channel import serve
from synclave_server.run_folder import ProgressTail, RoundProgress, RunFolder
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.modality import AnySchema
from synclave_shared.data.schema import Schema
from synclave_shared.fixed_point import to_fixed
from synclave_shared.ledger.entry import SignedEntry, UpdateReleased, parse_entry, sign_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.store import Ledger
from synclave_shared.models.anchor import marginals_size
from synclave_shared.models.codes import parameter_count
from synclave_shared.plan import (
    CopulaSpec,
    Federation,
    Marginals,
    ModelSpec,
    Privacy,
    SiteEntry,
    TrainPlan,
    signed_plan_bytes,
)
from synclave_shared.privacy.budget import Budget
from synclave_shared.protocol import Envelope, Reply, encode_update, parse_reply, parse_request

SCHEMA = Schema.load(Path(__file__).parents[2] / "examples" / "heart" / "schema.toml")
NAMES = ("north", "south", "west")
COORDINATOR_KEY = SigningKey.from_seed(b"c" * 32)
SITE_KEYS = {name: SigningKey.from_seed(name.encode().ljust(32, b".")) for name in NAMES}

Handler = Callable[[Envelope], Envelope]
Fault = Callable[["Site", Handler, Envelope], Envelope]


def make_plan(start: bytes | None = None, **federation: Any) -> TrainPlan:
    """Three rounds after marginals, three sites of which two suffice; ``federation`` replaces fields of that part."""
    return TrainPlan(
        name="toy",
        coordinator_key=COORDINATOR_KEY.public_text,
        schema_name=SCHEMA.name,
        schema_digest=SCHEMA.digest,
        model=ModelSpec(noise_levels=1),
        privacy=Privacy(
            noise_multiplier=Decimal(4),
            selection_rate=Decimal("0.05"),
            marginals=Marginals(noise_multiplier=Decimal(8)),
        ),
        federation=Federation(
            **{"rounds": 3, "steps_per_round": 5, "minimum_sites": 2, "round_timeout_s": 20, **federation}
        ),
        warm_start=None if start is None else sha256_hex(start),
        sites=tuple(
            SiteEntry(name=name, public_key=SITE_KEYS[name].public_text, nominal_patients=100 * (number + 1))
            for number, name in enumerate(NAMES)
        ),
    )


@dataclass
class ToyWorkload:
    """Stands for data and training: what it releases is a function of site, round and model."""

    name: str
    schema_digest: str = SCHEMA.digest
    patient_ids: tuple[str, ...] = ()
    trained: list[int] = field(default_factory=list)

    def check_model(self, plan: TrainPlan) -> None:
        pass

    def check_payload(self, plan: TrainPlan, round_number: int, payload: bytes) -> None:
        """Nothing to check."""

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        self.trained.append(round_number)
        size = marginals_size(SCHEMA) if round_number == 0 else parameter_count(SCHEMA, ModelSpec())
        seed = hashlib.sha256(f"{self.name}/{round_number}/".encode() + payload).digest()
        values = np.random.default_rng(list(seed)).standard_normal(size)
        return to_fixed(100 + 10 * values if round_number == 0 else values / np.linalg.norm(values))


@dataclass
class Site:
    """A running site.

    Attributes:
        name: its name.
        workload: what it trains with.
        fault: stands between gateway and vault and may do anything; None for an honest site.
    """

    name: str
    folder: Path
    workload: Workload
    budget: Decimal = Decimal(50)
    fault: Fault | None = None
    replies: list[Envelope] = field(default_factory=list)
    settings: SiteSettings = field(init=False)

    def open(self, socket: Path) -> None:
        """Open journal and socket, as a start of the vault's process does."""
        settings = self.settings = SiteSettings(
            name=self.name,
            coordinator_key=COORDINATOR_KEY.public_text,
            dataset=f"{self.name}-patients",
            data_folder=self.folder / "data",
            schema_file=self.folder / "schema.toml",
            state_folder=self.folder / "state",
            socket_path=socket,
            budget=Budget(epsilon=self.budget, delta=Decimal("0.00001")),
        )
        if not settings.journal_file.exists():
            settings.state_folder.mkdir(parents=True)
            Journal.create(settings.journal_file)
        self._journal = Journal.open(settings.journal_file)
        vault = Vault(settings, self._journal, SITE_KEYS[self.name], self.workload, training_lock=threading.Lock())

        def handle(request: Envelope) -> Envelope:
            reply = self.fault(self, vault.handle, request) if self.fault else vault.handle(request)
            self.replies.append(reply)
            return reply

        self._server = serve(handle, socket)

    def close(self) -> None:
        self._server.stop(0).wait()
        self._journal.close()


def at_round(number: int, fault: Fault) -> Fault:
    """A fault that shows in one round only."""

    def maybe(site: Site, handler: Handler, request: Envelope) -> Envelope:
        message = parse_request(request)
        return fault(site, handler, request) if getattr(message, "round", None) == number else handler(request)

    return maybe


def releasing(change: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Fault:
    """A site that signs and sends something else than what it trained: it has its key, after all."""

    def fault(site: Site, handler: Handler, request: Envelope) -> Envelope:
        answer = handler(request)
        reply = parse_reply(answer)
        payload = encode_update(change(np.frombuffer(answer.payload, "<i8").copy()))
        entries = []
        for text in reply.entries:
            entry = parse_entry(text.encode())
            if isinstance(entry.body, UpdateReleased):
                body = entry.body.model_copy(update={"update_digest": sha256_hex(payload)})
                entry = sign_entry(
                    entry.kind, site.name, entry.run, body, SITE_KEYS[site.name], previous=entry.previous
                )
            entries.append(entry.to_bytes().decode())
        return with_header(Envelope(answer.header, payload), entries=tuple(entries), payload_digest=sha256_hex(payload))

    return fault


def with_header(answer: Envelope, **changes: Any) -> Envelope:
    """A reply with other fields in its header."""
    header = json.loads(answer.header) | changes
    return Envelope.of(Reply.model_validate_json(json.dumps(header)), answer.payload)


def make_copula_plan() -> TrainPlan:
    """The same three sites, a copula in place of the training."""
    plan = make_plan()
    return plan.model_copy(
        update={
            "model": CopulaSpec(),
            "privacy": Privacy(
                noise_multiplier=Decimal(2), clip_norm=Decimal("0.35"), marginals=Marginals(noise_multiplier=Decimal(2))
            ),
            "federation": Federation(minimum_sites=2, round_timeout_s=20),
        }
    )


def prepare(folder: Path, plan: TrainPlan, start: bytes | None = None, schema: AnySchema = SCHEMA) -> RunFolder:
    """A run's folder for ``plan``, which begins with ``start``."""
    content = plan.to_bytes()
    return RunFolder.prepare(
        folder, content, COORDINATOR_KEY.sign_text(signed_plan_bytes(content)), schema.to_json_bytes(), start
    )


def events(run: RunFolder) -> list[RoundProgress]:
    """All events of a run."""
    return list(ProgressTail(run.progress, from_start=True).new_events())


def entries(run: RunFolder) -> list[SignedEntry]:
    """All entries of a run's ledger."""
    ledger = Ledger.open(run.ledger)
    return [parse_entry(ledger.entry(index)) for index in range(ledger.size)]
