"""Small encoders for 64-pixel images; a recipe puts them into a model of any geometry."""

from hypvl.config import LazyCall as L
from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.text import TextTransformer

visual = L(ConvStemViT)(width=128, depth=2, heads=4, image_size=64, patch_size=16, stem_convs=2)
textual = L(TextTransformer)(arch="L2_W128_A4", vocab_size=49408, context_length=77)
