"""Every call of hypvl that could run what a file holds is on a list, with why it does not."""

import ast
import functools
from collections import Counter
from pathlib import Path

import hypvl

PACKAGE = Path(hypvl.__file__).parent
#: What can run code, or start a program, that a file or a text names. Methods are found by their last name.
WATCHED = {
    "eval", "exec", "compile", "__import__", "import_module", "find_spec", "run_path", "run_module",
    "torch.load", "np.load", "numpy.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "joblib.load", "shelve.open", "dill.load", "cloudpickle.load", "torch.jit.load", "torch.package.PackageImporter",
    "torch.hub.load", "torch.hub.load_state_dict_from_url", "dcp.load",
    "yaml.load", "yaml.load_all", "yaml.full_load",
    "yaml.unsafe_load", "yaml.safe_load", "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv",
    "subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
    "subprocess.getoutput", "hydra.utils.instantiate", "hydra.utils.call", "hydra.utils.get_method",
    "hydra.utils.get_class", "hydra.utils.get_object", "gopen", "gopen_pipe", "read_index", "loadmat",
    "Image.open", "InferenceSession",
    "from_pretrained", "pandas.read_pickle", "OmegaConf.register_new_resolver", "OmegaConf.register_resolver",
}  # fmt: skip
#: (file, call) -> how often, and why it is safe.
KNOWN: dict[tuple[str, str], tuple[int, str]] = {
    ("__init__.py", "importlib.import_module"): (1, "names of our own modules"),
    ("allowlist.py", "importlib.import_module"): (2, "our own modules, in a test"),
    ("cli/completion.py", "importlib.import_module"): (1, "a constant"),
    ("cli/registry.py", "importlib.import_module"): (1, "names of our own commands"),
    ("config/lazy.py", "hydra.utils.instantiate"): (1, "configs that are data pass check_untrusted first"),
    ("config/plain.py", "importlib.import_module"): (2, "targets of Python configs and of overrides"),
    ("config/pyfile.py", "exec"): (1, "Python configs are code"),
    ("config/pyfile.py", "compile"): (1, "Python configs are code"),
    ("config/pyfile.py", "builtins.__import__"): (1, "imports of Python configs"),
    ("config/reader.py", "yaml.load"): (2, "a subclass of SafeLoader"),
    ("encoders/onnx_towers.py", "runtime.InferenceSession"): (
        1,
        "operators of onnxruntime: a file brings none",
    ),
    ("export/onnx.py", "runtime.InferenceSession"): (1, "a file that was just written"),
    ("io/images.py", "Image.open"): (2, "formats that PIL decodes itself"),
    ("data/storage.py", "subprocess.run"): (1, "pipe:, where the user allows it"),
    ("data/stream.py", "gopen_pipe"): (1, "pipe:, where the user allows it"),
    ("data/tokenizer.py", "importlib.util.find_spec"): (1, "a constant"),
    ("data/tokenizer_huggingface.py", "transformers.AutoTokenizer.from_pretrained"): (
        1,
        "trust_remote_code=False",
    ),
    ("datasets/classification/prompts.py", "importlib.util.find_spec"): (1, "a constant"),
    ("datasets/classification/prompts.py", "runpy.run_path"): (1, "a file of the installed open_clip"),
    ("datasets/classification/torchvision_sets.py", "importlib.util.find_spec"): (1, "a constant"),
    ("datasets/composition/vl_checklist.py", "yaml.load"): (1, "a subclass of SafeLoader"),
    ("io/sharded.py", "dcp.load"): (
        1,
        "its table of contents is ours, the parts are read with weights_only=True",
    ),
    ("encoders/huggingface_towers.py", "transformers.AutoImageProcessor.from_pretrained"): (
        1,
        "trust_remote_code=False",
    ),
    ("encoders/image_hub.py", "torch.hub.load"): (1, "runs code: only Python configs may name it"),
    ("encoders/text_huggingface.py", "transformers.AutoConfig.from_pretrained"): (
        1,
        "trust_remote_code=False",
    ),
    ("encoders/text_huggingface.py", "transformers.AutoModel.from_pretrained"): (
        1,
        "trust_remote_code=False",
    ),
    ("evaluation/mean_removal.py", "torch.load"): (1, "weights_only=True"),
    ("evaluation/vqa_t5.py", "transformers.AutoModelForSeq2SeqLM.from_pretrained"): (
        1,
        "trust_remote_code=False",
    ),
    ("integrations/sentence_transformers.py", "from_pretrained"): (1, "our own"),
    ("io/plain_pickle.py", "_Unpickler"): (1, "stand-ins only"),
    ("launch.py", "pickle.loads"): (1, "an error that our own worker wrote into a private folder"),
    ("models/checkpoint_io.py", "torch.load"): (2, "weights_only=True"),
    ("models/foreign/__init__.py", "import_module"): (1, "names of our own modules"),
    ("models/foreign/huggingface.py", "kind.from_pretrained"): (
        1,
        "a class of transformers, whose config was checked",
    ),
    ("models/hub.py", "from_pretrained"): (1, "our own"),
    ("models/parts.py", "importlib.import_module"): (1, "a name on the allow-list"),
    ("negatives/backends/masked_lm.py", "AutoTokenizer.from_pretrained"): (1, "trust_remote_code=False"),
    ("negatives/backends/masked_lm.py", "AutoModelForMaskedLM.from_pretrained"): (
        1,
        "trust_remote_code=False",
    ),
    ("training/provenance.py", "subprocess.run"): (1, "git with a list of arguments"),
}


@functools.cache
def trees() -> list[tuple[str, ast.Module]]:
    """(file, what it says) of the whole package."""
    return [
        (path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8")))
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


@functools.cache
def calls() -> list[tuple[str, str, ast.Call]]:
    found = []
    for place, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                last = name.rpartition(".")[2]
                if name in WATCHED or last in WATCHED - {"compile", "eval"} or last == "_Unpickler":
                    found.append((place, name, node))
    return found


def argument(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def test_every_call_that_could_run_a_file_is_known() -> None:
    """A new one: show in a test that nothing in a file is executed, then add it here with the reason."""
    found = Counter((place, name) for place, name, _ in calls())
    assert found == {key: count for key, (count, _) in KNOWN.items()}


def test_their_switches_are_off() -> None:
    wrong = []
    for place, name, call in calls():
        where = f"{place}:{call.lineno} {name}"
        if name == "torch.load" and argument(call, "weights_only") != "True":
            wrong.append(where)
        if name == "np.load" and argument(call, "allow_pickle") != "False":
            wrong.append(where)
        if name == "yaml.load" and argument(call, "Loader") != "_Loader":
            wrong.append(where)
        auto = name.rpartition(".")[0].rpartition(".")[2].startswith("Auto")
        if auto and name.endswith("from_pretrained") and argument(call, "trust_remote_code") != "False":
            wrong.append(where)
        if name.endswith("Image.open") and argument(call, "formats") is None:  # some start another program
            wrong.append(where)
        if argument(call, "shell") == "True" and place != "data/storage.py":
            wrong.append(where)
    assert wrong == []


def test_no_resolver_is_registered() -> None:
    assert not [name for _, name, _ in calls() if "register" in name]


def test_texts_of_data_are_no_format_of_log_messages() -> None:
    """loguru formats a message that has arguments: its text must be a literal, not made of data."""
    wrong = []
    for place, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("logger."):
                continue
            levels = ("debug", "info", "success", "warning", "error", "critical", "exception", "log")
            if ast.unparse(node.func).rpartition(".")[2] in levels and len(node.args) > 1:
                message = node.args[1] if ast.unparse(node.func) == "logger.log" else node.args[0]
                if not isinstance(message, ast.Constant) and len(node.args) > 1:
                    wrong.append(f"{place}:{node.lineno}")
            if "colors=True" in ast.unparse(node):
                wrong.append(f"{place}:{node.lineno} reads markup")
    assert wrong == []
