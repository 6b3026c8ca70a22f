"""Synthetic time series: rows of bytes, exact labels, and patients who depend on nobody else."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from synclave_server.aggregate import ServerState
from synclave_server.sampling.engine import sample
from synclave_server.sampling.request import SampleRequest, samplers_of
from synclave_server.sampling.series import SeriesGenerator
from synclave_server.sampling.series_rows import LARGEST, pack_series, row_bytes, unpack_series
from synclave_server.snapshots import write_snapshot
from synclave_shared.data.meds.importing import import_meds
from synclave_shared.data.meds.writer import SCHEMA_FILE
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import ConfigurationError, SnapshotError
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import anchor_from_moments, context_columns, contributions
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.plan import SeriesSpec
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_plan, series_schema
from tests.models.test_series_relations import related

ANCHOR, SHARES = anchor_from_moments(contributions(series_dataset(3000), SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
SPEC = SeriesSpec(width=32, blocks=1)
UNET = SeriesSpec(width=32, backbone="unet")


def model(size: float = 0.02, spec: SeriesSpec = SPEC) -> np.ndarray:
    network = build_series_denoiser(SERIES_LAYOUT, spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return parameter_vector(network)


def stored(folder: Path, anchor: np.ndarray | None = None) -> Path:
    write_snapshot(
        folder,
        plan=series_plan(model={"width": 32, "blocks": 1}),
        schema=series_schema().to_json_bytes(),
        round_number=2,
        model=model(),
        anchor=ANCHOR.to_vector() if anchor is None else anchor,
        label_shares=SHARES.astype(np.float32),
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north", "south"),
        aggregate_digest="0" * 64,
        ledger_index=9,
    )
    return folder


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("run") / "snapshot")


def request(sampler: str = "unipc", steps: int = 10, seed: str = "3", guidance: str = "0") -> SampleRequest:
    return SampleRequest.model_validate(
        {
            "label_counts": {"no": 1, "yes": 1},
            "sampler": sampler,
            "steps": steps,
            "seed": seed,
            "guidance": Decimal(guidance),
        }
    )


def drawn(patients: int, labels: np.ndarray | None = None, size: float = 0.02, **changes: str) -> np.ndarray:
    generator = SeriesGenerator(SPEC, SERIES_LAYOUT, model(size), ANCHOR)
    given = np.arange(patients) % 2 if labels is None else labels
    return generator.features(request(**changes), np.arange(patients), given)


def test_rows_of_bytes_keep_all_but_the_last_digits() -> None:
    dataset = series_dataset(50)
    context = context_columns(dataset.static, dataset.lengths, SERIES_LAYOUT)
    rows = pack_series(context, dataset.observed.astype(bool), dataset.values)
    assert rows.shape == (50, row_bytes(SERIES_LAYOUT))
    again = unpack_series(rows, dataset.labels, dataset.patient_ids, SERIES_LAYOUT)
    assert np.abs(again.values - dataset.values).max() <= 0.5 / LARGEST + 1e-7
    for name in ("observed", "lengths", "static", "labels"):
        assert np.array_equal(getattr(again, name), getattr(dataset, name))


@pytest.mark.parametrize(("sampler", "spec"), [*((name, SPEC) for name in samplers_of("series")), ("unipc", UNET)])
def test_a_patient_does_not_depend_on_the_others_drawn_with_it(sampler: str, spec: SeriesSpec) -> None:
    generator = SeriesGenerator(spec, SERIES_LAYOUT, model(spec=spec), ANCHOR)
    numbers, labels = np.arange(70), np.arange(70) % 2
    crowd = generator.features(request(sampler), numbers, labels)
    for patient in (0, 63, 69):
        alone = generator.features(request(sampler), numbers[[patient]], labels[[patient]])
        assert np.array_equal(crowd[patient], alone[0])
    assert len(np.unique(crowd, axis=0)) == 70
    assert not np.array_equal(crowd, generator.features(request(sampler, seed="4"), numbers, labels))


def test_what_is_drawn_has_the_anchors_means_shares_and_lengths() -> None:
    """A network near zero draws from the Gaussian process: the anchor is what patients must show."""
    labels = np.repeat([0, 1], 1500)
    dataset = unpack_series(drawn(3000, labels, 0.002), labels, [str(i) for i in range(3000)], SERIES_LAYOUT)
    real = series_dataset(3000)
    for label in (0, 1):
        mine, theirs = dataset.labels == label, real.labels == label
        assert np.abs(dataset.static[mine].mean(axis=0) - real.static[theirs].mean(axis=0)).max() < 0.06
        assert abs(dataset.lengths[mine].mean() - real.lengths[theirs].mean()) < 0.2
        for channel in range(3):
            found = dataset.values[mine][..., channel][dataset.observed[mine][..., channel] == 1]
            true = real.values[theirs][..., channel][real.observed[theirs][..., channel] == 1]
            assert found.mean() == pytest.approx(true.mean(), abs=0.05)
            assert found.std() == pytest.approx(true.std(), abs=0.06)
            shares = [one.observed[some][..., channel].sum() / one.lengths[some].sum() for one, some in ((dataset, mine), (real, theirs))]  # fmt: skip  # noqa: E501
            assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_what_goes_together_in_patients_goes_together_in_those_drawn() -> None:
    dataset, labels = related(4000), np.arange(2000) % 2
    anchor, _ = anchor_from_moments(contributions(dataset, SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
    generator = SeriesGenerator(SPEC, SERIES_LAYOUT, model(0.0), anchor)
    rows = generator.features(request(), np.arange(2000), labels)
    found = unpack_series(rows, labels, [str(i) for i in range(2000)], SERIES_LAYOUT)
    both = []
    for one in (dataset, found):
        panel = one.observed[:, :, 1:].astype(bool)
        both.append(panel.all(axis=2).sum() / panel.any(axis=2).sum())
        mean = one.values.sum(axis=1) / np.maximum(one.observed.sum(axis=1), 1)
        ever = one.observed.any(axis=1).all(axis=1)
        both.append(np.corrcoef(mean[ever, 0], mean[ever, 1])[0, 1])
    assert both[2] > 0.75  # of what is always measured together
    assert both[3] == pytest.approx(both[1], abs=0.15)


def test_guidance_moves_patients_towards_their_label() -> None:
    labels = np.ones(300, np.int64)
    ids = [str(i) for i in range(300)]
    plain = unpack_series(drawn(300, labels), labels, ids, SERIES_LAYOUT)
    pushed = unpack_series(drawn(300, labels, guidance="2"), labels, ids, SERIES_LAYOUT)
    lactate = [one.values[..., 2][one.observed[..., 2] == 1].mean() for one in (plain, pushed)]
    assert lactate[1] > lactate[0] + 0.03


def test_a_cohort_is_a_folder_that_reads_back_with_exact_label_counts(snapshot: Path, tmp_path: Path) -> None:
    provenance = sample(snapshot, 40, out=tmp_path / "cohort", label_counts={"no": 10, "yes": 30}, seed=1)
    again = load_series(series_schema(), tmp_path / "cohort")
    assert np.bincount(again.labels).tolist() == [10, 30]
    assert again.observed.any()
    assert (tmp_path / "cohort.provenance.json").exists()
    repeated = sample(snapshot, 40, out=tmp_path / "again", label_counts={"no": 10, "yes": 30}, seed=1)
    assert repeated.file_digest == provenance.file_digest
    more = sample(snapshot, 40, out=tmp_path / "workers", label_counts={"no": 10, "yes": 30}, seed=1, batch_size=7)
    assert more.file_digest == provenance.file_digest


def test_a_cohort_can_be_a_meds_dataset_of_the_same_patients(snapshot: Path, tmp_path: Path) -> None:
    sample(snapshot, 40, out=tmp_path / "meds", cohort_format="meds", seed=1)
    sample(snapshot, 40, out=tmp_path / "cohort", seed=1)
    reader = SeriesSchema.load(tmp_path / "meds" / SCHEMA_FILE)
    import_meds(tmp_path / "meds", reader, tmp_path / "tables", labels=tmp_path / "meds" / "labels")
    found, same = load_series(reader, tmp_path / "tables"), load_series(series_schema(), tmp_path / "cohort")
    found = found.select(np.argsort([int(patient) for patient in found.patient_ids]))
    for name in ("observed", "lengths", "static", "labels"):
        assert np.array_equal(getattr(found, name), getattr(same, name)), name
    np.testing.assert_allclose(found.values, same.values, atol=1e-6)
    assert (tmp_path / "meds.provenance.json").exists()


def test_what_series_have_not_is_refused_before_anything_is_drawn(snapshot: Path, tmp_path: Path) -> None:
    refused: list[tuple[dict[str, object], str]] = [
        ({"given": ["sex:f"]}, "--given"),
        ({"classifier_guidance": Decimal(1)}, "--classifier-guidance"),
        ({"calibrated": False}, "--uncalibrated"),
        ({"cohort_format": "csv"}, "csv"),
        ({"sampler": "masked"}, "the model draws time series"),
        ({"sampler": "flow"}, "the model draws time series"),
    ]
    for options, complaint in refused:
        with pytest.raises(ConfigurationError, match=complaint):
            sample(snapshot, 5, out=tmp_path / "cohort", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_snapshot_before_the_marginals_or_of_another_schema_is_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path / "snapshot", ANCHOR.to_vector()[:-1])
    with pytest.raises(SnapshotError, match="anchor"):
        sample(folder, 5, out=tmp_path / "cohort")
