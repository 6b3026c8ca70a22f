"""What it costs a site to be shown a round: reading, checking, storing and co-signing it, in a ledger of any length."""

from __future__ import annotations

import tempfile
import threading
import time
from decimal import Decimal
from itertools import islice
from pathlib import Path

from bench.ledger.writing import SITES, Run, key_of, make_plan, rounds_for
from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.session import Vault
from synclave_shared.ledger.checkpoint import Checkpoint, Note, sign_checkpoint
from synclave_shared.ledger.frontier import EMPTY, Frontier
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.ledger.witness import Growth, KnownActor
from synclave_shared.privacy.budget import Budget
from synclave_shared.protocol import CheckpointPresentation, Envelope, WitnessRequest, parse_reply

__all__ = ["witnessing_seconds"]

ENTRIES_PER_ROUND = 2 * len(SITES) + 2


def witnessing_seconds(size: int, rounds: int = 20) -> list[tuple[float, float]]:
    """Seconds, and seconds of CPU time, that a vault takes for each of ``rounds`` requests.

    Each shows it one round of a ledger that has ``size`` entries before them; it waits for its disk once.

    The site is one that signs nothing itself. Its journal lies in the folder for temporary files.
    """
    plan, operator = make_plan(0), key_of("coordinator")
    run = Run()
    stream = rounds_for(run, size + (rounds + 1) * ENTRIES_PER_ROUND)
    before = list(islice(stream, size))
    with tempfile.TemporaryDirectory() as folder:
        settings = SiteSettings(
            name="observer",
            coordinator_key=operator.public_text,
            dataset="patients",
            data_folder=Path(folder, "data"),
            schema_file=Path(folder, "schema.toml"),
            state_folder=Path(folder, "state"),
            socket_path=Path(folder, "vault.sock"),
            budget=Budget(epsilon=Decimal(1), delta=Decimal("0.00001")),
        )
        settings.state_folder.mkdir()
        Journal.create(settings.journal_file)
        journal = Journal.open(settings.journal_file)
        try:
            known = EMPTY.extend(leaf_hash(content) for content in before)
            journal.ledgers.extend(
                plan.digest,
                Growth(
                    frontier=known,
                    operator_key=operator.public_text,
                    note=_note(plan.digest, known),
                    entries=tuple(before),
                    actors=_actors(run, before),
                ),
                "—",
            )
            vault = Vault(settings, journal, key_of("observer"), None, training_lock=threading.Lock())
            seconds = []
            for _ in range(rounds):
                entries = list(islice(stream, ENTRIES_PER_ROUND))
                grown = known.extend(leaf_hash(content) for content in entries)
                shown = CheckpointPresentation(
                    note=_note(plan.digest, grown),
                    previous_size=known.size,
                    entries=tuple(content.decode() for content in entries),
                )
                request = Envelope.of(WitnessRequest(plan_digest=plan.digest, checkpoint=shown))
                began, cpu = time.perf_counter(), time.process_time()
                reply = vault.handle(request)
                seconds.append((time.perf_counter() - began, time.process_time() - cpu))
                if parse_reply(reply).seen_size != grown.size:
                    raise RuntimeError(f"the vault did not follow: {reply.header!r}")
                known = grown
            return seconds
        finally:
            journal.close()


def _note(digest: str, frontier: Frontier) -> str:
    checkpoint = Checkpoint(origin=f"synclave/{digest[:16]}", size=frontier.size, root=frontier.root())
    return Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, key_of("coordinator")),)).text


def _actors(run: Run, contents: list[bytes]) -> dict[str, KnownActor]:
    """Everyone's newest entry: a round is at most a few dozen entries long, and everybody signs in each."""
    newest: dict[str, str] = {}
    for content in contents[-2 * ENTRIES_PER_ROUND :]:
        actor = content[len(b'{"actor":"') :].partition(b'"')[0].decode()
        newest[actor] = leaf_hash(content).hex()
    return {name: KnownActor(run.keys[name].public_text, leaf) for name, leaf in newest.items()}
