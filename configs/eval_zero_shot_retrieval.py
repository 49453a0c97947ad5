r"""Zero-shot retrieval: COCO (val2017, Karpathy's 5K and 1K, ECCV Caption), Flickr30k, NoCaps, Urban1k, DOCCI.

hypvl evaluate --config zero_shot_retrieval \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from .common.evaluation.retrieval import encoding, evaluate, pair_scorer, rerank, rerank_score, roots
