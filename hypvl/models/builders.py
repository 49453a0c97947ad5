"""Which models each builder can make, by name."""

from importlib import resources
from pathlib import Path
from typing import Literal, TypeAlias

from hypvl.checks import one_of

Builder: TypeAlias = Literal[
    "hypvl", "timm", "torchvision", "open_clip", "huggingface", "sentence_transformers", "torch_hub"
]


def names_of(builder: Builder) -> list[str]:
    """Names that a builder takes, sorted.

    ``"hypvl"``: definitions of whole models. ``"timm"`` and ``"torchvision"``: image architectures. ``"open_clip"``:
    architectures of both towers. ``"huggingface"`` and ``"sentence_transformers"``: models in the cache of the Hugging
    Face hub, which load without network (others load by their hub id or folder, too). ``"torch_hub"``: folders in the
    cache of torch.hub.
    """
    one_of("builder", builder, Builder)
    if builder == "timm":
        from hypvl.encoders.image import list_image_archs

        return list_image_archs()
    if builder == "torchvision":
        from hypvl.encoders.image_torchvision import list_torchvision_archs

        return sorted(list_torchvision_archs())
    if builder == "torch_hub":
        from hypvl.encoders.image_hub import list_hub_repositories

        return list_hub_repositories()
    if builder == "open_clip":
        import open_clip

        return sorted(open_clip.list_models())
    if builder == "huggingface":
        return _in_cache("config.json")
    if builder == "sentence_transformers":
        return _in_cache("modules.json")
    zoo = resources.files("hypvl") / "models" / "zoo"
    return sorted(entry.name.removesuffix(".json") for entry in zoo.iterdir() if entry.name.endswith(".json"))


def _in_cache(file: str) -> list[str]:
    """Ids of models in the cache of the hub that have a file of this name."""
    from huggingface_hub import constants, scan_cache_dir

    if not Path(constants.HF_HUB_CACHE).is_dir():
        return []
    repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    return sorted(
        repository.repo_id
        for repository in repositories
        if repository.repo_type == "model"
        and any(found.file_name == file for revision in repository.revisions for found in revision.files)
    )
