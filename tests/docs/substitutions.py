r"""What is changed in the commands of README.md and docs/ before the tests run them, and what is not run.

Everything else is run as it stands, in a folder with miniature data (tests/docs/world.py). A command that fails there
fails the test: mend the page, or add a rule with its reason. ``pattern`` is searched in one command (its lines joined)
or one block of Python; ``replacement`` is that of ``re.sub``. Rules are applied in this order.
"""

import fnmatch
import re
from dataclasses import dataclass

#: Folders of runs that the miniature world holds, with a checkpoint, metrics and results.
RUNS = ("demo_meru", "demo_clip", "meru_vit_b", "meru_4k", "clip")
#: Files in checkpoints/: tiny models with their config inside.
CHECKPOINTS = ("meru_vit_s", "meru_vit_b", "meru_vit_l", "clip_vit_b", "atmg_vit_b")
_TRAIN = r"(?:hypvl train|scripts/train\.py|-m hypvl train)\b"
STEPS = (
    " train.num_iterations=2 train.total_batch_size=8 train.num_workers=0 train.root_samples=8"
    " optim.lr_scheduler.warmup_steps=1"
)
SMALL_DEMO = (
    " model.visual.width=16 model.visual.depth=1 model.visual.heads=2 model.visual.patch_size=16"
    " model.textual.arch=L1_W16_A2"
)
SMALL_VIT = (
    " model.visual.arch=vit_tiny_patch16_224 '++model.visual.timm_args={depth:2,embed_dim:32,num_heads:2}'"
    " ++model.visual.image_size=32 model.textual.arch=L2_W32_A2"
)
_PARTS = """
from hypvl.config import LazyCall as L
from hypvl.data.grit.mapper import GritMapper
from hypvl.data.mappers import GenericMapper, RedCapsMapper
from hypvl.data.query_mapper import QueryMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.stream import WebDatasetStream
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import RandomResizedCrop
from hypvl.datasets.classification.by_name import classification_set
from hypvl.datasets.classification.prompts import set_templates
from hypvl.datasets.prompted import PromptedImages

dataset = L(ImageTextShards)()

"""
_WITH_WORKERS = (
    r"evaluate|audit|extract|interpolate|rank-by-root|radius-histograms|fit-standardization|extract_embeddings"
    r"|image_interpolations|rank_by_root|radius_histograms|fit_standardization"
)


@dataclass(frozen=True)
class Rule:
    """One substitution, or one reason not to run."""

    pattern: str
    replacement: str
    reason: str
    page: str = "*"  # pages it applies to, as a shell pattern

    def applies(self, page: str, text: str) -> bool:
        """Whether it says anything about this text."""
        return fnmatch.fnmatch(page, self.page) and re.search(self.pattern, text) is not None


REPLACED = (
    # sizes
    Rule(rf"({_TRAIN}(?!.*--resume).*?)(\s+#.*)?$", rf"\1{STEPS}", "two steps of eight samples"),
    Rule(rf"({_TRAIN}.*--config \S*demo.*)$", rf"\1{SMALL_DEMO}", "encoders of one block"),
    Rule(rf"({_TRAIN}.*--config (?!\S*demo).*)$", rf"\1{SMALL_VIT}", "encoders of two blocks"),
    Rule(
        r"(--config (?:configs/eval_)?zero_shot_classification(?:\.py)?)(?=.*--checkpoint-path)",
        r"\1 --only cifar10",
        "one set of twenty",
    ),
    Rule(r"--config senteval", "--config senteval --only sst2", "one task of ten"),
    Rule(r"--config elevater", "--config elevater --only cifar10/zero_shot", "one set of twenty"),
    Rule(r"--protocol few_shot_5 ", "", "the world's results have no protocol"),
    Rule(r"--subset \d+", "--subset 2", "a list of four"),
    Rule(r"--train-samples \d+", "--train-samples 16", "few samples"),
    Rule(r"max_passages=\d+|limit=\d+", "", "the miniature is smaller"),
    Rule(r"\[0,90000\]", "[0,2]", "windows of two steps"),
    Rule(r"\[10000,null\]", "[0,null]", "windows of two steps"),
    Rule(r"\{00000\.\.01242\}", "{00000..00001}", "two shards"),
    Rule(
        rf"({_TRAIN}.*--config meru_from_clip_(?!demo|lora_demo).*)$",
        r"\1 train.init_checkpoint=null train.init_missing=null",
        "the weights of OpenAI are not here: random ones",
    ),
    # machines
    Rule(r"--num-gpus \d+", "--num-gpus 0", "no GPU in the tests"),
    Rule(rf"^(?!.*--num-gpus)(?!.*--resume)(.*{_TRAIN}.*?)$", r"\1 --num-gpus 0", "no GPU in the tests"),
    Rule(r"--num-workers \d+", "--num-workers 0", "processes would import torch again"),
    Rule(r"--workers \d+", "--workers 1", "processes would import torch again"),
    Rule(r'get_context\("spawn"\)', 'get_context("fork")', "processes would import torch again"),
    Rule(r".*spark\..*\n", "", "needs Spark"),
    Rule(
        rf"((?<!--wrap \")(?:hypvl |scripts/)(?:{_WITH_WORKERS})(?:\.py)?(?= )(?!.*--num-workers)(?!.*--help).*?)"
        r"(\s+#.*)?$",
        r"\1 --num-workers 0",
        "processes would import torch again",
    ),
    # paths
    Rule(
        r"(?P<file>checkpoints/\w+\.pth) --train-config \S+",
        r"\g<file>",
        "the tiny checkpoints hold their config",
    ),
    Rule(r"/shared/redcaps/\{00000\.\.09999\}", "datasets/redcaps/{00000..00001}", "two shards"),
    Rule(r"cc3m/\{0000\.\.0331\}", "datasets/cc12m/{00000..00001}", "two shards"),
    Rule(r"\bcc3m/0000\.tar", "datasets/cc12m/00000.tar", "a shard that is here"),
    Rule(r'"(?=redcaps/|grit/raw/)', '"datasets/', "the folder of the data", page="docs/many_machines.md"),
    Rule(r"range\(100\)", "range(2)", "two shards", page="docs/many_machines.md"),
    Rule(
        r"hard-negatives --download datasets/coco",
        "hard-negatives --captions annotations/captions_train2014.json --image-prefix train2014/",
        "captions that are here already",
    ),
    Rule(r"(convert-hard-negatives .*)", r"\1 --overwrite", "an earlier block has written this file"),
    Rule(r"--images-root photos", "--images-root .", "the paths of this table begin with images/"),
    Rule(r"checkpoint_00000500", "checkpoint_00000002", "the runs here have four steps"),
    Rule(r"/data/images", "datasets/coco", "the images of COCO"),
    Rule(r"/shared/embeddings", "output/embeddings", "a folder of this machine"),
    Rule(r"/data/eval", "./datasets/eval", "the miniatures"),
    Rule(r"--checkpoint-path (PATH|X\.pth)", "--checkpoint-path checkpoints/meru_vit_b.pth", "a placeholder"),
    Rule(
        rf"^(?!.*--resume)(.*{_TRAIN}.*--output-dir (\S+).*)$",
        r"rm -rf \2 && \1",
        "the world has runs of these names, and a run never writes over another",
    ),
    Rule(
        r"^(hypvl doctor --config .*)$",
        r"\1 || [ $? = 1 ]",
        "exit code 1: the miniatures are smaller than the sets",
    ),
    Rule(
        r"^(hypvl elevater-submission .*?)(\s+#.*)?$",
        r"\1 || [ $? = 1 ]",
        "exit code 1: one set of twenty has predictions",
    ),
    Rule(r"^(.*hypvl diff .*)$", r"\1 || [ $? = 1 ]", "exit code 1: the two differ"),
    Rule(r"--nnodes 4 --nproc-per-node 8", "--nnodes 1 --nproc-per-node 1", "one processor of one machine"),
    Rule(r"--rdzv-endpoint node0:29400", "--rdzv-endpoint localhost:0", "one machine"),
    Rule(r"--nproc-per-node 8", "--nproc-per-node 1", "one processor of one machine"),
    Rule(
        r"--output-dir /shared/output/meru_vit_b --resume",
        f"--output-dir output/machines --resume --num-gpus 0{STEPS}",
        "no GPU in the tests, two steps of eight samples",
    ),
    Rule(
        r'--engine slurm-array"',
        '--engine slurm-array --num-workers 0"',
        "processes would import torch again",
    ),
    Rule(r"--array=0-99", "--array=0-1", "two tasks, which tests/docs/harnesses.py runs"),
    Rule(r"(.* --engine ray.*)$", r"\1 --device cpu", "a cluster without GPUs, which the command starts"),
    Rule(r"^make (test|lint|format)", r"make -C checkout \1", "a checkout of a few files"),
    # harnesses
    Rule(
        r'--dataset_root "https://huggingface.co/\S+"',
        "--dataset_root datasets/harness/classes --num_workers 0",
        "a miniature in the same layout",
    ),
    Rule(
        r"(integrations.clip_benchmark .*) --model meru_vit_b",
        r"\1",
        "the tiny checkpoints hold their config",
    ),
    Rule(r"-m hypvl\.integrations\.mteb ", "-m tests.docs.harnesses ", "that command, on tasks in memory"),
    Rule(
        r"\A(?=import mteb\n)",
        "from pathlib import Path\nfrom tests.docs.harnesses import use_miniature_tasks\n"
        "use_miniature_tasks(Path('datasets/harness'))\n",
        "tasks in memory",
    ),
    # Python: fragments, and names of large models
    Rule(
        r"\A(?=model = .*\nhypvl\.push_to_hub\()",
        "from tests.docs.harnesses import use_fake_hub\nuse_fake_hub()\n",
        "a hub on this machine",
    ),
    Rule(
        r"--to hyper-models --checkpoint-path output/meru_vit_b",
        "--to hyper-models --checkpoint-path checkpoints/meru_224.pth",
        "a tiny model of the sizes that hyper-models has",
    ),
    Rule(
        r'"meru_vit_l",\s+"(?:checkpoints/)?meru_vit_l.pth"',
        '"checkpoints/meru_vit_l.pth"',
        "a tiny model with its config inside",
    ),
    Rule(
        r'"meru_vit_l.pth", "meru_vit_l"',
        '"checkpoints/meru_vit_l.pth"',
        "a tiny model with its config inside",
    ),
    Rule(
        r'"output/meru_vit_b/checkpoint_final.pth"(?=\)\ntorch.save\(\{"model": to_official)',
        '"meru_vit_s"',
        "published formats have the architecture of the paper; random weights",
    ),
    Rule(
        r'(?m)^(?!\s+repo_id).*"(?:owner/name|https://example\.org).*\n', "", "an address that stands for one"
    ),
    Rule(
        r"\A(?:dataset|mapper)\b",
        _PARTS + r"\g<0>",
        "a fragment of a config, whose imports the page leaves out",
    ),
    Rule(
        r"\A((?:from .*\n|\n)*)(?=train\.)",
        "from .train_clip_demo import dataset, model, optim, train\n" r"\1",
        "a fragment of a config",
    ),
    Rule(
        r"\A((?:from .*\n|\n)*)(?=model\.textual_adapter)",
        "from .train_clip_demo import dataset, model, optim, train\n" r"\1",
        "a fragment of a config",
    ),
    Rule(
        r"\A(?=import torch\n\nfrom hypvl.encoders.adapters)",
        "from hypvl.config import LazyConfig\n"
        "model = hypvl.create_model(LazyConfig.load('configs/train_meru_from_clip_lora_demo.py'))\n",
        "a model with adapters",
    ),
    Rule(
        r"\A(?=from hypvl.export import)",
        "import hypvl\nfrom PIL import Image\nmodel = hypvl.create_model('output/meru_vit_b')\n"
        "image = Image.open('assets/cat.png').convert('RGB')\n",
        "a fragment: a model and an image",
    ),
    Rule(
        r"\A(?=from hypvl.evaluation.traversal import traverse)",
        "import torch, hypvl\nmodel = hypvl.create_model('checkpoints/meru_vit_b.pth')\n"
        "image_embedding, text_embeddings, names = 0.1 * torch.ones(128), 0.01 * torch.randn(3, 128), list('abc')\n",
        "a fragment: a model and its embeddings",
    ),
)

NOT_RUN = (
    Rule(r"^make install", "", "downloads every dependency"),
    Rule(r"^make demo", "", "takes four minutes (its steps are commands of other pages)"),
    Rule(
        r"^python -m venv|^pip install",
        "",
        "installs packages from the network (tests/test_package.py installs a wheel)",
    ),
    Rule(r"^img2dataset ", "", "downloads images"),
    Rule(
        r"^sbatch .*scripts/slurm_train\.sh",
        "",
        "tests/cli/test_torchrun.py::test_the_script_for_slurm runs the script, on two agents",
    ),
    Rule(r"class Geometry\(nn\.Module\)", "", "a list of the contracts, not a program"),
)
