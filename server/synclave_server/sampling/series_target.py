"""Guidance by a clinical model: patients are moved while they are drawn, towards what would teach the model most.

At levels where something is still open, the posterior mean of a patient is moved along a direction of length 1 (root
mean square over the stay) times the strength times the posterior's standard deviation. The denoiser is not
differentiated; the clinical model is small.

What "most" means is told by a vector of the model's parameters: the real patients' mean gradient itself, or with
curvature the step that a model trained on synthetic patients lacks. For the latter the gap between the mean gradients
of real and of unguided synthetic patients is taken, so that it matters neither how well the model was trained nor by
which weights; what label shares explain of it is left out, since labels are given; and the damped Gauss-Newton matrix
of the synthetic patients turns it into a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_server.snapshots import Snapshot
from synclave_shared.diffusion.curvature import (
    clipped_gradients,
    conjugate_gradients,
    curvature_product,
    noise_damping,
)
from synclave_shared.diffusion.influence import Influence, class_direction, unit_direction
from synclave_shared.diffusion.series import Belief
from synclave_shared.errors import ConfigurationError
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.standard import StandardRows
from synclave_shared.plan import InfluenceSpec

if TYPE_CHECKING:
    from synclave_server.sampling.request import SampleRequest

__all__ = ["PlacedTarget", "SeriesTarget"]

OPEN_LEVELS: Final = (0.4, 1.0)
"""Noise levels at which patients are moved: below, most is decided; above, little is seen yet. 2 of the default 10."""

GRADIENTS_AT_ONCE: Final = 256
"""Patients whose gradients are in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTarget:
    """A clinical model with its guidance vector, as a plan of kind ``influence`` leaves them.

    Attributes:
        spec: the model's numbers.
        parameters: [P].
        guidance: the real patients' mean clipped gradient, noised, [P].
        noise_std: of each of its numbers.
        clip_norm: of a patient's gradient; infinite: nobody's is clipped.
        patients: how many real patients the mean is of.
        label_shares: of the label values among them, [L].
    """

    spec: InfluenceSpec
    parameters: Tensor
    guidance: Tensor
    noise_std: float
    clip_norm: float
    patients: int
    label_shares: NDArray[np.float32]

    @classmethod
    def of(cls, snapshot: Snapshot, schema_digest: str) -> Self:
        """The target of a snapshot.

        Raises:
            ConfigurationError: if it holds none, or one of another schema.
        """
        plan, record, spec = snapshot.plan, snapshot.record, snapshot.plan.model
        if not isinstance(spec, InfluenceSpec) or record.round != plan.last_round() or snapshot.label_shares is None:
            raise ConfigurationError(
                expected="as --target the snapshot of a finished run with model.kind = influence",
                found=f"one of model.kind = {spec.kind}, round {record.round}",
                remedy="Run such a plan; docs/series.md shows one.",
            )
        if record.schema_digest != schema_digest:
            raise ConfigurationError(
                expected=f"a --target of the model's schema, {schema_digest[:16]}...",
                found=f"one of {record.schema_digest[:16]}...",
                remedy="Train the clinical model under the same schema.",
            )
        parameters, guidance = torch.from_numpy(snapshot.model.copy()).chunk(2)
        mechanism = plan.mechanism(record.round)
        patients = sum(plan.site(name).nominal_patients for name in record.sites)
        noise = float(mechanism.noise_multiplier * mechanism.clip_norm) * math.sqrt(len(record.sites))
        return cls(
            spec=spec,
            parameters=parameters,
            guidance=guidance,
            noise_std=noise / patients,
            clip_norm=float(mechanism.clip_norm),
            patients=patients,
            label_shares=snapshot.label_shares,
        )

    def on(self, layout: SeriesLayout, device: torch.device, trial: StandardRows | None = None) -> PlacedTarget:
        """The target on a device.

        Args:
            layout: of the schema.
            device: where.
            trial: unguided synthetic patients, to take the step that they lack; None: the mean gradient is followed.
        """

        def build() -> nn.Module:
            return build_series_classifier(layout, self.spec)

        network = build()
        load_parameter_vector(network, self.parameters.numpy())
        network.eval().requires_grad_(requires_grad=False)
        if trial is None:
            vector, signal = self.guidance, self._signal(self.guidance)
        else:
            vector, signal = self._lacking(network, trial)
        influence = Influence(build, self.parameters.to(device), vector.to(device))
        return PlacedTarget(network.to(device), influence, signal)

    def _signal(self, vector: Tensor, noise: float = 0.0) -> float:
        """Share of a vector's direction that is not noise, of which ``noise`` is the square of another part."""
        noise += self.noise_std**2 * len(vector)
        square = float(vector @ vector)
        return math.sqrt(max(0.0, 1.0 - noise / square)) if square else 0.0

    @torch.enable_grad()
    def _lacking(self, network: nn.Module, trial: StandardRows) -> tuple[Tensor, float]:
        """The step that a model trained on synthetic patients lacks, [P], and the share of the gap that is no noise."""
        parts = (trial.values, trial.observed, trial.context, trial.inside)
        patients, labels = [torch.from_numpy(part) for part in parts], torch.from_numpy(trial.labels)
        weights = torch.tensor(self.spec.label_weights(self.label_shares.tolist()))[labels]
        gradients = torch.cat(
            [
                clipped_gradients(network, some[2:], some[0], some[1], self.clip_norm)
                for some in zip(
                    *(torch.split(part, GRADIENTS_AT_ONCE) for part in (labels, weights, *patients)), strict=True
                )
            ]
        )
        gap = self.guidance - gradients.mean(dim=0)
        means = torch.stack([gradients[labels == label].mean(dim=0) for label in np.unique(trial.labels)])
        by_shares = torch.linalg.qr((means[1:] - means[0]).T).Q
        gap = gap - by_shares @ (by_shares.T @ gap)
        # Chance decides who is among the real and the trial patients; the latter vary as the former do.
        varied = float((gradients - gradients.mean(dim=0)).square().sum(dim=1).mean())
        chance = varied * (1 / self.patients + 1 / len(gradients))
        product = curvature_product(network, patients, weights)
        damping = noise_damping(product, gap, chance + self.noise_std**2 * len(gap))
        if math.isinf(damping):
            return gap, 0.0
        return conjugate_gradients(lambda v: product(v) + damping * v, gap), self._signal(gap, chance)


class PlacedTarget:
    """A clinical model on a device.

    Args:
        network: the model.
        influence: it, moved along its guidance vector and against it.
        signal: share of the vector's direction that is not noise; the push by influence is as much weaker.
    """

    def __init__(self, network: nn.Module, influence: Influence, signal: float = 1.0) -> None:
        self._network, self._influence, self._signal = network, influence, signal

    def pushed(
        self, belief: Belief, sigma: Tensor, labels: Tensor, context: Tensor, inside: Tensor, request: SampleRequest
    ) -> Belief:
        """A belief moved towards what the clinical model lacks (``influence``) or takes for the label (``classifier``).

        Args:
            belief: of rows [B, K, T, C].
            sigma: noise levels of the rows, [B, K].
            labels: [B].
            context: [B, S].
            inside: bool [B, T].
            request: which of the two, and how much.
        """
        strength = float(request.target_strength) * (self._signal if request.target_by == "influence" else 1.0)
        open_yet = (sigma >= OPEN_LEVELS[0]) & (sigma <= OPEN_LEVELS[1])
        if not strength or not open_yet.any():
            return belief
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
        much = torch.where(open_yet, strength, 0.0)[..., None, None]
        moved = much * direction.reshape(patients, levels, *rows.shape[1:])
        return Belief(row=belief.row + belief.spread * moved, spread=belief.spread)
