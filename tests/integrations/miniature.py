"""A tiny untrained model, images with captions and classes: what the harnesses and hypvl both measure."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from hypvl.cli.loading import load_trained
from hypvl.config import LazyConfig, instantiate
from hypvl.data.transforms import Squeeze
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.protocol import RetrievalSet
from hypvl.datasets.retrieval.table import table
from hypvl.embedding.protocol import own_tokenizer
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.models.dual_encoder import DualEncoder
from tests.data.helpers import write_tar

ZOO = Path(__file__).resolve().parents[2] / "hypvl" / "models" / "zoo"
WORDS = ["a red thing", "green leaves", "the blue sky", "a yellow flower in the sun"]
TEMPLATES = ["a photo of {c}.", "{c}", "a drawing that shows {c} from above"]
PER_CLASS = 6
_STEPS = {"clip_vit_s": 25}


def write_checkpoint(path: Path, name: str = "meru_vit_s", *, fit: "Miniature | None" = None) -> Path:
    """A model of a recipe with one-layer encoders, its config inside; points are about 1 from the root.

    It is untrained, or fitted to the captions of a miniature until its figures are neither chance nor 100 %.
    """
    config = LazyConfig.load(ZOO / f"{name}.json")
    config.model.textual.arch = "L1_W32_A2"
    config.model.visual.arch, config.model.visual.image_size = "vit_tiny_patch16_224", 32
    config.model.visual.timm_args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    for head in ("visual_head", "textual_head"):
        config.model[head].out_features = 64
    if "factor_dim" in config.model.geometry:
        config.model.geometry.factor_dim = 1
    torch.manual_seed(0)
    model = instantiate(config.model)
    with torch.no_grad():
        for part, scale in (("visual_head", 0.5), ("textual_head", 0.3)):
            if hasattr(getattr(model, part), "log_scale"):
                getattr(model, part).log_scale.fill_(math.log(scale))
    if fit is not None:
        _fit(model, fit.retrieval_set(), steps=_STEPS.get(name, 60))
    text = LazyConfig.to_yaml(config)
    torch.save({"format_version": 1, "model": model.state_dict(), "iteration": 7, "config": text}, path)
    return path


def _fit(model: DualEncoder, data: RetrievalSet, *, steps: int) -> None:
    images = torch.stack([Squeeze.of(model)(data.images[i]) for i in range(len(data.images))])
    tokens = own_tokenizer(model)(list(data.captions))
    right = torch.tensor(list(data.caption_image))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        model.constrain_()
        logits = model.scorer.logits(
            model.geometry,
            model.encode_text(tokens),
            model.encode_image(images),
            query_modality="text",
            key_modality="image",
        )
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, right).backward()
        optimizer.step()
    model.train(False)


def load(path: Path) -> DualEncoder:
    return load_trained(path, None, device=torch.device("cpu"))[0]


@dataclass(frozen=True)
class Miniature:
    """Where they lie: ``images/<class>/<n>.png``, 40 x 40; ``set.jsonl``; the same as WebDatasets."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> "Miniature":
        generator = torch.Generator().manual_seed(1)
        lines, classified, captioned = [], [], []
        for label, word in enumerate(WORDS):
            for number in range(PER_CLASS):
                noise = torch.randint(0, 256, (3, 5, 5), generator=generator, dtype=torch.uint8)
                image = Image.fromarray(noise.permute(1, 2, 0).numpy()).resize((40, 40))
                path = folder / "images" / f"{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
                data = path.read_bytes()
                key = f"{label}{number}"
                captions = [f"{word} {number} times", f"number {number} and {word}"]
                lines += [
                    json.dumps({"image": str(path.relative_to(folder)), "caption": text}) for text in captions
                ]
                classified += [(f"{key}.png", data), (f"{key}.cls", str(label).encode())]
                captioned += [(f"{key}.png", data), (f"{key}.txt", "\n".join(captions).encode())]
        (folder / "set.jsonl").write_text("\n".join(lines))
        for name, members in (("classes", classified), ("captions", captioned)):
            (folder / name / "test").mkdir(parents=True)
            write_tar(folder / name / "test" / "0.tar", members)
            (folder / name / "test" / "nshards.txt").write_text("1")
        (folder / "captions" / "dataset_type.txt").write_text("retrieval")
        (folder / "classes" / "classnames.txt").write_text("\n".join(WORDS))
        (folder / "classes" / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
        return cls(folder)

    def retrieval_set(self) -> RetrievalSet:
        """Images with their captions."""
        return table(self.folder / "set.jsonl")

    def retrieval(self, model: DualEncoder) -> dict[str, float]:
        """hypvl's own figures, in percent."""
        return ZeroShotRetrieval(self.retrieval_set(), ks=[1, 5], resize="crop")(model).metrics

    def zero_shot(self, model: DualEncoder, templates: list[str]) -> dict[str, float]:
        """Likewise."""
        prompts = {word: [text.format(c=word) for text in templates] for word in WORDS}
        dataset = ImageFolderSet(self.folder / "images")
        return ZeroShotClassification(dataset, prompts, class_names=WORDS)(model).metrics
