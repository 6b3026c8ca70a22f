"""Snapshots as the coordinator writes them and goes on from; see :mod:`synclave_shared.models.stored.snapshot`."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synclave_server.aggregate import ServerState
from synclave_server.run_folder import write_atomically
from synclave_shared.canonical import canonical_bytes, sha256_hex
from synclave_shared.models.stored.snapshot import (
    PLAN_FILE,
    SCHEMA_FILE,
    SNAPSHOT_FILE,
    SnapshotRecord,
    read_stored_snapshot,
)
from synclave_shared.models.stored.tensors import MODEL_FILE, tensor_bytes
from synclave_shared.plan import TrainPlan

__all__ = ["Snapshot", "copy_snapshot", "read_snapshot", "write_snapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A stored model with everything that is needed to sample from it or to go on training it.

    Attributes:
        record: what it is and belongs to.
        plan: the plan.
        schema: canonical JSON of the schema.
        model: parameters to sample from, float32 [P].
        raw_model: parameters with which the next round begins, float32 [P]: the same unless the plan averages models.
        anchor: logits, float32 [L, D], or None.
        label_shares: float32 [L], or None.
        server_state: the server optimiser's state.
    """

    record: SnapshotRecord
    plan: TrainPlan
    schema: bytes
    model: NDArray[np.float32]
    raw_model: NDArray[np.float32]
    anchor: NDArray[np.float32] | None
    label_shares: NDArray[np.float32] | None
    server_state: ServerState


def write_snapshot(
    folder: Path,
    *,
    plan: TrainPlan,
    schema: bytes,
    round_number: int,
    model: NDArray[np.float32],
    anchor: NDArray[np.float32] | None,
    label_shares: NDArray[np.float32] | None,
    server_state: ServerState,
    sites: tuple[str, ...],
    aggregate_digest: str,
    ledger_index: int,
    raw_model: NDArray[np.float32] | None = None,
) -> SnapshotRecord:
    """Store a model; ``folder`` is there complete afterwards, or, after a crash, as it was before or absent.

    The arguments are the fields of :class:`Snapshot` and :class:`SnapshotRecord`; ``raw_model`` None: it is ``model``.
    """
    tensors: dict[str, NDArray[Any]] = {"model": model}
    if anchor is not None:
        tensors["anchor"] = anchor
    if label_shares is not None:
        tensors["label_shares"] = label_shares
    if raw_model is not None:
        tensors["raw_model"] = raw_model
    if server_state.first.size:
        tensors["server_first_moment"] = server_state.first
        tensors["server_second_moment"] = server_state.second
    content = tensor_bytes(tensors)
    record = SnapshotRecord(
        plan_digest=plan.digest,
        schema_digest=sha256_hex(schema),
        round=round_number,
        tensors_digest=sha256_hex(content),
        sites=sites,
        aggregate_digest=aggregate_digest,
        ledger_index=ledger_index,
    )
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_atomically(part / MODEL_FILE, content)
    write_atomically(part / PLAN_FILE, plan.to_bytes())
    write_atomically(part / SCHEMA_FILE, schema)
    write_atomically(part / SNAPSHOT_FILE, canonical_bytes(record))
    _replace_folder(part, folder)
    return record


def copy_snapshot(source: Path, target: Path) -> None:
    """Put a copy of a snapshot at ``target``, replacing what is there."""
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    _replace_folder(part, target)


def _replace_folder(part: Path, folder: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(old, ignore_errors=True)


def read_snapshot(folder: Path) -> Snapshot:
    """Read a snapshot back and check every digest.

    Raises:
        SnapshotError: if something is missing, damaged, or belongs to another plan or schema.
    """
    stored = read_stored_snapshot(folder)
    tensors = stored.tensors
    model = tensors["model"]
    empty = np.zeros(0)
    return Snapshot(
        record=stored.record,
        plan=stored.plan,
        schema=stored.schema,
        model=model,
        raw_model=tensors.get("raw_model", model),
        anchor=tensors.get("anchor"),
        label_shares=tensors.get("label_shares"),
        server_state=ServerState(tensors.get("server_first_moment", empty), tensors.get("server_second_moment", empty)),
    )
