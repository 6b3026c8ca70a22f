import torch

from synclave_shared.diffusion.guidance import classifier_log_odds, classifier_shift
from synclave_shared.diffusion.preconditioning import independent_logits, posterior_mean
from synclave_shared.models.layout import CodeLayout
from tests.models.small import LAYOUT


def priors(seed: int = 0) -> torch.Tensor:
    prior = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed))
    prior[:, 9:] = prior[:, 9:].log_softmax(-1)
    return prior


def test_the_classifier_is_bayes_rule_for_independent_columns() -> None:
    """Against Gaussian densities written out, in float64."""
    prior, generator = priors().double(), torch.Generator().manual_seed(1)
    x, sigma = torch.randn(4, 2, 12, generator=generator).double(), torch.tensor([[0.5, 2.0]]).expand(4, 2).double()
    found = classifier_log_odds(x, sigma, prior, LAYOUT).softmax(-1)
    one, zero = (torch.exp(-0.5 * ((x - value) / sigma[..., None]) ** 2)[..., None, :] for value in (1.0, 0.0))
    p = posterior_mean(prior, LAYOUT)
    codes = (p * one + (1 - p) * zero)[..., :9].prod(-1)
    group = (p[:, 9:] * one[..., 9:] * zero[..., 9:].prod(-1, keepdim=True) / zero[..., 9:]).sum(-1)
    expected = codes * group
    assert torch.allclose(found, expected / expected.sum(-1, keepdim=True), atol=1e-9)


def test_the_shift_is_the_gradient_of_the_clean_rows_classifier() -> None:
    """For codes: log p(clean row | y) is linear in the row, with the prior logits as slopes."""
    prior = priors(2).double()[:, :9]
    layout = CodeLayout(width=9, categories=(), label_values=3)
    clean = (torch.rand(4, 9, generator=torch.Generator().manual_seed(3)) > 0.5).double()
    labels = torch.tensor([0, 1, 2, 0])
    known = torch.ones(4, 1, 9, dtype=torch.bool)
    nothing = torch.full((4, 1), torch.inf).double()
    shift = classifier_shift(clean[:, None], nothing, labels, prior, layout, known)[:, 0]
    exact = clean.requires_grad_()
    likelihood = exact @ prior.T - torch.nn.functional.softplus(prior).sum(-1)
    (gradient,) = torch.autograd.grad(likelihood.log_softmax(-1)[torch.arange(4), labels].sum(), exact)
    assert torch.allclose(shift, gradient, atol=1e-9)


def test_a_row_that_is_known_to_be_of_its_label_is_left_alone() -> None:
    prior = torch.stack([torch.full((12,), -6.0), torch.full((12,), 6.0)])
    prior[:, 9:] = torch.log(torch.tensor([0.2, 0.3, 0.5]))
    rows = torch.stack([torch.zeros(1, 12), torch.ones(1, 12)])
    known = torch.ones(2, 1, 12, dtype=torch.bool)
    nothing = torch.full((2, 1), torch.inf)
    right = classifier_shift(rows, nothing, torch.tensor([0, 1]), prior, LAYOUT, known)
    wrong = classifier_shift(rows, nothing, torch.tensor([1, 0]), prior, LAYOUT, known)
    assert right.abs().max() < 1e-3
    assert wrong[..., :9].abs().min() > 11
    assert posterior_mean(independent_logits(rows, nothing, prior[:, None], LAYOUT) + right, LAYOUT).isfinite().all()
