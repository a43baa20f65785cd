import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgeseg"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))

# A part may import itself, the root modules and what stands here. Root modules (errors, prompts,
# geometry, ...) are open to all and import no part. A part may be planned and not exist yet.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__.py": {"runtime"},
    "__main__.py": {"cli"},
    "data": set(),
    "modeling": set(),
    "runtime": set(),
    "evaluation": {"data"},
    # A student is evaluated, and a teacher labels, through the very Segmenter that users run.
    "distill": {"data", "modeling", "evaluation", "runtime"},
    "adapt": {"data", "modeling", "distill", "evaluation", "runtime"},
    # An exported model is run as users run it, and measured on labelled images like any other.
    "exporter": {"data", "modeling", "evaluation", "runtime"},
    # The harness opens what users open, exports what is not exported yet, and times PyTorch beside
    # it. Importing it brings no torch: only its modules `pytorch_*` import it, and only when used.
    "bench": {"modeling", "exporter", "runtime"},
    "demo": set(),
    # It looks at what the others write, by the readers they have, each imported only for the files
    # that need it; of its own modules only `pytorch_*` imports torch, and only when used.
    "inspection": {"modeling", "distill", "exporter", "bench"},
    "cli": {
        "data",
        "modeling",
        "evaluation",
        "distill",
        "adapt",
        "exporter",
        "runtime",
        "bench",
        "demo",
        "inspection",
    },
}
WITHOUT_TORCH = {
    "root",
    "__init__.py",
    "__main__.py",
    "runtime",
    "evaluation",
    "bench",
    "inspection",
}
TORCH = {"torch", "torchvision", "timm", "lightning", "segment_anything"}
MAY_IMPORT_TORCH = ("bench/pytorch_", "inspection/pytorch_")
NEVER_IMPORTED = {"export", "benchmarks", "models", "tests"}  # beside the package, not in it


def imported_names(source: str) -> list[list[str]]:
    """Split every imported name at its dots; imports inside functions and `if` count too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names += [f"{module}.{alias.name}" for alias in node.names]
    return [name.split(".") for name in names]


def violations(module: str, source: str) -> list[str]:
    """Return the imports of a module, named by its path in the package, that break a rule."""
    first = Path(module).parts[0]
    part = first if first in MAY_IMPORT else "root"
    parts = MAY_IMPORT.keys() - MAY_IMPORT.get(part, set()) - {part}
    without_torch = part in WITHOUT_TORCH and not module.startswith(MAY_IMPORT_TORCH)
    forbidden = NEVER_IMPORTED | (TORCH if without_torch else set())
    return [
        ".".join(name)
        for name in imported_names(source)
        if name[0] in forbidden | {""}  # "" starts a relative import
        or (name[0] == "edgeseg" and len(name) > 1 and name[1] in parts)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_part_may_know(module):
    assert violations(module, (PACKAGE / module).read_text()) == []


@pytest.mark.parametrize("module", MODULES)
def test_module_is_short_enough_to_read_in_one_go(module):
    assert len((PACKAGE / module).read_text().splitlines()) <= 300


def test_every_folder_of_the_package_is_a_part_with_a_rule():
    folders = {Path(module).parts[0] for module in MODULES if "/" in module}

    assert folders <= MAY_IMPORT.keys()


def test_the_arrows_between_parts_have_no_circle():
    remaining = dict(MAY_IMPORT)
    while leaves := [part for part, known in remaining.items() if not known & remaining.keys()]:
        for part in leaves:
            del remaining[part]

    assert remaining == {}


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("data/folder.py", "from edgeseg.modeling.net import Net", ["edgeseg.modeling.net.Net"]),
        ("data/folder.py", "from edgeseg import modeling", ["edgeseg.modeling"]),
        ("data/folder.py", "import edgeseg.distill.loop as loop", ["edgeseg.distill.loop"]),
        ("data/folder.py", "def f():\n    import edgeseg.cli", ["edgeseg.cli"]),
        ("data/folder.py", "from .records import Record", [".records.Record"]),
        ("data/folder.py", "from .. import errors", ["...errors"]),
        ("data/folder.py", "import torch\nfrom edgeseg.data.records import Record", []),
        ("prompts.py", "from edgeseg.data import records", ["edgeseg.data.records"]),
        ("prompts.py", "import edgeseg.errors", []),
        ("evaluation/run.py", "from torch.nn import Module", ["torch.nn.Module"]),
        ("evaluation/run.py", "from edgeseg.data import records", []),
        ("bench/run.py", "import torch", ["torch"]),
        ("bench/pytorch_driver.py", "import torch", []),
        ("distill/loop.py", "import tests.shapes", ["tests.shapes"]),
        ("distill/loop.py", "from edgeseg.cli import main", ["edgeseg.cli.main"]),
        ("cli/distill.py", "def f():\n    from edgeseg.distill import loop", []),
    ],
)
def test_the_rules_catch_what_they_are_for(module, source, broken):
    assert violations(module, source) == broken


def test_importing_the_harness_loads_no_torch():
    modules = "edgeseg.bench.run, edgeseg.bench.drivers, edgeseg.bench.html_report"
    probe = f"import sys, {modules}; sys.exit(bool({TORCH} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_importing_the_package_loads_no_torch():
    probe = f"import sys, edgeseg; sys.exit(bool({TORCH} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_parts_without_torch_do_not_load_it_through_others_either():
    nested = [module for module in MODULES if "/" in module]
    nested = [module for module in nested if not module.startswith(MAY_IMPORT_TORCH)]
    parts = [module for module in nested if Path(module).parts[0] in WITHOUT_TORCH]
    roots = [module for module in MODULES if "/" not in module and module != "__main__.py"]
    dotted = [f"edgeseg/{module}".removesuffix(".py").replace("/", ".") for module in parts + roots]
    probe = (
        f"import importlib, sys; [importlib.import_module(name) for name in {dotted}]; "
        f"print({TORCH} & set(sys.modules) or '')"
    )

    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
