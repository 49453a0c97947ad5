"""CLIP ViT-L/16: unit sphere, cosine."""

from hypvl.config import LazyCall as L
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.models.dual_encoder import DualEncoder

model = L(DualEncoder)(
    visual=L(TimmImageEncoder)(arch="vit_large_patch16_224", image_size=224, position=None),
    textual=L(TextTransformer)(arch="L12_W512", vocab_size=49408, context_length=77),
    visual_head=L(ProjectionHead, partial=True)(out_features=512),
    textual_head=L(ProjectionHead, partial=True)(out_features=512),
    geometry=L(Sphere)(),
    scorer=L(Cosine)(),
)
