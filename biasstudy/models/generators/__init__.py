"""Generators. One decorated frozen dataclass each, in a file of this folder; its fields are its
options.

    @GENERATORS.register("name", version=1)
    @dataclass(frozen=True)
    class Name:
        steps: int = 1000
        def fit(self, pool, told, reserve_t, *, seed, context, previous=None) -> state: ...
        def sample(self, state, told, first_index, *, seed, context) -> images: ...

pool        LabeledImages               the training set of this generation
told        (N,) int                    in fit: the condition of each pool image; in sample: of each
                                        image wanted
reserve_t   LabeledImages or None       fresh real images of this generation; only `reserve` may
                                        look at them
previous    state or None               the last generation's, for warm starts
state       dict of str to tensor       everything that sample needs
first_index int                         image i = first_index, ... depends on (state, told, seed, i)
                                        only, not on how many are asked for
images      (N, 3, H, W) uint8

A generator that is told in words returns itself from `named(classes, groups)` with what it makes of
the names written into its options; `prepare()` and `prior` are as of classifiers. One that goes on
from a model on disk has the trait from_disk=True.
"""
