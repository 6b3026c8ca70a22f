"""A site's own rules, and the errors that say what is wrong with them."""

from pathlib import Path

import pytest

from synclave_shared.errors import ConfigurationError
from synclave_shared.text.phi import Detector, read_rules
from synclave_shared.text.spans import PhiClass


def _written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_rules_add_patterns_lists_and_keeps(tmp_path: Path) -> None:
    rules = read_rules(
        _written(
            tmp_path,
            """
            threshold = 0.4
            [[pattern]]
            name = "ward-number"
            class = "mrn"
            regex = 'WN\\w{4}'
            [lists]
            names = ["Núñez"]
            [keep]
            patterns = ["date-year"]
            """,
        )
    )
    text = "WNabcd, nunez, in 1999"
    spans = Detector.for_locale("en", rules=rules).detect(text)
    assert [(text[s.start : s.end], s.phi, s.source) for s in spans] == [
        ("WNabcd", PhiClass.MRN, "pattern:ward-number"),
        ("nunez", PhiClass.NAME, "rules"),
    ]
    assert any(
        s.kind == "year"
        for s in Detector.for_locale("en", rules=read_rules(_written(tmp_path, "threshold = 0.4"))).detect(text)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threshold = 2", "threshold"),
        ("colour = 1", "colour"),
        ("[[pattern]]\nname = 'x'\nclass = 'shoe'\nregex = 'a'", "class"),
        ("[[pattern]]\nname = 'x'\nclass = 'mrn'\nregex = '('", "regular expression"),
        ("[[pattern]]\nname = 'x'\nclass = 'mrn'\nregex = 'a*'", "at least one"),
        ("[[pattern]]\nname = 'x'\nclass = 'mrn'\nregex = '(a+)+b'", "grows with"),
        ("not toml", "readable rules"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_rules(_written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"rules\.toml"):
        read_rules(tmp_path / "rules.toml")
