"""The card of a model on the Hugging Face hub: what it is, how to load it, and what was measured of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.report.summary import by_checkpoint, main_metric, read_folder
from hypvl.report.tables import HEADER, markdown_table, result_rows

#: Tags of every card.
TAGS = ("hypvl", "vision-language", "image-text")
_PIPELINE = "zero-shot-image-classification"


def model_card(
    repo_id: str,
    *,
    results: str | Path | None = None,
    licence: str | None = None,
    description: str = "",
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> str:
    """The text of a ``README.md``: metadata as the hub reads it (YAML), how to load the model, a table of metrics.

    Args:
        repo_id: ``owner/name``, for the snippet that loads the model.
        results: ``results.json`` of ``hypvl evaluate``, or a folder with such files, of one checkpoint: the main metric
            of each evaluation, its interval and its chance level. None = no metrics.
        licence: Of the weights, as the hub names it (``"apache-2.0"``, ``"cc-by-nc-4.0"``); None = not stated.
        description: Sentences that come first: what the model was trained on, and for what.
        base_model: Hub id of the model that training started from.
        datasets: Hub ids of the training data.
        tags: Besides :data:`TAGS`, such as ``"hyperbolic"``.

    Raises:
        DataError: No results file, or results of several checkpoints.

    Example:
        >>> text = model_card("me/meru", licence="apache-2.0", description="Trained on my pairs.")
        >>> text.splitlines()[:3]
        ['---', 'library_name: hypvl', 'license: apache-2.0']
    """
    from huggingface_hub import ModelCardData

    entries = {} if results is None else _results(Path(results))
    name = repo_id.rpartition("/")[2]
    mains = {key: main_metric(key, entry, None) for key, entry in entries.items()}
    data = ModelCardData(
        library_name="hypvl",
        license=licence,
        base_model=base_model,
        datasets=list(datasets) or None,
        tags=list(dict.fromkeys((*TAGS, *tags))),
        pipeline_tag=_PIPELINE,
        metrics=sorted(set(mains.values())) or None,
        model_name=name if entries else None,
        eval_results=_eval_results(entries, mains) or None,
    )
    parts = [f"---\n{data.to_yaml()}\n---\n", f"# {name}\n"]
    parts += [description.strip() + "\n"] if description.strip() else []
    parts.append(_LOADING.format(repo_id=repo_id))
    if entries:
        rows = [
            row.cells()
            for key, entry in entries.items()
            for row in result_rows({key: entry})
            if row.metric == mains[key]
        ]
        parts.append(f"## Metrics\n\n{markdown_table(rows, header=HEADER).rstrip()}\n")
    return "\n".join(parts)


_LOADING = """## How to load it

```python
import hypvl

model, _, transform = hypvl.create_model_and_transforms("hf-hub:{repo_id}")
images = model.encode_image(transform("cat.jpg")[None])
texts = model.encode_text(model.tokenizer(["a cat", "a dog"]))
print(model.scores(images, texts, query_modality="image", key_modality="text"))
```

The scores are the similarities that the model was trained with, higher = closer. Nothing in the files is executed.
"""


def _results(place: Path) -> dict[str, dict[str, Any]]:
    """Evaluation -> entry, of those that are ok."""
    by_label = by_checkpoint([content for _, content in read_folder(place)])
    if len(by_label) > 1:
        raise DataError(
            f"{place}: has results of {len(by_label)} checkpoints ({', '.join(sorted(by_label)[:3])}); name the "
            "results.json of one."
        )
    return {
        name: entry
        for entries in by_label.values()
        for name, entry in entries.items()
        if entry.get("status") == "ok"
    }


def _eval_results(entries: Mapping[str, Mapping[str, Any]], mains: Mapping[str, str]) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=_task(entry),
            dataset_type=name,
            dataset_name=name,
            metric_type=mains[name],
            metric_value=entry["metrics"][mains[name]],
        )
        for name, entry in entries.items()
    ]


def _task(entry: Mapping[str, Any]) -> str:
    """``hypvl.evaluation.zero_shot.ZeroShotClassification`` -> ``zero-shot-classification``."""
    settings = entry.get("settings")
    target = settings.get("_target_") if isinstance(settings, Mapping) else None
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|\d+", str(target).rpartition(".")[2])
    return "-".join(words).lower() or "evaluation"
