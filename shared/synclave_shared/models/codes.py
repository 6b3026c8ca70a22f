"""The code denoiser's network: how columns bear on each other.

Its output is a *correction* in logits. What each column's own noisy value and its noisy prevalence say is added
outside (:mod:`synclave_shared.diffusion.preconditioning`), so the untrained network, whose weights are zero where it
matters, is already the exact denoiser of independent columns, and all that the privacy budget has to pay for are the
correlations.

Two parts are added up: *couplings* of pairs of columns (:mod:`~synclave_shared.models.coupling`), which learn under
heavy noise, and a *tower* (:mod:`~synclave_shared.models.tower`), which learns everything else where the data or the
budget are large. The plan says which are there.

Shapes: ``B`` patients, ``K`` noise levels, ``D`` columns, ``L`` label values, ``P`` parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_shared.diffusion.preconditioning import posterior_mean
from synclave_shared.errors import SnapshotError
from synclave_shared.models.coupling import SymmetricCoupling
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.tower import ResidualTower
from synclave_shared.plan import ModelSpec

if TYPE_CHECKING:
    from synclave_shared.data.schema import Schema

__all__ = [
    "CodeDenoiser",
    "anchor_size",
    "build_code_denoiser",
    "column_scale",
    "model_payload_size",
    "parameter_count",
    "split_payload",
]

VARIANCE_FLOOR: Final = 0.1
"""Below about this variance a column's couplings are held to be more noise than signal.

With 1 / sqrt(v + floor) instead, a noisy step gains less and rare codes become too common.
"""

TOWER_VARIANCE_FLOOR: Final = 0.01
"""The tower sees columns standardised down to about this variance."""

INITIAL_SEED: Final = 0
"""The untrained network is public and everywhere the same."""


class CodeDenoiser(nn.Module):
    """Correction of the independent columns' posterior logits.

    Args:
        layout: columns and label values.
        spec: the plan's numbers: ``coupled_columns``, ``width`` and ``blocks``.
    """

    def __init__(self, layout: CodeLayout, spec: ModelSpec) -> None:
        super().__init__()
        self._layout = layout
        coupled = min(layout.width, spec.coupled_columns)
        self.coupling = SymmetricCoupling(coupled) if coupled else None
        self.tower = ResidualTower(layout.width, layout.label_values, spec.width, spec.blocks) if spec.width else None

    def forward(self, surprise: Tensor, visible: Tensor, labels: Tensor, prior: Tensor) -> Tensor:
        """Correction logits.

        Args:
            surprise: [B, K, D], probabilities of the columns taken alone, less what they were before anything was seen.
            visible: [B, K], share of the signal that is seen, 0 to 1.
            labels: [B], label numbers; L for a hidden label.
            prior: [L + 1, D], from :func:`~synclave_shared.diffusion.preconditioning.prior_logits`.

        Returns:
            [B, K, D], zero before any training.
        """
        correction: Tensor | None = None
        if self.coupling is not None:
            correction = self._coupled(surprise, prior)
        if self.tower is not None:
            scale = torch.rsqrt(column_variance(prior, self._layout) + TOWER_VARIANCE_FLOOR)
            added = self.tower(scale * surprise, visible, labels)
            correction = added if correction is None else correction + added
        return torch.zeros_like(surprise) if correction is None else correction

    def _coupled(self, surprise: Tensor, prior: Tensor) -> Tensor:
        assert self.coupling is not None  # noqa: S101 - forward looked
        scale = column_scale(prior, self._layout)
        if self.coupling.width == self._layout.width:
            coupled: Tensor = scale * self.coupling(scale * surprise)
            return coupled
        chosen = most_prevalent(prior, self.coupling.width)
        scale = scale[chosen]
        spread = torch.zeros_like(surprise)
        return spread.index_copy(-1, chosen, scale * self.coupling(scale * surprise[..., chosen]))


def column_variance(prior: Tensor, layout: CodeLayout) -> Tensor:
    """Variance of each column [D] under the hidden label."""
    probability = posterior_mean(prior[-1], layout)
    return probability * (1 - probability)


def column_scale(prior: Tensor, layout: CodeLayout) -> Tensor:
    """What standardises each column for the couplings [D]: ``sqrt(v) / (v + VARIANCE_FLOOR)``.

    Applied to their input *and* output. For common columns it is nearly 1 / sqrt(v), which makes a coupling a
    correlation; for rare columns it goes to 0, as a Wiener filter does where there is more noise than signal.
    """
    variance = column_variance(prior, layout)
    return variance.sqrt() / (variance + VARIANCE_FLOOR)


def most_prevalent(prior: Tensor, count: int) -> Tensor:
    """The columns most prevalent under any label value, ascending, int64 [count].

    Logits are compared as they came with the payload, without arithmetic: every site finds the same columns.
    """
    order = prior[:-1].amax(dim=0).sort(descending=True, stable=True).indices
    return order[:count].sort().values


def build_code_denoiser(layout: CodeLayout, spec: ModelSpec) -> CodeDenoiser:
    """The untrained network: corrections are zero; the tower's inner weights come from a public seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL_SEED)
        return CodeDenoiser(layout, spec)


def parameter_count(schema: Schema, spec: ModelSpec) -> int:
    """Number of parameters P."""
    return spec.parameter_count(schema.width, len(schema.label.values))


def anchor_size(schema: Schema) -> int:
    """Number of anchor logits in a payload: one per label value and column."""
    return len(schema.label.values) * schema.width


def model_payload_size(schema: Schema, spec: ModelSpec) -> int:
    """Number of float32 values that go to a site each round: P parameters, then L*D anchor logits."""
    return parameter_count(schema, spec) + anchor_size(schema)


def split_payload(
    payload: NDArray[np.float32], schema: Schema, spec: ModelSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take a round's payload apart.

    Returns:
        Parameters [P] and anchor logits [L, D] (zeros: no anchor).

    Raises:
        SnapshotError: if the length is not :func:`model_payload_size`.
    """
    parameters = parameter_count(schema, spec)
    expected = parameters + anchor_size(schema)
    if payload.shape != (expected,):
        raise SnapshotError(
            expected=f"{expected} values: {parameters} parameters and {expected - parameters} anchor logits",
            found=f"shape {payload.shape}",
            remedy="Check that coordinator and site run the same version of Synclave.",
        )
    return payload[:parameters], payload[parameters:].reshape(len(schema.label.values), schema.width)
