"""Disclosure checks that only notes have, each beside held-out notes, in which a hit is chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from synclave_server.evaluation.comparison import Floor, Table
from synclave_server.evaluation.disclosure import NO_TRAIN, SECTION, Nearness
from synclave_server.evaluation.measure import Aim, Measure, Reading, defined, undefined
from synclave_server.evaluation.notes.overlap import COPIED_WORDS, link_threshold, longest_runs, with_strings
from synclave_server.evaluation.notes.writings import every_note, texts_of
from synclave_shared.data.notes.dataset import NotesDataset

__all__ = ["SEARCHED_NOTES", "leak_measures", "own_identifiers"]

SEARCHED_NOTES: Final = 2_000
"""Most synthetic, training and held-out notes that are searched."""

_TITLES: Final = {
    "linked_to_training": "Notes that a linkage attack traces to a training note",
    "linked_to_held_out": "Notes that it traces to a held-out note",
    "longest_run_training": "Longest run of words shared with training notes, mean",
    "longest_run_held_out": "Longest run of words shared with held-out notes, mean",
    "copied_training": f"Notes with {COPIED_WORDS} words in a row of a training note",
    "copied_held_out": f"Notes with {COPIED_WORDS} words in a row of a held-out note",
    "identifiers_training": "Notes with an identifier of a training patient's record",
    "identifiers_held_out": "Notes with an identifier of a held-out patient's record",
}


def own_identifiers(dataset: NotesDataset) -> set[str]:
    """What the patients' own records say of names and numbers; a single short word is nobody's."""
    return {value for own in dataset.identifiers for _, value in own if len(value) >= 4}


def leak_measures(
    real: NotesDataset,
    synthetic: Table,
    train: NotesDataset | None,
    floor: Floor,
    nearness: Nearness,
    seed: int,
    progress: Callable[[str], None],
) -> list[Measure]:
    """Linkage, shared runs and identifiers; undefined without training notes.

    Half of the held-out patients play the synthetic ones for the ceiling; the other half is searched beside as many
    training patients.
    """
    progress("linkage, shared runs, identifiers")
    rng = np.random.default_rng([seed, 9])
    if train is None or len(train) < 2 or len(real) < 4:
        absent = undefined(NO_TRAIN if train is None else "fewer than four held-out or two training patients")
        return [_measure(key, [absent] * 3) for key in _TITLES]
    order = rng.permutation(len(real))
    players, others = real.select(np.sort(order[: len(real) // 2])), real.select(np.sort(order[len(real) // 2 :]))
    size = min(len(train), len(others))
    seen = train.select(np.sort(rng.choice(len(train), size, replace=False)))
    unseen = others.select(np.sort(rng.choice(len(others), size, replace=False)))
    among = {
        name: every_note(part).sample(SEARCHED_NOTES, rng) for name, part in (("training", seen), ("held_out", unseen))
    }
    contenders = [synthetic, every_note(players), floor(every_note(train).sample(SEARCHED_NOTES, rng), rng)]
    contenders = [table.sample(SEARCHED_NOTES, rng) for table in contenders]
    found: dict[str, list[Reading]] = {}
    # One threshold for both sides: what the nearest note must be for an attacker to believe in it.
    nearest = {
        name: [nearness.distance(table, notes).min(axis=1) for table in contenders] for name, notes in among.items()
    }
    threshold = link_threshold(nearest["training"][1])
    for name in among:
        found[f"linked_to_{name}"] = [defined(float((distance < threshold).mean())) for distance in nearest[name]]
    for name, notes in among.items():
        runs = [longest_runs(texts_of(table), texts_of(notes)) for table in contenders]
        found[f"longest_run_{name}"] = [
            defined(float(run.mean()), (float(run.min()), float(run.max()))) for run in runs
        ]
        found[f"copied_{name}"] = [defined(float((run >= COPIED_WORDS).mean())) for run in runs]
    for name, part in (("training", seen), ("held_out", unseen)):
        strings = own_identifiers(part)
        found[f"identifiers_{name}"] = (
            [defined(float(with_strings(texts_of(table), strings).mean())) for table in contenders]
            if strings
            else [undefined("the schema names no identifiers of the patients' records")] * 3
        )
    return [_measure(key, found[key]) for key in _TITLES]


def _measure(key: str, readings: Sequence[Reading]) -> Measure:
    value, ceiling, floor = readings
    aim: Aim = "zero"
    return Measure(
        key=key,
        title=_TITLES[key],
        section=SECTION,
        aim=aim,
        value=value,
        ceiling=ceiling,
        floor=floor,
        percent=not key.startswith("longest"),
    )
