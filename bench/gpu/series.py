"""How fast stays are drawn with and without guidance by a clinical model.

Random weights (seed 0) and the anchor of ``examples/sepsis`` without noise: 34 channels, 24 steps. The time is that of
the generator's own call, rows as bytes in the memory of the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.gpu.limits import seconds_of
from bench.series.fits import DEEP, UNBOUNDED
from bench.series.folder import load_folder
from synclave_server.sampling.request import SERIES_CORRUPTION, resolve_request
from synclave_server.sampling.series import SeriesGenerator
from synclave_server.sampling.series_target import SeriesTarget
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import anchor_from_moments, contributions
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import InfluenceSpec, SeriesSpec

__all__ = ["Series"]

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "sepsis"
MODELS: Final = {"U-Net of width 96": DEEP, "couplings alone": SeriesSpec()}
GUIDES: Final = (None, "logistic", "tcn")
TILES: Final = 4


class Series:
    """Both models."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.quick = device, quick
        data = load_folder(EXAMPLE)
        self.values = data.schema.label.values
        self.layout = SeriesLayout.of(data.schema)
        self.anchor, shares = anchor_from_moments(contributions(data.train, self.layout, UNBOUNDED), self.layout, 0.0)
        self.shares = shares.astype(np.float32)

    def target(self, name: str) -> SeriesTarget:
        spec = InfluenceSpec(architecture=name)  # type: ignore[arg-type]
        vector = torch.from_numpy(parameter_vector(build_series_classifier(self.layout, spec)))
        return SeriesTarget(
            spec=spec,
            parameters=vector,
            guidance=vector + 0.1,
            noise_std=0.0,
            clip_norm=float("inf"),
            patients=1000,
            label_shares=self.shares,
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        for title, spec in MODELS.items():
            torch.manual_seed(0)
            parameters = parameter_vector(build_series_denoiser(self.layout, spec))
            for precision in ("bfloat16", "float32"):
                for guide in GUIDES:
                    generator = SeriesGenerator(
                        spec,
                        self.layout,
                        parameters,
                        self.anchor,
                        self.device,
                        precision,  # type: ignore[arg-type]
                        target=None if guide is None else self.target(guide),
                    )
                    patients = (1 if self.quick else TILES) * generator.tile
                    request = resolve_request(
                        patients=patients,
                        label_counts=None,
                        label_values=self.values,
                        label_shares=self.shares,
                        corruption=SERIES_CORRUPTION,
                        anchored=False,
                        sampler=None,
                        steps=None,
                        seed=0,
                        guidance=Decimal(0),
                        precision=precision,
                        target=None if guide is None else "0" * 64,
                        target_strength=Decimal("0.05"),
                    )
                    numbers = np.arange(patients)
                    labels = numbers % len(self.values)
                    row = {"model": title, "precision": precision, "guide": guide, "calls": request.network_calls}
                    try:
                        seconds = seconds_of(
                            lambda g=generator, r=request, n=numbers, o=labels: g.features(r, n, o),  # type: ignore[misc]
                            self.device,
                            1 if self.quick else 3,
                        )
                        yield {**row, "patients_per_s": patients / seconds}
                    except RuntimeError as error:
                        yield {**row, "failed": str(error).splitlines()[0]}
