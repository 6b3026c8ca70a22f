"""On a CUDA device: the same integers, the same law, and bytes that no setting changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synclave_server.sampling import engine
from synclave_server.sampling.engine import sample
from synclave_server.sampling.generator import PatientGenerator
from synclave_server.sampling.philox import PatientRandomness
from tests.models.small import LAYOUT, small_plan
from tests.sampling.stored import ANCHOR
from tests.sampling.test_engine import ask

pytestmark = pytest.mark.gpu


def test_integers_and_uniform_numbers_are_those_of_the_cpu() -> None:
    randomness, patients = PatientRandomness(2**63 + 7), torch.arange(2**32 - 1000, 2**32)
    for purpose in (0, 1, 2**32 - 1):
        here = randomness.words(patients, 619, purpose)
        assert torch.equal(randomness.words(patients.cuda(), 619, purpose).cpu(), here)
        uniform = randomness.uniform(patients.cuda(), 619, purpose).cpu()
        assert torch.equal(uniform, randomness.uniform(patients, 619, purpose))
        normal = randomness.normal(patients.cuda(), 619, purpose).cpu()
        assert torch.allclose(normal, randomness.normal(patients, 619, purpose), atol=2e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampler", ["heun", "ancestral"])
def test_compiled_rows_are_almost_all_those_of_the_cpu(precision: Any, sampler: str) -> None:
    request, numbers, labels = ask(patients=9000, sampler=sampler, steps=12), np.arange(9000), np.arange(9000) % 2
    model = np.full(78, 0.1, np.float32)
    here = PatientGenerator(small_plan().model, LAYOUT, model, ANCHOR).features(request, numbers, labels)
    there = PatientGenerator(small_plan().model, LAYOUT, model, ANCHOR, "cuda", precision)
    rows = there.features(request, numbers, labels)
    assert np.all(rows[:, 9:].sum(axis=1) == 1)
    assert (rows != here).mean() < (1e-3 if precision == "float32" else 0.02)
    assert np.array_equal(there.features(request, numbers[8500:8600], labels[8500:8600]), rows[8500:8600])


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 2**20}, {"workers": 2}])
def test_bytes_do_not_depend_on_batches_and_processes(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", 9000)
    files = []
    for name, options in (("a", {}), ("b", changes)):
        out = tmp_path / f"{name}.parquet"
        sample(snapshot, 30_000, out=out, devices=["cuda:0"], **options)
        files.append(out.read_bytes())
    assert files[0] == files[1]
