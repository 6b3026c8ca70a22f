"""Small recurrent networks of the report: one that predicts the label, one that predicts the next step.

Both read a course step by step as a gated recurrent unit (Cho et al. 2014) and train in seconds on one core, with a
fixed number of steps whatever the size of the cohort. Legend: N patients, T steps, C channels, S static columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_server.evaluation.series.courses import channel_scale
from synclave_shared.data.series.filling import filled

__all__ = ["RECURRENT_PATIENTS", "Forecaster", "RecurrentClassifier"]

RECURRENT_PATIENTS: Final = 4_000
"""Most patients that a network learns from: what it holds in memory at once."""
HIDDEN: Final = 32
STEPS: Final = 250
"""Optimiser steps."""
BATCH: Final = 128
RATE: Final = 4e-3
DECAY: Final = 1e-3
"""Weight decay: cohorts are small."""


class _Network(nn.Module):
    """A recurrent unit, and a linear reading of its state and input at each step."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.unit = nn.GRU(inputs, HIDDEN, batch_first=True)
        self.reading = nn.Linear(HIDDEN + inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [N, T, I] -> outputs at each step [N, T, O]."""
        state, _ = self.unit(x)
        result: Tensor = self.reading(torch.cat([state, x], dim=2))
        return result


class _Reader:
    """Standardises courses as the training cohort's are, and holds the network that reads them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._network: _Network | None = None
        self._scale: tuple[NDArray[np.float32], NDArray[np.float32]] = (
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
        )

    def _inputs(self, features: NDArray[Any]) -> Tensor:
        """Values carried forward in standard deviations (0 before the first), what was observed, static columns."""
        values, observed = features["values"], features["observed"]
        seen = np.maximum.accumulate(observed, axis=1)
        # ``filled`` also carries the first observation back, which would tell a forecaster the future.
        known = (filled(values, observed) - self._scale[0]) / self._scale[1] * seen
        static = np.repeat(features["static"][:, None], values.shape[1], axis=1)
        return torch.from_numpy(np.concatenate([known, observed, static], axis=2, dtype=np.float32))

    def _train(self, features: NDArray[Any], outputs: int, loss: Callable[[Tensor, NDArray[np.intp]], Tensor]) -> None:
        """Fit to at most :data:`RECURRENT_PATIENTS`; ``loss`` of the outputs [B, T, O] and the positions [B]."""
        self._scale = channel_scale(features)
        with _one_thread(self._seed):
            x = self._inputs(features)
            network = _Network(x.shape[2], outputs)
            optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
            rng = np.random.default_rng(self._seed)
            for _ in range(STEPS):
                batch = rng.choice(len(x), size=min(BATCH, len(x)), replace=False)
                optimiser.zero_grad()
                loss(network(x[batch]), batch).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                schedule.step()
        self._network = network.eval()

    @torch.no_grad()
    def _read(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs at each step [N, T, O]."""
        if self._network is None:
            raise ValueError("fit the model first")
        with _one_thread(self._seed):
            parts = [
                self._network(self._inputs(features[start : start + 1024])).numpy()
                for start in range(0, len(features), 1024)
            ]
        return np.concatenate(parts)


class RecurrentClassifier(_Reader):
    """Reads a course and says at its end how probable the positive class is."""

    def fit(self, features: NDArray[Any], positive: NDArray[np.bool_]) -> Self:
        """Fit on records [N] and a class per patient [N]."""
        kept = _some(len(features), self._seed)
        last = torch.from_numpy(features["length"][kept] - 1)
        target = torch.from_numpy(positive[kept].astype(np.float32))

        def loss(outputs: Tensor, batch: NDArray[np.intp]) -> Tensor:
            scores = outputs[torch.arange(len(batch)), last[batch], 0]
            return nn.functional.binary_cross_entropy_with_logits(scores, target[batch])

        self._train(features[kept], 1, loss)
        return self

    def predict_proba(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities of False and True [N, 2]."""
        scores = self._read(features)[np.arange(len(features)), features["length"] - 1, 0].astype(np.float64)
        probability = 1 / (1 + np.exp(-scores))
        return np.stack([1 - probability, probability], axis=1)


class Forecaster(_Reader):
    """Says of every channel what it will be at the next step."""

    def fit(self, features: NDArray[Any]) -> Self:
        """Fit on records [N]: least absolute deviations of what is observed at the next step."""
        features = features[_some(len(features), self._seed)]
        mean, deviation = channel_scale(features)
        target = torch.from_numpy((features["values"][:, 1:] - mean) / deviation)
        counted = torch.from_numpy(features["observed"][:, 1:].astype(np.float32))

        def loss(outputs: Tensor, batch: NDArray[np.intp]) -> Tensor:
            weight = counted[batch]
            return ((outputs[:, :-1] - target[batch]).abs() * weight).sum() / weight.sum().clamp(min=1)

        self._train(features, features["values"].shape[2], loss)
        return self

    def predict(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Values from -1 to 1 at steps 1 to T - 1, each from the steps before it [N, T - 1, C]."""
        predicted: NDArray[np.float32] = np.clip(self._read(features)[:, :-1] * self._scale[1] + self._scale[0], -1, 1)
        return predicted


def _some(patients: int, seed: int) -> NDArray[np.intp]:
    order = np.random.default_rng(seed).permutation(patients)[:RECURRENT_PATIENTS]
    return np.sort(order)


@contextmanager
def _one_thread(seed: int) -> Iterator[None]:
    """Fixed randomness and order of sums, and no waiting of threads for each other in small products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
