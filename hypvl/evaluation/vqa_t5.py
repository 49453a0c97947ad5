"""T5 as the language model of zero-shot VQA: it rewrites questions, and says which answers fit a statement."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hypvl.data.tokenizer_huggingface import UNLOADABLE, load_tokenizer, require_transformers
from hypvl.datasets.text.question_templates import MASK, QuestionTemplate, question_template
from hypvl.errors import UserError

_GAP, _END = "<extra_id_0>", "<extra_id_1>"  # T5's signs for the first gap and what follows it
_LONGEST_TEMPLATE = 48  # tokens
#: Examples that are put before a question, in words of this project.
DEMONSTRATIONS = (
    ("What color is the bus?", f"the color of the bus is {MASK}"),
    ("How many birds are flying?", f"{MASK} birds are flying"),
    ("What is the woman holding?", f"the woman is holding {MASK}"),
    ("What kind of fruit is on the plate?", f"the fruit on the plate is {MASK}"),
    ("Where is the boy sitting?", f"the boy is sitting in the {MASK}"),
    ("Who is riding the horse?", f"the {MASK} is riding the horse"),
    ("Why is the road wet?", f"the road is wet because of {MASK}"),
    ("What does the sign say?", f"the sign says {MASK}"),
)


class T5Templates:
    """A T5 that fills gaps, from a local folder or the hub; the extra ``huggingface``.

    Args:
        name: Folder or hub id of a T5 that was trained to fill gaps (``t5-large``, ``google/t5-v1_1-large``).
        device: Where it runs.
        batch_size: Questions rewritten together; the answers of one statement are scored 8 times as many at once.

    Raises:
        UserError: when ``transformers`` is not installed, or ``name`` has no T5.
        DataError: when it has no tokenizer.
    """

    def __init__(self, name: str, *, device: torch.device, batch_size: int = 64) -> None:
        transformers = require_transformers()
        self._tokenizer: Any = load_tokenizer(name)
        try:
            self._model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                name, trust_remote_code=False
            )
        except UNLOADABLE as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"t5: {name} cannot be loaded ({reason}); name a folder or hub id of a T5."
            ) from error
        ids = self._tokenizer.convert_tokens_to_ids([_GAP, _END])
        if None in ids or self._tokenizer.unk_token_id in ids:
            raise UserError(
                f"t5: the tokenizer of {name} has no {_GAP}; name a T5 that was trained to fill gaps."
            )
        self._gap, self._end = ids
        self._device = device
        self._batch_size = batch_size
        self._model.to(device).eval()

    @torch.inference_mode()
    def templates(self, questions: Sequence[str]) -> tuple[list[QuestionTemplate], int]:
        """Rewrite questions; yes/no questions by the rules of ``question_template``, the others by T5.

        Returns:
            The templates, and how many of T5's had no single gap, so that the rules wrote them.
        """
        templates = [question_template(question) for question in questions]
        todo = [i for i, template in enumerate(templates) if not template.yes_no]
        lost = 0
        for start in range(0, len(todo), self._batch_size):
            batch = todo[start : start + self._batch_size]
            encoded = self._tokenizer(
                [_prompt(questions[i]) for i in batch], return_tensors="pt", padding=True
            )
            made = self._model.generate(
                input_ids=encoded["input_ids"].to(self._device),
                attention_mask=encoded["attention_mask"].to(self._device),
                max_new_tokens=_LONGEST_TEMPLATE,
                do_sample=False,
                num_beams=1,
            )
            for i, row in zip(batch, made.tolist(), strict=True):
                text = written_template(
                    self._tokenizer.decode(self._first_gap(row), skip_special_tokens=True)
                )
                if text is None:
                    lost += 1
                else:
                    templates[i] = QuestionTemplate(text)
        return templates, lost

    @torch.inference_mode()
    def likely(self, template: QuestionTemplate, answers: Sequence[str], *, k: int) -> list[str]:
        """The k answers that T5 finds likeliest in the gap of a statement, the likeliest first."""
        scores = self.log_probabilities(template, answers)
        order = scores.sort(descending=True, stable=True).indices[:k]
        return [answers[i] for i in order.tolist()]

    @torch.inference_mode()
    def log_probabilities(self, template: QuestionTemplate, answers: Sequence[str]) -> Tensor:
        """Log probability of each answer as the whole content of the gap: (K,) fp64."""
        encoded = self._tokenizer(template.fill(_GAP), return_tensors="pt").to(self._device)
        state = self._model.get_encoder()(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
        ).last_hidden_state  # (1, L, D)
        at_once, parts = 8 * self._batch_size, []
        for start in range(0, len(answers), at_once):
            labels = self._labels(answers[start : start + at_once])  # (K, T)
            count = len(labels)
            logits = self._model(
                encoder_outputs=(state.expand(count, -1, -1),),
                attention_mask=encoded["attention_mask"].expand(count, -1),
                labels=labels,
            ).logits  # (K, T, V)
            used = labels != -100
            chosen = logits.double().log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
            parts.append((chosen * used)[:, 1:].sum(1).cpu())  # the first is the sign of the gap itself
        return torch.cat(parts)

    def _labels(self, answers: Sequence[str]) -> Tensor:
        """``<extra_id_0> answer <extra_id_1>``, filled with -100: (K, T) int64."""
        rows = [
            torch.tensor(
                [self._gap, *self._tokenizer(answer, add_special_tokens=False)["input_ids"], self._end]
            )
            for answer in answers
        ]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        return padded.to(self._device)

    def _first_gap(self, row: Sequence[int]) -> list[int]:
        """What was generated for the first gap."""
        begin = row.index(self._gap) + 1 if self._gap in row else 0
        end = row.index(self._end) if self._end in row else len(row)
        return list(row[begin:end])


def written_template(text: str) -> str | None:
    """A generated statement in one line without a full stop; None unless it has exactly one gap."""
    statement = " ".join(text.split()).rstrip(" .")
    return statement if statement.count(MASK) == 1 and statement != MASK else None


def _prompt(question: str) -> str:
    shown = " ".join(f"question: {asked} statement: {said}." for asked, said in DEMONSTRATIONS)
    return f"{shown} question: {question} statement: {_GAP}"
