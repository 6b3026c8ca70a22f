"""The series denoiser's network: how channels and steps bear on each other, beyond what each channel says of itself.

As with the codes (:mod:`synclave_shared.models.codes`) its output is a *correction*, and the untrained network, whose
weights are zero where it matters, is the exact denoiser of independent Gaussian channels. Two parts are added up:

- *couplings*, symmetric matrices that learn under heavy noise: of the channels within a step, and of their means over
  the stay; and how the context's columns move every channel;
- a *backbone* over the steps (``width``), which learns everything else where data or budget are large.

Shapes: ``B`` patients, ``K`` noise levels, ``T`` steps, ``C`` channels, ``S`` context columns, ``L`` label values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synclave_shared.model_spec import SeriesSpec
from synclave_shared.models.coupling import SymmetricCoupling
from synclave_shared.models.series.backbone import SeriesBackbone
from synclave_shared.models.series.layout import SeriesLayout

__all__ = ["SeriesDenoiser", "build_series_denoiser"]

INITIAL_SEED = 0
"""The untrained network is public and everywhere the same."""


class SeriesDenoiser(nn.Module):
    """Predicts corrections of values (in standard deviations of their posterior) and of being observed (in logits).

    Args:
        layout: of the schema.
        spec: the plan's numbers.
    """

    def __init__(self, layout: SeriesLayout, spec: SeriesSpec) -> None:
        super().__init__()
        corrections, columns = 2 * layout.channels, layout.context.width
        self.step: SymmetricCoupling | None = None
        if spec.couplings:
            self.step = SymmetricCoupling(corrections)
            self.stay = SymmetricCoupling(corrections)
            self.context = nn.Linear(columns, corrections, bias=False)
            nn.init.zeros_(self.context.weight)
        self.backbone: SeriesBackbone | None = None
        if spec.width:
            self.backbone = SeriesBackbone(layout, spec, corrections + layout.channels, corrections)

    def forward(
        self,
        noisy: Tensor,
        surprise: Tensor,
        visible: Tensor,
        labels: Tensor,
        context: Tensor,
        inside: Tensor,
    ) -> Tensor:
        """Correction logits.

        Args:
            noisy: [B, K, T, C], noisy values scaled to about unit variance.
            surprise: [B, K, T, 2C], what independent channels make of what is seen, beyond what was expected of them.
            visible: [B, K], share of the signal in what is seen.
            labels: [B], label numbers; L for a hidden label.
            context: [B, S], 0/1.
            inside: bool [B, T], the steps of the stay.

        Returns:
            [B, K, T, 2C].
        """
        within = inside[:, None, :, None]
        surprise = torch.where(within, surprise, 0.0)
        correction = torch.zeros_like(surprise)
        if self.step is not None:
            mean = surprise.sum(dim=2, keepdim=True) / within.sum(dim=2, keepdim=True)
            moved = self.context(context)[:, None, None] * (1.0 - visible)[..., None, None]
            correction = correction + self.step(surprise) + self.stay(mean) + moved
        if self.backbone is not None:
            evidence = torch.cat([torch.where(within, noisy, 0.0), surprise], dim=-1)
            correction = correction + self.backbone(evidence, visible, labels, context, inside)
        return correction


def build_series_denoiser(layout: SeriesLayout, spec: SeriesSpec) -> SeriesDenoiser:
    """The untrained network of a plan, the same everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL_SEED)
        return SeriesDenoiser(layout, spec)
