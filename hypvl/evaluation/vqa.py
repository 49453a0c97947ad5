"""Zero-shot visual question answering: questions become statements, and the one that fits the image best wins."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.prompts import fill
from hypvl.datasets.protocol import check_set
from hypvl.datasets.text.question_templates import QuestionTemplate, question_template
from hypvl.datasets.vqa import QuestionSet
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings
from hypvl.embedding.search import pair_scores, search
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.vqa_t5 import T5Templates
from hypvl.metrics.classification import vqa_accuracy

_YES_NO = ("yes", "no")


@configurable("evaluate")
@dataclass
class ZeroShotVQA(Evaluator):
    """Official VQA accuracy of the answer whose statement the model's own score of image and text puts first.

    1. A question becomes a statement with a gap (``what color is the dog`` -> ``the dog is [MASK]``); a yes/no
       question, known by its first word, becomes a statement and its negation.
    2. Of the vocabulary ``candidates`` answers are retained; of a question "how many ..." only numbers, of the others
       neither yes nor no.
    3. Each fills the gap, and the statement with the highest score wins, the first of equal ones.

    Without ``t5`` rules write the statements, and the model itself retains answers: those with the highest score of the
    image and ``filter_prompt``. With ``t5`` a T5 writes the statements of all but yes/no questions, and retains the
    answers that it finds likeliest in the gap.

    Metrics, in percent, each with its chance level (an answer of the vocabulary, or yes or no, at random):
    ``vqa_accuracy`` over all questions, ``vqa_accuracy_yes_no``, ``vqa_accuracy_number``, ``vqa_accuracy_other`` by the
    answer type in the annotations. A question about an unreadable image counts 0.

    Items, one per question: ``question_id``, ``statement`` (with its gap), ``answer`` (None for an unreadable image),
    ``accuracy``.

    Args:
        t5: Folder or hub id of a T5; None = rules.
        candidates: How many answers are retained.
        filter_prompt: With ``{}`` for an answer; only without ``t5``.
        chunk: Questions whose statements are encoded together.

    Source: Song et al. 2022, "CLIP Models are Few-shot Learners" (arXiv 2203.07190), TAP-C, from memory. The rules, the
        examples given to T5, the number of candidates and the filter without T5 are choices made here. Not verified
        against the paper. The accuracy is the official one (arXiv 1505.00468).
    """

    dataset: QuestionSet
    _: KW_ONLY
    t5: str | None = None
    candidates: int = 20
    filter_prompt: str = "a photo of {}."
    chunk: int = 2048

    main_metric = "vqa_accuracy"

    def __post_init__(self) -> None:
        check_set(self.dataset, QuestionSet)
        whole_number("candidates", self.candidates, least=1)
        whole_number("chunk", self.chunk, least=1)
        fill(self.filter_prompt, "")  # refuses one without a place for the answer
        words = [answer for answer in self.dataset.vocabulary if answer not in _YES_NO]
        numbers = [answer for answer in words if answer.isdecimal()]
        self._pools = {"number": numbers or words, "other": words or list(_YES_NO), "yes/no": list(_YES_NO)}

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        images = encoder.encode_images(data.images, transform=ResizeCenterCrop.of(model), label="images")
        check_embeddings(images.embeddings)
        row_of = {image: row for row, image in enumerate(images.indices.tolist())}
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        t5 = None if self.t5 is None else T5Templates(self.t5, device=device)
        if t5 is None:
            templates, lost = [question_template(question) for question in data.questions], 0
            retained = self._retained(model, encoder, images.embeddings)
        else:
            templates, lost = t5.templates(data.questions)
            retained = {}
        kinds = [_kind(*pair) for pair in zip(data.questions, templates, strict=True)]
        answers: list[str | None] = [None] * len(templates)
        readable = [i for i, image in enumerate(data.image) if image in row_of]
        for start in range(0, len(readable), self.chunk):
            asked = readable[start : start + self.chunk]
            options = []
            for i in asked:
                if kinds[i] == "yes/no":
                    options.append(list(_YES_NO))
                elif t5 is None:
                    options.append(retained[kinds[i]][row_of[data.image[i]]])
                else:
                    options.append(t5.likely(templates[i], self._pools[kinds[i]], k=self.candidates))
            rows = images.embeddings[[row_of[data.image[i]] for i in asked]]
            chosen = _best(model, encoder, rows, [templates[i] for i in asked], options)
            for i, answer in zip(asked, chosen, strict=True):
                answers[i] = answer
        meta = {"templates": "rules" if t5 is None else "t5", "templates_by_rules_instead": lost}
        return self._result(templates, kinds, answers, meta)

    def _retained(
        self, model: EvaluableModel, encoder: CachedEncoder, images: Tensor
    ) -> dict[str, list[list[str]]]:
        """For each image the answers that fit it best by themselves: of the numbers, and of the others."""
        retained = {}
        for kind in ("number", "other"):
            pool = self._pools[kind]
            keys = encoder.encode_texts(
                [fill(self.filter_prompt, answer) for answer in pool], label="answers"
            )
            check_embeddings(keys)
            _, best = search(
                model, images, keys, k=self.candidates, query_modality="image", key_modality="text"
            )
            retained[kind] = [[pool[i] for i in row] for row in best.tolist()]
        return retained

    def _result(
        self,
        templates: Sequence[QuestionTemplate],
        kinds: Sequence[str],
        answers: Sequence[str | None],
        meta: dict[str, Any],
    ) -> EvaluationResult:
        data = self.dataset
        accuracies, chances = [], []
        pools = {kind: frozenset(pool) for kind, pool in self._pools.items()}
        for kind, answer, people in zip(kinds, answers, data.answers, strict=True):
            accuracies.append(0.0 if answer is None else vqa_accuracy(answer, people))
            reachable = [vqa_accuracy(word, people) for word in set(people) & pools[kind]]
            chances.append(sum(reachable) / len(pools[kind]))
        result = EvaluationResult(
            items={
                "question_id": list(data.question_ids),
                "statement": [template.text for template in templates],
                "answer": list(answers),
                "accuracy": accuracies,
            },
            meta={
                "questions": len(answers),
                "images": len(data.images),
                "vocabulary": len(data.vocabulary),
                "candidates": self.candidates,
                "verified": "not verified against the paper",
                **meta,
                **data.notes,
            },
        )
        groups = {"": list(range(len(answers)))}
        for i, kind in enumerate(data.answer_types):
            groups.setdefault("_" + kind.replace("/", "_").replace(" ", "_"), []).append(i)
        for ending, members in groups.items():
            chance = sum(chances[i] for i in members) / len(members)
            result.add_mean(f"vqa_accuracy{ending}", [accuracies[i] for i in members], chance=chance)
        return result


def _kind(question: str, template: QuestionTemplate) -> str:
    """Which answers a question can have, by its words."""
    if template.yes_no:
        return "yes/no"
    return "number" if question.lower().startswith("how many") else "other"


def _best(
    model: EvaluableModel,
    encoder: CachedEncoder,
    images: Tensor,
    templates: Sequence[QuestionTemplate],
    options: Sequence[Sequence[str]],
) -> list[str]:
    """The option whose statement fits the image best, for each row of images (Q, D)."""
    statements = [
        [template.fill(answer) for answer in own] for template, own in zip(templates, options, strict=True)
    ]
    distinct = list(dict.fromkeys(text for own in statements for text in own))
    place = {text: row for row, text in enumerate(distinct)}
    keys = encoder.encode_texts(distinct, label="statements")
    check_embeddings(keys)
    scores = pair_scores(
        model,
        images,
        keys,
        [[place[text] for text in own] for own in statements],
        query_modality="image",
        key_modality="text",
    )
    return [
        own[max(range(len(own)), key=lambda i: (row[i], -i))]
        for own, row in zip(options, scores, strict=True)
    ]
