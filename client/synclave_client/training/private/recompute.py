"""Gradients of bare parameters: those that a module of the user's own holds and uses in its ``forward``.

The module is computed again, one row at a time, and its parameters' gradients are taken from the gradient that arrived
at its output. Exact for every module that treats rows apart, whatever it does with its parameters; the start-up
self-test finds those that do not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vjp, vmap

from synclave_client.training.private.batch import PatientRows
from synclave_client.training.private.factors import Dense, Factor
from synclave_client.training.private.rules import LayerUse, own_parameters
from synclave_shared.errors import ClippingError

__all__ = ["recomputed_factors"]

ROWS_AT_ONCE = 64
"""Rows recomputed together; their activations are in memory at once."""


def recomputed_factors(use: LayerUse, rows: PatientRows, names: list[str]) -> dict[str, Factor]:
    """Per-row gradients of the module's own parameters ``names``.

    Raises:
        ClippingError: if the module's inputs and output do not have the rows on their first axis, or it cannot be
            computed row by row.
    """
    pull = use.output_gradient
    if pull.shape[:1] != (rows.count,):
        raise ClippingError(
            expected=f"an output with {rows.count} rows on its first axis from {use.name}",
            found=f"shape {tuple(pull.shape)}",
            remedy="Hold the parameter in a module that sees all rows and treats them apart.",
        )
    own = own_parameters(use.layer)
    values = {name: own[name].detach() for name in names}
    places: list[tuple[int | str, object]] = [*enumerate(use.args), *use.kwargs.items()]
    inputs: dict[int | str, Tensor] = {
        place: value.detach()
        for place, value in places
        if isinstance(value, Tensor) and value.shape[:1] == (rows.count,)
    }

    def gradients(row: dict[int | str, Tensor], pulled: Tensor) -> dict[str, Tensor]:
        def output(parameters: dict[str, Tensor]) -> Tensor:
            args = [row[place][None] if place in row else value for place, value in enumerate(use.args)]
            kwargs = {name: row[name][None] if name in row else value for name, value in use.kwargs.items()}
            result: Tensor = functional_call(use.layer, parameters, tuple(args), kwargs)
            return result[0]

        pullback: Any = vjp(output, values)[1]
        found: dict[str, Tensor] = pullback(pulled)[0]
        return found

    try:
        grown: Any = vmap(gradients, chunk_size=ROWS_AT_ONCE)(inputs, pull)
    except RuntimeError as error:
        raise ClippingError(
            expected=f"a module {use.name} that can be computed row by row",
            found=f"{type(use.layer).__name__}: {str(error).splitlines()[0]}",
            remedy="Move its parameters into layers with a rule (Linear, Embedding, ...), and its randomness out.",
        ) from error
    return {name: Dense.of(rows, torch.as_tensor(grown[name])) for name in names}
