"""The package: dependency ranges, package data, extras. Pins are in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """``__version__`` of hypvl/__init__.py, read as text: building must not import the package."""
    found = re.search(
        r'^__version__ = "([^"]+)"$', (HERE / "hypvl" / "__init__.py").read_text(encoding="utf-8"), re.M
    )
    if found is None:
        raise RuntimeError('hypvl/__init__.py: no line `__version__ = "..."`; add it back.')
    return found.group(1)


# configs/ is in the wheel as hypvl/recipes/: the same files.
RECIPES = ["hypvl.recipes", *(f"hypvl.recipes.{name}" for name in find_namespace_packages("configs"))]
# docs/ is in the wheel as hypvl/docs/, which `hypvl docs` prints, and so is datasets/README.md.
DOCS = [
    "hypvl.docs",
    *(f"hypvl.docs.{name}" for name in find_namespace_packages("docs")),
    "hypvl.docs.datasets",
]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "mpmath>=1.3",
    "ruff>=0.9",
    "mypy>=1.11",
    "onnx>=1.16",  # writes the small networks that the tests of ONNX models read
    "playwright>=1.45",  # drives Debian's Chromium through the HTML report
    "hyper-models>=0.4",  # reads exported image towers
    "accelerate>=1.0",  # runs the training loops of the docs
]
WANDB = ["wandb>=0.17"]
# Backends of scripts/make_hard_negatives.py: tagger and endings; spaCy and a masked language model.
NEGATIVES = ["textblob>=0.18", "lemminflect>=0.2.3"]
NEGATIVES_LM = ["spacy>=3.7,<4", "transformers>=5.18"]
# Text encoders (docs/models.md), and models of images and texts (docs/foreign_models.md); SigLIP's tokenizer
HUGGINGFACE = ["transformers>=5.18", "sentencepiece>=0.2.1"]
SENTENCE_TRANSFORMERS = ["sentence-transformers>=6.0"]  # before, it ran code of local folders
# Synonyms for EDA(backend="wordnet"), which also wants NLTK's WordNet corpus.
SYNONYMS = ["nltk>=3.9.1"]
# scripts/extract_embeddings.py --format parquet, scripts/export_index.py --faiss
PARQUET = ["pyarrow>=14.0.1"]  # before, Parquet files could run code (CVE-2023-47248)
FAISS = ["faiss-cpu>=1.8"]
# PatchCamelyon's own files, for torchvision
PCAM = ["h5py>=3.10"]
# Models in ONNX files; harnesses of the field that hypvl's models run in (docs/integrations.md)
ONNX = ["onnxruntime>=1.17"]
MTEB = ["mteb>=2.1,<3"]
CLIP_BENCHMARK = ["clip-benchmark>=1.6"]
# hypvl export --to onnx, --to lancedb; --engine ray; sources behind URLs (s3:// and gcs:// also want s3fs, gcsfs);
# hypvl completion
EXPORT_ONNX = ["onnxscript>=0.5", *ONNX]
LANCEDB = ["lancedb>=0.20"]
RAY = ["ray>=2.52"]  # before, web pages could reach a local cluster (CVE-2025-62593)
REMOTE = ["fsspec>=2024.6", "aiohttp>=3.13.3"]
COMPLETION = ["shtab>=1.7"]

setup(
    name="hypvl",
    version=version(),
    description="Hyperbolic and Euclidean vision-language models: train, evaluate, traverse",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "THIRD_PARTY.md"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["hypvl", "hypvl.*"]), *RECIPES, *DOCS],
    package_dir={"hypvl.recipes": "configs", "hypvl.docs": "docs", "hypvl.docs.datasets": "datasets"},
    package_data={
        "hypvl": ["py.typed", "**/*.json", "**/*.txt", "**/*.gz", "report/html/templates/*"],
        **{name: ["*.md"] for name in DOCS},
    },
    entry_points={"console_scripts": ["hypvl = hypvl.__main__:main"]},
    install_requires=[
        "torch>=2.10,<3",  # before, weights_only=True could be broken out of (CVE-2026-24747)
        "torchvision>=0.25",
        "timm>=1.0.26,<2",
        "open_clip_torch>=3.3",
        "huggingface_hub>=0.26",
        "safetensors>=0.7",
        "numpy>=1.26",
        "pillow>=10.3",
        "omegaconf>=2.3,<2.4",
        "hydra-core>=1.3.2,<1.4",
        "PyYAML>=6",
        "packaging>=23",
        "webdataset>=0.2.100,<2",
        "braceexpand>=0.1.7",
        "ftfy>=6.1",
        "regex>=2023.12",
        "wordsegment>=1.3.1",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "fvcore>=0.1.5.post20221221",
        "loguru>=0.7",
        "rich>=13.7",
        "tensorboard>=2.15",
        "matplotlib>=3.9",
    ],
    extras_require={
        "wandb": WANDB,
        "negatives": NEGATIVES,
        "negatives-lm": NEGATIVES_LM,
        "huggingface": HUGGINGFACE,
        "sentence-transformers": SENTENCE_TRANSFORMERS,
        "synonyms": SYNONYMS,
        "parquet": PARQUET,
        "faiss": FAISS,
        "pcam": PCAM,
        "onnx": ONNX,
        "mteb": MTEB,
        "clip-benchmark": CLIP_BENCHMARK,
        "export-onnx": EXPORT_ONNX,
        "lancedb": LANCEDB,
        "ray": RAY,
        "remote": REMOTE,
        "completion": COMPLETION,
        "test": [*TEST, *WANDB],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
