"""The project's own model as a contender: the sites' and the coordinator's code, without the network between them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.codes.environments import ENVIRONMENTS
from bench.codes.task import Sampler, Task
from synclave_client.training.codes import train_round
from synclave_client.training.marginals import release_marginals
from synclave_client.training.noise import SecretRandomness
from synclave_server.aggregate import initial_state, server_step, weighted_mean
from synclave_server.planning import compile_plan, parse_plan_file, resolve_privacy
from synclave_server.pretraining import pretrain
from synclave_server.sampling.generator import PatientGenerator
from synclave_server.sampling.labels import LabelAssignment
from synclave_server.sampling.request import resolve_request
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.anchor import Anchor, anchor_from_marginals
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import ModelSpec, TrainPlan

__all__ = ["TOWER", "drawer", "fit_federated", "fit_without_noise", "site_names", "trained_tower"]

ROUNDS, STEPS, SELECTION_RATE = 10, 8, Decimal("0.1")
"""As in the embedded example."""


TOWER = ModelSpec.model_validate(
    {
        "width": 512,
        "blocks": 2,
        "sigma_min": Decimal("0.25"),
        "sigma_max": Decimal(20),
        "log_sigma_mean": Decimal(0),
        "log_sigma_std": Decimal("1.2"),
    }
)
"""Without noise a tower learns what couplings cannot."""

TOWER_STEPS = 8000

TOWER_PRECISION: Final = "bfloat16"
"""Of the tower's training: half the time on a CPU with AMX, and no worse."""

KEPT = ENVIRONMENTS / "towers"


def site_names(site_of_patient: NDArray[np.int64]) -> list[str]:
    """A name for each site's number."""
    return [f"site-{number}" for number in np.unique(site_of_patient)]


def plan_document(epsilon: float, delta: float, sites: dict[str, int], share: str) -> dict[str, Any]:
    """A plan file: what a coordinator would write for these sites."""
    return {
        "name": "bench",
        "schema": "schema.toml",
        "privacy": {
            "epsilon": Decimal(str(epsilon)),
            "delta": Decimal(str(delta)),
            "selection_rate": SELECTION_RATE,
            "marginals": {"epsilon_share": Decimal(share)},
        },
        "federation": {"rounds": ROUNDS, "steps_per_round": STEPS},
        "sites": {name: {"nominal_patients": patients} for name, patients in sites.items()},
    }


@lru_cache
def calibrated(epsilon: float, delta: float, share: str) -> Any:
    """The noise for an epsilon: the same for all seeds and tables."""
    return resolve_privacy(parse_plan_file(plan_document(epsilon, delta, {"any": 1000}, share)))


def plan_of(schema: Schema, epsilon: float, delta: float, sites: dict[str, int], share: str) -> TrainPlan:
    """The agreement as signed, with invented keys."""
    document = plan_document(epsilon, delta, sites, share)
    settled = calibrated(epsilon, delta, share).model_dump(exclude={"unit", "adjacency"})
    plan_file = parse_plan_file(document | {"privacy": settled})
    keys = {name: SECRET.format(number) for number, name in enumerate(sites)}
    return compile_plan(plan_file, schema=schema, coordinator_key="A" * 43 + "=", site_keys=keys)


SECRET = "A" * 39 + "{:03d}E="


def fit_federated(task: Task, *, share: str = "0.6", sites: int | None = None) -> Sampler:
    """The embedded example's plan at these sites: marginals, then couplings by DP-SGD, noise at every site.

    With ``sites`` the patients are dealt out anew by a hash of their identifier; with one site the noise is added once,
    which takes somebody who may see all records.

    The noise is drawn from ``seed`` here, and here only: a benchmark can be repeated, a hospital's noise cannot.
    """
    if task.epsilon is None:
        return fit_without_noise(task)
    site_of_patient = task.site_of_patient
    if sites is not None:
        dealt = [hashlib.sha256(patient.encode()).digest() for patient in task.train.patient_ids]
        site_of_patient = np.array([int.from_bytes(one[:4], "big") % sites for one in dealt])
    names = site_names(site_of_patient)
    rows = {name: np.flatnonzero(site_of_patient == number) for number, name in enumerate(names)}
    data = {name: part_of(task.train, rows[name]) for name in names}
    plan = plan_of(task.schema, task.epsilon, task.delta, {name: len(rows[name]) for name in names}, share)
    layout = CodeLayout.of(task.schema)

    def noise(site: str, number: int) -> SecretRandomness:
        return SecretRandomness(hashlib.sha256(f"{task.seed} {site} {number}".encode()).digest())

    marginals = plan.privacy.marginals
    assert marginals is not None
    sums = sum(
        (from_fixed(release_marginals(plan, task.schema, data[name], noise(name, 0))) for name in names),
        start=np.float64(0.0),
    )
    std = float(marginals.noise_multiplier * marginals.clip_norm) * len(names) ** 0.5
    anchor = anchor_from_marginals(np.asarray(sums), task.schema, std)
    model = parameter_vector(build_code_denoiser(layout, plan.model))
    state = initial_state(plan.federation, model.size)
    for number in range(1, ROUNDS + 1):
        updates = {
            name: from_fixed(
                train_round(plan, name, task.schema, data[name], model, anchor.logits, "cpu", noise(name, number))
            )
            for name in names
        }
        model, state = server_step(plan.federation, model, weighted_mean(updates, plan.weights()), state)
    return drawer(plan.model, task.schema, model, anchor)


def fit_without_noise(task: Task, *, corruption: str = "gaussian") -> Sampler:
    """A tower beside the couplings, by plain training on all patients together: how far the model itself reaches."""
    spec = TOWER.model_copy(update={"corruption": corruption})
    model, anchor = trained_tower(task.train, task.schema, spec, task.seed)
    return drawer(spec, task.schema, model, anchor)


def trained_tower(
    train: PatientDataset, schema: Schema, spec: ModelSpec, seed: int, device: torch.device | str = "cpu"
) -> tuple[NDArray[np.float32], Anchor]:
    """The tower of a seed, trained once and kept: the benchmark of samplers draws from the same."""
    asked = f"{schema.digest} {len(train)} {spec.model_dump_json()} {TOWER_STEPS} {TOWER_PRECISION} {seed}"
    path = KEPT / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        found = pretrain(schema, train, spec, steps=TOWER_STEPS, seed=seed, device=device, precision=TOWER_PRECISION)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, model=found.parameters, logits=found.anchor, shares=found.label_shares)
    kept = np.load(path)
    return kept["model"], Anchor(logits=kept["logits"], label_shares=kept["shares"].astype(np.float64))


def part_of(patients: PatientDataset, rows: NDArray[np.intp]) -> PatientDataset:
    """Some patients."""
    return patients.select(rows)


def drawer(
    spec: ModelSpec,
    schema: Schema,
    model: NDArray[np.float32],
    anchor: Anchor,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    calibrated: bool = True,
    device: torch.device | str = "cpu",
) -> Callable[[int, int], PatientDataset]:
    """(number of patients, seed) -> synthetic patients, by the sampling engine's own generator."""
    generator = PatientGenerator(spec, CodeLayout.of(schema), model, anchor.logits, device)

    def draw(patients: int, seed: int) -> PatientDataset:
        request = resolve_request(
            patients=patients,
            label_counts=None,
            label_values=schema.label.values,
            label_shares=anchor.label_shares,
            corruption=spec.corruption,
            sampler=sampler,
            steps=steps,
            seed=seed,
            guidance=Decimal(0),
            calibrated=calibrated,
        )
        numbers = np.arange(patients)
        labels = LabelAssignment(list(request.label_counts.values()), seed).of(numbers)
        features = generator.features(request, numbers, labels)
        return PatientDataset(
            features=SparseRows.of(features), labels=labels, patient_ids=[str(number) for number in range(patients)]
        )

    return draw
