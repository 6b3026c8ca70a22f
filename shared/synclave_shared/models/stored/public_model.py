"""A model that was trained on public patients: a folder for warm starts, beside the snapshots that a run leaves.

::

    model.safetensors    model [P]; anchor, [L, D] of codes, [A] of series; label_shares [L]
    public-model.json    what it is, and what it was trained on
    schema.json          canonical JSON of the schema

No ledger vouches for it and no epsilon belongs to it: it may say all about the patients it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from synclave_shared.canonical import FrozenModel, sha256_hex
from synclave_shared.models.stored.tensors import MODEL_FILE, damaged, read_model_tensors
from synclave_shared.plan import AnyModel, Digest, explain_validation

__all__ = ["RECORD_FILE", "PublicModel", "PublicModelRecord", "PublicTraining", "read_public_model"]

RECORD_FILE: Final = "public-model.json"


class PublicTraining(FrozenModel):
    """What a public model was trained on, and how.

    Attributes:
        patients: number of patients.
        files: names of their files.
        steps, batch_size, seed, precision: of the training.
        device: kind of device; another kind rounds differently.
        versions: of the software, by name.
    """

    patients: Annotated[int, Field(ge=1)]
    files: tuple[str, ...]
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    precision: Literal["float32", "bfloat16"]
    device: str
    versions: dict[str, str]


class PublicModelRecord(FrozenModel):
    """``public-model.json``.

    Attributes:
        schema_digest: of the schema that the patients were read with.
        model: the network, and of a generator what training hid.
        tensors_digest: SHA-256 of ``model.safetensors``.
        training: where it comes from.
    """

    version: Literal[1] = 1
    schema_digest: Digest
    model: AnyModel
    tensors_digest: Digest
    training: PublicTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicModel:
    """A public model that was read back.

    Attributes:
        record: what it is.
        model: parameters, float32 [P].
        anchor: what the marginals tell, float32: logits [L, D] of codes, a vector [A] of series, nothing [0] of notes.
        label_shares: float32 [L]; likewise.
    """

    record: PublicModelRecord
    model: NDArray[np.float32]
    anchor: NDArray[np.float32]
    label_shares: NDArray[np.float32]


def read_public_model(folder: Path) -> PublicModel:
    """Read a public model back and check its digests.

    Raises:
        SnapshotError: if something is missing or damaged.
    """
    try:
        record = PublicModelRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
        schema = (folder / "schema.json").read_bytes()
    except OSError as error:
        raise damaged(folder, f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except ValidationError as error:
        raise damaged(folder, f"{RECORD_FILE}: {explain_validation(error)}") from None
    if sha256_hex(schema) != record.schema_digest:
        raise damaged(folder, "schema.json of another schema")
    tensors = read_model_tensors(folder, record.tensors_digest)
    missing = [name for name in ("anchor", "label_shares") if name not in tensors]
    if missing:
        raise damaged(folder, f"{MODEL_FILE} without {' and '.join(missing)}")
    return PublicModel(
        record=record, model=tensors["model"], anchor=tensors["anchor"], label_shares=tensors["label_shares"]
    )
