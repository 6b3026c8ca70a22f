import pytest
import torch

from synclave_shared.diffusion.calibration import calibration_offsets
from synclave_shared.diffusion.preconditioning import posterior_mean
from synclave_shared.models.layout import CodeLayout
from tests.models.small import LAYOUT


def trial(patients: int, layout: CodeLayout, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -1.0 + 3.0 * torch.randn(patients, layout.width, generator=generator)


def test_common_columns_get_the_wanted_prevalence() -> None:
    logits = trial(4096, LAYOUT)
    wanted = torch.tensor([0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.3, 0.2, 0.15, 0.6, 0.25, 0.15])
    offsets = calibration_offsets(logits, wanted, LAYOUT)
    found = posterior_mean(logits + offsets, LAYOUT).mean(0)
    assert torch.allclose(found, wanted, atol=0.005)


def test_what_is_right_already_is_left_alone() -> None:
    logits = trial(4096, LAYOUT)
    offsets = calibration_offsets(logits, posterior_mean(logits, LAYOUT).mean(0), LAYOUT)
    assert offsets.abs().max() < 1e-3


def test_a_rare_column_follows_its_like_and_not_its_own_few_carriers() -> None:
    """400 codes of prevalence 1 in 2,000: what a trial shows of one is chance, what it shows of all is not."""
    layout = CodeLayout(width=400, categories=(), label_values=1)
    generator = torch.Generator().manual_seed(1)
    carriers = torch.rand(4096, 400, generator=generator) < 0.0005 * 0.7
    logits = torch.where(carriers, 6.0, -20.0)
    wanted = torch.full((400,), 0.0005)
    found = posterior_mean(logits + calibration_offsets(logits, wanted, layout), layout).mean(0)
    # Posteriors are all but decided: no offset can help, and none may do harm.
    soft = torch.where(carriers, 0.0, -9.0)
    offsets = calibration_offsets(soft, wanted, layout)
    before, after = (posterior_mean(values, layout).mean() for values in (soft, soft + offsets))
    assert abs(float(after) / 0.0005 - 1) < 0.15 < abs(float(before) / 0.0005 - 1)
    assert abs(float(found.mean()) - float(posterior_mean(logits, layout).mean())) < 1e-4


@pytest.mark.parametrize("wanted", [0.0, 1.0])
def test_impossible_prevalences_give_finite_offsets(wanted: float) -> None:
    offsets = calibration_offsets(trial(256, LAYOUT), torch.full((12,), wanted), LAYOUT)
    assert offsets.isfinite().all()
