"""How a site computes: settings that change cost and nothing else."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from synclave_shared.canonical import FrozenModel

__all__ = ["Performance"]


TILE_VALUES: Final = 2**22
"""Numbers at the network's input in one tile. They take 16 MiB in float32, and a step keeps some twenty times that."""


class Performance(FrozenModel):
    """Apart from everything that privacy depends on, which is the plan's: no setting here changes what is promised.

    Attributes:
        clipping: how per-patient gradients are clipped: by ``book-keeping`` (one backward pass, nearly the cost and
            memory of plain training), or by Opacus' ``ghost`` clipping or ``hooks``.
        precision: of the forward and backward pass; norms and sums are at least float32. ``bfloat16`` is for GPUs.
        patients_at_once: most patients whose activations are in memory together; a step of any size is made of such
            tiles, see :meth:`tile`.
    """

    clipping: Literal["book-keeping", "ghost", "hooks"] = "book-keeping"
    precision: Literal["float32", "bfloat16"] = "float32"
    patients_at_once: Annotated[int, Field(ge=1, le=16_384)] = 256

    def tile(self, values: int) -> int:
        """Patients of a tile, if each is ``values`` numbers at the network's input: fewer of a wide table."""
        return max(1, min(self.patients_at_once, TILE_VALUES // values))
