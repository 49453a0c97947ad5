"""The public face: a model with its transforms, from a run's folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import hypvl
from hypvl.api import ImageTransform
from hypvl.config import LazyConfig, instantiate
from hypvl.data.transforms import ResizeCenterCrop

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = LazyConfig.load(ROOT / "hypvl" / "models" / "zoo" / "meru_vit_s.json")
    config.model.textual.arch = "L1_W32_A2"
    config.model.visual.arch, config.model.visual.image_size = "vit_tiny_patch16_224", 32
    config.model.visual.timm_args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    state = instantiate(config.model).state_dict()
    content = {"format_version": 1, "model": state, "iteration": 2, "config": LazyConfig.to_yaml(config)}
    torch.save(content, folder / "checkpoint_00000002.pth")
    (folder / "last_checkpoint.txt").write_text("checkpoint_00000002.pth\n")
    return folder


def test_a_run_folder_is_a_model_with_its_weights(run_folder: Path) -> None:
    model = hypvl.create_model(run_folder)
    stored = torch.load(run_folder / "checkpoint_00000002.pth", weights_only=True)["model"]
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_opened_images_and_files_are_the_same_to_a_transform(run_folder: Path, tmp_path: Path) -> None:
    _, _, evaluation = hypvl.create_model_and_transforms(run_folder)
    half = Image.effect_noise((40, 40), 80).convert("LA")
    half.putalpha(Image.linear_gradient("L").resize((40, 40)))
    deep = Image.fromarray((np.arange(1600, dtype=np.uint16) * 40).reshape(40, 40))
    for image in (half, deep):
        image.save(tmp_path / "i.png")
        with Image.open(tmp_path / "i.png") as opened:
            forms = [
                evaluation(form) for form in (opened, tmp_path / "i.png", (tmp_path / "i.png").read_bytes())
            ]
        assert torch.equal(forms[0], forms[1]) and torch.equal(forms[1], forms[2])


def test_transforms_take_images_and_the_training_one_draws_by_itself(run_folder: Path) -> None:
    _, train, evaluation = hypvl.create_model_and_transforms(run_folder)
    pil_image = Image.effect_noise((90, 70), 80).convert("RGB")
    torch.manual_seed(5)
    first, second = train(pil_image), train(pil_image)
    assert first.shape == (3, 32, 32) and first.dtype == torch.uint8 and not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(train(pil_image), first)
    before = torch.get_rng_state()
    given = [train(pil_image, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*given)
    assert torch.equal(evaluation(pil_image), evaluation(pil_image))
    assert torch.equal(torch.get_rng_state(), before)


def test_transforms_take_arrays_and_tensors(run_folder: Path) -> None:
    _, train, evaluation = hypvl.create_model_and_transforms(run_folder)
    pil_image = Image.effect_noise((40, 50), 80).convert("RGB")
    rgb = np.asarray(pil_image)
    expected = evaluation(pil_image)
    tensor = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    for form in (rgb, tensor, tensor / 255, (tensor / 255).double(), tensor.div(255).add(1e-4)):
        assert torch.equal(evaluation(form), expected)
        assert train(form, torch.Generator().manual_seed(1)).dtype == torch.uint8
    grey = rgb[..., 0]
    for form in (grey, grey[..., None]):
        assert torch.equal(evaluation(form), evaluation(Image.fromarray(grey)))
    over_white = np.concatenate([rgb, np.zeros_like(rgb[..., :1])], axis=-1)
    assert bool((evaluation(over_white) == 255).all())


def test_transforms_stand_in_pipelines_of_torchvision(run_folder: Path) -> None:
    """Before and after its own transforms, version 1 and 2: what comes out goes into encode_image as it is."""
    model, _, evaluation = hypvl.create_model_and_transforms(run_folder)
    pil_image = Image.effect_noise((40, 50), 80).convert("RGB")
    plain = evaluation(pil_image)
    floats = v2.ToDtype(torch.float32, scale=True)
    pipelines = {
        "PIL": T.Compose([evaluation]),
        "ToTensor": T.Compose([T.ToTensor(), evaluation]),
        "v2": v2.Compose([v2.ToImage(), evaluation]),
        "floats": v2.Compose([evaluation, floats]),
    }
    with torch.no_grad():
        expected = model.encode_image(plain[None])
        for name, pipeline in pipelines.items():
            got = pipeline(pil_image)
            assert type(got) is torch.Tensor, name
            assert torch.allclose(model.encode_image(got[None]), expected, atol=1e-6), name


def test_a_loader_with_workers_feeds_encode_image(run_folder: Path, tmp_path: Path) -> None:
    """Each worker draws other crops, and a seed gives the same ones again."""
    model, train, evaluation = hypvl.create_model_and_transforms(run_folder)
    (tmp_path / "cat").mkdir()
    same_image = Image.effect_noise((60, 50), 80)
    for i in range(4):
        same_image.save(tmp_path / "cat" / f"{i}.png")

    def batches(transform: ImageTransform) -> torch.Tensor:
        seeded = torch.Generator().manual_seed(1)
        loader = DataLoader(ImageFolder(tmp_path, transform), batch_size=2, num_workers=2, generator=seeded)
        return torch.cat([images for images, _ in loader])

    train(Image.new("RGB", (9, 9)))  # used in this process before
    crops = batches(train)
    assert len({row.numpy().tobytes() for row in crops}) == 4
    assert torch.equal(crops, batches(train))
    with torch.no_grad():
        assert model.encode_image(batches(evaluation)).shape == (4, model.embed_dim)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 8, 8), 2.0), r"floats from 2 to 2; expected floats in \[0, 1\], not normalised"),
        (torch.full((3, 8, 8), float("nan")), "floats from nan to nan"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"torch.uint8 \(1, 3, 8, 8\); expected \(3, H, W\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), r"torch.int64 \(3, 8, 8\)"),
        (np.zeros((3, 8, 8), np.uint8), r"array uint8 \(3, 8, 8\); expected uint8 \(H, W\)"),
        (np.zeros((8, 8, 3), np.float32), r"array float32 \(8, 8, 3\)"),
    ],
)
def test_what_is_no_image_is_named(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTransform(ResizeCenterCrop(4))(image)  # type: ignore[arg-type]  # of mixed types


def test_another_type_is_named() -> None:
    with pytest.raises(
        TypeError, match="image: got a list; expected a PIL image, an array, a tensor, bytes or"
    ):
        ImageTransform(ResizeCenterCrop(4))([1, 2])  # type: ignore[arg-type]
