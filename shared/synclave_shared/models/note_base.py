"""What a language model of notes begins with: a vocabulary and a network, embedded or from a local folder.

Nothing here opens a connection: a published model is a folder that somebody fetched before
(``synclave fetch-base``), and a plan names it by the digest of its files. No code of such a folder runs, and weights
are read from safetensors alone.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load

from synclave_shared import text
from synclave_shared.canonical import canonical_bytes, sha256_hex
from synclave_shared.errors import PlanError
from synclave_shared.model_spec import EMBEDDED, NotesBase, NotesSpec
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.text.slots import SLOTS
from synclave_shared.text.tokenizer import NoteTokenizer, embedded_digest, embedded_tokenizer, unwritable

__all__ = ["LoadedBase", "build_note_lm", "find_base", "folder_digest", "look_up_base"]

LONGEST_CHUNK: Final = 512
"""Places of the embedded network."""

WEIGHTS_SEED: Final = 0
"""Of the first weights of an embedded network of another shape, which travel, and of the adapters' fixed factors."""

PRETRAINED_SHAPE: Final = (128, 4)
"""Width and blocks of the embedded network whose weights come with Synclave, learnt from public notes."""

_PRETRAINED: Final = Path(text.__file__).parent / "data" / "embedded-lm.safetensors"

_building: Final = threading.Lock()
_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBase:
    """A base that was found.

    Attributes:
        tokenizer: its vocabulary.
        folder: of a published model; None: the embedded one.
        digest: of all that it consists of.
    """

    tokenizer: NoteTokenizer
    folder: Path | None
    digest: str


def look_up_base(spec: NotesSpec, beside: Path) -> tuple[NotesSpec, LoadedBase]:
    """The spec as a signed plan has it, and its base.

    Args:
        spec: as a plan file has it; if it names a digest already, that very base is wanted.
        beside: folder that the base's path is relative to.

    Raises:
        PlanError: if the base is missing, is no masked language model, or another one than ``spec`` says.
    """
    base = _embedded(spec) if spec.base == EMBEDDED else _of_folder(beside / spec.base)
    name = spec.base.rstrip("/").rpartition("/")[2]
    network = build_note_lm(spec, base)
    count = sum(value.numel() for value in network.parameters() if value.requires_grad)
    found = NotesBase(digest=base.digest, parameters=count)
    if spec.looked_up not in (None, found):
        raise _another(spec, found.digest)
    return spec.model_copy(update={"base": name, "looked_up": found}), base


def find_base(spec: NotesSpec, folders: Iterable[Path] = ()) -> LoadedBase:
    """The base that a signed plan names.

    Args:
        spec: the plan's model.
        folders: where a published base may lie, by its name.

    Raises:
        PlanError: if it is not there, or another one.
    """
    if spec.base == EMBEDDED:
        base = _embedded(spec)
        if spec.looked_up is not None and base.digest != spec.looked_up.digest:
            raise _another(spec, base.digest)
        return base
    seen = [folder / spec.base for folder in folders]
    for folder in seen:
        if not folder.is_dir():
            continue
        # The digest comes first: files that the plan does not name are not even parsed.
        if spec.looked_up is not None and (digest := folder_digest(folder)) != spec.looked_up.digest:
            raise _another(spec, digest)
        return _of_folder(folder)
    raise PlanError(
        expected=f"the language model {spec.base}, on which the plan stands",
        found=f"nothing at {', '.join(map(str, seen)) or 'any folder: none is set'}",
        remedy="Put its folder there; sites name the folder with published models as models_folder in site.toml.",
    )


def build_note_lm(spec: NotesSpec, base: LoadedBase) -> NoteLm:
    """The network of a plan with the base's weights, frozen where adapted.

    The embedded network of :data:`PRETRAINED_SHAPE` knows public notes; of another shape it begins untrained.

    Raises:
        PlanError: if the folder holds no masked language model that can be read.
    """
    # One at a time: the library builds networks under settings of the whole process.
    with _building, _quiet():
        model = _embedded_network(spec, base.tokenizer) if base.folder is None else _published(base.folder)
        if spec.adapter_rank:
            _adapt(model, spec.adapter_rank)
    return NoteLm(model)


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files, hidden ones and folders left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            content = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    content.update(block)
            digest.update(f"{path.name}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()


def _embedded(spec: NotesSpec) -> LoadedBase:
    shape = {"vocabulary": embedded_digest(), "width": spec.width, "blocks": spec.blocks}
    if (spec.width, spec.blocks) == PRETRAINED_SHAPE:
        shape["weights"] = sha256_hex(_pretrained())
    return LoadedBase(tokenizer=embedded_tokenizer(), folder=None, digest=sha256_hex(canonical_bytes(shape)))


def _embedded_network(spec: NotesSpec, tokenizer: NoteTokenizer) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=tokenizer.size,
        hidden_size=spec.width,
        num_hidden_layers=spec.blocks,
        num_attention_heads=max(2, spec.width // 64),
        intermediate_size=4 * spec.width,
        max_position_embeddings=LONGEST_CHUNK,
        pad_token_id=tokenizer.pad,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with _public_weights():
        model = BertForMaskedLM(config)
    if (spec.width, spec.blocks) == PRETRAINED_SHAPE:
        found = load(_pretrained())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(found[name])
    return model


@cache
def _pretrained() -> bytes:
    return _PRETRAINED.read_bytes()


def _of_folder(folder: Path) -> LoadedBase:
    from transformers import AutoTokenizer

    if not (folder / "config.json").is_file():
        raise _unreadable(folder, "no config.json")
    with _quiet():
        try:
            found: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            backend = found.backend_tokenizer
        except (OSError, ValueError, AttributeError, KeyError) as error:
            raise _unreadable(folder, f"a tokenizer that cannot be read: {error}") from None
    special = {"pad": found.pad_token_id, "cls": found.cls_token_id, "sep": found.sep_token_id}
    special["mask"] = found.mask_token_id
    missing = [name for name, number in special.items() if number is None]
    if missing:
        raise _unreadable(folder, f"a tokenizer without the special tokens {', '.join(missing)}")
    size = max(backend.get_vocab_size(), 1 + max(backend.get_vocab().values()))
    brackets = {number for slot in SLOTS for number in backend.encode(f"[{slot}]", add_special_tokens=False).ids[:1]}
    tokenizer = NoteTokenizer(
        backend=backend,
        pad=found.pad_token_id,
        begin=found.cls_token_id,
        separator=found.sep_token_id,
        mask=found.mask_token_id,
        size=size,
        never_drawn=frozenset(found.all_special_ids) | brackets | unwritable(backend, size),
        spaced="##" in "".join(list(backend.get_vocab())[:20_000]),
    )
    return LoadedBase(tokenizer=tokenizer, folder=folder, digest=folder_digest(folder))


def _published(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForMaskedLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        for name, value in config.to_dict().items():
            # Dropout is randomness of the network's own, and it hides words enough.
            if "dropout" in name and isinstance(value, float):
                setattr(config, name, 0.0)
        return AutoModelForMaskedLM.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unreadable(folder, str(error).splitlines()[0]) from None


def _adapt(model: Any, rank: int) -> None:
    """Put adapters beside every linear layer but the vocabulary head; the first factor stays as it is drawn."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", target_modules="all-linear"), model
    )
    # From a generator of its own: what other threads draw meanwhile changes nothing.
    generator = torch.Generator().manual_seed(WEIGHTS_SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_B" in name)
            if "lora_A" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter.shape[1]))


@contextmanager
def _public_weights() -> Iterator[None]:
    """The same random weights every time, and the caller's own random numbers go on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHTS_SEED)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's reports of weights that a masked language model does not use are of no use to a site."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _another(spec: NotesSpec, found: str) -> PlanError:
    wanted = "" if spec.looked_up is None else spec.looked_up.digest
    return PlanError(
        expected=f"the language model {spec.base} with the digest {wanted[:16]}..., as the plan says",
        found=f"{found[:16]}...",
        remedy="Use the very files that the plan was made with; the embedded one belongs to a version of Synclave.",
    )


def _unreadable(folder: Path, found: str) -> PlanError:
    return PlanError(
        expected=f"a masked language model of transformers with safetensors weights in {folder}",
        found=found,
        remedy="Write it there with save_pretrained, tokenizer and model.",
    )
