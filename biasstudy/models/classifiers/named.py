"""Any classifier of torchvision by its name: torchvision:mobilenet_v3_small."""

import functools
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ...core.checks import meant, shown
from ...core.registry import CLASSIFIERS
from .imagenet import MEAN, SPREAD, Torchvision
from .networks import called

CLASSES = 1000  # of ImageNet, which the networks of torchvision tell
MOST_TIMES = 16  # that an advice enlarges images
# layers that leave out parts at random would draw from torch's own stream
_RANDOM = ("Dropout", "StochasticDepth")


@dataclass(frozen=True)
class Named(Torchvision):
    """A network of torchvision as torchvision has it, with a new last layer, from scratch or from
    weights learned on ImageNet; without dropout and without stochastic depth.

    Options are those of `Torchvision`. From scratch it sees images as large as they are; most were
    made for 224 pixels, and enlarge: 2 to 4 gives them more to see.

    raises   ValueError   if torchvision has no weights IMAGENET1K_V1 of it; in `check_side` if it
                          cannot see images of that side
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and not self.weights:
            from torchvision.models import get_model_weights  # slow to import

            there = {weights.name: weights for weights in get_model_weights(self.original)}
            if "IMAGENET1K_V1" not in there:
                raise ValueError(
                    f"{called(self)}: torchvision has no weights IMAGENET1K_V1 of it; got "
                    "pretrained true (a file of weights can be given: weights: PATH)"
                )
            usual = there["IMAGENET1K_V1"].transforms()
            if (tuple(usual.mean), tuple(usual.std)) != (MEAN, SPREAD):
                raise ValueError(
                    f"{called(self)}: its weights were learned on pixels scaled by mean "
                    f"{tuple(usual.mean)} and spread {tuple(usual.std)}, which is not done here; "
                    "got pretrained true"
                )

    def body(self, channels: int) -> nn.Module:
        body, head = _in_parts(self.original)
        if channels != 3:
            raise ValueError(f"{called(self)} sees images in colour; got {channels} channels")
        _replace(body, head)
        for module in body.modules():
            if type(module).__name__ in _RANDOM:
                module.p = 0.0  # type: ignore[assignment]
        return body

    def check_side(self, side: int) -> None:
        """ValueError with one sentence if the network cannot see images of this side, in pixels."""
        factor = self._factor(side)
        if _sees(self.original, factor * side):
            return
        fitting = [n for n in range(1, MOST_TIMES + 1) if _sees(self.original, n * side)]
        advice = f"enlarge: {fitting[0]} would do" if fitting else "use another network"
        raise ValueError(
            f"{called(self)} cannot see images of {side} x {side} pixels"
            + (f", enlarged to {factor * side}" if factor > 1 else "")
            + f"; {advice}"
        )


@CLASSIFIERS.family("torchvision", version=1, warm=True, features=True)
def torchvision_named(name: str) -> type[Named]:
    """The network NAME of torchvision as it is, with a new last layer; from scratch or pretrained.

    raises   ValueError   with one sentence for a name that torchvision lacks, or a network that is
                          not supported: with other outputs beside its last layer, or none such
    """
    known = _known()
    if name not in known:
        raise ValueError(
            f"torchvision has no classifier {shown(name)}{meant(name, known)}; it has "
            f"{len(known)}: {known[0]} to {known[-1]}, see torchvision.models.list_models()"
        )
    layer = _last_layer(name)
    fields: dict[str, Any] = {
        "original": name,
        "width": layer[1],
        "__doc__": f"The network {name} of torchvision, with a new last layer.",
        "__annotations__": {"original": ClassVar[str], "width": ClassVar[int]},
    }
    return dataclass(frozen=True)(type(f"torchvision:{name}", (Named,), fields))


def _known() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)


@functools.cache
def _last_layer(name: str) -> tuple[str, int]:
    """Where a network has its last layer, and how many features enter it.

    raises   ValueError   if the network is not supported
    """
    refused = f"torchvision's network {name!r} is not supported"
    own = "; there is a classifier squeezenet" if name.startswith("squeezenet") else ""
    try:
        network = _empty(name)
    except NotImplementedError as error:  # torch's word for: it reads its weights while it is built
        raise ValueError(f"{refused}: it cannot be looked at without its weights") from error
    layers = [
        (place, module.in_features)
        for place, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == CLASSES
    ]
    if len(layers) != 1:
        raise ValueError(
            f"{refused}: it has {len(layers)} linear layers that tell the {CLASSES:,} classes of "
            f"ImageNet, and one is expected{own}"
        )
    return layers[0]


def _in_parts(name: str) -> tuple[nn.Module, str]:
    """A network of torchvision with weights drawn at random, and where its last layer is."""
    from torchvision import models

    return getattr(models, name)(weights=None), _last_layer(name)[0]


def _empty(name: str) -> nn.Module:
    """A network of torchvision without memory for its weights."""
    from torchvision import models

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of how weights will be drawn
        return getattr(models, name)(weights=None)


def _replace(network: nn.Module, place: str) -> None:
    parent, _, own = place.rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity())


@functools.cache
def _sees(name: str, side: int) -> bool:
    """Whether a network has an answer for images of this side, in pixels; found out without
    computing it."""
    network = _empty(name).eval()
    _replace(network, _last_layer(name)[0])
    try:
        with torch.inference_mode():
            seen = network(torch.empty(2, 3, side, side, device="meta"))
    except (RuntimeError, AssertionError):  # their words for: too small, or another size expected
        return False
    return tuple(seen.shape) == (2, _last_layer(name)[1])
