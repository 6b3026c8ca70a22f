"""A plan names a clinical model that is installed, and another one, or none, is refused."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from synclave_shared.errors import PlanError
from synclave_shared.model_size import parameters_of
from synclave_shared.model_spec import InstalledModel
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.installed import look_up
from synclave_shared.plan import ClassifierSpec, InfluenceSpec, TrainPlan
from tests.models.installed import as_in_a_new_process, documented, lay_down
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_plan, series_schema

CODE, FIELDS = documented()
SPEC = ClassifierSpec(architecture="worst-values")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The document's model is installed in it."""
    lay_down(tmp_path, CODE, **FIELDS)
    with as_in_a_new_process(tmp_path, "worst_values"):
        yield tmp_path


def pinned(spec: ClassifierSpec) -> InstalledModel:
    assert spec.installed is not None
    return spec.installed


def refusal(spec: ClassifierSpec) -> PlanError:
    with pytest.raises(PlanError) as caught:
        build_series_classifier(SERIES_LAYOUT, spec)
    assert caught.value.remedy
    return caught.value


def test_the_model_of_the_document_is_looked_up_and_built(folder: Path) -> None:
    spec = look_up(SERIES_LAYOUT, SPEC)
    found = pinned(spec)
    assert (found.distribution, found.version) == ("worst-values", "1.0")
    network = build_series_classifier(SERIES_LAYOUT, spec)
    assert parameter_vector(network).size == found.parameters == parameters_of(spec, series_schema())
    again = build_series_classifier(SERIES_LAYOUT, spec)
    assert (parameter_vector(again) == parameter_vector(network)).all()
    assert isinstance(look_up(SERIES_LAYOUT, InfluenceSpec(architecture="worst-values")), InfluenceSpec)


def test_what_stands_after_the_end_of_a_stay_is_not_shown(folder: Path) -> None:
    network = build_series_classifier(SERIES_LAYOUT, look_up(SERIES_LAYOUT, SPEC))
    inside = (torch.arange(STEPS) < 3)[None]
    values = torch.randn(1, STEPS, 3, generator=torch.Generator().manual_seed(0))
    context = torch.zeros(1, SERIES_LAYOUT.context.width)
    shown = []
    network.network.register_forward_pre_hook(lambda _, args: shown.append(args))  # type: ignore[union-attr]
    network(values, torch.ones_like(values), context, inside)
    ((seen, measured, _, _),) = shown
    assert torch.equal(seen[0, :3], values[0, :3])
    assert not seen[0, 3:].any()
    assert measured[0, :, 0].tolist() == [1, 1, 1, 0, 0, 0]


def test_the_digest_of_the_code_is_what_the_shell_prints(tmp_path: Path) -> None:
    lay_down(tmp_path / "one", CODE, **FIELDS)
    lay_down(tmp_path / "many", CODE, **FIELDS | {"target": "severity.worst.values:WorstValues"} | {"version": "1.1"})
    package = tmp_path / "many" / "severity"
    (package / "worst").mkdir(parents=True)
    shutil.move(tmp_path / "many" / "severity.worst.values.py", package / "worst" / "values.py")
    for name in ("__init__.py", "worst/__init__.py", "Zebra.py", "worst-of-all.txt"):
        (package / name).write_text(f"# {name}\n", encoding="utf-8")
    for place, command in (
        ("one", "sha256sum worst_values.py | sha256sum"),
        ("many", "find severity -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum"),
    ):
        with as_in_a_new_process(
            tmp_path / place, "worst_values", "severity", "severity.worst", "severity.worst.values"
        ):
            code = pinned(look_up(SERIES_LAYOUT, SPEC)).code
        printed = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path / place, capture_output=True, text=True, check=True
        ).stdout
        assert code == printed.split()[0]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"version": "1.0.1"}, "version = 1.0.1"),
        ({"distribution": "worse-values"}, "distribution = worse-values"),
        ({}, "code = "),
    ],
)
def test_another_model_than_the_signed_one_is_refused_before_it_is_imported(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, changed: dict[str, str], what: str
) -> None:
    spec = look_up(SERIES_LAYOUT, SPEC)
    other = tmp_path_factory.mktemp("site")
    lay_down(other, CODE if changed else f"{CODE}\n", **FIELDS | changed)
    sys.path.remove(str(folder))
    try:
        with as_in_a_new_process(other, "worst_values"):
            error = refusal(spec)
            assert "worst_values" not in sys.modules
    finally:
        sys.path.insert(0, str(folder))
    assert what in error.found
    assert str(getattr(pinned(spec), what.split()[0])) in error.expected


def test_another_number_of_parameters_than_the_signed_one_is_refused(folder: Path) -> None:
    found = pinned(look_up(SERIES_LAYOUT, SPEC))
    wrong = found.model_copy(update={"parameters": found.parameters + 1})
    assert f"parameters = {found.parameters}" in refusal(SPEC.model_copy(update={"installed": wrong})).found
    with pytest.raises(PlanError, match="parameters"):
        look_up(SERIES_LAYOUT, SPEC.model_copy(update={"installed": wrong}))


def test_a_model_that_nobody_offers_and_one_that_two_offer_are_refused(folder: Path) -> None:
    assert "no installed package" in refusal(ClassifierSpec(architecture="tnc")).found
    lay_down(folder, CODE, **FIELDS | {"distribution": "worse-values", "version": "3"})
    with as_in_a_new_process(folder, "worst_values"):
        assert "worse-values 3" in refusal(SPEC).found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise OSError('no such weights')", "OSError: no such weights"),
        ("WorstValues = None", "TypeError"),
        ("def WorstValues(layout, spec): return 7", "int"),
        (CODE.replace("layout.label_values", "3"), "(2, 3)"),
        (CODE.replace("self.write = ", "self.more = nn.Linear(2, 2).double()\n        self.write = "), "more.weight"),
        (CODE.replace("    def forward", "        self.write.requires_grad_(False)\n\n    def forward"), "not trained"),
    ],
)
def test_what_is_no_such_network_is_refused(tmp_path: Path, code: str, found: str) -> None:
    lay_down(tmp_path, code, **FIELDS)
    with as_in_a_new_process(tmp_path, "worst_values"):
        assert found in refusal(SPEC).found


def test_a_plan_cannot_be_signed_without_saying_which_model_is_meant(folder: Path) -> None:
    with pytest.raises(PlanError, match="looked up"):
        parameters_of(SPEC, series_schema())
    with pytest.raises(ValueError, match="no meaning"):
        ClassifierSpec(architecture="gru", installed=look_up(SERIES_LAYOUT, SPEC).installed)
    plan = series_plan().model_dump() | {"warm_start": "0" * 64}
    plan["privacy"] |= {"marginals": None}
    with pytest.raises(ValueError, match=r"model\.installed is missing"):
        TrainPlan.model_validate(plan | {"model": SPEC.model_dump()})
    signed = TrainPlan.model_validate(plan | {"model": look_up(SERIES_LAYOUT, SPEC).model_dump()})
    assert TrainPlan.from_bytes(signed.to_bytes()) == signed
