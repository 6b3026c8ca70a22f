"""How many numbers a site releases for a model of a schema, known without building it."""

from __future__ import annotations

from synclave_shared.data.modality import AnySchema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import PlanError
from synclave_shared.model_spec import AnyModel, ClassifierSpec, SeriesSpec

__all__ = ["parameters_of"]


def parameters_of(model: AnyModel, schema: AnySchema) -> int:
    """Parameters P of a model, or coordinates of its one release.

    Raises:
        PlanError: if model and schema are of two modalities.
    """
    values = len(schema.label.values)
    if isinstance(model, SeriesSpec | ClassifierSpec):
        if isinstance(schema, SeriesSchema):
            return model.parameter_count(schema.horizon, len(schema.channels), schema.width, values)
    elif not isinstance(schema, SeriesSchema):
        return model.parameter_count(schema.width, values)
    kinds = "series, classifier or influence" if isinstance(schema, SeriesSchema) else "diffusion or copula"
    raise PlanError(
        expected=f"model.kind = {kinds}: the modality of schema {schema.name} is {schema.modality}",
        found=f"model.kind = {model.kind}",
        remedy="Write kind under [model], or name another schema.",
    )
