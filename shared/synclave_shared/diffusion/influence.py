"""Which way a synthetic patient should change to teach a clinical model what it lacks.

The guidance vector G is the sum over real patients of the gradients of the model's loss, noised at the hospitals. A
synthetic patient (x, y) that is trained on moves the model by minus its own gradient g(x, y); how much that lowers the
real patients' loss is, to first order, the product <g(x, y), G> (Pruthi et al. 2020). Its gradient in x says how to
make the patient more useful (Deng et al. 2025). In place of G may stand the step by which a model trained on synthetic
patients differs from one trained on real ones (:mod:`~.curvature`). Written as a difference of losses of the
model moved along G and against it, it costs two ordinary passes and knows nothing of the network's layers:

    <g(x, y), G> = d/de loss(model + e G; x, y) at e = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["Influence", "class_direction", "unit_direction"]

RELATIVE_STEP: Final = 0.02
"""How far the model is moved to take the difference, as a share of its parameters' length."""

Classify = Callable[[nn.Module], Tensor]
"""A network -> logits [B, L] of the patients at hand."""


class Influence:
    """A clinical model moved along a guidance vector and against it.

    Args:
        build: makes an untrained network.
        parameters: the model's, [P], in the order of ``network.parameters()``.
        guidance: G, [P].
    """

    def __init__(self, build: Callable[[], nn.Module], parameters: Tensor, guidance: Tensor) -> None:
        length = parameters.norm().clamp_min(1.0)
        step = RELATIVE_STEP * length * guidance / guidance.norm().clamp_min(1e-30)
        self.ahead, self.behind = _moved(build(), parameters + step), _moved(build(), parameters - step)

    def usefulness(self, classify: Classify, labels: Tensor) -> Tensor:
        """What each patient's gradient has in common with the guidance vector, [B], up to a common factor.

        Args:
            classify: applies a network to the patients.
            labels: [B].
        """
        losses = [
            nn.functional.cross_entropy(classify(network), labels, reduction="none")
            for network in (self.ahead, self.behind)
        ]
        return losses[0] - losses[1]


def class_direction(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the label, [B]: what classifier guidance raises (Dhariwal and Nichol 2021)."""
    return -nn.functional.cross_entropy(logits, labels, reduction="none")


def unit_direction(score: Tensor, rows: Tensor, inside: Tensor) -> Tensor:
    """Gradient of each patient's score in its own row, scaled to a root mean square of 1 over the steps of the stay.

    Args:
        score: [B], a differentiable function of ``rows``, each of its own row.
        rows: [B, T, E].
        inside: bool [B, T].

    Returns:
        [B, T, E]; 0 after the stay, and for a patient whose score does not depend on its row.
    """
    (slope,) = torch.autograd.grad(score.sum(), rows)
    slope = torch.where(inside[..., None], torch.nan_to_num(slope), 0.0)
    largest = slope.abs().amax(dim=(1, 2), keepdim=True)
    scaled = slope / torch.where(largest > 0, largest, 1.0)  # a tiny square would vanish
    count = inside.sum(dim=1)[:, None, None] * rows.shape[-1]
    size = (scaled.square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    return torch.where(size > 0, scaled / torch.where(size > 0, size, 1.0), 0.0)


def _moved(network: nn.Module, parameters: Tensor) -> nn.Module:
    position = 0
    with torch.no_grad():
        for parameter in network.parameters():
            stop = position + parameter.numel()
            parameter.copy_(parameters[position:stop].reshape(parameter.shape))
            position = stop
    return network.to(parameters.device).eval().requires_grad_(requires_grad=False)
