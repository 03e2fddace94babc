"""local-score: an oracle of plain loops, the limits of its window, what its options do."""

import itertools

import numpy as np
import pytest
import torch
from conftest import FLOAT64
from test_registries import shapes

from biasstudy import GENERATORS, LabeledImages, Numerics
from biasstudy.core.context import Context
from biasstudy.models.generators import local_score
from biasstudy.models.generators.diffusion import schedule
from biasstudy.models.generators.local_score import blocks, estimated, geometric, ladder, odd

CONTEXT = Context(FLOAT64)
SIDE = 6
WHOLE = 2 * SIDE - 1


def pool_of(images, label=None) -> LabeledImages:
    label = np.zeros(len(images), int) if label is None else label
    return LabeledImages(images, label, np.zeros(len(images), int))


def noise_images(n, seed=0) -> np.ndarray:
    """Images whose pixels have nothing to do with each other."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3, SIDE, SIDE)).astype(np.uint8)


def solid_images(n) -> np.ndarray:
    """Images of one grey each."""
    grey = np.linspace(0, 255, n).round().astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (n, 3, SIDE, SIDE)).copy()


def fitted(pool, context=CONTEXT, **options):
    model = GENERATORS["local-score"].target(**options)
    return model, model.fit(pool, pool.label, None, seed=1, context=context)


def sampled(pool, told, first=0, context=CONTEXT, **options):
    model, state = fitted(pool, context, **options)
    return model.sample(state, np.asarray(told), first, seed=2, context=context)


def by_loops(x, images, a, s, window, own=None):
    """The estimate written down pixel by pixel."""
    half, side = window // 2, x.shape[2]
    y = images / 127.5 - 1
    out = np.empty_like(x)
    for b in range(len(x)):
        for i in range(side):
            for j in range(side):
                rows = slice(max(0, i - half), i + half + 1)
                columns = slice(max(0, j - half), j + half + 1)
                exponent = np.array(
                    [
                        -np.sum((x[b, :, rows, columns] - a * one[:, rows, columns]) ** 2)
                        / (2 * s**2)
                        for one in y
                    ]
                )
                if own is not None:
                    exponent[own[b]] = -np.inf
                weight = np.exp(exponent - exponent.max())
                out[b, :, i, j] = weight @ y[:, :, i, j] / weight.sum()
    return out


@pytest.mark.parametrize("window", [1, 3, 5, WHOLE])
@pytest.mark.parametrize("t", [999, 500, 99, 0])
@pytest.mark.parametrize("leave_out", [False, True])
def test_the_estimate_is_that_of_plain_loops(window, t, leave_out, monkeypatch):
    a, s = (float(part[t]) for part in schedule())
    images, rng = noise_images(7), np.random.default_rng(1)
    own = np.array([6, 0, 3]) if leave_out else None
    x = a * (images[[6, 0, 3]] / 127.5 - 1) + s * rng.standard_normal((3, 3, SIDE, SIDE))

    def found():
        return estimated(
            torch.as_tensor(x),
            torch.as_tensor(images),
            a,
            s,
            window,
            CONTEXT.pixels,
            None if own is None else torch.as_tensor(own),
        ).numpy()

    expected = by_loops(x, images, a, s, window, own)
    assert abs(found() - expected).max() <= local_score.ROUNDING / 2 + 1e-9
    monkeypatch.setattr(local_score, "ROUNDING", 2.0**-60)
    assert abs(found() - expected).max() < 1e-9
    # two training images and one image at a time
    monkeypatch.setitem(local_score.BLOCK, "cpu", 2 * SIDE**2)
    assert abs(found() - expected).max() < 1e-9


@pytest.mark.parametrize("window", [5, WHOLE])
def test_estimates_are_the_same_to_the_bit_whatever_the_order_of_the_sums(window):
    """Processors sum in different orders, and where two images fit equally well one step makes a
    difference a hundred thousand times as large. Pictures turned round stand for another
    processor."""
    a, s = (float(part[600]) for part in schedule())
    images = torch.as_tensor(noise_images(20))
    noise = torch.as_tensor(np.random.default_rng(1).standard_normal((40, 3, SIDE, SIDE)))
    x = a * CONTEXT.pixels(images[:20].repeat(2, 1, 1, 1)) + s * noise

    def turned(pictures):
        return pictures.flip(2, 3)

    one = estimated(x, images, a, s, window, CONTEXT.pixels)
    other = estimated(turned(x), turned(images), a, s, window, CONTEXT.pixels)
    assert torch.equal(one, turned(other))


def test_blocks_cover_everything_and_are_no_larger():
    for n, size in ((0, 3), (1, 3), (3, 3), (10, 4), (128, 128), (129, 128)):
        found = list(blocks(n, size))
        assert [i for low, high in found for i in range(low, high)] == list(range(n))
        assert all(0 < high - low <= size for low, high in found)


def test_window_1_sees_nothing_but_the_pixel():
    images, x = torch.as_tensor(noise_images(5)), torch.randn(2, 3, SIDE, SIDE).double()
    other = x.clone()
    other[:, :, 2, 3] += 1
    before, after = (estimated(z, images, 0.8, 0.6, 1, CONTEXT.pixels) for z in (x, other))
    changed = (before != after).any(0).any(0)
    assert changed[2, 3] and changed.sum() == 1


def test_the_window_of_the_whole_image_returns_training_images():
    label = np.arange(12) % 2
    pool, told = pool_of(noise_images(12), label), np.arange(40) % 2
    out = sampled(pool, told, window="linear", largest=WHOLE, smallest=WHOLE, sampling_steps=5)
    found = {
        np.flatnonzero((abs(pool.images.astype(int) - one).max((1, 2, 3)) <= 1) & (label == k))[0]
        for one, k in zip(out.astype(int), told, strict=True)
    }
    assert len(found) > 6


@pytest.mark.parametrize("options", [{"window": "linear"}, {"churn": 1.0}, {"order": 2}, {}])
def test_one_training_image_of_a_class_is_all_that_is_made(options):
    pool, told = pool_of(noise_images(3), np.arange(3)), np.array([2, 0, 1, 1, 2])
    assert (sampled(pool, told, **options) == pool.images[told]).all()


# ---- Windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_geometric_levels_fall_by_equal_factors(n):
    times = geometric(n)
    assert times[-1] == -1 and (np.diff(times) < 0).all() and len(times) <= n + 1
    alpha, sigma = (part.numpy()[times[:-1]] for part in schedule())
    assert sigma[0] / alpha[0] == pytest.approx(40, rel=0.1)
    if n > 1:
        assert sigma[-1] / alpha[-1] == pytest.approx(0.15, rel=0.02)
    if n == 10:
        assert np.diff(np.log(sigma / alpha)) == pytest.approx(np.log(0.15 / 40) / 9, rel=0.1)


@pytest.mark.parametrize("steps", [1, 2, 10, 37])
def test_linear_windows_end_at_the_smallest_whatever_the_steps(steps):
    pool = pool_of(noise_images(4))
    options = {"window": "linear", "largest": 21, "smallest": 7, "sampling_steps": steps}
    model, state = fitted(pool, **options)
    windows = state["windows"].tolist()
    assert len(windows) == steps and windows[-1] == 7 and all(w % 2 for w in windows)
    assert (np.diff(windows) <= 0).all() and (steps == 1 or windows[0] == 21)
    sigma = schedule()[1].numpy()[model.times()[:-1]]
    line = np.interp(sigma, [sigma[-1], sigma[0]], [7, 21]) if steps > 1 else [7]
    assert abs(np.array(windows) - line).max() <= 1 + 1e-9


def test_the_window_of_least_denoising_error():
    """In pixels without relation a larger window only misleads; images of one grey are told best by
    all of their pixels. An image's own weight is 0: else the whole image would be best."""
    options = {"widen": 1.0, "smallest": 1}
    _, unrelated = fitted(pool_of(noise_images(200)), **options)
    assert unrelated["windows"].tolist()[-3:] == [1, 1, 1]
    _, solid = fitted(pool_of(solid_images(60)), **options)
    assert solid["windows"].tolist() == [WHOLE] * 10
    _, wide = fitted(pool_of(solid_images(60)), widen=0.5, smallest=1)
    assert wide["windows"].tolist() == [odd(WHOLE / 2)] * 10
    _, floor = fitted(pool_of(noise_images(200)), widen=1.0, smallest=5)
    assert floor["windows"].tolist()[-1] == 5


def test_windows_to_try_go_from_a_pixel_to_the_whole_image():
    for side in (1, 6, 28, 64):
        sizes = ladder(side)
        assert sizes[0] == 1 and sizes[-1] == 2 * side - 1 and all(size % 2 for size in sizes)
        assert all(a < b <= max(a + 2, 1.25 * a + 1) for a, b in itertools.pairwise(sizes))
    assert [odd(x) for x in (0, 1, 1.9, 2.1, 4.5, 20)] == [1, 1, 1, 3, 5, 21]


# ---- Sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_an_image_depends_on_its_number_alone(churn, monkeypatch):
    pool, told = shapes(), np.arange(30) % 3
    options = {"churn": churn, "window": "linear", "sampling_steps": 3}
    whole = sampled(pool, told, **options)
    monkeypatch.setattr(local_score, "AT_ONCE", 7)
    for part in (sampled(pool, told, **options), sampled(pool, told[20:], 20, **options)):
        assert abs(part.astype(int) - whole[-len(part) :]).max() <= 1
    assert (sampled(pool, told, **{**options, "churn": 0.5}) != whole).any()


@pytest.mark.parametrize("window", [1, 9, 55])
@pytest.mark.parametrize("t", [999, 500, 99])
def test_float32_is_close_to_float64(window, t):
    images, (a, s) = torch.as_tensor(shapes().images), (float(part[t]) for part in schedule())
    x = a * CONTEXT.pixels(images[:9]) + s * torch.randn(9, 3, 28, 28).double()
    low, high = (
        estimated(x.to(context.numerics.dtype), images, a, s, window, context.pixels).double()
        for context in (Context(Numerics("float32")), CONTEXT)
    )
    assert abs(low - high).max() < 0.01 and abs(low - high).mean() < 1e-5


def test_it_makes_what_it_was_told():
    pool, told = shapes(), np.arange(60) % 3
    grey = sampled(pool, told, sampling_steps=4).mean(1).reshape(60, -1)
    mean = np.array([pool.images[pool.label == k].mean((0, 1)).ravel() for k in range(3)])
    assert (abs(grey[:, None] - mean).sum(2).argmin(1) == told).mean() > 0.9


def test_unknown_conditions_are_refused_and_none_is_fine():
    with pytest.raises(ValueError, match="told condition 3, which its training set does not have"):
        sampled(shapes(), [0, 3], window="linear")
    assert sampled(shapes(), np.arange(0), window="linear").shape == (0, 3, 28, 28)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"window": "square"}, "window must be denoising or linear; got 'square'"),
        ({"largest": 4}, "largest must be odd, a pixel and as many on either side; got 4"),
        ({"smallest": 0}, "smallest must be at least 1; got 0"),
        (
            {"window": "linear", "largest": 5, "smallest": 7},
            "smallest must be at most largest 5; got 7",
        ),
        ({"widen": 0.0}, "widen must be at least 0.01; got 0.0"),
        ({"churn": 1.5}, "churn must be at most 1; got 1.5"),
        ({"levels": "log"}, "levels must be geometric or even; got 'log'"),
        ({"order": 3}, "order must be 1 or 2; got 3"),
        ({"sampling_steps": 1001}, "sampling_steps must be at most 1,000; got 1001"),
    ],
)
def test_options_are_checked(bad, sentence):
    with pytest.raises(ValueError, match=f"^local-score: {sentence}"):
        GENERATORS["local-score"].target(**bad)
