"""Linear least squares in closed form."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.checks import within
from ...core.context import Context
from ...core.registry import CLASSIFIERS
from ...data.images import LabeledImages

State = dict[str, Tensor]


@CLASSIFIERS.register("ridge", version=1)
@dataclass(frozen=True)
class Ridge:
    """Linear one-vs-rest least squares on pixels with an L2 penalty, in closed form; the constant
    is not shrunk.

    W = (X'X + n penalty I)^-1 X'Y = X'(XX' + n penalty I)^-1 Y,  X (n, D) pixels 0..1 and Y (n,
    n_classes), both centred; the second form where there are fewer images than pixels. The solution
    is unique: a warm start changes nothing.
    """

    penalty: float = 0.01

    def __post_init__(self) -> None:
        within("ridge", self, penalty=(0, 10**6))
        if self.penalty == 0:
            raise ValueError(f"ridge: penalty must be above 0; got {self.penalty}")

    def fit(
        self,
        pool: LabeledImages,
        n_classes: int,
        *,
        seed: int,
        context: Context,
        previous: State | None = None,
    ) -> State:
        x = _flat(pool.images)
        y = F.one_hot(torch.as_tensor(pool.label), n_classes).double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        weight = _ridge(x - x_mean, y - y_mean, len(x) * self.penalty, dual=len(x) < x.shape[1])
        return {"weight": torch.cat([weight, (y_mean - x_mean @ weight)[None]])}

    def predict(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        weight = state["weight"].double()
        return (_flat(images) @ weight[:-1] + weight[-1]).mul(10).softmax(1).float().numpy()


def _flat(images: np.ndarray) -> Tensor:
    return torch.as_tensor(images).flatten(1).double() / 255


def _ridge(x: Tensor, y: Tensor, penalty: float, dual: bool) -> Tensor:
    """Weights (D, n_classes) of centred x (n, D) and y (n, n_classes), by a system of size n (dual)
    or D."""
    square = x @ x.T if dual else x.T @ x
    square.diagonal().add_(penalty)
    return x.T @ torch.linalg.solve(square, y) if dual else torch.linalg.solve(square, x.T @ y)
