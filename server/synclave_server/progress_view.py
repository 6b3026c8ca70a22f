"""What a person sees while a run goes on: one line that moves on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from synclave_server.run_folder import RoundProgress

__all__ = ["Steps", "training_view"]


class Steps:
    """Numbered headings of a command's steps, with the time each took.

    Args:
        console: where to print.
        total: number of steps.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the title, run the block, print how long it took."""
        self._done += 1
        self._console.print(f"[bold]{self._done}/{self._total}[/bold] {escape(title)}")
        started = time.monotonic()
        yield
        self._console.print(f"    [dim]{time.monotonic() - started:.1f} s[/dim]")

    def note(self, text: str) -> None:
        """One indented line of detail."""
        self._console.print(f"    {escape(text)}", soft_wrap=True)


def _time_left(event: RoundProgress, history: list[float]) -> str:
    left = event.rounds - event.round
    if not history or left <= 0:
        return ""
    recent = history[-3:]
    return f"about {left * sum(recent) / len(recent):.0f} s left"


def _details(event: RoundProgress, history: list[float]) -> str:
    parts = [event.text]
    if event.epsilon is not None:
        parts.append(f"epsilon so far {event.epsilon:.3g}")
    parts.append(_time_left(event, history))
    return ", ".join(part for part in parts if part)


@contextmanager
def training_view(console: Console) -> Iterator[Callable[[RoundProgress], None]]:
    """A progress display of the rounds; yields the callback for a run's events."""
    history: list[float] = []
    if not console.is_terminal:

        def line(event: RoundProgress) -> None:
            if event.stage == "training" and event.seconds:
                history.append(event.seconds)
            place = f"round {event.round}/{event.rounds}: " if event.stage == "training" else ""
            console.print(f"    {place}{escape(_details(event, history))}", soft_wrap=True)

        yield line
        return
    with Progress(
        TextColumn("   "),
        SpinnerColumn(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("rounds"),
        TimeElapsedColumn(),
        # What does not fit is cut: a line that wraps would jump.
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=console,
        expand=True,
    ) as progress:
        task = progress.add_task("starting", total=None)

        def move(event: RoundProgress) -> None:
            if event.stage == "training" and event.seconds:
                history.append(event.seconds)
            done = event.round if event.seconds or event.last else max(event.round - 1, 0)
            progress.update(task, total=event.rounds, completed=done, description=escape(_details(event, history)))

        yield move
