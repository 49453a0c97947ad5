"""mteb (MTEB, MIEB) with models of hypvl, ranked by their own score.

    python -m hypvl.integrations.mteb --checkpoint-path checkpoints/meru_vit_b.pth --train-config meru_vit_b \\
        --benchmark "MIEB(lite)" --output-dir output/mieb

In Python::

    from hypvl.integrations.mteb import load_encoder, with_sides

    mteb.evaluate(load_encoder("output/meru_vit_b"), with_sides(mteb.get_tasks(["Flickr30kT2IRetrieval"])))
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hypvl.cli.common import CommandParser, run_main, show, user_path
from hypvl.errors import ConfigError, UserError

if TYPE_CHECKING:
    from hypvl.integrations.mteb_encoder import MtebEncoder
    from hypvl.integrations.wrapping import Resize

EXAMPLES = """
examples:
  python -m hypvl.integrations.mteb --checkpoint-path checkpoints/meru_vit_b.pth --train-config meru_vit_b \\
      --benchmark "MIEB(lite)" --output-dir output/mieb
  ... --tasks Flickr30kT2IRetrieval,CIFAR10ZeroShot
"""
_Task = TypeVar("_Task")


def main(argv: Sequence[str]) -> int:
    """Evaluate task by task; 1 if one of them failed, after the rest has run."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_model_arguments()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tasks", metavar="NAME,...", help="names of mteb's tasks")
    what.add_argument("--benchmark", metavar="NAME", help="one of mteb's benchmarks, such as 'MIEB(lite)'")
    parser.add_argument(
        "--output-dir",
        type=user_path,
        required=True,
        metavar="DIR",
        help="folder of the results, a file a task",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images, or texts, per forward pass")
    parser.add_argument(
        "--bound", type=float, metavar="M", help="length of the vectors (default: 1 on a sphere, else 64)"
    )
    parser.add_argument(
        "--resize", choices=("crop", "squeeze"), default="crop",
        help="crop the centre of resized images, or squeeze them to a square",
    )  # fmt: skip
    args = parser.parse_args(argv)
    _require_mteb()
    import mteb

    try:
        if args.benchmark is not None:
            tasks = list(mteb.get_benchmark(args.benchmark).tasks)
        else:
            tasks = list(mteb.get_tasks(tasks=[name.strip() for name in args.tasks.split(",")]))
    except KeyError as error:
        flag = "--tasks" if args.benchmark is None else "--benchmark"
        reason = str(error.args[0] if error.args else error).removeprefix("KeyError: ").rstrip(".")
        raise ConfigError(f"{flag}: {reason}; expected names as mteb has them.") from error
    encoder = load_encoder(
        args.model or args.checkpoint_path,
        args.train_config,
        device=args.device,
        bound=args.bound,
        resize=args.resize,
    )
    failed = []
    for task in with_sides(tasks):
        result = mteb.evaluate(
            cast(Any, encoder),  # one of mteb's protocols asks for a constructor by name and revision
            task,
            encode_kwargs={"batch_size": args.batch_size},
            cache=mteb.ResultCache(args.output_dir),
            raise_error=False,
        )
        for done in result.task_results:
            show(f"{done.task_name}: {done.get_score():.4f}")
        for problem in result.exceptions or ():
            failed.append(problem.task_name)
            show(f"{problem.task_name}: failed: {problem.exception}")
    show(args.output_dir)
    return 1 if failed else 0


def load_encoder(
    place: str | Path,
    train_config: str | None = None,
    *,
    device: str | None = None,
    bound: float | None = None,
    resize: "Resize" = "crop",
) -> "MtebEncoder":
    """A model as an encoder of mteb.

    Results of two checkpoints are never mixed up in mteb's cache: the revision is the checkpoint's SHA-256.

    Args:
        place: Weights, the folder of a run, or a model of another library (``"hf:..."``).
        train_config: Config it was trained with, or a name of ``hypvl.list_models()``; None = the checkpoint's own.
        device: None = a GPU if there is one.
        bound: See :class:`hypvl.integrations.wrapping.CosineModel`.
        resize: Likewise.

    Raises:
        UserError: When mteb is not installed, or the model's scores are not inner products.
        CheckpointError, ConfigError: As ``hypvl evaluate``.
    """
    _require_mteb()
    from hypvl.integrations.loading import load_model
    from hypvl.integrations.mteb_encoder import make_encoder
    from hypvl.integrations.wrapping import CosineModel

    loaded = load_model(place, train_config, device=device)
    wrapped = CosineModel(loaded.model, bound=bound, resize=resize)
    return make_encoder(wrapped, name=f"hypvl/{loaded.name}", revision=loaded.revision)


def with_sides(tasks: Iterable[_Task]) -> list[_Task]:
    """The tasks; those that compare pairs of inputs of one kind (STS) now tell which input is which.

    mteb has attributes for that, which are None where the two inputs are alike. The cosine form of a hyperbolic model
    has another vector for each.
    """
    from mteb.types import PromptType

    listed = list(tasks)
    for task in listed:
        with_sides(getattr(task, "tasks", ()))  # of one that is a mean over others
        sides: Any = task
        if getattr(task, "input1_prompt_type", True) is None and sides.input2_prompt_type is None:
            sides.input1_prompt_type, sides.input2_prompt_type = PromptType.query, PromptType.document
    return listed


def _require_mteb() -> None:
    try:
        import mteb  # noqa: F401
    except ImportError as error:
        raise UserError("mteb is not installed: pip install 'hypvl[mteb]'.") from error


if __name__ == "__main__":
    raise SystemExit(run_main(main))
