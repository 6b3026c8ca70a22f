"""How fast patients of code tables are drawn, beside what the device could do at best.

Random weights (seed 0): the time does not depend on what a model has learnt. *Alone* is the generator's own call, rows
as bytes in the memory of the host; *end to end* is ``synclave sample`` from a snapshot to a finished Parquet file,
from its first finished row group on, so that compiling is not part of it.

The least work is counted from shapes: 2 n a b operations for each product of n rows by a matrix a x b; and of bytes,
per network call, the rows' state read and their posterior logits written once (float32) and the weights read once, and
in the end the drawn rows. Everything else (random numbers, the sampler's own sums) counts as nothing.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.codes.denoiser import TOWER
from bench.gpu.limits import Limits, seconds_of
from synclave_server.aggregate import ServerState
from synclave_server.planning import compile_plan, parse_plan_file
from synclave_server.sampling import generator
from synclave_server.sampling.engine import sample
from synclave_server.sampling.generator import PatientGenerator
from synclave_server.sampling.request import DEFAULT_SAMPLERS, DEFAULT_STEPS, SampleRequest
from synclave_server.snapshots import write_snapshot
from synclave_shared.data.schema import Schema
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import ModelSpec, TrainPlan

__all__ = ["CASES", "Case"]

MODELS: Final = {"couplings": ModelSpec(), "tower": TOWER}
WIDTHS: Final = (1782, 20_000)
PREVALENCE: Final = -3.5
"""Logit of every column: some fifty codes in a patient of 1,782 columns."""
TRUTH_STEPS: Final = 1000
GROUPS: Final = 8
"""Row groups of an end-to-end run, 131,072 patients of 1,782 columns."""
SECRETS: Final = "A" * 43 + "="


class Notices(logging.Handler):
    """Keeps what a generator says of its compiling."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage()[:4000])


class Case:
    """One width, model and precision. Made, it has compiled what it needs and drawn a first tile."""

    def __init__(self, device: torch.device, quick: bool, *, width: int, model: str, precision: str) -> None:
        self.device, self.quick, self.model = device, quick, model
        self.width = min(width, 300) if quick else width
        self.precision = precision
        self.spec = MODELS[model] if not quick else MODELS[model].model_copy(update={"coupled_columns": 64})
        self.schema = schema_of(self.width)
        self.layout = CodeLayout.of(self.schema)
        network = build_code_denoiser(self.layout, self.spec)
        rng = np.random.default_rng(0)
        parameters = parameter_vector(network)
        parameters += rng.normal(0, 0.1 / self.width**0.5, parameters.size).astype(np.float32)
        self.parameters = parameters
        self.anchor = np.full((2, self.width), PREVALENCE, np.float32)
        self.generator = PatientGenerator(
            self.spec,
            self.layout,
            parameters,
            self.anchor,
            device,
            precision,  # type: ignore[arg-type]
        )
        begun = time.perf_counter()
        notices: list[str] = []
        handler = Notices(notices)
        generator.log.addHandler(handler)
        generator.log.setLevel(logging.DEBUG)
        self._draw(self.request(), 1)
        generator.log.removeHandler(handler)
        self.notices = notices
        self.prepared_s = time.perf_counter() - begun

    def request(self, sampler: str | None = None, steps: int | None = None, calibrated: bool = True) -> SampleRequest:
        return SampleRequest.model_validate(
            {
                "label_counts": {"no": 1, "yes": 1},
                "sampler": sampler or DEFAULT_SAMPLERS["gaussian"],
                "steps": steps or DEFAULT_STEPS,
                "seed": "0",
                "guidance": Decimal(0),
                "precision": self.precision,
                "calibrated": calibrated,
            }
        )

    def _draw(self, request: SampleRequest, tiles: int) -> None:
        numbers = np.arange(tiles * self.generator.tile)
        self.generator.features(request, numbers, numbers % 2)

    def least(self, limits: Limits, calls: int) -> tuple[float, str]:
        """Least seconds for a tile, and by which limit."""
        rows = self.generator.tile
        coupled = min(self.width, self.spec.coupled_columns)
        products = [(coupled, coupled)] if coupled else []
        if width := self.spec.width:
            inner = [(width, 2 * width), (width, 2 * width), (2 * width, width)]
            products += [(self.width, width), *inner * self.spec.blocks, (width, self.width)]
        flops = calls * rows * sum(2 * a * b for a, b in products)
        weight = 2 if self.precision == "bfloat16" else 4
        moved = calls * (8 * rows * self.width + weight * sum(a * b for a, b in products)) + rows * self.width
        return limits.least_s(flops, moved, self.precision)

    def rows(self) -> Iterator[dict[str, Any]]:
        limits = Limits.of(self.device, self.quick)
        common = {"columns": self.width, "model": self.model, "precision": self.precision}
        yield {"limits": limits.to_json()}
        tiles = 2 if self.quick else 8
        request = self.request()
        tile_s = seconds_of(lambda: self._draw(request, tiles), self.device, 3) / tiles
        least_s, bound = self.least(limits, request.network_calls)
        yield {
            **common,
            "what": "alone",
            "sampler": request.sampler,
            "calls": request.network_calls,
            "tile": self.generator.tile,
            "patients_per_s": self.generator.tile / tile_s,
            "tile_s": tile_s,
            "least_s": least_s,
            "bound": bound,
            "prepared_s": self.prepared_s,
            "not_compiled": self.notices,
        }
        if self.precision == "bfloat16":
            with tempfile.TemporaryDirectory() as folder:
                yield {**common, "what": "end to end", **self.end_to_end(Path(folder))}
        if self.model == "tower":
            truth = self.request("ancestral", 20 if self.quick else TRUTH_STEPS, calibrated=False)
            self._draw(truth.model_copy(update={"steps": 2}), 1)
            begun = time.perf_counter()
            self._draw(truth, 1)
            yield {
                **common,
                "what": "alone",
                "sampler": "ancestral",
                "calls": truth.network_calls,
                "tile": self.generator.tile,
                "patients_per_s": self.generator.tile / (time.perf_counter() - begun),
            }

    def end_to_end(self, folder: Path) -> dict[str, Any]:
        """``synclave sample`` to Parquet, from the first finished row group on."""
        plan = plan_of(self.schema, self.spec)
        write_snapshot(
            folder / "snapshot",
            plan=plan,
            schema=self.schema.to_json_bytes(),
            round_number=plan.last_round(),
            model=self.parameters,
            anchor=self.anchor,
            label_shares=np.array([0.5, 0.5], np.float32),
            server_state=ServerState(np.zeros(0), np.zeros(0)),
            sites=("one", "two"),
            aggregate_digest="0" * 64,
            ledger_index=1,
        )
        seen: list[tuple[float, int]] = []
        group = min(16_384, 2**27 // self.width)
        patients = 3000 if self.quick else GROUPS * group
        begun = time.perf_counter()
        sample(
            folder / "snapshot",
            patients,
            out=folder / "cohort.parquet",
            precision=self.precision,  # type: ignore[arg-type]
            devices=[str(self.device) if self.device.type == "cpu" else "cuda:0"],
            batch_size=256 if self.quick else 2**20,
            progress=lambda done, _: seen.append((time.perf_counter(), done)),
        )
        ended = time.perf_counter()
        first_s, first = next(((at, done) for at, done in seen if done), (begun, 0))
        return {
            "sampler": DEFAULT_SAMPLERS["gaussian"],
            "patients": patients,
            "patients_per_s": (patients - first) / (ended - first_s),
            "first_group_s": first_s - begun,
            "file_bytes": (folder / "cohort.parquet").stat().st_size,
        }


def schema_of(width: int) -> Schema:
    """So many codes and a label."""
    return Schema.model_validate(
        {
            "name": f"codes-{width}",
            "modality": "codes",
            "tables": [{"name": "visits", "patient": "patient", "order": "day"}],
            "fields": [
                {
                    "name": "code",
                    "kind": "codes",
                    "table": "visits",
                    "columns": ["code"],
                    "vocabulary": [{"code": f"C{number:05d}"} for number in range(width)],
                    "outside": "fault",
                    "missing": "none",
                }
            ],
            "label": {
                "name": "outcome",
                "values": ["no", "yes"],
                "table": "visits",
                "column": "outcome",
                "combine": "any",
                "missing": "fault",
            },
        }
    )


def plan_of(schema: Schema, spec: ModelSpec) -> TrainPlan:
    """An agreement for such a model; nobody trains by it."""
    document = {
        "name": "bench",
        "schema": "schema.toml",
        "model": spec.model_dump(exclude={"kind"}),
        "privacy": {"noise_multiplier": Decimal(1), "clip_norm": Decimal(1), "selection_rate": Decimal("0.1")},
        "federation": {"rounds": 1, "steps_per_round": 1},
        "sites": {name: {"nominal_patients": 1000} for name in ("one", "two")},
    }
    keys = {"one": "A" * 42 + "E=", "two": "A" * 42 + "I="}
    return compile_plan(parse_plan_file(document), schema=schema, coordinator_key=SECRETS, site_keys=keys)


CASES: Final = {
    f"codes-{width}-{model}-{precision}": {"width": width, "model": model, "precision": precision}
    for width in WIDTHS
    for model in MODELS
    for precision in ("bfloat16", "float32")
}
"""Arguments of :class:`Case` by name, each in a process of its own: compiled code is counted by process."""
