"""How many numbers a site releases for a model of a schema, known without building it."""

from __future__ import annotations

from typing import Final

from synclave_shared.data.modality import AnySchema
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import PlanError
from synclave_shared.model_spec import AnyModel, ClassifierSpec, CopulaSpec, ModelSpec, NotesSpec, SeriesSpec

__all__ = ["check_grid", "parameters_of"]

MOST_COVARIANCES: Final = 2**27
"""Numbers of covariances of all channels and gaps, for every length of a stay and cosine: half a gigabyte."""


def check_grid(schema: SeriesSchema) -> None:
    """Refuse a grid whose process would not fit into memory.

    Raises:
        PlanError: naming steps and channels.
    """
    steps, channels = schema.horizon, len(schema.channels)
    if (steps + 1) * steps * (steps + 4 * channels**2) > MOST_COVARIANCES:
        raise PlanError(
            expected=f"a grid with (steps + 1) x steps x (steps + 4 channels^2) of at most {MOST_COVARIANCES}",
            found=f"{steps} steps and {channels} channels in schema {schema.name}",
            remedy="Take longer steps, a shorter horizon or fewer channels.",
        )


def parameters_of(model: AnyModel, schema: AnySchema) -> int:
    """Parameters P of a model, or coordinates of its one release.

    Raises:
        PlanError: if model and schema are of two modalities.
    """
    values = len(schema.label.values)
    match schema, model:
        case SeriesSchema(), SeriesSpec() | ClassifierSpec():
            check_grid(schema)
            return model.parameter_count(schema.horizon, len(schema.channels), schema.width, values)
        case NotesSchema(), NotesSpec():
            return model.parameter_count()
        case Schema(), ModelSpec() | CopulaSpec():
            return model.parameter_count(schema.width, values)
    other = "diffusion or copula"
    kinds = {"series": "series, classifier, influence or scores", "notes": "notes"}
    raise PlanError(
        expected=f"model.kind = {kinds.get(schema.modality, other)}: the modality of schema {schema.name} is"
        f" {schema.modality}",
        found=f"model.kind = {model.kind}",
        remedy="Write kind under [model], or name another schema.",
    )
