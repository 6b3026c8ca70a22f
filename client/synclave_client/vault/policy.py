"""Whether this site takes part in a plan: a pure function of plan, settings and what was spent before."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from synclave_client.settings import SiteSettings
from synclave_shared.errors import BudgetExceeded, PlanError, PolicyRefusal
from synclave_shared.plan import ScoresSpec, TrainPlan
from synclave_shared.privacy.budget import Verdict, check_budget
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

__all__ = ["check_delta", "check_held_out", "check_round_budget", "check_signer", "decide"]


def check_signer(plan: TrainPlan, settings: SiteSettings, *, signature_valid: bool) -> None:
    """Refuse a plan of anybody but the pinned coordinator. To be asked before anything else in the plan is believed.

    Args:
        plan: the plan as proposed.
        settings: the site's settings.
        signature_valid: whether the signature over the plan's bytes verifies under the *pinned* key.

    Raises:
        PolicyRefusal: ``coordinator-unknown``.
    """
    if plan.coordinator_key != settings.coordinator_key or not signature_valid:
        raise PolicyRefusal(
            "coordinator-unknown",
            found=f"a plan that names coordinator {plan.coordinator_key}, signature valid: {signature_valid}",
            remedy=f"This site pinned {settings.coordinator_key} in site.toml; ask your coordinator which is right.",
        )


def decide(
    plan: TrainPlan,
    settings: SiteSettings,
    *,
    schema_digest: str,
    public_key: str,
    committed: Sequence[PoissonGaussian | GaussianSum],
    uses: AbstractSet[str],
) -> Verdict:
    """Accept a plan, or refuse it with the first reason that applies; the cheap reasons come first.

    Args:
        plan: a plan signed by the pinned coordinator.
        settings: the site's settings and policy.
        schema_digest: digest of the schema installed at this site.
        public_key: this site's own key.
        committed: every mechanism ever reserved on ``settings.dataset`` under any plan, and for accepted plans that are
            not finished their remaining rounds as well: the worst case of what was promised before.
        uses: kinds of models of those plans.

    Returns:
        The budget before and after the whole plan, at the site's own delta.

    Raises:
        PolicyRefusal: ``not-in-roster``, ``schema-mismatch``, ``modality-not-allowed``, ``trust-mode-not-allowed``,
            ``not-held-out``, ``noise-below-floor``, ``delta-above-plan``.
        BudgetExceeded: ``budget-exceeded``.
    """
    _check_roster(plan, settings, public_key)
    if plan.schema_digest != schema_digest:
        raise PolicyRefusal(
            "schema-mismatch",
            found=f"schema {plan.schema_name} {plan.schema_digest[:16]} in the plan, {schema_digest[:16]} installed",
            remedy="Install the schema that the coordinator published, check the data against it, restart the vault.",
        )
    policy = settings.policy
    if plan.modality not in policy.modalities:
        raise PolicyRefusal(
            "modality-not-allowed",
            found=plan.modality,
            remedy=f"This site allows {', '.join(policy.modalities)}; the steward decides in site.toml.",
        )
    if plan.trust_mode not in policy.trust_modes:
        raise PolicyRefusal(
            "trust-mode-not-allowed",
            found=plan.trust_mode,
            remedy=f"This site allows {', '.join(policy.trust_modes)}; the steward decides in site.toml.",
        )
    check_held_out(plan, settings, uses=uses)
    planned = plan.mechanisms()
    lowest = min(mechanism.noise_multiplier for mechanism in planned)
    if lowest < policy.minimum_noise_multiplier:
        raise PolicyRefusal(
            "noise-below-floor",
            found=f"a noise multiplier of {lowest}",
            remedy=f"This site's floor is {policy.minimum_noise_multiplier}; plan more noise or ask the steward.",
        )
    check_delta(plan, settings)
    return _check_budget(settings, committed, planned)


def check_held_out(plan: TrainPlan, settings: SiteSettings, *, uses: AbstractSet[str]) -> None:
    """Refuse to tell how well patients are predicted of whom models may have learnt.

    Args:
        plan: any plan.
        settings: the site's settings.
        uses: kinds of models for which the patients were looked at, or may yet be.

    Raises:
        PolicyRefusal: ``not-held-out``.
    """
    learnt = uses - {plan.model.kind}
    if isinstance(plan.model, ScoresSpec) and learnt:
        # Whatever was learnt of these patients may have come to the model, by synthetic patients too.
        raise PolicyRefusal(
            "not-held-out",
            found=f"plans of kind {', '.join(sorted(learnt))} on {settings.dataset}",
            remedy="Give held-out patients a folder, a data set and a vault of their own: see deploy/README.md.",
        )


def check_delta(plan: TrainPlan, settings: SiteSettings) -> None:
    """Refuse to state a budget at a larger delta than the plan's.

    Raises:
        PolicyRefusal: ``delta-above-plan``.
    """
    if settings.budget.delta > plan.privacy.delta:
        # At a larger delta every epsilon looks smaller: the ledger would show less than the plan promises.
        raise PolicyRefusal(
            "delta-above-plan",
            found=f"a budget at delta {settings.budget.delta}, the plan is at {plan.privacy.delta}",
            remedy="Lower the budget's delta in site.toml to the plan's, or ask for a plan with a larger one.",
        )


def check_round_budget(
    settings: SiteSettings, mechanism: PoissonGaussian | GaussianSum, *, spent: Sequence[PoissonGaussian | GaussianSum]
) -> Verdict:
    """Whether one more round fits the budget of today, whatever was spent since its plan was accepted.

    Args:
        settings: the settings with the budget of today.
        mechanism: what the round would do.
        spent: every mechanism ever reserved on the data set.

    Raises:
        BudgetExceeded: if it does not fit.
    """
    return _check_budget(settings, spent, [mechanism])


def _check_budget(
    settings: SiteSettings,
    before: Sequence[PoissonGaussian | GaussianSum],
    planned: Sequence[PoissonGaussian | GaussianSum],
) -> Verdict:
    verdict = check_budget(settings.budget, before, planned)
    if not verdict.allowed:
        raise BudgetExceeded(
            found=f"epsilon {verdict.after_epsilon:.4g} afterwards, {verdict.spent_epsilon:.4g} before,"
            f" {settings.budget.epsilon} allowed at delta {settings.budget.delta}",
            remedy="Plan fewer steps or more noise, or let the steward raise the budget.",
        )
    return verdict


def _check_roster(plan: TrainPlan, settings: SiteSettings, public_key: str) -> None:
    remedy = "Give the coordinator this site's name and key (`synclave-site init` printed them) for a new plan."
    try:
        entry = plan.site(settings.name)
    except PlanError as error:
        raise PolicyRefusal("not-in-roster", found=error.found, remedy=remedy) from None
    if entry.public_key != public_key:
        raise PolicyRefusal(
            "not-in-roster", found=f"{settings.name} with key {entry.public_key}, ours is {public_key}", remedy=remedy
        )
