"""Synthetic notes from nothing private: ``python -m bench.notes.writing --data DIR`` (20 CPU minutes; resumes).

Patients are MTSamples notes with invented identifiers, at three sites by specialty, and as many held-out ones of another
part (:mod:`bench.notes.parts`); notes without a type that has templates are left out. The embedded model is trained on
the patients by the sites' own code, and notes are drawn as ``synclave sample`` draws them. Measured are

- *leaks*: linkage, shared runs, and the gold identifiers of patients in what the model wrote and in whole notes, beside
  the same for held-out notes; the patients' own notes in place of synthetic ones show what a leak looks like;
- *use*: note types told after learning from synthetic notes, beside as many real ones;
- *diversity* by temperature and top-p at the same number of calls;
- *calls*: what a reader of other real notes is surprised by, and seconds, against one word at a time;
- *agreement* with the codes of the synthetic patients whom notes are about.

Each cell is kept in ``.peers/notes-writing`` (ignored by git). Writes bench/results/notes-writing.json and .md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from bench.notes.corpora import read_jsonl
from bench.notes.federated import train_rounds
from bench.notes.parts import parts_of
from synclave_server.evaluation.comparison import Table
from synclave_server.evaluation.notes.classifiers import note_nearness
from synclave_server.evaluation.notes.diversity import distinct_n, self_bleu
from synclave_server.evaluation.notes.kinds import told_kinds
from synclave_server.evaluation.notes.likeness import mentions_of
from synclave_server.evaluation.notes.ngrams import CountedWords
from synclave_server.evaluation.notes.overlap import COPIED_WORDS, link_threshold, longest_runs, with_strings
from synclave_server.evaluation.notes.writings import every_note, independent_words, texts_of, words_of
from synclave_server.planning import compile_plan, parse_plan_file, resolve_privacy
from synclave_server.sampling.note_patients import CodesCohort
from synclave_server.sampling.notes import NotesGenerator, Written
from synclave_server.sampling.request import NotesRequest, SampleRequest
from synclave_shared.data.modality import load_schema
from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import load_patients
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, look_up_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.text.chunks import encode_notes
from synclave_shared.text.entities import EntityKind
from synclave_shared.text.masking import masker, site_detector

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
KEPT: Final = ROOT / ".peers" / "notes-writing"
EXAMPLE: Final = ROOT / "examples" / "notes"

DELTA: Final = "0.00001"
ROUNDS, STEPS, RATE = 3, 5, "0.3"
SITES: Final = {"cardio_pulm": "heart-and-lung", "ortho_podiatry": "bones-and-nerves", "neuro": "bones-and-nerves"}
"""Specialties -> sites; all others are ``general``."""
TYPES: Final = {
    "consult_h_and_p": "consult",
    "discharge_summary": "discharge summary",
    "progress_note": "progress note",
    "emergency": "emergency",
    "operative_or_procedure": "procedure",
    "radiology": "radiology",
}
"""Kinds of notes in the source -> those of the templates."""
EPSILONS: Final = (8.0, 0.0)
"""0: the model before any patient's note."""
NOTES: Final = 48
FEW: Final = 8
WAYS: Final = (("0.5", "1"), ("0.8", "1"), ("1", "1"), ("1.3", "1"), ("1", "0.5"), ("1", "0.8"), ("1", "0.95"))
"""Temperature and top-p."""
CALLS: Final = (4, 8, 16, 32, 0)
"""Of the network for a note; 0: as many as a note has words to fill, from left to right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Notes of the benchmark.

    Attributes:
        patients: with their identifiers in the text, as a site has them.
        masked: the same with slots, as training sees them.
        held_out: notes of other patients.
        sites: of each patient.
        gold, gold_held_out: every marked identifier.
    """

    patients: NotesDataset
    masked: NotesDataset
    held_out: NotesDataset
    sites: list[str]
    gold: set[str]
    gold_held_out: set[str]


@cache
def schema() -> NotesSchema:
    """The example's."""
    found = load_schema(EXAMPLE / "schema.toml")
    assert isinstance(found, NotesSchema)
    return found


def load(data: Path) -> Data:
    """Patients and held-out notes; masking is kept."""
    samples = {row["sample_id"]: row for row in pq.read_table(data / "mtsamples" / "notes.parquet").to_pylist()}
    parts = parts_of({number: row["transcription"] or "" for number, row in samples.items()})
    rows = read_jsonl(data / "phi-injected-notes" / "notes.jsonl.gz")
    rows = [row for row in rows if samples[row["sample_id"]]["note_type"] in TYPES]
    by_part = {part: [row for row in rows if parts[row["sample_id"]] == part] for part in ("patients", "reference")}
    patients = _dataset(by_part["patients"], samples)
    path = KEPT / "masked.json"
    if not path.exists():
        masked = patients.masked(masker(site_detector("en")))
        KEPT.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([notes[0].text for notes in masked.notes]), encoding="utf-8")
    texts = json.loads(path.read_text(encoding="utf-8"))
    gold = {part: {one["text"] for row in own for one in row["entities"]} for part, own in by_part.items()}
    return Data(
        patients=patients,
        masked=_with_texts(patients, texts),
        held_out=_dataset(by_part["reference"], samples),
        sites=[SITES.get(samples[row["sample_id"]]["node"], "general") for row in by_part["patients"]],
        gold={text for text in gold["patients"] if len(text) >= 4},
        gold_held_out={text for text in gold["reference"] if len(text) >= 4},
    )


def _dataset(rows: Sequence[dict[str, Any]], samples: dict[int, dict[str, Any]]) -> NotesDataset:
    values = schema().label.values
    known = {"PATIENT": "names", "ID": "mrns"}
    return NotesDataset(
        notes=tuple((Note(text=row["text"], type=TYPES[samples[row["sample_id"]]["note_type"]]),) for row in rows),
        identifiers=tuple(
            tuple((known[one["label"]], one["text"]) for one in row["entities"] if one["label"] in known)
            for row in rows
        ),
        labels=np.array([values.index(_sex(row["text"])) for row in rows], dtype=np.int64),
        patient_ids=[row["id"] for row in rows],
    )


def _sex(text: str) -> str:
    """What the pronouns say of the patient."""
    words = Counter(words_of(text))
    she, he = (sum(words[word] for word in own) for own in (("she", "her", "female"), ("he", "his", "male")))
    return "female" if she > he else "male" if he > she else "not told"


def _with_texts(dataset: NotesDataset, texts: Sequence[str]) -> NotesDataset:
    return NotesDataset(
        notes=tuple((Note(text=text, type=notes[0].type),) for notes, text in zip(dataset.notes, texts, strict=True)),
        identifiers=((),) * len(dataset),
        labels=dataset.labels,
        patient_ids=dataset.patient_ids,
    )


def trained(data: Data, epsilon: float, seed: int) -> NDArray[np.float32]:
    """The sites' and the coordinator's code without the network between them; noise from ``seed``, here and only here."""
    spec, base = look_up_base(NotesSpec(chunks_per_step=1), EXAMPLE)
    model = parameter_vector(build_note_lm(spec, base))
    if epsilon == 0:
        return model
    path = KEPT / f"model-{_name(epsilon)}-{seed}.npy"
    if path.exists():
        kept: NDArray[np.float32] = np.load(path)
        return kept
    names = sorted(set(data.sites))
    rows = {name: np.flatnonzero([site == name for site in data.sites]) for name in names}
    chunks = {name: encode_notes(data.masked.select(own), schema(), base.tokenizer) for name, own in rows.items()}
    document = {
        "name": "bench",
        "schema": "schema.toml",
        "model": spec.model_dump(),
        "optimiser": {"name": "adam", "learning_rate": Decimal("0.0005")},
        "privacy": {
            "noise_multiplier": _noise(epsilon),
            "delta": Decimal(DELTA),
            "selection_rate": Decimal(RATE),
            "clip_norm": 1,
        },
        "federation": {"rounds": ROUNDS, "steps_per_round": STEPS},
        "sites": {name: {"nominal_patients": len(own)} for name, own in rows.items()},
    }
    keys = {name: "A" * 39 + f"{number:03d}E=" for number, name in enumerate(names)}
    plan = compile_plan(parse_plan_file(document), schema=schema(), coordinator_key="A" * 43 + "=", site_keys=keys)
    model = train_rounds(plan, chunks, base, model, seed)
    np.save(path, model)
    return model


@cache
def _noise(epsilon: float) -> Decimal:
    document = {
        "name": "bench",
        "schema": "schema.toml",
        "model": {"kind": "notes"},
        "privacy": {"epsilon": Decimal(str(epsilon)), "delta": Decimal(DELTA), "selection_rate": Decimal(RATE)},
        "federation": {"rounds": ROUNDS, "steps_per_round": STEPS},
        "sites": {"any": {"nominal_patients": 60}},
    }
    return resolve_privacy(parse_plan_file(document)).noise_multiplier


def writer(model: NDArray[np.float32], cohort: CodesCohort | None = None) -> NotesGenerator:
    """What draws notes from a model."""
    spec, base = look_up_base(NotesSpec(chunks_per_step=1), EXAMPLE)
    return NotesGenerator(spec, schema(), base, model, cohort=cohort)


def drawn(
    generator: NotesGenerator, count: int, seed: int, *, calls: int = 10, temperature: str = "1", top_p: str = "1"
) -> list[Written]:
    """Notes of patients 0 to ``count`` - 1, labels in turn; 0 calls: one word at a time."""
    values = schema().label.values
    request = SampleRequest(
        label_counts=dict.fromkeys(values, count),
        sampler="confidence" if calls else "left-to-right",
        steps=calls or 1000,
        seed=str(seed),
        guidance=Decimal(0),
        calibrated=False,
        notes=NotesRequest(temperature=Decimal(temperature), top_p=Decimal(top_p)),
    )
    return generator.documents(request, np.arange(count), np.arange(count) % len(values))


def as_table(notes: Sequence[Written]) -> Table:
    """Rows as evaluation has them."""
    rows = np.empty(len(notes), dtype=object)
    rows[:] = [Note(text=note.text, type=note.kind) for note in notes]
    return Table(features=rows, labels=np.arange(len(notes)) % len(schema().label.values))


def leaks_and_use(data: Data, notes: Sequence[Written] | None, seed: int) -> dict[str, float]:
    """Of synthetic notes; of the patients' own where None is given."""
    rng = np.random.default_rng(seed)
    size = min(len(data.patients), len(data.held_out) // 2)
    train = every_note(data.patients).sample(size, rng)
    order = rng.permutation(len(data.held_out))
    players = every_note(data.held_out.select(order[:size]))
    unseen = every_note(data.held_out.select(order[size : 2 * size]))
    table = train if notes is None else as_table(notes)
    nearness = note_nearness([train, players, unseen, table], rng)
    threshold = link_threshold(nearness.distance(players, train).min(axis=1))
    found: dict[str, float] = {}
    for name, among, strings in (("training", train, data.gold), ("held_out", unseen, data.gold_held_out)):
        found[f"linked_{name}"] = float((nearness.distance(table, among).min(axis=1) < threshold).mean())
        runs = longest_runs(texts_of(table), texts_of(among))
        found[f"run_{name}"], found[f"longest_{name}"] = float(runs.mean()), float(runs.max())
        found[f"copied_{name}"] = float((runs >= COPIED_WORDS).mean())
        found[f"gold_in_notes_{name}"] = float(with_strings(texts_of(table), strings).mean())
        # What fills slots comes from public lists and may coincide; what the model wrote must hold none.
        words = texts_of(table) if notes is None else [" | ".join(note.words) for note in notes]
        found[f"gold_in_words_{name}"] = float(with_strings(words, strings).sum())
    test = every_note(data.held_out)
    truth = np.array([note.type for note in test.features])
    contenders = {"synthetic": table, "real": every_note(data.patients).sample(len(table), rng)}
    contenders["independent"] = independent_words(contenders["real"], rng)
    for name, learnt in contenders.items():
        accuracy, f1 = told_kinds(learnt, test, truth, seed, rng)
        found[f"accuracy_{name}"], found[f"f1_{name}"] = accuracy.value or 0.0, f1.value or 0.0
    found["self_bleu"] = self_bleu(texts_of(table)[:FEW])
    found["self_bleu_real"] = self_bleu(texts_of(train)[:FEW])
    return found


def diversity(generator: NotesGenerator, seed: int, temperature: str, top_p: str) -> dict[str, float]:
    """Of what the model wrote in few notes of 10 calls."""
    words = [" ".join(note.words) for note in drawn(generator, FEW, seed, temperature=temperature, top_p=top_p)]
    return {"distinct_2": distinct_n(words, 2), "self_bleu": self_bleu(words)}


def by_calls(data: Data, generator: NotesGenerator, seed: int, calls: int) -> dict[str, float]:
    """CPU seconds a note, surprise of a reader of held-out notes, and clinical mentions per 100 words."""
    begun = time.process_time()
    notes = drawn(generator, FEW, seed, calls=calls)
    seconds = (time.process_time() - begun) / FEW
    reader = CountedWords(texts_of(every_note(data.held_out)))
    mentions = mentions_of([note.text for note in notes])
    return {
        "seconds": seconds,
        "nats": reader.nats([" ".join(note.words) for note in notes]),
        "mentions": sum(mentions.per_100_words(kind) for kind in EntityKind),
    }


def agreement(model: NDArray[np.float32], seed: int) -> dict[str, float]:
    """Share of notes that name a code of the patient they are about, and of a patient picked at random."""
    found = load_schema(ROOT / "examples" / "diabetes" / "schema.toml")
    assert isinstance(found, Schema)
    held_out = load_patients(found, ROOT / "examples" / "diabetes" / "test.parquet")
    rows = np.random.default_rng(seed).choice(len(held_out), FEW, replace=False)
    cohort = CodesCohort(schema=found, features=held_out.features[:][rows], request={})
    notes = drawn(writer(model, cohort), FEW, seed)
    about = [cohort.patient(number, np.random.default_rng(0)) for number in range(FEW)]
    told = [{text.lower() for texts in patient.entities.values() for text in texts} for patient in about]

    def named(place: int, other: int) -> bool:
        return any(text in notes[place].text.lower() for text in told[other])

    return {
        "own": float(np.mean([named(place, place) for place in range(FEW)])),
        "other": float(np.mean([named(place, (place + 1) % FEW) for place in range(FEW)])),
        "sex": float(np.mean([note.patient.sex in note.text for note in notes])),
    }


def cell(name: str, work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """A kept result, or a new one."""
    path = KEPT / f"{name}.json"
    if not path.exists():
        found = work()
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(found), encoding="utf-8")
        unfinished.replace(path)
        print(f"{name}: {json.dumps(found)}", flush=True)
    kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _name(epsilon: float) -> str:
    return f"{epsilon:g}" if epsilon else "public notes alone"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(heads), f"|{'---|' * len(heads)}", *map(_row, rows), ""]


def markdown(results: Results, machine: str, data: Data, seeds: int) -> str:
    """The tables that docs quote."""
    lines = [
        f"Machine: {machine}. {len(data.patients)} patients of {len(set(data.sites))} sites, {len(data.held_out)} held-out "
        f"notes; embedded model, {ROUNDS} rounds of {STEPS} steps, selection rate {RATE}, delta {DELTA}; {NOTES} notes of "
        f"10 calls, temperature 1; mean (± standard deviation) over {seeds} seed{'s' * (seeds > 1)}.",
        "",
        "Leaks. *Chance* is the same among as many held-out notes. The last row has the patients' own notes in place of "
        "synthetic ones: what the measures show where all is leaked.",
        "",
    ]
    shown = (
        ("linked", "linked to a note"),
        ("run", "longest shared run, mean words"),
        ("copied", f"{COPIED_WORDS} words in a row"),
        ("gold_in_words", "notes with a gold identifier in the model's words"),
        ("gold_in_notes", "share of whole notes with one"),
    )
    lines += _table(
        ["epsilon", *(f"{title}: training / chance" for _, title in shown)],
        [
            [
                name,
                *(
                    f"{_spread([r[f'{key}_training'] for r in runs])} / {_spread([r[f'{key}_held_out'] for r in runs])}"
                    for key, _ in shown
                ),
            ]
            for name, runs in results["leaks"].items()
        ],
    )
    lines += ["Use: types of held-out real notes, told after learning from the notes.", ""]
    lines += _table(
        [
            "epsilon",
            "accuracy: synthetic",
            "real",
            "independent words",
            "macro F1: synthetic",
            "real",
            "self-BLEU / real",
        ],
        [
            [
                name,
                *(_spread([r[f"accuracy_{who}"] for r in runs]) for who in ("synthetic", "real", "independent")),
                *(_spread([r[f"f1_{who}"] for r in runs]) for who in ("synthetic", "real")),
                _spread([r["self_bleu"] / r["self_bleu_real"] for r in runs], 2),
            ]
            for name, runs in results["leaks"].items()
        ],
    )
    lines += [f"Diversity of the model's words at 10 calls, epsilon 8, {FEW} notes.", ""]
    lines += _table(
        ["temperature, top-p", "distinct-2", "self-BLEU"],
        [
            [name, _spread([r["distinct_2"] for r in runs]), _spread([r["self_bleu"] for r in runs])]
            for name, runs in results["diversity"].items()
        ],
    )
    lines += [f"Calls of the network for a chunk, epsilon 8, {FEW} notes; the reader has read the held-out notes.", ""]
    word = results["calls"].get("word by word", [])
    lines += _table(
        ["calls", "CPU s a note", "times faster", "nats a word", "mentions per 100 words"],
        [
            [
                name,
                _spread([r["seconds"] for r in runs], 2),
                f"{statistics.mean(r['seconds'] for r in word) / statistics.mean(r['seconds'] for r in runs):.1f}"
                if word
                else "",
                _spread([r["nats"] for r in runs], 2),
                _spread([r["mentions"] for r in runs], 1),
            ]
            for name, runs in results["calls"].items()
        ],
    )
    lines += ["Notes about patients of a codes cohort (examples/diabetes).", ""]
    lines += _table(
        ["names a code of its patient", "of another patient", "says the patient's sex"],
        [
            [_spread([r[key] for r in runs], 2) for key in ("own", "other", "sex")]
            for runs in results["agreement"].values()
        ],
    )
    return "\n".join(lines)


Results = dict[str, dict[str, list[dict[str, float]]]]


def measure(section: str, data: Data, seed: int, results: Results) -> None:
    """All cells of a section and a seed."""
    generator = writer(trained(data, 8.0, seed))

    def add(row: str, name: str, work: Callable[[], dict[str, float]]) -> None:
        results[section].setdefault(row, []).append(cell(f"{name}-{seed}", work))

    def leaks(epsilon: float) -> dict[str, float]:
        own = generator if epsilon == 8 else writer(trained(data, epsilon, seed))
        return leaks_and_use(data, drawn(own, NOTES, seed), seed)

    if section == "leaks":
        for epsilon in EPSILONS:
            add(_name(epsilon), f"leaks-{epsilon:g}", partial(leaks, epsilon))
        add("the patients' own notes", "leaks-patients", partial(leaks_and_use, data, None, seed))
    elif section == "diversity":
        for way in WAYS:
            add(", ".join(way), f"diversity-{'-'.join(way)}", partial(diversity, generator, seed, *way))
    elif section == "calls":
        for calls in CALLS:
            title = str(calls) if calls else "word by word"
            add(title, f"calls-{calls}", partial(by_calls, data, generator, seed, calls))
    else:
        add("8", "agreement", lambda: agreement(trained(data, 8.0, seed), seed))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets; docs/notes.md")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    data = load(arguments.data)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    results: Results = {"leaks": {}, "agreement": {}, "calls": {}, "diversity": {}}
    for section, seed in itertools.product(results, arguments.seeds):
        measure(section, data, seed, results)
        RESULTS.mkdir(exist_ok=True)
        text = markdown(results, machine, data, len(results["leaks"]["8"]))
        (RESULTS / "notes-writing.md").write_text(text, encoding="utf-8")
        (RESULTS / "notes-writing.json").write_text(
            json.dumps({"machine": machine, **results}, indent=1) + "\n", encoding="utf-8"
        )
    print(text)


if __name__ == "__main__":
    main()
