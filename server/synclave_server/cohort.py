"""The sites of a run, as the round loop sees them: who is there, who agreed, and what each has seen of the ledger.

Knows no Flower. A :class:`Transport` carries envelopes to *peers*; which site a peer is, its signed hello says.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from synclave_server.notary import Notary
from synclave_server.replies import Finding, SiteReply, raise_unless_ok, read_reply
from synclave_shared.errors import FederationError, PlanError, ProtocolError
from synclave_shared.plan import TrainPlan
from synclave_shared.protocol import CheckpointPresentation, Envelope, HelloRequest, WitnessRequest, parse_reply

__all__ = ["Cohort", "Transport"]

HELLO_TIMEOUT_S: Final = 30.0
"""A hello is answered from memory; this is for a site whose machine is busy."""

JOIN_INTERVAL_S: Final = 0.5
"""Between two looks for sites that have not come yet."""

_log = logging.getLogger("synclave.rounds")


class Transport(Protocol):
    """What carries envelopes; Flower's grid, or a fake in tests."""

    def peers(self) -> Mapping[str, str | None]:
        """Peers that can be reached now -> the site's name under which each is registered, or None if unknown."""
        ...

    def exchange(self, requests: Mapping[str, Envelope], timeout_s: float) -> Iterator[tuple[str, Envelope]]:
        """Send one request to each peer and yield (peer, reply) as replies come, for at most ``timeout_s`` seconds.

        A peer that cannot be reached or does not answer is simply absent from what is yielded.
        """
        ...


class Cohort:
    """Sends requests to sites and establishes where replies come from.

    Args:
        plan: the run's plan.
        transport: how to reach the sites.
        notary: the run's ledger, which every site is shown and whose entries every reply carries.
    """

    def __init__(self, plan: TrainPlan, transport: Transport, notary: Notary) -> None:
        self._plan = plan
        self._transport = transport
        self._notary = notary
        self._peer_of: dict[str, str] = {}
        self._seen: dict[str, int] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites that said hello, ascending."""
        return tuple(sorted(self._peer_of))

    def join(self, timeout_s: float) -> dict[str, Finding]:
        """Say hello until every site of the roster has joined or said why not, for at most ``timeout_s`` seconds.

        Returns:
            For sites that did not join and gave a reason, why.
        """
        roster = {site.name for site in self._plan.sites}
        deadline = time.monotonic() + timeout_s
        findings: dict[str, Finding] = {}
        while True:
            known = set(self._peer_of.values())
            new = {peer: name for peer, name in self._transport.peers().items() if peer not in known}
            hello = Envelope.of(HelloRequest(plan_digest=self._plan.digest))
            for peer, envelope in self._transport.exchange(dict.fromkeys(new, hello), HELLO_TIMEOUT_S):
                self._greet(peer, new[peer], envelope, findings)
            # A gateway whose vault is not up yet will have one soon; any other reason needs a person.
            settled = {site for site, finding in findings.items() if finding.detail != FederationError.code}
            if roster <= set(self._peer_of) | settled or time.monotonic() >= deadline:
                return {site: finding for site, finding in findings.items() if site not in self._peer_of}
            time.sleep(JOIN_INTERVAL_S)

    def _greet(self, peer: str, registered: str | None, envelope: Envelope, findings: dict[str, Finding]) -> None:
        """Find out which site a peer is; a peer that is none of the roster is left alone."""
        name = registered or ""
        try:
            # Where the transport has registered names, they bind; in a simulation the reply alone says who it is.
            name = registered or parse_reply(envelope).site or ""
            self._plan.site(name)
            answer = self._read(envelope, name)
            raise_unless_ok(answer)
        except (PlanError, ProtocolError):
            _log.warning("a peer that is no site of the plan said hello")
        except Finding as finding:
            findings[name] = finding
        else:
            if name in self._peer_of:
                return
            if self._notary.append(answer.entries):
                findings[name] = Finding("entry-invalid", "chain")
            else:
                self._peer_of[name] = peer

    def ask(
        self,
        sites: Iterable[str],
        request: Callable[[CheckpointPresentation], Envelope],
        timeout_s: float,
        judge: Callable[[SiteReply], None] = raise_unless_ok,
    ) -> tuple[dict[str, SiteReply], dict[str, Finding]]:
        """Ask sites for the same thing, each with its own view of the ledger.

        A site that saw more of the ledger than we know of, or sent entries that were lost on their way, refuses as
        ``ledger-inconsistent`` and repeats them; it is asked once more after they are in the ledger.

        Args:
            sites: whom to ask.
            request: makes the request from the ledger as it is to be shown.
            timeout_s: longest wait, seconds.
            judge: raises a :class:`Finding` for a reply that does not count.

        Returns:
            The replies that count, and the findings of all other sites.
        """
        deadline = time.monotonic() + timeout_s
        replies, findings = self._ask_once(sites, request, timeout_s, judge)
        again = [site for site, finding in findings.items() if finding.detail == "ledger-inconsistent"]
        left_s = deadline - time.monotonic()
        if again and left_s > 0:
            more, still = self._ask_once(again, request, left_s, judge)
            replies.update(more)
            findings = {site: still.get(site, finding) for site, finding in findings.items() if site not in more}
        return replies, findings

    def _ask_once(
        self,
        sites: Iterable[str],
        request: Callable[[CheckpointPresentation], Envelope],
        timeout_s: float,
        judge: Callable[[SiteReply], None],
    ) -> tuple[dict[str, SiteReply], dict[str, Finding]]:
        findings = {site: Finding("no-reply") for site in sites}
        reachable = self._transport.peers()
        site_of = {self._peer_of[site]: site for site in findings if self._peer_of[site] in reachable}
        self._catch_up(site_of, timeout_s)
        requests = {peer: request(self._present(site)) for peer, site in site_of.items()}
        answers: dict[str, SiteReply] = {}
        for peer, envelope in self._transport.exchange(requests, timeout_s):
            site = site_of[peer]
            try:
                answers[site] = self._read(envelope, site)
            except Finding as finding:
                findings[site] = finding
        # Only now, with every answer to the same checkpoint in hand, does the ledger grow.
        entries = [entry for site in sorted(answers) for entry in answers[site].entries]
        broken = self._notary.append(entries, self._cosignatures(answers))
        replies = {}
        for site, answer in answers.items():
            try:
                if site in broken:
                    raise Finding("entry-invalid", "chain")
                judge(answer)
            except Finding as finding:
                findings[site] = finding
            else:
                replies[site] = answer
                del findings[site]
        return replies, findings

    def _read(self, envelope: Envelope, site: str) -> SiteReply:
        return read_reply(envelope, self._plan, site, self._notary.keys(site))

    def _present(self, site: str) -> CheckpointPresentation:
        return self._notary.present(self._seen.get(site, 0))

    def _catch_up(self, site_of: Mapping[str, str], timeout_s: float) -> None:
        """Show the ledger part by part to sites that are further behind its end than one presentation reaches.

        A site that does not follow is asked all the same: its answer says why.
        """
        deadline = time.monotonic() + timeout_s
        behind = dict(site_of)
        while True:
            shown = {peer: self._present(site) for peer, site in behind.items()}
            behind = {peer: site for peer, site in behind.items() if shown[peer].end < self._notary.size}
            left_s = deadline - time.monotonic()
            if not behind or left_s <= 0:
                return
            requests = {
                peer: Envelope.of(WitnessRequest(plan_digest=self._plan.digest, checkpoint=shown[peer]))
                for peer in behind
            }
            before = dict(self._seen)
            answers = {}
            for peer, envelope in self._transport.exchange(requests, left_s):
                with contextlib.suppress(Finding):
                    answers[behind[peer]] = self._read(envelope, behind[peer])
            self._notary.witness(self._cosignatures(answers))
            behind = {peer: site for peer, site in behind.items() if self._seen.get(site) != before.get(site)}

    def _cosignatures(self, answers: Mapping[str, SiteReply]) -> dict[str, tuple[int, str]]:
        """By site, what it says it has seen, and its co-signature. It is shown what comes after that from now on."""
        cosignatures = {}
        for site, answer in answers.items():
            size = answer.reply.seen_size
            if size > self._notary.size:
                continue
            # A release that is answered from the journal carries what the site had seen when it was first made.
            self._seen[site] = max(size, self._seen.get(site, 0))
            if answer.reply.cosignature:
                cosignatures[site] = size, answer.reply.cosignature
        return cosignatures
