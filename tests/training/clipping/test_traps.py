"""What is overwritten, not finite or left behind: exact or an error, and nothing in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.private_step.models import Rows
from synclave_client.performance import Performance
from synclave_client.training.private import PatientGradients, check_network, self_test
from synclave_shared.errors import ClippingError
from tests.training.clipping.slow_truth import clipped_sum, deviation, rows, squared_outputs
from tests.training.clipping.unusual import (
    EVERY_ENGINE,
    EXACT,
    OWNERS,
    Tied,
    assert_untouched,
    inputs,
    required_by,
    two_layers,
)

# Operations in place, buffers.


class InPlace(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.one, self.two, self.what = nn.Linear(8, 8), nn.Linear(8, 8), what

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.one(x))
        found: Tensor = self.two(hidden)
        match self.what:
            case "relu after the layer":
                return functional.relu(found, inplace=True)
            case "add to the output":
                return found.add_(1)
            case "add to the input":
                hidden.add_(1)
            case "write into the input":
                hidden[:, 0] = 0
            case "write without gradients":
                with torch.no_grad():
                    hidden.mul_(2)
            case "write to a view":
                hidden.view(-1).mul_(2)
            case "relu of a sum":
                return functional.relu(found + 1, inplace=True)
        return found


@pytest.mark.parametrize(
    "what",
    [
        *("relu after the layer", "add to the output", "add to the input", "write into the input"),
        *("write without gradients", "write to a view"),
    ],
)
def test_what_is_overwritten_is_never_silently_wrong(what: str) -> None:
    torch.manual_seed(0)
    network = InPlace(what)
    before = required_by(network)
    try:
        found = deviation(network, squared_outputs, inputs(5, 8))
    except (ClippingError, RuntimeError):
        assert_untouched(network, before)
    else:
        assert found <= EXACT


def test_operations_in_place_that_touch_no_layer_are_exact() -> None:
    torch.manual_seed(0)
    assert deviation(InPlace("relu of a sum"), squared_outputs, inputs(5, 8)) <= EXACT


class Remembering(nn.Module):
    def __init__(self, assign: bool) -> None:
        super().__init__()
        self.layer, self.assign = nn.Linear(8, 3), assign
        self.register_buffer("running", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        if self.assign:
            self.running = 0.9 * self.running + 0.1 * found.detach().mean(0)
        else:
            self.running.mul_(0.9).add_(found.detach().mean(0), alpha=0.1)
        return found


@pytest.mark.parametrize(
    ("clipping", "assign"),
    [(clipping, assign) for clipping in ("book-keeping", "hooks", "ghost") for assign in (False, True)],
)
def test_a_buffer_that_changes_in_the_forward_pass_is_refused(clipping: Any, assign: bool) -> None:
    with pytest.raises(ClippingError, match="running"):
        clipped_sum(Remembering(assign), squared_outputs, [inputs(8)], 1.0, Performance(clipping=clipping))


# Patients whose numbers are not finite.


class PoisonedRows(nn.Module):
    """Every kind of factor: table, linear, convolution, normalisations, bare."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.place = nn.Linear(8, 8), nn.LayerNorm(8), nn.Embedding(5, 8)
        self.convolution, self.groups, self.outer = nn.Conv1d(8, 8, 3), nn.GroupNorm(2, 8), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.inner(x)) + self.place(torch.arange(5).expand(len(x), -1))
        found: Tensor = self.outer(torch.tanh(self.groups(self.convolution(hidden.mT))))
        return found


def rooted(network: Any, batch: Rows) -> Tensor:
    """Finite everywhere; the slope of the root at 0 is not."""
    factor = batch.y if batch.patient_of_row is None else batch.mean_over_rows(batch.y)
    own = squared_outputs(network, batch)
    return own + (own * factor).abs().sqrt()


def nan_loss(network: Any, batch: Rows) -> Tensor:
    own = squared_outputs(network, batch)
    factor = batch.y if batch.patient_of_row is None else batch.mean_over_rows(batch.y)
    return own * torch.where(factor == 0, float("nan"), 1.0)


def poisoned(kind: str, owners: list[int] | None) -> tuple[Rows, Any]:
    """A batch whose third patient has no finite gradient, and the loss to go with it."""
    batch = inputs(5, 8, owners=owners)
    x, y = batch.x, torch.ones(len(batch.x))
    mine = slice(2, 3) if owners is None else slice(3, 6)
    match kind:
        case "nan":
            x[mine.start, 1, 2] = float("nan")
        case "inf":
            x[mine.start, 1, 2] = float("inf")
        case "root" | "nan loss":
            y[mine] = 0
    loss = {"root": rooted, "nan loss": nan_loss}.get(kind, squared_outputs)
    return replace(batch, y=y), loss


@pytest.mark.parametrize("kind", ["nan", "inf", "root", "nan loss"])
@pytest.mark.parametrize(
    ("clipping", "owners"),
    [("book-keeping", None), ("book-keeping", OWNERS), ("hooks", None), ("hooks", OWNERS), ("ghost", None)],
)
def test_a_patient_without_finite_gradient_is_as_if_absent(kind: str, clipping: Any, owners: list[int] | None) -> None:
    batch, loss = poisoned(kind, owners)
    torch.manual_seed(0)
    network = PoisonedRows()
    if clipping != "book-keeping":
        network.place.requires_grad_(False)
    given = batch.x.clone()
    patient = 2
    if kind == "root":
        assert bool(torch.isfinite(loss(network, batch)).all())
    gradients = PatientGradients(network, loss, 0.5, Performance(clipping=clipping))
    found = gradients.clipped_sum([batch]).clone()
    assert gradients.left_out == 1
    assert torch.equal(batch.x.nan_to_num(7, 8, 9), given.nan_to_num(7, 8, 9))
    present = torch.arange(len(batch)) != patient
    absent = gradients.clipped_sum([replace(batch, present=present)]).clone()
    assert gradients.left_out == 1, "padding is nobody who was left out"
    assert torch.equal(found, absent)
    # The others' share: of the batch without that patient at all.
    others = gradients.clipped_sum([batch.select(present.nonzero()[:, 0])])
    assert torch.allclose(found, others, atol=1e-6)
    assert 0.1 < float(found.norm()) <= 0.5 * (len(batch) - 1)


def test_ghost_refuses_what_it_would_get_wrong_and_says_what_to_do() -> None:
    ghost = Performance(clipping="ghost")
    network = nn.Linear(8, 3)
    before = required_by(network)
    with pytest.raises(ClippingError, match="book-keeping"):
        clipped_sum(network, squared_outputs, [inputs(5, 8, owners=OWNERS)], 1.0, ghost)
    with pytest.raises(ClippingError, match="book-keeping"):
        clipped_sum(network, squared_outputs, [inputs(2, 5, 8)], 1.0, ghost)
    assert_untouched(network, before)
    assert deviation(network, squared_outputs, inputs(5, 8), ghost) <= EXACT


@pytest.mark.parametrize("clipping", ["hooks", "ghost"])
def test_opacus_does_not_train_the_entry_of_padding(clipping: Any) -> None:
    with pytest.raises(ClippingError, match=r"padding_idx.*table"):
        PatientGradients(Tied(0), squared_outputs, 1.0, Performance(clipping=clipping))


# What is left behind.


@EVERY_ENGINE
@pytest.mark.parametrize("trained", ["all", "half"])
def test_whatever_a_loss_raises_the_network_is_left_as_it_was(clipping: Any, trained: str) -> None:
    def broken(network: Any, batch: Rows) -> Tensor:
        squared_outputs(network, batch)
        raise KeyError("a defect of the loss")

    def broken_inside(network: Any, batch: Rows) -> Tensor:
        return squared_outputs(network, replace(batch, x=batch.x[:, :3]))

    network: Any = two_layers()
    network[0].weight.requires_grad_(trained == "all")
    before = required_by(network)
    for loss, error in ((broken, KeyError), (broken_inside, (RuntimeError, ClippingError))):
        gradients = PatientGradients(network, loss, 1.0, Performance(clipping=clipping))
        with pytest.raises(error):
            gradients.clipped_sum([inputs(8)])
        assert_untouched(network, before)
    assert deviation(network, squared_outputs, inputs(8), Performance(clipping=clipping)) <= EXACT
    assert_untouched(network, before)


@EVERY_ENGINE
def test_gradients_that_the_user_left_are_not_counted(clipping: Any) -> None:
    network, performance = two_layers(), Performance(clipping=clipping)
    expected = clipped_sum(network, squared_outputs, [inputs(8)], 0.5, performance)
    squared_outputs(network, inputs(8, seed=3)).sum().backward()
    assert all(value.grad is not None for value in network.parameters())
    assert torch.equal(clipped_sum(network, squared_outputs, [inputs(8)], 0.5, performance), expected)


@EVERY_ENGINE
def test_a_caller_without_autograd_gets_the_sum_or_an_error_and_no_zeros(clipping: Any) -> None:
    network, batch, performance = two_layers(), inputs(8), Performance(clipping=clipping)
    before = required_by(network)
    expected = clipped_sum(network, squared_outputs, [batch], 0.5, performance)
    with torch.no_grad():
        if clipping == "book-keeping":
            assert torch.equal(clipped_sum(network, squared_outputs, [batch], 0.5, performance), expected)
        else:
            with pytest.raises(ClippingError):
                clipped_sum(network, squared_outputs, [batch], 0.5, performance)
    with torch.inference_mode(), pytest.raises((ClippingError, RuntimeError)):
        clipped_sum(network, squared_outputs, [batch], 0.5, performance)
    assert_untouched(network, before)


def test_a_loss_that_takes_gradients_itself_is_refused() -> None:
    def penalised(network: Any, batch: Rows) -> Tensor:
        x = batch.x.detach().requires_grad_()
        out = network(x).square().flatten(1).sum(1)
        slope = torch.autograd.grad(out.sum(), x, create_graph=True)[0]
        return out + slope.square().flatten(1).sum(1)

    with pytest.raises(ClippingError, match="gradients within the loss"):
        clipped_sum(two_layers(), penalised, [inputs(8)], 0.5)


class ChosenTokens(nn.Module):
    """A head on the chosen tokens of all rows at once: how many there are depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        hidden = self.layer(x)
        found = self.head(hidden[chosen])
        out = torch.zeros(*chosen.shape, 3)
        out[chosen] = found
        return out


def test_tokens_gathered_over_the_batch_are_refused_when_their_number_changes() -> None:
    """Rows are known by the first axis; what is chosen out of all rows is nobody's row."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5)

    def loss(network: Any, batch: Rows) -> Tensor:
        return network(batch.x, batch.y > 0).square().flatten(1).sum(1)

    def chosen(*counts: int) -> Rows:
        return rows(x, y=(torch.arange(6) < torch.tensor(counts)[:, None]).float())

    gradients = PatientGradients(ChosenTokens(), loss, 1.0)
    gradients.clipped_sum([chosen(2, 2, 2, 2)])
    for counts in ((3, 2, 2, 2), (4, 4, 2, 2)):
        with pytest.raises(ClippingError, match="head"):
            gradients.clipped_sum([chosen(*counts)])
    with pytest.raises(ClippingError):
        self_test(ChosenTokens(), loss, chosen(3, 1, 2, 2))


def test_a_frozen_embedding_that_tokens_rewrite_is_refused() -> None:
    table = nn.Embedding(5, 3, max_norm=1.0)
    table.weight.requires_grad_(False)
    with pytest.raises(ClippingError, match="max_norm"):
        check_network(nn.Sequential(table, nn.Linear(3, 2)))
