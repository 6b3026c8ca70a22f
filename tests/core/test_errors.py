"""The error page: one tree, complete, with closed codes."""

import inspect
import re

import pytest

from synclave_shared import errors
from synclave_shared.errors import REFUSAL_CODES, PolicyRefusal, SynclaveError


def test_the_page_lists_every_error_and_every_error_has_its_own_place() -> None:
    classes = {name for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, SynclaveError)}
    assert classes | {"REFUSAL_CODES"} == set(errors.__all__)
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"── (\w+)", errors.__doc__))
    assert drawn | {"SynclaveError"} == classes


def test_an_error_answers_three_questions() -> None:
    error = SynclaveError(expected="a file", found="a folder", remedy="Give a file.")
    assert str(error) == "expected a file; found a folder. Give a file."


def test_refusals_come_from_the_closed_vocabulary() -> None:
    for code in REFUSAL_CODES:
        assert PolicyRefusal(code, found="x", remedy="y").refusal == code
        assert re.fullmatch(r"[a-z-]{1,40}", code)
    with pytest.raises(ValueError, match="unknown refusal code"):
        PolicyRefusal("patient 17", found="x", remedy="y")
