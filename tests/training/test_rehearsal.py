"""Every model that a plan can ask for is clipped rightly on this machine, and a patient's place decides no bit."""

from typing import Any

import pytest

from synclave_client.performance import Performance
from synclave_client.training.rehearsal import rehearse, rehearse_schema
from synclave_shared.plan import ModelSpec
from tests.models.small import small_schema
from tests.models.small_series import series_schema


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"corruption": "masked"},
        {"width": 16},
        {"width": 16, "corruption": "masked"},
        {"width": 16, "blocks": 1, "coupled_columns": 0},
        {"width": 16, "coupled_columns": 5, "noise_levels": 1},
    ],
)
def test_every_model_of_a_plan_passes_the_self_test(spec: dict[str, Any]) -> None:
    report = rehearse(small_schema(), ModelSpec.model_validate(spec), Performance())
    assert report.sum_deviation < 1e-5
    assert any("tower" in name for name, _ in report.layers) == bool(spec.get("width"))


def test_each_modality_has_a_default_model_that_is_rehearsed() -> None:
    codes = rehearse_schema(small_schema(), Performance())
    series = rehearse_schema(series_schema(), Performance())
    assert [name for name, _ in codes.layers] == ["coupling"]
    assert [name for name, _ in series.layers] == ["step", "stay", "context"]
