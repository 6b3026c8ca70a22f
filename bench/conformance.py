"""What the conformance audit sees, and what it costs: ``python -m bench.conformance`` (some minutes on 2 cores).

*Power*: the smallest deviation that the first round of a plan shows with probability 99 %, computed from the checks'
own bounds and the quantiles of what they look at; the last line draws 100 rounds of 30 steps at those deviations and
counts. *Overhead*: CPU time of a step of the real training with a stand-in that looks at nothing, and of each thing
that a watch adds, on invented patients; medians. Writes bench/results/conformance.md and .json.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.private_step import models
from synclave_client.performance import Performance
from synclave_client.training.conformance import LOOKED_AT, STEPS_PER_PROBE, RoundWatch
from synclave_client.training.conformance_checks import check_evidence, threshold
from synclave_client.training.loop import Learner, run_steps
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.notes import NotesLearner
from synclave_client.training.private import PatientGradients
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import Federation, ModelSpec, Optimiser, Privacy, SiteEntry, TrainPlan
from synclave_shared.privacy.mechanism import PoissonGaussian
from synclave_shared.text.chunks import NoteChunks

RESULTS = Path(__file__).parent / "results"
STEPS = (30, 100, 1000)
SURE = 2.3263
"""Standard deviations that 99 % of a normal law lie below."""

PARAMETERS = (2_080, LOOKED_AT)
BATCHES = (50, 250, 1_000)
RATE = 0.05

EXPONENT = math.log(2.0 / threshold(1))
"""Nats that a spread's bound needs to fail."""


def quantile_of_mean_square(numbers: int, side: float) -> float:
    """Of the mean of so many squares of standard normal numbers (Wilson and Hilferty 1931)."""
    share = 2.0 / (9.0 * numbers)
    return float(max(1.0 - share + side * SURE * math.sqrt(share), 0.0) ** 3)


def fails(mean_square: float, numbers: int) -> bool:
    return mean_square <= 0 or 0.5 * numbers * (mean_square - 1.0 - math.log(mean_square)) > EXPONENT


def bisected(seen: Callable[[float], bool]) -> float:
    """Smallest deviation from 0 to 1 that is seen; 1 if none is."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high


def less_noise(steps: int, parameters: int) -> float:
    """Share of the noise's standard deviation that may lack."""
    numbers = steps * min(parameters, LOOKED_AT)
    return bisected(lambda lack: fails((1 - lack) ** 2 * quantile_of_mean_square(numbers, 1.0), numbers))


def wrong_rate(steps: int, batch: int) -> float:
    """Relative excess of the selection rate."""
    needed = bisected(lambda z: math.erfc(100 * z / math.sqrt(2)) < threshold(1)) * 100
    variance = batch * steps * (1 - RATE)
    return bisected(
        lambda more: more * batch * steps > needed * math.sqrt(variance) + SURE * math.sqrt(variance * (1 + more))
    )


def narrow_sizes(steps: int) -> float:
    """Share of the binomial variance that batch sizes may have and not be seen to be too equal."""
    return 1 - bisected(lambda lack: fails((1 - lack) * quantile_of_mean_square(steps, 1.0), steps))


def power() -> list[dict[str, Any]]:
    return [
        {
            "steps": steps,
            **{f"noise {parameters}": less_noise(steps, parameters) for parameters in PARAMETERS},
            **{f"rate {batch}": wrong_rate(steps, batch) for batch in BATCHES},
            "sizes": narrow_sizes(steps),
        }
        for steps in STEPS
    ]


def drawn(noise: float, rate: float, seed: int) -> set[str]:
    """Names of the checks that fail in a round of 30 steps, batch 250."""
    what = PoissonGaussian(
        noise_multiplier=Decimal(1), clip_norm=Decimal(1), selection_rate=Decimal(str(RATE)), steps=30
    )
    patients = round(250 / RATE)
    watch, rng = RoundWatch(what, patients, seed=seed), np.random.default_rng(seed)
    for _ in range(30):
        chosen = np.flatnonzero(rng.random(patients) < rate * RATE)
        watch.selected(chosen)
        values = np.zeros(LOOKED_AT)
        with watch.noising(values, len(chosen)):
            values += noise * rng.standard_normal(LOOKED_AT)
    evidence = watch.evidence()
    return {check.name for check in check_evidence(evidence, evidence, 1) if not check.passed}


def confirmed(rounds: int) -> dict[str, int]:
    lack, more = less_noise(30, LOOKED_AT), wrong_rate(30, 250)
    return {
        "rounds": rounds,
        "noise": sum("noise variance / the plan's" in drawn(1 - lack, 1.0, seed) for seed in range(rounds)),
        "rate": sum("patients selected" in drawn(1.0, 1 + more, seed) for seed in range(rounds)),
        "honest": sum(bool(drawn(1.0, 1.0, seed)) for seed in range(rounds)),
    }


class Unwatched(RoundWatch):
    """Looks at nothing."""

    def selected(self, chosen: Any) -> None: ...
    def probe(self, step: int, patients: int) -> None: ...
    @contextmanager
    def noising(self, values: Any, patients: int) -> Iterator[None]:
        yield


class Patients:
    """Invented patients for a network of the private-step bench; see :class:`synclave_client.training.loop.Learner`."""

    values = 1

    def __init__(self, work: models.Workload, patients: int) -> None:
        self.network: nn.Module = work.network
        self._work, self._patients = work, patients

    def __len__(self) -> int:
        return self._patients

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = self._work.loss(network, batch)
        return loss

    def batch(self, rows: Any, size: int, streams: Any, step: int) -> Any:
        numbers = torch.zeros(size, dtype=torch.int64)
        numbers[: len(rows)] = torch.from_numpy(rows) % len(self._work.batch)
        return replace(self._work.batch.select(numbers), present=torch.arange(size) < len(rows))


def plan_of(steps: int, patients: int, rate: str) -> TrainPlan:
    return TrainPlan(
        name="bench",
        coordinator_key="A" * 43 + "=",
        schema_name="bench",
        schema_digest="0" * 64,
        model=ModelSpec(),
        optimiser=Optimiser(learning_rate=Decimal("0.01")),
        privacy=Privacy(noise_multiplier=Decimal(1), selection_rate=Decimal(rate), marginals=None),
        federation=Federation(rounds=1, steps_per_round=steps),
        sites=(SiteEntry(name="site", public_key="A" * 42 + "E=", nominal_patients=patients),),
    )


def cpu_ms(act: Callable[[], object], times: int) -> float:
    """Median CPU time, after one that does not count."""
    act()
    found = []
    for _ in range(times):
        begun = time.process_time()
        act()
        found.append(1000 * (time.process_time() - begun))
    return statistics.median(found)


def invented_notes(patients: int) -> NotesLearner:
    """Patients of two chunks of 128 tokens each, and the embedded language model; the words mean nothing."""
    spec, rng, tokens = NotesSpec(), np.random.default_rng(0), 128
    base = find_base(spec)
    chunks = NoteChunks(
        ids=rng.integers(base.tokenizer.mask + 1, base.tokenizer.size, (2 * patients, tokens)).astype(np.int32),
        predictable=np.ones((2 * patients, tokens), dtype=bool),
        starts=np.arange(0, 2 * patients + 1, 2),
        most=2,
    )
    return NotesLearner(
        network=build_note_lm(spec, base), spec=spec, chunks=chunks, tokenizer=base.tokenizer, device="cpu"
    )


def overhead(title: str, learner: Learner, steps: int = 30) -> dict[str, Any]:
    """CPU time of an unwatched step of a tenth of the patients, and of each thing that a watch adds."""
    patients = len(learner)
    mechanism = plan_of(steps, patients, "0.1").training()[1]
    model, rng = parameter_vector(learner.network), np.random.default_rng(0)
    short, performance = plan_of(2, patients, "0.1"), Performance()
    streams = PatientStreams(SecretRandomness.from_os())

    def unwatched() -> None:
        stand_in = Unwatched(short.training()[1], len(learner))
        run_steps(short, "site", learner, model, SecretRandomness.from_os(), performance, stand_in)

    step = cpu_ms(unwatched, 5) / 2
    gradients = PatientGradients(learner.network, learner.loss, 1.0, performance)
    probe = cpu_ms(lambda: gradients.contribution_norm(learner.batch(np.array([0]), 1, streams, 0)), 15)
    watch, values = RoundWatch(mechanism, len(learner)), rng.standard_normal(model.size)

    def look() -> None:
        watch.selected(chosen)
        with watch.noising(values, len(chosen)):
            pass

    chosen = np.sort(rng.permutation(patients)[: patients // 10])
    look_ms = cpu_ms(look, steps - 1)

    def judge() -> None:
        evidence = watch.evidence()
        check_evidence(evidence, evidence, 1)

    judge_ms = cpu_ms(judge, 7)
    return {
        "title": title,
        "parameters": model.size,
        "step_ms": step,
        "look_ms": look_ms,
        "probe_ms": probe,
        "judge_ms": judge_ms,
        "share": (look_ms + probe / STEPS_PER_PROBE + judge_ms / steps) / step,
    }


def table(document: dict[str, Any]) -> str:
    head = [
        "steps",
        *(f"less noise, {parameters:,} parameters" for parameters in PARAMETERS),
        *(f"wrong rate, batch {batch:,}" for batch in BATCHES),
        "batch sizes: share of the binomial variance",
    ]
    lines = [
        "Smallest deviation that a plan's first round shows with probability 99 %:",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for line in document["power"]:
        cells = [f"{100 * value:.2g} %" for name, value in line.items() if name not in ("steps", "sizes")]
        lines.append(f"| {line['steps']} | " + " | ".join(cells) + f" | below {line['sizes']:.2g} |")
    drawn_ = document["confirmed"]
    lines += [
        "",
        f"Drawn at those deviations, 30 steps, batch 250: less noise was seen in {drawn_['noise']} of"
        f" {drawn_['rounds']} rounds, the wrong rate in {drawn_['rate']}; of {drawn_['rounds']} honest rounds"
        f" {drawn_['honest']} gave an alarm.",
        "",
        "CPU time on one thread, rounds of 30 steps:",
        "",
        "| training | parameters | a step | looking, each step | one patient again, each 15th | judging, once a round |"
        " added |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {line['title']} | {line['parameters']:,} | {line['step_ms']:.0f} ms | {line['look_ms']:.2f} ms |"
            f" {line['probe_ms']:.0f} ms | {line['judge_ms']:.1f} ms | {100 * line['share']:.1f} % |"
            for line in document["overhead"]
        ),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    document: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
        "power": power(),
        "confirmed": confirmed(100),
        "overhead": [
            *(overhead(work.title, Patients(work, 2_000)) for work in (models.code_denoiser(), models.mlp())),
            overhead("language model of notes, 2 chunks of 128 tokens, batch 32", invented_notes(320)),
        ],
    }
    text = table(document)
    print(text)
    (RESULTS / "conformance.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "conformance.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
