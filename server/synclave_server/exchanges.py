"""What each kind of round asks of the sites, and what it makes of their releases.

The round loop knows none of it: another kind of release is another class here, a mechanism in the plan, and a branch in
the sites' workload. Everything here is post-processing of what the sites released.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synclave_server.aggregate import ServerState, averaged_model, server_step, weighted_mean
from synclave_shared.data.schema import Schema
from synclave_shared.errors import FederationError
from synclave_shared.models.anchor import (
    Anchor,
    anchor_from_marginals,
    anchor_of_payload,
    anchor_payload,
    marginals_size,
)
from synclave_shared.models.copula import copula_vector, fit_copula, moments_size
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.series.anchor import SeriesAnchor, anchor_from_moments
from synclave_shared.models.series.anchor import moments_size as series_moments_size
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import RoundKind, TrainPlan
from synclave_shared.score_histogram import histogram_size

__all__ = [
    "Exchange",
    "InfluenceExchange",
    "MarginalsExchange",
    "MomentsExchange",
    "Procedure",
    "ScoresExchange",
    "SeriesMarginalsExchange",
    "State",
    "TrainingExchange",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a run knows after some round.

    Attributes:
        model: parameters with which the next round begins, float32 [P].
        average: what is sampled from, float32 [P]: the same, or the average of the models so far.
        anchor: what the marginals tell, float32, or None before them: logits [L, D] of codes, a vector [A] of series.
        label_shares: float32 [L], likewise.
        server: the server optimiser's state.
        next_round: number of the next round.
    """

    model: NDArray[np.float32]
    average: NDArray[np.float32]
    anchor: NDArray[np.float32] | None
    label_shares: NDArray[np.float32] | None
    server: ServerState
    next_round: int


class Exchange(Protocol):
    """One kind of round."""

    @property
    def title(self) -> str:
        """Its name for people; empty if the round's number says enough."""
        ...

    @property
    def size(self) -> int:
        """Number of coordinates of a site's release."""
        ...

    def payload(self, state: State) -> NDArray[np.float32]:
        """What goes to the sites; empty: nothing."""
        ...

    def combine(
        self, state: State, releases: Mapping[str, NDArray[np.float64]], round_number: int
    ) -> tuple[State, NDArray[np.float64]]:
        """What the round makes of the valid releases, by site, and the one vector into which they were combined.

        Raises:
            FederationError: if nothing usable comes of them.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """How a plan is run.

    Attributes:
        start: the model before the first round.
        fixed_size: whether every model of the run has as many parameters.
        exchanges: what is done in each kind of round that the plan has.
        anchor, label_shares: what is known before the first round, from an earlier run.
    """

    start: NDArray[np.float32]
    fixed_size: bool
    exchanges: Mapping[RoundKind, Exchange]
    anchor: NDArray[np.float32] | None = None
    label_shares: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginalsExchange:
    """Sums per label value become the anchor.

    Attributes:
        plan: the plan.
        schema: its schema.
        model: the model that the anchor alone gives; None: the model stays as it is.
    """

    plan: TrainPlan
    schema: Schema
    model: Callable[[Anchor], NDArray[np.float32]] | None = None
    title: str = "marginals"

    @property
    def size(self) -> int:
        """See :class:`Exchange`."""
        return marginals_size(self.schema)

    def payload(self, _state: State) -> NDArray[np.float32]:
        """Nothing."""
        return np.zeros(0, np.float32)

    def combine(
        self, state: State, releases: Mapping[str, NDArray[np.float64]], round_number: int
    ) -> tuple[State, NDArray[np.float64]]:
        """See :class:`Exchange`."""
        total, noise_std = _summed(self.plan, round_number, releases)
        anchor = anchor_from_marginals(total, self.schema, noise_std)
        if self.model is not None:
            model = self.model(anchor)
            state = replace(state, model=model, average=model)
        shares = anchor.label_shares.astype(np.float32)
        return replace(state, anchor=anchor.logits, label_shares=shares), total


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesMarginalsExchange:
    """Moments of time series become the anchor, kept as one vector."""

    plan: TrainPlan
    layout: SeriesLayout
    title: str = "marginals"

    @property
    def size(self) -> int:
        """See :class:`Exchange`."""
        return series_moments_size(self.layout)

    def payload(self, _state: State) -> NDArray[np.float32]:
        """Nothing."""
        return np.zeros(0, np.float32)

    def combine(
        self, state: State, releases: Mapping[str, NDArray[np.float64]], round_number: int
    ) -> tuple[State, NDArray[np.float64]]:
        """See :class:`Exchange`."""
        total, noise_std = _summed(self.plan, round_number, releases)
        anchor, shares = anchor_from_moments(total, self.layout, noise_std)
        vector = anchor.to_vector()
        # What no site would take is found out here, and not by every site after it has paid.
        SeriesAnchor.from_vector(vector, self.layout)
        return replace(state, anchor=vector, label_shares=shares.astype(np.float32)), total


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsExchange:
    """Second moments about the anchor become a copula."""

    plan: TrainPlan
    layout: CodeLayout
    title: str = "second moments"

    @property
    def size(self) -> int:
        """See :class:`Exchange`."""
        return moments_size(self.layout)

    def payload(self, state: State) -> NDArray[np.float32]:
        """The anchor."""
        if state.anchor is None or state.label_shares is None:
            raise AssertionError("a copula's plan has marginals, and they come first")
        return anchor_payload(Anchor(logits=state.anchor, label_shares=state.label_shares.astype(np.float64)))

    def combine(
        self, state: State, releases: Mapping[str, NDArray[np.float64]], round_number: int
    ) -> tuple[State, NDArray[np.float64]]:
        """See :class:`Exchange`."""
        total, noise_std = _summed(self.plan, round_number, releases)
        # As the sites read it, to the bit: what they summed is about these numbers.
        anchor = anchor_of_payload(self.payload(state), self.layout)
        model = copula_vector(fit_copula(total, noise_std, anchor, self.layout))
        return replace(state, model=model, average=model), total


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExchange:
    """Updates are averaged and applied.

    Attributes:
        plan: the plan.
        size: number of parameters P.
        anchor_size: numbers of the anchor that follow them in the payload; zeros if there is no anchor.
        with_shares: whether the label values' shares follow that.
    """

    plan: TrainPlan
    size: int
    anchor_size: int
    with_shares: bool = False
    title: str = ""

    def payload(self, state: State) -> NDArray[np.float32]:
        """The model, then the anchor, then perhaps the shares."""
        anchor = np.zeros(self.anchor_size, np.float32) if state.anchor is None else state.anchor.ravel()
        shares = state.label_shares if self.with_shares and state.label_shares is not None else np.zeros(0, np.float32)
        return np.concatenate([state.model, anchor, shares])

    def combine(
        self, state: State, releases: Mapping[str, NDArray[np.float64]], round_number: int
    ) -> tuple[State, NDArray[np.float64]]:
        """See :class:`Exchange`."""
        mean = weighted_mean(releases, self.plan.weights())
        model, server = server_step(self.plan.federation, state.model, mean, state.server)
        if not np.all(np.isfinite(model)):
            raise FederationError(
                expected=f"a finite model after round {round_number} of {self.plan.last_round()}",
                found="an overflow",
                remedy="Lower server_learning_rate in a new plan.",
            )
        average = averaged_model(self.plan.federation, state.average, model, round_number)
        return replace(state, model=model, average=average, server=server), mean


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluenceExchange:
    """Gradients of a clinical model become its guidance vector, which is kept behind the model.

    Attributes:
        plan: the plan.
        size: number of parameters P of the clinical model.
    """

    plan: TrainPlan
    size: int
    title: str = "influence"

    def payload(self, state: State) -> NDArray[np.float32]:
        """The clinical model, the anchor, the label values' shares."""
        return _clinical_payload(state, self.size)

    def combine(
        self, state: State, releases: Mapping[str, NDArray[np.float64]], round_number: int
    ) -> tuple[State, NDArray[np.float64]]:
        """See :class:`Exchange`. The vector's length is the share of its direction that is not noise, at most 1.

        Raises:
            FederationError: if it is no longer than noise alone would be.
        """
        total, noise_std = _summed(self.plan, round_number, releases)
        length = float(np.linalg.norm(total))
        noise = noise_std * math.sqrt(self.size)
        if length <= noise:
            raise FederationError(
                expected="an influence vector that is longer than its noise",
                found=f"a length of {length:.3g}, and {noise:.3g} by noise alone in {self.size} parameters",
                remedy="Take a smaller clinical model (architecture = logistic), more patients, or a larger epsilon.",
            )
        signal = math.sqrt(1.0 - (noise / length) ** 2)
        vector = (signal * total / length).astype(np.float32)
        model = np.concatenate([state.model[: self.size], vector])
        return replace(state, model=model, average=model), total


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresExchange:
    """Histograms of a clinical model's predictions, which are kept behind the model, one for each site.

    Attributes:
        plan: the plan.
        parameters: number of parameters P of the clinical model.
        label_values: number of label values L.
    """

    plan: TrainPlan
    parameters: int
    label_values: int
    title: str = "scores"

    @property
    def size(self) -> int:
        """See :class:`Exchange`."""
        return histogram_size(self.label_values)

    def payload(self, state: State) -> NDArray[np.float32]:
        """The clinical model, the anchor, the label values' shares."""
        return _clinical_payload(state, self.parameters)

    def combine(
        self, state: State, releases: Mapping[str, NDArray[np.float64]], round_number: int
    ) -> tuple[State, NDArray[np.float64]]:
        """See :class:`Exchange`. Each site's noisy histograms stay apart, in the order of the sites' names."""
        total, _ = _summed(self.plan, round_number, releases)
        apart = [releases[site].astype(np.float32) for site in sorted(releases)]
        model = np.concatenate([state.model[: self.parameters], *apart])
        return replace(state, model=model, average=model), total


def _clinical_payload(state: State, parameters: int) -> NDArray[np.float32]:
    if state.anchor is None or state.label_shares is None:
        raise AssertionError("the plan begins with a clinical model, which knows them")
    return np.concatenate([state.model[:parameters], state.anchor, state.label_shares])


def _summed(
    plan: TrainPlan, round_number: int, releases: Mapping[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], float]:
    """The sum of the sites' noisy sums, and the std of the noise in it: by the sites that are there, and no others."""
    mechanism = plan.mechanism(round_number)
    # In the order of names: the same releases give the same bits whatever order they arrived in.
    total: NDArray[np.float64] = np.sum([releases[site] for site in sorted(releases)], axis=0)
    return total, float(mechanism.noise_multiplier * mechanism.clip_norm) * math.sqrt(len(releases))
