"""Filters: which generated images are kept. One decorated function each.

    @FILTERS.register("name", version=1)
    def name(...): ...

`none` keeps every image.
"""

from .experiment import FILTERS


@FILTERS.register("none", version=1)
def none() -> None:
    """Keep every image."""
