"""The start-up self-test: what it lets pass, what it stops, and that nothing is opened or spent before it passed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.private_step.models import ResidualMlp, Rows, SeriesTransformer, Unet
from synclave_client.cli import app
from synclave_client.performance import Performance
from synclave_client.settings import SiteSettings
from synclave_client.training import rehearsal
from synclave_client.training.private import PatientGradients, SelfTestReport, self_test
from synclave_client.training.private.factors import Outer
from synclave_client.training.private.norms import Norms
from synclave_client.training.private.rules import LAYER_RULES
from synclave_client.vault import workload as vault_workload
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.workload import PatientWorkload
from synclave_shared.audit import console
from synclave_shared.errors import ClippingError
from synclave_shared.ledger.entry import parse_entry
from synclave_shared.plan import ModelSpec, TrainPlan
from tests.training.clipping.slow_truth import rows, squared_outputs
from tests.vault.coordinator import (
    COORDINATOR_KEY,
    Coordinator,
    FakeWorkload,
    make_plan,
    make_settings,
    open_vault,
)
from tests.vault.toy import write_hospital

OWNERS = [0, 0, 1, 2, 2, 3]


def inputs(*shape: int, owners: list[int] | None = None) -> Rows:
    return rows(torch.randn(len(OWNERS), *shape, generator=torch.Generator().manual_seed(0)), owners)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 4))


def loud(network: Any, batch: Rows) -> Tensor:
    """Gradients well above 1."""
    return 100 * squared_outputs(network, batch)


@pytest.mark.parametrize("owners", [None, OWNERS], ids=["one row each", "several rows"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: ResidualMlp(7, 8, 1), (8,)),
        (lambda: SeriesTransformer(channels=3, width=8, layers=1, places=4), (4, 3)),
        (lambda: Unet(channels=3, base=8), (3, 8)),
    ],
    ids=["mlp", "transformer", "unet"],
)
def test_good_networks_pass_and_are_left_as_they_were(
    make: Callable[[], nn.Module], shape: tuple[int, ...], owners: list[int] | None
) -> None:
    torch.manual_seed(0)
    network = make()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = self_test(network, squared_outputs, inputs(*shape, owners=owners))
    assert report.patients == (4 if owners else 6)
    assert report.rows == 6
    assert report.parameters == sum(value.numel() for value in network.parameters())
    holders = {name for name, module in network.named_modules() if module._parameters}
    assert {name for name, _ in report.layers} == holders
    assert all(type(network.get_submodule(name)).__name__ == kind for name, kind in report.layers)
    assert 0 <= report.norm_deviation <= 1e-4
    assert 0 <= report.sum_deviation <= 1e-4
    assert report.seconds > 0
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(value.requires_grad and value.grad is None for value in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("clipping", ["book-keeping", "hooks", "ghost"])
def test_every_way_to_clip_passes(clipping: Any) -> None:
    report = self_test(small(), squared_outputs, inputs(8), Performance(clipping=clipping))
    assert report.sum_deviation <= 1e-4


def test_three_patients_are_enough_to_pass_and_to_find_that_they_are_mixed() -> None:
    batch = inputs(8).select(torch.arange(3))
    assert self_test(small(), squared_outputs, batch).patients == 3
    with pytest.raises(ClippingError, match="the loss"):
        self_test(small(), lambda network, batch: squared_outputs(network, batch).cumsum(0).flip(0), batch)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        return hidden - hidden.mean(0)


class Remembering(nn.Module):
    """The mean of the batches so far is taken off."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.inner(x)
        self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0)
        return hidden - self.mean


def network_with(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.Dropout(0.1), "dropout layers: 1"),
        (nn.BatchNorm1d(8), r"1 \(BatchNorm1d"),
        (nn.PReLU(), r"1 \(PReLU"),
        (Mixer(), r"1 \(Mixer\)"),
        (Remembering(), "two values for the same rows"),
    ],
)
def test_refusals_name_the_layer(layer: nn.Module, named: str) -> None:
    with pytest.raises(ClippingError, match=named):
        self_test(network_with(layer), squared_outputs, inputs(8))
    self_test(network_with(nn.Tanh()), squared_outputs, inputs(8))


def test_gradients_that_are_zero_or_not_finite_prove_nothing() -> None:
    for factor in (0.0, float("nan")):
        with pytest.raises(ClippingError):
            self_test(small(), lambda network, batch: factor * squared_outputs(network, batch), inputs(8))  # noqa: B023


def halved_rule(use: Any, owned: Any) -> Any:
    found = RIGHT_RULE(use, owned)
    weight = found["weight"]
    return {**found, "weight": replace(weight, g=weight.g / 2)}


def swapped_rule(use: Any, owned: Any) -> Any:
    """Every patient has its neighbour's gradient: the plain sum is right, and who gave it is not."""
    found = RIGHT_RULE(use, owned)
    weight = found["weight"]
    return {**found, "weight": replace(weight, x=weight.x.roll(1, 0), g=weight.g.roll(1, 0))}


def forgotten_bias(use: Any, owned: Any) -> Any:
    return {"weight": RIGHT_RULE(use, owned)["weight"]}


RIGHT_RULE = LAYER_RULES[nn.Linear]


@pytest.mark.parametrize(
    ("rule", "layers"), [(halved_rule, r"0\.weight, 3\.weight"), (forgotten_bias, r"0\.bias, 3\.bias")]
)
def test_a_broken_rule_is_caught_by_the_names_of_its_parameters(
    rule: Any, layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    self_test(small(), loud, inputs(8))
    monkeypatch.setitem(LAYER_RULES, nn.Linear, rule)
    with pytest.raises(ClippingError, match=f"layers: {layers}\\."):
        self_test(small(), loud, inputs(8))


def test_a_rule_that_confuses_patients_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYER_RULES, nn.Linear, swapped_rule)
    with pytest.raises(ClippingError, match="patients are mixed"):
        self_test(small(), loud, inputs(8))


@pytest.mark.parametrize("shape", [(8,), (3, 8), (40, 8)])
@pytest.mark.parametrize("factor", [0.999, 0.5])
def test_norms_that_are_too_small_are_caught(
    factor: float, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of such a rule is right, and yet patients would count too much."""
    right = Outer.norms
    monkeypatch.setattr(Outer, "norms", lambda own: Norms(*(part * factor**2 for part in right(own))))
    with pytest.raises(ClippingError, match=r"% short"):
        self_test(small(), loud, inputs(*shape))


def test_a_sum_that_counts_patients_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Outer.put_weighted

    def twice(own: Outer, weights: Any, total: Tensor, keep: int) -> None:
        right(own, weights, total, keep)
        right(own, weights, total, 1)

    monkeypatch.setattr(Outer, "put_weighted", twice)
    with pytest.raises(ClippingError, match="clipped sum of one backward pass per patient") as refused:
        self_test(small(), loud, inputs(8))
    assert "0.weight, 3.weight" in refused.value.found


class SlightlyMixing(nn.Module):
    """Each patient gets a hundred-thousandth of everybody: nothing among equals, much of somebody loud."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.layer(x)
        return hidden + 1e-5 * hidden.sum(0)


def test_slight_mixing_lets_a_loud_patient_move_the_sum_by_many_clip_norms() -> None:
    """Why the next test matters."""
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    x[0] *= 1e7
    gradients = PatientGradients(SlightlyMixing(), squared_outputs, 1.0)
    whole = gradients.clipped_sum([rows(x)]).clone()
    assert float((whole - gradients.clipped_sum([rows(x[1:])])).norm()) > 10


class MixedOnTheWayBack(torch.autograd.Function):
    """Everybody's gradient gets a hundred-thousandth of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> Tensor:
        return pulls[0] + 1e-5 * pulls[0].sum(0)


@pytest.mark.parametrize("owners", [None, [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 2, 3, 3, 3]])
def test_slight_mixing_is_refused(owners: list[int] | None) -> None:
    torch.manual_seed(0)
    batch = rows(torch.randn(8, 8), owners)
    with pytest.raises(ClippingError, match="change with the other patients"):
        self_test(SlightlyMixing(), squared_outputs, batch)
    network = nn.Linear(8, 8)

    def mixed_back(own: Any, batch: Rows) -> Tensor:
        return squared_outputs(lambda x: MixedOnTheWayBack.apply(own(x)), batch)

    with pytest.raises(ClippingError, match="what returns to"):
        self_test(network, mixed_back, batch)


class Rewriting(nn.Module):
    """Patients' data gather where no version counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("kept", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.kept.data.add_(x.detach().flatten(1).mean(0))  # type: ignore[operator]
        found: Tensor = self.layer(x)
        return found


def test_a_network_that_rewrites_itself_is_refused() -> None:
    with pytest.raises(ClippingError, match="kept"):
        self_test(Rewriting(), squared_outputs, inputs(8))


@pytest.mark.parametrize("factor", [0.5, 100.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bounds_that_are_not_the_norms_are_refused_in_any_precision(
    factor: float, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Outer.norms
    monkeypatch.setattr(Outer, "norms", lambda own: Norms(*(part * factor**2 for part in right(own))))
    network = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    with pytest.raises(ClippingError):
        self_test(network, squared_outputs, inputs(8), Performance(precision=precision))


def test_fewer_than_three_patients_prove_nothing() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        self_test(nn.Linear(8, 4), squared_outputs, rows(torch.randn(2, 8)))


# At a site.


def site_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        console.run(app, [str(argument) for argument in arguments])
    return int(left.value.code or 0), capsys.readouterr().out


def made_site(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    write_hospital(folder)
    options = {
        "name": "north",
        "data": folder / "data",
        "schema": folder / "schema.toml",
        "coordinator-key": COORDINATOR_KEY.public_text,
        "epsilon": "3",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    assert site_command(capsys, "init", folder / "site", *arguments)[0] == 0
    return folder / "site" / "site.toml"


def test_the_command_shows_what_was_proved_and_touches_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = made_site(tmp_path, capsys)
    # Were the data opened, this would be a fault.
    (tmp_path / "data" / "patients.csv").write_text("not a table of patients\n")
    before = {path: path.read_bytes() for path in settings.parent.rglob("*") if path.is_file()}
    code, out = site_command(capsys, "self-test", "--settings", settings, "--json")
    document = json.loads(out)
    assert (code, document["name"], document["passed"]) == (0, "north", True)
    assert (document["device"], document["clipping"], document["precision"]) == ("cpu", "book-keeping", "float32")
    assert [layer["class"] for layer in document["layers"]] == ["SymmetricCoupling"]
    assert document["parameters"] > 0
    assert document["invented_patients"] >= 3
    assert 0 <= document["norm_deviation"] <= 1e-4
    assert 0 <= document["sum_deviation"] <= 1e-4
    code, shown = site_command(capsys, "self-test", "--settings", settings)
    assert code == 0
    assert "Passed." in shown
    assert {path: path.read_bytes() for path in settings.parent.rglob("*") if path.is_file()} == before


def test_the_command_fails_where_clipping_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = made_site(tmp_path, capsys)
    _break_couplings(monkeypatch)
    code, out = site_command(capsys, "self-test", "--settings", settings, "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (1, "clipping")
    assert "weight" in error["found"]


def _break_couplings(monkeypatch: pytest.MonkeyPatch) -> None:
    from synclave_shared.models.coupling import SymmetricCoupling

    right = LAYER_RULES[SymmetricCoupling]

    def halved(use: Any, owned: Any) -> Any:
        factor: Any = right(use, owned)["weight"]
        return {"weight": replace(factor, g=factor.g / 2)}

    monkeypatch.setitem(LAYER_RULES, SymmetricCoupling, halved)


def hospital_settings(folder: Path) -> SiteSettings:
    write_hospital(folder)
    return make_settings(folder)


def test_a_site_whose_clipping_is_broken_never_opens_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = hospital_settings(tmp_path)
    opened: list[Path] = []
    read = vault_workload.load_patients

    def recorded(schema: Any, folder: Path) -> Any:
        opened.append(folder)
        return read(schema, folder)

    monkeypatch.setattr(vault_workload, "load_patients", recorded)
    assert PatientWorkload.load(settings).schema_digest
    assert opened == [settings.data_folder]
    opened.clear()
    _break_couplings(monkeypatch)
    with pytest.raises(ClippingError, match="weight"):
        PatientWorkload.load(settings)
    assert opened == []


def test_the_order_is_schema_then_proof_then_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any data there, what is wrong with the clipping is what is said."""
    settings = hospital_settings(tmp_path)
    (tmp_path / "data" / "patients.csv").unlink()

    def refuse(*_: Any) -> SelfTestReport:
        raise ClippingError(expected="a proof", found="none at layer 7", remedy="nothing")

    monkeypatch.setattr(vault_workload, "rehearse", refuse)
    with pytest.raises(ClippingError, match="layer 7"):
        PatientWorkload.load(settings)


def test_a_plan_is_rehearsed_with_its_own_model_and_the_sites_own_way_to_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = hospital_settings(tmp_path).model_copy(update={"performance": Performance(clipping="hooks")})
    asked: list[tuple[int, str]] = []

    def noted(schema: Any, spec: Any, performance: Performance, device: Any) -> SelfTestReport:
        asked.append((spec.noise_levels, performance.clipping))
        return rehearsal.rehearse(schema, spec, performance, device)

    workload = PatientWorkload.load(settings)
    monkeypatch.setattr(vault_workload, "rehearse", noted)
    plan = make_plan()
    workload.check_model(plan.model_copy(update={"model": plan.model.model_copy(update={"noise_levels": 3})}))
    assert asked == [(3, "hooks")]


def test_sites_of_one_process_prove_one_model_once_and_a_failure_is_never_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def noted(schema: Any, spec: Any, performance: Performance, device: Any) -> SelfTestReport:
        asked.append(spec.noise_levels)
        return rehearsal.rehearse(schema, spec, performance, device)

    monkeypatch.setattr(vault_workload, "rehearse", noted)
    rehearsals = Rehearsals()
    settings = hospital_settings(tmp_path)
    workloads = [PatientWorkload.load(settings, rehearsals) for _ in range(2)]
    default = ModelSpec().noise_levels
    assert asked == [default]
    plan = make_plan()
    other = plan.model_copy(update={"model": plan.model.model_copy(update={"noise_levels": 3})})
    for workload in workloads:
        workload.check_model(other)
    assert asked == [default, 3]
    _break_couplings(monkeypatch)
    for _ in range(2):
        with pytest.raises(ClippingError):
            workloads[0].check_model(plan.model_copy(update={"model": ModelSpec(noise_levels=2)}))
    assert asked == [default, 3, 2, 2]


class NotClippable(FakeWorkload):
    def check_model(self, plan: TrainPlan) -> None:
        raise ClippingError(expected="a layer", found="layer secret_name of this site", remedy="Replace it.")


def test_a_plan_whose_model_cannot_be_clipped_is_refused_in_the_ledger(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    workload = NotClippable()
    vault, journal = open_vault(settings, workload)
    try:
        coordinator = Coordinator(vault, make_plan())
        assert coordinator.hello().status == "ok"
        for _ in range(2):
            envelope = vault.handle(coordinator.propose_request())
            reply = coordinator.take(envelope)
            assert (reply.status, reply.code) == ("refused", "model-not-clippable")
            assert b"secret_name" not in envelope.header + envelope.payload
        assert coordinator.kinds == ["key-registered", "plan-refused"]
        assert parse_entry(coordinator.entries[-1]).verify()
        assert journal.spent(settings.dataset) == []
        assert journal.committed(settings.dataset) == []
        assert journal.plan_spends() == []
        assert journal.plan(coordinator.plan.digest) is None
        assert [refusal for _, _, refusal in journal.refusals()] == ["model-not-clippable"]
        assert coordinator.round(1).code == "plan-not-accepted"
        assert workload.releases == []
    finally:
        journal.close()
