"""Batches, networks and checks that the tests of traps share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.private_step.models import Rows
from tests.training.clipping.slow_truth import rows

EXACT = 1e-5
OWNERS = [0, 0, 1, 2, 2, 2, 3]
EITHER_ROWS = pytest.mark.parametrize("owners", [None, OWNERS], ids=["one row each", "several rows"])
EVERY_ENGINE = pytest.mark.parametrize("clipping", ["book-keeping", "hooks", "ghost"])


def inputs(*shape: int, owners: list[int] | None = None, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    return rows(torch.randn(len(OWNERS), *shape, generator=generator), owners)


def numbers(entries: int, places: int, owners: list[int] | None = None) -> Rows:
    generator = torch.Generator().manual_seed(0)
    return rows(torch.randint(entries, (len(OWNERS), places), generator=generator), owners)


def away_from_zero(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return network


def assert_untouched(network: nn.Module, required: dict[str, bool]) -> None:
    assert {name: value.requires_grad for name, value in network.named_parameters()} == required
    for name, value in network.named_parameters():
        assert value.grad is None, name
        assert not hasattr(value, "grad_sample"), name
    for name, module in network.named_modules():
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            assert not getattr(module, hooks), (name, hooks)


def required_by(network: nn.Module) -> dict[str, bool]:
    return {name: value.requires_grad for name, value in network.named_parameters()}


class Unfolded(nn.Module):
    """Levels [B, K, D] become rows [B K, D] of their own, one patient's together."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(8, 8), nn.GroupNorm(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(self.inner(x.flatten(0, 1)))
        found: Tensor = self.outer(torch.tanh(flat)).unflatten(0, x.shape[:2])
        return found


class Tied(nn.Module):
    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(9, 6, padding_idx=padding), nn.Linear(6, 6)
        self.head = nn.Linear(6, 9)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.head(torch.tanh(self.inner(self.table(ids))))
        return found


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
