"""Least squares on what patches of the training images see, in closed form."""

import hashlib
from collections import OrderedDict
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.checks import within
from ...core.context import Context
from ...core.noise import generator_for
from ...core.registry import CLASSIFIERS
from ...data.images import LabeledImages

State = dict[str, Tensor]

# Responses computed last, by what they are computed from. Of one batch the same network is asked
# for the class, the group and the features.
_KEPT: OrderedDict[bytes, Tensor] = OrderedDict()
MOST_KEPT = 64 * 2**20  # bytes

PATCHES = 5000  # drawn from a pool, for its whitening; the filters are among them
AT_ONCE = 64  # images whose responses are in memory together
SHARPEST = 100.0  # least squares separates classes by scores of up to about 1


@CLASSIFIERS.register("patch-ridge", version=1, features=True)
@dataclass(frozen=True)
class PatchRidge:
    """Linear one-vs-rest least squares on pooled responses to whitened patches of the pool.

    A patch of size x size pixels in all colours is standardised, p = (patch - mean)/sqrt(variance +
    contrast^2), and whitened, P (p - mu) with P = (covariance + whitening I)^(-1/2). Filters are
    patches of the pool so treated, of length 1. The response of filter f at a place is z = f . P (p
    - mu); max(z - threshold, 0) and max(-z - threshold, 0) are averaged over pool x pool parts of
    the image, standardised over the pool of images, and fitted by least squares with an L2 penalty,
    whose constant is not shrunk. Probabilities are the softmax of t x scores; t, at most 100, makes
    the labels of the training images most probable, each by a fit without it (leave-one-out), so
    they are calibrated for images like those of the pool.

    All is in float64 on the CPU, whatever the numerics. A warm start changes nothing. `features`
    are what the least squares see.

    filters    int >= 1      patches that serve as filters
    size       int >= 2      side of a patch in pixels: 8 for digits and large shapes, 6 for
                             photographs of 32 pixels
    stride     int >= 1      pixels from place to place
    pool       int >= 1      parts of the image, in a row and in a column
    contrast   float > 0     grey levels; patches with less are not blown up, and no filters where
                             there are others
    whitening  float > 0     added to the variances of standardised patches, which are 1 on average
    threshold  float >= 0    responses below it do not count
    penalty    float > 0     of squared weights, times the number of images
    source     Coates and Ng 2011 (random patches as filters, soft threshold, pooling); the
               constants ours
    """

    filters: int = 64
    size: int = 8
    stride: int = 2
    pool: int = 3
    contrast: float = 10.0
    whitening: float = 1.0
    threshold: float = 0.25
    penalty: float = 0.1

    def __post_init__(self) -> None:
        within(
            "patch-ridge",
            self,
            filters=(1, PATCHES),
            size=(2, 64),
            stride=(1, 64),
            pool=(1, 64),
            contrast=(0, 255),
            whitening=(0, 10**6),
            threshold=(0, 10**6),
            penalty=(0, 10**6),
        )
        for name in ("contrast", "whitening", "penalty"):
            if getattr(self, name) == 0:
                raise ValueError(f"patch-ridge: {name} must be above 0; got 0.0")

    def check_side(self, side: int) -> None:
        """ValueError unless a patch fits into images of this side."""
        if self.size > side:
            raise ValueError(
                f"patch-ridge: size must be at most the side of the images; got {self.size} and "
                f"{side}"
            )

    def fit(
        self,
        pool: LabeledImages,
        n_classes: int,
        *,
        seed: int,
        context: Context,
        previous: State | None = None,
    ) -> State:
        self.check_side(pool.images.shape[2])
        state = self._filters(pool.images, seed)
        x = self._responses(state, pool.images)
        # a response that hardly varies stays small
        state |= {"mean": x.mean(0), "spread": x.std(0, correction=0) + 1e-3}
        x = (x - state["mean"]) / state["spread"]
        label = torch.as_tensor(pool.label)
        y = F.one_hot(label, n_classes).double()
        y_mean = y.mean(0)
        weight, leverage = least_squares(x, y - y_mean, len(x) * self.penalty)
        # 1 / n: the constant, which every image moves, too
        others = (leverage + 1 / len(x)).clamp(max=1 - 1e-6)[:, None]
        left_out = y - (y - y_mean - x @ weight) / (1 - others)
        return state | {
            "weight": weight,
            "constant": y_mean,
            "sharpness": torch.tensor(sharpness(left_out, label), dtype=torch.float64),
        }

    def predict(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        scores = self._standardised(state, images) @ state["weight"] + state["constant"]
        return (scores * state["sharpness"]).softmax(1).float().numpy()

    def features(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        """Standardised responses; (N, 2 filters pool^2) float32."""
        return self._standardised(state, images).float().numpy()

    def _standardised(self, state: State, images: np.ndarray) -> Tensor:
        return (self._responses(state, images) - state["mean"]) / state["spread"]

    def _filters(self, images: np.ndarray, seed: int) -> State:
        """Filters that act on pixels, (filters, C, size, size), of mean 0, and what the mean of
        patches answers to each, (filters,)."""
        n, channels, height, width = images.shape
        g, side = generator_for(seed, "patches"), torch.arange(self.size)
        index, row, column = (
            torch.randint(0, most, (PATCHES,), generator=g)
            for most in (n, height - self.size + 1, width - self.size + 1)
        )
        places = (row[:, None, None] + side[:, None], column[:, None, None] + side)
        patches = torch.as_tensor(images)[index[:, None, None], :, *places]
        patches = patches.permute(0, 3, 1, 2).flatten(1)
        # whole numbers: all CPUs agree on which patches are flat
        flat = patches.amax(1).int() - patches.amin(1).int() <= self.contrast
        x = patches.double()
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + self.contrast**2).sqrt()
        mean = x.mean(0)
        x = x - mean
        variance, direction = torch.linalg.eigh(x.T @ x / len(x))
        whiten = (direction / (variance.clamp(min=0) + self.whitening).sqrt()) @ direction.T
        chosen = flat.int().sort(stable=True).indices[: self.filters]
        filters = F.normalize(x[chosen] @ whiten, dim=1) @ whiten
        return {
            "filters": (filters - filters.mean(1, keepdim=True)).reshape(
                -1, channels, self.size, self.size
            ),
            "offset": filters @ mean,
        }

    def _responses(self, state: State, images: np.ndarray) -> Tensor:
        """What each filter answers, above the threshold and below its negative, averaged over parts
        of the image; (N, 2 filters pool^2) float64."""
        key = _digest(asdict(self), state["filters"], state["offset"], images)
        if key in _KEPT:
            return _KEPT[key]
        filters, offset = state["filters"], state["offset"][:, None, None]
        parts = []
        for low in range(0, len(images), AT_ONCE):
            x = torch.as_tensor(images[low : low + AT_ONCE]).double()
            mean, square = (
                F.avg_pool2d(v.mean(1, keepdim=True), self.size, self.stride)
                for v in (x, x.square())
            )
            spread = (square - mean.square() + self.contrast**2).sqrt()
            # in place where it can be: new memory costs more than the numbers
            z = F.conv2d(x, filters, stride=self.stride).div_(spread).sub_(offset)
            above = (z - self.threshold).clamp_(min=0)
            below = z.add_(self.threshold).neg_().clamp_(min=0)
            parts.append(
                torch.cat(
                    [F.adaptive_avg_pool2d(a, self.pool).flatten(1) for a in (above, below)], 1
                )
            )
        responses = torch.cat(parts)
        if responses.nbytes <= MOST_KEPT:
            _KEPT[key] = responses
            while sum(kept.nbytes for kept in _KEPT.values()) > MOST_KEPT:
                _KEPT.popitem(last=False)
        return responses


def _digest(options: dict, *arrays: Tensor | np.ndarray) -> bytes:
    """What names responses: the values they are computed from."""
    digest = hashlib.blake2b(repr(sorted(options.items())).encode())
    for array in map(np.asarray, arrays):
        digest.update(
            f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return digest.digest()


def least_squares(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights W = (X'X + penalty I)^-1 X'Y and leverages, the diagonal of X (X'X + penalty I)^-1
    X', by a system of size n or D, whichever is smaller.

    x, y      (n, D), (n, K) float64, centred
    returns   weights (D, K), leverages (n,) in [0, 1): how much the fit of an image moves with its
              own label
    """
    dual = len(x) < x.shape[1]
    system = x @ x.T if dual else x.T @ x
    system.diagonal().add_(penalty)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
    if dual:
        return x.T @ (inverse @ y), 1 - penalty * inverse.diagonal()
    return inverse @ (x.T @ y), ((x @ inverse) * x).sum(1)


def sharpness(scores: Tensor, label: Tensor) -> float:
    """The t in [0, SHARPEST] at which softmax(t scores) makes the labels most probable, to 1e-6.

    The log probability is concave in t, so halving finds where its slope changes sign.
    """
    # small ones keep their digits, so that all CPUs agree where every label is nearly sure
    margin = scores.gather(1, label[:, None]) - scores
    low, high = 0.0, SHARPEST
    while high - low > 1e-6:
        t = (low + high) / 2
        rising = ((t * scores).softmax(1) * margin).sum() > 0
        low, high = (t, high) if rising else (low, t)
    return low
