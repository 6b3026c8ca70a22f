"""Which folders ``synclave-site rewrite`` takes for a language model: what the coordinator writes, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_client.rewriting import read_note_model
from synclave_server.aggregate import ServerState
from synclave_server.pretraining import PretrainedModel
from synclave_server.public_model import write_public_model
from synclave_server.snapshots import write_snapshot
from synclave_shared.errors import SnapshotError
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, look_up_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.stored.public_model import PublicTraining
from synclave_shared.plan import TrainPlan
from tests.federation.test_notes_run import SCHEMA, SMALL, plan_of
from tests.models.small import small_plan, small_schema

SPEC, BASE = look_up_base(NotesSpec.model_validate(SMALL), Path())
MODEL = np.float32(2) * parameter_vector(build_note_lm(SPEC, BASE))


def snapshot(folder: Path, plan: TrainPlan, schema: bytes, model: NDArray[np.float32] = MODEL) -> Path:
    write_snapshot(
        folder,
        plan=plan,
        schema=schema,
        round_number=1,
        model=model,
        anchor=None,
        label_shares=None,
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north",),
        aggregate_digest="0" * 64,
        ledger_index=3,
    )
    return folder


def test_a_run_its_snapshot_and_a_public_model_are_models(tmp_path: Path) -> None:
    run = snapshot(tmp_path / "run" / "snapshot", plan_of(SPEC), SCHEMA.to_json_bytes()).parent
    public, none = tmp_path / "public", np.zeros(0, np.float32)
    public.mkdir()
    training = PublicTraining(
        patients=1, files=(), steps=1, batch_size=1, seed=0, precision="float32", device="cpu", versions={}
    )
    learnt = PretrainedModel(parameters=MODEL, anchor=none, label_shares=none)
    write_public_model(public, SCHEMA, SPEC, learnt, training)
    for folder in (run, run / "snapshot", public):
        network, tokenizer, _ = read_note_model(folder)
        assert np.array_equal(parameter_vector(network), MODEL)
        assert tokenizer.size == BASE.tokenizer.size


def test_a_folder_that_is_no_model_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="none of them"):
        read_note_model(tmp_path)
    codes = snapshot(tmp_path / "codes", small_plan(), small_schema().to_json_bytes(), np.zeros(3, np.float32))
    with pytest.raises(SnapshotError, match="a model of diffusion"):
        read_note_model(codes)
    short = snapshot(tmp_path / "short", plan_of(SPEC), SCHEMA.to_json_bytes(), MODEL[:-1])
    with pytest.raises(SnapshotError, match="shape"):
        read_note_model(short)
    changed = snapshot(tmp_path / "changed", plan_of(SPEC), SCHEMA.to_json_bytes())
    content = bytearray((changed / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (changed / "model.safetensors").write_bytes(content)
    with pytest.raises(SnapshotError, match=r"model\.safetensors with SHA-256"):
        read_note_model(changed)
