r"""Zero-shot VQA v2 in the manner of TAP-C (docs/benchmarks/text.md). Not verified against the paper.

hypvl evaluate --config tapc_vqa \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l

With a T5 that writes the statements and retains answers (pip install 'hypvl[huggingface]'): t5=t5-large
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.vqa import vqa_v2
from hypvl.evaluation.vqa import ZeroShotVQA

from .common.encoding import encoding as encoding

roots = {"vqa": "./datasets/vqa", "coco": "./datasets/coco"}
t5, candidates, limit = None, 20, None
evaluate = {
    "vqa_v2": L(ZeroShotVQA)(
        dataset=L(vqa_v2)(
            root="${roots.vqa}", images="${roots.coco}/val2014", answers=None, limit="${limit}"
        ),
        t5="${t5}",
        candidates="${candidates}",
        encoding="${encoding}",
    )
}
