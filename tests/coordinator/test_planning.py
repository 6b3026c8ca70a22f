"""From a person's plan file to the agreement: exact numbers, enough noise, and faults that are named."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from synclave_server.examples import find_example
from synclave_server.planning import compile_plan, parse_plan_file
from synclave_shared.data.schema import Schema
from synclave_shared.errors import PlanError
from synclave_shared.plan import TrainPlan, read_plan_toml
from synclave_shared.privacy.accountant import epsilon, epsilon_prv

KEYS = {name: letter * 43 + "=" for name, letter in (("north", "N"), ("south", "S"))}
COORDINATOR = "C" * 43 + "="


def raw_plan(**privacy: Any) -> dict[str, Any]:
    return {
        "name": "trial",
        "schema": "schema.toml",
        "privacy": {"epsilon": 3, "selection_rate": Decimal("0.05"), **privacy},
        "federation": {"rounds": 4, "steps_per_round": 10},
        "site_defaults": {"nominal_patients": 2000},
    }


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema.load(find_example("diabetes").schema)


def compiled(raw: dict[str, Any], schema: Schema) -> TrainPlan:
    return compile_plan(parse_plan_file(raw), schema=schema, coordinator_key=COORDINATOR, site_keys=KEYS)


@pytest.mark.parametrize(
    "marginals", [None, {"noise_multiplier": 10, "clip_norm": 5}, {"epsilon_share": Decimal("0.7")}]
)
@pytest.mark.parametrize("target", [Decimal("0.8"), 3, 8])
def test_the_calibrated_plan_spends_no_more_than_the_target_and_not_much_less(
    schema: Schema, target: Any, marginals: Any
) -> None:
    plan = compiled(raw_plan(epsilon=target, marginals=marginals), schema)
    spent = epsilon(plan.mechanisms(), float(plan.privacy.delta))
    assert 0.97 * float(target) <= spent <= float(target)


def test_a_share_of_epsilon_is_what_the_marginals_alone_cost(schema: Schema) -> None:
    plan = compiled(raw_plan(epsilon=2, marginals={"epsilon_share": Decimal("0.5")}), schema)
    alone = epsilon([plan.mechanism(0)], float(plan.privacy.delta))
    assert 0.99 <= alone <= 1


def test_given_noise_is_taken_as_it_is(schema: Schema) -> None:
    plan = compiled(raw_plan(epsilon=None, noise_multiplier=Decimal("1.250")), schema)
    assert plan.privacy.noise_multiplier == Decimal("1.25")


def test_the_plan_names_the_sites_with_their_keys(schema: Schema) -> None:
    raw = raw_plan() | {"sites": {"south": {"nominal_patients": 500}}}
    plan = compiled(raw, schema)
    assert [(site.name, site.public_key, site.nominal_patients) for site in plan.sites] == [
        ("north", KEYS["north"], 2000),
        ("south", KEYS["south"], 500),
    ]
    assert plan.schema_digest == schema.digest


@pytest.mark.parametrize("target", [1, 3])
def test_the_second_accountant_agrees_with_the_example_within_2_percent(schema: Schema, target: int) -> None:
    raw = read_plan_toml(find_example("diabetes").plan)
    raw = {key: value for key, value in raw.items() if key != "sites"} | {"site_defaults": {"nominal_patients": 9000}}
    raw["privacy"] = raw["privacy"] | {"epsilon": target}
    raw["federation"] = raw["federation"] | {"minimum_sites": 1}
    plan = compiled(raw, schema)
    ours = epsilon(plan.mechanisms(), float(plan.privacy.delta))
    theirs = epsilon_prv(plan.mechanisms(), float(plan.privacy.delta))
    assert theirs is not None
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"privacy": {"selection_rate": Decimal("0.1")}}, "neither"),
        (
            {"privacy": {"selection_rate": Decimal("0.1"), "epsilon": 1, "noise_multiplier": 1}},
            "both",
        ),
        ({"privacy": {"epsilon": 1, "selection_rate": 2}}, "privacy.selection_rate"),
        ({"privacy": {"epsilon": 1, "selection_rate": Decimal("0.1"), "marginals": {}}}, "neither"),
        (
            {
                "privacy": {
                    "noise_multiplier": 1,
                    "selection_rate": Decimal("0.1"),
                    "marginals": {"epsilon_share": Decimal("0.5")},
                }
            },
            "epsilon_share",
        ),
        ({"federation": {"rounds": 0, "steps_per_round": 1}}, "federation.rounds"),
        ({"colour": "red"}, "colour"),
        ({"privacy": {"epsilon": 1.5, "selection_rate": Decimal("0.1")}}, "privacy.epsilon"),
    ],
)
def test_faulty_keys_are_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan_file(raw_plan() | change)
    assert complaint in refused.value.found


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"sites": {"west": {"nominal_patients": 5}}}, "no key for ['west']"), ({"site_defaults": None}, "north")],
)
def test_sites_without_key_or_size_are_named(schema: Schema, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError) as refused:
        compiled(raw_plan() | change, schema)
    assert complaint in refused.value.found


def test_a_plan_file_that_is_not_there_or_not_toml_is_explained(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="nothing at"):
        read_plan_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ", encoding="utf-8")
    with pytest.raises(PlanError, match=r"bad\.toml"):
        read_plan_toml(tmp_path / "bad.toml")


def test_numbers_of_a_plan_file_never_become_binary_floats(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("x = 0.00001", encoding="utf-8")
    assert read_plan_toml(tmp_path / "plan.toml")["x"] == Decimal("0.00001")


def test_a_model_whose_release_could_not_travel_is_refused_before_anything_is_signed(schema: Schema) -> None:
    """Residual blocks alone have 1.6 thousand million parameters here."""
    raw = raw_plan() | {"model": {"width": 4096, "blocks": 16, "coupled_columns": 0}}
    with pytest.raises(PlanError, match="parameters") as refused:
        compiled(raw, schema)
    assert "width" in refused.value.remedy


def raw_copula(**privacy: Any) -> dict[str, Any]:
    return {
        "name": "fast",
        "schema": "schema.toml",
        "model": {"kind": "copula"},
        "privacy": {"epsilon": 3, **privacy},
        "site_defaults": {"nominal_patients": 2000},
    }


@pytest.mark.parametrize("target", [Decimal("0.8"), 3])
@pytest.mark.parametrize("marginals", [None, {"clip_norm": 6}, {"epsilon_share": Decimal("0.3")}])
def test_a_copula_needs_an_epsilon_alone_and_spends_it(schema: Schema, target: Any, marginals: Any) -> None:
    plan = compiled(raw_copula(epsilon=target, marginals=marginals), schema)
    spent = epsilon(plan.mechanisms(), float(plan.privacy.delta))
    assert 0.97 * float(target) <= spent <= float(target)
    assert plan.privacy.clip_norm == Decimal("0.35")
    share = 0.3 if marginals and "epsilon_share" in marginals else 0.6
    alone = epsilon([plan.mechanism(0)], float(plan.privacy.delta))
    assert 0.98 * share * float(target) <= alone <= share * float(target)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"privacy": {"epsilon": 3, "selection_rate": Decimal("0.1")}}, "privacy.selection_rate has no meaning"),
        ({"privacy": {"noise_multiplier": 2}}, "privacy.marginals is missing"),
        ({"federation": {"rounds": 3}}, "federation.rounds has no meaning"),
        ({"model": {"kind": "copula", "width": 64}}, "width"),
        ({"model": {"kind": "oracle"}}, "'diffusion', 'copula'"),
        ({"model": {}}, "privacy.selection_rate is missing"),
        ({"warm_start": {"model": "here"}}, "warm_start has no meaning"),
        ({"site_defaults": {"nominal_patients": 5, "weight": 1}}, "sites.weight has no meaning"),
    ],
)
def test_a_copulas_plan_file_without_meaning_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan_file(raw_copula() | change)
    assert complaint in refused.value.found


def test_moments_that_could_not_travel_are_refused_before_anything_is_signed(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = schema.width * (schema.width + 1) // 2
    monkeypatch.setattr("synclave_server.planning.MOST_PARAMETERS", moments)
    assert compiled(raw_copula(), schema)
    monkeypatch.setattr("synclave_server.planning.MOST_PARAMETERS", moments - 1)
    with pytest.raises(PlanError, match=str(moments)) as refused:
        compiled(raw_copula(), schema)
    assert "fewer columns" in refused.value.remedy
