r"""Word similarity: RG65, SimLex-999, WordSim-353, words in the 80 prompts of ImageNet (docs/benchmarks/text.md).

hypvl evaluate --config wordsim \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.text.pairs import word_pairs
from hypvl.evaluation.text.word_similarity import WordSimilarity

from .common.encoding import encoding as encoding

roots = {"wordsim": "./datasets/wordsim"}
evaluate = {
    f"{name}{ending}": L(WordSimilarity)(
        dataset=L(word_pairs)(path=f"${{roots.wordsim}}/{name}.csv"),
        prompts=None,
        templates=templates,
        encoding="${encoding}",
    )
    for name in ("rg65", "simlex999", "wordsim353")
    for ending, templates in (("", "pooled"), ("_averaged", "averaged"))
}
