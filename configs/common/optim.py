"""AdamW, linear warm-up and squared cosine decay: the published MERU recipe.

`gain_bias_decay` is the value the published runs were trained with; their config asked for 0.0. Scales, curvature and
logit biases are never decayed (their modules declare it); `exclude` adds to them. `exclude`, `trainable`, `frozen` and
`lr` take patterns of names: `frozen=[model.textual.*]` trains everything but the text encoder.
"""

from torch.optim import AdamW

from hypvl.config import LazyCall as L
from hypvl.training.optim import parameter_groups, warmup_cosine

optim = dict(
    parameters=L(parameter_groups, partial=True)(
        weight_decay=0.2, gain_bias_decay=0.2, exclude=[], trainable=None, frozen=None, lr=None
    ),
    optimizer=L(AdamW, partial=True)(lr=5e-4, betas=[0.9, 0.98], eps=1e-8, fused=True),
    lr_scheduler=L(warmup_cosine, partial=True)(total_steps="${train.num_iterations}", warmup_steps=4000),
)
