"""Federated private training of the embedded model on notes: ``python -m bench.notes.training --data DIR`` (an hour; resumes).

Patients are a fifth of the MTSamples notes, with invented identifiers where such a copy exists, at four sites by
specialty; the reference is another fifth (:mod:`bench.notes.parts`), of which the model's public beginning has seen
nothing either. Measured are nats per token before and after, attacks that tell patients from reference notes, and how
far canaries stand out that one patient each had in a note. The last arm trains without privacy until the model knows
its patients by heart: the attacks must see that. Each cell is kept in ``.peers/notes-training`` (ignored by git).
Writes bench/results/notes-training.json and notes-training.md, which docs/notes.md quotes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from bench.notes.corpora import read_jsonl
from bench.notes.federated import train_rounds
from bench.notes.parts import parts_of
from synclave_server.evaluation.notes.canaries import draw_canaries, exposure, exposure_of_strangers, with_canary
from synclave_server.evaluation.notes.likelihood import nats_per_token
from synclave_server.evaluation.notes.membership import Membership, calibrated, membership
from synclave_server.planning import compile_plan, parse_plan_file, resolve_privacy
from synclave_server.pretraining import fit
from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.diffusion.notes import draw_notes, normals_of, note_loss
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import LoadedBase, build_note_lm, find_base, look_up_base
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.plan import TrainPlan
from synclave_shared.text.chunks import NoteChunks, encode_notes
from synclave_shared.text.masking import masked_text, record_identifiers, site_detector

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
KEPT: Final = ROOT / ".peers" / "notes-training"
DELTA: Final = "0.00001"
SECRET: Final = "A" * 39 + "{:03d}E="
TIMES: Final = (1, 3, 10)
"""How often a canary stands in its patient's note."""
CANARIES: Final = 12
"""Of each of these, one a patient."""
CONTROLS: Final = 255
CHARACTERS: Final = 600
"""Of each note, from its begin: about 150 tokens, so that the bench ends on two cores."""
SITES: Final = {
    "general_other": "general",
    "ortho_podiatry": "bones-and-nerves",
    "neuro": "bones-and-nerves",
    "cardio_pulm": "heart-and-lung",
}
"""Specialties -> sites; all others are ``abdomen-and-others``."""

SCHEMA: Final = NotesSchema.model_validate(
    {
        "name": "bench-notes",
        "modality": "notes",
        "tables": [{"name": "notes", "patient": "patient"}],
        "label": {
            "name": "kind",
            "title": "Kind",
            "values": ["procedure", "other"],
            "table": "notes",
            "column": "kind",
            "combine": "any",
            "missing": "fault",
        },
        "notes": {"table": "notes", "text": "text", "tokens": 128, "chunks": 2},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        title: in the table.
        model: settings of the model.
        pooled: all patients at one site, so that noise is added once.
        by_heart: of some patients, without privacy, until the model knows them.
    """

    title: str
    pooled: bool = False
    by_heart: bool = False


MODEL: Final = NotesSpec(chunks_per_step=1)
ROUNDS, STEPS, RATE, LEARNING_RATE = 4, 5, "0.2", "0.05"
"""Of the plan; with noise as of epsilon 8 its own choice of a learning rate for SGD is near this one."""

LEARNT_BY_HEART, EPOCHS = 72, 60
"""Patients of the arm without privacy, those with canaries among them, and how often it sees each."""

ARMS: Final = {
    "federated": Arm(title="four sites"),
    "by-heart": Arm(title=f"no privacy: {LEARNT_BY_HEART} patients, {EPOCHS} epochs", by_heart=True),
    "pooled": Arm(title="pooled", pooled=True),
}
CELLS: Final[tuple[tuple[str, float | None], ...]] = (
    ("federated", 8.0),
    ("by-heart", None),
    ("federated", None),
    ("federated", 3.0),
    ("pooled", 8.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedNote:
    """A note without identifiers: its number, its site, what it says."""

    number: int
    site: str
    kind: str
    text: str


def masked_notes(data: Path) -> dict[str, list[MaskedNote]]:
    """The notes of patients and reference, identifiers masked as a site does; kept, since that takes a minute."""
    path = KEPT / "masked.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {part: [MaskedNote(**note) for note in notes] for part, notes in kept.items()}
    rows = {row["sample_id"]: row for row in pq.read_table(data / "mtsamples" / "notes.parquet").to_pylist()}
    parts = parts_of({number: row["transcription"] or "" for number, row in rows.items()})
    injected = {row["sample_id"]: row for row in read_jsonl(data / "phi-injected-notes" / "notes.jsonl.gz")}
    detector = site_detector("en")
    found: dict[str, list[MaskedNote]] = {"patients": [], "reference": []}
    for number, row in sorted(rows.items()):
        text = injected[number]["text"] if number in injected else row["transcription"]
        if parts[number] == "public" or not (text or "").strip():
            continue
        gold = injected[number]["entities"] if number in injected else []
        kinds = {"PATIENT": "names", "ID": "mrns"}
        record = record_identifiers([(kinds[one["label"]], one["text"]) for one in gold if one["label"] in kinds])
        found[parts[number]].append(
            MaskedNote(
                number=number,
                site=SITES.get(row["node"], "abdomen-and-others"),
                kind="procedure" if row["note_type"] == "operative_or_procedure" else "other",
                text=masked_text(detector.of_patient(record), text)[:CHARACTERS].rpartition(" ")[0],
            )
        )
    KEPT.mkdir(parents=True, exist_ok=True)
    document = {
        part: [{name: getattr(note, name) for name in ("number", "site", "kind", "text")} for note in notes]
        for part, notes in found.items()
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return found


def dataset_of(notes: list[MaskedNote]) -> NotesDataset:
    """A patient for each note."""
    kinds = SCHEMA.label.values
    return NotesDataset(
        notes=tuple((Note(text=note.text),) for note in notes),
        identifiers=((),) * len(notes),
        labels=np.array([kinds.index(note.kind) for note in notes], dtype=np.int64),
        patient_ids=[str(note.number) for note in notes],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Those that were put in, by how often, and those that never were."""

    inserted: dict[int, tuple[str, ...]]
    controls: tuple[str, ...]

    @classmethod
    def drawn(cls, base: LoadedBase, seed: int) -> Canaries:
        """Canaries of the vocabulary's commonest whole words of the alphabet."""
        words = [base.tokenizer.decode([number]) for number in range(base.tokenizer.size)]
        common = [word[1:] for word in words if word[:1] == " " and word[1:].isalpha() and word.islower()]
        drawn = draw_canaries(
            [word for word in common if len(word) > 3][:600], len(TIMES) * CANARIES + CONTROLS, seed=seed
        )
        inserted = {times: drawn[place * CANARIES :][:CANARIES] for place, times in enumerate(TIMES)}
        return cls(inserted=inserted, controls=drawn[len(TIMES) * CANARIES :])

    def put_into(self, notes: list[MaskedNote], seed: int) -> list[MaskedNote]:
        """The notes, one canary in each of some."""
        chosen = iter(np.random.default_rng([seed, 5]).permutation(len(notes)).tolist())
        changed = list(notes)
        for times, sentences in self.inserted.items():
            for sentence in sentences:
                place = next(chosen)
                changed[place] = replace(notes[place], text=with_canary(notes[place].text, sentence, times))
        return changed

    def losses(self, network: nn.Module, base: LoadedBase) -> NDArray[np.float64]:
        """Of each sentence alone, inserted ones first."""
        sentences = [one for group in self.inserted.values() for one in group] + list(self.controls)
        notes = [
            MaskedNote(number=number, site="", kind="other", text=sentence) for number, sentence in enumerate(sentences)
        ]
        short = SCHEMA.model_copy(update={"notes": SCHEMA.notes.model_copy(update={"tokens": 32})})
        chunks = encode_notes(dataset_of(notes), short, base.tokenizer)
        return nats_per_token(network, chunks, base.tokenizer, draws=4, asked=16)


def plan_of(spec: NotesSpec, epsilon: float | None, sites: dict[str, int]) -> TrainPlan:
    """The agreement as signed, with invented keys."""
    privacy = {"noise_multiplier": Decimal("0.000001")} if epsilon is None else {"noise_multiplier": _noise(epsilon)}
    document = {
        "name": "bench",
        "schema": "schema.toml",
        "model": spec.model_dump(),
        "optimiser": {"name": "sgd", "learning_rate": Decimal(LEARNING_RATE)},
        "privacy": {**privacy, "delta": Decimal(DELTA), "selection_rate": Decimal(RATE), "clip_norm": 1},
        "federation": {"rounds": ROUNDS, "steps_per_round": STEPS},
        "sites": {name: {"nominal_patients": patients} for name, patients in sites.items()},
    }
    keys = {name: SECRET.format(number) for number, name in enumerate(sites)}
    return compile_plan(parse_plan_file(document), schema=SCHEMA, coordinator_key="A" * 43 + "=", site_keys=keys)


@lru_cache
def _noise(epsilon: float) -> Decimal:
    """The noise multiplier of an epsilon: the same for all sites and seeds."""
    target = {"epsilon": Decimal(str(epsilon)), "delta": Decimal(DELTA), "selection_rate": Decimal(RATE)}
    document = {
        "name": "bench",
        "schema": "schema.toml",
        "model": {"kind": "notes"},
        "privacy": target,
        "federation": {"rounds": ROUNDS, "steps_per_round": STEPS},
        "sites": {"any": {"nominal_patients": 100}},
    }
    found = resolve_privacy(parse_plan_file(document)).noise_multiplier
    return found


def trained(
    arm: Arm, spec: NotesSpec, base: LoadedBase, notes: list[MaskedNote], epsilon: float | None, seed: int
) -> NDArray[np.float32]:
    """The sites' and the coordinator's code without the network between them.

    The noise is drawn from ``seed`` here, and here only: a benchmark can be repeated, a hospital's noise cannot.
    """
    if arm.by_heart:
        return _by_heart(spec, base, encode_notes(dataset_of(notes), SCHEMA, base.tokenizer), seed)
    sites = {"all": notes} if arm.pooled else _by_site(notes)
    chunks = {name: encode_notes(dataset_of(own), SCHEMA, base.tokenizer) for name, own in sites.items()}
    plan = plan_of(spec, epsilon, {name: len(own) for name, own in sites.items()})
    return train_rounds(plan, chunks, base, parameter_vector(build_note_lm(spec, base)), seed)


def _by_site(notes: list[MaskedNote]) -> dict[str, list[MaskedNote]]:
    names = sorted({note.site for note in notes})
    return {name: [note for note in notes if note.site == name] for name in names}


def _by_heart(spec: NotesSpec, base: LoadedBase, chunks: NoteChunks, seed: int) -> NDArray[np.float32]:
    network = build_note_lm(spec, base)
    randomness = np.random.default_rng(seed)
    numbers = normals_of(chunks, spec)

    def loss_of(rows: NDArray[np.int64]) -> torch.Tensor:
        normals = randomness.standard_normal((len(rows), numbers), dtype=np.float32)
        return note_loss(network, draw_notes(chunks, base.tokenizer, spec, rows, len(rows), normals)).mean()

    fit(
        network,
        loss_of,
        len(chunks),
        steps=EPOCHS * len(chunks) // 8,
        batch_size=8,
        learning_rate=2e-3,
        weight_decay=0.0,
        ema=0.9,
        seed=seed,
    )
    return parameter_vector(network)


def measured(
    arm: Arm, base: LoadedBase, notes: dict[str, list[MaskedNote]], epsilon: float | None, seed: int
) -> dict[str, Any]:
    """One cell."""
    if arm.by_heart:
        notes = notes | {"patients": notes["patients"][:: len(notes["patients"]) // LEARNT_BY_HEART][:LEARNT_BY_HEART]}
    spec, _ = look_up_base(MODEL, Path())
    canaries = Canaries.drawn(base, seed)
    with_canaries = canaries.put_into(notes["patients"], seed)
    begun = time.process_time()
    model = trained(arm, spec, base, with_canaries, epsilon, seed)
    seconds = time.process_time() - begun
    network = build_note_lm(spec, base)
    sets = {name: encode_notes(dataset_of(notes[name]), SCHEMA, base.tokenizer) for name in ("patients", "reference")}
    # The attacked notes are those without canaries: what tells a member is then its own text.
    before = {name: nats_per_token(network, chunks, base.tokenizer) for name, chunks in sets.items()}
    canaries_before = canaries.losses(network, base)
    load_parameter_vector(network, model)
    after = {name: nats_per_token(network, chunks, base.tokenizer) for name, chunks in sets.items()}
    gained = {name: calibrated(after[name], before[name]) for name in after}
    bits = calibrated(canaries.losses(network, base), canaries_before)
    inserted, controls = bits[: -len(canaries.controls)], bits[-len(canaries.controls) :]
    by_times = inserted.reshape(len(TIMES), CANARIES)
    words = {name: chunks.predictable.sum() for name, chunks in sets.items()}
    weights = np.add.reduceat(sets["reference"].predictable.sum(axis=1), sets["reference"].starts[:-1])
    return {
        "before": float(np.average(before["reference"], weights=weights)),
        "after": float(np.average(after["reference"], weights=weights)),
        "patients_after": float(after["patients"].mean()),
        "patients": len(notes["patients"]),
        "reference": len(notes["reference"]),
        "tokens": {name: int(count) for name, count in words.items()},
        "by_loss": _told(membership(after["patients"], after["reference"], seed=seed)),
        "by_gain": _told(membership(gained["patients"], gained["reference"], seed=seed)),
        "exposure": {str(times): exposure(by_times[place], controls).tolist() for place, times in enumerate(TIMES)},
        "fit_s": seconds,
    }


def _told(found: Membership) -> dict[str, Any]:
    return {"auc": found.auc, "interval": list(found.interval), "hits": found.hits}


def spread(values: list[float], digits: int) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def markdown(kept: dict[tuple[str, float | None], list[dict[str, Any]]]) -> list[str]:
    chance = exposure_of_strangers(CONTROLS)
    columns = ["epsilon", "training", "nats / token", "change", "AUC by loss", "AUC by gain", "found at 5 % false"]
    columns += [f"canary x {times}, bits" for times in TIMES] + ["runs", "CPU s"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for (name, epsilon), runs in kept.items():
        changes = [run["after"] - run["before"] for run in runs]
        cells = [
            "infinity" if epsilon is None else f"{epsilon:g}",
            ARMS[name].title,
            spread([run["after"] for run in runs], 3),
            ("+" if statistics.mean(changes) > 0 else "") + spread(changes, 4),
            spread([run["by_loss"]["auc"] for run in runs], 3),
            spread([run["by_gain"]["auc"] for run in runs], 3),
            spread([100 * run["by_gain"]["hits"] for run in runs], 1) + " %",
        ]
        for times in TIMES:
            over = [statistics.mean(run["exposure"][str(times)]) - chance for run in runs]
            cells.append(("+" if statistics.mean(over) > 0 else "") + spread(over, 1))
        cells.append(str(len(runs)))
        cells.append(spread([run["fit_s"] for run in runs], 0))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets; docs/notes.md")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--budget-s", type=float, default=math.inf, help="begin nothing new after so many seconds")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    base = find_base(NotesSpec())
    notes = masked_notes(arguments.data)
    kept: dict[tuple[str, float | None], list[dict[str, Any]]] = {}
    chosen = [(name, epsilon) for name, epsilon in CELLS if name in arguments.arms]
    for seed in arguments.seeds:
        for name, epsilon in chosen:
            path = KEPT / f"{name}-{'infinity' if epsilon is None else f'{epsilon:g}'}-{seed}.json"
            if not path.exists() and time.perf_counter() - begun <= arguments.budget_s:
                cell = measured(ARMS[name], base, notes, epsilon, seed)
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
                partial.replace(path)
                print(f"{path.name}: {json.dumps(cell)}", flush=True)
            if path.exists():
                kept.setdefault((name, epsilon), []).append(json.loads(path.read_text(encoding="utf-8")))
    kept = {key: kept[key] for key in chosen if key in kept}
    if not kept:
        return
    one = next(iter(kept.values()))[0]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    head = (
        f"Machine: {machine}. {one['patients']} patients of four sites, {one['reference']} of the reference; warm start "
        f"{one['before']:.3f} nats a token. {ROUNDS} rounds of {STEPS} steps, selection rate {RATE}, delta {DELTA}, unit one "
        f"patient; mean ± standard deviation over up to {len(arguments.seeds)} seeds. Canaries: bits above those never put in "
        f"({CONTROLS} controls), {CANARIES} canaries each."
    )
    text = "\n".join([head, "", *markdown(kept), ""])
    RESULTS.mkdir(exist_ok=True)
    document = [{"arm": name, "epsilon": epsilon, "runs": runs} for (name, epsilon), runs in kept.items()]
    (RESULTS / "notes-training.json").write_text(
        json.dumps({"machine": machine, "cells": document}, indent=1) + "\n", encoding="utf-8"
    )
    (RESULTS / "notes-training.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
