"""Measure synthetic notes and write ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from synclave_server.evaluation import augmentation, disclosure, fidelity
from synclave_server.evaluation.comparison import Table, oppose
from synclave_server.evaluation.document import Progress, begin, check_labels, document, publish
from synclave_server.evaluation.downstream import label_tasks
from synclave_server.evaluation.measure import defined, undefined
from synclave_server.evaluation.notes import likeness
from synclave_server.evaluation.notes.classifiers import QUICK_OF_NOTES, note_classifiers, note_nearness
from synclave_server.evaluation.notes.drawings import common_mentions, note_drawings
from synclave_server.evaluation.notes.kinds import kind_measures
from synclave_server.evaluation.notes.leakage import SEARCHED_NOTES, leak_measures
from synclave_server.evaluation.notes.ngrams import CountedWords
from synclave_server.evaluation.notes.overlap import COPIED_WORDS
from synclave_server.evaluation.notes.words import FLOOR, how_close_notes, how_kinds_are_told, what_leaks
from synclave_server.evaluation.notes.writings import every_note, first_notes, independent_words, texts_of
from synclave_server.evaluation.report import render_report
from synclave_server.evaluation.sites import SiteRow, site_results, unseen
from synclave_server.evaluation.utility import utility_measures
from synclave_server.evaluation.words import headline
from synclave_shared.data.notes.dataset import NotesDataset
from synclave_shared.data.notes.schema import NotesSchema

__all__ = ["evaluate_notes"]

SUMMARY: Final = (
    "correlation_pearson",
    "self_bleu",
    "word_surprise",
    "discriminator_pairs",
    "entity_overlap[problem]",
    "type_accuracy",
    "linked_to_training",
)
"""Measures that stand for the whole report, beside what logistic regression learns of the label."""
SHOWN_NOTES: Final = 2
"""Synthetic notes that the page shows."""


def evaluate_notes(
    schema: NotesSchema,
    real: NotesDataset,
    synthetic: NotesDataset,
    train: NotesDataset | None = None,
    run: Path | None = None,
    *,
    out: Path,
    seed: int = 0,
    progress: Progress | None = None,
    sampling: Mapping[str, Any] | None = None,
    sites: Mapping[str, NotesDataset] | None = None,
) -> dict[str, Any]:
    """:func:`~synclave_server.evaluation.evaluate.evaluate` for notes; there are no targets to name.

    The page shows synthetic notes and no real one. It names the most common clinical mentions of real notes, and like
    ``metrics.json`` it is **not** differentially private.

    Raises:
        DataError: if a data set is too small or has not the schema's labels, or the synthetic notes were sampled from
            another run.
        PlanError, LedgerError, SnapshotError: if ``run`` cannot be read.
    """
    told = progress or (lambda _: None)
    sites = sites or {}
    record = begin((real, synthetic, train), sites, partial(check_labels, schema), run, sampling, told)
    tables = [first_notes(real), first_notes(synthetic)]
    train_table = first_notes(train) if train is not None else None
    comparison = oppose(tables[0], tables[1], train_table, independent_words, np.random.default_rng([seed, 0]))
    label, values = schema.label.name, schema.label.values
    close, mentions = likeness.likeness_measures(comparison, seed, told)
    known = tables if train_table is None else [*tables, train_table]
    nearness = note_nearness(known, np.random.default_rng([seed, 11]))
    measures = [
        *close,
        *utility_measures(comparison, label, values, seed, told, note_classifiers),
        *kind_measures(comparison, schema.notes.types, seed, told),
        *augmentation.augmentation_measures(
            comparison, train_table, label, values, seed, told, note_classifiers, QUICK_OF_NOTES
        ),
        *disclosure.disclosure_measures(tables[0], tables[1], train_table, independent_words, seed, told, nearness),
        *leak_measures(real, every_note(synthetic), train, independent_words, nearness, seed, told),
    ]
    seen = _who(real.select(comparison.other_half) if train is None else train)
    at_sites = {name: first_notes(patients.select(unseen(_who(patients), seen))) for name, patients in sites.items()}
    by_site = site_results(comparison, at_sites, _site_rows, label, values, seed, told, note_classifiers)
    told("figures and report")
    tasks = label_tasks(comparison.reference, values)
    metrics = document(
        schema,
        comparison,
        (real, synthetic, train),
        measures,
        (*SUMMARY, *(f"tstr_logistic_auroc[{task.value}]" for task in tasks)),
        by_site,
        record,
        seed=seed,
        settings={
            "compared_words": likeness.COMPARED_WORDS,
            "minimum_carriers": fidelity.MINIMUM_CARRIERS,
            "varied_notes": likeness.VARIED_NOTES,
            "entity_notes": likeness.ENTITY_NOTES,
            "discriminator_patients": fidelity.DISCRIMINATOR_PATIENTS,
            "searched_notes": SEARCHED_NOTES,
            "copied_words": COPIED_WORDS,
        },
        sampling=sampling,
        digest=_digest(synthetic),
        own={"schema": {"types": list(schema.notes.types)}, "mentions": common_mentions(mentions)},
    )
    drawn = note_drawings(schema, comparison, measures, by_site, metrics, record)
    by_key = {measure.key: measure for measure in measures}
    sentences = headline(
        metrics,
        by_key,
        columns="a note each",
        close=how_close_notes(by_key),
        useful=how_kinds_are_told(by_key),
        safe=what_leaks(by_key),
        floor=FLOOR,
    )
    shown = tables[1].sample(SHOWN_NOTES, np.random.default_rng([seed, 10]))
    page = render_report(
        "notes.html.j2", metrics, measures, by_site, drawn, sentences, floor=FLOOR, shown=texts_of(shown)
    )
    publish(out, metrics, page)
    return metrics


def _site_rows(reference: Table, contenders: Sequence[Table]) -> list[SiteRow]:
    """How much more than by the site's own other notes a reader of the contender is surprised by the site's notes."""
    if len(reference) < fidelity.MINIMUM_CARRIERS:
        few = undefined(f"{len(reference)} patients of this site; at least {fidelity.MINIMUM_CARRIERS} needed")
        readings = [few] * len(contenders)
    else:
        asked = texts_of(reference)
        readings = [defined(CountedWords(texts_of(table)).nats(asked)) for table in contenders]
    title = "Nats per word of the site's notes for a reader of the cohort"
    return [("site_nats", title, "zero", readings)]


def _who(dataset: NotesDataset) -> list[Hashable]:
    """Identifier, notes and label of each patient [N]."""
    return list(zip(dataset.patient_ids, dataset.notes, dataset.labels.tolist(), strict=True))


def _digest(dataset: NotesDataset) -> str:
    """SHA-256 over types, texts and labels, identifiers left out: names the cohort whatever the files' format."""
    digest = hashlib.sha256()
    for notes, label in zip(dataset.notes, dataset.labels.tolist(), strict=True):
        digest.update(repr((label, [(note.type, note.text) for note in notes])).encode())
    return digest.hexdigest()
