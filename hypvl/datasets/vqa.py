"""Reader of VQA v2: images, questions, what ten people answered, and a vocabulary of answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.checks import whole_number, whole_number_or_none
from hypvl.datasets.files import read_json, require_files, require_images
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError
from hypvl.io.json_text import expecting
from hypvl.metrics.answers import normalize_answer

_QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
_ANSWERS = "v2_mscoco_{}2014_annotations.json"


@dataclass(frozen=True)
class QuestionSet:
    """Questions about images, one a row."""

    images: ImageSource
    keys: Sequence[str]  # a name for each image
    image: Sequence[int]  # position of the image of each question
    questions: Sequence[str]
    question_ids: Sequence[int]
    answers: Sequence[Sequence[str]]  # what people answered, normalised, at least two each
    answer_types: Sequence[str]  # "yes/no", "number" or "other"
    vocabulary: Sequence[str]  # answers to choose from, normalised
    notes: dict[str, Any] = field(default_factory=dict)  # what was left out


@configurable("evaluate")
def vqa_v2(
    root: str | Path,
    *,
    images: str | Path,
    answers: str | Path | None = None,
    min_count: int = 9,
    limit: int | None = None,
) -> QuestionSet:
    """VQA v2, validation: questions and annotations in ``root``, COCO's images of val2014 in ``images``.

    Args:
        root: Folder of ``v2_OpenEnded_mscoco_val2014_questions.json``, ``v2_mscoco_val2014_annotations.json``, and
            ``v2_mscoco_train2014_annotations.json`` where ``answers`` is None.
        images: Folder of ``COCO_val2014_000000000042.jpg`` and others.
        answers: A JSON list of answers to choose from; None = the most frequent answers (``multiple_choice_answer``) of
            the training questions.
        min_count: How many training questions such an answer must have; 9 gives about the 3,129 of the field.
        limit: At most so many questions, evenly spread over the file; None = all.

    Raises:
        MissingDataError: naming the files that are not there.
        DataError: for another layout.

    Source: Goyal et al. 2017 (arXiv 1612.00837).
    """
    whole_number("min_count", min_count, least=1)
    whole_number_or_none("limit", limit, least=1)
    folder = Path(root)
    files = [folder / _QUESTIONS, folder / _ANSWERS.format("val")]
    vocabulary_file = folder / _ANSWERS.format("train") if answers is None else Path(answers)
    require_files(
        [*files, vocabulary_file] if answers is None else files,
        "put the files of visualqa.org there, unpacked",
    )
    require_files([vocabulary_file], "write a JSON list of answers there")
    with expecting(files[1], "annotations (question_id, answer_type, answers of answer)"):
        known = {
            int(entry["question_id"]): (
                str(entry["answer_type"]),
                [normalize_answer(str(one["answer"])) for one in entry["answers"]],
            )
            for entry in read_json(files[1])["annotations"]
        }
    with expecting(files[0], "questions (image_id, question, question_id)"):
        asked = [
            (int(entry["question_id"]), int(entry["image_id"]), str(entry["question"]))
            for entry in read_json(files[0])["questions"]
        ]
    used = [entry for entry in asked if entry[0] in known]
    if not used:
        raise DataError(f"{files[1]}: answers none of the {len(asked)} questions; copy both files again.")
    if few := next((entry[0] for entry in used if len(known[entry[0]][1]) < 2), None):
        raise DataError(f"{files[1]}: question {few} has fewer than two answers; copy the file again.")
    count = len(used) if limit is None else min(limit, len(used))
    used = [used[i * len(used) // count] for i in range(count)]
    names = list(dict.fromkeys(image for _, image, _ in used))
    paths = [Path(images) / f"COCO_val2014_{name:012}.jpg" for name in names]
    require_images(paths, source=files[0], what="COCO's val2014")
    position = {name: i for i, name in enumerate(names)}
    return QuestionSet(
        images=Images.from_files(paths),
        keys=[path.name for path in paths],
        image=[position[image] for _, image, _ in used],
        questions=[" ".join(text.split()) for *_, text in used],
        question_ids=[number for number, *_ in used],
        answers=[known[number][1] for number, *_ in used],
        answer_types=[known[number][0] for number, *_ in used],
        vocabulary=_vocabulary(vocabulary_file, listed=answers is not None, min_count=min_count),
        notes={"questions_without_answers": len(asked) - sum(entry[0] in known for entry in asked)},
    )


def _vocabulary(path: Path, *, listed: bool, min_count: int) -> list[str]:
    """Different answers, normalised: those of a list, or the frequent ones, the most frequent first."""
    content = read_json(path)
    if listed:
        if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
            raise DataError(f"{path}: expected a list of answers; got {str(content)[:60]}")
        texts = [normalize_answer(text) for text in content]
    else:
        with expecting(path, "annotations (multiple_choice_answer)"):
            counts = Counter(
                normalize_answer(str(entry["multiple_choice_answer"])) for entry in content["annotations"]
            )
        texts = [text for text, number in counts.most_common() if number >= min_count]
    vocabulary = [text for text in dict.fromkeys(texts) if text]
    if not vocabulary:
        raise DataError(f"{path}: gives no answers to choose from; expected some (min_count is {min_count}).")
    return vocabulary
