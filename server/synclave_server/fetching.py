"""Published language models from a hub into a local folder: asked for by name, once, by a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synclave_shared.data.new_folder import new_folder
from synclave_shared.errors import ConfigurationError
from synclave_shared.models.note_base import folder_digest

__all__ = ["fetch"]


def fetch(name: str, out: Path) -> dict[str, Any]:
    """Store vocabulary, configuration and weights; no code of the model's authors is fetched or run.

    Args:
        name: of a masked language model on the hub, or a folder that another program made.
        out: must not exist.

    Raises:
        ConfigurationError: if ``out`` is there, or the model cannot be had.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    with new_folder(out) as unfinished:
        try:
            model: Any = AutoModelForMaskedLM.from_pretrained(name)
            model.save_pretrained(unfinished, safe_serialization=True)
            AutoTokenizer.from_pretrained(name).save_pretrained(unfinished)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                expected=f"a masked language model {name} that this machine can reach",
                found=str(error).splitlines()[0],
                remedy="Check the name and the connection, or fetch it elsewhere and copy the folder.",
            ) from None
    return {
        "out": str(out.resolve()),
        "name": name,
        "parameters": model.num_parameters(),
        "digest": folder_digest(out),
    }
