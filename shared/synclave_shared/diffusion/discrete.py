"""Few-step samplers of masked (absorbing) diffusion: columns are hidden, and revealed over a few calls.

A *unit* is what is revealed as a whole: a code, or a one-hot group. Units that are revealed by the same call are drawn
independently of each other, which is the only error there is: revealed one at a time they follow the network's joint
distribution exactly, in any order that looks at what is known only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import cos, pi
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor

from synclave_shared.diffusion.drawing import draw_rows
from synclave_shared.models.layout import CodeLayout

__all__ = ["REVEALERS", "Order", "Predict", "Revealer", "Schedule", "Uniform", "Units", "reveal", "revealed_counts"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""``predict(values [B, D], known [B, D] bool)``: probabilities [B, D] of the clean row; hidden values are 0."""

Uniform = Callable[[int], Tensor]
"""``uniform(purpose)``: numbers [B, D] inside (0, 1), another set for each purpose; a row is its patient's own."""

Order = Literal["random", "certain", "uncertain"]
Schedule = Literal["linear", "cosine"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """Which columns are revealed together.

    Attributes:
        layout: columns.
        of_column: int64 [D], number of each column's unit.
        first_column: int64 [U], a unit's first column.
        single: bool [U], whether a unit is a code and no one-hot group.
    """

    layout: CodeLayout
    of_column: Tensor
    first_column: Tensor
    single: Tensor

    @classmethod
    def of(cls, layout: CodeLayout, device: torch.device | str = "cpu") -> Units:
        """Units of a layout: each code one, each one-hot group one, in the order of the columns."""
        sizes: list[int] = []
        single: list[bool] = []
        for size, one_hot in layout.pieces:
            sizes += [size] if one_hot else [1] * size
            single += [not one_hot] * (1 if one_hot else size)
        lengths = torch.tensor(sizes, device=device)
        return cls(
            layout=layout,
            of_column=torch.arange(len(sizes), device=device).repeat_interleave(lengths),
            first_column=lengths.cumsum(0) - lengths,
            single=torch.tensor(single, device=device),
        )

    def __len__(self) -> int:
        return len(self.first_column)

    def spread(self, per_unit: Tensor) -> Tensor:
        """[B, U] as [B, D]: every column gets its unit's number."""
        return per_unit[:, self.of_column]

    def draw(self, probabilities: Tensor, uniform: Tensor) -> Tensor:
        """Rows of 0 and 1 [B, D]: a coin per code, one value per one-hot group, which uses its first number.

        Args:
            probabilities: [B, D].
            uniform: [B, D], inside (0, 1).
        """
        return draw_rows(probabilities, uniform, self.layout).to(probabilities.dtype)

    def entropy(self, probabilities: Tensor) -> Tensor:
        """Entropy [B, U] in nats of every unit's distribution."""
        p = probabilities.clamp(0.0, 1.0)
        spent = -torch.xlogy(p, p)
        alone = spent - torch.xlogy(1.0 - p, 1.0 - p)
        per_column = torch.where(self.spread(self.single[None]), alone, spent)
        empty = torch.zeros(len(p), len(self), dtype=p.dtype, device=p.device)
        return empty.index_add_(1, self.of_column, per_column)


def revealed_counts(units: int, steps: int, schedule: Schedule = "linear") -> list[int]:
    """Units known after each step; the last number is ``units``.

    Args:
        units: units in all.
        steps: calls.
        schedule: ``linear``: as many in each step; ``cosine``: few at first, while little is known to draw from (Chang
            et al. 2022, MaskGIT).

    Raises:
        ValueError: if there is no step.
    """
    if steps < 1:
        raise ValueError("a masked sampler needs at least one step")
    shares = [step / steps for step in range(1, steps + 1)]
    if schedule == "cosine":
        shares = [1.0 - cos(pi / 2 * share) for share in shares]
    return [round(units * share) for share in shares]


def reveal(
    predict: Predict,
    units: Units,
    steps: int,
    *,
    uniform: Uniform,
    order: Order = "random",
    schedule: Schedule = "linear",
    shuffle: float = 0.0,
    corrections: int = 0,
    redraw: float = 0.25,
) -> tuple[Tensor, Tensor]:
    """Draw rows of 0 and 1 by revealing all units over a few calls.

    Args:
        predict: the network; called ``steps`` times.
        units: what is revealed together.
        steps: calls. As many as units, with the linear schedule, draw from the network's exact joint distribution.
        uniform: random numbers; purposes ``3 * step`` to ``3 * step + 2`` are used.
        order: ``random``: the reverse of absorbing diffusion, with the expected number of units in each step
            (tau-leaping, Campbell et al. 2022); ``certain``: least entropy first (the same as most confident first,
            for codes); ``uncertain``: most entropy first. Both draw dependent units together: random is better unless
            there are as many steps as units.
        schedule: see :func:`revealed_counts`.
        shuffle: scale of Gumbel noise on the entropies (nats) that order units; no effect on the random order.
        corrections: how many of the calls, the last ones, are Gibbs steps: they hide some units again, chosen at
            random, and draw them anew given all others. One at a time leaves the exact distribution as it is.
        redraw: share of units that a correction draws anew, 0 to 1.

    Returns:
        Values [B, D], and which are known [B, D]: all, after the last step.

    Raises:
        ValueError: if no call is left to reveal units.
    """
    counts = revealed_counts(len(units), steps - corrections, schedule)
    again = min(len(units), max(1, round(redraw * len(units))))
    template = uniform(0)
    known = torch.zeros(len(template), len(units), dtype=torch.bool, device=template.device)
    values = torch.zeros_like(template)
    for step in range(steps):
        if step < len(counts):
            missing = counts[step] - (counts[step - 1] if step else 0)
        else:
            known = ~_largest(uniform(3 * step)[:, units.first_column], again)
            values = values * units.spread(known)
            missing = again
        probabilities = predict(values, units.spread(known)).to(values.dtype)
        lots = uniform(3 * step + 1)[:, units.first_column]
        if order != "random":
            entropy = units.entropy(probabilities)
            lots = (-entropy if order == "certain" else entropy) - shuffle * torch.log(-torch.log(lots))
        chosen = _largest(lots.masked_fill(known, -torch.inf), missing)
        drawn = units.draw(probabilities, uniform(3 * step + 2))
        values = torch.where(units.spread(chosen), drawn, values)
        known = known | chosen
    return values, units.spread(known)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Which of each row's scores [B, U] are its ``count`` largest; ties go to the unit that comes first."""
    places = scores.argsort(dim=-1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, places, True)


def _corrected(predict: Predict, units: Units, steps: int, *, uniform: Uniform) -> tuple[Tensor, Tensor]:
    return reveal(predict, units, steps, uniform=uniform, corrections=steps // 4)


Revealer = Callable[..., tuple[Tensor, Tensor]]
"""``revealer(predict, units, steps, *, uniform) -> (values, known)``."""

REVEALERS: Final[Mapping[str, Revealer]] = MappingProxyType(
    {
        "masked": reveal,
        "masked-cosine": partial(reveal, schedule="cosine"),
        "masked-corrected": _corrected,
        "masked-certain": partial(reveal, order="certain", shuffle=0.3),
        "masked-uncertain": partial(reveal, order="uncertain", schedule="cosine"),
    }
)
"""Masked samplers by the name that a user types, the recommended one first; each calls the network once per step."""
