r"""CLIP ViT-B/32 as OpenAI published it: learned positions, a LayerNorm before the blocks, quick GELU.

Its weights, through open_clip (once, online):
python -c "import open_clip, torch; torch.save(
    open_clip.create_model('ViT-B-32-quickgelu', 'openai').state_dict(), 'checkpoints/openai_vit_b_32.pt')"
then train.init_checkpoint=checkpoints/openai_vit_b_32.pt. Weights trained with the exact GELU (LAION's) take
visual.arch=vit_base_patch32_clip_224 and textual.activation=gelu.
"""

from .clip import model

model.visual.arch = "vit_base_patch32_clip_quickgelu_224"
model.visual.position = "learned"
model.visual.pixel_mean = [0.48145466, 0.4578275, 0.40821073]
model.visual.pixel_std = [0.26862954, 0.26130258, 0.27577711]
model.textual.activation = "quick_gelu"
