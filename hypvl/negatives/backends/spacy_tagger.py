"""spaCy as the tagger of captions."""

from collections.abc import Sequence

from hypvl.errors import UserError
from hypvl.negatives.backends.penn import tagged_word
from hypvl.negatives.tagging import Word
from hypvl.negatives.text import tokenize


class SpacyTagger:
    """Nouns, adjectives and verbs by the tags of a spaCy pipeline.

    Args:
        model: Name of an installed pipeline, or its folder.

    Raises:
        UserError: when it is not there, or has no tagger.
    """

    def __init__(self, model: str) -> None:
        import spacy

        try:
            self._pipeline = spacy.load(model, exclude=["ner", "parser"])
        except OSError as error:
            raise UserError(
                f"--spacy-model {model}: is no installed spaCy pipeline and no folder of one; install it (python -m "
                f"spacy download {model}), give a folder, or use --tagger builtin."
            ) from error
        if not any(token.tag_ for token in self._pipeline("a dog sits on a red chair")):
            raise UserError(
                f"--spacy-model {model}: gives no part-of-speech tags; use a pipeline with a tagger, such as "
                "en_core_web_sm."
            )

    def __call__(self, captions: Sequence[str]) -> list[list[Word]]:
        """The words of each caption; only whole words count, not the parts that spaCy splits them into."""
        found = []
        for caption, document in zip(captions, self._pipeline.pipe(captions), strict=True):
            whole = {(token.start, token.end): token for token in tokenize(caption)}
            words = []
            for part in document:
                token = whole.get((part.idx, part.idx + len(part.text)))
                if token is not None:
                    words.append(tagged_word(token, part.tag_, part.lemma_.lower() or None))
            found.append([word for word in words if word is not None])
        return found
