"""From the sites' updates to the next model: pure functions on flat vectors.

The sites' updates are averaged with public weights; the average is then a pseudo-gradient for a server optimiser
(Reddi et al. 2021, Algorithm 2: FedAdagrad, FedYogi, FedAdam). The models of all rounds may be averaged for sampling.
All of it is post-processing of privatised values.

What one site can do to the model: each update's norm is bounded before it comes here, so that a site moves the mean by
at most that bound times its share among the sites that replied. With ``fedavg`` the model moves by the server's
learning rate times that. The adaptive optimisers normalise their step coordinate by coordinate: each coordinate moves
by about the learning rate whatever the mean's length, so a small update of one site may turn a step that the others
leave near zero. There the bound on the norm bounds a site's part of the moments, not of the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.plan import Federation

__all__ = ["ServerState", "averaged_model", "initial_state", "server_step", "weighted_mean"]

MOMENTUM: Final = 0.9
"""beta_1 of Reddi et al.; FedAdagrad has none."""

SECOND_MOMENT_DECAY: Final = 0.99
"""beta_2 of Reddi et al."""

ADAPTIVITY: Final = 1e-3
"""tau of Reddi et al., the degree of adaptivity, in units of the update; also the root of the first second moment."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """Moments of an adaptive server optimiser, float64 [P] each; both empty with ``fedavg``."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]


def weighted_mean(updates: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The mean of the updates that are there, with their sites' weights renormalised to sum 1.

    A site's share is thus its weight among the sites that replied: the fewer they are, the more each of them counts.

    Summed in the order of the sites' names: the same updates give the same bits whatever order they arrived in.

    Args:
        updates: site -> update [P]; not empty.
        weights: site -> positive public weight, for at least these sites.
    """
    total = sum(weights[site] for site in sorted(updates))
    mean = np.zeros_like(next(iter(updates.values())))
    for site in sorted(updates):
        mean += updates[site] * (weights[site] / total)
    return mean


def initial_state(federation: Federation, parameters: int) -> ServerState:
    """The server optimiser's state before the first round, for a model of P ``parameters``."""
    if federation.aggregator == "fedavg":
        return ServerState(np.zeros(0), np.zeros(0))
    return ServerState(np.zeros(parameters), np.full(parameters, ADAPTIVITY**2))


def server_step(
    federation: Federation, model: NDArray[np.float32], mean_update: NDArray[np.float64], state: ServerState
) -> tuple[NDArray[np.float32], ServerState]:
    """Apply the averaged update.

    Args:
        federation: which optimiser, and its learning rate.
        model: parameters [P] that the round began with.
        mean_update: averaged update [P] (new minus old).
        state: the optimiser's state before the round.

    Returns:
        The next parameters [P] and the state after the round.
    """
    rate = float(federation.server_learning_rate)
    if federation.aggregator == "fedavg":
        return (model + rate * mean_update).astype(np.float32), state
    squared = np.square(mean_update)
    match federation.aggregator:
        case "fedadagrad":
            first, second = mean_update, state.second + squared
        case "fedadam":
            first = MOMENTUM * state.first + (1 - MOMENTUM) * mean_update
            second = SECOND_MOMENT_DECAY * state.second + (1 - SECOND_MOMENT_DECAY) * squared
        case "fedyogi":
            first = MOMENTUM * state.first + (1 - MOMENTUM) * mean_update
            second = state.second - (1 - SECOND_MOMENT_DECAY) * squared * np.sign(state.second - squared)
    step = rate * first / (np.sqrt(second) + ADAPTIVITY)
    return (model + step).astype(np.float32), ServerState(first, second)


def averaged_model(
    federation: Federation, average: NDArray[np.float32], model: NDArray[np.float32], round_number: int
) -> NDArray[np.float32]:
    """The exponential average of the models after each training round, which is what is sampled from.

    Its weights are ``ema ** age``, scaled to sum 1 as Adam corrects its moments (Kingma and Ba 2015, section 3): the
    model before the first round has no part in it.

    Args:
        federation: with ``ema``; 0: the average is the last model.
        average: the average before the round [P].
        model: parameters [P] after the round.
        round_number: of the round, from 1.

    Returns:
        [P].
    """
    kept = float(federation.ema)
    if not kept:
        return model
    share = (1.0 - kept) / (1.0 - kept**round_number)
    return (average + share * (model.astype(np.float64) - average)).astype(np.float32)
