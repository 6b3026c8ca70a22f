"""The whole trajectory as one fixed point: DDIM's result, fewer calls in sequence, each patient for itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from synclave_shared.diffusion.anderson import solve_trajectory
from synclave_shared.diffusion.one_step import sample_ddim
from synclave_shared.diffusion.schedules import karras_sigmas
from tests.diffusion.exact import coupled_joint

JOINT = coupled_joint()


def starts(rows: int, seed: int = 0) -> Tensor:
    return 4.0 * torch.randn(rows, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(levels=st.integers(1, 15), window=st.integers(0, 4), seed=st.integers(0, 1000), spare=st.integers(0, 3))
def test_as_many_iterations_as_steps_are_exactly_ddim(levels: int, window: int, seed: int, spare: int) -> None:
    x, sigmas = starts(3, seed), karras_sigmas(0.3, 4.0, levels)
    solved = solve_trajectory(JOINT.denoise, x, sigmas, iterations=levels - 1 + spare, window=window)
    assert torch.allclose(solved.end, sample_ddim(JOINT.denoise, x, sigmas), rtol=0, atol=1e-10)
    assert solved.calls == levels - 1


def test_anderson_needs_fewer_calls_than_picard_and_far_fewer_than_steps() -> None:
    x, sigmas = starts(32), karras_sigmas(0.3, 4.0, 41)
    ddim = sample_ddim(JOINT.denoise, x, sigmas)
    solved = {w: solve_trajectory(JOINT.denoise, x, sigmas, iterations=40, window=w, tolerance=1e-6) for w in (0, 2)}
    for solution in solved.values():
        assert torch.allclose(solution.end, ddim, rtol=0, atol=1e-5)
        assert int(solution.iterations.max()) == solution.calls < 20
    assert solved[2].iterations.double().mean() < solved[0].iterations.double().mean()


@pytest.mark.parametrize("tolerance", [0.0, 1e-2])
def test_a_patient_who_is_done_stays_as_it_is_while_others_go_on(tolerance: float) -> None:
    x, sigmas = starts(24), karras_sigmas(0.3, 4.0, 31)
    whole = solve_trajectory(JOINT.denoise, x, sigmas, iterations=20, tolerance=tolerance)
    for patient in range(0, 24, 5):
        alone = solve_trajectory(JOINT.denoise, x[patient : patient + 1], sigmas, iterations=20, tolerance=tolerance)
        assert torch.allclose(whole.end[patient], alone.end[0], rtol=0, atol=1e-9)
        assert tolerance == 0 or int(whole.iterations[patient]) == alone.calls
    assert tolerance == 0 or whole.iterations.unique().numel() > 1
