"""Tables and picture of the ablation of guidance."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from bench.series.ablation import ARMS
from bench.series.report import spread

Answers = Mapping[str, Mapping[str, list[dict[str, Any]]]]
"""Question -> row -> the cells of all seeds."""

TAUGHT: Final = {
    "logistic_auroc": "logistic AUROC",
    "logistic_auprc": "AUPRC",
    "boosting_auroc": "boosting AUROC",
    "boosting_auprc": "AUPRC",
}


def taught_columns(cells: list[Mapping[str, float]]) -> str:
    return " | ".join(spread([cell[key] for cell in cells]) for key in TAUGHT)


def tables(found: Answers) -> list[str]:
    """Markdown of the three questions."""
    text = [
        "| clinical model learnt from, vector | held-out AUROC | AUPRC | vector / a patient's gradient | / chance |"
        " cosine: held-out | synthetic | clipped / noise at epsilon 2 | cosine: synthetic | gap / chance |"
        " cosine: held-out | AUROC after the step | AUPRC |",
        f"|---|{'---|' * 12}",
    ]
    for name, cells in found["where"].items():
        columns = [
            spread([cell["held_out"]["auroc"] for cell in cells]),
            spread([cell["held_out"]["auprc"] for cell in cells]),
            *(spread([cell[key] for cell in cells], 2) for key in NUMBERS),
            spread([cell["after_step"]["auroc"] for cell in cells]),
            spread([cell["after_step"]["auprc"] for cell in cells]),
        ]
        text.append(f"| {name} | {' | '.join(columns)} |")
    heads = f"{' | '.join(TAUGHT.values())}"
    text += ["", f"| of the pool | score by | {heads} |", f"|---|---|{'---|' * len(TAUGHT)}"]
    for by, cells in found["score"].items():
        for name in (name for name in cells[0] if name != "machine"):
            text.append(f"| {name} | {by} | {taught_columns([cell[name] for cell in cells])} |")
    text += [
        "",
        f"| guidance | {heads} | gap left |",
        f"|---|{'---|' * (len(TAUGHT) + 1)}",
    ]
    for name, cells in found["arm"].items():
        gaps = [gap for cell in cells if (gap := cell.get("gap_left")) is not None]
        left = spread(gaps, 2) + (f" ({len(gaps)} of {len(cells)} seeds)" if 0 < len(gaps) < len(cells) else "")
        text.append(f"| {name} | {taught_columns([cell['taught'] for cell in cells])} | {left} |")
    if found["pace"]:
        text += ["", "| time of drawing, guided / unguided | logistic | tcn | transformer |", "|---|---|---|---|"]
    for name, cells in found["pace"].items():
        text.append(f"| {name} | {' | '.join(spread([cell[key] for cell in cells], 2) for key in cells[0])} |")
    return text


NUMBERS: Final = (
    "of_a_patient",
    "of_chance",
    "to_held_out",
    "to_synthetic",
    "of_noise",
    "clipped_to_synthetic",
    "gap_of_chance",
    "gap_to_held_out",
)


def draw_picture(found: Answers, path: Path) -> None:
    """What cohorts teach, less what their unguided or random counterparts do, seed by seed."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines: list[tuple[Any, str, list[Mapping[str, float]], list[Mapping[str, float]]]] = []
    for by in ("gradient", "step"):
        for name in ("best half", "worst half", "without the worst fifth", "without the best fifth"):
            other = "random half" if "half" in name else "without a random fifth"
            cells, plain = found["score"].get(by, []), found["score"].get("chance", [])
            if not (cells and plain):
                continue
            lines.append((left, f"{name}, {by}", [cell[name] for cell in cells], [cell[other] for cell in plain]))
    for name, cells in found["arm"].items():
        other = ARMS["even"].title if name == ARMS["step-even"].title else ARMS["label"].title
        plain = [cell["taught"] for cell in found["arm"].get(other, [])]
        if plain and name not in (ARMS["label"].title, "as many real patients"):
            lines.append((right, name, [cell["taught"] for cell in cells], plain))
    for axes in (left, right):
        mine = [line for line in lines if line[0] is axes]
        for shift, key, colour in ((-0.15, "logistic_auroc", "tab:blue"), (0.15, "boosting_auroc", "tab:orange")):
            for height, (_, _, cells, plain) in enumerate(mine):
                gains = [cell[key] - one[key] for cell, one in zip(cells, plain, strict=False)]
                axes.plot(gains, [height + shift] * len(gains), ".", color=colour)
                axes.plot(statistics.mean(gains), height + shift, "|", color=colour, markersize=12)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(mine)), labels=[name for _, name, _, _ in mine], fontsize=7)
        axes.invert_yaxis()
    left.set_xlabel("AUROC less that of as many random ones")
    right.set_xlabel("AUROC less that of unguided ones")
    right.legend(
        handles=[
            right.plot([], [], ".", color=colour, label=name)[0]
            for name, colour in (("logistic", "tab:blue"), ("boosting", "tab:orange"))
        ],
        fontsize=7,
    )
    figure.savefig(path, dpi=150)
