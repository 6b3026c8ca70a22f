"""Patients from a copula's snapshot: the same whatever is drawn beside them, and what is refused."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synclave_server.aggregate import ServerState
from synclave_server.sampling import engine
from synclave_server.sampling.copula import CopulaGenerator
from synclave_server.sampling.engine import sample
from synclave_server.sampling.request import resolve_request
from synclave_server.snapshots import write_snapshot
from synclave_server.warm_start import read_start
from synclave_shared.data.patient_table import read_patient_table
from synclave_shared.errors import ConfigurationError, PlanError, SnapshotError
from synclave_shared.models import copula_drawing
from synclave_shared.models.anchor import Anchor
from synclave_shared.models.copula import Copula, copula_vector, fit_copula, independent_copula, second_moments
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_copula_plan, small_rows, small_schema
from tests.models.test_copula import exact_anchor
from tests.sampling.stored import ANCHOR

SCHEMA = small_schema()
FEATURES, LABELS = small_rows(20_000)
REAL_ANCHOR = exact_anchor(FEATURES, LABELS)


def fitted() -> Copula:
    """Codes 0 to 2 occur together."""
    return fit_copula(second_moments(FEATURES, LABELS, REAL_ANCHOR, LAYOUT, 2.0), 0.0, REAL_ANCHOR, LAYOUT)


def store(folder: Path, model: np.ndarray) -> Path:
    write_snapshot(
        folder,
        plan=small_copula_plan(),
        schema=SCHEMA.to_json_bytes(),
        round_number=1,
        model=model,
        anchor=REAL_ANCHOR.logits,
        label_shares=REAL_ANCHOR.label_shares.astype(np.float32),
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north", "south"),
        aggregate_digest="0" * 64,
        ledger_index=5,
    )
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("run") / "snapshot", copula_vector(fitted()))


def ask(**changes: Any) -> Any:
    return resolve_request(
        **(
            {
                "patients": 600,
                "label_counts": None,
                "label_values": ("no", "yes"),
                "label_shares": None,
                "corruption": None,
                "sampler": None,
                "steps": None,
                "seed": 1,
                "guidance": Decimal(0),
            }
            | changes
        )
    )


def test_a_patient_alone_is_the_patient_in_a_crowd() -> None:
    generator = CopulaGenerator(fitted())
    numbers, labels = np.arange(600), np.arange(600) % 2
    crowd = generator.features(ask(), numbers, labels)
    for patient in (0, 255, 256, 599):
        alone = generator.features(ask(), numbers[[patient]], labels[[patient]])
        assert np.array_equal(alone[0], crowd[patient])
    assert not np.array_equal(generator.features(ask(seed=2), numbers, labels), crowd)
    # Another label at the same randomness is another patient.
    assert not np.array_equal(generator.features(ask(), numbers, 1 - labels), crowd)


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 1}, {"batch_size": 4096}, {"devices": ("cpu", "cpu", "cpu")}],
)
def test_the_file_has_the_same_bytes_for_any_batch_size_and_number_of_devices(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", 512)
    sample(stored, 900, out=tmp_path / "a.parquet", seed=5)
    sample(stored, 900, out=tmp_path / "b.parquet", seed=5, **changes)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_interrupted_and_called_again_it_ends_with_the_same_bytes(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", 512)
    sample(stored, 2000, out=tmp_path / "whole.parquet", seed=5)

    class Stop(Exception):  # noqa: N818 - it is no error
        pass

    def stop(done: int, _: int) -> None:
        if done >= 1100:
            raise Stop

    with pytest.raises(Stop):
        sample(stored, 2000, out=tmp_path / "out.parquet", seed=5, progress=stop)
    assert not (tmp_path / "out.parquet").exists()
    done: list[int] = []
    sample(stored, 2000, out=tmp_path / "out.parquet", seed=5, progress=lambda n, _: done.append(n))
    assert done[0] >= 512
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_prevalences_correlations_and_labels_are_those_of_the_patients(stored: Path, tmp_path: Path) -> None:
    """20,000 patients: five standard errors of a prevalence are 0.018, of a correlation 0.035, and the model's bias."""
    sample(stored, 20_000, out=tmp_path / "out.parquet", label_counts={"no": 14_000, "yes": 6_000})
    drawn = read_patient_table(SCHEMA, tmp_path / "out.parquet")
    assert np.bincount(drawn.labels).tolist() == [14_000, 6_000]
    rows = drawn.features[:]
    assert np.all(rows[:, 9:].sum(axis=1) == 1)
    assert rows.mean(axis=0) == pytest.approx(FEATURES.mean(axis=0), abs=0.025)
    truth, found = np.corrcoef(FEATURES[:, :9].T), np.corrcoef(rows[:, :9].T)
    assert truth[0, 1] > 0.4
    assert np.abs(found - truth).max() < 0.08


def test_before_the_moments_columns_are_independent(tmp_path: Path) -> None:
    anchor = Anchor(logits=ANCHOR, label_shares=np.array([0.7, 0.3]))
    folder = store(tmp_path / "snapshot", copula_vector(independent_copula(anchor, LAYOUT)))
    sample(folder, 20_000, out=tmp_path / "out.parquet", label_counts={"no": 20_000})
    drawn = read_patient_table(SCHEMA, tmp_path / "out.parquet").features[:]
    assert np.abs(np.corrcoef(drawn[:, :9].T) - np.eye(9)).max() < 0.035
    assert drawn[:, :9].mean(axis=0) == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sampler": "unipc"}, "--sampler unipc"),
        ({"steps": 10}, "--steps 10"),
        ({"guidance": Decimal(1)}, "--guidance 1"),
        ({"classifier_guidance": Decimal(2)}, "--classifier-guidance 2"),
        ({"given": ["code:c1"]}, "--given code:c1"),
        ({"precision": "bfloat16"}, "--precision bfloat16"),
    ],
)
def test_what_a_copula_has_not_is_refused_by_name(
    stored: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        sample(stored, 10, out=tmp_path / "out.parquet", **changes)
    assert complaint in refused.value.found
    assert list(tmp_path.iterdir()) == []


def test_its_own_name_is_no_other_models_sampler() -> None:
    assert ask(sampler="copula").network_calls == 0
    with pytest.raises(ConfigurationError, match="gaussian corruption"):
        ask(corruption="gaussian", sampler="copula")


def test_a_model_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = store(tmp_path / "snapshot", np.zeros(25, np.float32))
    with pytest.raises(SnapshotError, match="12 columns"):
        sample(folder, 10, out=tmp_path / "out.parquet")


def test_no_training_begins_with_a_copula(stored: Path) -> None:
    with pytest.raises(PlanError, match="copula"):
        read_start(stored, schema=SCHEMA, spec=ModelSpec(), anchored=True)


def test_every_product_has_the_shape_of_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another shape it may round differently, which too few rows show to be seen in them."""
    shapes: list[tuple[int, ...]] = []
    rows = copula_drawing.CopulaColumns.rows

    def watched(self: Any, labels: Any, factors: Any, uniform: Any) -> Any:
        shapes.append((len(labels), len(factors), len(uniform)))
        return rows(self, labels, factors, uniform)

    monkeypatch.setattr(copula_drawing.CopulaColumns, "rows", watched)
    generator = CopulaGenerator(fitted())
    for size in (1, 256, 300):
        assert generator.features(ask(), np.arange(size), np.zeros(size, np.int64)).shape == (size, 12)
    assert shapes == [(256, 256, 256)] * 4
