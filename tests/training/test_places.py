"""When a patient is taken out, all that follow move up: their numbers must stay the same to the last bit."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from synclave_client.performance import Performance
from synclave_client.training.codes import CodeLearner, DiffusionLoss
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients, check_places
from synclave_client.training.rehearsal import rehearse, rehearse_clinical, rehearse_series
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.diffusion import preconditioning
from synclave_shared.diffusion.losses import cross_entropy
from synclave_shared.diffusion.preconditioning import posterior_mean, prior_logits, sigmoid
from synclave_shared.errors import ClippingError
from synclave_shared.models.codes import build_code_denoiser, column_scale
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import ClassifierSpec, ModelSpec, SeriesSpec
from tests.models.small import small_schema
from tests.models.small_series import SERIES_LAYOUT
from tests.training.clipping.slow_truth import rows, squared_outputs

LAYOUT = CodeLayout(width=37, categories=((30, 34), (34, 37)), label_values=1)


def logits(patients: int) -> torch.Tensor:
    """[patients, levels, columns]: more numbers than one thread takes."""
    return 6 * torch.randn(patients, 4, LAYOUT.width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shift", [1, 3, 50])
def test_posteriors_and_slopes_of_the_loss_do_not_depend_on_the_place(threads: int, shift: int) -> None:
    values = logits(999).requires_grad_()
    truth = (values.detach() > 3).float()
    cross_entropy(values, truth, LAYOUT).sum().backward()
    moved = values.detach().roll(shift, 0).requires_grad_()
    cross_entropy(moved, truth.roll(shift, 0), LAYOUT).sum().backward()
    assert values.grad is not None
    assert moved.grad is not None
    assert torch.equal(moved.grad, values.grad.roll(shift, 0))
    assert torch.equal(posterior_mean(moved, LAYOUT), posterior_mean(values, LAYOUT).roll(shift, 0))


def test_torchs_own_sigmoid_would_depend_on_it() -> None:
    """The control: for numbers that are computed alone, as those at the end of a thread's share are."""
    values = 4 * torch.randn(400, 1003, generator=torch.Generator().manual_seed(0))
    whole, ours = values.sigmoid(), sigmoid(values)
    assert not torch.equal(torch.stack([value.sigmoid() for value in values[0]]), whole[0])
    assert torch.equal(torch.stack([sigmoid(value) for value in values[0]]), ours[0])
    assert all(torch.equal(sigmoid(values[:, s:].clone()), ours[:, s:]) for s in (1, 3, 7))
    assert torch.allclose(ours, whole, rtol=3e-7)


def test_the_slope_of_the_loss_is_that_of_the_binary_cross_entropy() -> None:
    values = torch.linspace(-30, 30, 601).requires_grad_()
    truth = (torch.arange(601) % 2).float()
    cross_entropy(values, truth, CodeLayout(width=601, categories=(), label_values=1)).backward()
    other = values.detach().clone().requires_grad_()
    nn.functional.binary_cross_entropy_with_logits(other, truth, reduction="sum").backward()
    assert values.grad is not None
    assert other.grad is not None
    assert torch.allclose(values.grad, other.grad, rtol=1e-6, atol=1e-12)


def moved_by_the_first_patient(width: int, patients: int, tile: int) -> float:
    """How far the sum moves when the first patient is taken out, under a model that a coordinator made for it.

    It looks for a prior whose ``torch.sigmoid`` hangs on the place, at a column c1, and couples every column to c1 and,
    with the other sign, to a column c2 where it does not: one last bit becomes a jump of a patient's logits.
    """
    candidates = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, 4000).astype(np.float32))
    for logit in candidates.tolist():
        posterior = torch.full((tile, 1, width), logit).sigmoid()[:, 0]
        odd = posterior != posterior[0, 0]
        if odd.any() and not odd.all(0).any() and odd.any(0).sum() < width:
            break
    row = int(odd.any(1).nonzero()[0, 0])
    first = int(odd[row].nonzero()[0, 0])
    second = int((~odd.any(0)).nonzero()[0, 0])
    bit = float((posterior[row, first] - posterior[0, 0]).abs())
    layout = CodeLayout(width=width, categories=(), label_values=1)
    spec = ModelSpec(noise_levels=4, label_dropout=Decimal(0), sigma_min=Decimal("0.001"), sigma_max=Decimal("0.002"))
    prior = prior_logits(torch.full((1, width), logit), layout)
    loss = DiffusionLoss(spec=spec, layout=layout, prior=prior)
    scale = float(column_scale(prior, layout)[0])
    sign = float(torch.sign(posterior[row, first] - posterior[row, second]))
    size = sign * 2.0 ** round(np.log2(30 / (scale * scale * bit)))
    others = [column for column in range(width) if column not in (first, second)]
    matrix = torch.zeros(width, width)
    matrix[others, first] = matrix[first, others] = -size
    matrix[others, second] = matrix[second, others] = size
    places = torch.triu_indices(width, width)
    network = build_code_denoiser(layout, spec)
    with torch.no_grad():
        network.coupling.weight.copy_(matrix[places[0], places[1]])
    features = np.zeros((patients, width), np.uint8)
    half = len(others) // 2
    features[np.ix_(range(0, patients, 2), others[half:])] = 1
    features[np.ix_(range(1, patients, 2), others[:half])] = 1
    gradients = PatientGradients(network, loss, 1.0)
    streams = PatientStreams(SecretRandomness(bytes(32)))

    class OwnStreams:
        """The same stream of numbers for each patient, whoever else is there."""

        def __init__(self, kept: NDArray[np.int64]) -> None:
            self.kept = kept

        def draw(self, step: int, chosen: NDArray[np.int64], normals: int) -> Any:
            return streams.draw(step, self.kept[chosen], normals)

    def total(kept: NDArray[np.int64]) -> torch.Tensor:
        dataset = PatientDataset(
            features=SparseRows.of(features[kept]),
            labels=np.zeros(len(kept), np.int64),
            patient_ids=[str(i) for i in kept],
        )
        own: Any = OwnStreams(kept)
        learner = CodeLearner(network=network, objective=loss, dataset=dataset, device="cpu")
        tiles = np.split(np.arange(len(kept)), range(tile, len(kept), tile))
        return gradients.clipped_sum(learner.batch(rows, tile, own, 0) for rows in tiles).clone()

    everybody = np.arange(patients)
    return float((total(everybody) - total(everybody[1:])).norm())


def test_taking_out_the_first_patient_moves_the_sum_by_at_most_the_clip_norm(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert moved_by_the_first_patient(width=619, patients=1000, tile=100) <= 1.0
    if threads == 1:
        # The control: with torch's own sigmoid the model does what it was made for.
        monkeypatch.setattr(preconditioning, "sigmoid", torch.sigmoid)
        assert moved_by_the_first_patient(width=619, patients=1000, tile=100) > 1.5


class ByPlace(nn.Module):
    """A layer whose last bit hangs on the place, as some vectorised functions' does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = torch.zeros(len(x), 1)
        last[-1] = 2.0**-22
        found: torch.Tensor = self.layer(x * (1 + last))
        return found


def test_a_place_that_decides_a_last_bit_is_found() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ClippingError, match="place in a tile"):
        check_places(ByPlace(), squared_outputs, rows(x))
    check_places(nn.Linear(4, 4), squared_outputs, rows(x))


@pytest.mark.parametrize("tile", [100, 256])
def test_the_rehearsal_finds_no_place_that_matters(threads: int, tile: int) -> None:
    rehearse(small_schema(), ModelSpec(), Performance(patients_at_once=tile))
    recurrent = ClassifierSpec(architecture="gru", blocks=1)
    rehearse_clinical(SERIES_LAYOUT, recurrent, Performance(patients_at_once=tile))


def test_nor_do_convolutions_over_the_steps_of_a_stay(threads: int) -> None:
    """The processor's library of convolutions shares patients among threads in its own way."""
    rehearse_series(SERIES_LAYOUT, SeriesSpec(width=32, backbone="unet", blocks=2), Performance(patients_at_once=100))
