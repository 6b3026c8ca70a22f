"""From a gap between two sets of patients to the step of a clinical model that would close it.

The Gauss-Newton matrix is ``F = mean of J' S J``, J being the logits' derivatives in the parameters [L, P] and S the
covariance of the label under the model [L, L] (Schraudolph 2002). With cross-entropy it is the Fisher information. It
is never written down: a product with a vector costs two backward passes. ``(F + damping) v = gap`` is
solved by conjugate gradients (Hestenes and Stiefel 1952).

Shapes: ``B`` patients, ``L`` label values, ``P`` parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

__all__ = ["clipped_gradients", "conjugate_gradients", "curvature_product", "noise_damping"]

ITERATIONS: Final = 20
"""Of conjugate gradients; a damped matrix needs fewer."""

TOLERANCE: Final = 1e-3
"""Residual at which they end, as a share of the right side's length."""

PROBES: Final = 8
"""Random vectors by which traces are estimated (Hutchinson 1990)."""

Product = Callable[[Tensor], Tensor]


def clipped_gradients(
    network: nn.Module, patients: Sequence[Tensor], labels: Tensor, weights: Tensor, clip_norm: float
) -> Tensor:
    """Every patient's own gradient of its weighted loss, clipped as a site clips it, [B, P].

    Args:
        network: maps ``patients`` to logits [B, L].
        patients: its arguments, each [B, ...].
        labels: [B].
        weights: [B].
        clip_norm: largest length of a gradient.
    """
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss(at: dict[str, Tensor], label: Tensor, weight: Tensor, *patient: Tensor) -> Tensor:
        logits = functional_call(network, at, tuple(part[None] for part in patient))
        found: Tensor = weight * nn.functional.cross_entropy(logits, label[None])
        return found

    of_each = vmap(grad(loss), in_dims=(None, 0, 0, *(0 for _ in patients)))
    found = of_each(parameters, labels, weights, *patients)
    rows: Tensor = torch.cat([found[name].flatten(1) for name in parameters], dim=1)
    length = rows.norm(dim=1, keepdim=True)
    clipped: Tensor = rows * (clip_norm / length).clamp_max(1.0)
    return clipped


def curvature_product(network: nn.Module, patients: Sequence[Tensor], weights: Tensor) -> Product:
    """``v -> F v``, [P] -> [P], F being the mean over the patients.

    Args:
        network: maps ``patients`` to logits [B, L].
        patients: its arguments, each [B, ...].
        weights: of the patients' losses, [B].
    """
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    sizes = [parameter.numel() for parameter in parameters.values()]

    def logits_of(at: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(network, at, tuple(patients))
        return found

    logits, back = vjp(logits_of, parameters)[:2]
    # The derivative backwards is linear; its own derivative backwards is the one forwards.
    ahead = vjp(lambda cotangent: back(cotangent)[0], torch.zeros_like(logits))[1]
    chances, share = logits.softmax(dim=-1), weights[:, None] / len(logits)

    def product(direction: Tensor) -> Tensor:
        parts = zip(parameters.items(), torch.split(direction, sizes), strict=True)
        tangent = {name: part.reshape(parameter.shape) for (name, parameter), part in parts}
        (moved,) = ahead(tangent)
        curved = share * chances * (moved - (chances * moved).sum(dim=-1, keepdim=True))
        (found,) = back(curved)
        return torch.cat([found[name].flatten() for name in parameters])

    return product


def noise_damping(product: Product, gap: Tensor, noise: float) -> float:
    """The damping that is right if the model is off by an unknown step of equally uncertain parameters.

    Be ``gap = F step + noise`` with parameters of the step of variance t each, and noise whose covariance is as F: the
    step's expectation is ``(F + damping)^-1 gap``, damping being the noise's size over t (empirical Bayes).

    Args:
        product: v -> F v.
        gap: [P].
        noise: expected square of the noise's length in ``gap``.

    Returns:
        Infinite if the gap is no longer than its noise.
    """
    signal = float(gap @ gap) - noise
    if signal <= 0:
        return float("inf")
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (PROBES, len(gap)), generator=generator).to(gap) * 2 - 1
    turned = torch.stack([product(probe) for probe in signs])
    trace, trace_of_square = float((signs * turned).sum() / PROBES), float(turned.square().sum() / PROBES)
    return noise / max(trace, 1e-30) * trace_of_square / signal


def conjugate_gradients(product: Product, right: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The solution v of ``A v = right`` [P], for a symmetric positive definite A.

    Args:
        product: v -> A v.
        right: [P].
        iterations: at most.
    """
    solution, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), residual @ residual
    enough = TOLERANCE**2 * square
    for _ in range(iterations):
        if square <= enough:
            break
        turned = product(direction)
        step = square / (direction @ turned)
        solution = solution + step * direction
        residual = residual - step * turned
        square, before = residual @ residual, square
        direction = residual + (square / before) * direction
    return solution
