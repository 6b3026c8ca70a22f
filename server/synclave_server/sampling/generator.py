"""A trained model on one device: patient numbers and labels in, rows out.

Every patient has random numbers of its own (:mod:`synclave_server.sampling.philox`), and the network is always called
on tiles of one shape, the last one padded, by one thread, because matrix products of another shape or split over
threads may round differently. So a row depends on its patient's number and label and on the kind of device alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_server.sampling.philox import PatientRandomness
from synclave_server.sampling.request import Precision, SampleRequest
from synclave_shared.diffusion.calibration import calibration_offsets
from synclave_shared.diffusion.discrete import REVEALERS, Units
from synclave_shared.diffusion.drawing import draw_rows
from synclave_shared.diffusion.guidance import classifier_shift, guided_logits
from synclave_shared.diffusion.preconditioning import LOGIT_BOUND, corrected_logits, posterior_mean, prior_logits
from synclave_shared.diffusion.samplers import SAMPLERS
from synclave_shared.diffusion.schedules import karras_sigmas
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.coupling import SymmetricCoupling
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.plan import ModelSpec

__all__ = ["PatientGenerator", "tile_patients"]

CPU_TILE: Final = 256
"""Patients per call of the network on a CPU: a tile's tensors stay in the cache of one core."""

GPU_TILE_VALUES: Final = 2**24
"""Values per tensor of a tile elsewhere: fills a large GPU, and a tile's tensors take 64 MiB each."""

TRIAL_PATIENTS: Final = 2048
"""Patients of each label value with whom prevalences are calibrated before the first one is drawn."""

TRIAL_COLUMNS: Final = 1024
"""Columns of the trial whose noise is made at once; a multiple of 4."""

TRIAL_STREAM: Final = 0x5EED << 40
"""Keeps the trial's random numbers apart from those of the patients that are asked for."""

START, DRAW, WITHIN_BIN, FIRST_STEP = 0, 1, 3, 16
"""Purposes of a patient's random numbers; 2 is :data:`synclave_server.sampling.labels.LABEL_ORDER`."""

log = logging.getLogger(__name__)


def tile_patients(kind: str, width: int) -> int:
    """Patients per call of the network. Part of the definition of the output: do not change it lightly.

    Args:
        kind: type of device, such as ``cpu`` or ``cuda``.
        width: number of columns D.
    """
    if kind == "cpu":
        return CPU_TILE
    return int(min(8192, max(CPU_TILE, 1 << (GPU_TILE_VALUES // width).bit_length() - 1)))


class _Coupling(nn.Module):
    """A symmetric coupling that will not be trained again: its matrix is laid out once and not in every call."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.width = len(matrix)
        self.register_buffer("matrix", matrix)

    def forward(self, values: Tensor) -> Tensor:
        return values @ self.matrix


class PatientGenerator:
    """A trained model on one device.

    Args:
        spec: the model's numbers.
        layout: columns and label values.
        model: parameters, float32 [P].
        anchor: logits, float32 [L, D], or None.
        device: where to compute. On CUDA the first tile compiles the model, if that works.
        precision: of the network.
        columns: names of the columns, for requests that fix some of them.
    """

    def __init__(
        self,
        spec: ModelSpec,
        layout: CodeLayout,
        model: NDArray[np.float32],
        anchor: NDArray[np.float32] | None,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        columns: Sequence[str] = (),
    ) -> None:
        self._number_of = {column: number for number, column in enumerate(columns)}
        self._spec, self._layout, self._device = spec, layout, torch.device(device)
        self._reduced = precision == "bfloat16"
        self.tile = tile_patients(self._device.type, layout.width)
        network = build_code_denoiser(layout, spec).eval()
        load_parameter_vector(network, model)
        self._network: nn.Module = network.to(self._device)
        with torch.inference_mode():
            for name, module in list(network.named_modules()):
                if isinstance(module, SymmetricCoupling):
                    matrix = module.matrix().to(torch.bfloat16 if self._reduced else torch.float32)
                    self._network.set_submodule(name, _Coupling(matrix))
            logits = np.zeros((layout.label_values, layout.width), np.float32) if anchor is None else anchor
            self._prior = prior_logits(torch.from_numpy(np.array(logits)), layout).to(self._device)
            self._prior_mean = posterior_mean(self._prior, layout)
        self._targets = None if anchor is None else self._prior_mean[:-1]
        self._units = Units.of(layout, self._device)
        self._offsets: dict[str, Tensor] = {}
        self._posterior, self._normal, self._draw = self._guided, self._normal_rows, self._drawn_rows
        self._compile_at_first = self._device.type == "cuda"
        self._preparing = threading.Lock()

    def features(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Draw patients.

        Args:
            request: sampler, steps, seed and guidance; its precision is for whoever makes the generator.
            patients: [n], patient numbers.
            labels: [n], their label numbers.

        Returns:
            uint8 [n, D]; each row depends on its own number and label alone.
        """
        rows = np.empty((len(patients), self._layout.width), np.uint8)
        for start in range(0, len(patients), self.tile):
            part = slice(start, start + self.tile)
            size = len(patients[part])
            padding = (0, self.tile - size)
            numbers = np.pad(patients[part], padding, mode="edge")
            given = np.pad(labels[part], padding, mode="edge")
            with self._preparing:
                if self._compile_at_first:
                    self._compile(request, numbers, given)
                offsets = self._calibrated(request)
            rows[part] = self._tile(request, numbers, given, offsets)[:size].cpu().numpy()
        return rows

    @torch.inference_mode()
    def _tile(
        self, request: SampleRequest, numbers: NDArray[np.int64], labels: NDArray[np.int64], offsets: Tensor
    ) -> Tensor:
        randomness = PatientRandomness(int(request.seed))
        patients = torch.from_numpy(numbers).to(self._device)
        given = torch.from_numpy(labels).to(self._device)
        if request.sampler in REVEALERS:
            rows = self._revealed(request, randomness, patients, given)
        else:
            logits = self._last_logits(request, randomness, patients, given) + offsets[given]
            rows = self._draw(randomness, patients, posterior_mean(logits, self._layout))
        fixed, values = self._fixed(request)
        return rows if fixed is None else torch.where(fixed, values.to(torch.uint8), rows)

    def _fixed(self, request: SampleRequest) -> tuple[Tensor | None, Tensor]:
        """Which columns the request fixes, bool [D] or None, and to what, float32 [D]."""
        values = torch.zeros(self._layout.width, device=self._device)
        if not request.given:
            return None, values
        numbers = torch.tensor([self._number_of[name] for name in request.given], device=self._device)
        values[numbers] = torch.tensor([float(value) for value in request.given.values()], device=self._device)
        return torch.zeros_like(values, dtype=torch.bool).index_fill(0, numbers, True), values

    def _last_logits(
        self,
        request: SampleRequest,
        randomness: PatientRandomness,
        patients: Tensor,
        labels: Tensor,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Posterior logits [n, D] at the last noise level, from given or from the patients' own noise at the first."""
        weights = float(request.guidance), float(request.classifier_guidance)
        fixed, values = self._fixed(request)

        def normal(purpose: int) -> Tensor:
            return self._normal(randomness, patients, torch.tensor(purpose, device=self._device))

        def logits(x: Tensor, sigma: float | Tensor) -> Tensor:
            # A sampler asks for rows of one level, x [n, D], or of K levels at once, x [n, K, D] and sigma [K, 1].
            levels = torch.as_tensor(sigma, dtype=torch.float32, device=self._device).reshape(1, -1)
            rows = x if x.ndim == 3 else x[:, None]
            known = None
            if fixed is not None:
                rows, known = torch.where(fixed, values, rows), fixed.expand(rows.shape)
            found = self._posterior(rows, levels.expand(rows.shape[:2]), labels, weights, known)
            if fixed is not None:
                found = torch.where(fixed, (2.0 * values - 1.0) * LOGIT_BOUND, found)
            return found.reshape(x.shape)

        def probabilities(x: Tensor, sigma: float | Tensor) -> Tensor:
            return posterior_mean(logits(x, sigma), self._layout)

        sigmas = karras_sigmas(float(self._spec.sigma_min), float(self._spec.sigma_max), request.steps)
        start = self._prior_mean[labels] + float(sigmas[0]) * (normal(START) if noise is None else noise)
        end = SAMPLERS[request.sampler](probabilities, start, sigmas, noise=lambda step: normal(FIRST_STEP + step))
        return logits(end, float(sigmas[-1]))

    def _revealed(
        self, request: SampleRequest, randomness: PatientRandomness, patients: Tensor, labels: Tensor
    ) -> Tensor:
        """Rows uint8 [n, D] of masked diffusion."""
        nothing = torch.full((len(patients), 1), torch.inf, device=self._device)
        weights = float(request.guidance), float(request.classifier_guidance)

        fixed, given = self._fixed(request)

        def predict(values: Tensor, known: Tensor) -> Tensor:
            if fixed is not None:
                values, known = torch.where(fixed, given, values), known | fixed
            seen = self._posterior(values[:, None], nothing, labels, weights, known[:, None])
            return posterior_mean(seen[:, 0], self._layout)

        def uniform(purpose: int) -> Tensor:
            return randomness.uniform(patients, self._layout.width, FIRST_STEP + purpose).float()

        values, _ = REVEALERS[request.sampler](predict, self._units, request.steps, uniform=uniform)
        return values.to(torch.uint8)

    @torch.inference_mode()
    def _calibrated(self, request: SampleRequest) -> Tensor:
        """Offsets [L, D] of a request, from trial patients of a stream of their own; zeros where nothing is known."""
        key = request.digest
        if key not in self._offsets:
            offsets = torch.zeros(self._layout.label_values, self._layout.width, device=self._device)
            if request.calibrated and self._targets is not None and request.sampler in SAMPLERS:
                randomness = PatientRandomness(int(request.seed) ^ TRIAL_STREAM)
                for label, count in enumerate(request.label_counts.values()):
                    if count:
                        offsets[label] = self._trial_offsets(request, randomness, label)
            self._offsets = {key: offsets}
        return self._offsets[key]

    def _trial_offsets(self, request: SampleRequest, randomness: PatientRandomness, label: int) -> Tensor:
        assert self._targets is not None  # noqa: S101 - the caller looked
        trial = torch.arange(TRIAL_PATIENTS, device=self._device)
        width = self._layout.width
        noise = torch.empty(TRIAL_PATIENTS, width, device=self._device)
        for first in range(0, width, TRIAL_COLUMNS):
            uniform = randomness.uniform(trial, min(TRIAL_COLUMNS, width - first), START, first)
            noise[:, first : first + TRIAL_COLUMNS] = _stratified_normal(uniform)
        # The same trial whatever the tile: what is missing in the last one is filled with the first patients.
        padded = torch.arange(-(-TRIAL_PATIENTS // self.tile) * self.tile, device=self._device) % TRIAL_PATIENTS
        labels = torch.full((self.tile,), label, device=self._device)
        logits = torch.empty(len(padded), width, device=self._device)
        for part, found in zip(torch.split(padded, self.tile), torch.split(logits, self.tile), strict=True):
            found.copy_(self._last_logits(request, randomness, part, labels, noise[part]))
        return calibration_offsets(logits[:TRIAL_PATIENTS], self._targets[label], self._layout)

    def _guided(
        self, x: Tensor, levels: Tensor, labels: Tensor, weights: tuple[float, float], known: Tensor | None
    ) -> Tensor:
        """Posterior logits [n, K, D] of noisy rows; ``levels`` [n, K], ``labels`` [n], weights of both guidances."""
        logits = self._logits(x, levels, labels, known)
        free, by_classifier = weights
        if free:
            hidden = torch.full_like(labels, self._layout.label_values)
            logits = guided_logits(logits, self._logits(x, levels, hidden, known), free)
        if by_classifier:
            shift = classifier_shift(x, levels, labels, self._prior[:-1], self._layout, known)
            logits = logits + by_classifier * shift
        return logits

    def _logits(self, x: Tensor, levels: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
        def correct(surprise: Tensor, visible: Tensor) -> Tensor:
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._reduced):
                correction: Tensor = self._network(surprise, visible, labels, self._prior)
            return correction.float()

        prior, mean = self._prior[labels][:, None], self._prior_mean[labels][:, None]
        return corrected_logits(correct, x, levels, prior, mean, self._layout, known)

    def _normal_rows(self, randomness: PatientRandomness, patients: Tensor, purpose: Tensor) -> Tensor:
        return randomness.normal(patients, self._layout.width, purpose)

    def _drawn_rows(self, randomness: PatientRandomness, patients: Tensor, probabilities: Tensor) -> Tensor:
        return draw_rows(probabilities, randomness.uniform(patients, self._layout.width, DRAW), self._layout)

    def _compile(self, request: SampleRequest, numbers: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        """Replace each of the tile's steps by a compiled one if that works for this tile; all others have its shape."""
        failed: dict[str, Exception] = {}
        for name in ("_posterior", "_normal", "_draw"):
            plain = getattr(self, name)
            try:
                setattr(self, name, torch.compile(plain, dynamic=False))
                self._tile(request, numbers, labels, torch.zeros_like(self._prior_mean[:-1]))
            except (RuntimeError, ImportError, OSError) as error:
                setattr(self, name, plain)
                failed[name.strip("_")] = error
        if failed:
            first = next(iter(failed.values()))
            reason = (str(first).splitlines() or [type(first).__name__])[0]
            log.warning("Sampling on %s without torch.compile, which is slower: %s", self._device, reason)
            log.debug("Not compiled: %s", failed)
        self._compile_at_first = False


def _stratified_normal(uniform: Tensor) -> Tensor:
    """Normal numbers [n, D] of which each column has one in every n-th of the distribution (McKay et al. 1979).

    A column's value hangs on its own noise above all: so stratified, few patients show its prevalence well.
    """
    # Sorted where a column's numbers lie side by side, which is several times faster.
    order = uniform.T.contiguous().argsort(dim=1)
    sorted_normal = torch.special.ndtri((torch.arange(len(uniform), device=uniform.device) + 0.5) / len(uniform))
    return torch.empty(order.shape, device=uniform.device).scatter_(1, order, sorted_normal.expand_as(order)).T
