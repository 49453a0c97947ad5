"""VQA v2 in small; `root` stands for ./datasets. Fills roots.vqa and roots.coco of configs/eval_tapc_vqa.py."""

from pathlib import Path
from typing import Any

from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image
from tests.evaluation.miniatures.retrieval import write

IMAGES = {262148: RED, 393225: GREEN, 240301: BLUE}
#: (image, question, type, what ten people answered)
QUESTIONS = (
    (262148, "What color is the ball?", "other", ["Red."] * 8 + ["green", "the red"]),
    (393225, "What color is the ball?", "other", ["green"] * 2 + ["blue"] * 8),
    (240301, "Is the ball red?", "yes/no", ["no"] * 10),
    (262148, "How many balls are there?", "number", ["one"] * 5 + ["2"] * 5),
)
#: Answers of the training questions and how many have each.
TRAINING = {"red": 12, "green": 11, "blue": 10, "no": 20, "yes": 21, "1": 9, "2": 9, "yellow": 8}


def make(root: Path, *, bad: int = 0) -> None:
    """Questions, annotations of val and train, and images; the last ``bad`` questions are of images that are none."""
    folder = root / "coco" / "val2014"
    for number, color in IMAGES.items():
        image(folder / f"COCO_val2014_{number:012}.jpg", color)
    entries = list(QUESTIONS)
    for number in range(bad):
        broken(folder / f"COCO_val2014_{number:012}.jpg")
        entries.append((number, "Is the ball red?", "yes/no", ["maybe"] * 10))
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, question, kind, answers) in enumerate(entries):
        about = {"image_id": name, "question_id": 1000 * name + number}
        questions.append(about | {"question": question})
        people = [
            {"answer": answer, "answer_confidence": "yes", "answer_id": i}
            for i, answer in enumerate(answers, start=1)
        ]
        annotations.append(
            about
            | {
                "answers": people,
                "answer_type": kind,
                "multiple_choice_answer": answers[0],
                "question_type": question.lower()[:12],
            }
        )
    questions.append({"image_id": 262148, "question_id": 5, "question": "Who knows?"})
    write(root / "vqa" / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write(root / "vqa" / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    training = [
        {"multiple_choice_answer": answer} for answer, count in TRAINING.items() for _ in range(count)
    ]
    write(root / "vqa" / "v2_mscoco_train2014_annotations.json", {"annotations": training})
