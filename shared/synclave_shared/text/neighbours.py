"""Which token stands beside which in public notes: what a small language model is helped by where it writes.

A network of two million parameters that was trained on two cores knows which words a note has, and hardly which follows
which. Counts of pairs know that, and nothing else. The two are multiplied (a product of experts, Hinton 2002): of a
place whose neighbour is known, every token's log-probability gains ``log p(token | neighbour) / p(token)``, smoothed.
The counts are of public notes alone (``data/ATTRIBUTION.md``) and spend nothing.

Shapes: ``R`` rows, ``T`` tokens, ``M`` asked places, ``V`` vocabulary.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["PAIRS_FILE", "Neighbours", "pack_pairs", "public_neighbours", "unpack_pairs"]

PAIRS_FILE: Final = Path(__file__).parent / "data" / "neighbours.bin.xz"

SMOOTHING: Final = 20.0
"""Counts by which a pair must outweigh the token's own frequency before it says much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """Of each token the tokens that stand on one side of it, and what that adds to their logits.

    Attributes:
        starts: token a's are ``starts[a]`` to ``starts[a + 1] - 1``; int64 [V + 1].
        tokens: int64 [pairs].
        gains: float32 [pairs], above 0: a pair that was never seen adds nothing.
    """

    starts: Tensor
    tokens: Tensor
    gains: Tensor

    @classmethod
    def of(cls, given: NDArray[np.int64], asked: NDArray[np.int64], counts: NDArray[np.int64], size: int) -> Self:
        order = np.lexsort((asked, given))
        given, asked, counts = given[order], asked[order], counts[order]
        shares = np.bincount(asked, weights=counts, minlength=size) / counts.sum()
        # log of (count + s p) / (all + s) over p; what does not hang on the asked token is left out.
        gains = np.log1p(counts / (SMOOTHING * shares[asked]))
        # A pair of a rare token is mostly chance: counted once, it must not outweigh all that the network knows.
        gains *= counts / (counts + 1.0)
        starts = np.searchsorted(given, np.arange(size + 1))
        return cls(
            starts=torch.from_numpy(starts),
            tokens=torch.from_numpy(asked),
            gains=torch.from_numpy(gains.astype(np.float32)),
        )

    def add(self, logits: Tensor, given: Tensor, weight: float) -> None:
        """Add to logits [n, V], in place, what the neighbours ``given`` [n] say."""
        first = self.starts[given]
        count = self.starts[given + 1] - first
        row = torch.arange(len(given)).repeat_interleave(count)
        place = torch.arange(len(row)) - (count.cumsum(0) - count)[row] + first[row]
        target = (row * logits.shape[1] + self.tokens[place]).to(logits.device)
        logits.view(-1).index_add_(0, target, weight * self.gains[place].to(logits.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Pairs of neighbouring tokens.

    Attributes:
        after: what follows a token.
        before: what precedes one.
    """

    after: _Side
    before: _Side

    @classmethod
    def of(cls, pairs: NDArray[np.int64], size: int) -> Self:
        """From pairs (first, second, count) [pairs, 3] of a vocabulary of ``size`` tokens."""
        first, second, counts = pairs.T
        return cls(after=_Side.of(first, second, counts, size), before=_Side.of(second, first, counts, size))

    def added(self, logits: Tensor, ids: Tensor, positions: Tensor, weight: float = 1.0) -> Tensor:
        """Logits with what the neighbours say.

        Args:
            logits: float [R, M, V].
            ids: int64 [R, T]; a mask, or whatever stands in no pair, says nothing.
            positions: of the asked places, inside the row, [R, M].
            weight: of the pairs beside the network.
        """
        found = logits.float().flatten(0, 1).clone()
        left = ids.gather(1, (positions - 1).clamp_min(0)).flatten().cpu()
        right = ids.gather(1, (positions + 1).clamp_max(ids.shape[1] - 1)).flatten().cpu()
        self.after.add(found, left, weight)
        self.before.add(found, right, weight)
        return found.view(logits.shape)


def pack_pairs(texts: Iterable[Sequence[int]], fewest: int) -> bytes:
    """Pairs of neighbours in texts of tokens that occur ``fewest`` times at least, as a file has them."""
    numbers, counts = np.unique(
        np.concatenate([np.asarray(ids[:-1], np.int64) << 32 | np.asarray(ids[1:], np.int64) for ids in texts]),
        return_counts=True,
    )
    kept = counts >= fewest
    numbers, counts = numbers[kept], np.minimum(counts[kept], 2**16 - 1)
    columns = [(numbers >> 32).astype("<u2"), (numbers & 0xFFFF).astype("<u2"), counts.astype("<u2")]
    # Differences of what is sorted are small, and small numbers compress well.
    columns[0] = np.diff(columns[0], prepend=np.uint16(0))
    content = b"".join(column.astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes() for column in columns)
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def unpack_pairs(content: bytes) -> NDArray[np.int64]:
    """The inverse: int64 [pairs, 3]."""
    parts = np.frombuffer(lzma.decompress(content), np.uint8).reshape(3, 2, -1)
    first, second, counts = (np.ascontiguousarray(part.T).view("<u2").ravel().astype(np.int64) for part in parts)
    return np.stack([np.cumsum(first), second, counts], axis=1)


@cache
def public_neighbours(size: int) -> Neighbours:
    """Those of the embedded vocabulary, learnt from public notes."""
    return Neighbours.of(unpack_pairs(PAIRS_FILE.read_bytes()), size)
