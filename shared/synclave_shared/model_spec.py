"""What a plan can ask for: the numbers of each kind of model, without any of its code.

Whoever signs a plan need not have torch, so the sizes that a signature depends on are written out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from synclave_shared.canonical import ExactDecimal, FrozenModel
from synclave_shared.errors import PlanError
from synclave_shared.privacy.mechanism import PositiveDecimal

__all__ = [
    "ARCHITECTURES",
    "EMBEDDED",
    "LEVEL_KNOTS",
    "AnyModel",
    "ClassifierSpec",
    "CopulaSpec",
    "InfluenceSpec",
    "InstalledModel",
    "ModelSpec",
    "NotesBase",
    "NotesSpec",
    "ScoresSpec",
    "SeriesSpec",
]

MOST_COUPLED: Final = 4096
"""Couplings are the square of the columns: 8.4 M parameters, of which a patient's gradient is one outer product."""

ARCHITECTURES: Final = ("logistic", "gru", "tcn", "transformer")
"""Clinical models of Synclave's own; any other name is that of an installed one."""

EMBEDDED: Final = "embedded"
"""Name of the language model that comes with Synclave."""

LEVEL_KNOTS: Final = 24
"""Hat functions by which a tower is told the noise level; between neighbours it interpolates."""

LARGEST_WEIGHT: Final = 20.0
"""Of a patient by the rarity of the label value: the clip norm bounds what comes of it in any case."""


class ModelSpec(FrozenModel):
    """The code denoiser: predicts Bernoulli and categorical posteriors of a row of which little is seen.

    Attributes:
        kind: what the model is.
        corruption: what training hides: ``gaussian``, noise on all columns of a row; ``masked``, some columns wholly.
        coupled_columns: pairs of so many columns at most are coupled, of the most prevalent ones; 0: none.
        width: width of the residual tower; 0: none, which is best where noise is heavy.
        blocks: residual blocks of the tower.
        noise_levels: noise levels per patient and step, averaged *before* clipping.
        label_dropout: share of patients whose label is hidden in a step (classifier-free guidance).
        sigma_min, sigma_max: range of noise levels, in units of the data. At sigma_min the clean row is drawn from its
            posterior: there a column is all but decided by its own value, and going lower only loses rare codes.
        log_sigma_mean, log_sigma_std: training draws ln(sigma) from this normal law, moved into the range.
    """

    kind: Literal["diffusion"] = "diffusion"
    corruption: Literal["gaussian", "masked"] = "gaussian"
    coupled_columns: Annotated[int, Field(ge=0, le=MOST_COUPLED)] = 2048
    width: Annotated[int, Field(ge=0, le=4096)] = 0
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    noise_levels: Annotated[int, Field(ge=1, le=64)] = 4
    label_dropout: Annotated[ExactDecimal, Field(ge=0, le=Decimal("0.9999"))] = Decimal("0.1")
    sigma_min: Annotated[PositiveDecimal, Field(ge=Decimal("0.001"))] = Decimal("0.4")
    sigma_max: PositiveDecimal = Decimal("5")
    log_sigma_mean: ExactDecimal = Decimal("-0.2")
    log_sigma_std: PositiveDecimal = Decimal("0.8")

    def parameter_count(self, columns: int, label_values: int) -> int:
        """Number of parameters P of the network for a schema of so many columns and label values.

        Written out, because whoever signs a plan need not have torch.
        """
        coupled, width = min(columns, self.coupled_columns), self.width
        tower = width * (2 * columns + LEVEL_KNOTS + label_values + width + 6) + columns
        blocks = self.blocks * width * (6 * width + 7)
        return coupled * (coupled + 1) // 2 + (tower + blocks if width else 0)


class CopulaSpec(FrozenModel):
    """The Gaussian copula: fitted to one noisy sum of second moments, nothing is trained.

    Attributes:
        kind: what the model is.
    """

    kind: Literal["copula"] = "copula"

    def parameter_count(self, columns: int, label_values: int) -> int:
        """Number of second moments M that a site releases: a variance or covariance per pair of columns."""
        return columns * (columns + 1) // 2


class SeriesSpec(FrozenModel):
    """The series denoiser: predicts values and gaps of channels over time of which little is seen.

    Attributes:
        kind: what the model is.
        couplings: whether channels are coupled in pairs, within a step and over the stay.
        width: width of the backbone, a multiple of 32; 0: none, which is best where noise is heavy.
        backbone: what looks over the steps: a ``transformer``, or a ``unet`` of convolutions at several resolutions.
        blocks: of the transformer; of the U-Net on the way down, each at half the resolution of the one before.
        noise_levels: noise levels per patient and step, averaged *before* clipping.
        label_dropout: share of patients whose label is hidden in a step (classifier-free guidance).
        sigma_min, sigma_max: range of noise levels, in standard deviations of a channel.
        log_sigma_mean, log_sigma_std: training draws ln(sigma) from this normal law, moved into the range.
    """

    kind: Literal["series"] = "series"
    couplings: bool = True
    width: Annotated[int, Field(ge=0, le=1024, multiple_of=32)] = 0
    backbone: Literal["transformer", "unet"] = "transformer"
    blocks: Annotated[int, Field(ge=1, le=16)] = 3
    noise_levels: Annotated[int, Field(ge=1, le=64)] = 4
    label_dropout: Annotated[ExactDecimal, Field(ge=0, le=Decimal("0.9999"))] = Decimal("0.1")
    sigma_min: Annotated[PositiveDecimal, Field(ge=Decimal("0.001"))] = Decimal("0.05")
    sigma_max: PositiveDecimal = Decimal("8")
    log_sigma_mean: ExactDecimal = Decimal("-0.4")
    log_sigma_std: PositiveDecimal = Decimal("1.3")

    def parameter_count(self, steps: int, channels: int, fields: int, label_values: int) -> int:
        """Number of parameters P of the network for so many steps, channels, columns of fields and label values.

        Written out, because whoever signs a plan need not have torch.
        """
        corrections, context, width = 2 * channels, fields + steps, self.width
        couplings = corrections * (corrections + 1) + context * corrections
        ends = width * (3 * channels + steps + LEVEL_KNOTS + label_values + context + width + 7 + corrections)
        attention, convolutions, coarse = 12 * width + 15, 8 * width + 6, width + 1
        if self.backbone == "transformer":
            body = self.blocks * width * attention
        else:
            body = width * ((2 * self.blocks - 1) * convolutions + (self.blocks - 1) * coarse)
        return couplings * self.couplings + (ends + corrections + body if width else 0)


class InstalledModel(FrozenModel):
    """Which clinical model is meant that the sites installed themselves. Whoever builds another one refuses the plan.

    Attributes:
        distribution: name of the Python distribution that offers it.
        version: of the distribution.
        code: SHA-256 of the package's Python files; see :mod:`synclave_shared.models.series.installed`.
        parameters: number of parameters P under the plan's schema.
    """

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}$")]
    code: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parameters: Annotated[int, Field(ge=1)]


class NotesBase(FrozenModel):
    """Which language model is meant that a training of notes begins with. Who has another one refuses the plan.

    Attributes:
        digest: SHA-256 over vocabulary, configuration and weights; see :mod:`synclave_shared.models.note_base`.
        parameters: number of parameters P that are trained and travel: all, or those of the adapters.
    """

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parameters: Annotated[int, Field(ge=1)]


class NotesSpec(FrozenModel):
    """The masked language model of notes: predicts hidden words of a note from the others.

    Attributes:
        kind: what the model is.
        base: what the training begins with: ``embedded``, Synclave's own small network and vocabulary; or the folder of
            a published masked language model (BERT, RoBERTa, ModernBERT), in a plan file relative to it, in a signed
            plan by its name alone.
        width, blocks: of the embedded network; of no meaning with a published one.
        adapter_rank: 0: all parameters are trained. Else low-rank adapters of that rank, of which one factor is fixed
            and public and the other is trained (FFA-LoRA, Sun et al. 2024): averages over sites are then exact.
        chunks_per_step: chunks of a patient in a step, averaged *before* clipping. A patient with fewer sees one twice,
            with other words hidden.
        predicted_tokens: words of a chunk at most that go through the vocabulary head: public, so that no patient
            changes the shape of another's numbers.
        smallest_ratio: training hides a share of a chunk's words drawn evenly from this to 1.
        largest_weight: of a word: 1 / share, at most this.
        looked_up: the base as it was found when the plan was made.
    """

    kind: Literal["notes"] = "notes"
    base: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,255}$")] = EMBEDDED
    width: Annotated[int, Field(ge=64, le=1024, multiple_of=64)] = 128
    blocks: Annotated[int, Field(ge=1, le=24)] = 4
    adapter_rank: Annotated[int, Field(ge=0, le=256)] = 0
    chunks_per_step: Annotated[int, Field(ge=1, le=64)] = 2
    predicted_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    smallest_ratio: Annotated[PositiveDecimal, Field(le=1)] = Decimal("0.02")
    largest_weight: Annotated[PositiveDecimal, Field(ge=1)] = Decimal(10)
    looked_up: NotesBase | None = None

    @model_validator(mode="after")
    def _adapters_need_weights(self) -> Self:
        if self.adapter_rank and self.base == EMBEDDED:
            raise ValueError("adapter_rank needs a published base: of the embedded one all parameters are trained")
        return self

    def parameter_count(self) -> int:
        """Number of parameters P that are trained.

        Raises:
            PlanError: if the base was not looked up.
        """
        if self.looked_up is None:
            raise PlanError(
                expected="a model of notes whose base was looked up",
                found=f"base = {self.base}, of which nothing is known",
                remedy="Make the plan from its file with `synclave plan`.",
            )
        return self.looked_up.parameters


class ClassifierSpec(FrozenModel):
    """A clinical model of time series: predicts the label. Guidance makes synthetic patients useful to one.

    Attributes:
        kind: what the model is.
        architecture: ``logistic`` regression on means over the stay and its ends; ``gru``, gated recurrent units (Cho
            et al. 2014); ``tcn``, dilated convolutions that see the past (Bai et al. 2018); ``transformer``; or the
            name of an installed model.
        width: of all but the first, a multiple of 32.
        blocks: of all but the first.
        installed: the installed model, looked up when the plan is made; None for the others.
    """

    kind: Literal["classifier"] = "classifier"
    architecture: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")] = "logistic"
    width: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 32
    blocks: Annotated[int, Field(ge=1, le=16)] = 3
    installed: InstalledModel | None = None

    @model_validator(mode="after")
    def _ours_is_not_installed(self) -> Self:
        if self.installed is not None and self.architecture in ARCHITECTURES:
            raise ValueError(f"installed has no meaning with architecture {self.architecture}, which is Synclave's own")
        return self

    def parameter_count(self, steps: int, channels: int, fields: int, label_values: int) -> int:
        """Number of parameters P, written out, because whoever signs a plan need not have torch.

        Raises:
            PlanError: if the model is an installed one that was not looked up.
        """
        if self.installed is not None:
            return self.installed.parameters
        context, width = fields + steps, self.width
        ends = width * (2 * channels + 1 + steps)
        body = {
            "logistic": 0,
            "gru": ends + self.blocks * width * (6 * width + 8),
            "tcn": ends + self.blocks * width * (3 * width + 3),
            "transformer": ends + width * (context + 1) + self.blocks * width * (12 * width + 15),
        }.get(self.architecture)
        if body is None:
            raise PlanError(
                expected=f"architecture = {', '.join(ARCHITECTURES)}, or an installed model that was looked up",
                found=self.architecture,
                remedy="Make the plan from its file with `synclave plan`, where the model is installed.",
            )
        read = 2 * channels if self.architecture == "logistic" else width
        return body + (3 * read + context + 1) * label_values


class InfluenceSpec(ClassifierSpec):
    """The guidance vector of a clinical model: one noisy sum of its gradients over the patients; nothing is trained.

    Architecture, width and blocks are those of the clinical model, which the plan begins with.

    Attributes:
        kind: what the model is.
        balanced: whether patients are weighted by how rare their label value is, so that each value counts alike.
    """

    kind: Literal["influence"] = "influence"  # type: ignore[assignment]
    balanced: bool = True

    def label_weights(self, label_shares: Sequence[float]) -> list[float]:
        """What a patient of each label value counts for, [L], by the values' shares among all patients [L]."""
        if not self.balanced:
            return [1.0] * len(label_shares)
        return [min(1.0 / (len(label_shares) * max(float(share), 1e-6)), LARGEST_WEIGHT) for share in label_shares]


class ScoresSpec(ClassifierSpec):
    """How well a clinical model predicts the sites' patients: one noisy sum of histograms; nothing is trained.

    Architecture, width and blocks are those of the clinical model, which the plan begins with.

    Attributes:
        kind: what the model is.
    """

    kind: Literal["scores"] = "scores"  # type: ignore[assignment]


def _kind_of(model: Any) -> Any:
    return model.get("kind", "diffusion") if isinstance(model, dict) else getattr(model, "kind", None)


AnyModel = Annotated[
    Annotated[ModelSpec, Tag("diffusion")]
    | Annotated[CopulaSpec, Tag("copula")]
    | Annotated[SeriesSpec, Tag("series")]
    | Annotated[NotesSpec, Tag("notes")]
    | Annotated[ClassifierSpec, Tag("classifier")]
    | Annotated[InfluenceSpec, Tag("influence")]
    | Annotated[ScoresSpec, Tag("scores")],
    Discriminator(_kind_of),
]
"""Every model that a plan can ask for; without ``kind`` the diffusion model is meant."""
