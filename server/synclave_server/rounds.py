"""The round loop: bounded waits, a minimum of valid replies, a stored state after each round, resumption after a crash.

Knows no Flower and no torch. Everything a round decides is in the ledger or in the round's folder before the next one
begins, so that kill -9 at any instant costs at most the round that was under way: its releases are stored at the sites
and come back byte for byte when the round is asked for again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.aggregate import ServerState, averaged_model, initial_state, server_step, weighted_mean
from synclave_server.cohort import Cohort, Transport
from synclave_server.notary import Notary
from synclave_server.replies import FINDINGS, Finding, SiteReply, released_update
from synclave_server.run_folder import RoundProgress, RunFolder, Stage
from synclave_server.snapshots import SnapshotRecord, copy_snapshot, read_snapshot, write_snapshot
from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import REFUSAL_CODES, FederationError
from synclave_shared.ledger.entry import Aggregate, RunClosed, SnapshotWritten
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.plan import MARGINALS_ROUND
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.protocol import (
    EMPTY_DIGEST,
    CheckpointPresentation,
    CloseRequest,
    Envelope,
    ProposeRequest,
    RoundRequest,
    encode_model,
)

__all__ = ["InitialModel", "run_training"]

JOIN_TIMEOUT_S: Final = 120.0
"""How long the whole roster is waited for; afterwards the minimum suffices."""

ANSWER_TIMEOUT_S: Final = 60.0
"""For proposals and the end: a site composes its whole history then, which takes it seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialModel:
    """What a run begins with, and what turns marginals into an anchor.

    Attributes:
        parameters: float32 [P].
        anchor_size: number of anchor logits L * D that follow the parameters in a round's payload.
        marginals_size: number of coordinates of a marginals release.
        anchor: (summed marginals float64, std of the noise in each) -> (logits float32 [L, D], shares float32 [L]).
    """

    parameters: NDArray[np.float32]
    anchor_size: int
    marginals_size: int
    anchor: Callable[[NDArray[np.float64], float], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The model after some round, and the average of the models so far, which is what is sampled from."""

    model: NDArray[np.float32]
    average: NDArray[np.float32]
    anchor: NDArray[np.float32] | None
    label_shares: NDArray[np.float32] | None
    server: ServerState
    next_round: int


def run_training(run: RunFolder, transport: Transport, key: SigningKey, initial: InitialModel) -> None:
    """Run the plan of ``run`` from where it stopped to its end.

    Args:
        run: a prepared folder; state, ledger, metrics and progress go there.
        transport: how to reach the sites.
        key: the coordinator's key.
        initial: the model before the first round.

    Raises:
        FederationError: if too few sites join, accept, or give valid replies in a round. What was done stays; the same
            call resumes.
        LedgerError: if the run's ledger cannot be used.
        SnapshotError: if the state to resume from is damaged.
    """
    _Training(run, transport, key, initial).run()


class _Training:
    def __init__(self, run: RunFolder, transport: Transport, key: SigningKey, initial: InitialModel) -> None:
        self._run = run
        self._plan = run.plan()
        self._schema = run.schema()
        self._initial = initial
        self._notary = Notary(run.ledger, self._plan, run.signature(), key)
        self._cohort = Cohort(self._plan, transport, self._notary)
        self._epsilon_of: dict[tuple[Any, ...], float] = {}

    def run(self) -> None:
        """See :func:`run_training`."""
        state = self._resume()
        metrics = self._run.read_metrics()
        self._tell("joining", f"waiting for {len(self._plan.sites)} sites", round=state.next_round - 1)
        missing = self._cohort.join(JOIN_TIMEOUT_S)
        silent = {site.name for site in self._plan.sites} - set(self._cohort.sites)
        absent = {site: missing.get(site, Finding("no-reply")) for site in silent}
        self._require(self._cohort.sites, absent, "to join")
        accepted = self._cohort.sites
        if not self._notary.closed:
            accepted, unwilling = self._propose()
            absent |= unwilling
        self._say_who_is_absent(absent, metrics)
        for number in range(state.next_round, self._plan.federation.rounds + 1):
            state = self._round(number, state, accepted, metrics)
        self._close(accepted)
        self._tell("complete", "the run is complete", round=self._plan.federation.rounds, sites_ok=len(accepted))

    # --- beginning ---------------------------------------------------------------------------------------------

    def _resume(self) -> _State:
        """The state after the last complete round, whose ledger entries are made up for if a crash prevented them."""
        complete = self._run.complete_rounds()
        if not complete:
            parameters = self._initial.parameters
            return _State(
                model=parameters,
                average=parameters,
                anchor=None,
                label_shares=None,
                server=initial_state(self._plan.federation, parameters.size),
                next_round=self._plan.first_round(),
            )
        folder = self._run.round_folder(complete[-1])
        snapshot = read_snapshot(folder)
        if snapshot.plan != self._plan or snapshot.raw_model.shape != self._initial.parameters.shape:
            raise FederationError(
                expected=f"the state of this plan in {folder}",
                found="that of another plan or model",
                remedy="Use a new folder for the run, or the version of Synclave that began it.",
            )
        if not self._notary.has_snapshot(snapshot.record.round):
            self._record(snapshot.record)
        copy_snapshot(folder, self._run.snapshot)
        return _State(
            model=snapshot.raw_model,
            average=snapshot.model,
            anchor=snapshot.anchor,
            label_shares=snapshot.label_shares,
            server=snapshot.server_state,
            next_round=snapshot.record.round + 1,
        )

    def _propose(self) -> tuple[tuple[str, ...], dict[str, Finding]]:
        """Put the plan before the sites; names of those that accept, and why the others do not."""
        self._tell("proposing", "asking the sites to accept the plan", sites_expected=len(self._cohort.sites))
        plan, signature = self._plan.to_bytes().decode("utf-8"), self._run.signature()

        def request(checkpoint: CheckpointPresentation) -> Envelope:
            return Envelope.of(ProposeRequest(plan=plan, signature=signature, checkpoint=checkpoint))

        replies, findings = self._cohort.ask(self._cohort.sites, request, ANSWER_TIMEOUT_S)
        self._require(replies, findings, "to accept the plan")
        return tuple(sorted(replies)), findings

    # --- a round -----------------------------------------------------------------------------------------------

    def _round(self, number: int, state: _State, sites: tuple[str, ...], metrics: dict[str, Any]) -> _State:
        started = time.monotonic()
        stage: Stage = "marginals" if number == MARGINALS_ROUND else "training"
        what = "marginals" if number == MARGINALS_ROUND else f"round {number} of {self._plan.federation.rounds}"
        # A display shows the number of a training round beside the text; the marginals' round has none to show.
        prefix = "marginals: " if number == MARGINALS_ROUND else ""
        roster = len(self._plan.sites)
        self._tell(stage, f"{prefix}waiting for {len(sites)} sites", round=number, sites_expected=roster)
        updates, findings = self._collect(number, state, sites)
        self._require(updates, findings, f"to give a valid reply in {what}")

        if number == MARGINALS_ROUND:
            state, aggregate = self._anchored(state, updates)
        else:
            aggregate = weighted_mean(updates, self._plan.weights())
            model, server = server_step(self._plan.federation, state.model, aggregate, state.server)
            if not np.all(np.isfinite(model)):
                raise FederationError(
                    expected=f"a finite model after {what}",
                    found="an overflow",
                    remedy="Lower server_learning_rate in a new plan.",
                )
            state = _State(
                model=model,
                average=averaged_model(self._plan.federation, state.average, model, number),
                anchor=state.anchor,
                label_shares=state.label_shares,
                server=server,
                next_round=number + 1,
            )
        self._store(number, state, tuple(sorted(updates)), aggregate)

        spent = {site: self._epsilon(site) for site in sites}
        seconds = time.monotonic() - started
        self._measure(metrics, number, updates, findings, spent, seconds, float(np.linalg.norm(aggregate)))
        self._tell(
            stage,
            f"{prefix}{len(updates)} of {roster} sites replied" + _reasons(findings),
            round=number,
            sites_ok=len(updates),
            sites_expected=roster,
            seconds=seconds,
            epsilon=max(spent.values()),
        )
        return state

    def _collect(
        self, number: int, state: _State, sites: tuple[str, ...]
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Finding]]:
        """Ask for the round; the valid updates, and why the others are not there."""
        if number == MARGINALS_ROUND:
            payload, digest, size = b"", EMPTY_DIGEST, self._initial.marginals_size
        else:
            anchor = np.zeros(self._initial.anchor_size, np.float32) if state.anchor is None else state.anchor.ravel()
            payload = encode_model(np.concatenate([state.model, anchor]))
            digest, size = sha256_hex(payload), state.model.size

        def request(checkpoint: CheckpointPresentation) -> Envelope:
            header = RoundRequest(
                plan_digest=self._plan.digest, round=number, payload_digest=digest, checkpoint=checkpoint
            )
            return Envelope.of(header, payload)

        updates: dict[str, NDArray[np.float64]] = {}

        def judge(answer: SiteReply) -> None:
            updates[answer.site] = released_update(answer, self._plan, number, size)

        _replies, findings = self._cohort.ask(sites, request, float(self._plan.federation.round_timeout_s), judge)
        return updates, findings

    def _anchored(
        self, state: _State, updates: Mapping[str, NDArray[np.float64]]
    ) -> tuple[_State, NDArray[np.float64]]:
        """The state with the anchor that the summed marginals give, and the sum."""
        marginals = self._plan.privacy.marginals
        if marginals is None:
            raise AssertionError("a plan without marginals has no round for them")
        total = np.sum([updates[site] for site in sorted(updates)], axis=0)
        noise_std = float(marginals.noise_multiplier * marginals.clip_norm) * math.sqrt(len(updates))
        logits, shares = self._initial.anchor(total, noise_std)
        anchored = _State(
            model=state.model,
            average=state.average,
            anchor=logits,
            label_shares=shares,
            server=state.server,
            next_round=MARGINALS_ROUND + 1,
        )
        return anchored, total

    def _store(self, number: int, state: _State, sites: tuple[str, ...], aggregate: NDArray[np.float64]) -> None:
        """First the state, then the ledger, then the copy to sample from: a crash in between is made up for."""
        folder = self._run.round_folder(number)
        record = write_snapshot(
            folder,
            plan=self._plan,
            schema=self._schema,
            round_number=number,
            model=state.average,
            raw_model=state.model if self._plan.federation.ema else None,
            anchor=state.anchor,
            label_shares=state.label_shares,
            server_state=state.server,
            sites=sites,
            aggregate_digest=sha256_hex(np.ascontiguousarray(aggregate, "<f8").tobytes()),
            ledger_index=self._notary.size + 1,  # the aggregate's entry comes first
        )
        self._record(record)
        copy_snapshot(folder, self._run.snapshot)
        self._run.forget_old_rounds()

    def _record(self, record: SnapshotRecord) -> None:
        digest = self._plan.digest
        self._notary.record(
            (
                "aggregate",
                Aggregate(
                    plan_digest=digest,
                    round=record.round,
                    sites=record.sites,
                    aggregate_digest=record.aggregate_digest,
                ),
            ),
            (
                "snapshot",
                SnapshotWritten(plan_digest=digest, round=record.round, snapshot_digest=record.tensors_digest),
            ),
        )

    # --- the end -----------------------------------------------------------------------------------------------

    def _close(self, sites: tuple[str, ...]) -> None:
        """Show the sites the finished ledger. A site that misses it loses nothing: it can verify the ledger itself."""
        self._tell("closing", "showing the sites the finished ledger", round=self._plan.federation.rounds)
        if not self._notary.closed:
            self._notary.record(
                ("run-closed", RunClosed(plan_digest=self._plan.digest, rounds=self._plan.federation.rounds))
            )
        self._cohort.ask(
            sites,
            lambda checkpoint: Envelope.of(CloseRequest(plan_digest=self._plan.digest, checkpoint=checkpoint)),
            min(ANSWER_TIMEOUT_S, float(self._plan.federation.round_timeout_s)),
        )

    # --- reporting ---------------------------------------------------------------------------------------------

    def _require(self, there: Mapping[str, Any] | tuple[str, ...], missing: Mapping[str, Finding], what: str) -> None:
        minimum = self._plan.federation.minimum_sites
        if len(there) >= minimum:
            return
        raise FederationError(
            expected=f"at least {minimum} of {len(self._plan.sites)} sites {what}",
            found=f"{len(there)}{_reasons(missing)}",
            remedy="See to the sites that are missing, then start the same command again: the run resumes.",
        )

    def _say_who_is_absent(self, absent: Mapping[str, Finding], metrics: dict[str, Any]) -> None:
        """A run goes on without some sites only in the open: on the screen and in the metrics."""
        metrics["absent"] = {site: str(finding) for site, finding in sorted(absent.items())}
        self._run.write_metrics(metrics)
        for site, finding in sorted(absent.items()):
            reason = _reasons({site: finding}).removeprefix(f"; {site}: ")
            self._tell("proposing", f"{site} does not take part: {reason}", sites_expected=len(self._plan.sites))

    def _epsilon(self, site: str) -> float:
        spends = self._notary.spends(site)
        cached = tuple(spend.model_dump_json() for spend in spends)
        if cached not in self._epsilon_of:
            self._epsilon_of[cached] = epsilon(spends, float(self._plan.privacy.delta))
        return self._epsilon_of[cached]

    def _measure(
        self,
        metrics: dict[str, Any],
        number: int,
        updates: Mapping[str, Any],
        findings: Mapping[str, Finding],
        spent: Mapping[str, float],
        seconds: float,
        update_norm: float,
    ) -> None:
        # A round that is repeated after a crash replaces what was measured of it before.
        earlier = [entry for entry in metrics.get("rounds", []) if entry["round"] < number]
        metrics.update(
            plan_digest=self._plan.digest,
            delta=float(self._plan.privacy.delta),
            rounds=[
                *earlier,
                {
                    "round": number,
                    "sites": sorted(updates),
                    "findings": {site: str(finding) for site, finding in sorted(findings.items())},
                    "seconds": round(seconds, 3),
                    "update_norm": update_norm,
                    "epsilon": dict(sorted(spent.items())),
                },
            ],
        )
        self._run.write_metrics(metrics)

    def _tell(self, stage: Stage, text: str, **details: Any) -> None:
        self._run.report(RoundProgress(stage=stage, text=text, rounds=self._plan.federation.rounds, **details))


def _reasons(findings: Mapping[str, Finding]) -> str:
    """``; site-a: the site did not answer in time; ...`` for a person to read."""
    texts = []
    for site, finding in sorted(findings.items()):
        meaning = REFUSAL_CODES.get(finding.detail, FINDINGS[finding.code])
        texts.append(f"; {site}: {meaning}" + (f" ({finding.detail})" if finding.detail else ""))
    return "".join(texts)
