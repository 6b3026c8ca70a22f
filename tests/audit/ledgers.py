"""Ledgers to audit: two sites, two plans, a budget that was raised, and what an adversary may put into names."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from tests.ledger.story import SITES, Story, make_plan

HOSTILE = "<script>alert(1)</script>\"'&\u202e<img src=x>"
"""A data set's name as a site may choose it: markup, quotes, and a character that turns the text around."""

FIRST = make_plan(rounds=2, minimum_sites=1)
SECOND = make_plan(rounds=1, name="second", noise="2", minimum_sites=1)


def two_plans() -> Story:
    """A first training by both sites, samples drawn, and a second one by berlin alone after it raised its budget."""
    story = Story(FIRST).whole()
    story.sample()
    story.plan = SECOND
    story.propose()
    story.accept("berlin")
    story.change_budget("berlin", "4")
    for number in range(2):
        story.reserve("berlin", number)
        story.release("berlin", number)
        story.aggregate(number, ["berlin"])
        story.snapshot(number)
    story.close(1)
    story.plan = FIRST
    return story


def hostile() -> Story:
    """A training by sites that call their data sets :data:`HOSTILE`."""
    with mock.patch("tests.ledger.story.DATASET", HOSTILE):
        return Story().whole()


def written(story: Story, folder: Path) -> Path:
    """Write a story as a ledger that both sites co-signed."""
    story.write(folder)
    return folder


__all__ = ["FIRST", "HOSTILE", "SECOND", "SITES", "hostile", "two_plans", "written"]
