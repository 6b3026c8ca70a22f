"""The U-Net over the steps of a stay: any horizon, and nothing of what lies beyond the stay."""

import pytest
import torch
from torch import nn

from synclave_shared.models.series.unet import SeriesUnet, doubled, halved

WIDTH = 32


def unet(resolutions: int) -> nn.Module:
    network = SeriesUnet(WIDTH, resolutions)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("resolutions", [1, 2, 3, 5])
def test_a_stay_gives_the_same_in_a_horizon_of_any_length(resolutions: int) -> None:
    """As if the grid ended with the stay, whatever stands after it."""
    network = unet(resolutions)
    generator = torch.Generator().manual_seed(1)
    hidden, context = torch.randn(3, 11, WIDTH, generator=generator), torch.randn(3, WIDTH, generator=generator)
    for length in range(1, 12):
        inside = (torch.arange(11) < length).expand(3, -1)
        short = network(hidden[:, :length], context, inside[:, :length])
        for after in (0.0, 1e6, torch.nan):
            long = network(torch.where(inside[..., None], hidden, after), context, inside)
            assert torch.allclose(long[:, :length], short, rtol=1e-4, atol=1e-4)


def test_a_patient_has_no_part_in_another() -> None:
    network = unet(3)
    hidden = torch.randn(4, 10, WIDTH, generator=torch.Generator().manual_seed(2))
    inside = torch.arange(10) < torch.tensor([1, 4, 7, 10])[:, None]
    found = network(hidden, torch.zeros(4, WIDTH), inside)
    others = hidden.clone()
    others[[0, 1, 3]] = torch.nan
    again = network(others, torch.zeros(4, WIDTH), inside)
    assert torch.equal(again[2], found[2])
    assert again[3].isnan().all()


def test_every_step_has_a_part_in_every_other_at_enough_resolutions() -> None:
    network = unet(3)
    hidden = torch.randn(1, 16, WIDTH, generator=torch.Generator().manual_seed(3)).requires_grad_()
    found = network(hidden, torch.zeros(1, WIDTH), torch.ones(1, 16, dtype=torch.bool))
    (slope,) = torch.autograd.grad(found[0, 15].sum(), hidden)
    assert (slope[0].abs().sum(dim=1) > 0).all()


def test_halving_takes_means_of_what_lies_within_the_stay() -> None:
    course = torch.tensor([1.0, 3.0, 5.0, 100.0, torch.nan])[None, :, None]
    within = torch.tensor([True, True, True, False, False])[None, :, None]
    coarse, inside = halved(course, within)
    assert coarse[0, :, 0].tolist() == [2.0, 5.0, 0.0]
    assert inside[0, :, 0].tolist() == [True, True, False]
    assert doubled(coarse, 5)[0, :, 0].tolist() == [2.0, 2.0, 5.0, 5.0, 0.0]
