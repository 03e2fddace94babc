"""Data sets. One decorated function each, in a file of this folder; its docstring is its data card.

    @DATASETS.register("name", version=1)
    def name(*, option: int = 3) -> Source: ...

The function loads or makes all real images and says what is known about their groups; drawing start, reserve, instruments
and test from it is `data.draw`'s work. Stand-ins carry "standin" in their name and are never used unless asked for.
"""
