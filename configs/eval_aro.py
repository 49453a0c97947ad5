r"""ARO: relations and attributes of Visual Genome, the order of words in COCO and Flickr30k.

Data and metrics: docs/benchmarks/composition.md.

What is missing of ARO's own files is downloaded; COCO's and Flickr30k's images are not.

hypvl evaluate --config aro \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from .common.evaluation.aro import download, encoding, evaluate, roots, scored_by
