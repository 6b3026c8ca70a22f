"""All figures of a report on notes, from the measured values to drawings by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation import dots
from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.downstream import label_tasks
from synclave_server.evaluation.figure import Drawing
from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.notes.classifiers import QUICK_OF_NOTES, note_classifiers
from synclave_server.evaluation.notes.likeness import KINDS, MEDICINE, VARIETY, Mentions
from synclave_server.evaluation.notes.words import FLOOR
from synclave_server.evaluation.notes.writings import texts_of, words_of
from synclave_server.evaluation.outcome_drawings import outcome_drawings
from synclave_server.evaluation.plots import prevalence_scatter
from synclave_server.evaluation.run_record import RunRecord
from synclave_server.evaluation.sites import SiteResult
from synclave_shared.data.notes.schema import NotesSchema

__all__ = ["common_mentions", "note_drawings", "word_shares"]

MARKED: Final = 6
"""Words named in the scatter plot."""
SHOWN_MENTIONS: Final = 5
"""Mentions of each kind in the table."""


def note_drawings(
    schema: NotesSchema,
    comparison: Comparison,
    measures: Sequence[Measure],
    sites: Sequence[SiteResult],
    metrics: Mapping[str, Any],
    record: RunRecord | None,
) -> dict[str, Drawing]:
    """Name -> figure; a figure for which there is nothing to draw is left out.

    Args:
        schema: of all data sets.
        comparison: the compared cohorts.
        measures: all measures of the whole comparison.
        sites: measures at each site.
        metrics: content of ``metrics.json``.
        record: of the training, if known.
    """
    tasks = label_tasks(comparison.reference, schema.label.values)
    drawn = outcome_drawings(
        schema, tasks, measures, sites, metrics, record, note_classifiers, QUICK_OF_NOTES, floor=FLOOR
    )
    for key, section, what in (
        ("variety", VARIETY, "synthetic / real; 1 is as real notes"),
        ("density", MEDICINE, "mentions per word, synthetic / real; 1 is as real notes"),
    ):
        rows = [
            (measure.title.removeprefix("How densely, ").partition(" / real")[0].removesuffix(","), measure)
            for measure in measures
            if measure.section == section and measure.aim == "same"
        ]
        drawn[key] = dots.dot_rows(key, rows, what, "", floor=FLOOR)
    overlaps = [
        (f"{measure.key.partition('[')[2][:-1]}s", measure)
        for measure in measures
        if measure.key.startswith("entity_overlap")
    ]
    drawn["mentions"] = dots.dot_rows(
        "mentions",
        overlaps,
        "overlap of what is mentioned with held-out real notes",
        "Each mention counts with the smaller of its two shares; 1 would be the same medicine said as often.",
        floor=FLOOR,
    )
    words, shares = word_shares(comparison.reference, comparison.synthetic)
    if len(words):
        apart = np.abs(shares[0] - shares[1])
        drawn["prevalence"] = prevalence_scatter(
            shares[0],
            shares[1],
            (len(comparison.reference), len(comparison.synthetic)),
            words,
            np.argsort(-apart, kind="stable")[:MARKED].tolist(),
            "word",
        )
    return drawn


def word_shares(real: Table, synthetic: Table) -> tuple[list[str], NDArray[np.float64]]:
    """Words of either cohort, and the share of the notes that hold each: [2, words]."""
    bags = [Counter(word for text in texts_of(table) for word in set(words_of(text))) for table in (real, synthetic)]
    words = sorted(bags[0].keys() | bags[1].keys())
    shares = [[bag[word] / len(table) for word in words] for bag, table in zip(bags, (real, synthetic), strict=True)]
    return words, np.array(shares, dtype=np.float64).reshape(2, -1)


def common_mentions(mentions: Mapping[str, Mentions]) -> list[dict[str, Any]]:
    """The most common mentions of each kind among real and among synthetic notes, per 100 mentions of the kind."""
    rows = []
    for kind in KINDS:
        real, synthetic = (mentions[name].counts[kind] for name in ("real", "synthetic"))
        for name in dict.fromkeys(
            name for counts in (real, synthetic) for name, _ in counts.most_common(SHOWN_MENTIONS)
        ):
            shares = [counts[name] / max(counts.total(), 1) for counts in (real, synthetic)]
            rows.append({"kind": kind.value, "mention": name, "real": shares[0], "synthetic": shares[1]})
    return rows
