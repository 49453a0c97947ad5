"""What I0T_async adds to a model: a batch norm on each modality's embeddings."""

from hypvl.config import LazyCall as L
from hypvl.encoders.feature_transforms import BatchStandardize

image_transforms = L(BatchStandardize, partial=True)(eps=1e-5, momentum=0.1)
text_transforms = L(BatchStandardize, partial=True)(eps=1e-5, momentum=0.1)
