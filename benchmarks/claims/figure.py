"""Draw the image of README.md from a run of the claims: python -m benchmarks.claims.figure [--run DIR] [--output FILE]

Texts of the demo by their level, and test images, on the Poincare disk; beside it the traversals of test scenes. The
scenes are spread evenly over the test set, not chosen. Needs a run of `python -m benchmarks.claims --only hycoclip`.
"""

import argparse
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.claims.runs import FINAL, ROOT
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.demo import leveled_scenes
from hypvl.diagnostics.plane import project
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.traversal import radius, traverse
from hypvl.io.images import to_pil
from hypvl.models.hub import create_model
from hypvl.report.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = {1: "a shape", 2: "a circle, a red shape", 3: "a red circle", 4: "a small red circle"}
COLORS = {1: "#7f2704", 2: "#d95f02", 3: "#f0a030", 4: "#f6d58a", 0: "#2b6ca3"}  # 0: images
SCENES = 4
WIDTH, HEIGHT = 10.4, 4.9  # inches


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run = ROOT / "output" / "claims" / "steps_600" / "hycoclip_0"
    parser.add_argument("--run", type=Path, default=run, metavar="DIR", help=f"default: {run}")
    output = ROOT / "assets" / "readme" / "geometry.png"
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help=f"default: {output}")
    args = parser.parse_args(argv)
    figure = draw(create_model(args.run / FINAL), ROOT / "datasets" / "demo", Encoding())
    print(save_figure(figure, args.output))


@torch.inference_mode()
def draw(model: EvaluableModel, data: Path, encoding: Encoding) -> "Figure":
    """The figure of one model, over the demo data in a folder."""
    encoder = CachedEncoder(model, encoding=encoding, tokenizer=get_tokenizer())
    scenes = leveled_scenes(data / "eval" / "hierarchy.json", data / "text_pool_levels.json", limit=100)
    names = list(scenes.levels)
    texts = encoder.encode_texts(names, label="texts")
    images = encoder.encode_images(
        scenes.images, transform=ResizeCenterCrop.of(model), label="scenes"
    ).embeddings

    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_axes((0.01, 0.1, 0.46, 0.84))
    _disk(axes, model.geometry, texts, images, names, list(scenes.levels.values()))
    figure.legend(*axes.get_legend_handles_labels(), loc="lower left", ncol=5, fontsize=9, frameon=False,
                  columnspacing=1.1, handletextpad=0.1, bbox_to_anchor=(0.0, 0.0))  # fmt: skip
    figure.text(0.24, 0.955, "distance to the root (+): texts by level, images", ha="center", fontsize=11)
    figure.text(0.545, 0.955, "closest texts on the way from an image to the root", fontsize=11)
    for place in range(SCENES):
        number = place * len(images) // SCENES
        path = traverse(model, images[number], texts, names).path
        row = figure.add_axes((0.545, 0.735 - 0.215 * place, 0.45, 0.19))
        _traversal(row, to_pil(scenes.images[number]), path, scenes.levels, true=scenes.true_texts[number])
    return figure


def _disk(axes: Any, geometry: Any, texts: Any, images: Any, names: list[str], levels: list[int]) -> None:
    both = torch.cat((texts, images))
    directions = torch.nn.functional.normalize(project(geometry, both).points, dim=-1)
    lengths = radius(geometry, both).double()
    root_curv = math.sqrt(float(geometry.curvature))
    points = directions * torch.tanh(root_curv * lengths / 2)[:, None]  # the model's distance, in the disk
    edge = 1.03 * float(points.norm(dim=-1).max())
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-edge, edge)
    axes.set_ylim(-edge, edge)
    for distance in (0.25, 0.5, 0.75):
        circle = math.tanh(root_curv * distance / 2)
        angles = torch.linspace(0, 2 * math.pi, 200)
        axes.plot(circle * angles.cos(), circle * angles.sin(), color="#dddddd", linewidth=0.8, zorder=0)
        axes.text(
            0, circle, f"{distance:g}", fontsize=8, color="#666666", ha="center", va="bottom", zorder=10
        )
    kinds = [*levels, *[0] * len(images)]
    for kind in (0, 4, 3, 2, 1):
        chosen = points[[i for i, other in enumerate(kinds) if other == kind]]
        label = "images" if kind == 0 else f"“{LEVELS[kind]}”"
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=(13, 60, 38, 24, 13)[kind], color=COLORS[kind], label=label,
            marker="o" if kind == 0 else "^", linewidths=0.3, edgecolors="white", zorder=6 - kind if kind else 1,
        )  # fmt: skip
    axes.plot(0, 0, marker="+", color="#111111", markersize=9, zorder=9)


def _traversal(
    axes: Any, image: Any, path: list[str], levels: dict[str, int], *, true: Collection[str]
) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 2)
    axes.imshow(image, extent=(0, 2, 0, 2), aspect="auto")
    for step, text in enumerate(path):
        height = 1.8 - 0.53 * step
        known = text in levels
        color = COLORS[levels[text]] if known else "#111111"
        axes.plot(2.5, height, marker="^" if known else "+", markersize=8, color=color, clip_on=False)
        wrong = known and text not in true
        axes.text(
            2.85, height, f"{text}  (not in the image)" if wrong else text, va="center", fontsize=10.5,
            color="#999999" if wrong else "#111111",
        )  # fmt: skip
    axes.set_aspect("auto")


if __name__ == "__main__":
    main()
