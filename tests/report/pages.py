"""A run's folder with every file that its page is made from, captions hostile."""

import json
from pathlib import Path
from typing import Any

from tests.cli.test_image_traversals import checkpoint
from tests.evaluation.fakes import BLUE, GREEN, RED, image

HOSTILE = '</script><script>window.broken = 1</script><img src=x onerror="window.broken = 1">\u2028{{data}}'
CAPTIONS = {
    "red": (RED, "a red square"),
    "green": (GREEN, HOSTILE),
    "blue": (BLUE, "a blue square & a <b>bold</b> one"),
    "dark": ((60, 60, 60), "a dark square"),
    "white": ((250, 250, 250), "a white square"),
}


def result(value: float, **more: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "metrics": {"recall@1": value, "recall@1_chance": 0.2, "median_rank": 4.0},
        "intervals": {"recall@1": [value - 3, value + 3]},
        "meta": {"main_metric": "recall@1"},
        **more,
    }


def run_folder(folder: Path, kind: str = "meru", *, lines: int = 5, recall: float = 40.0) -> Path:
    """Weights, curves, results and config of a tiny model, and ``pairs.jsonl`` with its images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (color, _) in CAPTIONS.items():
        image(folder / "images" / f"{name}.png", color)
    (folder / "images" / "pairs.jsonl").write_text(
        "\n".join(
            json.dumps({"image": f"{name}.png", "captions": [text]}) for name, (_, text) in CAPTIONS.items()
        )
    )
    checkpoint(folder, kind).rename(folder / "checkpoint_final.pth")
    (folder / "last_checkpoint.txt").write_text("checkpoint_final.pth")
    rows = [
        {"iteration": 10 * i, "loss": 5.0 / i, "curv": 1.0, "lr": 0.1, "epoch": 1}
        for i in range(1, lines + 1)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "_target_": "hypvl.evaluation.modality_gap.ModalityGap",
        "dataset": {
            "_target_": "hypvl.datasets.retrieval.table.table",
            "path": str(folder / "images" / "pairs.jsonl"),
        },
    }
    results = {
        "squares": result(recall, settings=settings),
        "broken": {"status": "failed", "reason": "no <data>", "metrics": {}},
    }
    (folder / "results.json").write_text(json.dumps({"provenance": {}, "results": results}))
    (folder / "config.yaml").write_text(
        "train:\n  seed: 3\nwandb:\n  api_key: abcdef123456\n  url: https://me:pw@host/x?token=abc\n"
        "dataset:\n  tokenizer: clip\n"
    )
    (folder / "provenance.json").write_text(
        json.dumps(
            {"hypvl": "0.1.0", "git_commit": "0123456789abcdef", "seed": 3, "command": ["train", "token=abc"]}
        )
    )
    return folder
