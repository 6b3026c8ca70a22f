"""Tables and a figure from the cells of ``bench.notes.rewriting``."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.notes.leak_count import LEAKS

__all__ = ["write_report"]

Cells = Mapping[str, Any]


def write_report(document: Mapping[str, Any], path: Path, figure: Path) -> None:
    """Write bench/results/notes-rewriting.md and the figure, from what is there."""
    cells: Cells = document["cells"]
    lines = [
        "# Rewriting notes at the site",
        "",
        "`python -m bench.notes.rewriting --data DIR`; how to read it: [docs/notes.md](../../docs/notes.md#how-good-rewriting-is).",
        "",
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}. Mean ± standard deviation over seeds (keys of the site: other surrogates, other words); one trained"
        f" language model, the embedded one. Defaults: ratio .5, all mentions kept, temperature 1, top-p .95, 10 calls."
        f" Judge of words: a trigram model of {document['judge_notes']} notes that neither the language model nor the test set has."
        f" CPU seconds on a machine that others were using.",
        "",
        *_leaks(cells),
        *_kept(cells),
        *_linkage(cells),
        *_variety(cells),
        *_calls(cells),
        *_bert(cells),
        *_types(cells),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _draw(cells, figure)


def _of(cells: Cells, prefix: str) -> list[Any]:
    return [value for key, value in sorted(cells.items()) if key.rpartition("/")[0] == prefix]


def _spread(values: Sequence[float], digits: int = 3, percent: bool = False) -> str:
    if not values:
        return "-"
    scale = 100 if percent else 1
    mean, std = scale * float(np.mean(values)), scale * float(np.std(values, ddof=1)) if len(values) > 1 else None
    unit = " %" if percent else ""
    return f"{mean:.{digits}f}{unit}" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f}{unit}"


def _row(*values: object) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def _leaks(cells: Cells) -> list[str]:
    lines = ["## Identifiers that survive", ""]
    lines += [_row("set", "notes", "gold strings", *LEAKS, "share", "95 % at most", "refused", "tries rejected")]
    lines += ["|---" * (8 + len(LEAKS)) + "|"]
    for arm, name in (
        ("leaks", "as they are"),
        ("unlisted", "names and towns that no list has"),
        ("published", "one word at a time, as published"),
    ):
        runs = _of(cells, f"arm/{arm}")
        if not runs:
            continue
        gold = sum(one["gold"] for one in runs)
        counts = [sum(one["leaks"][kind] for one in runs) for kind in LEAKS]
        share, most = sum(counts) / gold, _wilson(sum(counts), gold)
        rejected = sum(sum(one["rejected_tries"].values()) for one in runs)
        notes = sum(one["notes"] for one in runs)
        refused = sum(one["refused"] for one in runs)
        lines.append(_row(name, notes, gold, *counts, f"{100 * share:.2f} %", f"{100 * most:.2f} %", refused, rejected))
    return [
        *lines,
        "",
        "*missed*: the detector did not cover it. *elsewhere*: it was replaced, and the same words stand in the source"
        " where gold marks nothing. *predicted*: neither; the model or another surrogate wrote it. *name part*: one word of"
        " a name. Notes count once for each seed. The first two lines were made with an earlier state of the same language model's"
        " training (step 700 of 900).",
        "",
    ]


def _wilson(count: int, total: int, z: float = 1.645) -> float:
    share = count / total
    middle = share + z**2 / (2 * total)
    return (middle + z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))) / (1 + z**2 / total)


def _kept(cells: Cells) -> list[str]:
    runs = _of(cells, "arm/default")
    lines = ["## What is kept", "", _row("measure", "value"), "|---|---|"]
    if runs:
        low, high = runs[0]["entity_f1_interval"]
        first, last = runs[0]["flips_interval"]
        lines += [
            _row(
                "mentions, F1 between what the finder finds in source and output",
                f"{_spread([one['entity_f1'] for one in runs])} (95 % of the first seed {low:.3f}-{high:.3f})",
            ),
            _row(
                "of the source's mentions whose words stand in the output",
                _spread([one["mentions_there"] for one in runs]),
            ),
            _row(
                "findings denied in one and affirmed in the other",
                _spread([one["negation_flips"] for one in runs], 2, True),
            ),
            _row("findings on another side", _spread([one["side_flips"] for one in runs], 2, True)),
            _row(
                "either",
                f"{_spread([one['flips'] for one in runs], 2, True)} (95 % of the first seed {100 * first:.2f}-{100 * last:.2f} %)",
            ),
            _row(
                "longest run of words shared with the source, kept ones not counted",
                max(one["longest_run"] for one in runs),
            ),
            _row("the same, all words counted", max(one["longest_run_kept_too"] for one in runs)),
            _row(
                "reading ease, rewritten / source",
                f"{np.mean([one['reading_ease'] for one in runs]):.1f} / {np.mean([one['reading_ease_of_sources'] for one in runs]):.1f}",
            ),
        ]
    for name, label in (("lists", "patterns and lists"), ("tagger", "and the tagger")):
        if f"gold/{name}" in cells:
            one = cells[f"gold/{name}"]
            kinds = ", ".join(f"{kind} {share:.2f}" for kind, share in one["by_kind"].items())
            lines.append(
                _row(
                    f"gold mentions of {one['notes']} MACCROBAT reports still there; what is kept is found by {label}",
                    f"{one['kept']:.3f} ({kinds}); {100 * one['words_kept_as_entities']:.0f} % of words kept",
                )
            )
    return [*lines, ""]


def _linkage(cells: Cells) -> list[str]:
    lines = [
        "## Traced to its source",
        "",
        _row("mentions kept", "by words, top-1", "by embedding, top-1", "mentions whose words are there"),
        "|---|---|---|---|",
    ]
    for share, arm in _shares():
        runs, embedded = _of(cells, f"arm/{arm}"), _of(cells, f"embedding/{arm}")
        if runs:
            lines.append(
                _row(
                    share,
                    _spread([one["linkage_words"] for one in runs]),
                    _spread([one["top1"] for one in embedded]),
                    _spread([one["mentions_there"] for one in runs]),
                )
            )
    among = _of(cells, "arm/default")[0]["everyone"] if _of(cells, "arm/default") else 0
    second = _of(cells, "embedding/default")[0]["among"] if _of(cells, "embedding/default") else 0
    chance = f"Chance: {1 / among:.4f} of {among} notes by words" if among else ""
    chance += f", {1 / second:.4f} of {second} by embedding." if second else "."
    return [*lines, "", chance, ""]


def _shares() -> list[tuple[float, str]]:
    return [(share, f"keep-{share}") for share in (1.0, 0.5, 0.25, 0.1, 0.0)]


_CONTROLS = (
    ("ratio", (0.25, 0.5, 0.75), 0.5),
    ("temperature", (0.5, 1.0, 1.5), 1.0),
    ("top-p", (0.5, 0.95, 1.0), 0.95),
)


def _variety(cells: Cells) -> list[str]:
    lines = [
        "## Variety",
        "",
        _row("control", "self-BLEU of a note's rewritings", "distinct-2", "nats a word", "mentions F1", "calls a note"),
        "|---|---|---|---|---|---|",
    ]
    for control, values, default in _CONTROLS:
        for value in values:
            arm = "default" if value == default else f"{control}-{value}"
            runs = _of(cells, f"arm/{arm}")
            if runs and f"variety/{arm}" in cells:
                lines.append(
                    _row(
                        f"{control} {value}",
                        f"{cells[f'variety/{arm}']['self_bleu']:.3f}",
                        _spread([one["distinct_2"] for one in runs]),
                        _spread([one["nats"] for one in runs]),
                        _spread([one["entity_f1"] for one in runs]),
                        _spread([one["calls"] for one in runs], 1),
                    )
                )
    return [*lines, "", "Self-BLEU and distinct-2 of the same 8 notes throughout; lower self-BLEU is more varied.", ""]


def _calls(cells: Cells) -> list[str]:
    lines = [
        "## Calls of the network",
        "",
        _row(
            "way",
            "calls a note",
            "CPU s a note, filling",
            "one word at a time / this",
            "nats a word",
            "source's nats",
            "mentions F1",
            "findings turned or moved",
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    published = _of(cells, "arm/published")
    slow = float(np.mean([one["fill_s"] for one in published])) if published else float("nan")
    for name, arm in (
        *((f"{calls} calls", f"calls-{calls}") for calls in (4, 8, 16, 32)),
        ("8 calls, of the 6 likeliest words", "top-6-calls-8"),
        ("16 calls, of the 6 likeliest words", "top-6-calls-16"),
        ("one word at a time, of the 6 likeliest, as published", "published"),
    ):
        runs = _of(cells, f"arm/{arm}")
        if runs:
            lines.append(
                _row(
                    name,
                    _spread([one["calls"] for one in runs], 1),
                    _spread([one["fill_s"] for one in runs]),
                    f"{slow / np.mean([one['fill_s'] for one in runs]):.1f}",
                    _spread([one["nats"] for one in runs]),
                    _spread([one["nats_of_sources"] for one in runs]),
                    _spread([one["entity_f1"] for one in runs]),
                    _spread([one["flips"] for one in runs], 1, True),
                )
            )
    return [*lines, ""]


def _bert(cells: Cells) -> list[str]:
    if "bert-base" not in cells:
        return []
    one = cells["bert-base"]
    lines = [
        "## A network of BERT-base's size",
        "",
        f"{one['parameters'] / 1e6:.0f} M random parameters, a note of 256 tokens, {one['blanks']} words to write, CPU seconds of one core.",
        "",
        _row("way", "core-seconds", "one word at a time / this"),
        "|---|---|---|",
    ]
    for name, label in (
        ("float32-8", "8 calls, float32"),
        ("float32-16", "16 calls, float32"),
        ("bfloat16-8", "8 calls, bfloat16"),
        ("bfloat16-16", "16 calls, bfloat16"),
    ):
        lines.append(_row(label, f"{one[name]:.2f}", f"{one['word_by_word'] / one[name]:.1f}"))
    lines.append(
        _row(
            f"one word at a time, float32 ({one['called']} words done, the others as long)",
            f"{one['word_by_word']:.1f}",
            "1",
        )
    )
    return [*lines, ""]


def _types(cells: Cells) -> list[str]:
    runs = _of(cells, "types")
    if not runs:
        return []
    lines = [
        "## What rewritten notes teach",
        "",
        _row("of real notes", "trained on real", "trained on rewritten", "rewritten / real"),
        "|---|---|---|---|",
    ]
    for column, label in (("primary_specialty", "specialty"), ("note_type", "type of note")):
        for score in ("accuracy", "macro_f1"):
            real = [one[f"{column}/real/{score}"] for one in runs]
            made = [one[f"{column}/rewritten/{score}"] for one in runs]
            lines.append(
                _row(
                    f"{label}, {score.replace('_', ' ')} ({runs[0][f'{column}/train']} to train on, {runs[0][f'{column}/test']} to test)",
                    _spread(real),
                    _spread(made),
                    _spread([b / a for a, b in zip(real, made, strict=True)]),
                )
            )
    return [*lines, "", "TF-IDF and logistic regression, the eight commonest kinds.", ""]


def _draw(cells: Cells, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (linked, varied, called) = pyplot.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)

    def line(axes: Any, points: Sequence[tuple[float, str]], value: Callable[[str], list[float]], label: str) -> None:
        known = [(x, value(arm)) for x, arm in points if value(arm)]
        if known:
            spread = [np.std(values) if len(values) > 1 else 0 for _, values in known]
            axes.errorbar(
                [x for x, _ in known],
                [np.mean(values) for _, values in known],
                spread,
                marker="o",
                capsize=2,
                label=label,
            )

    line(linked, _shares(), lambda arm: [one["linkage_words"] for one in _of(cells, f"arm/{arm}")], "by words")
    line(linked, _shares(), lambda arm: [one["top1"] for one in _of(cells, f"embedding/{arm}")], "by embedding")
    linked.set(xlabel="share of mentions kept", ylabel="traced to its source, top-1", ylim=(-0.02, 1.02))
    linked.legend(frameon=False)
    for control, values, default in _CONTROLS:
        points = [(value, "default" if value == default else f"{control}-{value}") for value in values]
        line(
            varied,
            points,
            lambda arm: [cells[f"variety/{arm}"]["self_bleu"]] if f"variety/{arm}" in cells else [],
            control,
        )
    varied.set(xlabel="value of the control", ylabel="self-BLEU (lower: more varied)")
    varied.legend(frameon=False)
    line(
        called,
        [(calls, f"calls-{calls}") for calls in (4, 8, 16, 32)],
        lambda arm: [one["nats"] for one in _of(cells, f"arm/{arm}")],
        "rewritten",
    )
    published = _of(cells, "arm/published")
    if published:
        called.axhline(
            np.mean([one["nats"] for one in published]), linestyle="--", color="tab:red", label="one word at a time"
        )
    called.set(
        xlabel="calls of the network",
        ylabel="nats a word (lower: likelier)",
        xscale="log",
        xticks=[4, 8, 16, 32],
        xticklabels=[4, 8, 16, 32],
    )
    called.minorticks_off()
    called.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
