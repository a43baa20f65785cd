"""Settings that are ready to run, by name."""

from pathlib import Path

from edgeseg.errors import ConfigError

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find_recipe(name_or_path: str) -> Path:
    """Return the TOML file meant by a path or by the name of a recipe.

    Raises:
        ConfigError: There is neither such a file nor such a recipe.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    recipe = FOLDER / f"{name_or_path}.toml"
    if recipe.is_file():
        return recipe
    raise ConfigError(
        f"there is no file and no recipe {name_or_path!r}; recipes are {', '.join(recipe_names())}"
    )
