"""A clinical model of somebody's own at a site: tested like every other, and compared with what was signed."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from synclave_client.performance import Performance
from synclave_client.training.private import SelfTestReport
from synclave_client.training.rehearsal import rehearse_clinical
from synclave_client.vault.series_workload import SeriesWorkload
from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import ClippingError
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import usual_anchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.installed import look_up
from synclave_shared.plan import ClassifierSpec, Federation, Privacy, TrainPlan
from synclave_shared.protocol import encode_model
from tests.models.installed import as_in_a_new_process, documented, lay_down
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_schema
from tests.vault.coordinator import Coordinator, make_plan, make_settings, open_vault

CODE, FIELDS = documented()
SPEC = ClassifierSpec(architecture="worst-values")
BY_PLACE = "highest = highest * (1 + 2.0**-22 * (torch.arange(len(highest)) == len(highest) - 1)[:, None])"
"""The last bits of whoever comes last are others, as those of some vectorised functions are."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with as_in_a_new_process(tmp_path, "worst_values"):
        yield tmp_path


def signed(start: bytes = b"") -> TrainPlan:
    """A plan of the model that is installed now, which begins with ``start``."""
    schema = series_schema()
    return make_plan(
        modality="series",
        schema_name=schema.name,
        schema_digest=schema.digest,
        model=look_up(SERIES_LAYOUT, SPEC),
        privacy=Privacy(noise_multiplier=Decimal(4), selection_rate=Decimal("0.1")),
        federation=Federation(rounds=2, steps_per_round=1),
        warm_start=sha256_hex(start),
    )


def rehearsed(folder: Path, code: str, performance: Performance) -> SelfTestReport:
    lay_down(folder, code, **FIELDS)
    return rehearse_clinical(SERIES_LAYOUT, look_up(SERIES_LAYOUT, SPEC), performance)


def workload() -> SeriesWorkload:
    return SeriesWorkload(site_name="north", device="cpu", schema=series_schema(), dataset=series_dataset(40))


def test_the_documented_model_passes_the_self_test(folder: Path) -> None:
    report = rehearsed(folder, CODE, Performance())
    assert report.sum_deviation < 1e-5
    assert [name for name, _ in report.layers] == ["network.read", "network.write"]


def with_layer(layer: str, use: str) -> str:
    """The model with one more layer, used on what was read."""
    code = CODE.replace("        self.read =", f"        self.more = nn.{layer}\n        self.read =")
    return code.replace("        return self.write(", f"        {use}\n        return self.write(")


@pytest.mark.parametrize("tile", [100, 256])
def test_its_place_in_a_tile_decides_nothing_for_a_patient(folder: Path, threads: int, tile: int) -> None:
    rehearsed(folder, CODE, Performance(patients_at_once=tile))


def test_a_model_by_which_the_place_of_a_patient_decides_a_last_bit_is_found(folder: Path) -> None:
    """Too slight for every comparison but that of the places."""
    with pytest.raises(ClippingError, match="place in a tile"):
        rehearsed(folder, with_layer("Identity()", BY_PLACE), Performance())


@pytest.mark.parametrize(
    "code",
    [
        with_layer("BatchNorm1d(3)", "lowest = self.more(lowest)"),
        with_layer("GRU(3, 3, batch_first=True)", "lowest = lowest + self.more(values)[0][:, 0]"),
        with_layer("Dropout(0.5)", "lowest = self.more(lowest)"),
        with_layer("Identity()", "lowest = lowest - highest.mean(dim=0)"),
        with_layer("Identity()", "lowest = lowest + 1e-4 * torch.cumsum(highest, dim=0)"),
        with_layer("Identity()", "highest = highest + self.write.bias.sum()"),
        with_layer("Identity()", BY_PLACE),
    ],
    ids=["batch-norm", "torch-gru", "dropout", "batch-mean", "running-sum", "borrowed-parameter", "by-place"],
)
def test_a_model_that_mixes_patients_or_cannot_be_clipped_is_refused_before_anything_is_spent(
    folder: Path, code: str
) -> None:
    lay_down(folder, code, **FIELDS)
    settings = make_settings(folder)
    vault, journal = open_vault(settings, workload())
    try:
        coordinator = Coordinator(vault, signed())
        assert coordinator.hello().status == "ok"
        reply = coordinator.propose()
        assert (reply.status, reply.code) == ("refused", "model-not-clippable")
        assert coordinator.kinds == ["key-registered", "plan-refused"]
        assert journal.spent(settings.dataset) == journal.committed(settings.dataset) == []
    finally:
        journal.close()


@pytest.mark.parametrize("version", ["2.0", None])
def test_a_site_without_the_signed_model_refuses_the_plan(tmp_path: Path, version: str | None) -> None:
    coordinators, sites = tmp_path / "coordinators", tmp_path / "sites"
    lay_down(coordinators, CODE, **FIELDS)
    with as_in_a_new_process(coordinators, "worst_values"):
        plan = signed()
    if version is not None:
        lay_down(sites, CODE, **FIELDS | {"version": version, "distribution": "of-this-site"})
    settings = make_settings(sites)
    vault, journal = open_vault(settings, workload())
    try:
        with as_in_a_new_process(sites, "worst_values"):
            coordinator = Coordinator(vault, plan)
            assert coordinator.hello().status == "ok"
            envelope = vault.handle(coordinator.propose_request())
        reply = coordinator.take(envelope)
        assert (reply.status, reply.code) == ("refused", "model-not-installed")
        assert b"of-this-site" not in envelope.header + envelope.payload
        assert journal.committed(settings.dataset) == []
    finally:
        journal.close()


def test_a_package_that_changed_since_the_plan_was_accepted_spends_nothing(folder: Path) -> None:
    lay_down(folder, CODE, **FIELDS)
    network = build_series_classifier(SERIES_LAYOUT, look_up(SERIES_LAYOUT, SPEC))
    anchor = usual_anchor(SERIES_LAYOUT).to_vector()
    payload = encode_model(np.concatenate([parameter_vector(network), anchor, np.array([0.5, 0.5], np.float32)]))
    settings = make_settings(folder)
    vault, journal = open_vault(settings, workload())
    try:
        coordinator = Coordinator(vault, signed(payload))
        coordinator.join()
        assert coordinator.round(1, payload).status == "ok"
        spent = journal.spent(settings.dataset)
        assert len(spent) == 1
        (folder / "worst_values.py").write_text(CODE.replace("amax", "amin"), encoding="utf-8")
        with as_in_a_new_process(folder, "worst_values"):
            reply = coordinator.round(2, payload)
            assert (reply.status, reply.code) == ("refused", "model-not-installed")
        assert journal.spent(settings.dataset) == spent
    finally:
        journal.close()
