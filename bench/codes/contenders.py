"""Our own contenders, by name. Each fits on patients of several sites and returns a sampler.

A model that is added here appears in the table: ``CONTENDERS["name"] = Contender(fit=..., private=True)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.codes.denoiser import fit_federated, fit_without_noise
from bench.codes.edm import fit_edm
from bench.codes.task import Fit, Sampler, Task
from synclave_client.training.marginals import clipped_marginals
from synclave_server.planning import COPULA_CLIP_NORM
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.models.anchor import Anchor, anchor_from_marginals, prevalences
from synclave_shared.models.copula import fit_copula, second_moments
from synclave_shared.models.copula_drawing import sample_copula
from synclave_shared.models.layout import CodeLayout
from synclave_shared.privacy.calibrate import noise_multiplier_for
from synclave_shared.privacy.mechanism import GaussianSum

__all__ = ["CONTENDERS", "Contender", "patients_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A generator under test.

    Attributes:
        title: its name in the table.
        fit: see :class:`Fit`.
        private: whether it takes an epsilon; otherwise it runs without noise only.
    """

    title: str
    fit: Fit
    private: bool


def patients_of(features: NDArray[np.uint8], labels: NDArray[np.int64]) -> PatientDataset:
    """Synthetic patients, numbered."""
    return PatientDataset(
        features=SparseRows.of(features),
        labels=labels.astype(np.int64),
        patient_ids=[str(number) for number in range(len(labels))],
    )


def noisy_sum(
    site_of_patient: NDArray[np.int64],
    of_site: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    noise_std: float,
    rng: np.random.Generator,
    trust: str,
) -> tuple[NDArray[np.float64], float]:
    """Sum over sites, with noise at each site (``local``) or once in the whole (``pooled``); and the noise's std."""
    sites = np.unique(site_of_patient)
    total = sum((of_site(np.flatnonzero(site_of_patient == site)) for site in sites), start=np.float64(0.0))
    std = noise_std * math.sqrt(len(sites)) if trust == "local" else noise_std
    noisy: NDArray[np.float64] = total + std * rng.standard_normal(np.shape(total))
    return noisy, std


def noise_multipliers(epsilon: float | None, delta: float, parts: list[float]) -> list[float]:
    """Noise multipliers of one Gaussian sum per part; a part is its share of the total of 1 / multiplier^2."""
    if epsilon is None:
        return [0.0] * len(parts)

    def sums(multiplier: Decimal) -> list[GaussianSum]:
        return [
            GaussianSum(noise_multiplier=round(multiplier / Decimal(math.sqrt(part)), 6), clip_norm=Decimal(1))
            for part in parts
        ]

    return [float(one.noise_multiplier) for one in sums(noise_multiplier_for(epsilon, delta, sums))]


def noisy_anchor(
    train: PatientDataset,
    site_of_patient: NDArray[np.int64],
    schema: Schema,
    noise_multiplier: float,
    rng: np.random.Generator,
    trust: str,
) -> Anchor:
    """The anchor from one noisy sum. The clip norm is public: 5 for the wide table, less for a narrow one."""
    clip_norm = min(5.0, 0.5 * math.sqrt(schema.width))
    values = len(schema.label.values)

    def of_site(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        return clipped_marginals(train.features.take(rows), train.labels[rows], values, clip_norm)

    sums, std = noisy_sum(site_of_patient, of_site, noise_multiplier * clip_norm, rng, trust)
    return anchor_from_marginals(sums, schema, std)


def fit_independent(task: Task, *, trust: str = "local") -> Sampler:
    """Noisy marginals per label and nothing else."""
    rng = np.random.default_rng([task.seed, 1])
    layout = CodeLayout.of(task.schema)
    (multiplier,) = noise_multipliers(task.epsilon, task.delta, [1.0])
    anchor = noisy_anchor(task.train, task.site_of_patient, task.schema, multiplier, rng, trust)
    found = prevalences(anchor, layout)

    def sample(patients: int, seed: int) -> PatientDataset:
        rng = np.random.default_rng([seed, 2])
        labels = rng.choice(len(anchor.label_shares), size=patients, p=anchor.label_shares)
        features = (rng.random((patients, layout.width)) < found[labels]).astype(np.uint8)
        for start, stop in layout.categories:
            edges = np.cumsum(found[labels, start:stop], axis=1)
            chosen = (rng.random((patients, 1)) * edges[:, -1:] > edges).sum(axis=1)
            features[:, start:stop] = chosen[:, None] == np.arange(stop - start)
        return patients_of(features, labels)

    return sample


def fit_second_moments(task: Task, *, trust: str = "local", marginals_part: float = 0.4) -> Sampler:
    """The one-shot copula: noisy marginals, then noisy second moments about them."""
    rng = np.random.default_rng([task.seed, 1])
    layout = CodeLayout.of(task.schema)
    of_marginals, of_moments = noise_multipliers(task.epsilon, task.delta, [marginals_part, 1.0 - marginals_part])
    anchor = noisy_anchor(task.train, task.site_of_patient, task.schema, of_marginals, rng, trust)
    # Without noise nobody has to be clipped.
    clip_norm = float(COPULA_CLIP_NORM) if task.epsilon is not None else 1e6

    def of_site(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        return second_moments(task.train.features[rows], task.train.labels[rows], anchor, layout, clip_norm)

    moments, std = noisy_sum(task.site_of_patient, of_site, of_moments * clip_norm, rng, trust)
    copula = fit_copula(moments, std, anchor, layout)

    def sample(patients: int, seed: int) -> PatientDataset:
        rng = np.random.default_rng([seed, 2])
        labels = rng.choice(len(copula.label_shares), size=patients, p=copula.label_shares)
        return patients_of(sample_copula(copula, labels, rng), labels)

    return sample


CONTENDERS: dict[str, Contender] = {
    "diffusion": Contender(title="diffusion, 10 calls (ours)", fit=fit_federated, private=True),
    "diffusion-pooled": Contender(
        title="diffusion, 10 calls, noise once for all sites (ours)",
        fit=partial(fit_federated, sites=1),
        private=True,
    ),
    "diffusion-50": Contender(
        title="diffusion, 10 calls, 50 equal sites (ours)", fit=partial(fit_federated, sites=50), private=True
    ),
    "diffusion-masked": Contender(
        title="masked diffusion, 10 calls (ours)", fit=partial(fit_without_noise, corruption="masked"), private=False
    ),
    "independent": Contender(title="independent columns (ours)", fit=fit_independent, private=True),
    "copula": Contender(title="one-shot copula (ours)", fit=fit_second_moments, private=True),
    "copula-pooled": Contender(
        title="one-shot copula, noise once for all sites (ours)",
        fit=partial(fit_second_moments, trust="pooled"),
        private=True,
    ),
    "edm-mlp": Contender(title="EHRDiff-style EDM MLP (ours, after Yuan et al. 2023)", fit=fit_edm, private=False),
}
