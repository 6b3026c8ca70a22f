"""Evaluation of notes: the page, the numbers, and what each measure must see."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from synclave_server.evaluate_view import run_evaluation
from synclave_server.evaluation.document import FORMAT
from synclave_server.evaluation.notes import likeness
from synclave_server.evaluation.notes.classifiers import note_nearness
from synclave_server.evaluation.notes.evaluate import evaluate_notes
from synclave_server.evaluation.notes.leakage import leak_measures
from synclave_server.evaluation.notes.ngrams import CountedWords
from synclave_server.evaluation.notes.overlap import LONGEST_RUN, longest_runs, with_strings
from synclave_server.evaluation.notes.writings import every_note, first_notes, independent_words, texts_of, words_of
from synclave_server.sampling.cohort_formats import NOTES_FORMATS
from synclave_server.sampling.note_rows import pack_note
from synclave_server.sampling.rows import DrawnPatients
from synclave_shared.data.notes.dataset import Note, NotesDataset, together
from synclave_shared.errors import ConfigurationError, DataError
from tests.evaluation.cohorts import HOSTILE
from tests.evaluation.runs import make_plan, write_run
from tests.evaluation.test_evaluate import Page
from tests.models.small_notes import notes_dataset, notes_schema

SCHEMA = notes_schema()
QUIET = Console(quiet=True)


def patients(count: int, seed: int) -> NotesDataset:
    """Those of the training tests, of whom every second one has ``died`` in the text where the label says so."""
    dataset = notes_dataset(count, seed)
    notes = tuple(
        tuple(
            replace(note, text=note.text + f"{note.type.upper()}. " + ("Died at night.\n" if label else "Went home.\n"))
            for note in own
        )
        for own, label in zip(dataset.notes, dataset.labels.tolist(), strict=True)
    )
    return replace(
        dataset,
        notes=notes,
        patient_ids=[f"{seed}-{patient}" for patient in dataset.patient_ids],
        identifiers=tuple((("names", f"Wil{seed} Fulwood{number}"),) for number in range(count)),
    )


@pytest.fixture(autouse=True)
def few_mentions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "ENTITY_NOTES", 25)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """A full report: training patients, a run, two sites, hostile text."""
    folder = tmp_path_factory.mktemp("notes")
    run = write_run(folder / "run", [make_plan("toy", ("north", "south"), rounds=3)], {"north": 4, "south": 2})
    train = patients(60, seed=3)
    synthetic = patients(50, seed=2)
    synthetic = replace(
        synthetic, notes=tuple((replace(own[0], text=own[0].text + HOSTILE),) for own in synthetic.notes)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness, "ENTITY_NOTES", 25)
        metrics = evaluate_notes(
            SCHEMA,
            patients(60, seed=1),
            synthetic,
            train,
            run,
            out=folder / "out",
            seed=4,
            sampling={"sampler": "confidence", "note": HOSTILE},
            sites={"north": patients(40, seed=5), HOSTILE: train.select(np.arange(10))},
        )
    return metrics, (folder / "out" / "report.html").read_text(encoding="utf-8"), folder / "out"


def test_metrics_are_what_is_returned_and_every_gap_has_its_reason(report: tuple[dict[str, Any], str, Path]) -> None:
    metrics, _, out = report

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in metrics.json")

    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse) == metrics
    assert (metrics["format"], metrics["schema"]["modality"]) == (FORMAT, "notes")
    at_sites = [m for site in metrics["sites"].values() for m in site["measures"].values()]
    for measure in [*metrics["measures"].values(), *at_sites]:
        for what in ("value", "ceiling", "floor"):
            reason = measure["reason" if what == "value" else f"{what}_reason"]
            assert (measure[what] is None) == (reason is not None)
    assert [site["patients"] for site in metrics["sites"].values()] == [40, 0]
    assert set(metrics["summary"]) > {"self_bleu", "type_accuracy", "tstr_logistic_auroc[yes]"}
    # The label and the type stand in the text of every cohort alike.
    for key in ("tstr_logistic_auroc[yes]", "trts_logistic_auroc[yes]", "type_accuracy", "type_macro_f1"):
        assert metrics["measures"][key]["value"] == metrics["measures"][key]["ceiling"] == 1
    assert metrics["measures"]["linked_to_training"]["value"] <= 0.1
    assert metrics["measures"]["identifiers_training"]["value"] == 0


def test_the_page_is_whole_and_shows_synthetic_text_as_text(report: tuple[dict[str, Any], str, Path]) -> None:
    html = report[1]
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"https?:|//[a-z]", html, flags=re.IGNORECASE)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert "<script" not in html
    pictures = ["prevalence", "variety", "mentions", "density", "auroc", "auprc", "labels", "epsilon"]
    for key in [*pictures, "augmentedauroc", "augmentedauprc", "site0", "site1"]:
        assert f'<title id="{key}-alt">' in html
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert "independent columns" not in text
    assert "<script>alert(" in text  # as text
    assert "Notes that a linkage attack traces to a training note" in text


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    cohorts = [patients(30, seed) for seed in (1, 2)]
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        evaluate_notes(SCHEMA, *cohorts, out=tmp_path / name, seed=seed)
    files = {name: [(tmp_path / name / f).read_bytes() for f in ("metrics.json", "report.html")] for name in "abc"}
    assert files["a"] == files["b"]
    assert files["a"][0] != files["c"][0]


@pytest.mark.parametrize("case", ["few", "one-label", "no-words"])
def test_little_to_go_by_is_reported_and_does_not_crash(tmp_path: Path, case: str) -> None:
    sizes = (4, 2, 1) if case == "few" else (24, 20, 20)
    cohorts = [patients(size, seed) for size, seed in zip(sizes, (1, 2, 3), strict=True)]
    if case == "one-label":
        cohorts = [replace(cohort, labels=np.zeros(len(cohort), np.int64)) for cohort in cohorts]
    if case == "no-words":
        cohorts = [replace(cohort, notes=((Note(text="..."),),) * len(cohort)) for cohort in cohorts]
    metrics = evaluate_notes(SCHEMA, *cohorts, out=tmp_path)
    reasons = {key: measure["reason"] for key, measure in metrics["measures"].items()}
    expected = {
        "few": ("discriminator_pairs", "correlation_pearson", "linked_to_training", "type_accuracy"),
        "one-label": ("tstr_logistic_auroc[yes]", "tstr_pairs_brier[yes]"),
        "no-words": ("length_wasserstein", "word_surprise", "reading_ease_wasserstein", "entity_overlap[drug]"),
    }
    for key in expected[case]:
        assert reasons[key], key
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_copies_of_training_notes_are_seen_and_held_out_notes_are_not() -> None:
    train, real, rng = patients(60, seed=3), patients(60, seed=1), np.random.default_rng(0)
    nearness = note_nearness([first_notes(train), first_notes(real)], rng)
    found = {}
    for name, synthetic in (("copies", train), ("others", patients(60, seed=2))):
        measures = leak_measures(real, every_note(synthetic), train, independent_words, nearness, 0, lambda _: None)
        found[name] = {measure.key: measure.value.value for measure in measures}
    # Half of the patients are searched, and every note of them is found.
    assert found["copies"]["linked_to_training"] > 0.3 > 0.1 >= found["others"]["linked_to_training"]
    assert found["copies"]["copied_training"] > found["copies"]["copied_held_out"]
    assert found["copies"]["longest_run_training"] > found["others"]["longest_run_training"]
    named = replace(train, notes=tuple(((Note(text=f"seen: {own[0][1].upper()}."),)) for own in train.identifiers))
    measures = leak_measures(real, every_note(named), train, independent_words, nearness, 0, lambda _: None)
    found_names = {measure.key: measure.value.value for measure in measures}
    assert found_names["identifiers_training"] == pytest.approx(0.5, abs=0.02)
    assert found_names["identifiers_held_out"] == 0


def naive_run(text: str, among: list[str]) -> int:
    """The longest shared run, by trying all."""
    words, best = words_of(text), 0
    for other in map(words_of, among):
        for at in range(len(words)):
            for there in range(len(other)):
                length = 0
                while words[at + length : at + length + 1] == other[there + length : there + length + 1] != []:
                    length += 1
                best = max(best, length)
    return min(best, LONGEST_RUN)


def test_longest_runs_are_those_of_trying_all() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abc"), size=rng.integers(0, 90))) for _ in range(12)]
    among = [*texts[6:9], "", "x y z"]
    assert longest_runs(texts, among).tolist() == [naive_run(text, among) for text in texts]
    assert longest_runs(["a b"], []).tolist() == [0]


def test_strings_are_sought_as_whole_words_in_any_case() -> None:
    texts = ["MARIA  LOPEZ was seen", "maria lopezian", "Mr. Lopez, Maria", ""]
    assert with_strings(texts, ["Maria Lopez", "  "]).tolist() == [True, False, False, False]


def test_a_reader_is_a_distribution_and_is_less_surprised_by_what_it_has_read() -> None:
    reader = CountedWords(["a b a c", "b a"])
    vocabulary = ["a", "b", "c"]
    for before in (("", ""), ("", "a"), ("a", "b"), ("x", "y")):
        told = sum(reader._probability((*before, word)) for word in vocabulary)
        assert told + reader._probability((*before, "never read")) == pytest.approx(1)
    assert reader.nats(["a b a c"]) < reader.nats(["c c b b"]) < reader.nats(["x y z"])
    assert np.isnan(reader.nats([""]))


def test_independent_words_keep_lengths_types_and_labels_and_what_is_common_in_them() -> None:
    source = every_note(patients(200, seed=1))
    made = independent_words(source, np.random.default_rng(0))
    assert [note.type for note in made.features] == [note.type for note in source.features]
    assert [len(words_of(text)) for text in texts_of(made)] == [len(words_of(text)) for text in texts_of(source)]
    for label, word in ((0, "died"), (1, "home")):
        assert not any(word in words_of(text) for text in texts_of(made.take(np.flatnonzero(made.labels == label))))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "schema.json").write_bytes(SCHEMA.to_json_bytes())
    note = {"synclave.provenance": json.dumps({"sampler": "confidence"})}
    numbered = 0
    for name, seed in (("north", 1), ("south", 2), ("train", 3), ("synthetic", 4)):
        table = first_notes(patients(30, seed))
        rows = np.stack([pack_note(row.type, row.text) for row in table.features])
        about = note if name == "synthetic" else {}
        with NOTES_FORMATS["parquet"].writer(tmp_path / f"{name}.parquet", SCHEMA, about) as write:
            write(DrawnPatients(rows=rows, labels=table.labels, numbers=np.arange(numbered, numbered + 30)))
        numbered += 30
    return tmp_path


def evaluated(folder: Path, real: tuple[str, ...] = ("north", "south"), targets: tuple[str, ...] = ()) -> Any:
    return run_evaluation(
        folder / "schema.json",
        [folder / f"{name}.parquet" for name in real],
        folder / "synthetic.parquet",
        [folder / "train.parquet"],
        None,
        out=folder / "out",
        seed=0,
        targets=targets,
        sites={name: folder / f"{name}.parquet" for name in ("north", "south")},
        console=QUIET,
    )


def test_the_command_sees_from_the_schema_that_these_are_notes(files: Path) -> None:
    document = evaluated(files)
    metrics = json.loads((files / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["cohorts"]["real"] == 60
    assert metrics["sampling"] == {"sampler": "confidence"}
    assert {"self_bleu", "linked_to_training", "type_accuracy", "tstr_pairs_auroc[yes]"} <= set(document["measures"])
    assert metrics["measures"]["identifiers_training"]["reason"]  # the writer leaves identifiers empty


def test_targets_and_a_file_given_twice_are_refused(files: Path) -> None:
    with pytest.raises(ConfigurationError, match="--target"):
        evaluated(files, targets=("kind:consult",))
    with pytest.raises(DataError, match="in two of them"):
        evaluated(files, real=("north", "north"))
    assert not (files / "out").exists()


def test_patients_of_several_data_sets_are_put_together_and_picked() -> None:
    one, other = patients(3, 1), patients(2, 2)
    both = together([one, other])
    assert both.patient_ids == one.patient_ids + other.patient_ids
    assert both.select(np.array([3, 0])).notes == (other.notes[0], one.notes[0])
    with pytest.raises(ValueError, match="twice"):
        together([one, one])
