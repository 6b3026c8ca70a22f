"""The networks of the benchmark: the shapes that the three kinds of models have, at two-core size.

Each is a network, a loss per patient and a batch of random rows. Dimensions are in the names' comments; nothing here is
trained to be good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synclave_client.training.codes import DiffusionLoss
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_shared.data.schema import Schema
from synclave_shared.diffusion.preconditioning import prior_logits
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.masked_lm import MaskedPositionLm, masked_positions
from synclave_shared.plan import ModelSpec

__all__ = [
    "Rows",
    "Workload",
    "bert",
    "bert_lora",
    "bert_masked_positions",
    "code_denoiser",
    "mlp",
    "moved",
    "series_transformer",
    "unet",
]

MASKED_SHARE = 0.15

SCHEMA = Path(__file__).parents[2] / "examples" / "diabetes" / "schema.toml"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A batch: ``x`` and ``y`` [R, ...], and whose rows they are."""

    x: Tensor
    y: Tensor
    present: Tensor
    patient_of_row: Tensor | None = None

    def __len__(self) -> int:
        return len(self.present)

    def select(self, patients: Tensor) -> Self:
        if self.patient_of_row is None:
            return replace(self, x=self.x[patients], y=self.y[patients], present=self.present[patients])
        rows = [(self.patient_of_row == patient).nonzero()[:, 0] for patient in patients.tolist()]
        owners = [torch.full_like(own, number) for number, own in enumerate(rows)]
        none = self.patient_of_row[:0]
        chosen = torch.cat([*rows, none])
        return replace(
            self,
            x=self.x[chosen],
            y=self.y[chosen],
            present=self.present[patients],
            patient_of_row=torch.cat([*owners, none]),
        )

    def mean_over_rows(self, values: Tensor) -> Tensor:
        """Mean [B] of row values [R] over each patient's own rows."""
        if self.patient_of_row is None:
            return values
        counts = torch.bincount(self.patient_of_row, minlength=len(self)).clamp_min(1)
        total = values.new_zeros(len(self))
        return total.index_add(0, self.patient_of_row, values) / counts


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One line of the table."""

    title: str
    network: nn.Module
    loss: Callable[[Any, Any], Tensor]
    batch: Any
    opacus_network: nn.Module | None = None
    """What Opacus gets where it cannot take the network itself."""


def moved(batch: Any, device: torch.device) -> Any:
    """A batch with all its tensors on a device."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})


def code_denoiser(patients: int = 256) -> Workload:
    """The project's own model of codes, on the embedded schema."""
    layout = CodeLayout.of(Schema.load(SCHEMA))
    spec = ModelSpec()
    network = build_code_denoiser(layout, spec)
    assert network.coupling is not None
    with torch.no_grad():
        network.coupling.weight.normal_(std=0.05)
    prior = prior_logits(torch.randn(layout.label_values, layout.width), layout)

    def loss(network: Any, batch: Any) -> Tensor:
        return DiffusionLoss(spec=spec, layout=layout, prior=prior.to(batch.clean.device))(network, batch)

    streams = PatientStreams(SecretRandomness(bytes(32)))
    clean = (torch.rand(patients, layout.width) < 0.05).float()
    labels = torch.zeros(patients, dtype=torch.int64)
    rows = np.arange(patients, dtype=np.int64)
    batch = DiffusionLoss(spec=spec, layout=layout, prior=prior).draw(clean, labels, streams, 0, rows)
    title = f"code denoiser, {layout.width} columns, batch {patients}, {spec.noise_levels} noise levels"
    return Workload(title=title, network=network, loss=loss, batch=batch)


class ResidualMlp(nn.Module):
    """[..., D] and a noise level -> [..., D]; 4.2 M parameters at D 500, width 1024, 3 blocks."""

    def __init__(self, columns: int = 500, width: int = 1024, blocks: int = 3) -> None:
        super().__init__()
        self.inner = nn.Linear(columns + 1, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(blocks)])
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(blocks)])
        self.outer = nn.Linear(width, columns)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            hidden = hidden + block(functional.silu(norm(hidden)))
        out: Tensor = self.outer(functional.silu(hidden))
        return out


def _code_loss(network: Any, batch: Rows) -> Tensor:
    logits = network(batch.x)
    own = functional.binary_cross_entropy_with_logits(logits, batch.y, reduction="none").flatten(1).mean(1)
    return batch.mean_over_rows(own)


def mlp(patients: int = 256, levels: int = 1, columns: int = 500, width: int = 1024) -> Workload:
    shape = (patients, columns) if levels == 1 else (patients, levels, columns)
    y = (torch.rand(shape) < 0.1).float()
    x = torch.cat([y + torch.randn(shape), torch.rand(*shape[:-1], 1)], dim=-1)
    return Workload(
        title=f"residual MLP, batch {patients}" + (f", {levels} noise levels" if levels > 1 else ""),
        network=ResidualMlp(columns, width),
        loss=_code_loss,
        batch=Rows(x=x, y=y, present=torch.ones(patients, dtype=torch.bool)),
    )


class SelfAttention(nn.Module):
    """Attention over places, from Linear and scaled dot products: [R, T, d] -> [R, T, d]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mixed(x).chunk(3, -1)
        )
        found = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


class SeriesTransformer(nn.Module):
    """[R, T, channels] -> [R, T, channels]; .8 M parameters at width 128, 4 layers."""

    def __init__(self, channels: int = 14, width: int = 128, layers: int = 4, places: int = 48) -> None:
        super().__init__()
        self.inner = nn.Linear(channels, width)
        self.position = nn.Embedding(places, width)
        self.attention_norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers)])
        self.attentions = nn.ModuleList([SelfAttention(width, 4) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers)])
        self.ups = nn.ModuleList([nn.Linear(width, 4 * width) for _ in range(layers)])
        self.downs = nn.ModuleList([nn.Linear(4 * width, width) for _ in range(layers)])
        self.outer = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        # Repeated, not expanded: Opacus' embedding norms want contiguous numbers.
        places = torch.arange(x.shape[1], device=x.device).repeat(x.shape[0], 1)
        hidden = self.inner(x) + self.position(places)
        parts = (self.attention_norms, self.attentions, self.norms, self.ups, self.downs)
        for attention_norm, attention, norm, up, down in zip(*parts, strict=True):
            hidden = hidden + attention(attention_norm(hidden))
            hidden = hidden + down(functional.gelu(up(norm(hidden))))
        out: Tensor = self.outer(hidden)
        return out


def _series_loss(network: Any, batch: Rows) -> Tensor:
    return batch.mean_over_rows((network(batch.x) - batch.y).square().flatten(1).mean(1))


def series_transformer(patients: int = 64, places: int = 48, width: int = 128) -> Workload:
    x = torch.randn(patients, places, 14)
    return Workload(
        title=f"series transformer, batch {patients}, {places} hours",
        network=SeriesTransformer(width=width, places=places),
        loss=_series_loss,
        batch=Rows(x=x, y=torch.randn_like(x), present=torch.ones(patients, dtype=torch.bool)),
    )


class ConvBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with a skip: [R, c, L] -> [R, C, L]."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(min(8, inner), inner), nn.GroupNorm(min(8, outer), outer)
        self.conv_1, self.conv_2 = nn.Conv1d(inner, outer, 3, padding=1), nn.Conv1d(outer, outer, 3, padding=1)
        self.skip = nn.Conv1d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv_1(functional.silu(self.norm_1(x)))
        out: Tensor = self.skip(x) + self.conv_2(functional.silu(self.norm_2(hidden)))
        return out


class Unet(nn.Module):
    """[R, channels, L] -> [R, channels, L]; .6 M parameters at base 48, two levels."""

    def __init__(self, channels: int = 14, base: int = 48) -> None:
        super().__init__()
        self.inner = nn.Conv1d(channels, base, 3, padding=1)
        self.down_1, self.down_2 = ConvBlock(base, base), ConvBlock(base, 2 * base)
        self.shrink_1 = nn.Conv1d(base, base, 3, stride=2, padding=1)
        self.shrink_2 = nn.Conv1d(2 * base, 2 * base, 3, stride=2, padding=1)
        self.middle = ConvBlock(2 * base, 4 * base)
        self.up_2, self.up_1 = ConvBlock(6 * base, 2 * base), ConvBlock(3 * base, base)
        self.outer = nn.Conv1d(base, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down_1(self.inner(x))
        second = self.down_2(self.shrink_1(first))
        hidden = self.middle(self.shrink_2(second))
        hidden = functional.interpolate(hidden, size=second.shape[-1])
        hidden = self.up_2(torch.cat([hidden, second], dim=1))
        hidden = functional.interpolate(hidden, size=first.shape[-1])
        out: Tensor = self.outer(self.up_1(torch.cat([hidden, first], dim=1)))
        return out


def unet(patients: int = 64, places: int = 48, base: int = 48) -> Workload:
    x = torch.randn(patients, 14, places)
    return Workload(
        title=f"1-D U-Net, batch {patients}, {places} hours",
        network=Unet(base=base),
        loss=_series_loss,
        batch=Rows(x=x, y=torch.randn_like(x), present=torch.ones(patients, dtype=torch.bool)),
    )


def _bert_network(vocabulary: int, width: int, layers: int, tied: bool) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        tie_word_embeddings=tied,
    )
    network: nn.Module = BertForMaskedLM(config)
    return network


def _tokens(rows: int, places: int, vocabulary: int) -> Rows:
    clean = torch.randint(5, vocabulary, (rows, places))
    hidden = torch.rand(rows, places).argsort(1) < round(MASKED_SHARE * places)
    return Rows(
        x=torch.where(hidden, 4, clean),
        y=torch.where(hidden, clean, -100),
        present=torch.ones(rows, dtype=torch.bool),
    )


def _mean_over_masked(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy [R] over the places of a row whose target is not -100."""
    own = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
    return own.view(targets.shape).sum(1) / (targets >= 0).sum(1).clamp_min(1)


def _stock_lm_loss(network: Any, batch: Rows) -> Tensor:
    """Logits at every place, as the stock model computes them; mean loss over a row's masked places."""
    places = torch.arange(batch.x.shape[1], device=batch.x.device).repeat(batch.x.shape[0], 1)
    logits = network(input_ids=batch.x, position_ids=places, token_type_ids=torch.zeros_like(batch.x)).logits
    return batch.mean_over_rows(_mean_over_masked(logits, batch.y))


def bert(rows: int = 32, places: int = 128, vocabulary: int = 30_522, width: int = 256, layers: int = 4) -> Workload:
    untied = _bert_network(vocabulary, width, layers, tied=False)
    # Opacus takes no bare parameter: the decoder keeps its bias, the module around it gives its own name for it up.
    del untied.cls.predictions._parameters["bias"]  # type: ignore[union-attr]
    # Nor does it leave the padding entry of an embedding alone.
    untied.bert.embeddings.word_embeddings.padding_idx = None  # type: ignore[union-attr]
    return Workload(
        title=f"BERT {layers}x{width}, {rows}x{places} tokens",
        network=_bert_network(vocabulary, width, layers, tied=True),
        loss=_stock_lm_loss,
        batch=_tokens(rows, places, vocabulary),
        opacus_network=untied,
    )


def _masked_lm_loss(network: Any, batch: Rows) -> Tensor:
    positions, targets = masked_positions(batch.y, most=round(MASKED_SHARE * batch.y.shape[1]))
    logits = network(batch.x, positions)
    return batch.mean_over_rows(_mean_over_masked(logits, targets))


def bert_masked_positions(
    rows: int = 32, places: int = 128, vocabulary: int = 30_522, width: int = 256, layers: int = 4
) -> Workload:
    return Workload(
        title="same, vocabulary head at masked places only",
        network=MaskedPositionLm(_bert_network(vocabulary, width, layers, tied=True)),
        loss=_masked_lm_loss,
        batch=_tokens(rows, places, vocabulary),
    )


def bert_lora(
    rows: int = 32, places: int = 128, vocabulary: int = 30_522, width: int = 256, layers: int = 4
) -> Workload:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        _bert_network(vocabulary, width, layers, tied=True),  # type: ignore[arg-type]
        LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "key", "value", "dense"]),
    )
    return Workload(
        title="same, LoRA of rank 8",
        network=MaskedPositionLm(adapted.base_model.model),  # type: ignore[arg-type]
        loss=_masked_lm_loss,
        batch=_tokens(rows, places, vocabulary),
    )
