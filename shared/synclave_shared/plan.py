"""The signed agreement of a training: what every site will do, written before any data is touched.

A person writes a short TOML file; :func:`compile_plan` resolves it, together with the sites' public keys and the
schema's digest, into a :class:`TrainPlan`, whose canonical JSON the coordinator signs. Every number that privacy
depends on is in it, and nothing that a round's message says can change one of them.
"""

from __future__ import annotations

import math
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from synclave_shared.canonical import ExactDecimal, FrozenModel, canonical_bytes, sha256_hex
from synclave_shared.errors import PlanError
from synclave_shared.model_spec import (
    ARCHITECTURES,
    AnyModel,
    ClassifierSpec,
    CopulaSpec,
    InfluenceSpec,
    ModelSpec,
    NotesSpec,
    ScoresSpec,
    SeriesSpec,
)
from synclave_shared.privacy.mechanism import Delta, GaussianSum, PoissonGaussian, PositiveDecimal, Probability

__all__ = [
    "MARGINALS_ROUND",
    "MOST_PARAMETERS",
    "AnyModel",
    "ClassifierSpec",
    "CopulaSpec",
    "Federation",
    "InfluenceSpec",
    "Marginals",
    "ModelSpec",
    "NotesSpec",
    "Optimiser",
    "Privacy",
    "RoundKind",
    "ScoresSpec",
    "SeriesSpec",
    "SiteEntry",
    "TrainPlan",
    "all_mechanisms",
    "explain_validation",
    "misfits",
    "read_plan_toml",
    "round_mechanism",
    "signed_plan_bytes",
]

PLAN_DOMAIN: Final = b"synclave-plan/v1\n"
"""Keeps a signature on a plan from being one on an entry or a checkpoint, and the other way round."""

MAX_SITES: Final = 500
"""The plan is one ledger entry, and an entry holds 65,535 bytes. With long names fewer sites fit; signing says so."""

MAX_EXPECTED_BATCH = 2**17
"""Half of the selected patients in a step for which the clipping's rounding bound is proved (training/private)."""

MARGINALS_ROUND = 0
"""Round 0 is the one-shot release of noisy marginals; the model's own rounds are numbered from 1."""

RoundKind = Literal["marginals", "moments", "influence", "scores", "training"]
"""What a site does in a round: a noisy sum of its patients' rows, of their second moments, of a clinical model's
gradients, or of histograms of its predictions; or DP-SGD."""

ADAM_LEARNING_RATE = 0.002
LARGEST_LEARNING_RATE = 16.0
"""For gradients of clip norm 1; without noise, larger steps fit the examples no better."""

PARAMETER_NOISE = 0.08
"""Couplings between columns are correlations, and those worth having are larger than this."""

TOWER_NOISE = 0.005
"""A tower's weights are small: more noise than this in each undoes what a pre-trained one knows."""

MOST_PARAMETERS: Final = 2**27
"""A round's reply holds eight bytes for each, and one message at most 2 GiB."""

OF_UPDATES: Final = ("aggregator", "server_learning_rate", "update_norm", "ema")
"""What in :class:`Federation` is about a model's updates."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
"""Name of a plan, a site or a data set: safe as the name of a file, a Flower node and a ledger's witness."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PublicKeyText = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""A raw Ed25519 public key, base64."""


class Optimiser(FrozenModel):
    """The site's optimiser within a round. Its state lives for one round and sees privatised gradients only.

    Attributes:
        name: ``sgd`` or ``adam``.
        learning_rate: step size; None: :meth:`TrainPlan.learning_rate` chooses it by the plan's noise.
    """

    name: Literal["sgd", "adam"] = "sgd"
    learning_rate: PositiveDecimal | None = None


class Marginals(FrozenModel):
    """The one-shot release of per-label column sums that anchors the denoiser's output.

    Attributes:
        noise_multiplier: noise standard deviation / clip_norm.
        clip_norm: L2 bound of one patient's row; public, about the root of the number of codes of a busy patient.
    """

    noise_multiplier: PositiveDecimal
    clip_norm: PositiveDecimal = Decimal(5)


class Privacy(FrozenModel):
    """What is promised and what it takes; all of it public.

    Attributes:
        delta: the delta at which every epsilon of this plan is stated.
        noise_multiplier: noise standard deviation / clip_norm of a training step, or of the second moments.
        clip_norm: L2 bound of one patient's gradient in one step, or of one patient's second moments in units of what
            the anchor expects of a patient.
        selection_rate: Poisson selection probability of a patient in a step; None if nothing is trained: every patient
            is part of one sum.
        marginals: the marginals release, or None to train without an anchor.
        unit, adjacency: fixed; written out because an auditor reads this.
    """

    delta: Delta = Decimal("0.00001")
    noise_multiplier: PositiveDecimal
    clip_norm: PositiveDecimal = Decimal(1)
    selection_rate: Probability | None = None
    marginals: Marginals | None = None
    unit: Literal["patient"] = "patient"
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"


class Federation(FrozenModel):
    """How rounds are run.

    Attributes:
        rounds: training rounds; None if nothing is trained.
        steps_per_round: DP-SGD steps each site makes in a round; None if nothing is trained.
        minimum_sites: fewest valid replies with which a round counts.
        round_timeout_s: longest wait for the replies of a round, seconds.
        aggregator: ``fedavg``, or an adaptive server optimiser on the averaged update (Reddi et al. 2021).
        server_learning_rate: factor (fedavg) or step size (adaptive) applied to the averaged update.
        update_norm: L2 bound to which a site scales its update down before release, so that no site can dominate.
        ema: share that the average of all rounds' models keeps in a round; that average is sampled from. 0: the last
            model is.
    """

    rounds: Annotated[int, Field(ge=1, le=10_000)] | None = None
    steps_per_round: Annotated[int, Field(ge=1, le=100_000)] | None = None
    minimum_sites: Annotated[int, Field(ge=1, le=10_000)] = 1
    round_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 600
    aggregator: Literal["fedavg", "fedadam", "fedyogi", "fedadagrad"] = "fedavg"
    server_learning_rate: PositiveDecimal = Decimal(1)
    update_norm: PositiveDecimal = Decimal(100)
    ema: Annotated[ExactDecimal, Field(ge=0, le=Decimal("0.9999"))] = Decimal(0)


class SiteEntry(FrozenModel):
    """One hospital in the plan's roster.

    Attributes:
        name: the site's name in ledger and reports.
        public_key: the key with which the site signs what it does (Ed25519, base64).
        nominal_patients: a *public, rounded* number (say, from the annual report), never counted from the data.
            Together with the selection rate it fixes the expected batch size by which gradients are divided.
        weight: the site's share in the average; None means proportional to ``nominal_patients``.
    """

    name: Name
    public_key: PublicKeyText
    nominal_patients: Annotated[int, Field(ge=1, le=100_000_000)]
    weight: PositiveDecimal | None = None


class TrainPlan(FrozenModel):
    """The whole agreement. Its digest names the run everywhere: ledger, journal, snapshots.

    Attributes:
        warm_start: SHA-256 of what the payload of round 1 begins with, as little-endian float32: the parameters; with a
            clinical model the anchor and the label shares too, the whole payload. None: the untrained network.
    """

    version: Literal[1] = 1
    name: Name
    coordinator_key: PublicKeyText
    modality: Literal["codes", "series", "notes"] = "codes"
    trust_mode: Literal["local"] = "local"
    schema_name: str
    schema_digest: Digest
    model: AnyModel = ModelSpec()
    optimiser: Optimiser = Optimiser()
    privacy: Privacy
    federation: Federation
    warm_start: Digest | None = None
    sites: Annotated[tuple[SiteEntry, ...], Field(min_length=1, max_length=MAX_SITES)]

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        for what, values in (
            ("site name", [site.name for site in self.sites]),
            ("site key", [site.public_key for site in self.sites]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"a {what} occurs twice in the roster")
        if self.federation.minimum_sites > len(self.sites):
            raise ValueError("minimum_sites is larger than the roster")
        weighted = {site.weight is None for site in self.sites}
        if len(weighted) > 1:
            raise ValueError("give a weight to every site or to none")
        if self.modality != _modality_of(self.model):
            raise ValueError(f"a model of kind {self.model.kind} is not for the modality {self.modality}")
        model = self.model
        if isinstance(model, NotesSpec) and model.looked_up is None:
            raise ValueError(f"model.looked_up is missing: which language model {model.base} is")
        if isinstance(model, ClassifierSpec) and model.architecture not in ARCHITECTURES and model.installed is None:
            raise ValueError(f"model.installed is missing: which model {model.architecture} is")
        faults = misfits(
            self.model,
            self.optimiser,
            self.federation,
            selection_rate=self.privacy.selection_rate,
            anchored=self.privacy.marginals is not None,
            warm=self.warm_start is not None,
            weighted=any(site.weight is not None for site in self.sites),
        )
        if faults:
            raise ValueError("; ".join(faults))
        rate = self.privacy.selection_rate
        if rate and any(rate * site.nominal_patients > MAX_EXPECTED_BATCH for site in self.sites):
            raise ValueError(
                f"a step would select more than {MAX_EXPECTED_BATCH} patients of a site; lower selection_rate"
            )
        return self

    def to_bytes(self) -> bytes:
        """The canonical JSON that is signed."""
        return canonical_bytes(self)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return sha256_hex(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a plan back; only the canonical form is accepted, so that a digest has one meaning.

        Raises:
            PlanError: if the bytes are not a plan, or not in canonical form.
        """
        try:
            plan = cls.model_validate_json(data)
        except ValidationError as error:
            raise PlanError(
                expected="the canonical JSON of a training plan",
                found=explain_validation(error),
                remedy="Ask the coordinator for the plan again.",
            ) from None
        if plan.to_bytes() != data:
            raise PlanError(
                expected="the canonical JSON of a training plan (RFC 8785)",
                found="the same plan in another form",
                remedy="Ask the coordinator for the plan again.",
            )
        return plan

    def site(self, name: str) -> SiteEntry:
        """The roster entry of ``name``.

        Raises:
            PlanError: if the site is not in the roster.
        """
        for entry in self.sites:
            if entry.name == name:
                return entry
        raise PlanError(
            expected=f"a site of the plan: {', '.join(site.name for site in self.sites)}",
            found=name,
            remedy="Use a name from the plan, or add the site to it.",
        )

    def weights(self) -> dict[str, float]:
        """Each site's public share in the average; the shares sum to 1 over the whole roster."""
        raw = {site.name: float(site.weight or site.nominal_patients) for site in self.sites}
        total = sum(raw.values())
        return {name: weight / total for name, weight in raw.items()}

    def training(self) -> tuple[ModelSpec | SeriesSpec | NotesSpec | ClassifierSpec, PoissonGaussian]:
        """The model that is trained, and the mechanism of each training round.

        Raises:
            PlanError: if the plan trains nothing.
        """
        mechanism = self.mechanism(1)
        if not isinstance(self.model, CopulaSpec) and isinstance(mechanism, PoissonGaussian):
            return self.model, mechanism
        raise PlanError(
            expected="a plan with training rounds",
            found=f"one of a {self.model.kind}, which trains nothing",
            remedy="Check that coordinator and site run the same version of Synclave.",
        )

    def expected_batch_size(self, site: str) -> float:
        """Public expected number of patients in a step at ``site``: selection rate times nominal patients."""
        _, mechanism = self.training()
        return float(mechanism.selection_rate) * self.site(site).nominal_patients

    def learning_rate(self) -> float:
        """The step size of the sites' optimisers, from public numbers alone.

        If the plan gives none: for ``adam`` :data:`ADAM_LEARNING_RATE`; for ``sgd`` the largest with which the noise of
        all steps together moves a parameter of the average by about :data:`PARAMETER_NOISE` (with a tower
        :data:`TOWER_NOISE`), and at most :data:`LARGEST_LEARNING_RATE` / clip_norm. So a plan of small sites or small
        epsilon takes small steps and stays near the marginals, instead of drawing patients from noise.
        """
        model, mechanism = self.training()
        if self.optimiser.learning_rate is not None:
            return float(self.optimiser.learning_rate)
        if self.optimiser.name == "adam":
            return ADAM_LEARNING_RATE
        shares = self.weights()
        inverse_batch = math.hypot(*(share / self.expected_batch_size(name) for name, share in shares.items()))
        steps = self.last_round() * mechanism.steps
        drift = float(self.privacy.noise_multiplier) * inverse_batch * math.sqrt(steps)
        deep = model.architecture != "logistic" if isinstance(model, ClassifierSpec) else bool(model.width)
        bearable = TOWER_NOISE if deep else PARAMETER_NOISE
        return min(LARGEST_LEARNING_RATE, bearable / drift) / float(self.privacy.clip_norm)

    def first_round(self) -> int:
        """The first round's number: the marginals round if there is one, else 1."""
        return MARGINALS_ROUND if self.privacy.marginals else 1

    def last_round(self) -> int:
        """The last round's number."""
        return _last_round(self.federation)

    def round_kind(self, round_number: int) -> RoundKind:
        """What a site does in ``round_number``.

        Raises:
            PlanError: if the plan has no such round.
        """
        self.mechanism(round_number)
        if round_number == MARGINALS_ROUND:
            return "marginals"
        if isinstance(self.model, InfluenceSpec):
            return "influence"
        if isinstance(self.model, ScoresSpec):
            return "scores"
        return "moments" if isinstance(self.model, CopulaSpec) else "training"

    def mechanism(self, round_number: int) -> PoissonGaussian | GaussianSum:
        """The one mechanism that a site runs in ``round_number``.

        Raises:
            PlanError: if the plan has no such round.
        """
        return round_mechanism(self.privacy, self.federation, round_number)

    def mechanisms(self) -> list[PoissonGaussian | GaussianSum]:
        """Every mechanism of the plan in order: its worst-case spend at each site."""
        return all_mechanisms(self.privacy, self.federation)


def _modality_of(model: AnyModel) -> str:
    if isinstance(model, NotesSpec):
        return "notes"
    return "series" if isinstance(model, SeriesSpec | ClassifierSpec) else "codes"


def signed_plan_bytes(content: bytes) -> bytes:
    """What the coordinator signs: the canonical JSON of a plan behind a line that no other signed thing begins with."""
    return PLAN_DOMAIN + content


def misfits(
    model: AnyModel,
    optimiser: Optimiser,
    federation: Federation,
    *,
    selection_rate: Decimal | None,
    anchored: bool,
    warm: bool,
    weighted: bool,
) -> list[str]:
    """What is missing in a plan for this model, and what has no meaning there; empty for a coherent one.

    Args:
        model: the model.
        optimiser: of training steps.
        federation: how rounds are run.
        selection_rate: of training steps, if any.
        anchored: whether there is a marginals release.
        warm: whether there is a warm start.
        weighted: whether sites have weights.
    """
    training = {
        "privacy.selection_rate": selection_rate,
        "federation.rounds": federation.rounds,
        "federation.steps_per_round": federation.steps_per_round,
    }
    beginning = []
    if isinstance(model, SeriesSpec) and not anchored:
        beginning.append("privacy.marginals is missing: a model of series is trained about them")
    if isinstance(model, NotesSpec):
        beginning += ["privacy.marginals has no meaning with model.kind = notes: leave it out"] * anchored
    if isinstance(model, ClassifierSpec):
        beginning += ["privacy.marginals has no meaning: those of the warm start are used"] * anchored
        beginning += ["warm_start is missing: the snapshot whose marginals, or whose classifier, is used"] * (not warm)
    if not isinstance(model, CopulaSpec | InfluenceSpec | ScoresSpec):
        faults = [f"{name} is missing" for name, value in training.items() if value is None]
        noisy = isinstance(model, ModelSpec | SeriesSpec) and model.sigma_min >= model.sigma_max
        return [*faults, *["sigma_min must be below sigma_max"] * noisy, *beginning]
    given = [name for name, value in training.items() if value is not None]
    defaults = Federation()
    given += [f"federation.{name}" for name in OF_UPDATES if getattr(federation, name) != getattr(defaults, name)]
    given += ["optimiser"] * (optimiser != Optimiser()) + ["sites.weight"] * weighted
    given += ["warm_start"] * (warm and isinstance(model, CopulaSpec))
    faults = [
        f"{name} has no meaning with model.kind = {model.kind}, which trains nothing: leave it out" for name in given
    ]
    if isinstance(model, ClassifierSpec):
        return [*faults, *beginning]
    return faults if anchored else [*faults, "privacy.marginals is missing: a copula is fitted about them"]


def _last_round(federation: Federation) -> int:
    """Training rounds, or the one round of a model that is not trained."""
    return federation.rounds or 1


def round_mechanism(privacy: Privacy, federation: Federation, round_number: int) -> PoissonGaussian | GaussianSum:
    """The one mechanism that a site runs in a round under these settings.

    Raises:
        PlanError: if there is no such round.
    """
    if round_number == MARGINALS_ROUND and privacy.marginals:
        return GaussianSum(noise_multiplier=privacy.marginals.noise_multiplier, clip_norm=privacy.marginals.clip_norm)
    if 1 <= round_number <= _last_round(federation):
        if privacy.selection_rate is None or federation.steps_per_round is None:
            return GaussianSum(noise_multiplier=privacy.noise_multiplier, clip_norm=privacy.clip_norm)
        return PoissonGaussian(
            noise_multiplier=privacy.noise_multiplier,
            clip_norm=privacy.clip_norm,
            selection_rate=privacy.selection_rate,
            steps=federation.steps_per_round,
        )
    first = MARGINALS_ROUND if privacy.marginals else 1
    raise PlanError(
        expected=f"a round from {first} to {_last_round(federation)}",
        found=str(round_number),
        remedy="Check that the coordinator runs the plan it signed.",
    )


def all_mechanisms(privacy: Privacy, federation: Federation) -> list[PoissonGaussian | GaussianSum]:
    """Every mechanism that these settings lead to, in the order of rounds."""
    first = MARGINALS_ROUND if privacy.marginals else 1
    return [round_mechanism(privacy, federation, number) for number in range(first, _last_round(federation) + 1)]


def explain_validation(error: ValidationError) -> str:
    """One line that names each faulty field of a pydantic error and what is wrong with it."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'the whole'}: {fault['msg']}" for fault in error.errors()
    )


def read_plan_toml(path: Path) -> dict[str, Any]:
    """Read a plan's TOML with exact decimals.

    Raises:
        PlanError: if the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except FileNotFoundError:
        raise PlanError(expected="a plan file", found=f"nothing at {path}", remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(expected="a TOML file", found=f"{path}: {error}", remedy="Correct the file.") from None
