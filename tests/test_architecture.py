"""The shape of the package: who imports whom, what is public, what is documented."""

import ast
import importlib.metadata
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags

import supervised_reptile
from supervised_reptile.config.command_line import parse_flags
from supervised_reptile.config.flags import define_flags

PACKAGE = Path(supervised_reptile.__file__).parent
# The rooms of the house, and which rooms each may know. A module is in the room that it is named
# for here, or else in that of its folder.
ALGORITHM = ("tasks", "models", "inner_loop", "meta_learner", "reptile", "fine_tuning")
ALGORITHM += ("evaluation", "training", "learner", "pure_model", "checks", "lanes", "workers")
ALGORITHM += ("python_random",)
ROOM_OF = dict.fromkeys(ALGORITHM, "algorithm") | {
    "datasets.few_shot": "few_shot",
    "runs.files": "files",
    "config.command_line": "command line",
    "config.flags": "command line",
    "config.flag_help": "command line",
}
MAY_KNOW = {
    "errors": set(),
    "startup": {"errors"},
    "interrupts": set(),
    "programs": set(),
    "few_shot": set(),
    "files": {"errors"},
    "finite": {"errors"},
    "progress": set(),
    "figures": set(),
    # The algorithm knows no configuration, no flags, no files and no source of data.
    "algorithm": {"few_shot", "fast", "keras_api", "errors", "finite", "progress"},
    "fast": {"algorithm"},
    "keras_api": {"algorithm", "fast", "config", "finite"},
    "config": {"errors"},
    "command line": {"errors", "config", "interrupts", "__init__"},
    "datasets": {"errors", "config", "few_shot", "programs", "startup", "progress"},
    "from_config": {"algorithm", "config"},
    "pretrained": {"config", "files", "reproduction"},
    "classifier_start": {"errors", "config", "few_shot", "files", "from_config", "runs"}
    | {"algorithm"},
    "runs": {"errors", "config", "few_shot", "files", "from_config", "algorithm", "datasets"}
    | {"classifier_start", "pretrained", "finite", "progress", "figures"},
    "main": {"config", "few_shot", "algorithm", "from_config", "runs", "startup"},
    "reproduction": {
        "errors",
        "config",
        "files",
        "runs",
        "main",
        "startup",
        "command line",
        "programs",
        *("algorithm", "from_config", "interrupts", "pretrained", "progress", "figures"),
    },
    "tools": {"errors", "startup", "config", "command line", "datasets", "algorithm"}
    | {"from_config", "runs", "main", "pretrained", "reproduction", "programs"},
    "__main__": {"errors", "command line", "interrupts", "programs"},
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def room_of(module):
    return ROOM_OF.get(module, module.partition(".")[0])


def imports_of(module):
    """Modules of the package that a module imports, anywhere in it; and names of others."""
    ours, others = set(), set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = f"{node.module}.".startswith("supervised_reptile.")
            # `from package import name`: the name may be a module or something in the package.
            names = [
                f if not inside or f.partition(".")[2] in MODULES else node.module for f in full
            ]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "supervised_reptile":
                ours.add(rest or "__init__")
            else:
                others.add(name)
    return ours, others


INSIDE = sorted(set(MODULES) - {"__init__"})


@pytest.mark.parametrize("module", INSIDE)
def test_each_room_knows_only_those_it_may(module):
    room = room_of(module)
    assert room in MAY_KNOW, f"give {module} its room"
    for imported in imports_of(module)[0]:
        assert room_of(imported) in MAY_KNOW[room] | {room}, f"{module} imports {imported}"


def test_nothing_imports_in_a_circle():
    seen, path = set(), []

    def visit(module):
        assert module not in path, f"circle: {[*path, module]}"
        if module in seen:
            return
        path.append(module)
        for imported in imports_of(module)[0]:
            if (module, imported) != ("meta_learner", "keras_api.fit"):  # `fit`, when it is called
                visit(imported)
        seen.add(path.pop())

    for module in INSIDE:
        visit(module)


def test_only_the_command_line_and_the_flags_know_of_absl():
    for module, tree in TREES.items():
        if room_of(module) == "command line":
            continue
        _, others = imports_of(module)
        assert not any(name.startswith("absl") for name in others), module
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert "FLAGS" not in names, module


LIGHT = ("errors", "startup", "files", "config", "command line")


@pytest.mark.parametrize("module", [m for m in INSIDE if room_of(m) in LIGHT])
def test_the_configuration_waits_for_no_large_library(module):
    allowed = {"absl"} if room_of(module) == "command line" else set()
    allowed |= {"tensorflow"} if module == "startup" else set()
    for name in imports_of(module)[1]:
        top = name.partition(".")[0]
        assert top in sys.stdlib_module_names or top in allowed, f"{module} imports {name}"


def public_definitions(tree):
    """Public functions, classes and methods of a module."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method


@pytest.mark.parametrize("module", sorted(MODULES))
def test_everything_public_has_a_docstring(module):
    assert ast.get_docstring(TREES[module]), f"{module} has none"
    for name, node in public_definitions(TREES[module]):
        assert ast.get_docstring(node), f"{module}.{name} has none"


@pytest.mark.parametrize("module", INSIDE)
def test_public_functions_say_what_they_take(module):
    """Every parameter of a public function has a type; methods that override inherit theirs."""
    for name, node in public_definitions(TREES[module]):
        if not isinstance(node, ast.FunctionDef) or "." in name:
            continue
        for argument in (*node.args.args, *node.args.kwonlyargs):
            assert argument.annotation, f"{module}.{name}: {argument.arg}"
        assert node.returns, f"{module}.{name}: what it returns"


# The flags of the authors' program, and one command line that uses them all.
ORIGINAL_FLAGS = """
    --pretrained --seed=1 --checkpoint=c --classes=5 --shots=1 --train-shots=10 --inner-batch=5
    --inner-iters=20 --replacement --learning-rate=0.001 --meta-step=0.1 --meta-step-final=0.1
    --meta-batch=1 --meta-iters=400000 --eval-batch=5 --eval-iters=50 --eval-samples=10000
    --eval-interval=10 --weight-decay=1 --transductive --foml --foml-tail=5 --sgd
"""


@pytest.mark.parametrize("data", [("omniglot", "glyphs"), ("miniimagenet",)])
def test_every_flag_of_the_original_is_there_with_help(data):
    values = absl_flags.FlagValues()
    define_flags(data, flag_values=values)
    words = shlex.split(ORIGINAL_FLAGS)
    parse_flags(["run.py", *words], values)
    assert len(words) == 23
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        assert values[name].present
        assert len(values[name].help.split()) >= 3, name


# ----------------------------------------------------------------------- the package itself

PUBLIC = [
    *("Config", "RunOptions", "paper_config", "FewShotDataset", "load_dataset"),
    *("omniglot_model", "miniimagenet_model", "batch_statistics_normalization"),
    *("MetaLearner", "Reptile", "FOMAML", "MAML", "GradientCombination", "TaskSpec"),
    *("meta_train", "LinearDecay", "evaluate", "Accuracy", "fit", "FitSettings"),
    *("training_spec", "evaluation_spec", "meta_step_from_config"),
    *("model_from_config", "learner_from_config", "Trainer", "__version__"),
    *("load_pretrained", "pretrained_names", "adapt", "rehead", "FewShotClassifier"),
]


def test_type_checkers_see_the_names_that_are_imported_lazily():
    """Modules and names of the imports for type checkers are those of ``__getattr__``."""
    block, hidden = (node for node in TREES["__init__"].body if isinstance(node, ast.If))
    assert [node.name for node in hidden.body] == ["__getattr__"]  # else every name would do
    seen = {
        node.module.removeprefix("supervised_reptile."): {alias.name for alias in node.names}
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == {module: set(names) for module, names in supervised_reptile._MODULES.items()}
    assert {*supervised_reptile._MODULE_OF, "__version__"} == set(supervised_reptile.__all__)


def test_public_names():
    assert sorted(supervised_reptile.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(supervised_reptile))
    for name in PUBLIC:
        value = getattr(supervised_reptile, name)
        assert value is getattr(supervised_reptile, name)
        if name == "__version__":
            assert value == importlib.metadata.version("supervised-reptile")
        else:
            home = importlib.import_module(value.__module__)
            assert value is getattr(home, name)
            assert value.__doc__
    with pytest.raises(AttributeError, match=r"^module 'supervised_reptile' has no attribute 'a'$"):
        supervised_reptile.a  # noqa: B018
    with pytest.raises(ImportError):
        from supervised_reptile import nothing  # noqa: F401


def test_a_checkout_that_is_not_installed_has_a_version_too(monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delitem(vars(supervised_reptile), "__version__", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    assert supervised_reptile.__version__ == "unknown"


def fresh_process(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_the_package_and_its_configuration_do_not_wait_for_tensorflow():
    heavy = "[m for m in ('tensorflow', 'keras', 'tensorflow_datasets') if m in sys.modules]"
    code = f"""
import sys
import supervised_reptile as sr
import supervised_reptile.config, supervised_reptile.reproduction.comparison
import supervised_reptile.runs.record
import supervised_reptile.pretrained, supervised_reptile.reproduction.jobs
assert not sr.paper_config("omniglot").meta.foml_tail
assert sr.__version__ and set(sr.__all__) <= set(dir(sr)) and not {heavy}, {heavy}
sr.load_dataset
assert "tensorflow" not in sys.modules
print("light")
"""
    assert fresh_process(code) == ["light"]
