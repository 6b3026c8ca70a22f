from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.audit.ledgers import Ledgers, read_ledgers
from synclave_shared.audit.report.facts import Facts, facts_document, gather, verdict
from synclave_shared.audit.report.markup import element
from synclave_shared.audit.report.page import render, write_report
from synclave_shared.audit.report.registry import registry_document
from synclave_shared.audit.report.standards import answers
from synclave_shared.audit.rules import RULES
from synclave_shared.audit.words import listed
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import COORDINATOR
from tests.audit.ledgers import HOSTILE, hostile, written
from tests.ledger.story import SITES, START, Story, files_of, key_of, make_plan


@pytest.fixture(scope="module")
def facts(ledgers: Ledgers) -> Facts:
    return gather(ledgers)


@pytest.fixture(scope="module")
def page(facts: Facts) -> str:
    return render(facts)


def parsed(page: str) -> ElementTree.Element:
    # What we write is XML as well, except for the line above it: a tag left open would not parse.
    return ElementTree.fromstring(page.removeprefix("<!doctype html>\n"))


def words(node: ElementTree.Element) -> str:
    return " ".join("".join(node.itertext()).split())


def test_the_page_needs_nothing_from_anywhere(page: str) -> None:
    root = parsed(page)
    assert not {node.tag for node in root.iter()} & {"script", "link", "img", "iframe", "object", "form"}
    assert not re.search(r"https?:|url\(|@import|javascript:", page)
    assert not [name for node in root.iter() for name in node.attrib if name.startswith("on")]
    policy = root.find("head/meta[@http-equiv]")
    assert policy is not None
    assert "default-src 'none'" in policy.attrib["content"]


def test_every_link_leads_to_a_place_on_the_page(page: str) -> None:
    root = parsed(page)
    places = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(set(places)) == len(places)
    links = [node.attrib["href"] for node in root.iter("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(places)


def test_the_page_says_what_the_verdict_says(facts: Facts, page: str) -> None:
    text = words(parsed(page))
    assert verdict(facts) in text
    for account in facts.accounts:
        assert f"{account.site}, data set {account.dataset}" in text
        assert f"{account.epsilon:.4f}" in text
    for key in (key_of(name).public_text for name in (COORDINATOR, *SITES)):
        assert key in text
    for rule in RULES:
        assert rule.title in text
    assert "synclave 0.1.0" in text


def test_charts_are_described_in_words(page: str) -> None:
    charts = list(parsed(page).iter("svg"))
    assert len(charts) == 2
    for chart in charts:
        title, words_ = chart.attrib["aria-labelledby"].split()
        named = {node.attrib.get("id"): node for node in chart.iter()}
        assert "Cumulative epsilon" in words(named[title])
        assert "staircase" in words(named[words_])


def test_the_same_ledger_gives_the_same_report(two_plans_ledger: Path, page: str) -> None:
    assert render(gather(read_ledgers([two_plans_ledger]))) == page


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    facts = gather(read_ledgers([written(hostile(), tmp_path / "ledger")]))
    assert facts.ledgers.valid
    page = render(facts)
    root = parsed(page)
    assert not {node.tag for node in root.iter()} & {"script", "img"}
    assert "\u202e" not in page
    assert HOSTILE.replace("\u202e", "\\u202e") in words(root)
    written_ = write_report(facts, tmp_path / "out")
    for path in written_[1:]:
        json.loads(path.read_text(encoding="utf-8"))


def test_a_page_of_several_ledgers_names_the_ledger_of_every_entry(two_plans_ledger: Path, tmp_path: Path) -> None:
    with mock.patch("tests.ledger.story.START", START + timedelta(days=40)):
        again = written(Story(make_plan(rounds=1, name="third")).whole(), tmp_path / "third")
    facts = gather(read_ledgers([two_plans_ledger, again]))
    page = render(facts)
    root = parsed(page)
    places = {node.attrib["id"] for node in root.iter() if "id" in node.attrib}
    assert {node.attrib["href"].removeprefix("#") for node in root.iter("a")} <= places
    text = words(root)
    assert verdict(facts) in text
    assert "These 2 ledgers are intact" in text
    for account in facts.accounts:
        assert f"{account.epsilon:.4f}" in text
        assert f"Every number is of the reservations in entries {listed(account.entries)}." in text
        assert "of ledger 1; " in listed(account.entries)
    # The chart shows which training spent, with its name, and days below.
    (berlin, _) = root.iter("svg")
    names = ["".join(node.itertext()) for node in berlin.iter("text")]
    assert {"demo", "second", "third"} <= set(names)
    assert {point.time[:10] for point in facts.accounts[0].course} >= {
        name for name in names if name.startswith("2026-")
    }
    json.dumps([facts_document(facts), registry_document(facts)], allow_nan=False)


@given(st.text())
def test_whatever_is_put_into_an_element_stays_text(text: str) -> None:
    node = ElementTree.fromstring(element("p", text, title=text).text)
    assert list(node) == []
    assert set(node.attrib) == {"title"}
    assert all(part.isprintable() for part in (node.text or "", node.attrib["title"]))


def test_what_is_wrong_stands_first_with_what_to_do(tmp_path: Path) -> None:
    story = Story(epsilon="1").opening()
    for number in range(3):
        story.round(number)
    story.release("berlin", 2, b"twice")
    facts = gather(read_ledgers([written(story, tmp_path / "ledger")]))
    assert verdict(facts).startswith("This ledger must not be relied on")
    text = words(parsed(render(facts)))
    for found in facts.errors:
        assert found.finding.explanation in text
    assert {found.finding.code for found in facts.errors} >= {"release-repeated"}
    assert text.index("must not be relied on") < text.index("Who took part")


def test_the_verdict_depends_on_the_keys_that_were_compared(two_plans_ledger: Path, facts: Facts) -> None:
    assert "provided that" in verdict(facts)
    key = key_of(COORDINATOR).public_text
    pinned = gather(read_ledgers([two_plans_ledger], coordinator_keys=[key]))
    assert "provided that" not in verdict(pinned)
    assert "compared with yours" in render(pinned)


@pytest.mark.parametrize("story", [Story().opening(), Story()], ids=["nothing spent", "empty"])
def test_a_ledger_with_little_in_it(tmp_path: Path, story: Story) -> None:
    story.write(tmp_path / "ledger", witnessed=False, in_steps=10)
    facts = gather(read_ledgers([tmp_path / "ledger"]))
    parsed(render(facts))
    json.dumps([facts_document(facts), registry_document(facts)], allow_nan=False)


def test_a_spend_without_any_guarantee_is_called_infinite(tmp_path: Path) -> None:
    from decimal import Decimal

    from synclave_shared.privacy.mechanism import GaussianSum

    story = Story().opening()
    nothing = GaussianSum(noise_multiplier=Decimal("0.000001"), clip_norm=Decimal(1))
    story.reserve("berlin", 0, mechanism=nothing)
    facts = gather(read_ledgers([written(story, tmp_path / "ledger")]))
    assert "infinite" in words(parsed(render(facts)))
    json.dumps([facts_document(facts), registry_document(facts)], allow_nan=False)


def test_the_numbers_as_json(facts: Facts) -> None:
    document = facts_document(facts)
    assert document["valid"] is True
    assert [account["site"] for account in document["accounts"]] == list(SITES)
    for account, own in zip(document["accounts"], facts.accounts, strict=True):
        assert account["epsilon"] == own.epsilon
        assert account["entries"] == [{"ledger": 1, "entries": [entry for _, entry in own.entries]}]
        assert own.epsilon < account["epsilon_replace_one"] <= 2.5 * own.epsilon
        assert account["accountants"]["disagreements"] == []
    (both,) = document["patient_at_several_sites"]
    assert both["epsilon"] > max(own.epsilon for own in facts.accounts)
    assert len(document["checked"]) == len(RULES)


def test_what_a_registry_asks_for(facts: Facts) -> None:
    document = registry_document(facts)
    assert document["deployment_name"] == "demo, second"
    assert document["privacy"]["epsilon"] == max(account.epsilon for account in facts.accounts)
    assert document["privacy"]["delta"] == 1e-5
    assert document["trust_model"]["modes"] == ["local"]
    assert document["implementation"]["stated_by_sites"]["oslo"] == {"synclave": "0.1.0"}
    assert document["verification"]["valid"] is True
    # What no ledger knows is left for the curator, not invented.
    assert document["purpose"] is document["region"] is document["curator"]["organisation"] is None


def test_every_subject_of_the_standard_is_answered_with_a_place(facts: Facts, page: str) -> None:
    found = answers(facts)
    assert len({answer.subject for answer in found}) == len(found) >= 12
    places = {node.attrib.get("id") for node in parsed(page).iter()}
    assert {answer.place for answer in found} <= places
    assert {answer.coverage for answer in found} == {"covered", "partly", "not covered"}


def test_a_report_goes_into_an_empty_folder_only(facts: Facts, tmp_path: Path) -> None:
    paths = write_report(facts, tmp_path / "new")
    assert [path.name for path in paths] == ["index.html", "report.json", "registry.json"]
    before = files_of(tmp_path)
    with pytest.raises(LedgerError, match="something in it"):
        write_report(facts, tmp_path / "new")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LedgerError):
        write_report(facts, tmp_path / "file")
    assert files_of(tmp_path) == {**before, "file": b"mine"}
