"""Notes from plan to snapshot, with real vaults and invented patients over an in-process grid."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from synclave_client.performance import Performance
from synclave_client.vault.notes_workload import NotesWorkload
from synclave_client.vault.rehearsals import Rehearsals
from synclave_server.preparation import read_draft
from synclave_server.snapshots import read_snapshot
from synclave_server.warm_start import read_start
from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import PlanError
from synclave_shared.ledger.entry import SpendReserved
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.model_size import parameters_of
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base, look_up_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import Federation, Optimiser, Privacy, TrainPlan
from synclave_shared.privacy.accountant import epsilon
from tests.federation.conftest import NewWorld, World
from tests.federation.hospitals import NAMES, entries, events, make_plan
from tests.models.small_notes import notes_dataset, notes_schema
from tests.models.test_note_base import published

SCHEMA = notes_schema()
SMALL = {"width": 64, "blocks": 1, "predicted_tokens": 8}


def plan_of(model: NotesSpec, start: bytes | None = None) -> TrainPlan:
    """The three sites of the toy plan, for notes."""
    numbers = {"noise_multiplier": Decimal(1), "selection_rate": Decimal("0.2")}
    rounds = Federation(rounds=2, steps_per_round=2, minimum_sites=2, round_timeout_s=60)
    return TrainPlan.model_validate(
        make_plan().model_dump()
        | {
            "modality": "notes",
            "schema_name": SCHEMA.name,
            "schema_digest": SCHEMA.digest,
            "model": model.model_dump(),
            "optimiser": Optimiser(name="adam").model_dump(),
            "privacy": Privacy.model_validate({**numbers, "marginals": None}).model_dump(),
            "federation": rounds.model_dump(),
            "warm_start": None if start is None else sha256_hex(start),
        }
    )


def trained(
    new_world: NewWorld, model: NotesSpec, start: bytes | None = None, models_folder: Path | None = None
) -> World:
    """A finished run with 30 patients at each site."""
    world: World = new_world(start, plan=plan_of(model, start), schema=SCHEMA)
    shared = Rehearsals()
    for number, name in enumerate(NAMES):
        world.sites[name].workload = NotesWorkload(
            site_name=name,
            device="cpu",
            schema=SCHEMA,
            dataset=notes_dataset(30, seed=number),
            models_folder=models_folder,
            performance=Performance(patients_at_once=8),
            rehearsals=shared,
        )
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete", events(world.run)[-1]
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    for name in NAMES:
        assert report.sites[name].epsilon == pytest.approx(epsilon(world.run.plan().mechanisms(), 1e-5))
    bodies = [entry.body for entry in entries(world.run) if entry.actor == NAMES[0]]
    tags = [body.mechanism.tag for body in bodies if isinstance(body, SpendReserved)]
    assert tags == ["poisson-gaussian/1"] * 2
    return world


def test_the_embedded_model_is_trained_and_a_later_run_goes_on_with_it(new_world: NewWorld) -> None:
    spec, base = look_up_base(NotesSpec.model_validate(SMALL), Path())
    first = trained(new_world, spec)
    snapshot = read_snapshot(first.run.snapshot)
    assert snapshot.model.shape == (parameters_of(spec, SCHEMA),)
    assert not np.array_equal(snapshot.model, parameter_vector(build_note_lm(spec, base)))
    assert snapshot.anchor is None
    start = read_start(first.run.snapshot, schema=SCHEMA, spec=spec, anchored=False)
    assert start == snapshot.model.astype("<f4").tobytes()
    second = trained(new_world, spec, start)
    assert not np.array_equal(read_snapshot(second.run.snapshot).model, snapshot.model)
    wider, _ = look_up_base(NotesSpec(width=128, blocks=1), Path())
    with pytest.raises(PlanError, match="looked_up"):
        read_start(first.run.snapshot, schema=SCHEMA, spec=wider, anchored=False)


def plan_file(folder: Path, model: str) -> Path:
    """A plan of notes and its schema as a coordinator writes them."""
    (folder / "schema.json").write_bytes(SCHEMA.to_json_bytes())
    path = folder / "plan.toml"
    path.write_text(
        f"""
        name = "notes"
        schema = "schema.json"
        model = {{ kind = "notes", {model} }}
        privacy = {{ noise_multiplier = 2, selection_rate = 0.2 }}
        federation = {{ rounds = 1, steps_per_round = 2 }}
        site_defaults = {{ nominal_patients = 80 }}
        """,
        encoding="utf-8",
    )
    return path


def test_a_published_model_is_named_by_its_files_and_found_in_the_sites_own_folder(
    new_world: NewWorld, tmp_path: Path
) -> None:
    published(tmp_path / "models" / "lm", "Bert")
    whole = read_draft(plan_file(tmp_path, 'base = "models/lm", predicted_tokens = 8'))
    assert isinstance(whole.plan_file.model, NotesSpec)
    assert whole.plan_file.model.base == "lm"
    weights = parameter_vector(
        build_note_lm(whole.plan_file.model, find_base(whole.plan_file.model, [tmp_path / "models"]))
    )
    assert whole.start == weights.astype("<f4").tobytes()

    adapted = read_draft(plan_file(tmp_path, 'base = "models/lm", predicted_tokens = 8, adapter_rank = 2'))
    spec = adapted.plan_file.model
    assert isinstance(spec, NotesSpec)
    assert adapted.start is None
    world = trained(new_world, spec, models_folder=tmp_path / "models")
    model = read_snapshot(world.run.snapshot).model
    assert model.shape == (spec.parameter_count(),)
    assert spec.parameter_count() < weights.size / 2
    assert model.any()

    world = new_world(None, plan=plan_of(spec), schema=SCHEMA)
    for number, name in enumerate(NAMES):
        world.sites[name].workload = NotesWorkload(
            site_name=name, device="cpu", schema=SCHEMA, dataset=notes_dataset(5, seed=number)
        )
    with world.up():
        world.train()
    refused = events(world.run)[-1]
    assert refused.stage == "failed"
    assert "model-not-installed" in str(refused.found)


def test_marginals_have_no_meaning_and_a_base_must_be_looked_up() -> None:
    spec, _ = look_up_base(NotesSpec.model_validate(SMALL), Path())
    plan = plan_of(spec)
    with pytest.raises(ValueError, match="looked_up"):
        TrainPlan.model_validate(plan.model_dump() | {"model": NotesSpec().model_dump()})
    privacy = make_plan().privacy.model_dump() | {"selection_rate": "0.2"}
    with pytest.raises(ValueError, match="marginals"):
        TrainPlan.model_validate(plan.model_dump() | {"privacy": privacy})
    with pytest.raises(ValueError, match="modality"):
        TrainPlan.model_validate(plan.model_dump() | {"modality": "codes"})
