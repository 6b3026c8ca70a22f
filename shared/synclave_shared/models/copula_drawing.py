"""Patients from a fitted copula.

Given a patient's factors the columns are independent: a code is 1 with the normal probability of its latent value, and
the column of a one-hot group is drawn from the softmax of its utilities. So a row is a function of the patient's
factors and of one uniform number per column, like the last step of every other sampler.

Shapes: ``n`` patients, ``D`` columns, ``L`` label values, ``R`` factors.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synclave_shared.diffusion.drawing import draw_rows
from synclave_shared.models.copula import LARGEST_COMMUNALITY, Copula

__all__ = ["CopulaColumns", "sample_copula"]

CHUNK_PATIENTS = 8192
"""Patients whose latent values are in memory at once."""


class CopulaColumns:
    """A copula on one device.

    Args:
        copula: the model.
        device: where to compute.
    """

    def __init__(self, copula: Copula, device: torch.device | str = "cpu") -> None:
        loadings = torch.from_numpy(np.array(copula.loadings))
        own = (1.0 - loadings.square().sum(dim=1).clamp(max=LARGEST_COMMUNALITY)).sqrt()
        self.factors = loadings.shape[1]
        self._layout = copula.layout
        self._loadings, self._own = loadings.T.contiguous().to(device), own.to(device)
        self._levels = torch.from_numpy(np.array(copula.levels)).to(device)

    def rows(self, labels: Tensor, factors: Tensor, uniform: Tensor) -> Tensor:
        """Draw one patient for each label.

        Args:
            labels: int64 [n], label numbers.
            factors: float32 [n, R], standard normal.
            uniform: [n, D], inside (0, 1).

        Returns:
            uint8 [n, D].
        """
        latent = factors @ self._loadings + self._levels[labels]
        probabilities = torch.special.ndtr(latent / self._own)
        for start, stop in self._layout.categories:
            probabilities[:, start:stop] = latent[:, start:stop].softmax(dim=1)
        return draw_rows(probabilities, uniform, self._layout)


def sample_copula(copula: Copula, labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one patient for each label, with random numbers of one generator.

    Args:
        copula: the model.
        labels: [N], label numbers.
        rng: source of every random choice.

    Returns:
        uint8 [N, D].
    """
    columns = CopulaColumns(copula)
    features = np.empty((len(labels), copula.layout.width), np.uint8)
    for start in range(0, len(labels), CHUNK_PATIENTS):
        wanted = labels[start : start + CHUNK_PATIENTS]
        factors = rng.standard_normal((len(wanted), columns.factors), dtype=np.float32)
        uniform = rng.random((len(wanted), copula.layout.width))
        drawn = columns.rows(torch.from_numpy(wanted), torch.from_numpy(factors), torch.from_numpy(uniform))
        features[start : start + len(wanted)] = drawn.numpy()
    return features
