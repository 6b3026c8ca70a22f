"""The round loop: bounded waits, a minimum of valid replies, a stored state after each round, resumption after a crash.

Knows no Flower and no torch, and not what a round is about (:mod:`synclave_server.exchanges`). Everything a round
decides is in the ledger or in the round's folder before the next one begins, so that kill -9 at any instant costs at
most the round that was under way: its releases are stored at the sites and come back byte for byte when the round is
asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.aggregate import initial_state
from synclave_server.cohort import Cohort, Transport
from synclave_server.exchanges import Exchange, Procedure, State
from synclave_server.notary import Notary
from synclave_server.replies import FINDINGS, Finding, SiteReply, released_update
from synclave_server.run_folder import RoundProgress, RunFolder, Stage
from synclave_server.snapshots import copy_snapshot, read_snapshot, write_snapshot
from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import REFUSAL_CODES, FederationError
from synclave_shared.ledger.entry import Aggregate, RunClosed, SnapshotWritten
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.models.stored.snapshot import SnapshotRecord
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.protocol import (
    CheckpointPresentation,
    CloseRequest,
    Envelope,
    ProposeRequest,
    RoundRequest,
    encode_model,
)

__all__ = ["run_training"]

JOIN_TIMEOUT_S: Final = 120.0
"""How long the whole roster is waited for; afterwards the minimum suffices."""

ANSWER_TIMEOUT_S: Final = 60.0
"""For proposals and the end: a site composes its whole history then, which takes it seconds."""


def run_training(run: RunFolder, transport: Transport, key: SigningKey, procedure: Procedure) -> None:
    """Run the plan of ``run`` from where it stopped to its end.

    Args:
        run: a prepared folder; state, ledger, metrics and progress go there.
        transport: how to reach the sites.
        key: the coordinator's key.
        procedure: the model before the first round, and what each kind of round does.

    Raises:
        FederationError: if too few sites join, accept, or give valid replies in a round. What was done stays; the same
            call resumes.
        LedgerError: if the run's ledger cannot be used.
        SnapshotError: if the state to resume from is damaged.
    """
    _Training(run, transport, key, procedure).run()


class _Training:
    def __init__(self, run: RunFolder, transport: Transport, key: SigningKey, procedure: Procedure) -> None:
        self._run = run
        self._plan = run.plan()
        self._schema = run.schema()
        self._last_round = self._plan.last_round()
        self._procedure = procedure
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
        for number in range(state.next_round, self._last_round + 1):
            state = self._round(number, state, accepted, metrics)
        self._close(accepted)
        self._tell("complete", "the run is complete", round=self._last_round, sites_ok=len(accepted))

    # --- beginning ---------------------------------------------------------------------------------------------

    def _resume(self) -> State:
        """The state after the last complete round, whose ledger entries are made up for if a crash prevented them."""
        complete = self._run.complete_rounds()
        if not complete:
            model = self._procedure.start
            return State(
                model=model,
                average=model,
                anchor=self._procedure.anchor,
                label_shares=self._procedure.label_shares,
                server=initial_state(self._plan.federation, model.size),
                next_round=self._plan.first_round(),
            )
        folder = self._run.round_folder(complete[-1])
        snapshot = read_snapshot(folder)
        other_model = self._procedure.fixed_size and snapshot.raw_model.shape != self._procedure.start.shape
        if snapshot.plan != self._plan or other_model:
            raise FederationError(
                expected=f"the state of this plan in {folder}",
                found="that of another plan or model",
                remedy="Use a new folder for the run, or the version of Synclave that began it.",
            )
        if not self._notary.has_snapshot(snapshot.record.round):
            self._record(snapshot.record)
        copy_snapshot(folder, self._run.snapshot)
        return State(
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

        # A site finds the identifiers in all of its notes before it accepts.
        wait = float(self._plan.federation.round_timeout_s) if self._plan.modality == "notes" else ANSWER_TIMEOUT_S
        replies, findings = self._cohort.ask(self._cohort.sites, request, wait)
        self._require(replies, findings, "to accept the plan")
        return tuple(sorted(replies)), findings

    # --- a round -----------------------------------------------------------------------------------------------

    def _round(self, number: int, state: State, sites: tuple[str, ...], metrics: dict[str, Any]) -> State:
        started = time.monotonic()
        stage = self._plan.round_kind(number)
        exchange = self._procedure.exchanges[stage]
        # A display shows the number of a training round beside the text; others have a name to show.
        what = exchange.title or f"round {number} of {self._last_round}"
        prefix = f"{exchange.title}: " if exchange.title else ""
        roster = len(self._plan.sites)
        self._tell(stage, f"{prefix}waiting for {len(sites)} sites", round=number, sites_expected=roster)
        updates, findings = self._collect(number, exchange, state, sites)
        self._require(updates, findings, f"to give a valid reply in {what}")

        state, aggregate = exchange.combine(state, updates, number)
        state = replace(state, next_round=number + 1)
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
        self, number: int, exchange: Exchange, state: State, sites: tuple[str, ...]
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Finding]]:
        """Ask for the round; the valid updates, and why the others are not there."""
        payload = encode_model(exchange.payload(state))
        digest, size = sha256_hex(payload), exchange.size

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

    def _store(self, number: int, state: State, sites: tuple[str, ...], aggregate: NDArray[np.float64]) -> None:
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
        self._tell("closing", "showing the sites the finished ledger", round=self._last_round)
        if not self._notary.closed:
            self._notary.record(("run-closed", RunClosed(plan_digest=self._plan.digest, rounds=self._last_round)))
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
        self._run.report(RoundProgress(stage=stage, text=text, rounds=self._last_round, **details))


def _reasons(findings: Mapping[str, Finding]) -> str:
    """``; site-a: the site did not answer in time; ...`` for a person to read."""
    texts = []
    for site, finding in sorted(findings.items()):
        meaning = REFUSAL_CODES.get(finding.detail, FINDINGS[finding.code])
        texts.append(f"; {site}: {meaning}" + (f" ({finding.detail})" if finding.detail else ""))
    return "".join(texts)
