"""What a person asks for when drawing synthetic patients, resolved into exact numbers."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError

from synclave_server.sampling.philox import MAX_PATIENTS
from synclave_shared.canonical import ExactDecimal, FrozenModel, canonical_bytes, sha256_hex
from synclave_shared.diffusion.discrete import REVEALERS
from synclave_shared.diffusion.samplers import SAMPLERS, evaluations
from synclave_shared.diffusion.unmasking import ORDERS
from synclave_shared.errors import ConfigurationError
from synclave_shared.plan import explain_validation

__all__ = [
    "DEFAULT_SAMPLERS",
    "DEFAULT_STEPS",
    "SERIES_CORRUPTION",
    "WORDS_CORRUPTION",
    "NotesRequest",
    "Precision",
    "SampleRequest",
    "TargetBy",
    "allot",
    "resolve_request",
    "samplers_of",
]

Precision = Literal["float32", "bfloat16"]
"""What the network computes in. Posteriors and draws are always float32 or better."""

TargetBy = Literal["influence", "classifier"]
"""How a clinical model guides: by its influence vector, or as a classifier of the label."""

SERIES_CORRUPTION: Final = "series"
"""Gaussian noise on values and gaps of time series."""

WORDS_CORRUPTION: Final = "words"
"""Hidden words of notes."""

DEFAULT_SAMPLERS: Final[Mapping[str, str]] = MappingProxyType(
    {"gaussian": "unipc", "masked": "masked", SERIES_CORRUPTION: "unipc", WORDS_CORRUPTION: ORDERS[0]}
)
"""By what the model was trained to undo."""

OF_CODES_ALONE: Final = frozenset({"flow"})
"""Samplers that hold every column to be 0 or 1."""

COPULA_SAMPLER: Final = "copula"
"""Of a copula, which is drawn from at once."""

DEFAULT_STEPS: Final = 10
"""10 calls of the network; see docs/benchmarks.md for what more of them bring."""

MAX_STEPS: Final = 10_000
"""Far beyond convergence; more is a typing error."""

MAX_GUIDANCE: Final = 100
"""Beyond it every code that the label makes likelier is certain."""


def samplers_of(corruption: str | None) -> tuple[str, ...]:
    """Names of the samplers that undo ``gaussian`` or ``masked`` corruption, the recommended one first.

    ``series`` is noise on time series, ``words`` hidden words of notes; None stands for a copula, which undoes nothing.
    """
    if corruption is None:
        return (COPULA_SAMPLER,)
    if corruption == WORDS_CORRUPTION:
        return ORDERS
    if corruption == SERIES_CORRUPTION:
        return tuple(name for name in SAMPLERS if name not in OF_CODES_ALONE)
    return tuple(REVEALERS if corruption == "masked" else SAMPLERS)


def _known_sampler(name: str) -> str:
    known = (*SAMPLERS, *REVEALERS, *ORDERS, COPULA_SAMPLER)
    if name not in known:
        raise ValueError(f"{name!r} is none of {', '.join(known)}")
    return name


class NotesRequest(FrozenModel):
    """How the words of notes are drawn, and whom the notes are about.

    Attributes:
        temperature: below 1 likelier words become likelier; 0: always the likeliest.
        top_k: only so many likeliest tokens are drawn; 0: all.
        top_p: only the likeliest tokens whose probabilities add up to this are drawn; 1: all.
        codes: SHA-256 of the cohort of codes whose patients the notes are about; None: invented ones.
    """

    temperature: Annotated[ExactDecimal, Field(ge=0, le=10)] = Decimal(1)
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    top_p: Annotated[ExactDecimal, Field(gt=0, le=1)] = Decimal(1)
    codes: str | None = None


class SampleRequest(FrozenModel):
    """A resolved request; with a snapshot it fixes every synthetic patient.

    Attributes:
        label_counts: patients for each label value, in the schema's order.
        given: columns that are fixed in every patient, by name: 0 or 1.
        sampler: name of the sampler.
        steps: noise levels visited, the last one where the clean row is drawn; for masked samplers, calls.
        seed: fixes all randomness.
        guidance: weight of classifier-free guidance; 0 is plain conditional sampling.
        classifier_guidance: strength of guidance by the anchor's noise-aware classifier; 0 is none.
        precision: what the network computes in.
        calibrated: whether prevalences are brought back to the anchor's by offsets on the last logits. Not with
            guidance, not with given columns, which have prevalences of their own, and not in masked models.
        target: SHA-256 of the tensors of the clinical model that patients are made useful to; None: of none.
        target_by: by what: its ``influence`` vector, or as a ``classifier`` of the label.
        target_strength: how far, in standard deviations of what is still open at each level.
        target_curvature: whether the influence vector is turned into the step that synthetic patients lack.
        notes: of notes, how words are drawn; None for other modalities.
    """

    label_counts: dict[str, Annotated[int, Field(ge=0)]]
    given: dict[str, Annotated[int, Field(ge=0, le=1)]] = Field(default_factory=dict)
    sampler: Annotated[str, AfterValidator(_known_sampler)]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    seed: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    guidance: Annotated[ExactDecimal, Field(ge=0, le=MAX_GUIDANCE)]
    classifier_guidance: Annotated[ExactDecimal, Field(ge=0, le=MAX_GUIDANCE)] = Decimal(0)
    precision: Precision = "float32"
    calibrated: bool = True
    target: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    target_by: TargetBy = "influence"
    target_strength: Annotated[ExactDecimal, Field(ge=0, le=MAX_GUIDANCE)] = Decimal(0)
    target_curvature: bool = False

    notes: NotesRequest | None = None

    @property
    def patients(self) -> int:
        """How many patients are asked for."""
        return sum(self.label_counts.values())

    @property
    def network_calls(self) -> int:
        """Calls of the network for one patient; guidance asks twice each time, and a copula has none."""
        if self.sampler == COPULA_SAMPLER:
            return 0
        calls = self.steps if self.sampler in (*REVEALERS, *ORDERS) else evaluations(self.sampler, self.steps)
        return calls * (2 if self.guidance else 1)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return sha256_hex(canonical_bytes(self))


def allot(patients: int, shares: NDArray[np.floating]) -> list[int]:
    """Split ``patients`` by ``shares`` [L] into whole numbers of the right sum (largest remainders)."""
    exact = np.asarray(shares, dtype=np.float64)
    exact = exact / exact.sum() * patients
    counts = np.floor(exact).astype(np.int64)
    missing = patients - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return [int(count) for count in counts]


def resolve_request(
    *,
    patients: int,
    label_counts: Mapping[str, int] | None,
    label_values: tuple[str, ...],
    label_shares: NDArray[np.floating] | None,
    corruption: str | None,
    anchored: bool = True,
    sampler: str | None,
    steps: int | None,
    seed: int,
    guidance: Decimal,
    given: Mapping[str, int] | None = None,
    classifier_guidance: Decimal = Decimal(0),
    precision: str = "float32",
    calibrated: bool = True,
    target: str | None = None,
    target_by: TargetBy = "influence",
    target_strength: Decimal = Decimal(0),
    target_curvature: bool = False,
    notes: NotesRequest | None = None,
) -> SampleRequest:
    """Check a request and fill in label counts.

    Args:
        patients: how many.
        label_counts: exact counts by label value; None: by the shares that the training measured privately, else even.
        label_values: the schema's label values.
        label_shares: [L], or None.
        corruption: what the model was trained to undo, ``gaussian`` or ``masked``; None: it is a copula.
        anchored: whether the model has an anchor.
        sampler: name of the sampler; None: the recommended one.
        steps: noise levels visited; None: :data:`DEFAULT_STEPS`.
        seed: 0 <= seed < 2**64.
        guidance: weight of classifier-free guidance.
        given: columns that are fixed in every patient, by name: 0 or 1.
        classifier_guidance: strength of guidance by the anchor's classifier.
        precision: what the network computes in.
        calibrated: whether prevalences are calibrated.
        target: digest of the clinical model that patients are made useful to.
        target_by: how it guides.
        target_strength: how far.
        target_curvature: whether by the step that synthetic patients lack; by influence only.
        notes: of notes, how words are drawn.

    Raises:
        ConfigurationError: if a label value or the sampler is unknown, the counts do not add up, a number is out of
            range, or a copula is asked for what it has not.
    """
    if not 1 <= patients <= MAX_PATIENTS:
        raise _refused(f"1 to {MAX_PATIENTS} patients", str(patients), "Ask for another number of patients.")
    if not 0 <= seed < 2**64:
        raise _refused("a seed from 0 to 2**64 - 1", str(seed), "Choose another seed.")
    names = samplers_of(corruption)
    if corruption is None:
        _check_copula(sampler, steps, guidance, classifier_guidance, given, precision)
        sampler, steps = COPULA_SAMPLER, 1
    else:
        sampler = DEFAULT_SAMPLERS[corruption] if sampler is None else sampler
        steps = DEFAULT_STEPS if steps is None else steps
        if sampler not in names:
            why = {SERIES_CORRUPTION: "draws time series", WORDS_CORRUPTION: "writes notes"}.get(
                corruption, f"was trained with {corruption} corruption"
            )
            raise _refused(
                f"a sampler of {', '.join(names)}: the model {why}",
                sampler,
                "Choose one of them, or leave the sampler away.",
            )
    if (notes is None) == (corruption == WORDS_CORRUPTION):
        raise _refused(
            "--temperature, --top-k, --top-p and --codes with a model of notes alone",
            f"a model that undoes {corruption}",
            "Leave them away.",
        )
    if guidance and corruption == WORDS_CORRUPTION:
        raise _refused("no --guidance with a model of notes", f"{guidance}", "Use --label, --temperature or --top-p.")
    if classifier_guidance and not anchored:
        raise _refused(
            "a model with an anchor, which is the classifier",
            "one that was trained without a marginals release",
            "Leave --classifier-guidance away; --guidance needs no anchor.",
        )
    if label_counts is None:
        shares = np.ones(len(label_values)) if label_shares is None else label_shares
        label_counts = dict(zip(label_values, allot(patients, shares), strict=True))
    unknown = sorted(set(label_counts) - set(label_values))
    if unknown:
        raise _refused(
            f"a label value of {', '.join(label_values)}", unknown[0], "Use one of the schema's label values."
        )
    if sum(label_counts.values()) != patients:
        raise _refused(
            f"label counts that add up to {patients} patients",
            f"{sum(label_counts.values())}",
            "Correct the counts or the number of patients.",
        )
    try:
        return SampleRequest.model_validate(
            {
                "label_counts": {value: label_counts.get(value, 0) for value in label_values},
                "sampler": sampler,
                "steps": steps,
                "seed": str(seed),
                "guidance": guidance,
                "classifier_guidance": classifier_guidance,
                "precision": precision,
                "given": dict(given or {}),
                "notes": notes,
                "target": target,
                "target_by": target_by if target is not None else "influence",
                "target_strength": target_strength if target is not None else Decimal(0),
                "target_curvature": target_curvature and target is not None and target_by == "influence",
                # Guidance means to make a label's codes commoner than they are.
                "calibrated": calibrated
                and anchored
                and corruption == "gaussian"
                and not (guidance or classifier_guidance or given),
            }
        )
    except ValidationError as error:
        raise _refused(
            f"a sampler of {', '.join(names)}, steps from 1, guidance from 0, precision float32 or bfloat16",
            explain_validation(error),
            "Correct the request.",
        ) from None


def _check_copula(
    sampler: str | None,
    steps: int | None,
    guidance: Decimal,
    classifier_guidance: Decimal,
    given: Mapping[str, int] | None,
    precision: str,
) -> None:
    asked = {
        f"--sampler {sampler}": sampler not in (None, COPULA_SAMPLER),
        f"--steps {steps}": steps is not None,
        f"--guidance {guidance}": bool(guidance),
        f"--classifier-guidance {classifier_guidance}": bool(classifier_guidance),
        f"--given {' '.join(given or ())}": bool(given),
        f"--precision {precision}": precision != "float32",
    }
    found = [option for option, is_asked in asked.items() if is_asked]
    if found:
        raise _refused(
            "labels, seed and format alone: the model is a copula, of which a patient is drawn at once",
            ", ".join(found),
            "Leave that away. For guidance and given columns ask for a plan with model.kind = diffusion.",
        )


def _refused(expected: str, found: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(expected=expected, found=found, remedy=remedy)
