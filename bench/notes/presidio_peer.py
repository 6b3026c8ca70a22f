"""Microsoft Presidio's own recognisers over a blank spaCy pipeline; runs in an environment of its own.

``.peers/presidio/bin/python bench/notes/presidio_peer.py < texts.json > spans.json``, lists of texts and of
``[start, end, type, score]``. No model is downloaded; its e-mail recogniser is kept off the network.
"""

import json
import sys

import spacy
import tldextract
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine


class Blank(SpacyNlpEngine):
    """A pipeline that only splits words."""

    def __init__(self, code: str) -> None:
        super().__init__(models=[{"lang_code": code, "model_name": code}])
        self.nlp = {code: spacy.blank(code)}

    def load(self) -> None:
        """Nothing to load."""


def main() -> None:
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    request = json.load(sys.stdin)
    code = request["language"]
    engine = AnalyzerEngine(nlp_engine=Blank(code), supported_languages=[code])
    answer = [
        [[r.start, r.end, r.entity_type, r.score] for r in engine.analyze(text=text, language=code)]
        for text in request["texts"]
    ]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
