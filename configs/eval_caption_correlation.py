r"""CLIPScore, PAC-S, I0T-S and the model's own score against people's ratings: Flickr8k-Expert and Flickr8k-CF.

hypvl evaluate --config caption_correlation \
    --checkpoint-path checkpoints/clip_vit_l.pth --train-config clip_vit_l
"""

from .common.evaluation.caption_correlation import encoding, evaluate, roots
