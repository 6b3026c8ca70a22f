"""From a snapshot to a Parquet file of synthetic patients.

Every patient has random numbers of its own (:mod:`synclave_server.sampling.philox`), and the network is always called
on tiles of one shape, the last one padded, because matrix products of another shape may round differently. So the file
has the same bytes whatever the batch size and however many devices of one kind share the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from synclave_server.sampling.philox import PatientRandomness
from synclave_server.sampling.request import DEFAULT_SAMPLER, DEFAULT_STEPS, SampleRequest, resolve_request
from synclave_server.snapshots import read_snapshot
from synclave_shared.canonical import FrozenModel, canonical_bytes, sha256_hex
from synclave_shared.data.patient_table import to_table
from synclave_shared.data.schema import Schema
from synclave_shared.diffusion.guidance import guided_logits
from synclave_shared.diffusion.preconditioning import posterior_logits, posterior_mean, prior_logits
from synclave_shared.diffusion.samplers import SAMPLERS
from synclave_shared.diffusion.schedules import karras_sigmas
from synclave_shared.errors import ConfigurationError, SnapshotError
from synclave_shared.models.codes import build_code_denoiser, load_parameter_vector
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import ModelSpec

__all__ = ["PatientGenerator", "Provenance", "sample"]

TILE_PATIENTS: Final = 256
"""Patients per call of the network. Part of the definition of the output: do not change it lightly."""

ROW_GROUP_PATIENTS: Final = 16_384
"""Patients per Parquet row group: bounds memory, and is part of the file's bytes."""

_START, _DRAW, _LABEL_ORDER, _FIRST_STEP = 0, 1, 2, 16
"""Purposes of a patient's random numbers."""


class Provenance(FrozenModel):
    """Where synthetic patients come from; written into the Parquet file and beside it.

    Attributes:
        snapshot_digest: SHA-256 of the model's tensors, the one that the ledger names.
        plan_digest, schema_digest: what the model was trained under.
        round: the training round of the snapshot.
        ledger_index: index of the ledger's entry for the snapshot.
        request: what was asked for.
        request_digest: SHA-256 of the request's canonical JSON.
        patients: number of synthetic patients.
        file_digest: SHA-256 of the Parquet file; only beside it.
    """

    snapshot_digest: str
    plan_digest: str
    schema_digest: str
    round: int
    ledger_index: int
    request: SampleRequest
    request_digest: str
    patients: int
    file_digest: str = ""


class PatientGenerator:
    """A trained model on one device.

    Args:
        spec: the model's numbers.
        layout: columns and label values.
        model: parameters, float32 [P].
        anchor: logits, float32 [L, D], or None.
        device: where to compute.
    """

    def __init__(
        self,
        spec: ModelSpec,
        layout: CodeLayout,
        model: NDArray[np.float32],
        anchor: NDArray[np.float32] | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._spec, self._layout, self._device = spec, layout, device
        self._network = build_code_denoiser(layout).eval()
        load_parameter_vector(self._network, model)
        self._network.to(device)
        logits = np.zeros((layout.label_values, layout.width), np.float32) if anchor is None else anchor
        self._prior = prior_logits(torch.from_numpy(np.array(logits)), layout).to(device)

    def features(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Draw patients.

        Args:
            request: sampler, steps, seed and guidance.
            patients: [n], patient numbers.
            labels: [n], their label numbers.

        Returns:
            uint8 [n, D]; each row depends on its own number and label alone.
        """
        rows = np.empty((len(patients), self._layout.width), np.uint8)
        for start in range(0, len(patients), TILE_PATIENTS):
            part = slice(start, start + TILE_PATIENTS)
            missing = TILE_PATIENTS - len(patients[part])
            tile = np.pad(patients[part], (0, missing), mode="edge")
            rows[part] = self._tile(request, tile, np.pad(labels[part], (0, missing), mode="edge"))[
                : TILE_PATIENTS - missing
            ]
        return rows

    @torch.inference_mode()
    def _tile(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        randomness = PatientRandomness(int(request.seed))
        width, layout = self._layout.width, self._layout
        given = torch.from_numpy(labels).to(self._device)
        hidden = torch.full_like(given, layout.label_values)
        weight = float(request.guidance)

        def normal(purpose: int) -> torch.Tensor:
            return torch.from_numpy(randomness.normal(patients, width, purpose)).to(self._device)

        def logits(x: torch.Tensor, sigma: float | torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(len(x), -1, width)
            levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(rows.shape[:2])
            return posterior_logits(self._network, rows, levels, label, self._prior, layout).reshape(x.shape)

        def probabilities(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
            found = logits(x, sigma, given)
            if weight:
                found = guided_logits(found, logits(x, sigma, hidden), weight)
            return posterior_mean(found, layout)

        sigmas = karras_sigmas(float(self._spec.sigma_min), float(self._spec.sigma_max), request.steps)
        start = posterior_mean(self._prior[given], layout) + float(sigmas[0]) * normal(_START)
        end = SAMPLERS[request.sampler](probabilities, start, sigmas, noise=lambda step: normal(_FIRST_STEP + step))
        drawn_with = probabilities(end, float(sigmas[-1])).double().cpu().numpy()
        return draw_rows(drawn_with, randomness.uniform(patients, width, _DRAW), layout)


def draw_rows(
    probabilities: NDArray[np.float64], uniform: NDArray[np.float64], layout: CodeLayout
) -> NDArray[np.uint8]:
    """Draw clean rows from posteriors: a coin per code, one value per one-hot group.

    Args:
        probabilities: [n, D].
        uniform: [n, D], numbers inside (0, 1); a one-hot group uses its first.
        layout: columns.

    Returns:
        uint8 [n, D].
    """
    rows = (uniform < probabilities).astype(np.uint8)
    for start, stop in layout.categories:
        cumulative = np.cumsum(probabilities[:, start:stop], axis=1)
        threshold = uniform[:, start : start + 1] * cumulative[:, -1:]
        chosen = np.minimum((cumulative <= threshold).sum(axis=1), stop - start - 1)
        rows[:, start:stop] = 0
        rows[np.arange(len(rows)), start + chosen] = 1
    return rows


def assign_labels(request: SampleRequest) -> NDArray[np.int64]:
    """Label number of each patient [patients]: exact counts, in an order shuffled by the seed."""
    counts = list(request.label_counts.values())
    patients = np.arange(request.patients)
    order = np.argsort(PatientRandomness(int(request.seed)).uniform(patients, 1, _LABEL_ORDER)[:, 0], kind="stable")
    labels = np.empty(request.patients, np.int64)
    labels[order] = np.repeat(np.arange(len(counts)), counts)
    return labels


def sample(
    snapshot_dir: Path,
    patients: int,
    *,
    out: Path,
    label_counts: Mapping[str, int] | None = None,
    sampler: str = DEFAULT_SAMPLER,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    guidance: Decimal = Decimal(0),
    batch_size: int = 4096,
    devices: Sequence[str] = ("cpu",),
    progress: Callable[[int, int], None] | None = None,
) -> Provenance:
    """Draw synthetic patients and write them as a wide patient table, with ``OUT.provenance.json`` beside it.

    Args:
        snapshot_dir: a snapshot folder.
        patients: how many.
        out: the Parquet file; it is there complete afterwards, or not at all.
        label_counts: exact counts by label value; None: by the privately measured shares.
        sampler: ``ddim``, ``heun`` or ``ancestral``.
        steps: noise levels visited.
        seed: fixes all randomness.
        guidance: weight of classifier-free guidance.
        batch_size: patients handed to a device at once; changes memory and progress only.
        devices: torch devices that share the work.
        progress: called with (patients done, patients in all).

    Returns:
        The provenance, the file's digest included.

    Raises:
        ConfigurationError: if the request cannot be fulfilled.
        SnapshotError: if the snapshot is damaged.
    """
    snapshot = read_snapshot(snapshot_dir)
    schema = Schema.from_json_bytes(snapshot.schema)
    layout = CodeLayout.of(schema)
    request = resolve_request(
        patients=patients,
        label_counts=label_counts,
        label_values=schema.label.values,
        label_shares=snapshot.label_shares,
        sampler=sampler,
        steps=steps,
        seed=seed,
        guidance=guidance,
    )
    if batch_size < 1 or not devices:
        raise ConfigurationError(
            expected="a batch of at least one patient and at least one device",
            found=f"batch {batch_size}, {len(devices)} devices",
            remedy="Correct the request.",
        )
    if snapshot.anchor is not None and snapshot.anchor.shape != (layout.label_values, layout.width):
        raise SnapshotError(
            expected=f"an anchor of shape {(layout.label_values, layout.width)}",
            found=str(snapshot.anchor.shape),
            remedy="Use the snapshot with the schema it was trained with.",
        )
    provenance = Provenance(
        snapshot_digest=snapshot.record.tensors_digest,
        plan_digest=snapshot.record.plan_digest,
        schema_digest=snapshot.record.schema_digest,
        round=snapshot.record.round,
        ledger_index=snapshot.record.ledger_index,
        request=request,
        request_digest=request.digest,
        patients=request.patients,
    )
    try:
        generators = [
            PatientGenerator(snapshot.plan.model, layout, snapshot.model, snapshot.anchor, device) for device in devices
        ]
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ConfigurationError(
            expected="devices that torch can use", found=str(error).splitlines()[0], remedy="Use --device cpu."
        ) from None
    notes = {
        "synclave.schema": schema.name,
        "synclave.schema_digest": schema.digest,
        "synclave.provenance": canonical_bytes(provenance).decode(),
    }
    with _whole_file(out) as unfinished:
        _write(unfinished, schema, generators, request, batch_size, notes, progress)
        digest = sha256_hex(unfinished.read_bytes())
        complete = provenance.model_copy(update={"file_digest": digest})
        with _whole_file(out.with_name(out.name + ".provenance.json")) as sidecar:
            sidecar.write_bytes(canonical_bytes(complete))
    return complete


def _write(
    path: Path,
    schema: Schema,
    generators: Sequence[PatientGenerator],
    request: SampleRequest,
    batch_size: int,
    notes: Mapping[str, str],
    progress: Callable[[int, int], None] | None,
) -> None:
    labels = assign_labels(request)
    numbers = np.arange(request.patients)
    columns = to_table(schema, np.zeros((0, schema.width), np.uint8), labels[:0], []).schema.with_metadata(dict(notes))
    batch = -(-batch_size // TILE_PATIENTS) * TILE_PATIENTS
    done = 0
    # One thread per device: torch releases the interpreter lock while a device computes.
    with (
        ThreadPoolExecutor(max_workers=len(generators)) as pool,
        pq.ParquetWriter(path, columns, compression="zstd", write_page_checksum=True) as writer,
    ):
        for start in range(0, request.patients, ROW_GROUP_PATIENTS):
            group = numbers[start : start + ROW_GROUP_PATIENTS]
            parts = [group[first : first + batch] for first in range(0, len(group), batch)]
            work = [
                pool.submit(generators[index % len(generators)].features, request, part, labels[part])
                for index, part in enumerate(parts)
            ]
            rows = []
            for part, future in zip(parts, work, strict=True):
                rows.append(future.result())
                done += len(part)
                if progress is not None:
                    progress(done, request.patients)
            ids = [f"synthetic-{number:010d}" for number in group.tolist()]
            table = to_table(schema, np.concatenate(rows), labels[group], ids)
            writer.write_table(table.replace_schema_metadata(dict(notes)), row_group_size=ROW_GROUP_PATIENTS)


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A name to write to; the file appears under ``path`` only if the block ends well."""
    if path.suffix not in (".parquet", ".json"):
        raise ConfigurationError(
            expected="a file ending in .parquet", found=path.name, remedy="Give the output another name."
        )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(
            expected=f"to write {path}", found=error.strerror or str(error), remedy="Check the folder and the disk."
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)
