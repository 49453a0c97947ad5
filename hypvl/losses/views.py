"""What a loss term may ask for: an entry of the batch, through an encoder."""

from dataclasses import dataclass

from hypvl.checks import natural_number, one_of
from hypvl.geometry.scorers import Modality

STUDENT = "student"  # the encoder name of the model that is trained


@dataclass(frozen=True)
class View:
    """One encoded input: which batch entry, through which encoder, with or without gradient."""

    modality: Modality  # another one is a ValueError
    source: str  # key of the batch; dots go into nested entries ("crops.1")
    encoder: str = STUDENT  # its name in the learner: the model that is trained, or one of ``train.teachers``
    grad: bool = True  # False encodes under ``no_grad``
    draw: int = 0  # views that differ only here are encoded again, with other random numbers (dropout)

    def __post_init__(self) -> None:
        one_of("modality", self.modality, Modality)

    @classmethod
    def parse(cls, text: "str | View") -> "View":
        """``"image"``, ``"text"``, or ``"modality:source[@encoder][#draw]"``.

        For example ``"image:box_image"``, ``"image@ema"``, or ``"text#1"``, the same texts with other dropout.
        """
        if isinstance(text, View):
            return text
        head, at, encoder = text.partition("@")
        last = encoder if at else head
        last, mark, draw = last.partition("#")
        head, encoder = (head, last) if at else (last, STUDENT)
        modality, _, source = head.partition(":")
        number_of_draw = natural_number(draw) if mark else 0
        if modality not in ("image", "text") or not encoder or number_of_draw is None:
            raise ValueError(
                f"view: got {text!r}; expected 'image', 'text' or 'modality:source[@encoder][#draw]'."
            )
        return cls(modality, source or modality, encoder, draw=number_of_draw)  # type: ignore[arg-type]  # checked above

    def __str__(self) -> str:
        return f"{self.modality}:{self.source}@{self.encoder}" + (f"#{self.draw}" if self.draw else "")


IMAGE = View("image", "image")
TEXT = View("text", "text")
