"""What a person reads while a run goes on, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re

from rich.console import Console

from synclave_server.progress_view import training_view
from synclave_server.run_folder import RoundProgress
from tests.federation.conftest import NewWorld
from tests.federation.hospitals import events


def shown(happened: list[RoundProgress], *, terminal: bool) -> str:
    """What the display writes for these events."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with training_view(console) as view:
        for event in happened:
            view(event)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


def test_each_event_is_a_line_that_names_its_round_once(new_world: NewWorld) -> None:
    world = new_world(rounds=2)
    with world.up():
        world.train()
    lines = [line.strip() for line in shown(events(world.run), terminal=False).splitlines()]
    assert "marginals: waiting for 3 sites" in lines
    assert "round 1/2: waiting for 3 sites" in lines
    assert any(line.startswith("round 2/2: 3 of 3 sites replied, epsilon so far") for line in lines)
    assert not any(len(re.findall(r"\bround\b", line)) > 1 for line in lines)


def test_a_terminal_shows_one_line_however_long_the_text() -> None:
    reasons = "3 of 4 sites replied; north: the site did not answer in time" + "; and so on" * 20
    event = RoundProgress(stage="training", text=reasons, round=1, rounds=8, seconds=2.0, epsilon=1.25)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown([event], terminal=True))
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert any("1/8 rounds" in line and "3 of 4 sites" in line for line in lines)
    assert all("/" in line and len(line) <= 100 for line in lines), lines
