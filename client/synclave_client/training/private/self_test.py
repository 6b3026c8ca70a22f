"""The start-up self-test: before any data is touched, the engine proves itself on the site's own machine.

On random rows it compares with the slow truth, one patient at a time through plain autograd. What a rule, a driver or a
network of somebody's own gets wrong shows up here, with the layer's name: norms and sums that differ, patients whose
rows meet in a layer (batch normalisation, a loss averaged over the batch, attention across patients), randomness,
parameters used outside their layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.private.batch import PatientBatch, PatientRows
from synclave_client.training.private.book_keeping import recorded_layers
from synclave_client.training.private.capture import recorded
from synclave_client.training.private.engine import ROUNDING_MARGIN, PatientGradients
from synclave_client.training.private.rules import check_network, trained_parameters
from synclave_shared.errors import ClippingError
from synclave_shared.models.precision import full_precision

__all__ = ["SelfTestReport", "check_places", "self_test"]

TOLERANCE: Final = {"float32": 1e-4, "bfloat16": 0.05}
"""Largest relative deviation of a norm or a sum from the slow truth; bfloat16 products differ with their shape."""

MIXING_TOLERANCE: Final = 1e-6
"""Largest relative change of a patient's values when others take the others' places in a batch of the same shape.
Mixing that is slighter than the slow truth can see would let a patient who is loud enough move the sum by many clip
norms."""

PLACES_MOVED: Final = (1, 7, 90)
"""By how many places patients are moved in :func:`check_places`."""

LARGEST_EXCESS: Final = 0.01
"""By how much a bound may exceed the norm on random rows: a patient would give less than it may."""

FEWEST_PATIENTS: Final = 3
"""One alone cannot be mixed with others, and of two a mean could still be taken for a weight."""

NOT_HERE: Final = "Do not train with this network on this machine; report it with the versions of torch and driver."

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestReport:
    """What was tested; holds nothing of any patient.

    Attributes:
        layers: name and class of each module that holds trainable parameters.
        parameters: number of trainable parameters.
        patients, rows: size of the random batch.
        norm_deviation: largest relative deviation of a patient's norm.
        sum_deviation: relative deviation of the clipped sum.
        seconds: what it took.
    """

    layers: tuple[tuple[str, str], ...]
    parameters: int
    patients: int
    rows: int
    norm_deviation: float
    sum_deviation: float
    seconds: float


@full_precision()
def self_test(
    network: nn.Module, loss: Loss, batch: PatientBatch, performance: Performance | None = None
) -> SelfTestReport:
    """Compare the engine with one backward pass per patient.

    Args:
        network: the network, with any parameters that make every layer's gradient differ from zero.
        loss: ``loss(network, batch)`` -> [B].
        batch: random rows of at least 3 patients, of the shape that training will have; no patient's data.
        performance: as in training.

    Raises:
        ClippingError: naming the layer that failed.
        ValueError: if there are fewer than 3 patients.
    """
    if len(batch) < FEWEST_PATIENTS:
        raise ValueError(f"a self-test needs at least {FEWEST_PATIENTS} patients, not {len(batch)}")
    begun = time.perf_counter()
    performance = performance or Performance()
    check_network(network)
    before = {name: value.detach().clone() for name, value in network.state_dict().items()}
    tolerance = TOLERANCE[performance.precision]
    _check_randomness(network, loss, batch)
    _check_mixing(network, loss, batch, tolerance)
    truth = _slow_truth(network, loss, batch, performance)
    norms = torch.stack([own.norm() for own in truth])
    if not bool(torch.isfinite(norms).all()) or not bool((norms > 0).all()):
        raise ClippingError(
            expected="finite gradients other than zero on random rows",
            found=f"norms {[float(norm) for norm in norms]}",
            remedy="Test with parameters away from zero, and rows that the model can meet.",
        )
    # Half of the patients are clipped, half are not.
    clip_norm = float(norms.median()) / (1.0 - ROUNDING_MARGIN)
    gradients = PatientGradients(network, loss, clip_norm, performance)
    bounds = gradients.norm_bounds(batch)
    short = float(((norms - bounds) / norms).max())
    if short > tolerance:
        raise ClippingError(
            expected="norms that are not below those of one backward pass per patient",
            found=f"one that is {short:.1%} short; layers: {_deviating(network, loss, batch, truth, performance)}",
            remedy=NOT_HERE,
        )
    weights = (clip_norm * (1.0 - ROUNDING_MARGIN) / bounds).clamp_max(1.0)
    expected = sum((w * own for w, own in zip(weights, truth, strict=True)), torch.zeros_like(truth[0]))
    found = gradients.clipped_sum([batch])
    deviation = float((found.double() - expected).norm() / expected.norm())
    if not deviation <= tolerance:
        raise ClippingError(
            expected="the clipped sum of one backward pass per patient",
            found=f"a deviation of {deviation:.1%}; layers: {_deviating(network, loss, batch, truth, performance)}",
            remedy=NOT_HERE,
        )
    if bool(gradients.clipped_sum([]).any()) or bool(gradients.clipped_sum([batch.select(_first(batch, 0))]).any()):
        raise ClippingError(
            expected="zeros for no patient", found="something else", remedy="Report it; do not train with it."
        )
    _check_bounds(network, loss, batch, performance)
    _check_state(network, before)
    return SelfTestReport(
        layers=tuple(
            (name, type(module).__name__)
            for name, module in network.named_modules()
            if any(value.requires_grad for value in module.parameters(recurse=False))
        ),
        parameters=sum(value.numel() for value in trained_parameters(network).values()),
        patients=len(batch),
        rows=PatientRows.of(batch).count,
        norm_deviation=float(((bounds - norms).abs() / norms).max()),
        sum_deviation=deviation,
        seconds=time.perf_counter() - begun,
    )


def _check_bounds(network: nn.Module, loss: Loss, batch: PatientBatch, performance: Performance) -> None:
    """Bounds against the engine's own gradients, patient by patient: the same numbers, so whatever the precision."""
    unclipped = PatientGradients(network, loss, 1e30, performance)
    for patient in range(len(batch)):
        alone = batch.select(torch.tensor([patient], device=batch.present.device))
        norm = float(unclipped.clipped_sum([alone]).double().norm())
        excess = float(unclipped.norm_bounds(alone)) / norm - 1.0
        if not -TOLERANCE["float32"] <= excess <= LARGEST_EXCESS:
            raise ClippingError(
                expected="bounds that are the norms of the gradients",
                found=f"one that is {abs(excess):.1%} {'short' if excess < 0 else 'too large'}",
                remedy=NOT_HERE,
            )


def _check_state(network: nn.Module, before: dict[str, Tensor]) -> None:
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    if changed:
        raise ClippingError(
            expected="a network that a pass leaves as it is",
            found=f"changed: {', '.join(changed)}",
            remedy="What changes could carry data from patient to patient.",
        )


def _first(batch: PatientBatch, count: int) -> Tensor:
    return torch.arange(count, device=batch.present.device)


def _autocast(batch: PatientBatch, performance: Performance) -> torch.autocast:
    low = performance.precision == "bfloat16"
    return torch.autocast(batch.present.device.type, torch.bfloat16, enabled=low, cache_enabled=False)


def _slow_truth(network: nn.Module, loss: Loss, batch: PatientBatch, performance: Performance) -> list[Tensor]:
    """Gradient [P] of each patient, alone in its batch, float64."""
    parameters = list(trained_parameters(network).values())
    truth = []
    for patient in range(len(batch)):
        alone = batch.select(torch.tensor([patient], device=batch.present.device))
        with _autocast(batch, performance):
            own_loss = loss(network, alone).sum()
        parts = torch.autograd.grad(own_loss, parameters, allow_unused=True, materialize_grads=True)
        truth.append(torch.cat([part.reshape(-1).double() for part in parts]))
    return truth


def _deviating(
    network: nn.Module, loss: Loss, batch: PatientBatch, truth: list[Tensor], performance: Performance
) -> str:
    """Names of the parameters whose gradients, one patient at a time through the engine, are not the true ones."""
    names = set()
    sizes = [value.numel() for value in trained_parameters(network).values()]
    # So large a clip norm that nobody is clipped.
    gradients = PatientGradients(network, loss, 1e6 * max(float(own.norm()) for own in truth), performance)
    for patient, own in enumerate(truth):
        alone = batch.select(torch.tensor([patient], device=batch.present.device))
        found = gradients.clipped_sum([alone]).double()
        for name, a, b in zip(
            trained_parameters(network), torch.split(found, sizes), torch.split(own, sizes), strict=True
        ):
            if float((a - b).norm()) > TOLERANCE[performance.precision] * float(own.norm()):
                names.add(name)
    return ", ".join(sorted(names)) or "none by its gradient: a norm is wrong, or patients are mixed"


def _check_randomness(network: nn.Module, loss: Loss, batch: PatientBatch) -> None:
    network.train()
    first, second = loss(network, batch).detach(), loss(network, batch).detach()
    if not torch.equal(first, second):
        guilty = [name for name, module in network.named_modules() if "Dropout" in type(module).__name__]
        raise ClippingError(
            expected="a loss without randomness of its own",
            found=f"two values for the same rows; dropout layers: {', '.join(guilty) or 'none'}",
            remedy="Set every dropout to 0: differentially private noise regularises already.",
        )


def _check_mixing(network: nn.Module, loss: Loss, batch: PatientBatch, tolerance: float) -> None:
    """Refuse a network in which what a patient brings to a layer, or gets back, depends on who else is in the batch."""
    alone = _outputs(network, loss, batch.select(_first(batch, 1)))
    among = _outputs(network, loss, batch)
    for (name, own), (_, everybody) in zip(alone, among, strict=False):
        if own.dim() > 0 and own.is_floating_point() and everybody.shape[1:] == own.shape[1:]:
            _compare(own, everybody[: own.shape[0]], f"values at {name}", tolerance)
    # In a batch of one shape nothing but mixing can change a patient's numbers, so slight mixing shows as well. At
    # either end, since mixing in one direction (a running sum) spares the patient that comes first.
    rows = PatientRows.of(batch)
    owners = rows.spread(_first(batch, len(batch)))
    counts = torch.bincount(owners, minlength=len(batch))
    alike = (counts == counts.mode().values).nonzero()[:, 0].tolist()
    if len(alike) < 2:
        return
    patient, filler, other = alike[0], alike[1], alike[-1] if len(alike) > 2 else alike[0]
    for end in (0, len(batch) - 1):
        passes = []
        for filling in (filler, other):
            chosen = torch.full_like(_first(batch, len(batch)), filling)
            chosen[end] = patient
            passes.append(_arrivals(network, loss, batch.select(chosen)))
        for (name, first), (_, second) in zip(*passes, strict=True):
            each = first.shape[0] // len(batch)
            place = slice(end * each, (end + 1) * each)
            _compare(first[place], second[place], name, MIXING_TOLERANCE)


@full_precision()
def check_places(network: nn.Module, loss: Loss, tile: PatientBatch) -> None:
    """Refuse arithmetic in which the place of a patient in a tile decides the last bit of its numbers.

    When one patient is taken out, all that follow move up. The proof for couplings needs their numbers to stay the same
    to the bit: a model could be made that blows the last one up.

    Args:
        network: the network.
        loss: ``loss(network, batch)`` -> [B].
        tile: invented patients, one row each, as many as in a tile of the training.

    Raises:
        ClippingError: naming the layer.
    """
    usual = _arrivals(network, loss, tile)
    for shift in PLACES_MOVED:
        order = _first(tile, len(tile)).roll(shift)
        moved = _arrivals(network, loss, tile.select(order))
        for (name, first), (_, second) in zip(usual, moved, strict=True):
            each = first.shape[0] // len(tile)
            by_patient = first.unflatten(0, (len(tile), each))[order].flatten(0, 1)  # type: ignore[no-untyped-call]
            if not torch.equal(by_patient, second):
                raise ClippingError(
                    expected="numbers of a patient that do not depend on its place in a tile",
                    found=f"{name} differing in {int((by_patient != second).sum())} of {second.numel()} numbers",
                    remedy="Report it with the versions of torch, driver and processor; try another device.",
                )


def _compare(first: Tensor, second: Tensor, what: str, tolerance: float) -> None:
    # The comparison is false for NaN, which no patient alone has brought.
    if not float((first - second).norm()) <= tolerance * float(first.norm()) + 1e-12:
        raise ClippingError(
            expected="a patient's values that depend on that patient only",
            found=f"{what} that change with the other patients of the batch",
            remedy="Look before that place for batch normalisation, a mean over the batch or attention across it.",
        )


def _arrivals(network: nn.Module, loss: Loss, batch: PatientBatch) -> list[tuple[str, Tensor]]:
    """What each layer was given and what came back to it, in order; of numbers only."""
    rows = PatientRows.of(batch)
    with torch.enable_grad(), recorded(recorded_layers(network), rows.count, lambda _: None) as uses:
        torch.autograd.backward(loss(network, batch).sum())
    for value in network.parameters():
        value.grad = None
    found = []
    for use in uses:
        for what, values in (("what reaches", use.tensors[0] if use.tensors else None), ("what returns to", use.pull)):
            if values is not None and values.is_floating_point() and values.dim() and values.shape[0] % len(batch) == 0:
                found.append((f"{what} {use.name}", values.detach()))
    return found


def _outputs(network: nn.Module, loss: Loss, batch: PatientBatch) -> list[tuple[str, Tensor]]:
    """Outputs of all modules in the order of computation, the losses last."""
    seen: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output.detach()))

        return hook

    handles = [
        module.register_forward_hook(note(f"{name or 'the network'} ({type(module).__name__})"))
        for name, module in network.named_modules()
    ]
    try:
        losses = loss(network, batch).detach()
    finally:
        for handle in handles:
            handle.remove()
    return [*seen, ("the loss", losses)]
