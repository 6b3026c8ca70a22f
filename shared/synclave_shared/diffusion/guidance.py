"""Guidance towards a label: without a classifier, and with one that knows the noise.

The classifier costs neither a call of the network nor privacy budget. The anchor, measured privately at all sites,
says how common each column is under each label value; that is a classifier of rows at every noise level, by Bayes'
rule for independent columns. Dhariwal and Nichol (2021) add its gradient by the noisy row to the posterior mean, which
may then leave [0, 1]. Here the gradient by the *clean* row is added to the posterior logits: the difference of a
column's prior logit under y and the mean of those under all values, weighted by how likely the classifier holds them.
So it pushes a row as long as the row does not look like its label, and lets go then.

Shapes: ``B`` patients, ``K`` noise levels, ``D`` columns, ``L`` label values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from synclave_shared.diffusion.preconditioning import LOGIT_BOUND, split_columns
from synclave_shared.models.layout import CodeLayout

__all__ = ["classifier_log_odds", "classifier_shift", "guided_logits"]


def guided_logits(conditional: Tensor, hidden: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022) on posterior logits: ``(1 + w) * conditional - w * hidden``.

    Extrapolating logits instead of means keeps every probability inside (0, 1), whatever the weight.

    Args:
        conditional: [..., D], logits with the label given.
        hidden: [..., D], logits with the label hidden.
        weight: w >= 0; 0 is plain conditional sampling.

    Returns:
        [..., D].
    """
    return conditional + weight * (conditional - hidden)


def classifier_log_odds(
    x: Tensor, sigma: Tensor, prior: Tensor, layout: CodeLayout, known: Tensor | None = None
) -> Tensor:
    """Log-likelihood of noisy rows under each label value, up to a number that all values share.

    Args:
        x: [B, K, D], noisy rows.
        sigma: [B, K], noise levels; infinite where nothing is seen.
        prior: [L, D], logits (codes) and log-probabilities (one-hot groups) under each label value.
        layout: columns.
        known: bool [B, K, D], columns of which x holds the clean value; None: none of them.

    Returns:
        [B, K, L].
    """
    evidence = (x - 0.5) * sigma[..., None].square().reciprocal()
    if known is not None:
        # A value that is known is evidence beyond doubt.
        evidence = torch.where(known, (2.0 * x - 1.0) * LOGIT_BOUND, evidence)
    evidence = evidence.clamp(-LOGIT_BOUND, LOGIT_BOUND)
    found = []
    for row in prior:
        total = torch.zeros_like(sigma)
        pieces = zip(split_columns(evidence, layout), split_columns(row, layout), strict=True)
        for (seen, one_hot), (logits, _) in pieces:
            if one_hot:
                total = total + torch.logsumexp(logits.log_softmax(-1) + seen, dim=-1)
            else:
                # log(1 - p + p exp(evidence))
                total = total + (functional.softplus(logits + seen) - functional.softplus(logits)).sum(dim=-1)
        found.append(total)
    return torch.stack(found, dim=-1)


def classifier_shift(
    x: Tensor, sigma: Tensor, labels: Tensor, prior: Tensor, layout: CodeLayout, known: Tensor | None = None
) -> Tensor:
    """What guidance by the anchor's classifier adds to posterior logits, for a strength of 1.

    Args:
        x: [B, K, D], noisy rows.
        sigma: [B, K], noise levels.
        labels: [B], label numbers below L.
        prior: [L, D], of the label values.
        layout: columns.
        known: as in :func:`classifier_log_odds`.

    Returns:
        [B, K, D]; 0 where the classifier is sure of the label already.
    """
    likely = classifier_log_odds(x, sigma, prior, layout, known).softmax(dim=-1)
    return prior[labels][:, None, :] - likely @ prior
