import importlib
import inspect
import re
from pathlib import Path

import pytest

import edgeseg
from edgeseg import errors

PACKAGE = Path(edgeseg.__file__).parent
ERRORS = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if error.__module__ == errors.__name__
]


def test_every_public_name_exists_and_the_list_is_sorted():
    assert sorted(set(edgeseg.__all__)) == list(edgeseg.__all__)
    assert all(hasattr(edgeseg, name) for name in edgeseg.__all__)


def test_the_names_of_the_readme_are_public():
    assert {"EdgesegError", "Prompt", "__version__"} <= set(edgeseg.__all__)
    assert {"Masks", "SamPredictor", "Segmenter", "load"} <= set(edgeseg.__all__)


def test_names_that_are_imported_late_are_those_of_the_runtime():
    from edgeseg import runtime

    assert edgeseg.load is runtime.load
    assert edgeseg.Segmenter is runtime.Segmenter
    assert {"load", "SamPredictor", "errors"} <= set(dir(edgeseg))


def test_an_unknown_name_is_an_attribute_error_as_of_any_module():
    with pytest.raises(AttributeError, match="module 'edgeseg' has no attribute 'Loader'"):
        edgeseg.Loader  # noqa: B018


def test_the_version_has_three_numbers():
    assert re.fullmatch(r"\d+\.\d+\.\d+", edgeseg.__version__)


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_in_the_tree_its_docstring_draws(error):
    assert issubclass(error, errors.EdgesegError)
    drawn = re.search(rf"\b{error.__name__}\b(?: +\((\w+)\))?", errors.__doc__)
    assert drawn
    builtin = [base.__name__ for base in error.__bases__ if base.__module__ == "builtins"]
    assert ([drawn[1]] if drawn[1] else ["Exception"]) == builtin


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__main__")
)
def test_every_root_module_says_in_one_line_what_it_is_for(module):
    imported = importlib.import_module("edgeseg" if module == "__init__" else f"edgeseg.{module}")

    assert (imported.__doc__ or "").strip().splitlines()[0].endswith((".", "!", "?"))
