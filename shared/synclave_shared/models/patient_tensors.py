"""What a network is shown of some patients, as tensors: the part that all modalities have alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

__all__ = ["PatientTensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientTensors:
    """Some patients; every field is a tensor whose first axis is the patient, B of them.

    Attributes:
        present: [B], false or 0 for rows of padding; a number in (0, 1] is the share by which a patient counts.
    """

    present: Tensor

    def __len__(self) -> int:
        return len(self.present)

    @property
    def patient_of_row(self) -> Tensor | None:
        """None: the first axis of what the network reads is the patient, too."""
        return None

    def select(self, patients: Tensor) -> Self:
        """The batch of some patients."""
        return type(self)(**{field.name: getattr(self, field.name)[patients] for field in fields(self)})

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})
