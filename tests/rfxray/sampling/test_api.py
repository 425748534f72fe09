"""What `from rfxray import sampling` offers, and what it does not load."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import rfxray
from rfxray import sampling

ROOT = Path(rfxray.__file__).parent
PACKAGES = ("sampling", "attributes", "causes", "evaluate", "outputs")


def loaded(program: str, environment) -> set[str]:
    """Top-level modules that a program loads in a fresh process."""
    program += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT.parent,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["solvers", "guidance", "adaptive", "stochastic", "likelihood", "interventions"]
)
def test_mathematical_modules_load_neither_orbax_nor_grain(module, environment):
    names = loaded(f"import rfxray.sampling.{module}", environment)
    assert "jax" in names
    assert not names & {"orbax", "grain", "array_record", "tensorflow", "ml_collections"}


def test_public_names_load_on_first_use(environment):
    assert "orbax" not in loaded("from rfxray import sampling; dir(sampling)", environment)
    assert "orbax" in loaded("from rfxray import sampling; sampling.load", environment)


def test_likelihood_loads_neither_orbax_nor_grain(environment):
    names = loaded("from rfxray import sampling; sampling.log_likelihood", environment)
    assert "jax" in names
    assert not names & {"orbax", "grain", "array_record"}


def test_every_public_name_exists_and_others_raise():
    for name in sampling.__all__:
        assert getattr(sampling, name) is not None
        assert name in dir(sampling)
    with pytest.raises(AttributeError, match=r"rfxray\.sampling has no attribute 'samplee'"):
        _ = sampling.samplee


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_or_class_shares_the_name_of_a_sibling_module(package):
    files = list((ROOT / package).glob("*.py"))
    modules = {file.stem for file in files}
    defined = {
        node.name
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert not defined & modules


@pytest.mark.parametrize("top", ["rfxray", "data_prep", "benchmarks"])
def test_nothing_hides_a_module_of_the_same_name(top):
    """Neither a name of a package, nor a definition or argument of a file that imports it."""
    for file in sorted((ROOT.parent / top).rglob("*.py")):
        tree, imported = ast.parse(file.read_text()), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                folder = ROOT.parent.joinpath(*node.module.split("."))
                names = [a for a in node.names if (folder / f"{a.name}.py").exists()]
                imported |= {a.asname or a.name for a in names}
        if file.name == "__init__.py":
            imported |= {path.stem for path in file.parent.iterdir()} - {"__init__"}
            public = vars(sampling)["__all__"] if file.parent == ROOT / "sampling" else []
            assert not imported & set(public), file
        kinds = ast.FunctionDef | ast.ClassDef
        named = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
        named |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        assert not named & imported, file


@pytest.mark.parametrize("package", ["sampling", "attributes", "causes", "evaluate"])
def test_public_functions_are_fully_typed(package):
    """Every argument and result has a type, and no type is `Any` or a bare container."""
    vague = {"Any", "dict", "tuple", "list", "object", "Callable", "Mapping", "Sequence"}
    for file in (ROOT / package).glob("*.py"):
        tree = ast.parse(file.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in itertools.chain(tree.body, *(found.body for found in classes)):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            given = [*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            types = [a.annotation for a in given if a and a.arg not in ("self", "cls")]
            types.append(node.returns)
            where = f"{file}:{node.lineno} {node.name}"
            assert None not in types, where
            assert not vague & {ast.unparse(each) for each in types}, where
