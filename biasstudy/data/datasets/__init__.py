"""Data sets. One decorated function each, in a file of this folder; its docstring is its data card.

    @DATASETS.register("name", version=1)
    def name(*, option: int = 3) -> Dataset: ...

The function loads or makes all real images and says what is known about their groups; drawing
start, reserve, instruments and test from it is `data.real`'s work. Traits: `fetch`, what `python
-m biasstudy fetch` calls its files; of a stand-in, which is never used unless asked for by its
name, `stands_for`, the data set in whose place it is; `by_content`, its checksum says all that a
run can see, whatever its options.
"""
