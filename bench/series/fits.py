"""What the arms are drawn from: a generator, and a clinical model with its influence vector, private or not.

Private ones run the sites' and the coordinator's code without the network between them; noise is drawn from the seed
here, and here only. Without noise generator (a transformer) and clinical model are trained on all patients together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synclave_client.training.clinical import (
    ClinicalLearner,
    clinical_loss,
    release_influence,
    train_clinical_round,
)
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.series import release_series_marginals, train_series_round
from synclave_server.aggregate import initial_state, server_step, weighted_mean
from synclave_server.planning import compile_plan, parse_plan_file
from synclave_server.pretraining import fit
from synclave_server.sampling.series_target import SeriesTarget
from synclave_shared.data.series.dataset import SeriesDataset, together
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.diffusion.series import SeriesPrior, series_loss, series_posterior
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor, anchor_from_moments, contributions
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.completion import DRAWS, Completion
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.standard import StandardRows
from synclave_shared.plan import ClassifierSpec, InfluenceSpec, SeriesSpec, TrainPlan
from synclave_shared.privacy.accountant import epsilon as composed_epsilon

__all__ = ["DELTA", "Generator", "SeriesTask", "clinical_target", "fit_generator", "fit_target"]

DELTA: Final = 1e-5

DEEP: Final = SeriesSpec(width=96, blocks=3, backbone="unet")
DEEP_STEPS: Final = 1500
CLINICAL_STEPS: Final = 300
LOGISTIC_RATE: Final = 1e-2
"""Learning rate of a logistic regression; deeper models take a fifth."""
INFLUENCE: Final = InfluenceSpec(architecture="tcn", width=32, blocks=3)
SMALL_CLINICAL, SMALL_INFLUENCE = ClassifierSpec(), InfluenceSpec()
"""Under noise a vector of few parameters says more."""
COMPLETIONS: Final = 4
"""Draws of every patient's gaps."""

UNBOUNDED: Final = 1e9
"""A clip norm that clips nobody."""

SECRET: Final = "A" * 39 + "{:03d}E="


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTask:
    """Patients of several sites, and how privately to learn from them.

    Attributes:
        sites: each site's patients.
        schema: of all.
        epsilon: of each run at every site; None: without noise.
        seed: of everything that is drawn.
    """

    sites: Mapping[str, SeriesDataset]
    schema: SeriesSchema
    epsilon: float | None
    seed: int

    @property
    def layout(self) -> SeriesLayout:
        """Of the schema."""
        return SeriesLayout.of(self.schema)

    def noise(self, purpose: str) -> SecretRandomness:
        """Noise that can be repeated."""
        return SecretRandomness(hashlib.sha256(f"{self.seed} {purpose}".encode()).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """A fitted model.

    Attributes:
        spec: its numbers.
        parameters: [P].
        anchor, label_shares: of the marginals.
        mechanisms: what it cost each site; empty without noise.
    """

    spec: SeriesSpec
    parameters: NDArray[np.float32]
    anchor: SeriesAnchor
    label_shares: NDArray[np.float32]
    mechanisms: tuple[Any, ...]


def plan_of(task: SeriesTask, document: dict[str, Any], start: str | None = None) -> TrainPlan:
    """The agreement as signed, with invented keys."""
    names = sorted(task.sites)
    sites = {name: {"nominal_patients": len(task.sites[name])} for name in names}
    common: dict[str, Any] = {"name": "bench", "schema": "schema.toml", "sites": sites}
    if start is not None:
        common["warm_start"] = {"model": "earlier"}
    keys = {name: SECRET.format(number) for number, name in enumerate(names)}
    return compile_plan(
        parse_plan_file(common | document),
        schema=task.schema,
        coordinator_key="A" * 43 + "=",
        site_keys=keys,
        warm_start=start,
    )


def fit_generator(task: SeriesTask, deep: SeriesSpec = DEEP, steps: int = DEEP_STEPS) -> Generator:
    """Marginals, then training: with an epsilon couplings by DP-SGD at every site, else ``deep`` for ``steps``."""
    if task.epsilon is None:
        return _deep(task, deep, steps)
    privacy = {
        "epsilon": Decimal(str(task.epsilon)),
        "selection_rate": Decimal("0.1"),
        "marginals": {"epsilon_share": Decimal("0.7"), "clip_norm": Decimal(5)},
    }
    plan = plan_of(
        task,
        {"model": {"kind": "series"}, "privacy": privacy, "federation": {"rounds": 6, "steps_per_round": 8}},
    )
    layout, marginals = task.layout, plan.privacy.marginals
    assert marginals is not None
    sums = sum(
        from_fixed(release_series_marginals(plan, layout, data, task.noise(f"marginals {name}")))
        for name, data in task.sites.items()
    )
    std = float(marginals.noise_multiplier * marginals.clip_norm) * len(task.sites) ** 0.5
    anchor, shares = anchor_from_moments(np.asarray(sums), layout, std)
    spec = plan.model
    assert isinstance(spec, SeriesSpec)
    model = parameter_vector(build_series_denoiser(layout, spec))
    state = initial_state(plan.federation, model.size)
    for number in range(1, plan.last_round() + 1):
        updates = {
            name: from_fixed(
                train_series_round(
                    plan, name, layout, data, model, anchor, "cpu", task.noise(f"generator {name} {number}")
                )
            )
            for name, data in task.sites.items()
        }
        model, state = server_step(plan.federation, model, weighted_mean(updates, plan.weights()), state)
    return Generator(
        spec=spec,
        parameters=model,
        anchor=anchor,
        label_shares=shares.astype(np.float32),
        mechanisms=tuple(plan.mechanisms()),
    )


def fit_target(task: SeriesTask, generator: Generator) -> tuple[SeriesTarget, float]:
    """A clinical model with its influence vector, and the composed epsilon of all three runs at a site."""
    if task.epsilon is None:
        return clinical_target(task, generator, INFLUENCE), float("inf")
    digest, layout = "0" * 64, task.layout
    numbers = SMALL_CLINICAL.model_dump(exclude={"kind"})
    plan = plan_of(
        task,
        {
            "model": {"kind": "classifier", **numbers},
            "privacy": {"epsilon": Decimal(str(task.epsilon)), "selection_rate": Decimal("0.1")},
            "federation": {"rounds": 4, "steps_per_round": 8},
        },
        digest,
    )
    model = parameter_vector(build_series_classifier(layout, SMALL_CLINICAL))
    state = initial_state(plan.federation, model.size)
    for number in range(1, plan.last_round() + 1):
        updates = {
            name: from_fixed(
                train_clinical_round(
                    plan, name, layout, data, model, generator.anchor, "cpu", task.noise(f"clinical {name} {number}")
                )
            )
            for name, data in task.sites.items()
        }
        model, state = server_step(plan.federation, model, weighted_mean(updates, plan.weights()), state)
    vector_plan = plan_of(
        task,
        {"model": {"kind": "influence", **numbers}, "privacy": {"epsilon": Decimal(str(task.epsilon))}},
        digest,
    )
    total = sum(
        from_fixed(
            release_influence(
                vector_plan,
                1,
                layout,
                data,
                model,
                generator.anchor,
                generator.label_shares,
                "cpu",
                task.noise(f"influence {name}"),
            )
        )
        for name, data in task.sites.items()
    )
    mechanism = vector_plan.mechanism(1)
    patients = sum(len(data) for data in task.sites.values())
    target = SeriesTarget(
        spec=SMALL_INFLUENCE,
        parameters=torch.from_numpy(model),
        guidance=torch.from_numpy(np.asarray(total, np.float32) / patients),
        noise_std=float(mechanism.noise_multiplier * mechanism.clip_norm) * len(task.sites) ** 0.5 / patients,
        clip_norm=float(mechanism.clip_norm),
        patients=patients,
        label_shares=generator.label_shares,
    )
    spent = [*generator.mechanisms, *plan.mechanisms(), *vector_plan.mechanisms()]
    return target, composed_epsilon(spent, DELTA)


def _deep(task: SeriesTask, spec: SeriesSpec, steps: int) -> Generator:
    layout, everybody = task.layout, together(list(task.sites.values()))
    anchor, shares = anchor_from_moments(contributions(everybody, layout, UNBOUNDED), layout, 0.0)
    network, prior = build_series_denoiser(layout, spec), SeriesPrior.of(anchor)
    seen = StandardRows.of(everybody, np.arange(len(everybody)), anchor, layout)
    completion, rng = Completion.of(anchor), np.random.default_rng(task.seed)
    patients = list(zip(seen.values, seen.observed, everybody.lengths, seen.labels, seen.context, strict=True))
    cells = (DRAWS, *seen.values.shape[1:])
    completed = [
        [completion.complete(*patient, rng.standard_normal(cells, np.float32)) for patient in patients]
        for _ in range(COMPLETIONS)
    ]
    values, observed = torch.from_numpy(np.array(completed, np.float32)), torch.from_numpy(seen.observed)
    inside, context = torch.from_numpy(seen.inside), torch.from_numpy(seen.context)
    labels = torch.from_numpy(seen.labels)
    generator = torch.Generator().manual_seed(task.seed)

    def correct(*given: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found: Tensor = network(*given)
        return found.float()

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        chosen = torch.from_numpy(rows)
        levels = torch.randn(len(rows), 1, generator=generator)
        sigma = torch.exp(float(spec.log_sigma_mean) + float(spec.log_sigma_std) * levels)
        sigma = sigma.clamp(float(spec.sigma_min), float(spec.sigma_max))
        hidden = torch.rand(len(rows), generator=generator) < float(spec.label_dropout)
        given = torch.where(hidden, layout.label_values, labels[chosen])
        copies = torch.randint(COMPLETIONS, (len(rows),), generator=generator)
        truth = values[copies, chosen]
        clean = truth[:, None]
        x = clean + sigma[..., None, None] * torch.randn(clean.shape, generator=generator)
        belief = series_posterior(correct, x, sigma, given, context[chosen], prior, prior.stays(inside[chosen]))
        return series_loss(belief, truth, observed[chosen], inside[chosen]).mean()

    fit(
        network,
        loss_of,
        len(everybody),
        steps=steps,
        batch_size=128,
        learning_rate=2e-3,
        weight_decay=0.1,
        ema=0.999,
        seed=task.seed,
    )
    return Generator(
        spec=spec,
        parameters=parameter_vector(network),
        anchor=anchor,
        label_shares=shares.astype(np.float32),
        mechanisms=(),
    )


def clinical_target(
    task: SeriesTask, generator: Generator, spec: InfluenceSpec, pupils: SeriesDataset | None = None
) -> SeriesTarget:
    """Without noise: a clinical model trained on ``pupils`` (None: real patients), and the real patients' gradient."""
    layout, everybody = task.layout, together(list(task.sites.values()))
    network = build_series_classifier(layout, spec)

    def learner(dataset: SeriesDataset, weights: list[float]) -> ClinicalLearner:
        return ClinicalLearner(
            network=network,
            dataset=dataset,
            layout=layout,
            anchor=generator.anchor,
            weights=np.array(weights, np.float32),
            device="cpu",
        )

    plain = learner(everybody if pupils is None else pupils, [1.0] * layout.label_values)
    # Once for all steps: what is drawn by chance is nothing.
    seen = plain.batch(np.arange(len(plain)), len(plain))
    fit(
        network,
        lambda rows: clinical_loss(network, seen.select(torch.from_numpy(rows))).mean(),
        len(plain),
        steps=CLINICAL_STEPS,
        batch_size=128,
        learning_rate=LOGISTIC_RATE if spec.architecture == "logistic" else 2e-3,
        weight_decay=0.1,
        ema=0.99,
        seed=task.seed,
    )
    weighed = learner(everybody, spec.label_weights(generator.label_shares.tolist()))
    loss = clinical_loss(network, weighed.batch(np.arange(len(everybody)), len(everybody))).mean()
    slopes = torch.autograd.grad(loss, list(network.parameters()))
    return SeriesTarget(
        spec=spec,
        parameters=torch.from_numpy(parameter_vector(network)),
        guidance=torch.cat([slope.reshape(-1) for slope in slopes]),
        noise_std=0.0,
        clip_norm=float("inf"),
        patients=len(everybody),
        label_shares=generator.label_shares,
    )
