"""Patients from a copula's snapshot, each from randomness of its own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from synclave_server.sampling.generator import DRAW, START, tile_patients
from synclave_server.sampling.philox import PatientRandomness
from synclave_server.sampling.request import SampleRequest
from synclave_shared.models.copula import Copula
from synclave_shared.models.copula_drawing import CopulaColumns

__all__ = ["CopulaGenerator"]


class CopulaGenerator:
    """A fitted copula on one device; draws like :class:`synclave_server.sampling.generator.PatientGenerator`.

    Args:
        copula: the model.
        device: where to compute.
    """

    def __init__(self, copula: Copula, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._width = copula.layout.width
        self._columns = CopulaColumns(copula, self._device)
        self.tile = tile_patients(self._device.type, self._width)

    @torch.inference_mode()
    def features(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Draw patients.

        Args:
            request: its seed; nothing else in it bears on a copula's rows.
            patients: [n], patient numbers.
            labels: [n], their label numbers.

        Returns:
            uint8 [n, D]; each row depends on its own number and label alone.
        """
        randomness = PatientRandomness(int(request.seed))
        rows = np.empty((len(patients), self._width), np.uint8)
        for start in range(0, len(patients), self.tile):
            part = slice(start, start + self.tile)
            size = len(patients[part])
            # Tiles of one shape: a matrix product of another one may round a patient's latent values differently.
            padding = (0, self.tile - size)
            numbers = torch.from_numpy(np.pad(patients[part], padding, mode="edge")).to(self._device)
            given = torch.from_numpy(np.pad(labels[part], padding, mode="edge")).to(self._device)
            factors = randomness.normal(numbers, self._columns.factors, START)
            uniform = randomness.uniform(numbers, self._width, DRAW)
            rows[part] = self._columns.rows(given, factors, uniform)[:size].cpu().numpy()
        return rows
