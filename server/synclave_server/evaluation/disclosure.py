"""Sanity checks for copies of training patients. They can show a leak; they cannot show that there is none.

Evidence of privacy is the accounted epsilon in the ledger. Distance to the closest record says nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.comparison import Columns, Table, independent_columns
from synclave_server.evaluation.fidelity import hamming
from synclave_server.evaluation.measure import Measure, Reading, defined, undefined

__all__ = ["NEIGHBOUR_PATIENTS", "copies", "disclosure_measures", "neighbour_ratio"]

NEIGHBOUR_PATIENTS: Final = 2_000
"""Synthetic patients whose nearest real neighbours are sought."""
REFERENCE_PATIENTS: Final = 8_000
"""Most training, and most held-out, patients among whom they are sought."""
PERMUTATIONS: Final = 400
NEIGHBOURS_KEPT: Final = 48
"""Nearest neighbours kept for the permutations: that all fall on one side has probability 2^-48 per patient."""
SECTION: Final = "Disclosure sanity checks"
NO_TRAIN: Final = "no training patients were given"


def copies(rows: Table, among: Table) -> NDArray[np.bool_]:
    """Which patients of ``rows`` equal some patient of ``among`` in every column; bool [N]."""
    known = {row.tobytes() for row in np.packbits(among.features, axis=1)}
    return np.array([row.tobytes() in known for row in np.packbits(rows.features, axis=1)], dtype=bool)


def neighbour_ratio(
    rows: Table, train: Table, held_out: Table, rng: np.random.Generator
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

    Raises:
        ValueError: if the two cohorts differ in size (a programming error).
    """
    if len(train) != len(held_out):
        raise ValueError(f"cohorts must have one size, got {len(train)} and {len(held_out)}")
    size = len(train)
    distance = hamming(rows.features, np.concatenate([train.features, held_out.features]))
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
    groups: Sequence[Columns],
    seed: int,
    progress: Callable[[str], None],
) -> list[Measure]:
    """Copies and neighbour ratio; ceiling: held-out patients in the synthetic ones' place, floor: independent columns.

    All cohorts that are searched have the same number of patients; the search for copies takes every synthetic patient.
    """
    progress("copies and nearest neighbours")
    rng = np.random.default_rng([seed, 3])
    if train is None or len(train) == 0:
        absent = undefined(NO_TRAIN)
        found = copies(synthetic, real)
        independent = independent_columns(real, groups, rng)
        halves = rng.permutation(len(real))
        one, other = real.take(halves[: len(real) // 2]), real.take(halves[len(real) // 2 :])
        held_out = Measure(
            key="copies_of_held_out",
            title="Synthetic rows equal to a held-out patient",
            section=SECTION,
            aim="zero",
            value=_share(found),
            ceiling=_share(copies(one, other)),
            floor=_share(copies(independent, real)),
            percent=True,
        )
        return [
            _absent("copies_of_training", "Synthetic rows equal to a training patient", absent),
            held_out,
            _absent("neighbour_distance_ratio", "Nearest neighbour: training / held-out distance", absent),
        ]
    # Half of the held-out patients plays the synthetic ones (ceiling); the other half is searched beside the training
    # patients, so that all three contenders meet the same two cohorts.
    order = rng.permutation(len(real))
    players, searched = real.take(order[: len(real) // 2]), real.take(order[len(real) // 2 :])
    size = min(len(train), len(searched), REFERENCE_PATIENTS)
    if size < 2 or len(players) < 2:
        few = undefined("fewer than four held-out or two training patients")
        return [
            _absent("copies_of_training", "Synthetic rows equal to a training patient", few),
            _absent("copies_of_held_out", "Synthetic rows equal to a held-out patient", few),
            _absent("neighbour_distance_ratio", "Nearest neighbour: training / held-out distance", few),
        ]
    seen, unseen = train.sample(size, rng), searched.sample(size, rng)
    independent = independent_columns(train.sample(REFERENCE_PATIENTS, rng), groups, rng)
    ratios = []
    for contender in (synthetic, players, independent):
        reading, null = neighbour_ratio(contender.sample(NEIGHBOUR_PATIENTS, rng), seen, unseen, rng)
        ratios.append((reading, null))
    chance = ratios[0][1]
    return [
        _copies(
            "copies_of_training", "Synthetic rows equal to a training patient", seen, synthetic, players, independent
        ),
        _copies(
            "copies_of_held_out", "Synthetic rows equal to a held-out patient", unseen, synthetic, players, independent
        ),
        Measure(
            key="neighbour_distance_ratio",
            title="Nearest neighbour: training / held-out distance",
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


def _copies(key: str, title: str, among: Table, synthetic: Table, players: Table, independent: Table) -> Measure:
    value, ceiling, floor = (_share(copies(rows, among)) for rows in (synthetic, players, independent))
    return Measure(
        key=key, title=title, section=SECTION, aim="zero", value=value, ceiling=ceiling, floor=floor, percent=True
    )


def _absent(key: str, title: str, reading: Reading) -> Measure:
    return Measure(key=key, title=title, section=SECTION, aim="zero", value=reading, ceiling=reading, floor=reading)
