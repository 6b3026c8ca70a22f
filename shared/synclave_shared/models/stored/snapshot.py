"""A snapshot: a folder with a model's tensors, what they belong to, and the plan and schema they came from.

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

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from numpy.typing import NDArray
from pydantic import Field, ValidationError

from synclave_shared.canonical import FrozenModel, sha256_hex
from synclave_shared.errors import PlanError
from synclave_shared.models.stored.tensors import damaged, read_model_tensors
from synclave_shared.plan import Digest, Name, TrainPlan, explain_validation

__all__ = ["PLAN_FILE", "SCHEMA_FILE", "SNAPSHOT_FILE", "SnapshotRecord", "StoredSnapshot", "read_stored_snapshot"]

SNAPSHOT_FILE: Final = "snapshot.json"
PLAN_FILE: Final = "plan.json"
SCHEMA_FILE: Final = "schema.json"


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
class StoredSnapshot:
    """A snapshot as it lies on disk.

    Attributes:
        record: what it is and belongs to.
        plan: the plan.
        schema: canonical JSON of the schema.
        tensors: arrays by name; ``model`` is there.
    """

    record: SnapshotRecord
    plan: TrainPlan
    schema: bytes
    tensors: dict[str, NDArray[Any]]


def read_stored_snapshot(folder: Path) -> StoredSnapshot:
    """Read a snapshot and check every digest.

    Raises:
        SnapshotError: if something is missing, damaged, or belongs to another plan or schema.
    """
    try:
        record = SnapshotRecord.model_validate_json((folder / SNAPSHOT_FILE).read_bytes())
        plan = TrainPlan.from_bytes((folder / PLAN_FILE).read_bytes())
        schema = (folder / SCHEMA_FILE).read_bytes()
    except OSError as error:
        raise damaged(folder, f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except ValidationError as error:
        raise damaged(folder, f"{SNAPSHOT_FILE}: {explain_validation(error)}") from None
    except PlanError as error:
        raise damaged(folder, f"{PLAN_FILE}: {error.found}") from None
    for name, found, expected in (
        (PLAN_FILE, plan.digest, record.plan_digest),
        (SCHEMA_FILE, sha256_hex(schema), record.schema_digest),
        ("the plan's schema", plan.schema_digest, record.schema_digest),
    ):
        if found != expected:
            raise damaged(folder, f"{name} with SHA-256 {found[:16]}... in place of {expected[:16]}...")
    tensors = read_model_tensors(folder, record.tensors_digest)
    return StoredSnapshot(record=record, plan=plan, schema=schema, tensors=tensors)
