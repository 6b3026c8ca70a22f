"""All samplers by name: the one list that requests, the command line and the documentation are made from.

All solve the probability-flow equation ``dx/dsigma = (x - E[x0 | x, sigma]) / sigma`` of variance-exploding diffusion,
or its stochastic counterpart, and share one signature. They stop *at* the last level: the caller draws the clean row
from the posterior there, because a 0/1 value must be drawn, not rounded.

Samplers of masked diffusion, which have no noise level, are listed in :mod:`synclave_shared.diffusion.discrete`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from synclave_shared.diffusion.anderson import PARALLEL_ITERATIONS, sample_anderson, sample_parallel
from synclave_shared.diffusion.denoiser import Denoise, Noise, Sampler
from synclave_shared.diffusion.flow import sample_flow
from synclave_shared.diffusion.multistep import sample_dpmpp_2m, sample_sde_dpmpp_2m, sample_unipc
from synclave_shared.diffusion.one_step import sample_ancestral, sample_ddim, sample_heun

__all__ = ["CATALOGUE", "SAMPLERS", "Denoise", "Noise", "Sampler", "SamplerCard", "calls_in_sequence", "evaluations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerCard:
    """What a user can know of a sampler before using it.

    Attributes:
        sample: the sampler.
        summary: half a line for help texts and tables.
        rows: steps (levels - 1) -> rows that the denoiser computes for one patient.
        calls: steps -> calls of the denoiser, one after the other; fewer than rows if a call takes many levels.
    """

    sample: Sampler
    summary: str
    rows: Callable[[int], int]
    calls: Callable[[int], int]


def _one_call_a_step(sample: Sampler, summary: str) -> SamplerCard:
    return SamplerCard(sample=sample, summary=summary, rows=lambda steps: steps, calls=lambda steps: steps)


def _parallel_calls(steps: int) -> int:
    return min(steps, PARALLEL_ITERATIONS)


def _parallel_rows(steps: int) -> int:
    """The first call is for one level, call i > 1 for all but the i - 1 levels that are exact already."""
    return sum(1 if call == 0 else steps - call for call in range(_parallel_calls(steps)))


CATALOGUE: Final[Mapping[str, SamplerCard]] = MappingProxyType(
    {
        "flow": _one_call_a_step(sample_flow, "exact flow of each 0/1 column between calls; keeps rare codes"),
        "unipc": _one_call_a_step(sample_unipc, "UniPC, third order, corrected without calls"),
        "dpmpp-2m": _one_call_a_step(sample_dpmpp_2m, "DPM-Solver++(2M), second order"),
        "heun": SamplerCard(
            sample=sample_heun,
            summary="Heun's method, second order, two calls a step",
            rows=lambda steps: 2 * steps,
            calls=lambda steps: 2 * steps,
        ),
        "ddim": _one_call_a_step(sample_ddim, "DDIM, first order"),
        "sde-dpmpp-2m": _one_call_a_step(sample_sde_dpmpp_2m, "stochastic DPM-Solver++(2M)"),
        "ancestral": _one_call_a_step(sample_ancestral, "stochastic, first order; the truth with 1,000 steps"),
        "anderson": _one_call_a_step(sample_anderson, "Anderson mixing of DDIM states; for comparison only"),
        "parallel": SamplerCard(
            sample=sample_parallel,
            summary="DDIM with all levels in one call, Anderson-accelerated; few calls, more work",
            rows=_parallel_rows,
            calls=_parallel_calls,
        ),
    }
)
"""Samplers by the name that a user types, the recommended one first."""

SAMPLERS: Final[Mapping[str, Sampler]] = MappingProxyType({name: card.sample for name, card in CATALOGUE.items()})
"""Samplers alone, by name."""


def evaluations(sampler: str, levels: int) -> int:
    """Rows that the denoiser computes for one patient, the final draw's included: the work."""
    return CATALOGUE[sampler].rows(levels - 1) + 1


def calls_in_sequence(sampler: str, levels: int) -> int:
    """Calls of the denoiser one after the other, the final draw's included: the waiting time on a wide machine."""
    return CATALOGUE[sampler].calls(levels - 1) + 1
