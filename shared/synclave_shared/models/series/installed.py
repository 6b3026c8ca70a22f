"""Clinical models of one's own: a ``torch.nn.Module`` that an installed Python package offers by entry point.

A plan names such a model and never brings it: a hospital runs what it installed. The signed plan also says which
distribution, version and code are meant, and that is compared *before* anything of the package is imported. Whether the
network can be clipped per patient is found out by the self-tests, as with every other.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from synclave_shared.errors import PlanError
from synclave_shared.model_spec import ARCHITECTURES, ClassifierSpec, InstalledModel
from synclave_shared.models.series.layout import SeriesLayout

__all__ = ["GROUP", "build_installed", "look_up"]

GROUP: Final = "synclave.clinical_models"
"""Entry points of clinical models: name -> a callable ``(layout, spec) -> nn.Module``."""


class _Offer(NamedTuple):
    entry_point: EntryPoint
    distribution: str
    version: str
    code: str


class InstalledClassifier(nn.Module):
    """Another's network, which is shown zeros after the end of a stay.

    Args:
        network: maps the arguments of :meth:`forward` to logits [R, L].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Tensor, measured: Tensor, context: Tensor, inside: Tensor) -> Tensor:
        """As :meth:`synclave_shared.models.series.classifier.SeriesClassifier.forward`."""
        within = inside[..., None]
        shown = torch.where(within, values, 0.0), torch.where(within, measured, 0.0)
        found: Tensor = self.network(*shown, context, inside)
        return found


def look_up(layout: SeriesLayout, spec: ClassifierSpec) -> ClassifierSpec:
    """The model that is installed here under the plan's name, written down for the signature.

    Args:
        layout: of the schema.
        spec: what the plan file says; if it says already which model is meant, that is compared.

    Raises:
        PlanError: as :func:`build_installed` does.
    """
    network, offer = build_installed(layout, spec), _offer(spec.architecture)
    installed = InstalledModel(
        distribution=offer.distribution, version=offer.version, code=offer.code, parameters=_size(network)
    )
    return spec.model_copy(update={"installed": installed})


def build_installed(layout: SeriesLayout, spec: ClassifierSpec) -> InstalledClassifier:
    """The untrained network of an installed model, compared with what the plan says of it and tried on zeros.

    Args:
        layout: of the schema.
        spec: the plan's model.

    Raises:
        PlanError: if no package offers it, several do, it is another one than the plan says, or no such network.
    """
    offer, wanted = _offer(spec.architecture), spec.installed
    if wanted is not None:
        for what in ("distribution", "version", "code"):
            _compare(spec.architecture, what, getattr(wanted, what), getattr(offer, what))
    try:
        network = _tried(offer.entry_point.load()(layout, spec), layout)
    except PlanError:
        raise
    except Exception as error:
        # Another's code: whatever it raises, it is not the network that is needed.
        raise _unfit(f"{type(error).__name__}: {error}") from error
    if wanted is not None:
        _compare(spec.architecture, "parameters", wanted.parameters, _size(network))
    return network


@cache
def _offer(name: str) -> _Offer:
    """What a package offers under a name. Kept, since what was imported stays whatever is installed over it later."""
    found = [(one, one.dist) for one in entry_points(group=GROUP, name=name) if one.dist is not None]
    if len(found) == 1:
        ((entry_point, distribution),) = found
        return _Offer(entry_point, distribution.name, distribution.version, _code_digest(entry_point.module))
    offering = ", ".join(f"{distribution.name} {distribution.version}" for _, distribution in found)
    raise PlanError(
        expected=f"architecture = {', '.join(ARCHITECTURES)}, or the name of an entry point {GROUP} of one installed"
        " package",
        found=f"{name}, offered by {offering or 'no installed package'}",
        remedy="Correct the name, or install the package beside Synclave (docs/series.md) and start again.",
    )


def _code_digest(module: str) -> str:
    """SHA-256 over the Python files of the package that holds ``module``, without importing any of it.

    Over the lines that ``sha256sum`` prints of the files, in the order of their paths from the package's folder's
    parent. Compiled extensions are built anew for each machine and are not in it.
    """
    package = module.partition(".")[0]
    spec = find_spec(package)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise PlanError(
            expected=f"a module {package}.py, or a package {package} with an __init__.py, as the entry point says",
            found="none that can be imported",
            remedy="Install the package that offers the model again.",
        )
    origin = Path(spec.origin)
    folder = origin.parent
    files = {origin} if spec.submodule_search_locations is None else {origin, *folder.rglob("*.py")}
    root = folder if spec.submodule_search_locations is None else folder.parent
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n" for path in files
    ]
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line[66:])).encode()).hexdigest()


def _tried(network: Any, layout: SeriesLayout) -> InstalledClassifier:
    """A network that maps two patients to logits, and whose parameters are all trained, in float32."""
    if not isinstance(network, nn.Module):
        raise _unfit(type(network).__name__)
    held = [name for name, value in network.named_parameters() if not value.requires_grad]
    other = [name for name, value in network.named_parameters() if value.dtype != torch.float32]
    if held or other:
        raise _unfit(f"parameters that are {'not trained' if held else 'of another type'}: {', '.join(held or other)}")
    classifier, shape = InstalledClassifier(network), (2, layout.steps, layout.channels)
    inside = torch.arange(layout.steps) < torch.tensor([[layout.steps], [1]])
    with torch.no_grad():
        logits = classifier(torch.zeros(shape), torch.zeros(shape), torch.zeros(2, layout.context.width), inside)
    if not isinstance(logits, Tensor) or logits.shape != (2, layout.label_values):
        raise _unfit(f"for 2 patients {tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__}")
    return classifier


def _size(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def _compare(name: str, what: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise PlanError(
            expected=f"the installed model {name} with {what} = {wanted}, as the plan says",
            found=f"{what} = {found}",
            remedy="Install the very version of its package that the plan names and start again, or ask for a plan"
            " with this one.",
        )


def _unfit(found: str) -> PlanError:
    return PlanError(
        expected="a callable (layout, spec) that makes a torch.nn.Module: forward(values, measured, context, inside)"
        " gives logits [R, L], and all its parameters are float32 and trained",
        found=found,
        remedy="Correct the model; docs/series.md has one that works.",
    )
