"""A copula from plan to patients: real vaults with real patients, the real apps over an in-process grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_client.vault.workload import PatientWorkload
from synclave_server.sampling.engine import sample
from synclave_server.snapshots import read_snapshot
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.patient_table import read_patient_table
from synclave_shared.data.tables import load_patients
from synclave_shared.fixed_point import from_fixed
from synclave_shared.ledger.entry import SpendReserved
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.models.anchor import Anchor
from synclave_shared.models.copula import copula_vector, fit_copula, moments_size
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import TrainPlan
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.protocol import Envelope, decode_update, encode_model
from tests.federation.conftest import NewWorld, World
from tests.federation.faults import Killed, kill_at, raising
from tests.federation.hospitals import (
    NAMES,
    SCHEMA,
    Handler,
    Site,
    at_round,
    entries,
    events,
    make_copula_plan,
    releasing,
)
from tests.federation.test_progress_view import shown

HEART = Path(__file__).parents[2] / "examples" / "heart" / "sites"
PATIENTS = dict(zip(NAMES, ("budapest", "cleveland-clinic", "zurich-basel"), strict=True))
LAYOUT = CodeLayout.of(SCHEMA)
M = moments_size(LAYOUT)


class CountingWorkload(PatientWorkload):
    """The real one, and which rounds it computed."""

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        self.computed = [*getattr(self, "computed", []), round_number]
        return super().release(plan, round_number, payload)


@pytest.fixture
def world(new_world: NewWorld) -> Iterator[World]:
    """Three hospitals with their heart patients, up."""
    world = new_world(plan=make_copula_plan())
    for name, folder in PATIENTS.items():
        world.sites[name].workload = CountingWorkload(
            site_name=name, device="cpu", schema=SCHEMA, dataset=load_patients(SCHEMA, HEART / folder)
        )
    with world.up():
        yield world


def moments_of(world: World, name: str) -> NDArray[np.float64]:
    """What a site sent last before the close."""
    return from_fixed(decode_update(world.sites[name].replies[-2].payload, M))


def refitted(world: World, names: tuple[str, ...], sites_of_noise: int) -> NDArray[np.float32]:
    """Slow truth: the copula of the named sites' sums, with the noise of so many sites."""
    anchored = read_snapshot(world.run.round_folder(0))
    assert anchored.anchor is not None
    assert anchored.label_shares is not None
    anchor = Anchor(logits=anchored.anchor, label_shares=anchored.label_shares.astype(np.float64))
    total = np.sum([moments_of(world, name) for name in sorted(names)], axis=0)
    return copula_vector(fit_copula(total, 2 * 0.35 * math.sqrt(sites_of_noise), anchor, LAYOUT))


def test_a_copula_costs_two_sums_and_its_snapshot_draws_patients(world: World, tmp_path: Path) -> None:
    world.train()
    assert events(world.run)[-1].stage == "complete"
    report = verify_ledger(world.run.ledger)
    assert report.valid, report.findings
    plan = world.run.plan()
    for name in NAMES:
        assert report.sites[name].epsilon == pytest.approx(epsilon(plan.mechanisms(), 1e-5))
        assert world.sites[name].workload.computed == [0, 1]
    reserved = [entry.body for entry in entries(world.run) if isinstance(entry.body, SpendReserved)]
    assert [body.mechanism.tag for body in reserved] == ["gaussian-sum/1"] * 6
    snapshot = read_snapshot(world.run.snapshot)
    assert (snapshot.record.round, snapshot.record.sites) == (1, NAMES)
    total = np.sum([moments_of(world, name) for name in NAMES], axis=0)
    assert snapshot.record.aggregate_digest == sha256_hex(total.astype("<f8").tobytes())
    assert np.array_equal(snapshot.model, refitted(world, NAMES, 3))
    lines = [line.strip() for line in shown(events(world.run), terminal=False).splitlines()]
    assert any(line.startswith("second moments: 3 of 3 sites replied, epsilon so far") for line in lines)

    provenance = sample(world.run.snapshot, 2000, out=tmp_path / "out.parquet", seed=3)
    assert (provenance.round, provenance.request.sampler) == (1, "copula")
    drawn = read_patient_table(SCHEMA, tmp_path / "out.parquet").features[:].mean(axis=0)
    real = np.concatenate([load_patients(SCHEMA, HEART / folder).features[:] for folder in PATIENTS.values()]).mean(
        axis=0
    )
    # The marginals' noise is 2 * 5 * sqrt(3) = 17 on sums over 540 patients, .032 of a prevalence; the largest of 73 is
    # .08 to .14 in most runs. Ten times that noise, or columns that were exchanged, would be far beyond both bounds.
    assert np.abs(drawn - real).mean() < 0.08
    assert np.abs(drawn - real).max() < 0.3


def test_the_noise_is_that_of_the_sites_which_are_in_the_sum(world: World) -> None:
    world.sites["west"].fault = at_round(1, raising)
    world.train()
    snapshot = read_snapshot(world.run.snapshot)
    assert snapshot.record.sites == ("north", "south")
    assert np.array_equal(snapshot.model, refitted(world, ("north", "south"), 2))
    assert not np.array_equal(snapshot.model, refitted(world, ("north", "south"), 3))
    assert verify_ledger(world.run.ledger).valid


def test_a_sum_longer_than_a_hospitals_patients_allow_is_dropped(world: World) -> None:
    def huge(moments: NDArray[np.int64]) -> NDArray[np.int64]:
        moments[0] = int(1e9) << 20
        return moments

    world.sites["north"].fault = at_round(1, releasing(huge))
    world.train()
    last = world.run.read_metrics()["rounds"][-1]
    assert (last["sites"], last["findings"]) == (["south", "west"], {"north": "norm-exceeded"})


def test_an_anchor_that_is_none_costs_nothing(world: World) -> None:
    """Whoever stands between sends a site another payload: it refuses, and nothing of it is in journal or ledger."""

    def other_anchor(_site: Site, handler: Handler, request: Envelope) -> Envelope:
        message = json_with_digest(request, payload := encode_model(np.full(len(request.payload) // 4, 7, np.float32)))
        return handler(Envelope(message, payload))

    world.sites["north"].fault = at_round(1, other_anchor)
    world.train()
    assert world.run.read_metrics()["rounds"][-1]["findings"] == {"north": "failed (protocol)"}
    assert world.sites["north"].workload.computed == [0]
    spends = [(entry.actor, entry.body.round) for entry in entries(world.run) if isinstance(entry.body, SpendReserved)]
    assert ("north", 0) in spends
    assert ("north", 1) not in spends
    assert ("south", 1) in spends


def json_with_digest(request: Envelope, payload: bytes) -> bytes:
    """The request's header for another payload."""
    return request.header.replace(sha256_hex(request.payload).encode(), sha256_hex(payload).encode())


@pytest.mark.parametrize("where", ["write_snapshot", "_record", "copy_snapshot"])
def test_killed_after_the_sum_and_resumed_no_patient_is_summed_again(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, where, 2)
        with pytest.raises(Killed):
            world.train()
    world.train()
    assert events(world.run)[-1].stage == "complete"
    assert verify_ledger(world.run.ledger).valid
    assert [site.workload.computed for site in world.sites.values()] == [[0, 1]] * 3
    assert read_snapshot(world.run.snapshot).record.round == 1
