"""The benchmark of a GPU: what its report says of figures, and one case on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bench.gpu.__main__ import merged
from bench.gpu.cells import CELLS, KINDS, epsilon_of
from bench.gpu.limits import Limits
from bench.gpu.report import markdown
from bench.gpu.unmasking import Unmasking, filled

FIGURES = Path(__file__).parents[2] / "bench" / "results"


def document(**sections: list[dict[str, Any]]) -> dict[str, Any]:
    machine = {"device": "a device", "cores": 2, "python": "3", "torch": "2"}
    found = {name: {"rows": rows} for name, rows in sections.items()}
    return {"machine": machine, "quick": False, "seed": 0, "sections": found}


def test_the_least_time_is_that_of_the_narrower_limit() -> None:
    limits = Limits(bytes_per_s=1e9, flops_per_s={"float32": 1e12})
    assert limits.least_s(2e12, 1e9, "float32") == (2.0, "arithmetic")
    assert limits.least_s(1e11, 3e9, "float32") == (3.0, "memory")


def test_shares_and_ratios_are_worked_out_from_what_was_measured() -> None:
    codes = {
        "columns": 1782, "model": "tower", "precision": "float32", "what": "alone", "sampler": "unipc", "calls": 10,
        "patients_per_s": 1234.5, "tile_s": 0.2, "least_s": 0.05, "bound": "memory",
    }  # fmt: skip
    whole = {key: codes[key] for key in ("columns", "model", "precision")}
    end = {**whole, "what": "end to end", "patients_per_s": 99.0}
    turns = [{"plain": 0.01, "private": 0.02}, {"plain": 0.01, "private": 0.03}, {"plain": 0.01, "private": 0.04}]
    network = {
        "title": "a network", "parameters": 1_500_000, "precision": "float32", "way": "hooks", "turns": turns,
        "memory_bytes": {"plain": 100, "hooks": 150},
    }  # fmt: skip
    text = markdown(document(**{"codes-1782-tower-float32": [codes, end]}, networks=[network]))
    assert "| 1,782 | tower | float32 | unipc | 10 | 1,234 | 25% (memory) | 99 |" in text
    assert "| a network (1.5 M) | float32 | hooks | 10.0 ms | 3.00 (2.00 to 4.00) | 1.50 |" in text


def test_a_section_measured_again_takes_the_place_of_the_first() -> None:
    row = {"columns": 9, "precision": "float32", "calls": 10, "patients_per_s": 1.0}
    first, later = document(reference=[row]), document(reference=[{**row, "patients_per_s": 2.0}])
    text = markdown(merged(first, {**later, "tests": {"said": "3 passed"}}))
    assert "| 9 | float32 | 10 | 2 |" in text
    assert "Measured again later, on the same kind of machine: reference." in text
    assert "3 passed" in text


def test_the_report_is_that_of_the_figures() -> None:
    kept = json.loads((FIGURES / "gpu.json").read_text(encoding="utf-8"))
    assert markdown(kept) == (FIGURES / "gpu.md").read_text(encoding="utf-8")


def test_cells_are_named_by_what_they_measure() -> None:
    for cell in CELLS:
        kind, _, name = cell.split("/")
        assert kind in KINDS
        assert epsilon_of(name)[2] in range(3)


def test_a_note_is_filled_in_few_calls_and_word_by_word() -> None:
    device = torch.device("cpu")
    network = Unmasking(device, quick=True).network
    for calls in (4, 16):
        tokens = filled(network, 2, 16, calls, device)
        assert tokens.shape == (2, 16)
        assert int(tokens.min()) >= 0
