r"""Zero-shot retrieval: COCO (val2017, Karpathy's 5K and 1K, ECCV Caption), Flickr30k, NoCaps, Urban1k, DOCCI.

python scripts/evaluate.py --config configs/eval_zero_shot_retrieval.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from .common.evaluation.retrieval import encoding, evaluate, pair_scorer, rerank, rerank_score, roots
