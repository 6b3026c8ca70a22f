"""The trained tagger as a source of spans, and the weights that ship."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from safetensors.torch import load

from synclave_shared.text.features import token_features
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.words import lexicon_of
from synclave_shared.text.spans import PhiClass, Span
from synclave_shared.text.tagger import Tagger, tag_probabilities

if TYPE_CHECKING:
    from synclave_shared.text.phi.locale import Locale

__all__ = ["PHI_TAGS", "PhiTagger", "shipped_tagger"]

PHI_TAGS: Final[tuple[tuple[str, PhiClass | None], ...]] = (
    ("none", None),
    ("patient", PhiClass.NAME),
    ("doctor", PhiClass.NAME),
    ("relative", PhiClass.NAME),
    ("facility", PhiClass.PLACE),
    ("street", PhiClass.PLACE),
    ("city", PhiClass.PLACE),
    ("state", PhiClass.PLACE),
    ("zip", PhiClass.PLACE),
    ("date", PhiClass.DATE),
    ("age", PhiClass.DATE),
    ("phone", PhiClass.PHONE),
    ("email", PhiClass.EMAIL),
    ("url", PhiClass.URL),
    ("number", PhiClass.OTHER),
)
"""Kind and class of each tag, in the order of the network's outputs."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhiTagger:
    """A network and the language it reads.

    Attributes:
        network: of ``len(PHI_TAGS)`` tags.
        locale: whose lists the features name.
        least: probability that a token identifies anybody, summed over all tags, from which it is marked.
    """

    network: Tagger
    locale: Locale
    least: float = 0.5

    def spans(self, text: str) -> list[Span]:
        """Runs of tokens of one class; confidence is the mean probability."""
        features = token_features(text, self.locale, lexicon_of(self.locale))
        if not len(features.spans):
            return []
        probabilities = tag_probabilities(self.network, features)
        identifying = 1 - probabilities[:, 0]
        best = (probabilities[:, 1:].argmax(1) + 1).tolist()
        edges = features.spans.tolist()
        found: list[Span] = []
        run: list[int] = []

        def close() -> None:
            while run and not text[edges[run[-1]][0]].isalnum():
                run.pop()
            while run and not text[edges[run[0]][0]].isalnum():
                run.pop(0)
            if run:
                kind, phi = PHI_TAGS[best[run[0]]]
                if phi is not None:
                    sure = float(identifying[run].mean())
                    start, end = edges[run[0]][0], edges[run[-1]][1]
                    found.append(Span(start=start, end=end, phi=phi, kind=kind, source="tagger", confidence=sure))
            run.clear()

        for place, sure in enumerate((identifying >= self.least).tolist()):
            marked = sure and text[edges[place][0]] != "\n"
            if run and (not marked or PHI_TAGS[best[run[-1]]][1] != PHI_TAGS[best[place]][1]):
                close()
            if marked:
                run.append(place)
        close()
        return found


@cache
def shipped_tagger(code: str = "en") -> PhiTagger:
    """The tagger trained on public notes, reading language ``code``."""
    packed = (files("synclave_shared.text") / "data" / "phi-tagger.safetensors").read_bytes()
    network = Tagger(len(PHI_TAGS))
    network.load_state_dict({name: array.float() for name, array in load(packed).items()})
    network.eval().requires_grad_(False)
    return PhiTagger(network=network, locale=locale_for(code))
