"""Time series from plan to useful patients: three runs with real vaults and real patients over an in-process grid."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from synclave_client.vault.series_workload import SeriesWorkload
from synclave_server.aggregate import initial_state
from synclave_server.evaluation.document import check_origin
from synclave_server.exchanges import InfluenceExchange, State
from synclave_server.preparation import read_draft
from synclave_server.sampling.engine import sample
from synclave_server.sampling.series_target import SeriesTarget
from synclave_server.snapshots import read_snapshot
from synclave_server.warm_start import read_start
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.series.reading import load_series
from synclave_shared.errors import ConfigurationError, DataError, FederationError, PlanError
from synclave_shared.fixed_point import from_fixed
from synclave_shared.ledger.entry import SpendReserved
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.model_size import parameters_of
from synclave_shared.models.series.anchor import anchor_from_moments, moments_size
from synclave_shared.models.series.installed import look_up
from synclave_shared.plan import (
    ClassifierSpec,
    Federation,
    InfluenceSpec,
    Marginals,
    Optimiser,
    Privacy,
    ScoresSpec,
    SeriesSpec,
    TrainPlan,
)
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.protocol import decode_update
from tests.federation.conftest import NewWorld, World
from tests.federation.hospitals import NAMES, entries, events, make_plan
from tests.models.installed import as_in_a_new_process, documented, lay_down
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_schema

SCHEMA = series_schema()
CODE, FIELDS = documented()


def plan_of(model: SeriesSpec | ClassifierSpec, start: bytes | None = None) -> TrainPlan:
    """The three sites of the toy plan, for time series."""
    numbers = {"noise_multiplier": Decimal(1), "selection_rate": Decimal("0.2")}
    rounds = Federation(rounds=2, steps_per_round=2, minimum_sites=2, round_timeout_s=20)
    if isinstance(model, InfluenceSpec | ScoresSpec):
        numbers, rounds = {"noise_multiplier": Decimal(1)}, Federation(minimum_sites=2, round_timeout_s=20)
    marginals = None if isinstance(model, ClassifierSpec) else Marginals(noise_multiplier=Decimal(1))
    return TrainPlan.model_validate(
        make_plan().model_dump()
        | {
            "modality": "series",
            "schema_name": SCHEMA.name,
            "schema_digest": SCHEMA.digest,
            "model": model.model_dump(),
            "optimiser": Optimiser().model_dump(),
            "privacy": Privacy.model_validate({**numbers, "marginals": marginals}).model_dump(),
            "federation": rounds.model_dump(),
            "warm_start": None if start is None else sha256_hex(start),
        }
    )


def trained(new_world: NewWorld, model: SeriesSpec | ClassifierSpec, start: bytes | None = None) -> World:
    """A finished run with 80 patients at each site."""
    world: World = new_world(start, plan=plan_of(model, start), schema=SCHEMA)
    for number, name in enumerate(NAMES):
        world.sites[name].workload = SeriesWorkload(
            site_name=name, device="cpu", schema=SCHEMA, dataset=series_dataset(80, seed=number)
        )
    with world.up():
        world.train()
    assert events(world.run)[-1].stage == "complete", events(world.run)[-1]
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    for name in NAMES:
        assert report.sites[name].epsilon == pytest.approx(epsilon(world.run.plan().mechanisms(), 1e-5))
    return world


def tags(world: World) -> list[str]:
    """Mechanisms that the first site reserved, in order."""
    bodies = [entry.body for entry in entries(world.run) if entry.actor == NAMES[0]]
    return [body.mechanism.tag for body in bodies if isinstance(body, SpendReserved)]


def test_a_generator_a_clinical_model_and_its_influence_lead_to_useful_patients(
    new_world: NewWorld, tmp_path: Path
) -> None:
    generator = trained(new_world, SeriesSpec(noise_levels=2))
    assert tags(generator) == ["gaussian-sum/1", "poisson-gaussian/1", "poisson-gaussian/1"]
    snapshot = generator.run.snapshot

    start = read_start(snapshot, schema=SCHEMA, spec=ClassifierSpec(), anchored=False)
    clinical = trained(new_world, ClassifierSpec(), start)
    assert tags(clinical) == ["poisson-gaussian/1"] * 2
    known = read_snapshot(clinical.run.snapshot)
    assert known.anchor is not None
    assert np.array_equal(known.anchor, read_snapshot(snapshot).anchor)

    start = read_start(clinical.run.snapshot, schema=SCHEMA, spec=InfluenceSpec(), anchored=False)
    influence = trained(new_world, InfluenceSpec(), start)
    assert tags(influence) == ["gaussian-sum/1"]
    vector = read_snapshot(influence.run.snapshot).model
    size = parameters_of(ClassifierSpec(), SCHEMA)
    assert np.array_equal(vector[:size], known.model)
    sent = [from_fixed(decode_update(influence.sites[name].replies[-2].payload, size)) for name in NAMES]
    patients = sum(site.nominal_patients for site in influence.run.plan().sites)
    np.testing.assert_allclose(vector[size:], np.sum(sent, axis=0) / patients, rtol=1e-4)
    target = SeriesTarget.of(read_snapshot(influence.run.snapshot), SCHEMA.digest)
    assert target.noise_std == pytest.approx(np.sqrt(3) / patients)
    assert target.patients == patients

    options = {"label_counts": {"no": 20, "yes": 20}, "seed": 1}
    cohorts = {}
    for by, strength in (("influence", "0"), ("influence", "0.5"), ("classifier", "0.5")):
        out = tmp_path / f"{by}-{strength}"
        given = {"target": influence.run.snapshot, "target_by": by, "target_strength": Decimal(strength)}
        provenance = sample(snapshot, 40, out=out, **options, **given)  # type: ignore[arg-type]
        assert provenance.request.target == read_snapshot(influence.run.snapshot).record.tensors_digest
        cohorts[by, strength] = load_series(SCHEMA, out)
    plain = tmp_path / "plain"
    sample(snapshot, 40, out=plain, **options)  # type: ignore[arg-type]
    unguided = load_series(SCHEMA, plain)
    assert np.array_equal(unguided.values, cohorts["influence", "0"].values)
    for guided in (cohorts["influence", "0.5"], cohorts["classifier", "0.5"]):
        assert np.array_equal(guided.labels, unguided.labels)
        assert np.array_equal(guided.static, unguided.static)
        assert not np.array_equal(guided.values, unguided.values)
    assert not np.array_equal(cohorts["influence", "0.5"].values, cohorts["classifier", "0.5"].values)

    for wrong in (snapshot, clinical.run.snapshot):
        with pytest.raises(ConfigurationError, match="influence"):
            sample(snapshot, 5, out=tmp_path / "wrong", target=wrong, target_strength=Decimal(1))
    with pytest.raises(PlanError, match="classifier"):
        read_start(snapshot, schema=SCHEMA, spec=InfluenceSpec(), anchored=False)
    spec = InfluenceSpec(architecture="tcn")
    with pytest.raises(PlanError, match="architecture"):
        read_start(clinical.run.snapshot, schema=SCHEMA, spec=spec, anchored=False)


def plan_file(folder: Path, architecture: str, start: Path) -> Path:
    """A classifier's plan and its schema as a coordinator writes them."""
    (folder / "schema.json").write_bytes(SCHEMA.to_json_bytes())
    path = folder / "plan.toml"
    path.write_text(
        f"""
        name = "clinical"
        schema = "schema.json"
        model = {{ kind = "classifier", architecture = "{architecture}" }}
        warm_start = {{ model = "{start}" }}
        privacy = {{ noise_multiplier = 2, selection_rate = 0.2 }}
        federation = {{ rounds = 1, steps_per_round = 2 }}
        site_defaults = {{ nominal_patients = 80 }}
        """,
        encoding="utf-8",
    )
    return path


def test_guidance_targets_a_model_of_ones_own(new_world: NewWorld, tmp_path: Path) -> None:
    generator = trained(new_world, SeriesSpec(noise_levels=2)).run.snapshot
    lay_down(tmp_path / "installed", CODE, **FIELDS)
    with as_in_a_new_process(tmp_path / "installed", "worst_values"):
        spec = look_up(SERIES_LAYOUT, ClassifierSpec(architecture=FIELDS["name"]))
        target = look_up(SERIES_LAYOUT, InfluenceSpec(architecture=FIELDS["name"]))
        start = read_start(generator, schema=SCHEMA, spec=spec, anchored=False)
        clinical = trained(new_world, spec, start).run.snapshot
        start = read_start(clinical, schema=SCHEMA, spec=target, anchored=False)
        influence = trained(new_world, target, start).run.snapshot
        sample(generator, 10, out=tmp_path / "plain", seed=1)
        sample(generator, 10, out=tmp_path / "guided", seed=1, target=influence, target_strength=Decimal(1))
        assert target.installed is not None
        file = plan_file(tmp_path, FIELDS["name"], generator)
        assert read_draft(file).plan_file.model == spec
        newer = target.model_copy(update={"installed": target.installed.model_copy(update={"version": "1.1"})})
        with pytest.raises(PlanError, match="installed"):
            read_start(clinical, schema=SCHEMA, spec=newer, anchored=False)
    with pytest.raises(PlanError, match="no installed package"):
        read_draft(file)
    with pytest.raises(PlanError, match="no installed package"):
        sample(generator, 10, out=tmp_path / "unknown", seed=1, target=influence, target_strength=Decimal(1))
    plain, guided = (load_series(SCHEMA, tmp_path / name) for name in ("plain", "guided"))
    assert np.array_equal(plain.labels, guided.labels)
    assert not np.array_equal(plain.values, guided.values)


def test_a_vector_that_is_not_longer_than_its_noise_is_refused() -> None:
    plan = plan_of(InfluenceSpec(), b"start")
    exchange = InfluenceExchange(plan=plan, size=50)
    state = State(
        model=np.zeros(50, np.float32),
        average=np.zeros(50, np.float32),
        anchor=np.zeros(1, np.float32),
        label_shares=np.ones(2, np.float32),
        server=initial_state(plan.federation, 50),
        next_round=1,
    )
    # Two sites' noise in 50 parameters has a length of 10.
    with pytest.raises(FederationError, match="noise"):
        exchange.combine(state, {"north": np.full(50, 0.5), "west": np.full(50, 0.5)}, 1)
    found, _ = exchange.combine(state, {"north": np.full(50, 5.0), "west": np.full(50, 5.0)}, 1)
    patients = sum(plan.site(name).nominal_patients for name in ("north", "west"))
    np.testing.assert_allclose(found.model[50:], 10 / patients, rtol=1e-6)


def test_a_report_states_no_single_runs_epsilon_for_guided_patients() -> None:
    sampling = {"plan_digest": "a" * 64, "request": {"target": "b" * 64, "target_strength": "0.3"}}
    record: Any = SimpleNamespace(plan=SimpleNamespace(digest="a" * 64))
    with pytest.raises(DataError, match="guided"):
        check_origin(sampling, record)
    check_origin(sampling | {"request": {"target": None, "target_strength": "0"}}, record)


def test_a_grid_whose_covariances_would_fill_the_memory_is_refused_at_signing() -> None:
    grid = SCHEMA.grid.model_copy(update={"steps": 1000})
    with pytest.raises(PlanError, match="horizon"):
        parameters_of(SeriesSpec(), SCHEMA.model_copy(update={"grid": grid}))


def test_the_anchor_is_made_of_the_sum_of_the_sites_that_replied(new_world: NewWorld) -> None:
    world = trained(new_world, SeriesSpec(noise_levels=1))
    sums = [
        from_fixed(decode_update(reply.payload, moments_size(SERIES_LAYOUT)))
        for name in NAMES
        for reply in world.sites[name].replies
        if len(reply.payload) == 8 * moments_size(SERIES_LAYOUT)
    ]
    assert len(sums) == 3
    anchor, _ = anchor_from_moments(np.sum(sums, axis=0), SERIES_LAYOUT, 5.0 * np.sqrt(3))
    assert np.array_equal(read_snapshot(world.run.snapshot).anchor, anchor.to_vector())
