"""Trains the tagger that ships: ``python -m bench.notes.train_tagger --data DIR --seed 0 --out FILE``.

Public notes only, so without differential privacy: synthetic notes of :mod:`.training_notes`, the train parts of the
PHI-injected notes and of MEDDOCAN, the synthetic PII sentences.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from bench.notes.corpora import (
    Note,
    held_out,
    injected_notes,
    meddocan_notes,
    of_templates,
    pii_notes,
    plain_notes,
    templates_of,
)
from bench.notes.training_notes import synthetic_notes
from synclave_shared.text.features import FLAGS, token_features
from synclave_shared.text.phi import Detector
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.tagger import PHI_TAGS
from synclave_shared.text.phi.words import lexicon_of
from synclave_shared.text.tagger import NO_TAG, Tagger, TaggerBatch, tagger_loss

OUT = Path(__file__).parents[2] / "shared/synclave_shared/text/data/phi-tagger.safetensors"
CHUNK = 96
TAG = {kind: place for place, (kind, _) in enumerate(PHI_TAGS)}
LABELS = {
    "PATIENT": "patient", "DOCTOR": "doctor", "RELATIVE": "relative", "HOSPITAL": "facility", "STREET": "street", "CITY": "city",
    "STATE": "state", "ZIP": "zip", "DATE": "date", "AGE": "age", "PHONE": "phone", "EMAIL": "email", "URL": "url", "ID": "number",
    # MEDDOCAN
    "NOMBRE_SUJETO_ASISTENCIA": "patient", "NOMBRE_PERSONAL_SANITARIO": "doctor", "FECHAS": "date", "CALLE": "street",
    "TERRITORIO": "city", "PAIS": "state", "CORREO_ELECTRONICO": "email", "ID_SUJETO_ASISTENCIA": "number",
    "ID_TITULACION_PERSONAL_SANITARIO": "number", "ID_ASEGURAMIENTO": "number", "HOSPITAL_ES": "facility", "INSTITUCION": "facility",
    "CENTRO_SALUD": "facility", "ID_CONTACTO_ASISTENCIAL": "number", "NUMERO_TELEFONO": "phone", "NUMERO_FAX": "phone",
    # Synthetic PII
    "PERSON": "patient", "STREET_ADDRESS": "street", "GPE": "city", "DATE_TIME": None, "CREDIT_CARD": "number",
    "PHONE_NUMBER": "phone", "EMAIL_ADDRESS": "email", "ZIP_CODE": "zip", "DOMAIN_NAME": "url", "US_SSN": "number",
    "IBAN_CODE": "number", "US_DRIVER_LICENSE": "number", "IP_ADDRESS": None, "ORGANIZATION": None, "TITLE": "none", "NRP": None,
    # No identifiers under HIPAA: left out of the loss, neither right nor wrong.
    "SEXO_SUJETO_ASISTENCIA": "none", "EDAD_SUJETO_ASISTENCIA": None, "FAMILIARES_SUJETO_ASISTENCIA": None, "PROFESION": None,
    "OTROS_SUJETO_ASISTENCIA": None,
}  # fmt: skip


def tagged(note: Note, code: str, *, unsure: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and tags of one note; ``unsure``: what patterns find beyond gold is left out of the loss."""
    locale = locale_for(code)
    features = token_features(note.text, locale, lexicon_of(locale))
    of_letter = np.zeros(len(note.text) + 1, np.int64)
    if unsure:
        for span in Detector(locale=locale).detect(note.text):
            of_letter[span.start : span.end] = NO_TAG
    for gold in note.gold:
        kind = LABELS.get(gold.label, gold.label)
        of_letter[gold.start : gold.end] = NO_TAG if kind is None else TAG[kind]
    tags = of_letter[features.spans[:, 0]] if len(features.spans) else np.zeros(0, np.int64)
    return features.numbers, features.flags, tags


def examples(
    synthetic: int, seed: int, data: Path, generator: np.random.Generator, *, fold: int | None = None
) -> list[tuple[np.ndarray, ...]]:
    """Chunks of all training notes; ``fold``: without this half of the templates of the injected notes and the PII test part."""
    rows: list[tuple[np.ndarray, ...]] = []

    def add(note: Note, code: str, *, unsure: bool = False, plain: float = 1.0) -> None:
        numbers, flags, tags = tagged(note, code, unsure=unsure)
        for start in range(0, len(tags), CHUNK):
            part = slice(start, start + CHUNK)
            # Chunks without identifiers are many: some of them are enough.
            if (tags[part] > 0).any() or generator.random() < plain:
                rows.append((numbers[part], flags[part], tags[part]))

    for note in synthetic_notes(synthetic, seed, data):
        add(note, "en", unsure=True, plain=0.5)
    for note in plain_notes(data):
        add(note, "en", unsure=True, plain=0.25)
    for note in injected_notes(test=False, data=data):
        shown = note
        if fold is not None:
            shown = of_templates(note, lambda template: not held_out(template, fold), templates_of(data))
        add(shown, "en", unsure=True, plain=0.5)
    for note in meddocan_notes("train", data):
        add(note, "es", plain=0.6)
    for note in pii_notes(data, test=None if fold is None else False):
        add(replace(note, gold=tuple(one for one in note.gold if one.label != "AGE")), "en")
    return rows


def batch_of(rows: list[tuple[np.ndarray, ...]], generator: np.random.Generator, drop: float) -> TaggerBatch:
    """Rows as patients of one chunk each; ``drop``: share of words whose letters and lists are hidden."""
    numbers = np.zeros((len(rows), 1, CHUNK, 4), np.int64)
    flags = np.zeros((len(rows), 1, CHUNK, FLAGS), np.float32)
    tags = np.full((len(rows), 1, CHUNK), NO_TAG, np.int64)
    for place, (number, flag, tag) in enumerate(rows):
        numbers[place, 0, : len(tag)], flags[place, 0, : len(tag)], tags[place, 0, : len(tag)] = number, flag, tag
    # Identifying words lose their letters more often than others: the lists will not have them all.
    hidden = generator.random(tags.shape) < np.where(tags > 0, 3 * drop, drop / 2)
    numbers[hidden & (numbers[..., 0] > 0), :3] = 1
    return TaggerBatch(
        numbers=torch.from_numpy(numbers),
        flags=torch.from_numpy(flags),
        tags=torch.from_numpy(tags),
        present=torch.ones(len(rows), dtype=torch.bool),
    )


def train(rows: list[tuple[np.ndarray, ...]], *, seed: int, epochs: int, tags: int, drop: float = 0.1) -> Tagger:
    """A network trained with AdamW and a cosine schedule."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    generator = np.random.default_rng(seed)
    network = Tagger(tags)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    size = 64
    steps = epochs * (len(rows) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    begun = time.process_time()
    for epoch in range(epochs):
        order, total = generator.permutation(len(rows)), 0.0
        for start in range(0, len(rows) - size + 1, size):
            batch = batch_of([rows[place] for place in order[start : start + size]], generator, drop)
            loss = tagger_loss(network, batch).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(
            f"epoch {epoch}: loss {total / (len(rows) // size):.4f}, {time.process_time() - begun:.0f} core-s",
            flush=True,
        )
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of public packs, docs/notes.md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--notes", type=int, default=3000)
    parser.add_argument("--hold-out", type=int, choices=(0, 1), help="half of the injected templates that is not shown")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    rows = examples(options.notes, options.seed, options.data, generator, fold=options.hold_out)
    print(f"{len(rows)} chunks", flush=True)
    network = train(rows, seed=options.seed, epochs=options.epochs, tags=len(PHI_TAGS))
    save_file({name: array.half().contiguous() for name, array in network.state_dict().items()}, options.out)
    print(
        f"{options.out}: {options.out.stat().st_size} bytes, {sum(p.numel() for p in network.parameters())} parameters"
    )


if __name__ == "__main__":
    main()
