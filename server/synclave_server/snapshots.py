"""Stored models: a folder with the tensors, what they belong to, and the plan and schema they came from.

::

    model.safetensors   model [P], of a copula its levels and loadings; anchor [L, D] and label_shares [L] if the plan
                        has marginals; raw_model [P] if the plan averages models; the server optimiser's moments if it
                        has any
    snapshot.json       which plan and round, the digests, and where the ledger names it
    plan.json           canonical JSON of the plan
    schema.json         canonical JSON of the schema

``model.safetensors`` is named by its SHA-256 in the ledger's ``snapshot`` entry.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from synclave_server.aggregate import ServerState
from synclave_server.model_tensors import MODEL_FILE, damaged, read_model_tensors, tensor_bytes
from synclave_server.run_folder import write_atomically
from synclave_shared.canonical import FrozenModel, canonical_bytes, sha256_hex
from synclave_shared.errors import PlanError
from synclave_shared.plan import Digest, Name, TrainPlan, explain_validation

__all__ = ["Snapshot", "SnapshotRecord", "copy_snapshot", "read_snapshot", "write_snapshot"]


class SnapshotRecord(FrozenModel):
    """``snapshot.json``.

    Attributes:
        plan_digest, schema_digest: what the model was trained under.
        round: the round after which it was stored.
        tensors_digest: SHA-256 of ``model.safetensors``.
        sites: the sites whose updates the round combined; empty before the first round.
        aggregate_digest: SHA-256 of the combined update as little-endian float64.
        ledger_index: index of the ``snapshot`` entry in the ledger.
    """

    version: int = Field(default=1, ge=1, le=1)
    plan_digest: Digest
    schema_digest: Digest
    round: Annotated[int, Field(ge=0, le=10_000)]
    tensors_digest: Digest
    sites: tuple[Name, ...]
    aggregate_digest: Digest
    ledger_index: Annotated[int, Field(ge=0)]


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
    write_atomically(part / "plan.json", plan.to_bytes())
    write_atomically(part / "schema.json", schema)
    write_atomically(part / "snapshot.json", canonical_bytes(record))
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
    try:
        record = SnapshotRecord.model_validate_json((folder / "snapshot.json").read_bytes())
        plan = TrainPlan.from_bytes((folder / "plan.json").read_bytes())
        schema = (folder / "schema.json").read_bytes()
    except OSError as error:
        raise damaged(folder, f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except ValidationError as error:
        raise damaged(folder, f"snapshot.json: {explain_validation(error)}") from None
    except PlanError as error:
        raise damaged(folder, f"plan.json: {error.found}") from None
    for name, found, expected in (
        ("plan.json", plan.digest, record.plan_digest),
        ("schema.json", sha256_hex(schema), record.schema_digest),
        ("the plan's schema", plan.schema_digest, record.schema_digest),
    ):
        if found != expected:
            raise damaged(folder, f"{name} with SHA-256 {found[:16]}... in place of {expected[:16]}...")
    tensors = read_model_tensors(folder, record.tensors_digest)
    model = tensors["model"]
    empty = np.zeros(0)
    return Snapshot(
        record=record,
        plan=plan,
        schema=schema,
        model=model,
        raw_model=tensors.get("raw_model", model),
        anchor=tensors.get("anchor"),
        label_shares=tensors.get("label_shares"),
        server_state=ServerState(tensors.get("server_first_moment", empty), tensors.get("server_second_moment", empty)),
    )
