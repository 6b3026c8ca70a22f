"""What a training begins with in place of the untrained network: a public model, or the end of an earlier run.

The plan names the parameters by their digest, so that the signed agreement says what the training began with. An
earlier run's model is post-processing of that run's releases and costs nothing again; a model that saw a site's own
patients without privacy would void the guarantee, and nothing in the model could tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.snapshots import Snapshot, read_snapshot
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import PlanError, ProtocolError, SnapshotError
from synclave_shared.model_size import parameters_of
from synclave_shared.model_spec import EMBEDDED
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.stored.public_model import RECORD_FILE, PublicModel, read_public_model
from synclave_shared.plan import AnyModel, ClassifierSpec, ModelSpec, NotesSpec, SeriesSpec, TrainPlan
from synclave_shared.protocol import decode_model, encode_model

if TYPE_CHECKING:
    from synclave_shared.data.modality import AnySchema

__all__ = ["load_start", "published_start", "read_start"]

NETWORK: Final[dict[str, tuple[str, ...]]] = {
    "diffusion": ("kind", "corruption", "coupled_columns", "width", "blocks"),
    "series": ("kind", "couplings", "width", "backbone", "blocks"),
    "notes": ("kind", "looked_up", "adapter_rank"),
}
"""What must agree for parameters to mean the same; noise levels may differ, further training sees to them."""


def read_start(folder: Path, *, schema: AnySchema, spec: AnyModel, anchored: bool) -> bytes:
    """The parameters of a stored model, for a plan.

    Args:
        folder: what ``synclave pretrain`` wrote, or a run's ``snapshot``.
        schema: the plan's schema.
        spec: the plan's model.
        anchored: whether the plan has a marginals release.

    Returns:
        Little-endian float32 values, whose SHA-256 is the plan's ``warm_start``: the P parameters; with a clinical
        model then anchor and label shares.

    Raises:
        PlanError: if the model belongs to another schema or network, or cannot stand on the plan's anchor.
        SnapshotError: if it is missing or damaged.
    """
    found: AnyModel
    if isinstance(spec, ClassifierSpec):
        return _clinical_start(folder, schema=schema, spec=spec)
    if spec.kind not in NETWORK:
        raise _unsuitable("a model that is trained", f"model.kind = {spec.kind}")
    if (folder / RECORD_FILE).exists():
        public = read_public_model(folder)
        digest, found, has_anchor = public.record.schema_digest, public.record.model, public.anchor.size > 0
        parameters = public.model
    else:
        snapshot = read_snapshot(folder)
        digest, found, has_anchor = snapshot.record.schema_digest, snapshot.plan.model, snapshot.anchor is not None
        parameters = snapshot.model
    if digest != schema.digest:
        raise _unsuitable(f"a model of the schema {schema.name}, {schema.digest[:16]}...", f"one of {digest[:16]}...")
    for name in NETWORK[spec.kind]:
        wanted, given = getattr(spec, name), getattr(found, name, None)
        if wanted != given:
            raise _unsuitable(f"a model with {name} = {wanted}, as under [model] in the plan", f"{name} = {given}")
    if isinstance(spec, ModelSpec) and 0 < spec.coupled_columns < schema.width:
        # Which columns are coupled is decided by each training's own anchor: parameters would change their columns.
        raise _unsuitable(
            f"couplings of all {schema.width} columns or of none", f"coupled_columns = {spec.coupled_columns}"
        )
    if has_anchor != anchored:
        raise _unsuitable(
            "a plan with [privacy.marginals]" if has_anchor else "a plan without [privacy.marginals]",
            f"a model that was trained {'with' if has_anchor else 'without'} prevalences, which it corrects",
        )
    size = parameters_of(spec, schema)
    if parameters.shape != (size,):
        raise _unsuitable(f"{size} parameters", f"{parameters.size}")
    return encode_model(parameters)


def _clinical_start(folder: Path, *, schema: AnySchema, spec: ClassifierSpec) -> bytes:
    """A clinical model with the marginals it stands on: parameters, anchor, label shares.

    A plan of kind ``classifier`` begins with the untrained network and the marginals of a series model's run, or goes
    on with a classifier; the others need the classifier, of a run or of ``synclave pretrain``.
    """
    stored: PublicModel | Snapshot
    if (folder / RECORD_FILE).exists():
        stored = read_public_model(folder)
        found = stored.record.model
    else:
        stored = read_snapshot(folder)
        found = stored.plan.model
    if stored.record.schema_digest != schema.digest:
        wanted, given = schema.digest[:16], stored.record.schema_digest[:16]
        raise _unsuitable_start(f"a model of the schema {schema.name}, {wanted}...", f"one of {given}...")
    if stored.anchor is None or stored.label_shares is None:
        raise _unsuitable_start("a model with marginals", "one without")
    trained = type(found) is ClassifierSpec
    if not trained and (type(spec) is not ClassifierSpec or not isinstance(found, SeriesSpec)):
        raise _unsuitable_start("a classifier", f"a model of model.kind = {found.kind}")
    if trained:
        for name in ("architecture", "width", "blocks", "installed"):
            wanted, given = getattr(spec, name), getattr(found, name)
            if wanted != given:
                raise _unsuitable_start(
                    f"a model with {name} = {wanted}, as under [model] in the plan", f"{name} = {given}"
                )
        model = stored.model
    else:
        from synclave_shared.models.parameters import parameter_vector
        from synclave_shared.models.series.classifier import build_series_classifier

        assert isinstance(schema, SeriesSchema)  # noqa: S101 - its digest is that of a series model's
        model = parameter_vector(build_series_classifier(SeriesLayout.of(schema), spec))
    return encode_model(np.concatenate([model, stored.anchor, stored.label_shares]))


def published_start(spec: NotesSpec, folder: Path) -> bytes | None:
    """The weights of a published language model that a plan trains as a whole; None: what begins is public anyway.

    Args:
        spec: the plan's model, looked up.
        folder: where the base's folder lies.
    """
    if spec.base == EMBEDDED or spec.adapter_rank:
        return None
    from synclave_shared.models.note_base import build_note_lm, find_base
    from synclave_shared.models.parameters import parameter_vector

    return encode_model(parameter_vector(build_note_lm(spec, find_base(spec, [folder]))))


def load_start(content: bytes, plan: TrainPlan, size: int) -> NDArray[np.float32]:
    """The parameters that a plan names.

    Args:
        content: what :func:`read_start` returned when the plan was made.
        plan: a plan with a warm start.
        size: number of parameters P.

    Raises:
        SnapshotError: if they are others.
    """
    if sha256_hex(content) != plan.warm_start:
        raise SnapshotError(
            expected=f"parameters with SHA-256 {str(plan.warm_start)[:16]}..., as the plan says",
            found=f"{sha256_hex(content)[:16]}...",
            remedy="Lay the run down again with `synclave plan --out` and the same plan file.",
        )
    try:
        return decode_model(content, size)
    except ProtocolError as error:
        raise SnapshotError(
            expected=error.expected,
            found=error.found,
            remedy="Use the version of Synclave that made the plan.",
        ) from None


def _unsuitable(
    expected: str,
    found: str,
    remedy: str = "Make the model with `synclave pretrain` and the numbers of the plan, or leave [warm_start] out.",
) -> PlanError:
    return PlanError(expected=f"for the warm start {expected}", found=found, remedy=remedy)


def _unsuitable_start(expected: str, found: str) -> PlanError:
    """The same for a clinical model, which must begin with an earlier run."""
    return _unsuitable(expected, found, "Name the model that docs/series.md says, of the same schema.")
