"""A code denoiser trained without privacy, on patients whose data are public: for a warm start, or as a yardstick.

Nothing is clipped and nothing is noised. What comes out says much about the patients it was trained on, down to single
ones; never give it those of a site.

Shapes: ``B`` patients of a batch, ``D`` columns, ``L`` label values, ``P`` parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_shared.diffusion.corruption import corrupt, hidden_cross_entropy
from synclave_shared.diffusion.preconditioning import posterior_logits, prior_logits
from synclave_shared.errors import ConfigurationError, DataError
from synclave_shared.models.anchor import Anchor, anchor_from_marginals
from synclave_shared.models.codes import CodeDenoiser, build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector

if TYPE_CHECKING:
    from synclave_shared.data.patients import PatientDataset
    from synclave_shared.data.schema import Schema
    from synclave_shared.plan import ModelSpec

__all__ = ["FitSettings", "Precision", "PretrainedModel", "fit", "pretrain"]

BETAS: Final = (0.9, 0.99)
"""Of AdamW: the gradient's scale changes fast where a row's noise level does."""

WARM_UP_STEPS: Final = 200
"""Steps in which the learning rate rises; a tenth of a short training."""

LARGEST_GRADIENT: Final = 5.0
"""L2 bound of a batch's gradient: a few rows of rare codes at a low noise level must not throw the model off."""

REPORT_STEPS: Final = 20
"""The loss is told as the mean over so many steps; to look at every step's would hold up a GPU."""

Precision = Literal["float32", "bfloat16"]


class FitSettings(TypedDict, total=False):
    """How :func:`fit` trains, by its arguments; each kind of model has its own defaults.

    The seed is also that of whatever else a training draws.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    ema: float
    seed: int
    progress: Callable[[int, float], None] | None


SETTINGS: Final[FitSettings] = {
    "steps": 4000,
    "batch_size": 512,
    "learning_rate": 1e-3,
    "weight_decay": 0.2,
    "ema": 0.999,
    "seed": 0,
}
"""Found on 43,000 patients with 619 columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedModel:
    """What the training found.

    Attributes:
        parameters: averaged weights, float32 [P].
        anchor: logits of the prevalences under each label value, float32 [L, D].
        label_shares: share of each label value, float32 [L].
    """

    parameters: NDArray[np.float32]
    anchor: NDArray[np.float32]
    label_shares: NDArray[np.float32]


def pretrain(
    schema: Schema,
    dataset: PatientDataset,
    spec: ModelSpec,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    **settings: Unpack[FitSettings],
) -> PretrainedModel:
    """Train on public patients.

    One noise level per row and step, by :func:`fit`. The same seed gives the same model on the same machine.

    Args:
        schema: columns and label values.
        dataset: public patients.
        spec: the network and what training hides; its ``noise_levels`` are not used.
        device: where to compute.
        precision: what the network computes in; its weights, the optimiser and the loss stay in float32.
        **settings: of :func:`fit`; what is left away is of :data:`SETTINGS`.

    Raises:
        ConfigurationError: if the model has no parameters, or the loss does not stay finite.
        DataError: if there are no patients, or they have not the schema's columns and labels.
    """
    layout = CodeLayout.of(schema)
    _check(dataset, spec, layout)
    anchor = _anchor(schema, dataset)
    prior = prior_logits(torch.from_numpy(anchor.logits), layout).to(device)
    network = build_code_denoiser(layout, spec).to(device)
    chosen = SETTINGS | settings
    loss_of = _Loss(network, spec, layout, prior, torch.device(device), precision, chosen["seed"])
    fit(network, lambda rows: loss_of(dataset.features[rows], dataset.labels[rows]), len(dataset), **chosen)
    return PretrainedModel(
        parameters=parameter_vector(network),
        anchor=anchor.logits,
        label_shares=anchor.label_shares.astype(np.float32),
    )


def fit(
    network: nn.Module,
    loss_of: Callable[[NDArray[np.int64]], Tensor],
    patients: int,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    ema: float,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train a network without privacy; in the end it has the averaged weights.

    AdamW (Loshchilov and Hutter 2019) with a linear warm-up and a cosine to 0, and an exponential average of the
    weights whose memory grows with the steps.

    Args:
        network: is changed.
        loss_of: positions of a batch's patients -> their mean loss, a scalar.
        patients: how many there are.
        steps: optimiser steps.
        batch_size: patients of a step.
        learning_rate: at its highest.
        weight_decay: keeps a network from learning patients by heart.
        ema: largest share of the averaged weights that stays in a step; 0: the last weights are the result.
        seed: of the batches.
        progress: told the number of steps that are done and the mean loss in nats since it was told last.

    Raises:
        ConfigurationError: if the loss does not stay finite.
    """
    average = [parameter.detach().clone() for parameter in network.parameters()]
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, betas=BETAS, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    recent: list[Tensor] = []
    batches = _batches(patients, batch_size, np.random.default_rng(seed))
    for step, rows in zip(range(steps), batches, strict=False):
        loss = loss_of(rows)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        schedule.step()
        _follow(average, network, min(ema, (1 + step) / (10 + step)))
        recent.append(loss.detach())
        if len(recent) == REPORT_STEPS or step + 1 == steps:
            mean = _finite(float(torch.stack(recent).mean()), step + 1)
            recent.clear()
            if progress is not None:
                progress(step + 1, mean)
    load_parameter_vector(network, torch.cat([values.reshape(-1) for values in average]).cpu().numpy())


class _Loss:
    """Mean loss of a batch, with randomness of its own."""

    def __init__(
        self,
        network: CodeDenoiser,
        spec: ModelSpec,
        layout: CodeLayout,
        prior: Tensor,
        device: torch.device,
        precision: Precision,
        seed: int,
    ) -> None:
        self._network, self._spec, self._layout, self._prior = network, spec, layout, prior
        self._device, self._reduced = device, precision == "bfloat16"
        self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, features: NDArray[np.uint8], labels: NDArray[np.int64]) -> Tensor:
        # Bytes travel to the device, where they become numbers.
        clean = torch.from_numpy(features).to(self._device).float()
        patients, width = clean.shape
        levels = torch.randn(patients, 1, generator=self._generator, device=self._device)
        noise = torch.randn(patients, 1, width, generator=self._generator, device=self._device)
        coins = torch.rand(patients, generator=self._generator, device=self._device)
        hidden = coins < float(self._spec.label_dropout)
        given = torch.where(hidden, self._layout.label_values, torch.from_numpy(labels).to(self._device))
        seen = corrupt(clean, levels, noise, self._spec, self._layout)
        logits = posterior_logits(self._correct, seen.x, seen.sigma, given, self._prior, self._layout, seen.known)
        return hidden_cross_entropy(logits, clean, seen, self._layout).mean()

    def _correct(self, surprise: Tensor, visible: Tensor, labels: Tensor, prior: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._reduced):
            correction: Tensor = self._network(surprise, visible, labels, prior)
        return correction.float()


def _rate(step: int, steps: int) -> float:
    """Factor on the learning rate in ``step`` (from 0)."""
    warm_up = min(WARM_UP_STEPS, max(1, steps // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@torch.no_grad()
def _follow(average: list[Tensor], network: nn.Module, kept: float) -> None:
    """Move the average towards the network's weights."""
    for mean, parameter in zip(average, network.parameters(), strict=True):
        mean.lerp_(parameter, 1.0 - kept)


def _batches(patients: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of batches without end: every patient once in an order of chance, then again in another."""
    order = np.zeros(0, np.int64)
    while True:
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(patients)])
        yield order[:batch_size]
        order = order[batch_size:]


def _anchor(schema: Schema, dataset: PatientDataset) -> Anchor:
    """Prevalences as the marginals round would give them without noise and without clipping."""
    values = len(schema.label.values)
    sums = dataset.features.sums(dataset.labels, values)
    counts = np.bincount(dataset.labels, minlength=values)
    return anchor_from_marginals(np.concatenate([sums.reshape(-1), counts]), schema, noise_std=0.0)


def _finite(loss: float, step: int) -> float:
    if math.isfinite(loss):
        return loss
    raise ConfigurationError(
        expected=f"a finite loss after {step} steps",
        found=str(loss),
        remedy="Lower the learning rate, or compute in float32.",
    )


def _check(dataset: PatientDataset, spec: ModelSpec, layout: CodeLayout) -> None:
    if not spec.width and not spec.coupled_columns:
        raise ConfigurationError(
            expected="a model with couplings or a tower",
            found="width = 0 and coupled_columns = 0",
            remedy="Set one of them.",
        )
    if not len(dataset) or dataset.features.shape[1] != layout.width:
        raise DataError(
            expected=f"at least one patient, with {layout.width} columns",
            found=f"shape {dataset.features.shape}",
            remedy="Load the data with the schema of the model.",
        )
    if dataset.labels.min() < 0 or dataset.labels.max() >= layout.label_values:
        raise DataError(
            expected=f"label numbers from 0 to {layout.label_values - 1}",
            found=f"{dataset.labels.min()} to {dataset.labels.max()}",
            remedy="Load the data with the schema of the model.",
        )
