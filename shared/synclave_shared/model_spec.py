"""placeholder until the plan's kinds of models are merged"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from synclave_shared.canonical import ExactDecimal, FrozenModel
from synclave_shared.privacy.mechanism import PositiveDecimal


class SeriesSpec(FrozenModel):
    """The series denoiser: predicts values and gaps of channels over time of which little is seen.

    Attributes:
        couplings: whether channels are coupled in pairs, within a step and over the stay.
        width: width of the transformer over the steps, a multiple of 32; 0: none, which is best where noise is heavy.
        blocks: its blocks.
        noise_levels: noise levels per patient and step, averaged *before* clipping.
        label_dropout: share of patients whose label is hidden in a step (classifier-free guidance).
        sigma_min, sigma_max: range of noise levels, in standard deviations of a channel.
        log_sigma_mean, log_sigma_std: training draws ln(sigma) from this normal law, moved into the range.
    """

    kind: Literal["series"] = "series"
    couplings: bool = True
    width: Annotated[int, Field(ge=0, le=1024, multiple_of=32)] = 0
    blocks: Annotated[int, Field(ge=1, le=16)] = 3
    noise_levels: Annotated[int, Field(ge=1, le=64)] = 4
    label_dropout: Annotated[ExactDecimal, Field(ge=0, le=Decimal("0.9999"))] = Decimal("0.1")
    sigma_min: Annotated[PositiveDecimal, Field(ge=Decimal("0.001"))] = Decimal("0.05")
    sigma_max: PositiveDecimal = Decimal("20")
    log_sigma_mean: ExactDecimal = Decimal("-0.4")
    log_sigma_std: PositiveDecimal = Decimal("1.4")
