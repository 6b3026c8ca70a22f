"""Guidance by a clinical model: patients are moved while they are drawn, towards what would teach the model most.

At every level the posterior mean of a patient is moved along a direction of length 1 (root mean square over the stay)
times the strength times the posterior's standard deviation: much while all is open, nothing once all is decided. The
denoiser is not differentiated; the clinical model is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from synclave_server.snapshots import Snapshot
from synclave_shared.diffusion.influence import Influence, class_direction, unit_direction
from synclave_shared.diffusion.series import Belief
from synclave_shared.errors import ConfigurationError
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import InfluenceSpec

if TYPE_CHECKING:
    from synclave_server.sampling.request import SampleRequest

__all__ = ["PlacedTarget", "SeriesTarget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTarget:
    """A clinical model with its guidance vector, as a plan of kind ``influence`` leaves them.

    Attributes:
        spec: the model's numbers.
        parameters: [P].
        guidance: [P], as long as the share of its direction that is not noise.
    """

    spec: InfluenceSpec
    parameters: Tensor
    guidance: Tensor

    @classmethod
    def of(cls, snapshot: Snapshot, schema_digest: str) -> Self:
        """The target of a snapshot.

        Raises:
            ConfigurationError: if it holds none, or one of another schema.
        """
        spec = snapshot.plan.model
        if not isinstance(spec, InfluenceSpec) or snapshot.record.round != snapshot.plan.last_round():
            raise ConfigurationError(
                expected="as --target the snapshot of a finished run with model.kind = influence",
                found=f"one of model.kind = {spec.kind}, round {snapshot.record.round}",
                remedy="Run such a plan; docs/series.md shows one.",
            )
        if snapshot.record.schema_digest != schema_digest:
            raise ConfigurationError(
                expected=f"a --target of the model's schema, {schema_digest[:16]}...",
                found=f"one of {snapshot.record.schema_digest[:16]}...",
                remedy="Train the clinical model under the same schema.",
            )
        parameters, guidance = torch.from_numpy(snapshot.model.copy()).chunk(2)
        return cls(spec=spec, parameters=parameters, guidance=guidance)

    def on(self, layout: SeriesLayout, device: torch.device) -> PlacedTarget:
        """The target on a device."""

        def build() -> nn.Module:
            return build_series_classifier(layout, self.spec)

        network = build()
        load_parameter_vector(network, self.parameters.numpy())
        influence = Influence(build, self.parameters.to(device), self.guidance.to(device))
        signal = float(self.guidance.norm())
        return PlacedTarget(network.to(device).eval().requires_grad_(requires_grad=False), influence, signal)


class PlacedTarget:
    """A clinical model on a device.

    Args:
        network: the model.
        influence: it, moved along its guidance vector and against it.
        signal: share of the guidance vector's direction that is not noise; the push by influence is as much weaker.
    """

    def __init__(self, network: nn.Module, influence: Influence, signal: float = 1.0) -> None:
        self._network, self._influence, self._signal = network, influence, signal

    def pushed(self, belief: Belief, labels: Tensor, context: Tensor, inside: Tensor, request: SampleRequest) -> Belief:
        """A belief moved towards what the clinical model lacks (``influence``) or takes for the label (``classifier``).

        Args:
            belief: of rows [B, K, T, C].
            labels: [B].
            context: [B, S].
            inside: bool [B, T].
            request: which of the two, and how much.
        """
        patients, levels = belief.row.shape[:2]
        rows = belief.shown().flatten(0, 1).detach().requires_grad_()
        of_row = torch.arange(patients, device=rows.device).repeat_interleave(levels)
        within = inside[of_row]

        def classify(network: nn.Module) -> Tensor:
            values, measured = rows.chunk(2, dim=-1)
            logits: Tensor = network(values, measured, context[of_row], within)
            return logits

        with torch.enable_grad():
            score = (
                self._influence.usefulness(classify, labels[of_row])
                if request.target_by == "influence"
                else class_direction(classify(self._network), labels[of_row])
            )
            direction = unit_direction(score, rows, within)
        strength = float(request.target_strength) * (self._signal if request.target_by == "influence" else 1.0)
        moved = (strength * direction).reshape(patients, levels, *rows.shape[1:])
        return Belief(row=belief.row + belief.spread * moved, spread=belief.spread)
