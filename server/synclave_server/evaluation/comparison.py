"""Three cohorts of equal size against one reference, so that a difference is never a difference of sample sizes.

Legend: N patients, D columns of the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_PATIENTS",
    "Columns",
    "Comparison",
    "Floor",
    "Table",
    "compare",
    "independent_columns",
    "independent_floor",
    "oppose",
]

MAX_PATIENTS: Final = 10_000
"""Most patients of a cohort that are measured: beyond it intervals hardly shrink and the report takes minutes."""


class Columns(Protocol):
    """The part of a schema's column group that evaluation needs: columns ``start`` to ``stop`` belong together."""

    @property
    def kind(self) -> str:
        """``binary`` (independent 0/1 columns) or ``categorical`` (at most one column is 1)."""

    @property
    def start(self) -> int:
        """First column."""

    @property
    def stop(self) -> int:
        """One past the last column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Patients as arrays.

    Attributes:
        features: uint8 [N, D], each 0 or 1; of time series one record per patient, see
            :func:`~synclave_server.evaluation.series.courses.records`.
        labels: int64 [N], positions in the schema's label values.
    """

    features: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """The patients at ``rows`` (int64), in that order."""
        return Table(features=self.features[rows], labels=self.labels[rows])

    def sample(self, patients: int, rng: np.random.Generator) -> Table:
        """At most ``patients`` rows, drawn without replacement, in their original order."""
        if patients >= len(self):
            return self
        return self.take(np.sort(rng.choice(len(self), size=patients, replace=False)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is measured against what.

    Attributes:
        reference: held-out real patients.
        synthetic: the patients under test.
        other_real: other real patients (ceiling): the training patients, or one half of the held-out ones.
        independent: ``other_real`` with every column drawn on its own within each label (floor).
        split: True if the held-out patients had to be halved because no training patients were given.
        other_half: positions among the held-out patients of the half that became the other real patients; empty if
            they were not halved.
    """

    reference: Table
    synthetic: Table
    other_real: Table
    independent: Table
    split: bool
    other_half: NDArray[np.int64]

    def contenders(self) -> Iterator[Table]:
        """Synthetic, other real, independent: the order of value, ceiling and floor everywhere."""
        yield from (self.synthetic, self.other_real, self.independent)


Floor = Callable[[Table, np.random.Generator], Table]
"""Makes of patients as many without any relation between their columns."""


def attributes(groups: Sequence[Columns]) -> Iterator[slice]:
    """What varies as one: each column of a binary group, and each categorical group as a whole."""
    for group in groups:
        if group.kind == "categorical":
            yield slice(group.start, group.stop)
        else:
            yield from (slice(column, column + 1) for column in range(group.start, group.stop))


def independent_columns(source: Table, groups: Sequence[Columns], rng: np.random.Generator) -> Table:
    """Draw as many patients as ``source`` has, every attribute on its own from the patients with the same label.

    Label counts are those of ``source``. Nothing but prevalence within a label survives: it is what a model scores
    that has learnt no relation between columns. A categorical group is drawn as a whole, or it would be recognised
    by its impossible values.
    """
    features = np.zeros_like(source.features)
    for label in np.unique(source.labels):
        rows = np.flatnonzero(source.labels == label)
        for columns in attributes(groups):
            features[rows, columns] = source.features[rng.choice(rows, size=len(rows)), columns]
    return Table(features=features, labels=source.labels)


def independent_floor(groups: Sequence[Columns]) -> Floor:
    """:func:`independent_columns` of a schema."""
    return lambda source, rng: independent_columns(source, groups, rng)


def compare(
    real: Table, synthetic: Table, train: Table | None, groups: Sequence[Columns], rng: np.random.Generator
) -> Comparison:
    """Form reference, ceiling and floor; all contenders get the size of the smallest of them.

    Args:
        real: held-out real patients; at least two if ``train`` is None.
        synthetic: synthetic patients.
        train: real training patients, or None: then one random half of ``real`` becomes the other real patients.
        groups: the schema's column groups.
        rng: source of every random choice.
    """
    return oppose(real, synthetic, train, independent_floor(groups), rng)


def oppose(real: Table, synthetic: Table, train: Table | None, floor: Floor, rng: np.random.Generator) -> Comparison:
    """:func:`compare` for patients of any kind: ``floor`` makes the independent ones."""
    if train is None or len(train) == 0:
        order = rng.permutation(len(real))
        half = len(real) // 2
        other_half = np.sort(order[:half])
        other, reference, split = real.take(other_half), real.take(np.sort(order[half:])), True
    else:
        other_half = np.zeros(0, dtype=np.int64)
        other, reference, split = train, real, False
    patients = min(len(synthetic), len(other), MAX_PATIENTS)
    other = other.sample(patients, rng)
    return Comparison(
        reference=reference.sample(MAX_PATIENTS, rng),
        synthetic=synthetic.sample(patients, rng),
        other_real=other,
        independent=floor(other, rng),
        split=split,
        other_half=other_half,
    )
