"""DINO of crops of one image: the moving average of the student sees the two large ones and teaches all others."""

from .dino import objective

objective.terms.dino.update(
    student=[f"image:crops.{i}" for i in range(10)],
    teacher=["image:crops.0@ema", "image:crops.1@ema"],
    prototypes="own",
    start_temperature=0.04,
    teacher_temperature=0.07,
)
