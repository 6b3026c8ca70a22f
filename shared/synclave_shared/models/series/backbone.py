"""The deep part of the series denoiser: what steps, level, label and context say, and a body that weighs it.

Layers and nonlinearities are those whose gradients can be clipped per patient, and which give the same number for the
same argument wherever it stands in a tensor (see ``diffusion.preconditioning.sigmoid``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synclave_shared.model_spec import LEVEL_KNOTS, SeriesSpec
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.transformer import SeriesTransformer
from synclave_shared.models.series.unet import SeriesUnet
from synclave_shared.models.tower import LevelFeatures, smooth_gate

__all__ = ["SeriesBackbone"]


class SeriesBackbone(nn.Module):
    """Evidence of all channels and steps -> correction; 0 before any training.

    Args:
        layout: of the schema: T steps, S columns of context, L label values; label number L is the hidden label.
        spec: the plan's numbers: which body, its width W, how deep.
        evidence: E, numbers per step that are read.
        corrections: O, numbers per step that are written.
    """

    places: Tensor

    def __init__(self, layout: SeriesLayout, spec: SeriesSpec, evidence: int, corrections: int) -> None:
        super().__init__()
        width = spec.width
        self.level = LevelFeatures()
        self.read = nn.Linear(evidence, width)
        self.place = nn.Embedding(layout.steps, width)
        self.level_in = nn.Linear(LEVEL_KNOTS, width)
        self.label_in = nn.Embedding(layout.label_values + 1, width)
        self.context_in = nn.Linear(layout.context.width, width)
        self.mix = nn.Linear(width, width)
        bodies = {"transformer": SeriesTransformer, "unet": SeriesUnet}
        self.body: nn.Module = bodies[spec.backbone](width, spec.blocks)
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, corrections)
        self.register_buffer("places", torch.arange(layout.steps), persistent=False)
        nn.init.normal_(self.place.weight, std=0.1)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, evidence: Tensor, visible: Tensor, labels: Tensor, context: Tensor, inside: Tensor) -> Tensor:
        """Map evidence [B, K, T, E] to corrections [B, K, T, O].

        Args:
            evidence: what is read.
            visible: [B, K], share of the signal.
            labels: [B].
            context: [B, S].
            inside: bool [B, T].
        """
        patients, levels, steps, _ = evidence.shape
        who = (self.label_in(labels) + self.context_in(context))[:, None]
        told = smooth_gate(self.mix(smooth_gate(self.level_in(self.level(visible)) + who)))
        place = self.place(self.places.expand(patients, steps))[:, None]
        hidden = (self.read(evidence) + place + who[:, :, None]).flatten(0, 1)
        within = inside[:, None].expand(patients, levels, steps).flatten(0, 1)
        hidden = self.body(hidden, told.flatten(0, 1), within)
        correction: Tensor = self.write(self.norm(hidden))
        return correction.reshape(patients, levels, steps, -1)
