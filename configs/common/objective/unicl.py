"""UniCL: contrastive, and all images and captions of a class belong together; the batch has labels, -1 = none."""

from .clip import objective

objective.terms.contrastive.labels = "labels"
