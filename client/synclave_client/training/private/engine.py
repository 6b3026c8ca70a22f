"""Clipped sums of per-patient gradients of one network, whichever way they are computed.

Formal statement. :meth:`PatientGradients.clipped_sum` returns a sum of one contribution per patient: ``w_i G_i`` with
``w_i = min(1, C' / b_i)``, ``b_i`` a bound of the norm of patient i's gradient G_i over *all* its rows, and
``C' = C (1 - 2^-8)`` (:data:`ROUNDING_MARGIN`). Each contribution has L2 norm at most C. A patient whose batch says
that it may have a share s < 1 of the clip norm (:attr:`.batch.PatientBatch.present`) has ``C' = C (s - 2^-8)`` and
contributes at most s C: rounding does not shrink with the share, so the whole reserve is kept. A patient whose loss or
gradient is not finite, and padding, contribute zeros. The others' losses must not depend on the patient: the loop
computes them in tiles of one shape, and the start-up self-test looks for networks that mix rows and for arithmetic in
which a patient's place in the tile decides a last bit (:mod:`.self_test`).

What is proved and what is measured. Write u = 2^-24 (float32), T for a patient's places in a layer, S for a layer's
reach ``sum_t |g_t| |x_t|``, x_t and g_t being the float32 numbers that the passes left.

*The norm* is proved to lose no more than the margin covers, whatever the model. A squared norm from Gram matrices errs
by at most ``(depth + 64) u S^2``, depth being the longest chain of roundings in its inner products (at most 256 numbers
each, put aside and added); formed gradients err by at most ``T u S``; squares below 2^-126 vanish, and what
that can hide is bounded as well (:func:`.norms.norms_of_lengths`). What exceeds half of the margin is added to the
bound (:data:`.book_keeping.COVERED`), so where little cancels, b is the norm to some 10^-6, and where much cancels b is
larger. Beyond that, b is at least ``2^-7 S`` in every layer, so that no weight blows up terms that cancel. Biases,
scales and bare parameters are formed, and their norms are those of the very numbers that are added. Weights below
2^-100 are 0.

*The sum* of those layers is a float32 product over the rows of a tile, put aside in float64 every 16,384 patients: its
rounding is measured (tests/training/clipping/test_sensitivity.py: a millionth of the sum; hostile and aligned patients
together moved it by less than C), not proved. On a GPU, TF32 is refused or switched off: its 11 bits would use the
margin up. There bfloat16 numbers are multiplied as they are, exactly, and added up in float32 (:func:`.norms.product`);
tensor cores cut digits off instead of rounding, so four times the error is reckoned with (:data:`.norms.CUT_OFF`), and
weighted numbers are split into three that bfloat16 holds.

*Symmetric couplings*, the only layer of the code denoiser without a tower, are proved throughout: adding or removing
one patient moves the *returned floating-point numbers* by at most C, whatever finite model, anchor and clip norm the
coordinator chose, for up to 2^18 patients in a step and 2^15 columns. They are computed in float64, u = 2^-53, from
float32 numbers:

1. *The norm.* ``n^2`` is the sum of three terms (:mod:`.coupling`), each at most S^2 in size and made of
   products of float32 numbers, exact in float64. Inner products of D terms and sums over K^2 pairs of levels err by at
   most ``6 (D + K^2 + 4) u S^2 < 2^-34 S^2`` for D <= 2^15, K <= 64. So ``b^2 = computed n^2 + 2^-28 S^2`` exceeds
   n^2, by 2^-28 S^2 at most where nothing cancels; if the levels nearly cancel, b is about 2^-14 S.
2. *The contribution.* ``w n <= C'``, and ``w S <= 2^14 C'``.
3. *The sum.* A product of at most 2^10 rows errs by at most ``2 * 2^10 u sum_i w_i S_i``, both triangles counted: over
   N patients ``2^11 2^-53 2^14 N C = 2^-28 N C``, and adding up the pieces by far less. Twice, with and without the
   patient, that is at most ``2^-9 C`` for N <= 2^18.

With ``clipping = "hooks"`` every gradient is formed in float32 and clipped by its own norm; ``"ghost"`` sums in a
second backward pass in float32, and refuses couplings for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.private.batch import PatientBatch
from synclave_client.training.private.book_keeping import BookKeeping
from synclave_client.training.private.rules import check_network, sum_type, trained_parameters
from synclave_shared.errors import ClippingError
from synclave_shared.models.coupling import SymmetricCoupling
from synclave_shared.models.precision import full_precision

__all__ = ["ROUNDING_MARGIN", "PatientGradients"]

ROUNDING_MARGIN: Final = 2.0**-8
"""Relative reserve under the clip norm for rounding (see above)."""

PATIENTS_IN_A_ROW: Final = 2**14
"""After so many patients a sum is put aside in float64: rounding must not grow with their number."""

MOST_PATIENTS: Final = 2**18
"""In a step: so many the proof for couplings covers."""

MOST_COLUMNS: Final = 2**15
"""Of a coupling: likewise."""

SMALLEST_NORM: Final = 1e-300
"""In place of a norm of 0, which needs no weight but must not divide."""

Batch = TypeVar("Batch", bound=PatientBatch)


class _Pass(Protocol):
    @property
    def losses(self) -> Tensor: ...
    @property
    def squared_bounds(self) -> Tensor: ...
    def add_weighted(self, weights: Tensor, totals: dict[str, Tensor], *, first: bool) -> None: ...


class _Engine(Protocol):
    def run(self, batch: PatientBatch) -> _Pass: ...


class PatientGradients(Generic[Batch]):
    """Clipped sums of per-patient gradients.

    Args:
        network: the network; its trainable parameters, in order, are the coordinates of the sum. It is set to training
            mode, and must have no randomness of its own (dropout).
        loss: ``loss(network, batch)`` -> [B], each patient's own loss; it must not mix patients.
        clip_norm: C, L2 bound of one patient's contribution.
        performance: how to compute it. No setting changes what is promised.

    Raises:
        ClippingError: naming every layer whose gradients cannot be bounded per patient.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[nn.Module, Batch], Tensor],
        clip_norm: float,
        performance: Performance | None = None,
    ) -> None:
        performance = performance or Performance()
        check_network(network)
        if torch.get_float32_matmul_precision() != "highest" or torch.backends.cuda.matmul.allow_tf32:
            raise ClippingError(
                expected='float32 products of full precision (torch.set_float32_matmul_precision("highest"))',
                found=f"precision {torch.get_float32_matmul_precision()}",
                remedy="Leave PyTorch's default: TF32 would round norms and sums beyond the margin.",
            )
        wide = [module for module in network.modules() if isinstance(module, SymmetricCoupling)]
        if any(module.width > MOST_COLUMNS for module in wide):
            raise ClippingError(
                expected=f"couplings of at most {MOST_COLUMNS} columns, which the proof covers",
                found=f"{max(module.width for module in wide)}",
                remedy="Roll codes up, or leave columns out of the schema.",
            )
        network.train()
        self._modules = list(network.modules())
        self._clip_norm = clip_norm
        parameters = trained_parameters(network)
        sizes = [value.numel() for value in parameters.values()]
        first = next(iter(parameters.values()))
        # Kept from step to step: fresh memory of this size costs more than the arithmetic on it.
        self._sum = torch.zeros(sum(sizes), dtype=sum_type(network), device=first.device)
        self._totals = {
            name: part.view(value.shape)
            for (name, value), part in zip(parameters.items(), torch.split(self._sum, sizes), strict=True)
        }
        self._left_out = torch.zeros((), dtype=torch.int64, device=first.device)
        self._engine = _engine(network, loss, performance, _autocast(first.device, performance), self._totals)

    @property
    def left_out(self) -> int:
        """How many times a patient contributed nothing because its gradient was not finite. For the site's log only."""
        return int(self._left_out)

    def clipped_sum(self, batches: Iterable[Batch]) -> Tensor:
        """Sum of clipped gradients over all patients of ``batches``: one step's sum, in pieces that fit into memory.

        Returns:
            [P], float32 or, with couplings or more than :data:`PATIENTS_IN_A_ROW` patients, float64; zeros if there is
            no patient. The same memory every time: valid until the next call.

        Raises:
            ClippingError: if the loss is not one value per patient, or a parameter is used outside its layer.
        """
        many: Tensor | None = None
        in_a_row = patients = 0
        for batch in batches:
            if len(batch) == 0:
                continue
            patients += len(batch)
            if patients > MOST_PATIENTS:
                raise ClippingError(
                    expected=f"at most {MOST_PATIENTS} patients in a step, padding included",
                    found=f"{patients}",
                    remedy="Agree on a smaller selection rate.",
                )
            if in_a_row and in_a_row + len(batch) > PATIENTS_IN_A_ROW:
                many = self._sum.double() if many is None else many.add_(self._sum)
                in_a_row = 0
            self._add(batch, first=in_a_row == 0)
            in_a_row += len(batch)
        if in_a_row == 0:
            return self._sum.zero_()
        return self._sum if many is None else many.add_(self._sum)

    @full_precision()
    def norm_bounds(self, batch: Batch) -> Tensor:
        """The bounds b [B] by which patients are clipped; for the self-test and tests. Depends on patients' data."""
        with _buffers_kept(self._modules):
            return self._engine.run(batch).squared_bounds.sqrt()

    def contribution_norm(self, batch: Batch) -> float:
        """L2 norm of what :meth:`clipped_sum` makes of a batch, found on the sum itself; for the conformance audit.

        Overwrites the memory of the last sum. Depends on patients' data.
        """
        left_out = self._left_out.clone()
        self._add(batch, first=True)
        self._left_out = left_out
        return float(torch.linalg.vector_norm(self._sum))

    @full_precision()
    def _add(self, batch: Batch, first: bool) -> None:
        with _buffers_kept(self._modules):
            found = self._engine.run(batch)
            with torch.no_grad():
                bounds = found.squared_bounds.sqrt()
                finite = torch.isfinite(bounds) & torch.isfinite(found.losses)
                shares = batch.present.double()
                counted = (shares > 0.0) & finite
                limits = (self._clip_norm * (shares - ROUNDING_MARGIN)).to(bounds.dtype)
                weights = torch.where(counted, (limits / bounds.clamp_min(SMALLEST_NORM)).clamp_max(1.0), 0.0)
                self._left_out += ((shares > 0.0) & ~finite).sum()
            found.add_weighted(weights, self._totals, first=first)


@contextmanager
def _buffers_kept(modules: list[nn.Module]) -> Iterator[None]:
    """Refuse a network whose forward pass writes to a buffer, or puts another in its place: data could gather there."""
    before = _buffers(modules)
    yield
    after = _buffers(modules)
    changed = [
        f"{name} of {type(modules[place]).__name__}"
        for place, name in {**before, **after}
        if before.get((place, name)) != after.get((place, name))
    ]
    if changed:
        raise ClippingError(
            expected="buffers that a forward pass leaves as they are",
            found=f"changed: {', '.join(changed)}",
            remedy="A buffer could carry data from patient to patient; use a layer without running statistics.",
        )


def _buffers(modules: list[nn.Module]) -> dict[tuple[int, str], tuple[int, int]]:
    """Identity and version of each buffer, by the module's place and the buffer's name."""
    return {
        (place, name): (id(value), value._version)
        for place, module in enumerate(modules)
        for name, value in module._buffers.items()
        if value is not None
    }


def _autocast(device: torch.device, performance: Performance) -> Callable[[], AbstractContextManager[Any]]:
    low = performance.precision == "bfloat16"
    return partial(torch.autocast, device_type=device.type, dtype=torch.bfloat16, enabled=low, cache_enabled=False)


def _engine(
    network: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    performance: Performance,
    autocast: Callable[[], AbstractContextManager[Any]],
    totals: dict[str, Tensor],
) -> _Engine:
    if performance.clipping == "book-keeping":
        return BookKeeping(network, loss, autocast, totals)
    # Imported here: Opacus takes a second that the default way does not need.
    from synclave_client.training.private.opacus_engines import Ghost, Hooks

    return (Ghost if performance.clipping == "ghost" else Hooks)(network, loss, autocast)
