"""Canonical JSON: one value, one byte string, no floats."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from synclave_shared.canonical import ExactDecimal, FrozenModel, canonical_bytes, decimal_text


class Holder(FrozenModel):
    value: ExactDecimal


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-1000, max_value=1000))
def test_equal_decimals_have_one_text(number: Decimal) -> None:
    text = decimal_text(number)
    assert Decimal(text) == number
    assert decimal_text(number + Decimal("0.0000000")) == text
    assert canonical_bytes(Holder(value=text)) == canonical_bytes(Holder(value=number))


@pytest.mark.parametrize("value", [1.5, True, "NaN", "Infinity", None])
def test_inexact_and_non_finite_numbers_are_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Holder.model_validate({"value": value})


@pytest.mark.parametrize("value", [{"a": 1.0}, {"a": [1, {"b": 0.5}]}, [1, 2.5]])
def test_a_float_anywhere_is_refused(value: dict[str, object] | list[object]) -> None:
    with pytest.raises(ValueError, match="float at"):
        canonical_bytes(value)


def test_key_order_does_not_matter() -> None:
    assert canonical_bytes({"b": 1, "a": [True, None]}) == b'{"a":[true,null],"b":1}'
    assert canonical_bytes({"a": [True, None], "b": 1}) == b'{"a":[true,null],"b":1}'
