"""The clipping self-test of a schema's model, on invented patients: what a site does before it opens its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from synclave_client.performance import Performance
from synclave_client.training.clinical import ClinicalBatch, ClinicalLearner, clinical_loss, clinical_values_of
from synclave_client.training.codes import DiffusionBatch, DiffusionLoss
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.notes import NotesLearner
from synclave_client.training.private import SelfTestReport, check_places, self_test
from synclave_client.training.series import SeriesBatch, SeriesLoss, values_of
from synclave_shared.data.modality import AnySchema
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.diffusion.notes import NotesBatch, note_loss
from synclave_shared.diffusion.preconditioning import prior_logits
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.note_base import LoadedBase, build_note_lm, find_base
from synclave_shared.models.series.anchor import usual_anchor
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import ClassifierSpec, ModelSpec, NotesSpec, ScoresSpec, SeriesSpec
from synclave_shared.text.chunks import NoteChunks
from synclave_shared.text.tokenizer import NoteTokenizer

if TYPE_CHECKING:
    from synclave_shared.data.schema import Schema

__all__ = ["rehearse", "rehearse_clinical", "rehearse_notes", "rehearse_schema", "rehearse_series"]

INVENTED_PATIENTS: Final = 5
"""Enough to find patients that are mixed, few enough for a second of computing."""

SHARE_OF_CODES: Final = 0.2
"""Of the codes that an invented patient has."""

SHARE_OF_STEPS: Final = 0.4
"""Of the steps at which an invented patient's channel was measured."""

SHARE_OF_WORDS: Final = 0.9
"""Of an invented note that may be hidden; the rest are slots."""

INVENTED_CHUNKS: Final = 3
"""Most chunks of an invented patient."""

NOTES_STD: Final = 0.01
"""Added to a language model's weights."""

COUPLING_STD: Final = 0.1
"""Of the invented parameters: away from zero, where every gradient path is open."""


def rehearse_schema(schema: AnySchema, performance: Performance, device: torch.device | str = "cpu") -> SelfTestReport:
    """The self-test of a schema's default model, whatever its modality; see :func:`rehearse`."""
    if isinstance(schema, SeriesSchema):
        return rehearse_series(SeriesLayout.of(schema), SeriesSpec(), performance, device)
    if isinstance(schema, NotesSchema):
        return rehearse_notes(schema.notes.tokens, NotesSpec(), find_base(NotesSpec()), performance, device)
    return rehearse(schema, ModelSpec(), performance, device)


def rehearse(
    schema: Schema, spec: ModelSpec, performance: Performance, device: torch.device | str = "cpu"
) -> SelfTestReport:
    """Compare clipped sums of the schema's model with one backward pass per patient, on invented patients.

    Args:
        schema: columns and label values.
        spec: the plan's model settings.
        performance: how the site computes.
        device: where.

    Raises:
        ClippingError: if gradients cannot be bounded per patient on this machine, naming the layer.
    """
    layout = CodeLayout.of(schema)
    generator = torch.Generator().manual_seed(0)
    network = _with_invented_parameters(build_code_denoiser(layout, spec), generator).to(device)
    anchor = torch.randn(layout.label_values, layout.width, generator=generator)
    loss = DiffusionLoss(spec=spec, layout=layout, prior=prior_logits(anchor, layout).to(device))
    streams = PatientStreams(SecretRandomness(bytes(32)))

    def invented(patients: int) -> DiffusionBatch:
        clean = (torch.rand(patients, layout.width, generator=generator) < SHARE_OF_CODES).float()
        for start, stop in layout.categories:
            choice = torch.randint(start, stop, (patients, 1), generator=generator)
            clean[:, start:stop] = 0
            clean.scatter_(1, choice, 1)
        labels = torch.arange(patients) % layout.label_values
        return loss.draw(clean.to(device), labels.to(device), streams, 0, np.arange(patients, dtype=np.int64))

    # Always the same patients: whether a machine passes must not hang on a draw.
    report = self_test(network, loss, invented(INVENTED_PATIENTS), performance)
    check_places(network, loss, invented(performance.tile(spec.noise_levels * layout.width)))
    return report


def rehearse_series(
    layout: SeriesLayout, spec: SeriesSpec, performance: Performance, device: torch.device | str = "cpu"
) -> SelfTestReport:
    """:func:`rehearse` for the model of time series.

    Args:
        layout: steps, channels, context and label values.
        spec: the plan's model settings.
        performance: how the site computes.
        device: where.

    Raises:
        ClippingError: if gradients cannot be bounded per patient on this machine, naming the layer.
    """
    generator = torch.Generator().manual_seed(0)
    network = _with_invented_parameters(build_series_denoiser(layout, spec), generator).to(device)
    anchor = usual_anchor(layout)
    loss = SeriesLoss.of(spec, layout, anchor, device)
    streams = PatientStreams(SecretRandomness(bytes(32)))
    rng = np.random.default_rng(0)

    def invented(patients: int) -> SeriesBatch:
        dataset = _invented_series(layout, patients, rng)
        return loss.draw(dataset, np.arange(patients), patients, streams, 0).to(device)

    report = self_test(network, loss, invented(INVENTED_PATIENTS), performance)
    check_places(network, loss, invented(performance.tile(values_of(spec, layout))))
    return report


def rehearse_clinical(
    layout: SeriesLayout, spec: ClassifierSpec, performance: Performance, device: torch.device | str = "cpu"
) -> SelfTestReport:
    """:func:`rehearse` for a clinical model; the arguments are those of :func:`rehearse_series`.

    A model that only scores is rehearsed in float32 whatever the site trains in: in that it scores.
    """
    if isinstance(spec, ScoresSpec):
        performance = performance.model_copy(update={"precision": "float32"})
    generator = torch.Generator().manual_seed(0)
    network = build_series_classifier(layout, spec)
    _with_invented_parameters(network, generator).to(device)
    rng = np.random.default_rng(0)

    def invented(patients: int) -> ClinicalBatch:
        learner = ClinicalLearner(
            network=network,
            dataset=_invented_series(layout, patients, rng),
            layout=layout,
            anchor=usual_anchor(layout),
            weights=np.linspace(1.0, 2.0, layout.label_values, dtype=np.float32),
            device=device,
        )
        return learner.batch(np.arange(patients), patients)

    report = self_test(network, clinical_loss, invented(INVENTED_PATIENTS), performance)
    check_places(network, clinical_loss, invented(performance.tile(clinical_values_of(layout))))
    return report


def rehearse_notes(
    tokens: int, spec: NotesSpec, base: LoadedBase, performance: Performance, device: torch.device | str = "cpu"
) -> SelfTestReport:
    """:func:`rehearse` for the language model of notes.

    Args:
        tokens: length of a chunk.
        spec: the plan's model settings.
        base: what they name.
        performance: how the site computes.
        device: where.

    Raises:
        ClippingError: if gradients cannot be bounded per patient on this machine, naming the layer.
    """
    generator = torch.Generator().manual_seed(0)
    network = build_note_lm(spec, base)
    with torch.no_grad():
        for parameter in network.parameters():
            # About the weights as they are: of a deep network with invented ones nothing but noise comes out.
            if parameter.requires_grad:
                parameter.add_(NOTES_STD * torch.randn(parameter.shape, generator=generator))
    network.to(device)
    rng = np.random.default_rng(0)
    streams = PatientStreams(SecretRandomness(bytes(32)))

    def learner(patients: int) -> NotesLearner:
        chunks = _invented_chunks(patients, tokens, base.tokenizer, rng)
        return NotesLearner(network=network, spec=spec, chunks=chunks, tokenizer=base.tokenizer, device=device)

    def invented(patients: int) -> NotesBatch:
        return learner(patients).batch(np.arange(patients), patients, streams, 0)

    report = self_test(network, note_loss, invented(INVENTED_PATIENTS), performance)
    check_places(network, note_loss, invented(performance.tile(learner(1).values)))
    return report


def _invented_chunks(patients: int, tokens: int, tokenizer: NoteTokenizer, rng: np.random.Generator) -> NoteChunks:
    counts = rng.integers(1, INVENTED_CHUNKS + 1, patients)
    lengths = rng.integers(4, tokens + 1, counts.sum())
    ids = rng.integers(0, tokenizer.size, (counts.sum(), tokens)).astype(np.int32)
    ids[ids == tokenizer.pad] = tokenizer.mask
    inside = np.arange(tokens) < lengths[:, None]
    ids = np.where(inside, ids, tokenizer.pad).astype(np.int32)
    predictable = inside & (rng.random(ids.shape) < SHARE_OF_WORDS)
    return NoteChunks(
        ids=ids, predictable=predictable, starts=np.concatenate([[0], counts.cumsum()]), most=INVENTED_CHUNKS
    )


def _invented_series(layout: SeriesLayout, patients: int, rng: np.random.Generator) -> SeriesDataset:
    shape = (patients, layout.steps, layout.channels)
    lengths = rng.integers(1, layout.steps + 1, patients)
    inside = np.less(np.arange(layout.steps), lengths[:, None])[:, :, None]
    observed = ((rng.random(shape) < SHARE_OF_STEPS) & inside).astype(np.uint8)
    return SeriesDataset(
        values=np.where(observed, rng.uniform(-1, 1, shape), 0).astype(np.float32),
        observed=observed,
        lengths=lengths,
        static=(rng.random((patients, layout.fields)) < SHARE_OF_CODES).astype(np.uint8),
        labels=np.arange(patients) % layout.label_values,
        patient_ids=[str(number) for number in range(patients)],
    )


def _with_invented_parameters(network: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(COUPLING_STD * torch.randn(parameter.shape, generator=generator))
    return network
