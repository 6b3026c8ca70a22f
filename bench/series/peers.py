"""Generators of series without guidance, to stand beside the arms: small re-implementations, marked as such.

They get all sites' patients in one table, without noise and without a federation, know the label, and train for a
limited time. Each is measured by the same report on the same held-out patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.series.ddpm import fit_ddpm
from bench.series.rows import Clock, Fitted, PeerRows, from_rows, to_rows
from bench.series.timegan import fit_timegan
from bench.series.timevae import fit_timevae
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["PEERS", "FittedPeer", "fit_peer"]

PEERS: Final[Mapping[str, tuple[str, Callable[[PeerRows, Clock, int], Fitted]]]] = {
    "timevae": ("TimeVAE, re-implemented", fit_timevae),
    "timegan": ("TimeGAN, re-implemented", fit_timegan),
    "ddpm": ("DDPM of TarDiff without guidance, re-implemented", fit_ddpm),
}
"""Name -> title and how it is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPeer:
    """A trained peer that draws patients of a schema.

    Attributes:
        schema: theirs.
        rows: what it was trained on.
        fitted: the peer.
        seed: of what is drawn.
    """

    schema: SeriesSchema
    rows: PeerRows
    fitted: Fitted
    seed: int

    def draw(self, labels: NDArray[np.int64]) -> SeriesDataset:
        """A patient for every label [N]."""
        one_hot = torch.from_numpy(np.eye(len(self.schema.label.values), dtype=np.float32)[labels])
        values, flags = self.fitted.draw(one_hot, torch.Generator().manual_seed(self.seed))
        return from_rows(self.schema, self.rows, values, flags, labels)


def fit_peer(name: str, schema: SeriesSchema, train: SeriesDataset, *, limit_s: float, seed: int) -> FittedPeer:
    """Train a peer for at most ``limit_s`` seconds of a core."""
    rows = to_rows(train, len(schema.label.values))
    return FittedPeer(schema=schema, rows=rows, fitted=PEERS[name][1](rows, Clock(limit_s), seed), seed=seed)
