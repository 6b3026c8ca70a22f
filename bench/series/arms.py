"""The contenders: peers, and our generator with its patients drawn by label only, or guided by a clinical model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from bench.series.drawing import Drawing, patients_of
from bench.series.fits import Generator, SeriesTask, fit_generator, fit_target
from bench.series.folder import SeriesFolder
from bench.series.peers import PEERS, fit_peer
from synclave_server.sampling.request import TargetBy
from synclave_server.sampling.series_target import SeriesTarget
from synclave_shared.data.series.dataset import SeriesDataset

__all__ = ["ARMS", "OURS", "Cohort", "our_cohorts", "peer_cohort"]

OURS: Final[dict[str, tuple[str, TargetBy, Decimal]]] = {
    "label": ("label only (ours)", "influence", Decimal(0)),
    "classifier": ("classifier guidance (ours)", "classifier", Decimal("0.05")),
    "influence": ("influence guidance (ours)", "influence", Decimal("0.05")),
}
"""Title, how a clinical model guides, and how far."""
ARMS: Final[dict[str, str]] = {
    **{name: title for name, (title, _) in PEERS.items()},
    **{name: title for name, (title, _, _) in OURS.items()},
}
"""Name -> title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Drawn patients, and what they cost.

    Attributes:
        patients: the synthetic ones.
        fit_s: CPU time for all that was trained for them.
        draw_s: CPU time to draw them.
        steps: optimiser steps that a peer's time allowed; None for ours.
        composed_epsilon: of all runs at a site; None without noise.
    """

    patients: SeriesDataset
    fit_s: float
    draw_s: float
    steps: int | None
    composed_epsilon: float | None


def peer_cohort(name: str, data: SeriesFolder, patients: int, *, limit_s: float, seed: int) -> Cohort:
    """Train a peer on all sites' patients together and draw, with their shares of labels."""
    train = data.train
    begun = time.process_time()
    peer = fit_peer(name, data.schema, train, limit_s=limit_s, seed=seed)
    fitted = time.process_time()
    synthetic = peer.draw(np.sort(train.labels)[np.arange(patients) * len(train) // patients])
    return Cohort(
        patients=synthetic,
        fit_s=fitted - begun,
        draw_s=time.process_time() - fitted,
        steps=peer.fitted.steps,
        composed_epsilon=None,
    )


def our_cohorts(arms: Sequence[str], task: SeriesTask, patients: int) -> Iterator[tuple[str, Cohort]]:
    """One generator for all ``arms``, and one clinical model if any of them is guided."""
    begun = time.process_time()
    generator = fit_generator(task)
    generator_s = time.process_time() - begun
    target, target_s, composed = None, 0.0, math.inf
    if any(arm != "label" for arm in arms):
        begun = time.process_time()
        target, composed = fit_target(task, generator)
        target_s = time.process_time() - begun
    for arm in arms:
        guided = arm != "label"
        begun = time.process_time()
        synthetic = drawn(task, generator, target if guided else None, arm, patients)
        spent = composed if guided else task.epsilon
        yield (
            arm,
            Cohort(
                patients=synthetic,
                fit_s=generator_s + (target_s if guided else 0.0),
                draw_s=time.process_time() - begun,
                steps=None,
                composed_epsilon=None if spent is None or math.isinf(spent) else spent,
            ),
        )


def drawn(
    task: SeriesTask, generator: Generator, target: SeriesTarget | None, arm: str, patients: int
) -> SeriesDataset:
    """Patients of an arm, as ``synclave sample`` draws them."""
    _, by, strength = OURS[arm]
    drawing = Drawing.of(task, generator, patients, target=target, target_by=by, target_strength=strength)
    return patients_of(task, drawing.rows(), drawing.labels)
