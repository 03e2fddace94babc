"""Any classifier of torchvision by its name: torchvision:mobilenet_v3_small."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ...core.checks import meant, shown
from ...core.registry import CLASSIFIERS
from .imagenet import MEAN, SPREAD, Library, Torchvision
from .networks import called

CLASSES = 1000  # of ImageNet, which the networks tell
MOST_TIMES = 16  # that an advice enlarges images
# layers that leave out parts at random would draw from torch's own stream: kind -> its chance
_RANDOM = {
    "Dropout": "p",
    "Dropout1d": "p",
    "Dropout2d": "p",
    "StochasticDepth": "p",
    "DropPath": "drop_prob",
    "DropBlock2d": "drop_prob",
}


@dataclass(frozen=True)
class Named(Torchvision):
    """A network as its library has it, with a new last layer, from scratch or from weights learned
    on ImageNet; without dropout and without stochastic depth.

    Options are those of `Torchvision`. From scratch it sees images as large as they are; most were
    made for 224 pixels, and enlarge: 2 to 4 gives them more to see.

    raises   ValueError   in `check_side` if it cannot see images of that side
    """

    def body(self, channels: int) -> nn.Module:
        if channels != 3:
            raise ValueError(f"{called(self)} sees images in colour; got {channels} channels")
        body = self.library.build(self.original)
        _replace(body, _last_layer(self.library, self.original)[0])
        for module in body.modules():
            if chance := _RANDOM.get(type(module).__name__):
                setattr(module, chance, 0.0)
        return body

    def check_scaling(self, mean: Iterable[float], spread: Iterable[float]) -> None:
        """ValueError with one sentence if weights were learned on pixels of another mean and
        standard deviation than ImageNet's, by colour."""
        if (tuple(mean), tuple(spread)) != (MEAN, SPREAD):
            raise ValueError(
                f"{called(self)}: its weights were learned on pixels scaled by mean "
                f"{tuple(mean)} and spread {tuple(spread)}, which is not done here; got pretrained "
                "true"
            )

    def check_side(self, side: int) -> None:
        """ValueError with one sentence if the network cannot see images of this side, in pixels."""
        factor = self._factor(side)
        if _sees(self.library, self.original, factor * side):
            return
        fitting = [
            n for n in range(1, MOST_TIMES + 1) if _sees(self.library, self.original, n * side)
        ]
        advice = f"enlarge: {fitting[0]} would do" if fitting else "use another network"
        raise ValueError(
            f"{called(self)} cannot see images of {side} x {side} pixels"
            + (f", enlarged to {factor * side}" if factor > 1 else "")
            + f"; {advice}"
        )


@dataclass(frozen=True)
class OfTorchvision(Named):
    """A network of torchvision.

    raises   ValueError   if torchvision has no weights IMAGENET1K_V1 of it, or such that were
                          learned on pixels scaled in another way
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
            self.check_scaling(usual.mean, usual.std)


@CLASSIFIERS.family("torchvision", version=1, warm=True, features=True)
def torchvision_named(name: str) -> type[Named]:
    """The network NAME of torchvision as it is, with a new last layer; from scratch or pretrained.

    raises   ValueError   with one sentence for a name that torchvision lacks, or a network that is
                          not supported: with other outputs beside its last layer, or none such
    """
    return classifier_of(OfTorchvision, name, "torchvision.models.list_models()")


def classifier_of(kind: type[Named], name: str, listing: str) -> type[Named]:
    """The class of classifiers that are one network of a library.

    kind     of this library
    listing  what lists its networks
    raises   ValueError   with one sentence for a name that the library lacks, or a network that is
                          not supported
    """
    library = kind.library
    known = library.names()
    if name not in known:
        raise ValueError(
            f"{library.name} has no classifier {shown(name)}{meant(name, known)}; it has "
            f"{len(known):,}: {known[0]} to {known[-1]}, see {listing}"
        )
    fields: dict[str, Any] = {
        "original": name,
        "width": _last_layer(library, name)[1],
        "__doc__": f"The network {name} of {library.name}, with a new last layer.",
        "__annotations__": {"original": ClassVar[str], "width": ClassVar[int]},
    }
    return dataclass(frozen=True)(type(f"{library.name}:{name}", (kind,), fields))


@functools.cache
def _last_layer(library: Library, name: str) -> tuple[str, int]:
    """Where a network has its last layer, and how many features enter it.

    raises   ValueError   if the network is not supported
    """
    refused = f"{library.name}'s network {name!r} is not supported"
    own = "; there is a classifier squeezenet" if name.startswith("squeezenet") else ""
    try:
        network = library.empty(name)
    # torch's words for: it reads its weights while it is built
    except (NotImplementedError, RuntimeError) as error:
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


def _replace(network: nn.Module, place: str) -> None:
    parent, _, own = place.rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity())


@functools.cache
def _sees(library: Library, name: str, side: int) -> bool:
    """Whether a network has an answer for images of this side, in pixels; found out without
    computing it."""
    place, width = _last_layer(library, name)
    network = library.empty(name).eval()
    _replace(network, place)
    try:
        with torch.inference_mode():
            seen = network(torch.empty(2, 3, side, side, device="meta"))
    except (RuntimeError, AssertionError):  # their words for: too small, or another size expected
        return False
    return tuple(seen.shape) == (2, width)
