"""A 0/1 matrix of which few entries are 1: patients have some twenty codes of a vocabulary of thousands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK_ROWS", "SparseRows"]

CHUNK_ROWS: Final = 4096
"""Rows taken at once where all are gone through: bounds what is made on the way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseRows:
    """Rows of 0 and 1, kept as the columns of each row's ones (the compressed sparse rows of numerical libraries).

    Indexing by a slice, by positions or by a mask makes those rows dense: ``rows[:256]`` is uint8 [256, width].

    Attributes:
        starts: where each row's ones begin, and at last their number; int64 [rows + 1].
        ones: the columns that are 1, rising within a row; int32 [ones].
        width: number of columns D.

    Raises:
        ValueError: if the three do not describe rows of that width.
    """

    starts: npt.NDArray[np.int64]
    ones: npt.NDArray[np.int32]
    width: int

    def __post_init__(self) -> None:
        if self.starts.dtype != np.int64 or self.ones.dtype != np.int32:
            raise ValueError("starts must be int64 [rows + 1] and ones int32 [ones]")
        if self.starts[0] != 0 or self.starts[-1] != len(self.ones) or (np.diff(self.starts) < 0).any():
            raise ValueError("starts must rise from 0 to the number of ones")
        if len(self.ones) and not 0 <= self.ones.min() <= self.ones.max() < self.width:
            raise ValueError(f"a one lies outside the {self.width} columns")

    @classmethod
    def of(cls, dense: npt.NDArray[np.uint8]) -> SparseRows:
        """The rows of a matrix of 0 and 1, uint8 [rows, width].

        Raises:
            ValueError: if it is another kind of array, or has another number in it.
        """
        if dense.ndim != 2 or dense.dtype != np.uint8 or (dense.size and dense.max() > 1):
            raise ValueError("rows must be uint8 [rows, columns] of 0 and 1")
        row, column = np.nonzero(dense)
        return cls(starts=_starts(row, len(dense)), ones=column.astype(np.int32), width=dense.shape[1])

    @classmethod
    def of_places(cls, places: npt.NDArray[np.int64], rows: int, width: int) -> SparseRows:
        """Rows by the places of their ones.

        Args:
            places: ``row * width + column`` of each one, in any order, some perhaps more than once; int64 [places].
            rows: number of rows.
            width: number of columns.
        """
        row, column = np.divmod(np.unique(places), width)
        return cls(starts=_starts(row, rows), ones=column.astype(np.int32), width=width)

    @classmethod
    def stacked(cls, parts: list[SparseRows]) -> SparseRows:
        """The rows of several matrices of one width, one below the other; at least one matrix."""
        (width,) = {part.width for part in parts}
        counts = np.concatenate([part.counts for part in parts])
        return cls(
            starts=np.append(0, np.cumsum(counts)), ones=np.concatenate([part.ones for part in parts]), width=width
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), self.width

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of ones in each row, int64 [rows]."""
        return np.diff(self.starts)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        chosen = self.take(np.arange(len(self))[rows])
        dense = np.zeros(chosen.shape, np.uint8)
        dense[np.repeat(np.arange(len(chosen)), chosen.counts), chosen.ones] = 1
        return dense

    def take(self, positions: npt.NDArray[np.integer]) -> SparseRows:
        """The rows at ``positions`` [k], in that order."""
        counts = self.counts[positions]
        starts = np.append(0, np.cumsum(counts))
        # A one's place among all ones: its row's start, and how many came before it in its row.
        places = np.arange(starts[-1]) + np.repeat(self.starts[:-1][positions] - starts[:-1], counts)
        return SparseRows(starts=starts, ones=self.ones[places], width=self.width)

    def sums(
        self, groups: npt.NDArray[np.int64], number: int, weights: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.float64]:
        """Column sums of groups of rows.

        Args:
            groups: each row's group, 0 to ``number - 1``; [rows].
            number: how many groups there are.
            weights: what each row counts for, [rows]; None: one.

        Returns:
            float64 [number, width].
        """
        sums = np.zeros(number * self.width)
        for start in range(0, len(self), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            counts = self.counts[part]
            ones = self.ones[self.starts[start] : self.starts[start] + counts.sum()]
            places = np.repeat(groups[part] * self.width, counts) + ones
            weight = None if weights is None else np.repeat(weights[part], counts)
            sums += np.bincount(places, weight, minlength=len(sums))
        return sums.reshape(number, self.width)


def _starts(row: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """Where each of ``rows`` rows begins among ones that stand in rows ``row`` [ones], rising."""
    return np.append(0, np.cumsum(np.bincount(row, minlength=rows))).astype(np.int64)
