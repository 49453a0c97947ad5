r"""I0T's retrieval: COCO, Flickr30k and NoCaps GOLD captions, ShareGPT4V's validation entries.

Data and metrics: docs/benchmarks/retrieval.md.

hypvl evaluate --config i0t_retrieval \
    --checkpoint-path output/i0t_async/checkpoint_final.pth --standardize transductive
"""

from .common.evaluation.i0t_retrieval import encoding, evaluate, roots
