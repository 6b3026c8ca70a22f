"""``synclave sample`` as a person calls it."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from synclave_server.aggregate import ServerState
from synclave_server.cli import app
from synclave_server.notary import Notary
from synclave_server.run_folder import RunFolder
from synclave_server.sample_view import run_sample
from synclave_server.sampling import engine
from synclave_server.sampling.cohort_formats import CODE_FORMATS, FORMATS
from synclave_server.sampling.cohort_writer import unfinished_folder
from synclave_server.snapshots import write_snapshot
from synclave_shared.audit.console import run
from synclave_shared.diffusion.samplers import SAMPLERS
from synclave_shared.ledger.entry import SamplesReleased, SnapshotWritten, parse_entry
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.store import Ledger
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import ModelSpec, signed_plan_bytes
from tests.models.small import LAYOUT, small_plan, small_schema
from tests.sampling.stored import ANCHOR


def answer(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as left:
        run(app, ["sample", *(str(argument) for argument in arguments)])
    assert left.value.code == code
    return capsys.readouterr().out


def test_the_document_has_the_provenance_and_the_pace(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.parquet"
    options = ["--snapshot", snapshot, "--out", out, "--patients", 300, "--steps", 2, "--json"]
    document = json.loads(answer(capsys, *options, "--label", "outcome=yes:7", "--label", "outcome=no"))
    beside = json.loads(Path(f"{out}.provenance.json").read_bytes())
    assert {name: document[name] for name in beside} == beside
    assert document["request"]["label_counts"] == {"no": 293, "yes": 7}
    assert document["network_calls"] == 2
    assert document["patients_per_second"] > 0
    assert document["resumed_patients"] == 0


def test_the_ledger_of_the_run_is_told_of_the_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = SigningKey.generate(tmp_path / "coordinator.key")
    plan = small_plan().model_copy(update={"coordinator_key": key.public_text})
    schema = small_schema().to_json_bytes()
    signature = key.sign_text(signed_plan_bytes(plan.to_bytes()))
    folder = RunFolder.prepare(tmp_path / "run", plan.to_bytes(), signature, schema)
    record = write_snapshot(
        folder.snapshot,
        plan=plan,
        schema=schema,
        round_number=2,
        model=parameter_vector(build_code_denoiser(LAYOUT, ModelSpec())),
        anchor=ANCHOR,
        label_shares=np.array([0.7, 0.3], np.float32),
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north",),
        aggregate_digest="0" * 64,
        ledger_index=2,
    )
    written = SnapshotWritten(plan_digest=plan.digest, round=2, snapshot_digest=record.tensors_digest)
    Notary(folder.ledger, plan, signature, key).record(("snapshot", written))
    options = ["--snapshot", folder.snapshot, "--patients", 20, "--steps", 2]
    assert "in no ledger" in answer(capsys, *options, "--out", tmp_path / "untold.parquet")
    told = ["--run", folder.path, "--key", f"file:{tmp_path / 'coordinator.key'}", "--json"]
    document = json.loads(answer(capsys, *options, *told, "--out", tmp_path / "told.parquet"))
    assert document["ledger_entry"] == 3
    body = parse_entry(Ledger.open(folder.ledger).entry(3)).body
    assert isinstance(body, SamplesReleased)
    assert (body.cohort_digest, body.patients) == (document["file_digest"], 20)


def test_samples_of_another_run_are_not_drawn_for_its_ledger(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = SigningKey.generate(tmp_path / "coordinator.key")
    plan = small_plan().model_copy(update={"coordinator_key": key.public_text})
    signature = key.sign_text(signed_plan_bytes(plan.to_bytes()))
    run_folder = RunFolder.prepare(tmp_path / "run", plan.to_bytes(), signature, small_schema().to_json_bytes()).path
    options = ["--snapshot", snapshot, "--patients", 20, "--out", tmp_path / "x.parquet", "--home", tmp_path, "--json"]
    refused = json.loads(answer(capsys, *options, "--run", run_folder, code=1))["error"]
    assert "another plan" in refused["found"]
    assert not (tmp_path / "x.parquet").exists()


def test_help_and_refusal_list_samplers_and_formats(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    text = answer(capsys, "--help")
    assert ", ".join(SAMPLERS) in text
    assert ", ".join(FORMATS) in text
    options = ["--snapshot", snapshot, "--out", tmp_path / "out.parquet", "--patients", 3, "--json"]
    refused = json.loads(answer(capsys, *options, "--sampler", "magic", code=1))["error"]
    assert ", ".join(SAMPLERS) in refused["expected"]
    refused = json.loads(answer(capsys, *options, "--format", "papyrus", code=1))["error"]
    assert ", ".join(CODE_FORMATS) in refused["expected"]
    assert list(tmp_path.iterdir()) == []


def test_a_person_sees_pace_and_time_left_and_after_an_interruption_where_to_go_on(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", 512)
    options: dict[str, Any] = {
        "out": tmp_path / "out.parquet",
        "labels": (),
        "given": (),
        "sampler": "ddim",
        "steps": 2,
        "guidance": 0,
        "classifier_guidance": 0,
        "target": None,
        "target_by": "influence",
        "target_strength": 0,
        "target_curvature": False,
        "seed": 1,
        "precision": "float32",
        "calibrated": True,
        "modality": "codes",
        "notes": {},
        "models": None,
        "codes": None,
        "codes_schema": None,
        "cohort_format": "parquet",
        "devices": ["cpu"],
        "workers": 1,
        "batch_size": 256,
    }
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    with monkeypatch.context() as patch:
        join = engine._Joiner.join

        def interrupted(self: Any, finished: set[int], limit: int) -> None:
            join(self, finished, limit)
            if len(finished) == 3:
                raise KeyboardInterrupt

        patch.setattr(engine._Joiner, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sample(snapshot, 3000, console=console, **options)
    assert str(unfinished_folder(options["out"])) in screen.getvalue()
    assert "the same command goes on" in screen.getvalue()
    document = run_sample(snapshot, 3000, console=console, **options)
    assert document["resumed_patients"] == 3 * 512
    assert "3000/3000" in screen.getvalue()
    assert "per second" in screen.getvalue()
    assert "left" in screen.getvalue()
