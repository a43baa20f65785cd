"""`edgeseg quickstart`."""


def quickstart() -> None:
    """Run the whole loop on real photographs, in a few minutes."""
