"""Sanity checks for copies of training patients. They can show a leak; they cannot show that there is none.

Evidence of privacy is the accounted epsilon in the ledger. Distance to the closest record says nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.comparison import MAX_PATIENTS, Floor, Table
from synclave_server.evaluation.fidelity import hamming
from synclave_server.evaluation.measure import Aim, Measure, Reading, defined, undefined
from synclave_server.evaluation.ranking import ranking_quality

__all__ = [
    "CODES",
    "MEMBERSHIP",
    "MEMBER_PATIENTS",
    "NEIGHBOURS",
    "NEIGHBOUR_PATIENTS",
    "Nearness",
    "copies",
    "disclosure_measures",
    "membership",
    "neighbour_ratio",
]

NEIGHBOUR_PATIENTS: Final = 2_000
"""Synthetic patients whose nearest real neighbours are sought."""
REFERENCE_PATIENTS: Final = 8_000
"""Most training, and most held-out, patients among whom they are sought."""
MEMBER_PATIENTS: Final = 2_000
"""Most training, and most held-out, patients whose nearest synthetic ones are sought."""
PERMUTATIONS: Final = 400
NEIGHBOURS_KEPT: Final = 48
"""Nearest neighbours kept for the permutations: that all fall on one side has probability 2^-48 per patient."""
SECTION: Final = "Disclosure sanity checks"
NO_TRAIN: Final = "no training patients were given"
NEIGHBOURS: Final = "neighbour_distance_ratio"
MEMBERSHIP: Final = "membership_auroc"
_TITLES: Final = {
    "copies_of_training": "Synthetic rows equal to a training patient",
    "copies_of_held_out": "Synthetic rows equal to a held-out patient",
    MEMBERSHIP: "Training told from held-out patients by the nearest synthetic one, AUROC",
    NEIGHBOURS: "Nearest neighbour: training / held-out distance",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """When two patients are one and the same, and how far they are apart otherwise.

    Attributes:
        identity: bytes of each patient [N], equal for equal patients.
        distance: between the patients of two tables, float32 [N, M]; exactly 0 for equal ones.
    """

    identity: Callable[[Table], Iterable[bytes]]
    distance: Callable[[Table, Table], NDArray[np.float32]]


CODES: Final = Nearness(
    identity=lambda table: (row.tobytes() for row in np.packbits(table.features, axis=1)),
    distance=lambda rows, others: hamming(rows.features, others.features),
)
"""Rows of 0/1 columns: the number of columns in which they differ."""


def copies(rows: Table, among: Table, nearness: Nearness = CODES) -> NDArray[np.bool_]:
    """Which patients of ``rows`` equal some patient of ``among`` in everything; bool [N]."""
    known = set(nearness.identity(among))
    return np.array([row in known for row in nearness.identity(rows)], dtype=bool)


def membership(
    synthetic: Table, train: Table, held_out: Table, rng: np.random.Generator, nearness: Nearness = CODES
) -> Reading:
    """AUROC of an attacker who calls those patients training patients that have a synthetic one close by.

    0.5: the distance to the nearest synthetic patient says nothing about who was trained on. 1: every training patient
    is nearer to a synthetic one than any held-out patient is.

    Args:
        synthetic: patients in whose neighbourhood is looked [M].
        train: training patients, at least one.
        held_out: patients that the model never saw, at least one.
        rng: resamples the patients for the interval.
        nearness: of their kind of data.
    """
    everyone = Table(
        features=np.concatenate([train.features, held_out.features]),
        labels=np.concatenate([train.labels, held_out.labels]),
    )
    nearest = np.full(len(everyone), np.inf)
    for start in range(0, len(synthetic), MEMBER_PATIENTS):
        part = synthetic.take(np.arange(start, min(start + MEMBER_PATIENTS, len(synthetic))))
        nearest = np.minimum(nearest, nearness.distance(everyone, part).min(axis=1))
    (auroc, interval), _ = ranking_quality(np.arange(len(everyone)) < len(train), -nearest, rng)
    return defined(auroc, interval)


def neighbour_ratio(
    rows: Table, train: Table, held_out: Table, rng: np.random.Generator, nearness: Nearness = CODES
) -> tuple[Reading, tuple[float, float]]:
    """Mean distance to the nearest training patient / mean distance to the nearest held-out patient.

    Below 1: closer to the patients the model saw than to those it did not see. The interval of the reading is over
    resampled ``rows``. The second result is the range (95 %) of the ratio when patients of both cohorts are shuffled:
    inside it, training and held-out patients cannot be told apart. Both cohorts must have the same size, because the
    nearest of more patients is nearer.

    Args:
        rows: patients to judge [N].
        train: training patients [M].
        held_out: held-out patients [M], M equal to that of ``train``.
        rng: source of resampling and shuffling.
        nearness: of their kind of data.

    Raises:
        ValueError: if the two cohorts differ in size (a programming error).
    """
    if len(train) != len(held_out):
        raise ValueError(f"cohorts must have one size, got {len(train)} and {len(held_out)}")
    size = len(train)
    distance = np.hstack([nearness.distance(rows, train), nearness.distance(rows, held_out)])
    to_train, to_held_out = distance[:, :size].min(axis=1), distance[:, size:].min(axis=1)
    if to_held_out.sum() == 0 or to_train.sum() == 0:
        return undefined("every patient has an identical real patient on one side"), (1.0, 1.0)
    picks = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=PERMUTATIONS)
    resampled = (picks @ to_train) / np.maximum(picks @ to_held_out, 1e-9)
    low, high = np.percentile(resampled, (2.5, 97.5))

    kept = min(NEIGHBOURS_KEPT, 2 * size)
    nearest = np.argpartition(distance, kept - 1, axis=1)[:, :kept]
    near = np.take_along_axis(distance, nearest, axis=1)
    order = np.argsort(near, axis=1, kind="stable")
    nearest, near = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(near, order, axis=1)
    shuffled = np.empty(PERMUTATIONS)
    for trial in range(PERMUTATIONS):
        side = np.zeros(2 * size, dtype=bool)
        side[rng.permutation(2 * size)[:size]] = True
        is_train = side[nearest]
        row = np.arange(len(rows))
        first_train, first_other = is_train.argmax(axis=1), (~is_train).argmax(axis=1)
        shuffled[trial] = near[row, first_train].sum() / max(near[row, first_other].sum(), 1e-9)
    null_low, null_high = np.percentile(shuffled, (2.5, 97.5))
    return defined(float(to_train.sum() / to_held_out.sum()), (float(low), float(high))), (
        float(null_low),
        float(null_high),
    )


def disclosure_measures(
    real: Table,
    synthetic: Table,
    train: Table | None,
    floor: Floor,
    seed: int,
    progress: Callable[[str], None],
    nearness: Nearness = CODES,
) -> list[Measure]:
    """Copies, membership and neighbour ratio.

    In the synthetic patients' place stand held-out patients (ceiling), and what ``floor`` makes of training patients.
    All cohorts that are searched have the same number of patients; the search for copies takes every synthetic patient.
    """
    progress("copies and nearest neighbours")
    rng = np.random.default_rng([seed, 3])
    if train is None or len(train) == 0:
        absent = undefined(NO_TRAIN)
        found = copies(synthetic, real, nearness)
        independent = floor(real, rng)
        halves = rng.permutation(len(real))
        one, other = real.take(halves[: len(real) // 2]), real.take(halves[len(real) // 2 :])
        held_out = Measure(
            key="copies_of_held_out",
            title=_TITLES["copies_of_held_out"],
            section=SECTION,
            aim="zero",
            value=_share(found),
            ceiling=_share(copies(one, other, nearness)),
            floor=_share(copies(independent, real, nearness)),
            percent=True,
        )
        return [held_out if key == held_out.key else _absent(key, absent) for key in _TITLES]
    # Half of the held-out patients plays the synthetic ones (ceiling); the other half is searched beside the training
    # patients, so that all three contenders meet the same two cohorts.
    order = rng.permutation(len(real))
    players, searched = real.take(order[: len(real) // 2]), real.take(order[len(real) // 2 :])
    size = min(len(train), len(searched), REFERENCE_PATIENTS)
    if size < 2 or len(players) < 2:
        few = undefined("fewer than four held-out or two training patients")
        return [_absent(key, few) for key in _TITLES]
    seen, unseen = train.sample(size, rng), searched.sample(size, rng)
    independent = floor(train.sample(REFERENCE_PATIENTS, rng), rng)
    contenders = (synthetic, players, independent)
    ratios = []
    for contender in contenders:
        reading, null = neighbour_ratio(contender.sample(NEIGHBOUR_PATIENTS, rng), seen, unseen, rng, nearness)
        ratios.append((reading, null))
    chance = ratios[0][1]
    shares = {
        key: [_share(copies(rows, among, nearness)) for rows in contenders]
        for key, among in (("copies_of_training", seen), ("copies_of_held_out", unseen))
    }
    members, strangers = seen.sample(MEMBER_PATIENTS, rng), unseen.sample(MEMBER_PATIENTS, rng)
    attacks = [membership(rows.sample(MAX_PATIENTS, rng), members, strangers, rng, nearness) for rows in contenders]
    return [
        *(_measure(key, "zero", readings, percent=True) for key, readings in shares.items()),
        _measure(MEMBERSHIP, "half", attacks),
        Measure(
            key=NEIGHBOURS,
            title=_TITLES[NEIGHBOURS],
            section=SECTION,
            aim="same",
            value=ratios[0][0],
            # The range under shuffling is the truer ceiling's interval: it holds for these very synthetic patients.
            ceiling=defined(ratios[1][0].value, chance) if ratios[1][0].value is not None else ratios[1][0],
            floor=ratios[2][0],
        ),
    ]


def _share(found: NDArray[np.bool_]) -> Reading:
    return defined(float(found.mean())) if len(found) else undefined("no patients")


def _measure(key: str, aim: Aim, readings: Sequence[Reading], *, percent: bool = False) -> Measure:
    value, ceiling, floor = readings
    return Measure(
        key=key,
        title=_TITLES[key],
        section=SECTION,
        aim=aim,
        value=value,
        ceiling=ceiling,
        floor=floor,
        percent=percent,
    )


def _absent(key: str, reading: Reading) -> Measure:
    return _measure(key, "zero", [reading] * 3)
