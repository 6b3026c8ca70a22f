"""What the ablation of guidance asks: where a vector says something, whether scores tell, what guided patients teach.

One small generator a seed, without noise, and clinical models that are logistic regressions. What is taught is measured
on the held-out patients, by models that guidance does not know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from bench.codes.environments import ENVIRONMENTS
from bench.series.drawing import Drawing, patients_of
from bench.series.fits import Generator, SeriesTask, clinical_target, fit_generator, plan_of
from synclave_server.evaluation.series.classifiers import QUICK_OF_SERIES, series_classifiers
from synclave_server.evaluation.series.courses import courses
from synclave_server.sampling import series_target
from synclave_server.sampling.series_target import SeriesTarget
from synclave_shared.data.series.dataset import SeriesDataset, together
from synclave_shared.diffusion.curvature import (
    clipped_gradients,
    conjugate_gradients,
    curvature_product,
    noise_damping,
)
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.standard import StandardRows
from synclave_shared.plan import InfluenceSpec, SeriesSpec

KEPT: Final = ENVIRONMENTS / "results" / "series-guidance"

SMALL: Final = SeriesSpec(width=64, blocks=2)
STEPS: Final = 200
POOL: Final = 6000
"""Unguided patients: they train clinical models, and are chosen from by their scores."""
DRAWN: Final = 2000
"""Patients of an arm."""
ASKED: Final = 2.0
"""Epsilon of an influence vector, beside whose noise the vectors without noise are shown."""
PACED: Final = 256
"""Patients whose drawing is timed."""
PART: Final = 0.2
"""Of the pool, left out by score; halves are compared too."""

MODELS: Final[Mapping[str, tuple[bool, bool]]] = {
    "real, each label alike": (False, True),
    "real, as trained": (False, False),
    "synthetic, each label alike": (True, True),
    "synthetic, as trained": (True, False),
}
"""Has the clinical model learnt from synthetic patients, and does the vector weigh each label value alike?"""

REAL, SYNTHETIC = "real, each label alike", "synthetic, as trained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to draw.

    Attributes:
        title: in the table.
        model: of :data:`MODELS`; None: unguided.
        curvature: whether by the step that synthetic patients lack.
        strength: how far.
        levels: noise levels at which patients are moved.
        ill: share of the patients with the second label value; None: as many as there are among real ones.
    """

    title: str
    model: str | None = None
    curvature: bool = False
    strength: str = "0.1"
    levels: tuple[float, float] = (0.2, 5.0)
    ill: float | None = None


ARMS: Final = {
    "label": Arm(title="label only"),
    "even": Arm(title="label only, as many of each", ill=0.5),
    "quarter": Arm(title="label only, a quarter ill", ill=0.25),
    "step-weak": Arm(title="step, model of synthetic, strength 0.03", model=SYNTHETIC, curvature=True, strength="0.03"),
    "step-late": Arm(title="the same, 0.1, levels 0.2 to 1", model=SYNTHETIC, curvature=True, levels=(0.2, 1.0)),
    "step-late-weak": Arm(
        title="the same, 0.05, levels 0.2 to 1",
        model=SYNTHETIC,
        curvature=True,
        strength="0.05",
        levels=(0.2, 1.0),
    ),
    "step-usual": Arm(
        title="the same, 0.05, levels 0.4 to 1 (default)",
        model=SYNTHETIC,
        curvature=True,
        strength="0.05",
        levels=series_target.OPEN_LEVELS,
    ),
    "step-even": Arm(title="step, as many of each, 0.03", model=SYNTHETIC, curvature=True, strength="0.03", ill=0.5),
    "step-real": Arm(title="step, model of real", model=REAL, curvature=True),
    "gradient-real": Arm(title="gradient, model of real", model=REAL),
    "step-synthetic": Arm(title="step, model of synthetic", model=SYNTHETIC, curvature=True),
    "gradient-synthetic": Arm(title="gradient, model of synthetic", model=SYNTHETIC),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Patients as a clinical model sees them."""

    arguments: tuple[Tensor, ...]
    labels: Tensor

    @classmethod
    def of(cls, dataset: SeriesDataset, task: SeriesTask, anchor: SeriesAnchor) -> Seen:
        rows = StandardRows.of(dataset, np.arange(len(dataset)), anchor, task.layout)
        parts = (rows.values, rows.observed, rows.context, rows.inside)
        return cls(arguments=tuple(torch.from_numpy(part) for part in parts), labels=torch.from_numpy(rows.labels))


class Seed:
    """What all cells of a seed share; made when first asked for."""

    def __init__(self, task: SeriesTask, held_out: SeriesDataset) -> None:
        self.task, self.held_out = task, held_out
        self.real = together(list(task.sites.values()))
        self._targets: dict[str, SeriesTarget] = {}
        self.fitted: Generator | None = None
        self._pool: SeriesDataset | None = None

    @property
    def generator(self) -> Generator:
        if self.fitted is None:
            self.fitted = _fitted(self.task)
        return self.fitted

    @property
    def pool(self) -> SeriesDataset:
        if self._pool is None:
            path = KEPT / f"{self.task.seed}-pool.npz"
            if not path.exists():
                rows, labels, _ = self.rows(None, Arm(title=""), POOL)
                np.savez(path, rows=rows, labels=labels)
            kept = np.load(path)
            self._pool = patients_of(self.task, kept["rows"], kept["labels"])
        return self._pool

    def target(self, model: str) -> SeriesTarget:
        if model not in self._targets:
            synthetic, balanced = MODELS[model]
            spec = InfluenceSpec(balanced=balanced)
            pupils = self.pool if synthetic else None
            self._targets[model] = clinical_target(self.task, self.generator, spec, pupils)
        return self._targets[model]

    def drawn(self, arm: Arm) -> SeriesDataset:
        """Patients of an arm."""
        target = None if arm.model is None else self.target(arm.model)
        rows, labels, _ = self.rows(target, arm, DRAWN)
        return patients_of(self.task, rows, labels)

    def seen(self, dataset: SeriesDataset) -> Seen:
        return Seen.of(dataset, self.task, self.generator.anchor)

    def taught(self, dataset: SeriesDataset) -> dict[str, float]:
        """What models learn of the label from a cohort, on the held-out patients."""
        learnt, test, found = courses(dataset), courses(self.held_out), {}
        for key in QUICK_OF_SERIES:
            model = series_classifiers(self.task.seed)[key][1].fit(learnt.features, learnt.labels == 1)
            chances = model.predict_proba(test.features)[:, 1]
            found[f"{key}_auroc"] = float(roc_auc_score(test.labels == 1, chances))
            found[f"{key}_auprc"] = float(average_precision_score(test.labels == 1, chances))
        return found

    def rows(
        self, target: SeriesTarget | None, arm: Arm, patients: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], float]:
        """Rows, labels, and the seconds of a core that they took once the target was there."""
        ill = None if arm.ill is None else round(patients * arm.ill)
        drawing = Drawing.of(
            self.task,
            self.generator,
            patients,
            counts=None if ill is None else (patients - ill, ill),
            target=target,
            target_strength=Decimal(arm.strength),
            target_curvature=arm.curvature,
        )
        usual, series_target.OPEN_LEVELS = series_target.OPEN_LEVELS, arm.levels  # type: ignore[misc]
        try:
            drawing.rows(1)  # the trial is not part of the pace
            begun = time.process_time()
            rows = drawing.rows()
            seconds = time.process_time() - begun
        finally:
            series_target.OPEN_LEVELS = usual  # type: ignore[misc]
        return rows, drawing.labels, seconds


def _fitted(task: SeriesTask) -> Generator:
    path = KEPT / f"{task.seed}-generator.npz"
    if not path.exists():
        found = fit_generator(task, SMALL, STEPS)
        np.savez(path, parameters=found.parameters, anchor=found.anchor.to_vector(), shares=found.label_shares)
    kept = np.load(path)
    return Generator(
        spec=SMALL,
        parameters=kept["parameters"],
        anchor=SeriesAnchor.from_vector(kept["anchor"], task.layout),
        label_shares=kept["shares"],
        mechanisms=(),
    )


def gradients(seed: Seed, model: str, patients: Seen) -> Tensor:
    """Every patient's own gradient at a clinical model, [n, P]."""
    target = seed.target(model)
    network = build_series_classifier(seed.task.layout, target.spec)
    load_parameter_vector(network, target.parameters.numpy())
    weights = torch.tensor(target.spec.label_weights(target.label_shares.tolist()))[patients.labels]
    parts = zip(*(part.split(500) for part in (patients.labels, weights, *patients.arguments)), strict=True)
    return torch.cat([clipped_gradients(network, some[2:], some[0], some[1], math.inf) for some in parts])


def step_of(seed: Seed, model: str, gap: Tensor, noise: float) -> tuple[Tensor, float]:
    """The damped Gauss-Newton step that closes a gap, and its damping."""
    target, pool = seed.target(model), seed.seen(seed.pool)
    network = build_series_classifier(seed.task.layout, target.spec)
    load_parameter_vector(network, target.parameters.numpy())
    weights = torch.tensor(target.spec.label_weights(target.label_shares.tolist()))[pool.labels]
    product = curvature_product(network, pool.arguments, weights)
    damping = noise_damping(product, gap, noise)
    if math.isinf(damping):
        return torch.zeros_like(gap), damping
    return conjugate_gradients(lambda v: product(v) + damping * v, gap), damping


def squared_error(rows: Tensor) -> float:
    """Expected square of the length of a mean's error, by whom chance put among the patients."""
    return float((rows - rows.mean(dim=0)).square().sum(dim=1).mean()) / len(rows)


def clipped_mean(rows: Tensor, clip_norm: float) -> Tensor:
    """As sites sum gradients, [P]."""
    return (rows * (clip_norm / rows.norm(dim=1, keepdim=True)).clamp_max(1.0)).mean(dim=0)


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def judged(seed: Seed, model: str, parameters: Tensor) -> dict[str, float]:
    """A clinical model with other parameters, on the held-out patients."""
    network = build_series_classifier(seed.task.layout, seed.target(model).spec)
    load_parameter_vector(network, parameters.numpy())
    test = seed.seen(seed.held_out)
    with torch.no_grad():
        chances = network(*test.arguments).softmax(dim=-1)[:, 1].numpy()
    truth = test.labels.numpy() == 1
    return {"auroc": float(roc_auc_score(truth, chances)), "auprc": float(average_precision_score(truth, chances))}


def where_taken(seed: Seed, model: str) -> dict[str, Any]:
    """Does the influence vector say anything at this model?"""
    real, test, pool = (seed.seen(dataset) for dataset in (seed.real, seed.held_out, seed.pool))
    of_real, of_test, of_pool = (gradients(seed, model, some) for some in (real, test, pool))
    mean, parameters = of_real.mean(dim=0), seed.target(model).parameters
    lengths = of_real.norm(dim=1)
    private = replace(seed.task, epsilon=ASKED)
    privacy = {"epsilon": Decimal(str(ASKED))}
    mechanism = plan_of(private, {"model": {"kind": "influence"}, "privacy": privacy}, "0" * 64).mechanism(1)
    noise = float(mechanism.noise_multiplier * mechanism.clip_norm) * math.sqrt(len(seed.task.sites) * len(mean))
    clip_norm = float(mechanism.clip_norm)
    clipped = clipped_mean(of_real, clip_norm)
    gap = mean - of_pool.mean(dim=0)
    chance = squared_error(of_real) + squared_error(of_pool)
    step, damping = step_of(seed, model, gap, chance)
    return {
        "held_out": judged(seed, model, parameters),
        "of_a_patient": float(mean.norm() / lengths.mean()),
        "of_chance": float(mean.norm()) / math.sqrt(squared_error(of_real)),
        "of_noise": float(clipped.norm()) * len(of_real) / noise,
        "clipped_to_synthetic": cosine(clipped, clipped_mean(of_pool, clip_norm)),
        "to_held_out": cosine(mean, of_test.mean(dim=0)),
        "to_synthetic": cosine(mean, of_pool.mean(dim=0)),
        "gap_of_chance": float(gap.norm()) / math.sqrt(chance),
        "gap_to_held_out": cosine(gap, of_test.mean(dim=0) - of_pool.mean(dim=0)),
        "damping": damping,
        "after_step": judged(seed, model, parameters - step),
    }


def by_score(seed: Seed, curvature: bool) -> dict[str, Any]:
    """Do the patients of the pool that score high teach more than those that score low, or than any?"""
    of_pool = gradients(seed, SYNTHETIC, seed.seen(seed.pool))
    vector = seed.target(SYNTHETIC).guidance
    if curvature:
        noise = squared_error(gradients(seed, SYNTHETIC, seed.seen(seed.real))) + squared_error(of_pool)
        vector, _ = step_of(seed, SYNTHETIC, vector - of_pool.mean(dim=0), noise)
    scores, labels = (of_pool @ vector).numpy(), seed.pool.labels
    place = np.empty(len(scores))
    for label in np.unique(labels):  # shares of the labels stay as they are
        rows = np.flatnonzero(labels == label)
        place[rows[np.argsort(scores[rows])]] = (np.arange(len(rows)) + 0.5) / len(rows)
    chosen = {
        "best half": place > 0.5,
        "worst half": place < 0.5,
        "without the worst fifth": place > PART,
        "without the best fifth": place < 1 - PART,
    }
    return {name: seed.taught(seed.pool.select(np.flatnonzero(rows))) for name, rows in chosen.items()}


def at_random(seed: Seed) -> dict[str, Any]:
    """Beside which the choices by score are seen."""
    order = np.random.default_rng(seed.task.seed).permutation(POOL)
    chosen = {"random half": order[: POOL // 2], "without a random fifth": order[: round(POOL * (1 - PART))]}
    return {name: seed.taught(seed.pool.select(np.sort(rows))) for name, rows in chosen.items()}


def of_real_patients(seed: Seed) -> dict[str, Any]:
    """What as many real patients teach."""
    chosen = np.random.default_rng(seed.task.seed).permutation(len(seed.real))[:DRAWN]
    return {"taught": seed.taught(seed.real.select(np.sort(chosen)))}


def guided(seed: Seed, arm: Arm) -> dict[str, Any]:
    """Do patients of an arm teach more, and is the gap closed that the clinical model sees?"""
    patients = seed.drawn(arm)
    found: dict[str, Any] = {"taught": seed.taught(patients)}
    if arm.ill is None:
        of_real, of_pool = (gradients(seed, SYNTHETIC, seed.seen(some)) for some in (seed.real, seed.pool))
        of_arm = gradients(seed, SYNTHETIC, seed.seen(patients)).mean(dim=0)
        gap = of_real.mean(dim=0) - of_pool.mean(dim=0)
        step, _ = step_of(seed, SYNTHETIC, gap, squared_error(of_real) + squared_error(of_pool))
        closed = float(gap @ step)  # 0: the gap is no longer than chance makes it, and there is nothing to close
        found["gap_left"] = float((of_real.mean(dim=0) - of_arm) @ step) / closed if closed else None
    return found


def pace(seed: Seed, width: int) -> dict[str, Any]:
    """By how much guidance lengthens the drawing with each clinical model; untrained ones are as slow."""
    layout, usual = seed.task.layout, seed.generator
    spec = SeriesSpec(width=width, blocks=2)
    parameters = parameter_vector(build_series_denoiser(layout, spec))
    seed.fitted = replace(usual, spec=spec, parameters=parameters)
    seconds: dict[str, list[float]] = {}
    for _ in range(3):  # by turns, so that other work on the machine meets all alike
        for name in ("", "logistic", "tcn", "transformer"):
            target = None
            if name:
                clinical = InfluenceSpec(architecture=name)  # type: ignore[arg-type]
                vector = torch.from_numpy(parameter_vector(build_series_classifier(layout, clinical)))
                target = replace(seed.target(SYNTHETIC), spec=clinical, parameters=vector, guidance=vector + 0.1)
            arm = Arm(title="", levels=series_target.OPEN_LEVELS)
            seconds.setdefault(name, []).append(seed.rows(target, arm, PACED)[2])
    seed.fitted = usual
    return {name: min(taken) / min(seconds[""]) for name, taken in seconds.items() if name}
