"""What goes wrong silently elsewhere: here it is exact, or an error that names the culprit, and nothing in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from bench.private_step.models import Rows, SelfAttention
from synclave_client.performance import Performance
from synclave_client.training.private import PatientGradients, check_network, self_test
from synclave_shared.errors import ClippingError
from tests.training.clipping.slow_truth import clipped_sum, deviation, rows, squared_outputs

EXACT = 1e-5
OWNERS = [0, 0, 1, 2, 2, 2, 3]
EITHER_ROWS = pytest.mark.parametrize("owners", [None, OWNERS], ids=["one row each", "several rows"])
EVERY_ENGINE = pytest.mark.parametrize("clipping", ["book-keeping", "hooks", "ghost"])


def inputs(*shape: int, owners: list[int] | None = None, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    return rows(torch.randn(len(OWNERS), *shape, generator=generator), owners)


def numbers(entries: int, places: int, owners: list[int] | None = None) -> Rows:
    generator = torch.Generator().manual_seed(0)
    return rows(torch.randint(entries, (len(OWNERS), places), generator=generator), owners)


def away_from_zero(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return network


def assert_untouched(network: nn.Module, required: dict[str, bool]) -> None:
    assert {name: value.requires_grad for name, value in network.named_parameters()} == required
    for name, value in network.named_parameters():
        assert value.grad is None, name
        assert not hasattr(value, "grad_sample"), name
    for name, module in network.named_modules():
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            assert not getattr(module, hooks), (name, hooks)


def required_by(network: nn.Module) -> dict[str, bool]:
    return {name: value.requires_grad for name, value in network.named_parameters()}


# Language models as transformers ships them.


def language_model(kind: str, *, tied: bool = True, dropout: float = 0.0) -> nn.Module:
    import transformers

    sizes = {
        "vocab_size": 31,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 16,
        "tie_word_embeddings": tied,
        "attn_implementation": "sdpa",
    }
    torch.manual_seed(0)
    if kind == "ModernBert":
        drops = {"attention_dropout": dropout, "embedding_dropout": dropout, "mlp_dropout": dropout}
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    else:
        drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        special = {"pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(**sizes, **drops, **special)
    return away_from_zero(getattr(transformers, f"{kind}ForMaskedLM")(config))


def notes(owners: list[int] | None = None) -> Rows:
    batch = numbers(28, 6, owners)
    x = batch.x + 3
    # Padding among the words: RoBERTa numbers its places by it.
    x[1, 4:] = 1
    return replace(batch, x=x, y=torch.where((x + torch.arange(6)) % 2 == 0, x, -100))


def language_loss(network: Any, batch: Rows) -> Tensor:
    """As a user writes it: no position numbers given, so that the model makes its own [1, T]."""
    logits = network(input_ids=batch.x).logits
    return batch.mean_over_rows(
        functional.cross_entropy(logits.mT, batch.y, ignore_index=-100, reduction="none").sum(1)
    )


@EITHER_ROWS
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "ModernBert"])
def test_stock_language_models_are_clipped_exactly(kind: str, tied: bool, owners: list[int] | None) -> None:
    network = language_model(kind, tied=tied)
    if kind == "Bert":
        names = dict(network.named_parameters(remove_duplicate=False))
        assert (names["cls.predictions.decoder.weight"] is names["bert.embeddings.word_embeddings.weight"]) == tied
        assert "bias" in network.cls.predictions._parameters
    assert deviation(network, language_loss, notes(owners)) <= EXACT
    assert self_test(network, language_loss, notes(owners)).norm_deviation <= 1e-4


@pytest.mark.parametrize(
    ("kind", "layer"),
    [("Bert", "bert.embeddings.dropout"), ("Roberta", "roberta.encoder.layer.1.attention.self.dropout")],
)
def test_a_language_model_with_dropout_is_refused_by_the_names_of_its_dropouts(kind: str, layer: str) -> None:
    with pytest.raises(ClippingError, match=layer.replace(".", r"\.")):
        self_test(language_model(kind, dropout=0.1), language_loss, notes())


@EITHER_ROWS
@pytest.mark.parametrize("bias", ["none", "all"])
def test_lora_by_peft_is_clipped_exactly(bias: Any, owners: list[int] | None) -> None:
    from peft import LoraConfig, get_peft_model

    model: Any = language_model("Bert")
    targets = ["query", "value", "dense"]
    adapted = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.0, bias=bias, target_modules=targets))
    trained = {name for name, needed in required_by(adapted).items() if needed}
    assert any("lora_B" in name for name in trained)
    assert not any(name.endswith("word_embeddings.weight") for name in trained)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    before = required_by(adapted)
    assert deviation(adapted, language_loss, notes(owners)) <= EXACT
    assert_untouched(adapted, before)


@EITHER_ROWS
def test_training_biases_only_is_clipped_exactly(owners: list[int] | None) -> None:
    network = language_model("Bert")
    for name, value in network.named_parameters():
        value.requires_grad_(name.endswith("bias"))
    before = required_by(network)
    assert deviation(network, language_loss, notes(owners)) <= EXACT
    assert_untouched(network, before)


# Networks that are fine, whatever they look like.


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = SelfAttention(8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(x + self.attention(x))
        return found


class HandMadeLora(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.a, self.b = nn.Linear(8, 5), nn.Linear(8, 2, bias=False), nn.Linear(2, 5, bias=False)
        self.base.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base(x) + 2 * self.b(self.a(x))
        return found


class Twice(nn.Module):
    """One linear layer and one normalisation, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.layer(torch.tanh(self.norm(self.layer(x)))))
        return found


class SharedWeight(nn.Module):
    """Two linear layers, one weight; of the biases one is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.one.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(torch.tanh(self.one(x)))
        return found


class SharedBias(nn.Module):
    """One vector is the bias of a linear layer and of a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.norm.bias = self.one.bias

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.one(x))
        return found


class TwoDilations(nn.Module):
    """One kernel, read narrow and wide: no single product covers both."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv1d(8, 8, 2), nn.Conv1d(8, 8, 2, dilation=2)
        self.wide.weight = self.narrow.weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.wide(torch.tanh(self.narrow(x.mT)))
        return found


class Positioned(nn.Module):
    """A bare scale, and a bare table of positions that is added by its own name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.place = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(1, 5, 8))
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(x * self.scale + self.place))
        return found


class NumberedPlaces(nn.Module):
    """Position numbers [1, T], as many models make them."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.out = nn.Embedding(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(x + self.place(torch.arange(5)[None])))
        return found


class Unfolded(nn.Module):
    """Levels [B, K, D] become rows [B K, D] of their own, one patient's together."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(8, 8), nn.GroupNorm(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(self.inner(x.flatten(0, 1)))
        found: Tensor = self.outer(torch.tanh(flat)).unflatten(0, x.shape[:2])
        return found


class FrozenMiddle(nn.Module):
    """Gradients pass through what is not trained: a linear layer and a convolution of two axes that has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.middle, self.outer = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.picture = nn.Conv2d(1, 1, 3, padding=1)
        self.middle.requires_grad_(False)
        self.picture.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.middle(self.inner(x)))
        found: Tensor = self.outer(self.picture(hidden[:, None])[:, 0])
        return found


class Grown(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name in torch
        return functional.linear(input.square(), 2 * self.weight, self.bias)


FINE = [
    *(Attentive, HandMadeLora, Twice, SharedWeight, SharedBias, TwoDilations, Positioned, NumberedPlaces),
    *(Unfolded, FrozenMiddle, lambda: Grown(8, 3)),
]


@EITHER_ROWS
@pytest.mark.parametrize("make", FINE)
def test_unusual_networks_are_clipped_exactly(make: Callable[[], nn.Module], owners: list[int] | None) -> None:
    torch.manual_seed(0)
    network = away_from_zero(make())
    before = required_by(network)
    for share in (0.0, 0.5, 1.0):
        assert deviation(network, squared_outputs, inputs(5, 8, owners=owners), share=share) <= EXACT
    assert_untouched(network, before)
    assert self_test(network, squared_outputs, inputs(5, 8, owners=owners)).sum_deviation <= 1e-4


class Tied(nn.Module):
    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(9, 6, padding_idx=padding), nn.Linear(6, 6)
        self.head = nn.Linear(6, 9)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.head(torch.tanh(self.inner(self.table(ids))))
        return found


@EITHER_ROWS
@pytest.mark.parametrize("padding", [None, 0, -1])
def test_a_table_that_embeds_and_decodes_is_clipped_exactly(padding: int | None, owners: list[int] | None) -> None:
    torch.manual_seed(0)
    assert deviation(Tied(padding), squared_outputs, numbers(9, 5, owners)) <= EXACT


# Weights that are borrowed.


class Borrowed(nn.Module):
    """The table decodes too, behind the engine's back."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(9, 6), nn.Linear(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        return functional.linear(torch.tanh(self.inner(self.embedding(ids))), self.embedding.weight)


class ConvolutionAndLinear(nn.Module):
    """One parameter, a convolution's weight [p, d, 1] and, without its last axis, a bare matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(8, 8, 1)
        self.bare = Bare(self.convolution.weight)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.bare(torch.tanh(self.convolution(x.mT).mT))
        return found


class Bare(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight[..., 0])


class NeverCalled(nn.Module):
    """Holds its parameters in a module whose forward is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward(x)


@pytest.mark.parametrize(
    ("make", "batch", "name"),
    [
        (Borrowed, numbers(9, 5), r"embedding\.weight"),
        (NeverCalled, inputs(5, 8), r"inner\.weight, inner\.bias"),
        (ConvolutionAndLinear, inputs(5, 8), r"convolution\.weight"),
    ],
)
def test_a_weight_used_outside_its_layer_is_refused_and_leaves_nothing(
    make: Callable[[], nn.Module], batch: Rows, name: str
) -> None:
    network = make()
    before = required_by(network)
    gradients = PatientGradients(network, squared_outputs, 1.0)
    total = gradients.clipped_sum([])
    with pytest.raises(ClippingError, match=name):
        gradients.clipped_sum([batch])
    assert not total.any()
    assert_untouched(network, before)


@pytest.mark.parametrize("clipping", ["hooks", "ghost"])
def test_opacus_with_a_borrowed_weight_is_stopped_by_the_self_test(clipping: Any) -> None:
    """Its own sums are silently wrong there: the reason why a site proves its clipping before it opens its data."""
    torch.manual_seed(0)
    performance = Performance(clipping=clipping)
    assert deviation(Borrowed(), squared_outputs, numbers(9, 5), performance) > 1e-3
    with pytest.raises(ClippingError):
        self_test(Borrowed(), squared_outputs, numbers(9, 5), performance)


# Losses that mix patients.


def batch_mean(network: Any, batch: Rows) -> Tensor:
    return squared_outputs(network, batch).mean()


def own_and_mean(network: Any, batch: Rows) -> Tensor:
    own = squared_outputs(network, batch)
    return own + own.mean()


def share_of_the_mean(network: Any, batch: Rows) -> Tensor:
    return squared_outputs(network, batch) / len(batch)


def against_the_next(network: Any, batch: Rows) -> Tensor:
    """Contrastive: each patient against the one after it."""
    found = network(batch.x).flatten(1)
    return (found - found.roll(-1, 0)).square().sum(1)


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))


@EVERY_ENGINE
def test_a_loss_that_is_one_number_is_refused_at_once(clipping: Any) -> None:
    network = two_layers()
    before = required_by(network)
    with pytest.raises(ClippingError, match="one value per patient"):
        clipped_sum(network, batch_mean, [inputs(8)], 1.0, Performance(clipping=clipping))
    assert_untouched(network, before)


@EVERY_ENGINE
@pytest.mark.parametrize("loss", [own_and_mean, share_of_the_mean, against_the_next])
def test_losses_that_hold_something_of_others_are_refused_by_the_self_test(loss: Any, clipping: Any) -> None:
    with pytest.raises(ClippingError, match="the loss"):
        self_test(two_layers(), loss, inputs(8), Performance(clipping=clipping))
    self_test(two_layers(), squared_outputs, inputs(8), Performance(clipping=clipping))


# Layers that nobody can clip.


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(3),
    "BatchNorm1d without parameters": lambda: nn.BatchNorm1d(3, affine=False),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(3),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(4, 2, 4),
    "GRU": lambda: nn.GRU(3, 3),
    "LSTM": lambda: nn.LSTM(3, 3),
    "GRUCell": lambda: nn.GRUCell(3, 3),
    "Conv2d": lambda: nn.Conv2d(3, 3, 1),
    "Bilinear": lambda: nn.Bilinear(3, 3, 3),
    "EmbeddingBag": lambda: nn.EmbeddingBag(3, 3),
    "PReLU": lambda: nn.PReLU(),
    "circular": lambda: nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular"),
    "max_norm": lambda: nn.Embedding(3, 3, max_norm=1.0),
    "scale_grad_by_freq": lambda: nn.Embedding(3, 3, scale_grad_by_freq=True),
    "sparse": lambda: nn.Embedding(3, 3, sparse=True),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(3, 3)),
    "parameter list": lambda: nn.ParameterList([nn.Parameter(torch.zeros(3))]),
    "LazyLinear": lambda: nn.LazyLinear(3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_cannot_be_clipped_are_refused_by_name_at_construction(name: str) -> None:
    network = nn.ModuleDict({"good": nn.Linear(3, 3), "the_bad_one": REFUSED[name]()})
    with pytest.raises(ClippingError, match="the_bad_one") as refused:
        PatientGradients(network, squared_outputs, 1.0)
    assert "good" not in refused.value.found
    check_network(nn.ModuleDict({"good": nn.Linear(3, 3)}))


def test_all_faults_are_named_in_one_error() -> None:
    bad = {f"bad_{number}": make() for number, make in enumerate(REFUSED.values())}
    with pytest.raises(ClippingError) as refused:
        check_network(nn.ModuleDict({"good": nn.Linear(3, 3), **bad}))
    assert [name for name in bad if name not in refused.value.found] == []


@pytest.mark.parametrize("freeze", [True, False])
def test_a_network_with_nothing_to_train_is_refused(freeze: bool) -> None:
    network = nn.Linear(3, 3).requires_grad_(not freeze) if freeze else nn.Tanh()
    with pytest.raises(ClippingError, match="nothing to train"):
        check_network(network)


# Networks that mix patients.


class HandMadeBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (1 + x.std(0, correction=0)) * self.scale


class BatchCentred(nn.Module):
    """A bare bias, and the batch's mean taken off."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True) + self.bias


class AcrossPatients(nn.Module):
    """Attention whose softmax goes over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.query(x) @ self.key(x).mT, dim=0) @ x


class FromThoseBefore(nn.Module):
    """The first patient sees nobody; each other sees all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x + 0.1 * x.cumsum(0))
        return found


@EITHER_ROWS
@pytest.mark.parametrize("make", [HandMadeBatchNorm, BatchCentred, AcrossPatients])
def test_a_module_that_mixes_patients_is_refused_by_name(make: type[nn.Module], owners: list[int] | None) -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"inner": nn.Linear(8, 8), "mixer": make(), "outer": nn.Linear(8, 2)})
    loss = lambda model, batch: squared_outputs(  # noqa: E731
        lambda x: model["outer"](model["mixer"](model["inner"](x))), batch
    )
    batch = inputs(8, owners=owners) if make is not AcrossPatients else inputs(5, 8, owners=owners)
    with pytest.raises(ClippingError, match="mixer"):
        self_test(network, loss, batch)


@EITHER_ROWS
def test_mixing_that_spares_the_first_patient_is_refused(owners: list[int] | None) -> None:
    torch.manual_seed(0)
    with pytest.raises(ClippingError, match=r"patients are mixed|change with the other patients"):
        self_test(FromThoseBefore(), squared_outputs, inputs(8, owners=owners))


class PlaceMajor(Unfolded):
    """Rows [K B, D]: the patients' levels are interleaved."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


class PlacesWithoutRows(nn.Module):
    """Position numbers [T]: where T is a multiple of the rows, each place would pass for a patient's."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.table, self.out, self.places = nn.Embedding(places, 8), nn.Linear(8, 3), places

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(x + self.table(torch.arange(self.places))))
        return found


@EITHER_ROWS
def test_rows_unfolded_with_the_places_first_are_refused_by_the_self_test(owners: list[int] | None) -> None:
    torch.manual_seed(0)
    with pytest.raises(ClippingError):
        self_test(PlaceMajor(), squared_outputs, inputs(5, 8, owners=owners))


@pytest.mark.parametrize("places", [5, 7, 14])
def test_a_layer_that_sees_no_rows_is_refused_by_the_self_test_whatever_the_sizes(places: int) -> None:
    torch.manual_seed(0)
    with pytest.raises(ClippingError):
        self_test(PlacesWithoutRows(places), squared_outputs, inputs(places, 8))


# Operations in place, buffers.


class InPlace(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.one, self.two, self.what = nn.Linear(8, 8), nn.Linear(8, 8), what

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.one(x))
        found: Tensor = self.two(hidden)
        match self.what:
            case "relu after the layer":
                return functional.relu(found, inplace=True)
            case "add to the output":
                return found.add_(1)
            case "add to the input":
                hidden.add_(1)
            case "write into the input":
                hidden[:, 0] = 0
            case "write without gradients":
                with torch.no_grad():
                    hidden.mul_(2)
            case "write to a view":
                hidden.view(-1).mul_(2)
            case "relu of a sum":
                return functional.relu(found + 1, inplace=True)
        return found


@pytest.mark.parametrize(
    "what",
    [
        *("relu after the layer", "add to the output", "add to the input", "write into the input"),
        *("write without gradients", "write to a view"),
    ],
)
def test_what_is_overwritten_is_never_silently_wrong(what: str) -> None:
    torch.manual_seed(0)
    network = InPlace(what)
    before = required_by(network)
    try:
        found = deviation(network, squared_outputs, inputs(5, 8))
    except (ClippingError, RuntimeError):
        assert_untouched(network, before)
    else:
        assert found <= EXACT


def test_operations_in_place_that_touch_no_layer_are_exact() -> None:
    torch.manual_seed(0)
    assert deviation(InPlace("relu of a sum"), squared_outputs, inputs(5, 8)) <= EXACT


class Remembering(nn.Module):
    def __init__(self, assign: bool) -> None:
        super().__init__()
        self.layer, self.assign = nn.Linear(8, 3), assign
        self.register_buffer("running", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        if self.assign:
            self.running = 0.9 * self.running + 0.1 * found.detach().mean(0)
        else:
            self.running.mul_(0.9).add_(found.detach().mean(0), alpha=0.1)
        return found


@pytest.mark.parametrize(
    ("clipping", "assign"),
    [(clipping, assign) for clipping in ("book-keeping", "hooks", "ghost") for assign in (False, True)],
)
def test_a_buffer_that_changes_in_the_forward_pass_is_refused(clipping: Any, assign: bool) -> None:
    with pytest.raises(ClippingError, match="running"):
        clipped_sum(Remembering(assign), squared_outputs, [inputs(8)], 1.0, Performance(clipping=clipping))


# Patients whose numbers are not finite.


class PoisonedRows(nn.Module):
    """Every kind of factor: table, linear, convolution, normalisations, bare."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.place = nn.Linear(8, 8), nn.LayerNorm(8), nn.Embedding(5, 8)
        self.convolution, self.groups, self.outer = nn.Conv1d(8, 8, 3), nn.GroupNorm(2, 8), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.inner(x)) + self.place(torch.arange(5).expand(len(x), -1))
        found: Tensor = self.outer(torch.tanh(self.groups(self.convolution(hidden.mT))))
        return found


def rooted(network: Any, batch: Rows) -> Tensor:
    """Finite everywhere; the slope of the root at 0 is not."""
    factor = batch.y if batch.patient_of_row is None else batch.mean_over_rows(batch.y)
    own = squared_outputs(network, batch)
    return own + (own * factor).abs().sqrt()


def nan_loss(network: Any, batch: Rows) -> Tensor:
    own = squared_outputs(network, batch)
    factor = batch.y if batch.patient_of_row is None else batch.mean_over_rows(batch.y)
    return own * torch.where(factor == 0, float("nan"), 1.0)


def poisoned(kind: str, owners: list[int] | None) -> tuple[Rows, Any]:
    """A batch whose third patient has no finite gradient, and the loss to go with it."""
    batch = inputs(5, 8, owners=owners)
    x, y = batch.x, torch.ones(len(batch.x))
    mine = slice(2, 3) if owners is None else slice(3, 6)
    match kind:
        case "nan":
            x[mine.start, 1, 2] = float("nan")
        case "inf":
            x[mine.start, 1, 2] = float("inf")
        case "root" | "nan loss":
            y[mine] = 0
    loss = {"root": rooted, "nan loss": nan_loss}.get(kind, squared_outputs)
    return replace(batch, y=y), loss


@pytest.mark.parametrize("kind", ["nan", "inf", "root", "nan loss"])
@pytest.mark.parametrize(
    ("clipping", "owners"),
    [("book-keeping", None), ("book-keeping", OWNERS), ("hooks", None), ("hooks", OWNERS), ("ghost", None)],
)
def test_a_patient_without_finite_gradient_is_as_if_absent(kind: str, clipping: Any, owners: list[int] | None) -> None:
    batch, loss = poisoned(kind, owners)
    torch.manual_seed(0)
    network = PoisonedRows()
    if clipping != "book-keeping":
        network.place.requires_grad_(False)
    given = batch.x.clone()
    patient = 2
    if kind == "root":
        assert bool(torch.isfinite(loss(network, batch)).all())
    gradients = PatientGradients(network, loss, 0.5, Performance(clipping=clipping))
    found = gradients.clipped_sum([batch]).clone()
    assert gradients.left_out == 1
    assert torch.equal(batch.x.nan_to_num(7, 8, 9), given.nan_to_num(7, 8, 9))
    present = torch.arange(len(batch)) != patient
    absent = gradients.clipped_sum([replace(batch, present=present)]).clone()
    assert gradients.left_out == 1, "padding is nobody who was left out"
    assert torch.equal(found, absent)
    # The others' share: of the batch without that patient at all.
    others = gradients.clipped_sum([batch.select(present.nonzero()[:, 0])])
    assert torch.allclose(found, others, atol=1e-6)
    assert 0.1 < float(found.norm()) <= 0.5 * (len(batch) - 1)


def test_ghost_refuses_what_it_would_get_wrong_and_says_what_to_do() -> None:
    ghost = Performance(clipping="ghost")
    network = nn.Linear(8, 3)
    before = required_by(network)
    with pytest.raises(ClippingError, match="book-keeping"):
        clipped_sum(network, squared_outputs, [inputs(5, 8, owners=OWNERS)], 1.0, ghost)
    with pytest.raises(ClippingError, match="book-keeping"):
        clipped_sum(network, squared_outputs, [inputs(2, 5, 8)], 1.0, ghost)
    assert_untouched(network, before)
    assert deviation(network, squared_outputs, inputs(5, 8), ghost) <= EXACT


@pytest.mark.parametrize("clipping", ["hooks", "ghost"])
def test_opacus_does_not_train_the_entry_of_padding(clipping: Any) -> None:
    with pytest.raises(ClippingError, match=r"padding_idx.*table"):
        PatientGradients(Tied(0), squared_outputs, 1.0, Performance(clipping=clipping))


# What is left behind.


@EVERY_ENGINE
@pytest.mark.parametrize("trained", ["all", "half"])
def test_whatever_a_loss_raises_the_network_is_left_as_it_was(clipping: Any, trained: str) -> None:
    def broken(network: Any, batch: Rows) -> Tensor:
        squared_outputs(network, batch)
        raise KeyError("a defect of the loss")

    def broken_inside(network: Any, batch: Rows) -> Tensor:
        return squared_outputs(network, replace(batch, x=batch.x[:, :3]))

    network: Any = two_layers()
    network[0].weight.requires_grad_(trained == "all")
    before = required_by(network)
    for loss, error in ((broken, KeyError), (broken_inside, (RuntimeError, ClippingError))):
        gradients = PatientGradients(network, loss, 1.0, Performance(clipping=clipping))
        with pytest.raises(error):
            gradients.clipped_sum([inputs(8)])
        assert_untouched(network, before)
    assert deviation(network, squared_outputs, inputs(8), Performance(clipping=clipping)) <= EXACT
    assert_untouched(network, before)


@EVERY_ENGINE
def test_gradients_that_the_user_left_are_not_counted(clipping: Any) -> None:
    network, performance = two_layers(), Performance(clipping=clipping)
    expected = clipped_sum(network, squared_outputs, [inputs(8)], 0.5, performance)
    squared_outputs(network, inputs(8, seed=3)).sum().backward()
    assert all(value.grad is not None for value in network.parameters())
    assert torch.equal(clipped_sum(network, squared_outputs, [inputs(8)], 0.5, performance), expected)


@EVERY_ENGINE
def test_a_caller_without_autograd_gets_the_sum_or_an_error_and_no_zeros(clipping: Any) -> None:
    network, batch, performance = two_layers(), inputs(8), Performance(clipping=clipping)
    before = required_by(network)
    expected = clipped_sum(network, squared_outputs, [batch], 0.5, performance)
    with torch.no_grad():
        if clipping == "book-keeping":
            assert torch.equal(clipped_sum(network, squared_outputs, [batch], 0.5, performance), expected)
        else:
            with pytest.raises(ClippingError):
                clipped_sum(network, squared_outputs, [batch], 0.5, performance)
    with torch.inference_mode(), pytest.raises((ClippingError, RuntimeError)):
        clipped_sum(network, squared_outputs, [batch], 0.5, performance)
    assert_untouched(network, before)


def test_a_loss_that_takes_gradients_itself_is_refused() -> None:
    def penalised(network: Any, batch: Rows) -> Tensor:
        x = batch.x.detach().requires_grad_()
        out = network(x).square().flatten(1).sum(1)
        slope = torch.autograd.grad(out.sum(), x, create_graph=True)[0]
        return out + slope.square().flatten(1).sum(1)

    with pytest.raises(ClippingError, match="gradients within the loss"):
        clipped_sum(two_layers(), penalised, [inputs(8)], 0.5)


class ChosenTokens(nn.Module):
    """A head on the chosen tokens of all rows at once: how many there are depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        hidden = self.layer(x)
        found = self.head(hidden[chosen])
        out = torch.zeros(*chosen.shape, 3)
        out[chosen] = found
        return out


def test_tokens_gathered_over_the_batch_are_refused_when_their_number_changes() -> None:
    """Rows are known by the first axis; what is chosen out of all rows is nobody's row."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5)

    def loss(network: Any, batch: Rows) -> Tensor:
        return network(batch.x, batch.y > 0).square().flatten(1).sum(1)

    def chosen(*counts: int) -> Rows:
        return rows(x, y=(torch.arange(6) < torch.tensor(counts)[:, None]).float())

    gradients = PatientGradients(ChosenTokens(), loss, 1.0)
    gradients.clipped_sum([chosen(2, 2, 2, 2)])
    for counts in ((3, 2, 2, 2), (4, 4, 2, 2)):
        with pytest.raises(ClippingError, match="head"):
            gradients.clipped_sum([chosen(*counts)])
    with pytest.raises(ClippingError):
        self_test(ChosenTokens(), loss, chosen(3, 1, 2, 2))


def test_a_frozen_embedding_that_tokens_rewrite_is_refused() -> None:
    table = nn.Embedding(5, 3, max_norm=1.0)
    table.weight.requires_grad_(False)
    with pytest.raises(ClippingError, match="max_norm"):
        check_network(nn.Sequential(table, nn.Linear(3, 2)))
