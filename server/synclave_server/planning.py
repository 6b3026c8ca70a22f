"""From a person's plan file to the signed agreement.

A plan file (TOML) names a schema and says either how much privacy may be spent (``epsilon``) or how much noise is added
(``noise_multiplier``); everything else has a default. :func:`compile_plan` joins it with the sites' public keys. The
format is documented in docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from synclave_shared.canonical import ExactDecimal, FrozenModel
from synclave_shared.data.modality import AnySchema
from synclave_shared.errors import PlanError
from synclave_shared.model_size import parameters_of
from synclave_shared.model_spec import AnyModel, CopulaSpec, ModelSpec
from synclave_shared.plan import (
    MOST_PARAMETERS,
    Federation,
    Marginals,
    Name,
    Optimiser,
    Privacy,
    SiteEntry,
    TrainPlan,
    all_mechanisms,
    explain_validation,
    misfits,
)
from synclave_shared.privacy.calibrate import noise_multiplier_for
from synclave_shared.privacy.mechanism import Delta, GaussianSum, PositiveDecimal, Probability

__all__ = ["COPULA_CLIP_NORM", "PlanFile", "compile_plan", "parse_plan_file", "resolve_privacy"]

COPULA_CLIP_NORM: Final = Decimal("0.35")
"""In units of what the anchor expects of a patient. Most are shortened: all moments become smaller alike, which their
diagonal tells and the fit makes up for, and the noise becomes a third."""

COPULA_MARGINALS_SHARE: Final = Decimal("0.6")
"""Of epsilon: the two sums then share 1 / noise_multiplier^2 as about 2 to 3."""


class MarginalsTarget(FrozenModel):
    """The ``[privacy.marginals]`` table: as :class:`synclave_shared.plan.Marginals`, or a share of the plan's epsilon.

    Attributes:
        epsilon_share: the part of ``privacy.epsilon`` that the marginals alone may cost; the default of a copula is
            :data:`COPULA_MARGINALS_SHARE`.
        noise_multiplier: the noise instead.
        clip_norm: L2 bound of one patient's row.
    """

    epsilon_share: Annotated[ExactDecimal, Field(gt=0, lt=1)] | None = None
    noise_multiplier: PositiveDecimal | None = None
    clip_norm: PositiveDecimal = Decimal(5)


class PrivacyTarget(FrozenModel):
    """The ``[privacy]`` table: :class:`synclave_shared.plan.Privacy`, or ``epsilon`` in place of the noise.

    ``clip_norm`` None: 1 for gradients, :data:`COPULA_CLIP_NORM` for second moments.
    """

    epsilon: PositiveDecimal | None = None
    noise_multiplier: PositiveDecimal | None = None
    delta: Delta = Decimal("0.00001")
    clip_norm: PositiveDecimal | None = None
    selection_rate: Probability | None = None
    marginals: MarginalsTarget | None = None


class SiteTarget(FrozenModel):
    """One ``[sites.NAME]`` table, or ``[site_defaults]`` for sites without their own."""

    nominal_patients: Annotated[int, Field(ge=1, le=100_000_000)]
    weight: PositiveDecimal | None = None


class WarmStart(FrozenModel):
    """The ``[warm_start]`` table.

    Attributes:
        model: folder of the model to begin with, relative to the plan file.
    """

    model: Annotated[str, Field(min_length=1)]


class PlanFile(FrozenModel):
    """What a person writes; see docs/plan.md for every key."""

    name: Name
    schema_file: Annotated[str, Field(alias="schema", min_length=1)]
    model: AnyModel = ModelSpec()
    optimiser: Optimiser = Optimiser()
    privacy: PrivacyTarget
    federation: Federation = Federation()
    warm_start: WarmStart | None = None
    site_defaults: SiteTarget | None = None
    sites: dict[Name, SiteTarget] = Field(default_factory=dict)


def parse_plan_file(raw: Mapping[str, Any]) -> PlanFile:
    """Validate the content of a plan file, and fill in what depends on the kind of model.

    Raises:
        PlanError: naming every faulty key.
    """
    try:
        plan_file = PlanFile.model_validate(dict(raw))
    except ValidationError as error:
        raise PlanError(
            expected="a plan file as described in docs/plan.md",
            found=explain_validation(error),
            remedy="Correct the keys named.",
        ) from None
    if (plan_file.privacy.epsilon is None) == (plan_file.privacy.noise_multiplier is None):
        raise PlanError(
            expected="either epsilon or noise_multiplier under [privacy]",
            found="both" if plan_file.privacy.epsilon is not None else "neither",
            remedy="Write one of them: epsilon lets Synclave find the noise, noise_multiplier fixes it.",
        )
    plan_file = _completed(plan_file)
    marginals = plan_file.privacy.marginals
    faults = misfits(
        plan_file.model,
        plan_file.optimiser,
        plan_file.federation,
        selection_rate=plan_file.privacy.selection_rate,
        anchored=marginals is not None,
        warm=plan_file.warm_start is not None,
        weighted=any(site and site.weight for site in (plan_file.site_defaults, *plan_file.sites.values())),
    )
    if faults:
        raise PlanError(
            expected=f"what a plan of a {plan_file.model.kind} model needs, and nothing else",
            found="; ".join(faults),
            remedy="Correct the keys named; docs/plan.md lists those of each kind of model.",
        )
    if marginals is not None:
        given = [name for name in ("epsilon_share", "noise_multiplier") if getattr(marginals, name) is not None]
        if len(given) != 1 or (given == ["epsilon_share"] and plan_file.privacy.epsilon is None):
            raise PlanError(
                expected="under [privacy.marginals] a noise_multiplier, or with [privacy] epsilon an epsilon_share",
                found=" and ".join(given) or "neither",
                remedy="Write one of them.",
            )
    return plan_file


def _completed(plan_file: PlanFile) -> PlanFile:
    """The plan file with the defaults of its kind of model."""
    privacy = plan_file.privacy
    copula = isinstance(plan_file.model, CopulaSpec)
    clip_norm = privacy.clip_norm or (COPULA_CLIP_NORM if copula else Decimal(1))
    marginals = privacy.marginals
    if copula and privacy.epsilon is not None:
        marginals = marginals or MarginalsTarget()
        if marginals.epsilon_share is None and marginals.noise_multiplier is None:
            marginals = marginals.model_copy(update={"epsilon_share": COPULA_MARGINALS_SHARE})
    return plan_file.model_copy(
        update={"privacy": privacy.model_copy(update={"clip_norm": clip_norm, "marginals": marginals})}
    )


def _resolve_marginals(target: PrivacyTarget) -> Marginals | None:
    wanted = target.marginals
    if wanted is None:
        return None
    if wanted.noise_multiplier is not None:
        return Marginals(noise_multiplier=wanted.noise_multiplier, clip_norm=wanted.clip_norm)
    assert target.epsilon is not None and wanted.epsilon_share is not None  # noqa: S101,PT018 - parse_plan_file saw to it
    noise_multiplier = noise_multiplier_for(
        target.epsilon * wanted.epsilon_share,
        target.delta,
        lambda candidate: [GaussianSum(noise_multiplier=candidate, clip_norm=wanted.clip_norm)],
    )
    return Marginals(noise_multiplier=noise_multiplier, clip_norm=wanted.clip_norm)


def resolve_privacy(plan_file: PlanFile) -> Privacy:
    """The plan's privacy settings, the noise calibrated if the file gives an epsilon.

    An ``epsilon_share`` fixes the noise of the marginals first. The calibration then composes them with all that
    follows and takes the smallest noise multiplier on a grid of 0.001 whose PLD epsilon does not exceed the target.

    Args:
        plan_file: as :func:`parse_plan_file` returns it.
    """
    target = plan_file.privacy
    marginals = _resolve_marginals(target)
    clip_norm = target.clip_norm
    assert clip_norm is not None  # noqa: S101 - parse_plan_file filled it in

    def settings(noise_multiplier: Decimal) -> Privacy:
        return Privacy(
            delta=target.delta,
            noise_multiplier=noise_multiplier,
            clip_norm=clip_norm,
            selection_rate=target.selection_rate,
            marginals=marginals,
        )

    if target.noise_multiplier is not None:
        return settings(target.noise_multiplier)
    assert target.epsilon is not None  # noqa: S101 - parse_plan_file made sure that one of the two is given
    noise_multiplier = noise_multiplier_for(
        float(target.epsilon),
        float(target.delta),
        lambda candidate: all_mechanisms(settings(candidate), plan_file.federation),
    )
    return settings(noise_multiplier)


def compile_plan(
    plan_file: PlanFile,
    *,
    schema: AnySchema,
    coordinator_key: str,
    site_keys: Mapping[str, str],
    warm_start: str | None = None,
) -> TrainPlan:
    """Resolve a plan file into the agreement that is signed.

    Args:
        plan_file: the validated file.
        schema: the schema that the file names.
        coordinator_key: the coordinator's public key (Ed25519, base64).
        site_keys: public key of every site that shall take part, by name.
        warm_start: digest of the parameters to begin with, if the file names a model.

    Raises:
        PlanError: if a site has no nominal size, a planned site has no key, or the whole is incoherent.
    """
    without_key = sorted(set(plan_file.sites) - set(site_keys))
    without_size = sorted(set(site_keys) - set(plan_file.sites)) if plan_file.site_defaults is None else []
    if without_key or without_size:
        raise PlanError(
            expected="a key and a [sites.NAME] table (or [site_defaults]) for every site",
            found=f"no key for {without_key or 'none'}, no size for {without_size or 'none'}",
            remedy="Give the same site names to the plan file and on the command line.",
        )
    parameters = parameters_of(plan_file.model, schema)
    if not 1 <= parameters <= MOST_PARAMETERS:
        raise PlanError(
            expected=f"a model of 1 to {MOST_PARAMETERS} parameters for the {schema.width} columns of {schema.name}",
            found=f"{parameters}",
            remedy="Take a schema of fewer columns."
            if isinstance(plan_file.model, CopulaSpec)
            else "Change coupled_columns, width or blocks under [model].",
        )
    targets = {name: plan_file.sites.get(name, plan_file.site_defaults) for name in sorted(site_keys)}
    try:
        return TrainPlan(
            name=plan_file.name,
            coordinator_key=coordinator_key,
            modality=schema.modality,
            schema_name=schema.name,
            schema_digest=schema.digest,
            model=plan_file.model,
            optimiser=plan_file.optimiser,
            privacy=resolve_privacy(plan_file),
            federation=plan_file.federation,
            warm_start=warm_start,
            sites=tuple(
                SiteEntry(
                    name=name,
                    public_key=site_keys[name],
                    nominal_patients=target.nominal_patients,
                    weight=target.weight,
                )
                for name, target in targets.items()
                if target is not None
            ),
        )
    except ValidationError as error:
        raise PlanError(
            expected="a coherent plan", found=explain_validation(error), remedy="Correct the plan file."
        ) from None
