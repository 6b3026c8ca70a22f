"""A training round at a site: DP-SGD on any network and loss, from the coordinator's model to a released update.

The plan fixes every number that privacy depends on. What leaves is the difference of two models, the second of which is
a function of noised gradients only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.allocator import freed_memory_kept
from synclave_client.training.batch_selection import select_patients
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.private.batch import PatientBatch
from synclave_client.training.release import fixed_point_update
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.plan import TrainPlan

__all__ = ["Learner", "run_steps"]

_log = logging.getLogger("synclave.vault")


class Learner(Protocol):
    """A site's patients and what is learnt from them."""

    @property
    def network(self) -> nn.Module:
        """The network, on its device."""
        ...

    @property
    def values(self) -> int:
        """Numbers of one patient at the network's input, noise levels included."""
        ...

    def __len__(self) -> int:
        """Number of the site's patients."""
        ...

    def loss(self, network: nn.Module, batch: PatientBatch, /) -> Tensor:
        """One loss per patient of a batch, [B]; a patient's does not depend on the others'."""
        ...

    def batch(self, rows: NDArray[np.int64], size: int, streams: PatientStreams, step: int) -> PatientBatch:
        """The patients ``rows`` with their noise, padded to ``size`` with patients who are not there.

        Always of one size: with another shape a matrix product may round other patients' rows in another way, and a
        model made for it would blow that up.
        """
        ...


def run_steps(
    plan: TrainPlan,
    site_name: str,
    learner: Learner,
    model_vector: NDArray[np.float32],
    randomness: SecretRandomness,
    performance: Performance,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """Make the plan's DP-SGD steps of one round and return the update.

    Each step: Poisson selection of patients, per-patient clipping to C, Gaussian noise of standard deviation
    ``noise_multiplier * C`` on the sum, division by the *public* expected batch size. An empty selection makes a step
    of noise alone. Mechanism: :meth:`TrainPlan.mechanism` of a training round.

    Args:
        plan: the accepted plan.
        site_name: this site in the plan's roster.
        learner: network, loss and patients.
        model_vector: [P], the global model.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only. Noise is added once per step, whatever the tiles.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [P], fixed point, of L2 norm at most ``plan.federation.update_norm`` (up to rounding).

    Raises:
        PlanError: if the plan trains nothing.
        ProtocolError: if the update is not finite.
        SnapshotError: if the model vector has another length.
    """
    _, mechanism = plan.training()
    watch = watch or RoundWatch(mechanism, len(learner))
    network = learner.network
    load_parameter_vector(network, model_vector)
    clip_norm = float(mechanism.clip_norm)
    gradients = PatientGradients(network, learner.loss, clip_norm, performance)
    noise_std = float(mechanism.noise_multiplier) * clip_norm
    batch_size = plan.expected_batch_size(site_name)

    # The exact model is kept in float64, beside the float32 network that computes gradients.
    exact = torch.from_numpy(model_vector.astype(np.float64)).requires_grad_()
    optimiser = _optimiser(exact, plan)
    exact.grad = torch.zeros_like(exact)
    streams = PatientStreams(randomness)

    def batches(step: int, chosen: NDArray[np.int64]) -> Iterator[PatientBatch]:
        tile = performance.tile(learner.values)
        for start in range(0, len(chosen), tile):
            yield learner.batch(chosen[start : start + tile], tile, streams, step)

    with freed_memory_kept():
        for step in range(mechanism.steps):
            chosen = select_patients(len(learner), mechanism.selection_rate, randomness)
            watch.selected(chosen)
            exact.grad.copy_(gradients.clipped_sum(batches(step, chosen)))
            if (place := watch.probe(step, len(chosen))) is not None:
                alone = learner.batch(chosen[place : place + 1], 1, streams, step)
                watch.contributed(gradients.contribution_norm(alone), float(alone.present[0]))
            with watch.noising(exact.grad.numpy(), len(chosen)):
                randomness.add_normal(exact.grad.numpy(), noise_std)
            exact.grad /= batch_size
            optimiser.step()
            load_parameter_vector(network, exact.detach().numpy().astype(np.float32))
    if gradients.left_out:
        _log.warning(
            "%s: %d times a patient's gradient was not finite and did not count", site_name, gradients.left_out
        )
    return fixed_point_update(model_vector, exact.detach().numpy(), float(plan.federation.update_norm))


def _optimiser(parameters: Tensor, plan: TrainPlan) -> torch.optim.Optimizer:
    kind = torch.optim.SGD if plan.optimiser.name == "sgd" else torch.optim.Adam
    return kind([parameters], lr=plan.learning_rate())
