"""Clinical models of time series."""

import pytest
import torch

from synclave_shared.model_size import parameters_of
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.classifier import RecurrentBlock, StaySummary, build_series_classifier
from synclave_shared.plan import ClassifierSpec, InfluenceSpec
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_schema

SPECS = [
    ClassifierSpec(),
    ClassifierSpec(architecture="gru", width=32, blocks=2),
    ClassifierSpec(architecture="tcn", width=32, blocks=2),
    ClassifierSpec(architecture="transformer", width=64, blocks=1),
]


@pytest.mark.parametrize("spec", SPECS)
def test_parameters_are_counted_without_building_the_network(spec: ClassifierSpec) -> None:
    size = parameter_vector(build_series_classifier(SERIES_LAYOUT, spec)).size
    assert size == parameters_of(spec, series_schema())
    influence = InfluenceSpec.model_validate(spec.model_dump(exclude={"kind"}))
    assert size == parameters_of(influence, series_schema())


def test_a_stay_is_summarised_by_its_means_and_those_of_its_quarters() -> None:
    course = torch.arange(8.0)[None, :, None]
    inside = (torch.arange(8) < 6)[None]
    # Six steps: 0 to 5; a quarter of six, rounded up, is two.
    assert StaySummary()(course, inside)[0].tolist() == [2.5, 0.5, 4.5]
    alone = (torch.arange(8) < 1)[None]
    assert StaySummary()(course, alone)[0].tolist() == [0.0, 0.0, 0.0]


def test_the_recurrent_block_is_a_gated_recurrent_unit() -> None:
    """Beside torch's own, which is told where each stay ends."""
    torch.manual_seed(0)
    block, theirs = RecurrentBlock(8), torch.nn.GRU(8, 8, batch_first=True)
    with torch.no_grad():
        for name, layer in (("ih", block.read), ("hh", block.remember)):
            getattr(theirs, f"weight_{name}_l0").copy_(layer.weight)
            getattr(theirs, f"bias_{name}_l0").copy_(layer.bias)
    hidden, lengths = 3 * torch.randn(5, STEPS, 8), torch.tensor([1, 2, 4, 5, 6])
    inside = torch.arange(STEPS) < lengths[:, None]
    found = block(hidden, inside) - hidden
    truth, _ = theirs(block.norm(hidden))
    assert torch.allclose(found[inside], truth[inside], atol=1e-6)
    last = truth[torch.arange(5), lengths - 1][:, None].expand_as(truth)
    assert torch.allclose(found[~inside], last[~inside], atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_what_stands_after_the_end_of_a_stay_is_not_read(spec: ClassifierSpec) -> None:
    network = build_series_classifier(SERIES_LAYOUT, spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    values, measured = torch.randn(4, STEPS, 3, generator=generator), torch.ones(4, STEPS, 3)
    inside = torch.arange(STEPS) < torch.tensor([1, 3, 5, 6])[:, None]
    context = torch.zeros(4, SERIES_LAYOUT.context.width)
    found = network(values, measured, context, inside)
    later = torch.where(inside[:, :, None], values, 1e6)
    assert torch.allclose(network(later, measured, context, inside), found, atol=1e-5)
    earlier = torch.where(inside[:, :, None], values + 1, values)
    assert not torch.allclose(network(earlier, measured, context, inside), found, atol=1e-3)
