r"""MobileNetV3-large with a head of two layers beside the text encoder of CLIP RN50: a student of its captions.

The weights of that CLIP, through open_clip (once, online):
python -c "import open_clip, torch; torch.save(
    open_clip.create_model('RN50-quickgelu', 'openai').state_dict(), 'checkpoints/openai_rn50.pt')"
"""

from hypvl.config import LazyCall as L
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.image_torchvision import TorchvisionImageEncoder
from hypvl.encoders.mlp_heads import DINOHead
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.models.dual_encoder import DualEncoder

model = L(DualEncoder)(
    visual=L(TorchvisionImageEncoder)(arch="mobilenet_v3_large", weights=None, image_size=224),
    textual=L(TextTransformer)(arch="L12_W512", vocab_size=49408, context_length=77, activation="quick_gelu"),
    visual_head=L(DINOHead, partial=True)(out_features=1024, layers=2, hidden=2048, prototypes=None),
    textual_head=L(ProjectionHead, partial=True)(out_features=1024),
    geometry=L(Sphere)(),
    scorer=L(Cosine)(),
)
