from __future__ import annotations

from pathlib import Path

import pytest

from synclave_shared.audit.explain import explain
from synclave_shared.audit.ledgers import Ledgers
from synclave_shared.audit.reading import Reading, read_ledger
from synclave_shared.audit.rules import RULES, remedy_of, rule_of
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import BODIES
from synclave_shared.privacy.accountant import epsilon
from tests.audit.ledgers import FIRST, two_plans, written
from tests.ledger.story import Story, key_of

ROOT = Path(__file__).parents[2]


def every_kind(folder: Path) -> Reading:
    story = two_plans()
    story.rotate("oslo", key_of("oslo-new"))
    from synclave_shared.ledger.entry import PlanRefused

    story.tell("plan-refused", "oslo", PlanRefused(plan_digest=FIRST.digest, refusal="paused"))
    return read_ledger(written(story, folder / "ledger"))


def test_every_kind_of_entry_is_explained(tmp_path: Path) -> None:
    reading = every_kind(tmp_path)
    kinds = set()
    for index in range(reading.report.size):
        explanation = explain(reading, index)
        kinds.add(explanation.kind)
        assert explanation.entry == index
        assert explanation.who
        assert explanation.what
        assert explanation.patients
        assert explanation.rules
        assert all(holds for _, holds in explanation.rules)
        assert "Not known" not in explanation.patients
        assert "calls itself" not in explanation.who
    assert kinds == set(BODIES)


def test_a_spend_is_told_with_what_it_does_to_the_total(reading: Reading) -> None:
    mechanisms = FIRST.mechanisms()
    second = reading.replay.kinds["spend-reserved"][2]
    explanation = explain(reading, second)
    assert reading.entry(second).actor == explanation.actor == "berlin"
    assert f"from {epsilon(mechanisms[:1], 1e-5):.4f} to {epsilon(mechanisms[:2], 1e-5):.4f}" in explanation.patients
    assert "delta 0.00001" in explanation.patients
    assert "The budget is 3." in explanation.patients
    assert "5 training steps" in explanation.what
    last = explain(reading, reading.replay.kinds["spend-reserved"][-1])
    assert "The budget is 4." in last.patients
    assert "second" in last.plan


def test_what_is_wrong_with_an_entry_is_told_with_what_to_do(tmp_path: Path) -> None:
    story = Story().opening()
    story.release("berlin", 0)
    reading = read_ledger(written(story, tmp_path / "ledger"))
    explanation = explain(reading, len(story.entries) - 1)
    assert [finding.code for finding in explanation.findings] == ["release-unreserved"]
    assert [title for title, holds in explanation.rules if not holds] == [
        "Nothing left a site before it was charged, and nothing twice"
    ]
    assert explanation.remedies == (remedy_of("release-unreserved"),)


def test_a_stranger_is_not_taken_for_a_site(tmp_path: Path) -> None:
    story = Story().opening()
    story.keys["berlin"] = key_of("stranger")
    story.reserve("berlin", 0)
    reading = read_ledger(written(story, tmp_path / "ledger"))
    assert "calls itself berlin" in explain(reading, len(story.entries) - 1).who


def test_an_entry_that_is_not_there(reading: Reading) -> None:
    for index in (-1, reading.report.size):
        with pytest.raises(LedgerError, match="an entry from 0"):
            explain(reading, index)


def test_every_documented_finding_belongs_to_one_rule_with_a_remedy() -> None:
    text = (ROOT / "docs" / "ledger-format.md").read_text(encoding="utf-8")
    table = text.partition("## What verification checks")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {code for cell in cells for code in cell.split("`")[1::2]}
    assert documented
    assert documented == {code for rule in RULES for code in rule.codes}
    assert sum(len(rule.codes) for rule in RULES) == len(documented)
    for code in documented:
        rule = rule_of(code)
        assert rule is not None
        assert rule.remedy == remedy_of(code)


def test_rules_are_counted_over_the_ledger(ledgers: Ledgers) -> None:
    counts = {rule.of: rule.count(ledgers) for rule in RULES}
    assert counts["entries"] == ledgers.readings[0].report.size
    assert counts["reservations"] == counts["releases"] == 8
    assert counts["data sets"] == 2
    assert counts["spending sites"] == 2
    assert counts["data sets in several ledgers"] == counts["names in several ledgers"] == 0
    assert counts["keys that you gave"] == counts["checkpoints that you gave (--seen)"] == 0
