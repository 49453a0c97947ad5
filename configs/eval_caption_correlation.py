r"""CLIPScore, PAC-S, I0T-S and the model's own score against people's ratings: Flickr8k-Expert and Flickr8k-CF.

python scripts/evaluate.py --config configs/eval_caption_correlation.py \
    --checkpoint-path checkpoints/clip_vit_l.pth --train-config configs/train_clip_vit_l.py
"""

from .common.evaluation.caption_correlation import encoding, evaluate, roots
