"""Time series from a trained model on one device; draws like :class:`~.generator.PatientGenerator`.

Sex, age and the other fields are drawn from the anchor under the patient's label, and so is the length of the stay; the
network draws the series given them. Scores and latent gaps are drawn from the posterior at the last noise level.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synclave_server.sampling.generator import FIRST_STEP, START, TRIAL_PATIENTS, TRIAL_STREAM
from synclave_server.sampling.philox import PatientRandomness
from synclave_server.sampling.request import Precision, SampleRequest, allot
from synclave_server.sampling.series_rows import pack_series, row_bytes, unpack_series
from synclave_server.sampling.series_target import PlacedTarget, SeriesTarget
from synclave_shared.diffusion.drawing import draw_rows
from synclave_shared.diffusion.preconditioning import posterior_mean
from synclave_shared.diffusion.samplers import SAMPLERS
from synclave_shared.diffusion.schedules import karras_sigmas
from synclave_shared.diffusion.series import Belief, SeriesPrior, Stays, series_posterior, series_start
from synclave_shared.model_spec import SeriesSpec
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.standard import StandardRows

__all__ = ["SeriesGenerator"]

CPU_TILE: Final = 64
"""Patients per call of the network on a CPU."""

GPU_TILE: Final = 1024
"""Elsewhere."""

CONTEXT, LAST = 4, 5
"""Purposes of a patient's random numbers, beside those of :mod:`~.generator` and 2, the order of labels."""

SCHEDULE_EXPONENT: Final = 5.0
"""rho of the noise levels: a series is decided over a wider range of them than codes are."""


class SeriesGenerator:
    """A trained model on one device.

    Args:
        spec: the model's numbers.
        layout: steps, channels, context and label values.
        model: parameters, float32 [P].
        anchor: of the marginals.
        device: where to compute.
        precision: of the network.
        target: the clinical model that patients are to be useful to; None: nobody's.
    """

    def __init__(
        self,
        spec: SeriesSpec,
        layout: SeriesLayout,
        model: NDArray[np.float32],
        anchor: SeriesAnchor,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        target: SeriesTarget | None = None,
    ) -> None:
        self._spec, self._layout, self._device = spec, layout, torch.device(device)
        self._reduced = precision == "bfloat16"
        self.tile = CPU_TILE if self._device.type == "cpu" else GPU_TILE
        network = build_series_denoiser(layout, spec).eval()
        load_parameter_vector(network, model)
        self._network = network.to(self._device)
        self._prior = SeriesPrior.of(anchor, self._device)
        self._target = target
        self._placed: dict[str, PlacedTarget] = {}
        self._placing = threading.Lock()
        self._context = posterior_mean(torch.from_numpy(anchor.context), layout.context).to(self._device)
        self._anchor = anchor

    def features(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Draw patients.

        Args:
            request: sampler, steps, seed and guidance.
            patients: [n], patient numbers.
            labels: [n], their label numbers.

        Returns:
            uint8 [n, row_bytes], of :mod:`~.series_rows`; each row depends on its own number and label alone.
        """
        return self._rows(request, patients, labels, self._target_of(request))

    def _rows(
        self,
        request: SampleRequest,
        patients: NDArray[np.int64],
        labels: NDArray[np.int64],
        target: PlacedTarget | None,
    ) -> NDArray[np.uint8]:
        rows = np.empty((len(patients), row_bytes(self._layout)), np.uint8)
        for start in range(0, len(patients), self.tile):
            part = slice(start, start + self.tile)
            size = len(patients[part])
            # Tiles of one shape: a matrix product of another one may round a patient's numbers differently.
            padding = (0, self.tile - size)
            numbers = torch.from_numpy(np.pad(patients[part], padding, mode="edge")).to(self._device)
            given = torch.from_numpy(np.pad(labels[part], padding, mode="edge")).to(self._device)
            rows[part] = self._tile(request, numbers, given, target)[:size]
        return rows

    def _target_of(self, request: SampleRequest) -> PlacedTarget | None:
        """What guides a request, if anything does; made once, with unguided trial patients if it needs some."""
        if self._target is None or not request.target_strength:
            return None
        with self._placing:
            if request.digest not in self._placed:
                seen = self._trial(request, self._target.label_shares) if request.target_curvature else None
                self._placed = {request.digest: self._target.on(self._layout, self._device, seen)}
            return self._placed[request.digest]

    def _trial(self, request: SampleRequest, label_shares: NDArray[np.float32]) -> StandardRows:
        """Unguided patients of a stream of their own, with the label values' shares among real ones."""
        numbers = np.arange(TRIAL_PATIENTS)
        labels = np.repeat(np.arange(len(label_shares)), allot(TRIAL_PATIENTS, label_shares))
        alone = request.model_copy(update={"seed": str(int(request.seed) ^ TRIAL_STREAM)})
        drawn = self._rows(alone, numbers, labels, None)
        patients = unpack_series(drawn, labels, [str(number) for number in numbers], self._layout)
        return StandardRows.of(patients, numbers, self._anchor, self._layout)

    @torch.no_grad()
    def _tile(
        self, request: SampleRequest, patients: Tensor, labels: Tensor, target: PlacedTarget | None
    ) -> NDArray[np.uint8]:
        layout, randomness = self._layout, PatientRandomness(int(request.seed))
        shape = (len(patients), layout.steps, 2 * layout.channels)
        columns = randomness.uniform(patients, layout.context.width, CONTEXT)
        context = draw_rows(self._context[labels], columns, layout.context)
        lengths = context[:, layout.fields :].argmax(dim=1) + 1
        inside = torch.arange(layout.steps, device=self._device) < lengths[:, None]
        stays = self._prior.stays(inside)

        def normal(purpose: int, width: int = shape[1] * shape[2]) -> Tensor:
            return randomness.normal(patients, width, purpose)

        def believed(x: Tensor, sigma: float | Tensor) -> Belief:
            levels = torch.as_tensor(sigma, dtype=torch.float32, device=self._device).reshape(1, -1)
            rows = x.reshape(len(patients), -1, *shape[1:])
            levels = levels.expand(rows.shape[:2])
            found = self._guided(rows, levels, labels, context.float(), stays, float(request.guidance))
            return found if target is None else target.pushed(found, levels, labels, context.float(), inside, request)

        def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
            return believed(x, sigma).row.reshape(x.shape)

        sigmas = karras_sigmas(
            float(self._spec.sigma_min), float(self._spec.sigma_max), request.steps, SCHEDULE_EXPONENT
        )
        start = series_start(
            normal(START).reshape(shape), float(sigmas[0]), labels, context.float(), self._prior, stays
        )
        end = SAMPLERS[request.sampler](denoise, start.flatten(1), sigmas, noise=lambda step: normal(FIRST_STEP + step))
        last = believed(end, float(sigmas[-1]))
        # Scores, and the latent gaps above whose threshold a value is measured.
        values, gaps = (last.row[:, 0] + last.spread[:, 0] * normal(LAST).reshape(shape)).chunk(2, dim=-1)
        observed = (gaps > 0.0) & inside[:, :, None]
        scaled = self._anchor.values(values.cpu().numpy())
        return pack_series(context.cpu().numpy(), observed.cpu().numpy(), scaled)

    def _guided(self, x: Tensor, sigma: Tensor, labels: Tensor, context: Tensor, stays: Stays, weight: float) -> Belief:
        """Classifier-free guidance (Ho and Salimans 2022): away from what is believed without the label."""
        found = series_posterior(self._correct, x, sigma, labels, context, self._prior, stays)
        if not weight:
            return found
        hidden = torch.full_like(labels, self._layout.label_values)
        free = series_posterior(self._correct, x, sigma, hidden, context, self._prior, stays)
        return Belief(row=found.row + weight * (found.row - free.row), spread=found.spread)

    def _correct(self, *given: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._reduced):
            correction: Tensor = self._network(*given)
        return correction.float()
