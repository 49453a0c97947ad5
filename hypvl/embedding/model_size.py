"""How many parameters a model has, and how many of them an image goes through."""

import torch

from hypvl.checks import one_of
from hypvl.embedding.protocol import EvaluableModel, Stage


def count_parameters(model: EvaluableModel, *, stage: Stage = "trunk") -> tuple[int, int]:
    """All parameters, and those that images' features depend on.

    The latter are found by a gradient through one black image, so that any model can be asked. The model is left as
    it was.

    Args:
        model: Which.
        stage: Up to where an image goes.

    Returns:
        (all, of images).
    """
    one_of("stage", stage, Stage)
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    flags = [p.requires_grad for p in parameters]
    was_training = model.training
    model.train(False)
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        device = parameters[0].device if parameters else torch.device("cpu")
        image = torch.zeros(1, 3, model.image_size, model.image_size, dtype=torch.uint8, device=device)
        with torch.enable_grad():
            out = model.encode_image(image, stage=stage)
            used = (
                torch.autograd.grad(out.float().sum(), parameters, allow_unused=True)
                if out.requires_grad
                else [None] * len(parameters)
            )
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)
        model.train(was_training)
    seen = sum(p.numel() for p, gradient in zip(parameters, used, strict=True) if gradient is not None)
    return sum(p.numel() for p in model.parameters()), seen
