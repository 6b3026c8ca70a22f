"""Clinical models of time series: from a patient's course to the label. What guidance wants to improve.

All read the same: per step the values (filled, in normal scores), how sure it is that they were measured, and the
context. They are smooth in what they read, so that a synthetic patient can be moved towards what such a model lacks.

Shapes: ``R`` rows, ``T`` steps, ``C`` channels, ``S`` context columns, ``L`` label values.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synclave_shared.model_spec import ARCHITECTURES, ClassifierSpec
from synclave_shared.models.series.installed import build_installed
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.transformer import AttentionBlock
from synclave_shared.models.tower import gate, smooth_gate

__all__ = ["SeriesClassifier", "build_series_classifier"]

INITIAL_SEED: Final = 0
"""The untrained network is public and everywhere the same."""

KERNEL: Final = 3


class StaySummary(nn.Module):
    """Means over the stay, over its first and its last quarter: what a logistic regression sees of a course."""

    def forward(self, course: Tensor, inside: Tensor) -> Tensor:
        """Map [R, T, E] and the steps of the stays, bool [R, T], to [R, 3E]."""
        place = torch.cumsum(inside, dim=1)
        length = inside.sum(dim=1, keepdim=True)
        quarter = (length + 3) // 4
        parts = []
        for chosen in (inside, inside & (place <= quarter), inside & (place > length - quarter)):
            weight = chosen.to(course.dtype)[..., None]
            parts.append((weight * course).sum(dim=1) / weight.sum(dim=1))
        return torch.cat(parts, dim=-1)


class DilatedBlock(nn.Module):
    """A residual convolution over the steps that sees the past only (Bai et al. 2018)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.past = (KERNEL - 1) * dilation
        self.norm = nn.LayerNorm(width)
        self.convolve = nn.Conv1d(width, width, KERNEL, dilation=dilation)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [R, T, W] to [R, T, W]."""
        before = functional.pad(self.norm(hidden).transpose(1, 2), (self.past, 0))
        added: Tensor = self.convolve(before)
        return hidden + smooth_gate(added.transpose(1, 2))


class RecurrentBlock(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) beside a residual path.

    Its weights are in two Linear layers, whose gradients can be clipped per patient: one reads all steps at once, the
    other is called at each step for what is remembered. ``torch.nn.GRU`` hides both from the clipping.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 3 * width)
        self.remember = nn.Linear(width, 3 * width)

    def forward(self, hidden: Tensor, inside: Tensor) -> Tensor:
        """Map [R, T, W] to [R, T, W]; ``inside`` bool [R, T]. After the stay nothing is remembered anew."""
        memory = torch.zeros_like(hidden[:, 0])
        memories = []
        for read, present in zip(self.read(self.norm(hidden)).unbind(1), inside.unbind(1), strict=True):
            memory = torch.where(present[:, None], self._renewed(read, memory), memory)
            memories.append(memory)
        return hidden + torch.stack(memories, dim=1)

    def _renewed(self, read: Tensor, memory: Tensor) -> Tensor:
        sizes = [2 * self.width, self.width]
        gates, news = torch.split(read, sizes, dim=-1)
        gates_of_memory, remembered = torch.split(self.remember(memory), sizes, dim=-1)
        reset, keep = gate(gates + gates_of_memory).chunk(2, dim=-1)
        renewed = 2.0 * gate(2.0 * (news + reset * remembered)) - 1.0  # tanh
        return renewed + keep * (memory - renewed)


class SeriesClassifier(nn.Module):
    """Logits of the label.

    Args:
        layout: of the schema.
        spec: the plan's numbers.
    """

    def __init__(self, layout: SeriesLayout, spec: ClassifierSpec) -> None:
        super().__init__()
        evidence, self.architecture = 2 * layout.channels, spec.architecture
        self.summary = StaySummary()
        width = evidence
        if spec.architecture != "logistic":
            width = spec.width
            self.read = nn.Linear(evidence, width)
            self.place = nn.Embedding(layout.steps, width)
            nn.init.normal_(self.place.weight, std=0.1)
        if spec.architecture == "gru":
            self.recurrent = nn.ModuleList(RecurrentBlock(width) for _ in range(spec.blocks))
        if spec.architecture == "tcn":
            self.dilated = nn.ModuleList(DilatedBlock(width, 2**number) for number in range(spec.blocks))
        if spec.architecture == "transformer":
            self.context_in = nn.Linear(layout.context.width, width)
            self.attending = nn.ModuleList(AttentionBlock(width) for _ in range(spec.blocks))
        self.write = nn.Linear(3 * width + layout.context.width, layout.label_values)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, values: Tensor, measured: Tensor, context: Tensor, inside: Tensor) -> Tensor:
        """Logits [R, L].

        Args:
            values: [R, T, C], in normal scores.
            measured: [R, T, C], 0 to 1: whether, or how probably, each was measured.
            context: [R, S].
            inside: bool [R, T], the steps of the stay.
        """
        within = inside[..., None]
        course = torch.where(within, torch.cat([values, measured - 0.5], dim=-1), 0.0)
        if self.architecture != "logistic":
            places = torch.arange(course.shape[1], device=course.device).expand(course.shape[:2])
            course = torch.where(within, self.read(course) + self.place(places), 0.0)
        if self.architecture == "gru":
            for block in self.recurrent:
                course = block(course, inside)
        if self.architecture == "tcn":
            for block in self.dilated:
                course = block(course)
        if self.architecture == "transformer":
            told = self.context_in(context)
            for block in self.attending:
                course = block(course, told, inside)
        found: Tensor = self.write(torch.cat([self.summary(course, inside), context], dim=-1))
        return found


def build_series_classifier(layout: SeriesLayout, spec: ClassifierSpec) -> nn.Module:
    """The untrained network of a plan, the same everywhere; called as :meth:`SeriesClassifier.forward` is.

    Raises:
        PlanError: if the plan's model is an installed one and another, or none, is installed here.
    """
    build = SeriesClassifier if spec.architecture in ARCHITECTURES else build_installed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL_SEED)
        return build(layout, spec)
