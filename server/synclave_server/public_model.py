"""What was trained on public patients becomes a folder; see :mod:`synclave_shared.models.stored.public_model`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synclave_shared.canonical import canonical_bytes, sha256_hex
from synclave_shared.models.stored.public_model import RECORD_FILE, PublicModelRecord, PublicTraining
from synclave_shared.models.stored.tensors import MODEL_FILE, tensor_bytes
from synclave_shared.plan import AnyModel

if TYPE_CHECKING:
    from synclave_server.pretraining import PretrainedModel
    from synclave_shared.data.modality import AnySchema

__all__ = ["write_public_model"]


def write_public_model(
    folder: Path, schema: AnySchema, spec: AnyModel, model: PretrainedModel, training: PublicTraining
) -> PublicModelRecord:
    """Fill a folder that is there (:func:`synclave_shared.data.new_folder.new_folder` makes it whole or not at all)."""
    content = tensor_bytes({"model": model.parameters, "anchor": model.anchor, "label_shares": model.label_shares})
    record = PublicModelRecord(
        schema_digest=schema.digest, model=spec, tensors_digest=sha256_hex(content), training=training
    )
    (folder / MODEL_FILE).write_bytes(content)
    (folder / "schema.json").write_bytes(schema.to_json_bytes())
    (folder / RECORD_FILE).write_bytes(canonical_bytes(record))
    return record
