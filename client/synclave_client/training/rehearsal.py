"""The clipping self-test of a schema's model, on invented patients: what a site does before it opens its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from synclave_client.performance import Performance
from synclave_client.training.loop import DiffusionBatch, DiffusionLoss
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import SelfTestReport, check_places, self_test
from synclave_shared.diffusion.preconditioning import prior_logits
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import ModelSpec

if TYPE_CHECKING:
    from synclave_shared.data.schema import Schema

__all__ = ["rehearse"]

INVENTED_PATIENTS: Final = 5
"""Enough to find patients that are mixed, few enough for a second of computing."""

SHARE_OF_CODES: Final = 0.2
"""Of the codes that an invented patient has."""

COUPLING_STD: Final = 0.1
"""Of the invented parameters: away from zero, where every gradient path is open."""


def rehearse(
    schema: Schema, spec: ModelSpec, performance: Performance, device: torch.device | str = "cpu"
) -> SelfTestReport:
    """Compare clipped sums of the schema's model with one backward pass per patient, on invented patients.

    Args:
        schema: columns and label values.
        spec: the plan's model settings.
        performance: how the site computes.
        device: where.

    Raises:
        ClippingError: if gradients cannot be bounded per patient on this machine, naming the layer.
    """
    layout = CodeLayout.of(schema)
    generator = torch.Generator().manual_seed(0)
    network = build_code_denoiser(layout, spec).to(device)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(COUPLING_STD * torch.randn(parameter.shape, generator=generator))
    anchor = torch.randn(layout.label_values, layout.width, generator=generator)
    loss = DiffusionLoss(spec=spec, layout=layout, prior=prior_logits(anchor, layout).to(device))
    streams = PatientStreams(SecretRandomness(bytes(32)))

    def invented(patients: int) -> DiffusionBatch:
        clean = (torch.rand(patients, layout.width, generator=generator) < SHARE_OF_CODES).float()
        for start, stop in layout.categories:
            choice = torch.randint(start, stop, (patients, 1), generator=generator)
            clean[:, start:stop] = 0
            clean.scatter_(1, choice, 1)
        labels = torch.arange(patients) % layout.label_values
        return loss.draw(clean.to(device), labels.to(device), streams, 0, np.arange(patients, dtype=np.int64))

    # Always the same patients: whether a machine passes must not hang on a draw.
    report = self_test(network, loss, invented(INVENTED_PATIENTS), performance)
    check_places(network, loss, invented(performance.tile(spec.noise_levels * layout.width)))
    return report
