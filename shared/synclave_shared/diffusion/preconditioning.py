"""Posterior of a 0/1 patient row seen through Gaussian noise.

For a column with prior probability ``p``, seen as ``x = x0 + sigma * n``, Bayes' rule gives the posterior logit

    logit(p) + (x - 1/2) / sigma**2,

and for a one-hot group with prior logits ``a`` the posterior ``softmax(a + x / sigma**2)``: the Gaussian likelihood's
quadratic terms cancel. A masked column is the case of infinite sigma. This is exact for independent columns and needs
no parameter, so it takes the place that the skip connection has in EDM (Karras et al. 2022, section 5); the network
only learns the correction that correlations make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from synclave_shared.models.layout import CodeLayout

__all__ = [
    "LOGIT_BOUND",
    "Network",
    "corrected_logits",
    "independent_logits",
    "posterior_logits",
    "posterior_mean",
    "prior_logits",
    "sigmoid",
    "split_columns",
]

LOGIT_BOUND = 30.0
"""Posterior logits are clamped to +-30: sigmoid(30) is 1 in float32, and the cross-entropy stays finite."""


class Network(Protocol):
    """What predicts corrections: :class:`synclave_shared.models.codes.CodeDenoiser`, wrapped or not."""

    def __call__(self, surprise: Tensor, visible: Tensor, labels: Tensor, prior: Tensor) -> Tensor:
        """Map surprise [B, K, D], visibility [B, K], labels [B] and prior [L + 1, D] to correction logits [B, K, D]."""
        ...


Correct = Callable[[Tensor, Tensor], Tensor]
"""A network to which labels and prior are given already: surprise and visibility to correction logits."""


def split_columns(values: Tensor, layout: CodeLayout) -> list[tuple[Tensor, bool]]:
    """Columns [..., D] as the layout's pieces, each with whether it is a one-hot group.

    One ``split`` instead of a slice per group: the backward pass of each slice would fill a tensor of full width.
    """
    sizes = [size for size, _ in layout.pieces]
    kinds = [one_hot for _, one_hot in layout.pieces]
    return list(zip(torch.split(values, sizes, dim=-1), kinds, strict=True))


def sigmoid(values: Tensor) -> Tensor:
    """The logistic function, the same number for the same argument wherever it stands in a tensor.

    ``torch.sigmoid`` is not: at the ends of each thread's share it rounds in another way than in between. One patient
    more would then change the last bits of others, and a model made for it would blow those up beyond the clip norm.
    """
    return torch.reciprocal(1.0 + torch.exp(-values))


def posterior_mean(logits: Tensor, layout: CodeLayout) -> Tensor:
    """Probabilities [..., D] of logits [..., D]: sigmoid of codes, softmax of one-hot groups."""
    pieces = split_columns(logits, layout)
    return torch.cat([piece.softmax(-1) if one_hot else sigmoid(piece) for piece, one_hot in pieces], dim=-1)


def prior_logits(anchor: Tensor, layout: CodeLayout) -> Tensor:
    """Add the row of the hidden label to an anchor.

    Args:
        anchor: [L, D], logits (codes) and log-weights (one-hot groups) per label value.
        layout: columns.

    Returns:
        [L + 1, D]; the last row is the even mixture of the label values, a public choice that needs no label counts.
    """
    mixture = posterior_mean(anchor, layout).mean(dim=0).clamp(1e-7, 1 - 1e-7)
    hidden = torch.logit(mixture)
    for start, stop in layout.categories:
        hidden[start:stop] = torch.log(mixture[start:stop])
    return torch.cat([anchor, hidden[None]])


def independent_logits(x: Tensor, sigma: Tensor, prior: Tensor, layout: CodeLayout) -> Tensor:
    """Posterior logits [..., D] of independent columns; ``sigma`` [...], ``prior`` broadcastable to [..., D]."""
    precision = sigma[..., None].square().reciprocal()
    pieces = split_columns(prior + (x - 0.5) * precision, layout)
    logits = torch.cat([piece.log_softmax(-1) if one_hot else piece for piece, one_hot in pieces], dim=-1)
    return logits.clamp(-LOGIT_BOUND, LOGIT_BOUND)


def posterior_logits(
    network: Network,
    x: Tensor,
    sigma: Tensor,
    labels: Tensor,
    prior: Tensor,
    layout: CodeLayout,
    known: Tensor | None = None,
) -> Tensor:
    """The denoiser: posterior logits of clean rows given what is seen of them.

    Args:
        network: predicts the correction.
        x: [B, K, D], noisy rows; finite, also where nothing is seen.
        sigma: [B, K], noise levels; infinite where nothing is seen (masked diffusion).
        labels: [B], label numbers; L for a hidden label.
        prior: [L + 1, D], from :func:`prior_logits`.
        layout: columns.
        known: bool [B, K, D], columns of which x holds the clean value; None: none of them.

    Returns:
        [B, K, D].
    """
    row = prior[labels][:, None, :]

    def correct(surprise: Tensor, visible: Tensor) -> Tensor:
        return network(surprise, visible, labels, prior)

    return corrected_logits(correct, x, sigma, row, posterior_mean(row, layout), layout, known)


def corrected_logits(
    correct: Correct,
    x: Tensor,
    sigma: Tensor,
    prior: Tensor,
    mean: Tensor,
    layout: CodeLayout,
    known: Tensor | None = None,
) -> Tensor:
    """:func:`posterior_logits` for whoever calls it often with the same prior, and so computes what hangs on it once.

    Args:
        correct: predicts the correction.
        x: [B, K, D], noisy rows.
        sigma: [B, K], noise levels.
        prior: broadcastable to [B, K, D], each patient's row of :func:`prior_logits`.
        mean: as ``prior``, its :func:`posterior_mean`.
        layout: columns.
        known: bool [B, K, D], columns of which x holds the clean value; None: none of them.

    Returns:
        [B, K, D].
    """
    independent = independent_logits(x, sigma, prior, layout)
    seen = posterior_mean(independent, layout)
    visible = torch.reciprocal(1.0 + sigma.square())
    if known is not None:
        seen = torch.where(known, x, seen)
        share = known.to(x.dtype).mean(dim=-1)
        visible = share + (1.0 - share) * visible
    return (independent + correct(seen - mean, visible)).clamp(-LOGIT_BOUND, LOGIT_BOUND)
