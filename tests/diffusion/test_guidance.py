import torch

from synclave_shared.diffusion.guidance import classifier_log_odds, classifier_shift
from synclave_shared.diffusion.preconditioning import independent_logits, posterior_mean
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


def test_the_shift_is_the_gradient_of_the_classifier() -> None:
    """sigma^2 grad log p(y | x) is the change of the independent posterior mean to first order in the strength.

    So the derivative of the shifted mean by the strength is that of the logits times p (1 - p), for codes.
    """
    prior = priors(2).double()
    x = torch.randn(3, 1, 12, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    sigma = torch.full((3, 1), 40.0).double()
    labels = torch.tensor([0, 1, 2])
    odds = classifier_log_odds(x, sigma, prior, LAYOUT).log_softmax(-1)
    (gradient,) = torch.autograd.grad(odds[torch.arange(3), 0, labels].sum(), x)
    shift = classifier_shift(x.detach(), sigma, labels, prior, LAYOUT)
    # At high noise all posteriors are the priors', and the gradient is the difference of prior means.
    likely = odds.exp().detach()
    p = posterior_mean(prior, LAYOUT)
    assert torch.allclose(40.0**2 * gradient[:, 0], p[labels] - (likely @ p)[:, 0], atol=2e-3)
    assert torch.equal(torch.sign(shift[..., :9]), torch.sign(prior[labels][:, None, :9] - likely @ prior[:, :9]))


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
