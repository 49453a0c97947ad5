"""CyCLIP with in-modal augmentation: half of the contrast is with an augmented self, one direction per modality.

The batch needs augmented_image and augmented_text (configs/common/data/augment.py). The mean of four pairs is the
published mean of the two halves; the cyclic terms see the originals only.
"""

from .cyclip import objective

objective.terms.contrastive.pairs = [
    ["image", "text"],
    ["text", "image"],
    ["image", "image:augmented_image"],
    ["text", "text:augmented_text"],
]
