"""Threads of torch, among which the numbers of a tile are shared out."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(params=[1, 2, 3, 5, 8])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
