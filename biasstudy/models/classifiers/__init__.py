"""Classifiers. One decorated frozen dataclass each, in a file of this folder; its fields are its
options.

    @CLASSIFIERS.register("name", version=1)
    @dataclass(frozen=True)
    class Name:
        steps: int = 500
        def fit(self, pool, n_classes, *, seed, context, previous=None) -> state: ...
        def predict(self, state, images, *, context) -> probabilities: ...
        def features(self, state, images, *, context) -> activations: ...      # registered with
        features=True

`fit` learns pool.label from pool.images and returns a dictionary of tensors; with the state of the
last generation as `previous` it goes on from there (warm start). `predict` returns (N, n_classes)
float32, `features` (N, d) float32. Every class has an output, also one that the pool lacks.
Networks share one recipe, `networks.Network`.

A classifier whose first weights were learned from other data says from which in its property
`prior`. One that rests on files returns itself from `prepare()` once they are on this machine, with
what they hold written into its options.
"""
