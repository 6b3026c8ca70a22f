r"""What a site adds to detection: ``rules.toml`` with its own patterns, its own lists and what it wants kept.

::

    threshold = 0.5

    [[pattern]]
    name = "ward-number"
    class = "mrn"
    regex = '\\bWN-\\d{6}\\b'

    [lists]
    names = ["Okonkwo"]
    places = ["Riverside Campus"]

    [keep]
    words = ["Hoffmann"]
    patterns = ["weekday"]

A pattern's expression may not take time that grows faster than the text: it is tried on hostile text when it is read.
"""

from __future__ import annotations

import re
import time
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synclave_shared.errors import ConfigurationError
from synclave_shared.text.phi.pattern import Pattern
from synclave_shared.text.spans import PhiClass
from synclave_shared.text.view import folded

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Rules", "read_rules"]

_TRIAL: Final = 4000
"""Characters of hostile text that an expression is tried on."""

_TRIAL_SECONDS: Final = 0.25
"""CPU seconds it may take over them; a linear expression needs less than a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A site's rules.

    Attributes:
        threshold: spans of less confidence are left out, in (0, 1]; lower finds more and masks more in vain.
        patterns: beside the shipped ones.
        names, places: folded words that are always masked.
        keep: folded words that are never masked unless the patient's own record has them.
        off: names of shipped patterns that are not used.
    """

    threshold: float = 0.5
    patterns: tuple[Pattern, ...] = ()
    names: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    keep: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _PatternRule(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    phi: Annotated[PhiClass, Field(alias="class")]
    regex: Annotated[str, Field(min_length=1, max_length=500)]
    kind: Annotated[str, Field(max_length=40)] = ""
    confidence: Annotated[float, Field(gt=0, le=1)] = 0.95


class _Lists(_Strict):
    names: list[str] = []
    places: list[str] = []


class _Keep(_Strict):
    words: list[str] = []
    patterns: list[str] = []


class _RulesFile(_Strict):
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    pattern: list[_PatternRule] = []
    lists: _Lists = _Lists()
    keep: _Keep = _Keep()


def read_rules(path: Path) -> Rules:
    """The rules in a TOML file.

    Raises:
        ConfigurationError: if it cannot be read, has unknown fields, or an expression that is wrong or too slow.
    """
    try:
        rules = _RulesFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            expected=f"readable rules in {path}", found=str(error), remedy="Correct the file; see docs/notes.md."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            expected=f"rules as docs/notes.md describes in {path}",
            found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            remedy="Correct that field.",
        ) from error
    return Rules(
        threshold=rules.threshold,
        patterns=tuple(_compiled(rule) for rule in rules.pattern),
        names=frozenset(folded(word) for word in rules.lists.names),
        places=frozenset(folded(word) for word in rules.lists.places),
        keep=frozenset(folded(word) for word in rules.keep.words),
        off=frozenset(rules.keep.patterns),
    )


def _compiled(rule: _PatternRule) -> Pattern:
    try:
        regex = re.compile(rule.regex)
    except re.error as error:
        raise ConfigurationError(
            expected=f"a regular expression in the rule {rule.name}",
            found=f"{rule.regex!r}: {error}",
            remedy="Correct the expression.",
        ) from error
    if regex.search("") is not None:
        raise ConfigurationError(
            expected=f"an expression that finds at least one character in the rule {rule.name}",
            found=f"{rule.regex!r}, which finds nothing everywhere",
            remedy="Ask for at least one character, for instance with + instead of *.",
        )
    for letter in ("a", "1", "A", " ", "a1 ", "-"):
        # Growing lengths, so that an explosive expression is caught while it is still quick.
        for length in (16, 20, 24, 28, _TRIAL):
            start = time.process_time()
            for _ in regex.finditer((letter * length)[:length] + "!"):
                pass
            if time.process_time() - start > _TRIAL_SECONDS:
                raise ConfigurationError(
                    expected=f"an expression whose time grows with the text's length in the rule {rule.name}",
                    found=f"{rule.regex!r}, which takes too long over {length} times {letter!r}",
                    remedy="Avoid repeats inside repeats; give repeats a limit such as {1,20}.",
                )
    return Pattern(
        name=rule.name, phi=rule.phi, kind=rule.kind or rule.phi.value, regex=regex, confidence=rule.confidence
    )
