"""What models give back is checked where they give it."""

import dataclasses
import types

import numpy as np
import pytest
import torch
from conftest import tiny

from biasstudy import CLASSIFIERS, GENERATORS, run
from biasstudy.models.answers import check_images, check_probabilities, check_state

GENERATOR, CLASSIFIER = GENERATORS["mixture"], CLASSIFIERS["ridge"]
EVEN = np.full((4, 2), 0.5)


def test_what_is_right_is_given_back_as_it_is():
    state, images = {"w": torch.zeros(2)}, np.zeros((4, 3, 8, 8), np.uint8)
    assert check_state(GENERATOR, state) == state
    assert check_images(GENERATOR, images, 4) is images
    assert check_probabilities(CLASSIFIER, EVEN, 4) is EVEN


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "fit must return a dictionary of tensors by name; got NoneType"),
        ([torch.zeros(1)], "got list"),
        ({"w": 1.0}, "got float under 'w'"),
        ({"w": np.zeros(1)}, "got ndarray under 'w'"),
        ({3: torch.zeros(1)}, "got Tensor under 3"),
    ],
)
def test_a_state_is_a_dictionary_of_tensors(state, reason):
    with pytest.raises(ValueError, match=reason):
        check_state(GENERATOR, state)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((4, 3, 8, 8)), r"uint8, H = W; got \(4, 3, 8, 8\) of float64"),
        (np.zeros((4, 8, 8, 3), np.uint8), r"got \(4, 8, 8, 3\) of uint8"),
        (np.zeros((3, 3, 8, 8), np.uint8), r"\(4, 3, H, W\) of uint8, H = W; got \(3, 3"),
        (np.zeros((4, 3, 8, 9), np.uint8), r"H = W; got \(4, 3, 8, 9\)"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "got torch.Tensor"),
        (None, "got builtins.NoneType"),
    ],
)
def test_images_have_shape_and_type(images, reason):
    with pytest.raises(ValueError, match=f"generator 'mixture': sample .*{reason}"):
        check_images(GENERATOR, images, 4)


@pytest.mark.parametrize(
    ("probability", "reason"),
    [
        (np.full((4, 2), np.nan), "some are not finite"),
        (np.full((4, 2), 7.0), "sum to 1 for each image; got 7 to 7, sums up to 13 away"),
        (np.array([[1.5, -0.5]] * 4), "got -0.5 to 1.5"),
        (np.zeros(4), r"\(4, classes\); got \(4,\)"),
        (np.zeros((3, 2)), r"got \(3, 2\)"),
        (torch.full((4, 2), 0.5), "got torch.Tensor"),
    ],
)
def test_probabilities_are_probabilities(probability, reason):
    with pytest.raises(ValueError, match=f"classifier 'ridge': predict .*{reason}"):
        check_probabilities(CLASSIFIER, probability, 4)


def test_a_loop_stops_at_a_classifier_that_tells_too_few_classes(tmp_path):
    @CLASSIFIERS.register("test-two-classes")
    @dataclasses.dataclass(frozen=True)
    class TwoClasses:
        def fit(self, pool, n_classes, *, seed, context, previous=None):
            return {"nothing": torch.zeros(1)}

        def predict(self, state, images, *, context):
            return np.full((len(images), 2), 0.5)

    try:
        e = tiny(classifier="test-two-classes")
        with pytest.raises(ValueError, match="tells 2 classes apart; the test images have 10"):
            run(e, where=tmp_path, progress=False)
    finally:
        del CLASSIFIERS._entries["test-two-classes"]


@pytest.mark.parametrize(
    ("registry", "methods", "reason"),
    [
        (GENERATORS, ("fit",), "the generator 'test-own' has no method 'sample'"),
        (CLASSIFIERS, ("predict",), "the classifier 'test-own' has no method 'fit'"),
        (GENERATORS, ("fit", "sample"), r"must be a dataclass.*below @GENERATORS.register"),
    ],
)
def test_what_cannot_be_a_model_is_refused_when_it_is_registered(registry, methods, reason):
    own = types.new_class("Own", (), {}, lambda body: body.update(dict.fromkeys(methods, len)))
    with pytest.raises(ValueError, match=reason):
        registry.register("test-own")(own)
    assert "test-own" not in registry
