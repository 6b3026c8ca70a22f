"""A network's trained parameters as one flat vector, which is what travels and what is stored."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from synclave_shared.errors import SnapshotError

__all__ = ["load_parameter_vector", "parameter_vector"]


def parameter_vector(model: nn.Module) -> NDArray[np.float32]:
    """All parameters but frozen ones as one float32 vector [P], in the order of ``model.parameters()``."""
    with torch.no_grad():
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in _trained(model)])
    return flat.to(device="cpu", dtype=torch.float32).numpy().copy()


def load_parameter_vector(model: nn.Module, vector: NDArray[np.float32]) -> None:
    """Overwrite all parameters but frozen ones with ``vector`` [P].

    Raises:
        SnapshotError: if the length differs or a value is not finite; the model is then unchanged.
    """
    parameters = _trained(model)
    size = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (size,) or not np.all(np.isfinite(vector)):
        raise SnapshotError(
            expected=f"{size} finite parameters",
            found=f"shape {vector.shape}" if vector.shape != (size,) else "NaN or infinity",
            remedy="Use the snapshot of the plan that this model belongs to.",
        )
    values = torch.from_numpy(np.array(vector, dtype=np.float32))
    position = 0
    with torch.no_grad():
        for parameter in parameters:
            part = values[position : position + parameter.numel()]
            parameter.copy_(part.reshape(parameter.shape))
            position += parameter.numel()


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
