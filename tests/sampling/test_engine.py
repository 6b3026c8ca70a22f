import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synclave_server.sampling import engine
from synclave_server.sampling import generator as generators
from synclave_server.sampling import request as requests
from synclave_server.sampling.engine import sample
from synclave_server.sampling.generator import PatientGenerator, tile_patients
from synclave_server.sampling.given import read_given
from synclave_server.sampling.request import allot, resolve_request
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.patient_table import read_patient_table
from synclave_shared.diffusion.discrete import REVEALERS
from synclave_shared.diffusion.drawing import draw_rows
from synclave_shared.diffusion.guidance import classifier_log_odds
from synclave_shared.diffusion.preconditioning import posterior_mean
from synclave_shared.diffusion.samplers import SAMPLERS
from synclave_shared.errors import ConfigurationError, SamplingError, SnapshotError
from tests.models.small import LAYOUT, small_plan, small_schema
from tests.sampling.stored import ANCHOR

SCHEMA = small_schema()
PLAN = small_plan()


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 1}, {"batch_size": 300}, {"batch_size": 4096}, {"devices": ("cpu", "cpu", "cpu")}],
)
@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_the_file_has_the_same_bytes_for_any_batch_size_and_number_of_devices(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sampler: str
) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", 512)
    options: dict[str, Any] = {"sampler": sampler, "steps": 3, "seed": 5}
    sample(snapshot, 900, out=tmp_path / "a.parquet", **options)
    sample(snapshot, 900, out=tmp_path / "b.parquet", **options, **changes)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 2


def test_a_patient_alone_is_the_patient_in_a_crowd(snapshot: Path) -> None:
    generator = PatientGenerator(PLAN.model, LAYOUT, np.ones(78, np.float32) * 0.1, ANCHOR)
    request = ask(patients=600)
    numbers, labels = np.arange(600), np.arange(600) % 2
    crowd = generator.features(request, numbers, labels)
    for patient in (0, 255, 256, 599):
        alone = generator.features(request, numbers[[patient]], labels[[patient]])
        assert np.array_equal(alone[0], crowd[patient])


def test_seeds_and_labels_matter(snapshot: Path, tmp_path: Path) -> None:
    first = sample(snapshot, 300, out=tmp_path / "a.parquet", seed=1)
    again = sample(snapshot, 300, out=tmp_path / "b.parquet", seed=1)
    other = sample(snapshot, 300, out=tmp_path / "c.parquet", seed=2)
    assert first.file_digest == again.file_digest != other.file_digest


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, [280, 120]), ({"yes": 400}, [0, 400]), ({"no": 1, "yes": 399}, [1, 399])]
)
def test_label_counts_are_exact(
    snapshot: Path, tmp_path: Path, asked: dict[str, int] | None, expected: list[int]
) -> None:
    sample(snapshot, 400, out=tmp_path / "out.parquet", label_counts=asked, steps=2)
    found = read_patient_table(SCHEMA, tmp_path / "out.parquet")
    assert np.bincount(found.labels, minlength=2).tolist() == expected


@pytest.mark.parametrize("sampler", ["ddim", "unipc", "flow", "heun", "ancestral"])
def test_prevalence_follows_the_anchor_and_the_coupling_shows(snapshot: Path, tmp_path: Path, sampler: str) -> None:
    """4,000 patients of one label; 4.5 standard errors and the solver's small bias."""
    steps = 40 if sampler == "ancestral" else 12
    sample(snapshot, 4000, out=tmp_path / "out.parquet", sampler=sampler, steps=steps, label_counts={"no": 4000})
    found = read_patient_table(SCHEMA, tmp_path / "out.parquet").features[:].astype(float)
    assert np.allclose(found.mean(axis=0)[2:9], 0.2, atol=0.04)
    assert np.allclose(found.mean(axis=0)[9:], [0.5, 0.3, 0.2], atol=0.04)
    correlation = np.corrcoef(found[:, :9].T)
    assert correlation[0, 1] > 0.3
    assert np.abs(correlation[2:, 2:] - np.eye(7)).max() < 0.09


def test_guidance_moves_patients_towards_their_label(snapshot: Path, tmp_path: Path) -> None:
    """Codes are commoner with label yes: guided patients of that label have more of them."""
    means = []
    for weight in (0, 3):
        out = tmp_path / f"{weight}.parquet"
        sample(snapshot, 1000, out=out, label_counts={"yes": 1000}, guidance=Decimal(weight))
        means.append(read_patient_table(SCHEMA, out).features[:][:, 2:9].mean())
    assert means[1] > means[0] + 0.1


def test_classifier_guidance_makes_rows_look_like_their_label_at_no_call(snapshot: Path, tmp_path: Path) -> None:
    """The log-odds of the anchor's own classifier on the clean rows rise; those of the other label fall."""
    anchor = torch.from_numpy(ANCHOR)
    odds = {}
    for strength in (0, 2):
        out = tmp_path / f"{strength}.parquet"
        provenance = sample(
            snapshot, 1000, out=out, label_counts={"yes": 500, "no": 500}, classifier_guidance=Decimal(strength)
        )
        assert provenance.request.network_calls == 10
        found = read_patient_table(SCHEMA, out)
        rows = torch.from_numpy(found.features[:]).float()[:, None]
        nothing, known = torch.full((1000, 1), torch.inf), torch.ones(1000, 1, 12, dtype=torch.bool)
        likely = classifier_log_odds(rows, nothing, anchor, LAYOUT, known)[:, 0]
        of_yes = (likely[:, 1] - likely[:, 0]).numpy()
        odds[strength] = of_yes[found.labels == 1].mean(), of_yes[found.labels == 0].mean()
    assert odds[2][0] > odds[0][0] + 0.5
    assert odds[2][1] < odds[0][1] - 0.5


def test_provenance_is_in_the_file_and_beside_it(snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    provenance = sample(snapshot, 10, out=out, seed=3)
    beside = json.loads((tmp_path / "out.parquet.provenance.json").read_bytes())
    inside = json.loads(pq.read_schema(out).metadata[b"synclave.provenance"])
    assert beside["file_digest"] == sha256_hex(out.read_bytes()) == provenance.file_digest
    assert inside | {"file_digest": beside["file_digest"]} == beside
    assert inside["snapshot_digest"] == sha256_hex((snapshot / "model.safetensors").read_bytes())
    assert inside["request_digest"] == provenance.request.digest
    assert inside["round"] == 2
    assert inside["ledger_index"] == 9


def test_progress_ends_with_everybody(snapshot: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    sample(snapshot, 700, out=tmp_path / "o.parquet", batch_size=256, steps=1, progress=lambda *done: seen.append(done))
    assert seen == [(0, 700), (256, 700), (512, 700), (700, 700)]


@pytest.mark.parametrize(
    "fault",
    [
        {"label_counts": {"maybe": 10}},
        {"label_counts": {"yes": 9}},
        {"label_counts": {"yes": 11, "no": -1}},
        {"sampler": "magic"},
        {"steps": 0},
        {"seed": -1},
        {"guidance": Decimal(-1)},
        {"patients": 0},
        {"batch_size": 0},
        {"devices": ()},
        {"devices": ("abacus",)},
        {"devices": ("cuda:99",)},
        {"devices": ("meta",)},
        {"precision": "float16"},
        {"cohort_format": "papyrus"},
        {"out": "out.csv"},
    ],
)
def test_an_impossible_request_is_refused_and_nothing_written(
    snapshot: Path, tmp_path: Path, fault: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"patients": 10, "out": "out.parquet"} | fault
    out = tmp_path / options.pop("out")
    with pytest.raises(ConfigurationError):
        sample(snapshot, options.pop("patients"), out=out, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_the_old_file(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")

    def broken(*_: Any) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(PatientGenerator, "features", broken)
    with pytest.raises(SamplingError, match="device lost"):
        sample(snapshot, 10, out=out)
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_damaged_snapshot_is_refused(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError):
        sample(tmp_path / "nowhere", 10, out=tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def ask(**changes: Any) -> Any:
    return resolve_request(
        **(
            {
                "patients": 10,
                "label_counts": None,
                "label_values": ("no", "yes"),
                "label_shares": None,
                "corruption": "gaussian",
                "sampler": "heun",
                "steps": 3,
                "seed": 0,
                "guidance": Decimal(0),
            }
            | changes
        )
    )


def test_without_shares_labels_are_even() -> None:
    assert ask(patients=11).label_counts == {"no": 6, "yes": 5}


@given(st.integers(1, 10_000), st.lists(st.floats(0.001, 1.0), min_size=1, max_size=8))
def test_allotted_counts_add_up_and_are_within_one_of_exact(patients: int, shares: list[float]) -> None:
    counts = allot(patients, np.array(shares))
    assert sum(counts) == patients
    exact = np.array(shares) / sum(shares) * patients
    assert np.abs(np.array(counts) - exact).max() < 1 + 1e-6


def test_every_drawn_row_has_one_value_per_group_with_the_right_frequencies() -> None:
    """20,000 rows; 4.5 standard errors."""
    rng = np.random.default_rng(0)
    probabilities = np.tile(np.array([0.1] * 9 + [0.7, 0.0, 0.3]), (20_000, 1))
    uniform = torch.from_numpy(rng.uniform(size=probabilities.shape))
    rows = draw_rows(torch.from_numpy(probabilities).float(), uniform, LAYOUT).numpy()
    assert np.all(rows[:, 9:].sum(axis=1) == 1)
    assert rows[:, 10].sum() == 0
    assert np.abs(rows.mean(axis=0) - probabilities[0]).max() < 4.5 * np.sqrt(0.25 / 20_000)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_of_the_registry_can_be_asked_for(sampler: str) -> None:
    request = ask(patients=300, sampler=sampler)
    rows = PatientGenerator(PLAN.model, LAYOUT, np.full(78, 0.1, np.float32), ANCHOR).features(
        request, np.arange(300), np.arange(300) % 2
    )
    assert np.all(rows[:, 9:].sum(axis=1) == 1)
    assert 0.1 < rows[:, :9].mean() < 0.6
    assert request.network_calls >= 1


def test_a_sampler_may_ask_for_many_levels_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def of_two_levels(denoise: Any, x: torch.Tensor, sigmas: torch.Tensor, *, noise: Any = None) -> torch.Tensor:
        together = denoise(x[:, None].expand(-1, 2, -1), sigmas[:2, None])
        alone = torch.stack([denoise(x, level) for level in sigmas[:2].tolist()], dim=1)
        asked.append(torch.allclose(together, alone, atol=1e-5))
        return x

    registry = {**SAMPLERS, "two": of_two_levels}
    monkeypatch.setattr(requests, "SAMPLERS", registry)
    monkeypatch.setattr(generators, "SAMPLERS", registry)
    generator = PatientGenerator(PLAN.model, LAYOUT, np.full(78, 0.1, np.float32), ANCHOR)
    generator.features(ask(sampler="two", guidance=Decimal(1)), np.arange(5), np.arange(5) % 2)
    assert asked == [True]


def test_an_unknown_sampler_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ask(sampler="magic")
    assert all(name in refused.value.expected for name in SAMPLERS)


def test_guidance_doubles_the_network_calls() -> None:
    assert ask(guidance=Decimal(2)).network_calls == 2 * ask().network_calls


def test_the_network_in_bfloat16_draws_almost_the_same_patients_and_says_so(snapshot: Path, tmp_path: Path) -> None:
    """Its error of 2**-8 in a correction moves a coin's side for few patients; prevalences stay."""
    model = np.random.default_rng(0).normal(0, 0.3, 78).astype(np.float32)
    numbers, labels = np.arange(4096), np.arange(4096) % 2
    exact, reduced = (
        PatientGenerator(PLAN.model, LAYOUT, model, ANCHOR, "cpu", precision)
        .features(ask(precision=precision), numbers, labels)
        .astype(float)
        for precision in ("float32", "bfloat16")
    )
    assert 0 < np.abs(exact - reduced).mean() < 0.02
    assert np.abs(exact.mean(axis=0) - reduced.mean(axis=0)).max() < 0.01
    provenance = sample(snapshot, 10, out=tmp_path / "out.parquet", precision="bfloat16")
    assert provenance.request.precision == "bfloat16"


def test_tiles_fill_a_gpu_and_fit_into_its_memory() -> None:
    assert tile_patients("cpu", 619) == tile_patients("cpu", 20_000) == 256
    assert [tile_patients("cuda", width) for width in (12, 619, 1782, 20_000, 10**6)] == [8192, 8192, 8192, 512, 256]


def test_without_a_compiler_the_plain_network_is_used_with_a_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no working C compiler\nand much more")

    generator = PatientGenerator(PLAN.model, LAYOUT, np.full(78, 0.1, np.float32), ANCHOR)
    request, numbers, labels = ask(), np.arange(300), np.arange(300) % 2
    before = generator.features(request, numbers, labels)
    monkeypatch.setattr(torch, "compile", no_compiler)
    generator._compile(request, numbers[:256], labels[:256])
    assert caplog.messages == ["Sampling on cpu without torch.compile, which is slower: no working C compiler"]
    assert np.array_equal(generator.features(request, numbers, labels), before)


@pytest.mark.parametrize("sampler", sorted(REVEALERS))
def test_masked_models_have_samplers_of_their_own(sampler: str) -> None:
    """2,000 patients of one label; 4.5 standard errors. Couplings of 0.3 between all codes make them go together."""
    spec = PLAN.model.model_copy(update={"corruption": "masked"})
    request = ask(patients=2000, corruption="masked", sampler=sampler, label_counts={"no": 2000, "yes": 0}, steps=12)
    assert request.network_calls == 12
    model = np.full(78, 0.3, np.float32)
    rows = PatientGenerator(spec, LAYOUT, model, ANCHOR).features(request, np.arange(2000), np.zeros(2000, np.int64))
    assert np.all(rows[:, 9:].sum(axis=1) == 1)
    alone = PatientGenerator(spec, LAYOUT, model, ANCHOR).features(request, np.array([7]), np.zeros(1, np.int64))
    assert np.array_equal(alone[0], rows[7])
    correlation = np.corrcoef(rows[:, :9].T.astype(float))
    assert np.mean(correlation[np.triu_indices(9, 1)]) > 4.5 / np.sqrt(2000)


def test_a_sampler_of_the_other_corruption_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="masked") as refused:
        ask(corruption="masked", sampler="heun")
    assert "trained with masked corruption" in refused.value.expected
    assert ask(sampler=None).sampler == "unipc"
    assert ask(sampler=None, corruption="masked").sampler == "masked"


def test_prevalences_come_back_to_the_anchors_whatever_a_noisy_coupling_does(snapshot: Path) -> None:
    """Couplings of columns with themselves make rare codes rarer; calibration takes that back, not from guidance."""
    model = np.eye(12, dtype=np.float32)[np.triu_indices(12)]
    labels = np.zeros(4000, np.int64)
    means = {}
    for calibrated in (False, True):
        request = ask(patients=4000, label_counts={"no": 4000, "yes": 0}, sampler="unipc", calibrated=calibrated)
        rows = PatientGenerator(PLAN.model, LAYOUT, model, ANCHOR).features(request, np.arange(4000), labels)
        means[calibrated] = rows.mean(axis=0)
    wanted = posterior_mean(torch.from_numpy(ANCHOR), LAYOUT)[0].numpy()
    # 4.5 standard errors of a cohort and of the trial.
    assert np.abs(means[True] - wanted).max() < 4.5 * np.sqrt(0.25 / 4000 * 2)
    assert np.abs(means[False] - wanted).max() > 2 * np.abs(means[True] - wanted).max()
    assert not ask(guidance=Decimal(1)).calibrated


def test_a_cohort_can_be_a_meds_dataset(snapshot: Path, tmp_path: Path) -> None:
    sample(snapshot, 300, out=tmp_path / "cohort", cohort_format="meds", seed=4)
    sample(snapshot, 300, out=tmp_path / "same.parquet", seed=4)
    table = read_patient_table(SCHEMA, tmp_path / "same.parquet")
    events = pq.read_table(tmp_path / "cohort" / "data")
    assert events["subject_id"].unique().to_pylist() == list(range(300))
    codes = events.filter(pc.match_substring(events["code"], "code//c1"))
    assert sorted(codes["subject_id"].to_pylist()) == np.flatnonzero(table.features[:][:, 1]).tolist()


@pytest.mark.parametrize("sampler", ["unipc", "parallel", "ancestral"])
def test_given_columns_hold_in_every_patient_and_tell_about_the_others(
    snapshot: Path, tmp_path: Path, sampler: str
) -> None:
    """Codes 0 and 1 are coupled: who has the one has the other more often. 4.5 standard errors of 1,000 patients."""
    found = {}
    for value in (0, 1):
        provenance = sample(
            snapshot,
            1000,
            out=tmp_path / f"{value}.parquet",
            given=(f"code:c0={value}", "kind:b"),
            label_counts={"no": 1000},
            sampler=sampler,
        )
        assert provenance.request.given == {"code:c0": value, "kind:a": 0, "kind:b": 1, "kind:c": 0}
        assert not provenance.request.calibrated
        rows = read_patient_table(SCHEMA, tmp_path / f"{value}.parquet").features[:]
        assert np.all(rows[:, 0] == value)
        assert np.all(rows[:, 9:] == [0, 1, 0])
        found[value] = rows[:, 1].mean()
    assert found[1] - found[0] > 4.5 * np.sqrt(2 * 0.25 / 1000)


def test_given_columns_move_the_shares_of_the_label(snapshot: Path, tmp_path: Path) -> None:
    """Bayes' rule on the anchor: codes are commoner with label yes."""
    plain = sample(snapshot, 100, out=tmp_path / "plain.parquet", steps=1)
    several = sample(snapshot, 100, out=tmp_path / "several.parquet", steps=1, given=("code:c3", "code:c4"))
    without = sample(snapshot, 100, out=tmp_path / "without.parquet", steps=1, given=("code:c3=0",))
    counts = [provenance.request.label_counts["yes"] for provenance in (without, plain, several)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]


def test_given_columns_of_a_masked_model_are_known_from_the_first_call() -> None:
    spec = PLAN.model.model_copy(update={"corruption": "masked"})
    request = ask(patients=500, corruption="masked", sampler="masked", given={"code:c0": 1}, steps=12)
    generator = PatientGenerator(spec, LAYOUT, np.full(78, 0.3, np.float32), ANCHOR, columns=SCHEMA.columns)
    rows = generator.features(request, np.arange(500), np.zeros(500, np.int64))
    others = generator.features(
        request.model_copy(update={"given": {"code:c0": 0}}), np.arange(500), np.zeros(500, int)
    )
    assert np.all(rows[:, 0] == 1)
    assert np.all(others[:, 0] == 0)
    assert rows[:, 1:9].mean() > others[:, 1:9].mean() + 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["code:c99"], "Did you mean"),
        (["kind:a=0"], "=0 for a code or flag"),
        (["code:c1", "code:c1=0"], "hold together"),
        (["kind:a", "kind:b"], "hold together"),
    ],
)
def test_what_cannot_be_given_is_refused(options: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_given(options, SCHEMA)
