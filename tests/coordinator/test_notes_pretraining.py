"""``synclave pretrain`` on public notes, and a plan that begins with what it made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from synclave_server.preparation import read_draft
from synclave_server.pretrain_view import run_pretrain
from synclave_shared.errors import DataError, PlanError
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.stored.public_model import read_public_model
from tests.federation.test_notes_run import SCHEMA, plan_file
from tests.models.small_notes import notes_dataset

NETWORK = {"width": 64, "blocks": 1}


def public_notes(folder: Path, **marks: str) -> Path:
    folder.mkdir()
    dataset = notes_dataset(30)
    lines = [
        {"patient": patient, "day": day, "died": "no", "kind": note.type, "name": "", "text": note.text} | marks
        for patient, notes in zip(dataset.patient_ids, dataset.notes, strict=True)
        for day, note in enumerate(notes)
    ]
    (folder / "notes.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return folder


def pretrained(folder: Path, data: Path, steps: int = 25) -> float:
    (folder / "schema.json").write_bytes(SCHEMA.to_json_bytes())
    document = run_pretrain(
        folder / "schema.json",
        data,
        out=folder / "public-model",
        network=NETWORK,
        steps=steps,
        batch_size=16,
        seed=0,
        device="cpu",
        precision="float32",
        console=Console(quiet=True),
    )
    return float(document["loss"])


def test_a_plan_begins_with_a_model_of_public_notes(tmp_path: Path) -> None:
    loss = pretrained(tmp_path, public_notes(tmp_path / "notes"))
    assert loss < np.log(8192)
    public = read_public_model(tmp_path / "public-model")
    assert isinstance(public.record.model, NotesSpec)
    untrained = parameter_vector(build_note_lm(public.record.model, find_base(public.record.model)))
    assert public.model.shape == untrained.shape
    assert not np.array_equal(public.model, untrained)

    path = plan_file(tmp_path, "width = 64, blocks = 1")
    path.write_text(path.read_text() + '[warm_start]\nmodel = "public-model"\n')
    assert read_draft(path).start == public.model.astype("<f4").tobytes()
    path = plan_file(tmp_path, "width = 128, blocks = 1")
    path.write_text(path.read_text() + '[warm_start]\nmodel = "public-model"\n')
    with pytest.raises(PlanError, match="warm start"):
        read_draft(path)


def test_real_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wrong-origin"):
        pretrained(tmp_path, public_notes(tmp_path / "notes", _origin="real"))
    assert not (tmp_path / "public-model").exists()
