"""What every command shares: errors in one line, the parser, reading the config."""

import argparse
import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from loguru import logger

from hypvl.cli.common import (
    UNREAD,
    CommandParser,
    add_table_arguments,
    config_parser,
    find_config,
    load_config,
    run_main,
    show,
    show_json,
    user_path,
    user_text,
)
from hypvl.datasets.retrieval.table import table as retrieval_table
from hypvl.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = ("dataset", "model", "optim", "train")


def raising(error: BaseException) -> Callable[[Sequence[str]], int]:
    def main(argv: Sequence[str]) -> int:
        raise error

    return main


@pytest.fixture(autouse=True)
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPVL_DEBUG", raising=False)


@pytest.mark.parametrize(("error", "code"), [(ConfigError("bad key."), 2), (DataError("bad key."), 1)])
def test_user_errors_are_one_line(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(raising(error), []) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: bad key.\n")
    monkeypatch.setenv("HYPVL_DEBUG", "0")
    run_main(raising(error), [])
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPVL_DEBUG", "1")
    assert run_main(raising(ConfigError("bad key.")), []) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and "in raising" not in err.splitlines()[0]
    assert err.endswith("error: bad key.\n")


def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x.json")
    assert run_main(raising(full), []) == 1
    err = capsys.readouterr().err
    assert err.startswith(
        "error: /data/x.json: no space is left to write (No space left on device); free some"
    )
    assert err.count("\n") == 1
    assert run_main(raising(PermissionError(errno.EACCES, "Permission denied", "/x")), []) == 1
    assert capsys.readouterr().err == "error: /x: Permission denied. (HYPVL_DEBUG=1 shows where.)\n"
    monkeypatch.setenv("HYPVL_DEBUG", "1")
    run_main(raising(full), [])
    assert "Traceback" in capsys.readouterr().err


def test_errors_show_no_secrets_and_no_escape_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "https://me:pw@host/x?token=abc \x1b[2Jgone\r\nerror: \udcff\u202e"
    shown = r"error: https://***@host/x?token=*** \x1b[2Jgone\r\nerror: \udcff\u202e" + "\n"
    run_main(raising(DataError(bad)), [])
    assert capsys.readouterr().err == shown
    monkeypatch.setenv("HYPVL_DEBUG", "1")
    run_main(raising(DataError(bad)), [])
    err = capsys.readouterr().err
    assert "Traceback" in err and "pw" not in err.replace("pwd", "") and "\x1b" not in err
    show("a\x1b]0;title\x07b")
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07b\n"


def test_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(raising(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(raising(ZeroDivisionError()), [])


def test_arguments_and_exit_code_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(lambda argv: len(argv), ["a", "b"]) == 2
    monkeypatch.setattr(sys, "argv", ["prog", "a", "b", "c"])
    assert run_main(lambda argv: len(argv)) == 3


def parse(*argv: str) -> argparse.Namespace:
    parser = config_parser("Do it.")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--num-gpus", type=int)
    return parser.parse_args(argv)


def test_overrides_may_start_with_signs_and_stand_anywhere() -> None:
    args = parse(
        "~a.b", "--config", "c.py", "+x=1", "--resume", "++y=-2", "a=[1,2]", "--num-gpus", "0", "b='c d'"
    )
    assert args.overrides == ["~a.b", "+x=1", "++y=-2", "a=[1,2]", "b='c d'"]
    assert (args.config, args.resume, args.num_gpus) == ("c.py", True, 0)
    assert parse("--config", "c.py").overrides == []
    assert parse("--config=c.py", "--", "a=1").overrides == ["a=1"]


@pytest.mark.parametrize("argv", [[], ["--conf", "c.py"], ["--config", "c.py", "--nope"], ["--config"]])
def test_wrong_flags_exit_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--train.num_iterations=5", "a key of the config takes no dashes: train.num_iterations=5"),
        ("--train.num_iterations", "a key of the config takes no dashes: train.num_iterations=..."),
        ("-train.seed=1", "a key of the config takes no dashes: train.seed=1"),
        ("--num_gpus=2", "the closest flag is --num-gpus"),
        ("--resum", "the closest flag is --resume"),
    ],
)
def test_unknown_flags_say_what_was_meant(flag: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--config", "c.py", flag)
    assert caught.value.code == 2
    assert hint in capsys.readouterr().err


def test_home_is_expanded_in_flags_and_values(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/x") == Path("/home/me/x") and user_path("a/~/x") == Path("a/~/x")
    assert user_text("~nobody-here/x") == "~nobody-here/x"
    assert parse("--config=~/c.py").config == "/home/me/c.py"
    config.write_text("model = dict(a='~/a', b=['~/b', 'c~/d', '~e'], c='${model.a}/x')\n")
    result = load_config(config, ["++model.d={k: '~/d'}", "+model.e=~/e"]).model
    assert (result.a, result.b, result.c) == ("/home/me/a", ["/home/me/b", "c~/d", "~e"], "/home/me/a/x")
    assert (result.d.k, result.e) == ("/home/me/d", "/home/me/e")


def test_every_path_flag_expands_home() -> None:
    """A flag of type Path would take ``--output-dir=~/x`` for a folder called ~."""
    for file in (ROOT / "hypvl" / "cli").glob("*.py"):
        assert "type=Path" not in file.read_text(), file.name


def test_commands_print_in_one_place() -> None:
    """What is printed past :func:`show` may hold escape codes and secrets, and rich reads markup in it."""
    for file in (ROOT / "hypvl" / "cli").glob("*.py"):
        if file.name != "common.py":
            assert not re.search(r"(?<![\w.])print\(|Console\(\)|rich\.table", file.read_text()), file.name


def test_log_messages_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str]) -> int:
        logger.info("from {}\n\tline\x1b[2J", "https://me:pw@host")
        return 0

    logger.remove()
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    assert run_main(main, []) == 0
    logger.remove(sink)
    assert said == ["from https://***@host\n\tline\\x1b[2J\n"]


def test_output_that_is_not_unicode_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    def main(argv: Sequence[str]) -> int:
        print("\udcff ä")  # a library's own print
        show_json({"a": "\udcff\x9b"})
        return 0

    assert run_main(main, []) == 0
    sys.stdout.flush()
    assert raw.getvalue() == b'\\udcff \\xe4\n{\n "a": "\\udcff\\u009b"\n}\n'


def test_recipes_are_found_by_name(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = config.parent / "configs"
    folder.mkdir()
    (folder / "train_mine.py").write_text("train = {}\n")
    monkeypatch.chdir(config.parent)
    for name in ("mine", "train_mine"):
        assert find_config(name, prefix="train_") == Path("configs/train_mine.py")
    assert find_config("meru_vit_b", prefix="train_") == ROOT / "configs" / "train_meru_vit_b.py"
    assert find_config("zero_shot_retrieval", prefix="eval_").name == "eval_zero_shot_retrieval.py"
    for path in ("gone.py", "folder/gone", "configs"):
        assert find_config(path, prefix="train_") == Path(path)
    with pytest.raises(ConfigError, match=r"--config: got 'mien'.*the closest is mine;"):
        find_config("mien", prefix="train_")


def test_help_shows_examples_as_written_and_useful_defaults() -> None:
    parser = CommandParser("Do it.", examples="\nexamples:\n  python x.py  --a\n  python y.py\n")
    parser.add_argument("--steps", type=int, default=50, help="number of steps")
    parser.add_argument("--name", help="a name")
    parser.add_argument("--zero", type=int, default=0, help="a number (default: none)")
    text = parser.format_help()
    assert "examples:\n  python x.py  --a\n  python y.py\n" in text
    assert "number of steps (default: 50)" in text
    assert "None" not in text and "default: 0" not in text


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text("dataset = {}\nmodel = dict(arch='l')\noptim = dict(lr=1)\ntrain = dict(batch=2)\n")
    return path


def test_load_config_reads_and_overrides(config: Path) -> None:
    cfg = load_config(config, ["model.arch=b", "+train.seed=1"], required=REQUIRED)
    assert (cfg.model.arch, cfg.train.batch, cfg.train.seed) == ("b", 2, 1)
    assert load_config(str(config)).model.arch == "l"


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("import os\nx = 1\n", [], "is not a config of this command: it defines x; expected dataset, model"),
        ("def main(): ...\n", [], "it defines nothing; expected dataset, model, optim, train"),
        (
            "model = {}\ntrain = {}\n",
            [],
            "lacks dataset, optim; expected all of dataset, model, optim, train",
        ),
        ("model = (\n", [], "not valid Python"),
        (None, ["modle.arch=b"], "the closest existing key is 'model.arch'"),
        (None, ["~optim"], "lacks optim"),
        (None, ["model.arch=a,b"], "is a sweep"),
        (None, ["train.batch=x"], "expected an integer"),
    ],
)
def test_a_file_that_is_not_a_config_is_one_line(
    config: Path, content: str | None, overrides: list[str], message: str
) -> None:
    if content is not None:
        config.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(config, overrides, required=REQUIRED)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"trian\.py does not exist; the closest is .*train\.py"):
        load_config(config.with_name("trian.py"))
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(config.parent)


def test_an_empty_config_is_refused_even_when_nothing_is_required(config: Path) -> None:
    config.write_text("_x = 1\n")
    with pytest.raises(ConfigError, match="it defines nothing"):
        load_config(config)


def test_a_command_writes_nothing_when_the_config_is_wrong(config: Path) -> None:
    """In a fresh process: exit code 2, one line, no file, and neither torch nor a config reader for --help."""
    script = config.with_name("command.py")
    script.write_text(
        "import sys\n"
        "from hypvl.cli.common import config_parser, load_config, run_main\n"
        "def main(argv):\n"
        "    args = config_parser('Train.').parse_args(argv)\n"
        "    load_config(args.config, args.overrides, required=('model', 'train'))\n"
        "    return 0\n"
        "assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules)\n"
        "sys.exit(run_main(main))\n"
    )
    before = sorted(config.parent.iterdir())

    def command(*argv: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, script, *argv], cwd=config.parent, env=env, capture_output=True, text=True
        )

    done = command("--config", "train.py", "train.bath=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: unknown key 'train.bath': the closest existing key is 'train.batch';"
        " to add a new key write +train.bath=...\n"
    )
    assert command("--config", "train.py", "train.batch=3").returncode == 0
    assert command("--help").returncode == 0
    assert sorted(config.parent.iterdir()) == before


def test_a_reader_that_has_ended_ends_the_command_in_silence(tmp_path: Path) -> None:
    """``hypvl recipes | head -1``: the exit code of a process that SIGPIPE ended, and no line on stderr."""
    script = (
        "from hypvl.cli.common import run_main, show\n"
        "def main(argv):\n"
        "    for number in range(100_000):\n"
        "        show(number)\n"
        "    return 0\n"
        "raise SystemExit(run_main(main, []))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == UNREAD == 141
    process.stderr.close()


def test_a_broken_pipe_of_something_else_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str]) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    assert run_main(main, []) == 1
    assert capsys.readouterr().err.startswith("error: Broken pipe.")


def test_a_mistyped_recipe_with_its_prefix_is_answered_with_the_prefix() -> None:
    with pytest.raises(ConfigError, match="the closest is train_ceclip_demo;"):
        find_config("train_ceclip_dmo", prefix="train_")
    with pytest.raises(ConfigError, match="the closest is ceclip_demo;"):
        find_config("ceclip_dmo", prefix="train_")


def test_readers_name_the_flags_of_the_command_that_runs(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("foo,bar\na.jpg,hello\n")

    def message() -> str:
        with pytest.raises(DataError) as error:
            retrieval_table(table, images_root=tmp_path)
        return str(error.value)

    assert message().endswith("set image_column.")
    parser = CommandParser("A command.")
    add_table_arguments(parser)
    parser.add_argument("--images-root")
    parser.parse_args([])
    assert message().endswith("set --image-column.")
    table.write_text('image,caption\na.jpg,"he said "x""\n')
    assert message().endswith("or set --quoting none.")
    table.write_text("image;caption\na.jpg;x\n")
    assert message().endswith("or give the folder by --data NAME:FOLDER, or for a table by --images-root.")
