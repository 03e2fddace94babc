"""Networks of torchvision, from scratch for small images or pretrained on ImageNet."""

import functools
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...core.checks import WEIGHT, within
from ...core.places import data_folder, in_home
from ...core.registry import CLASSIFIERS
from .networks import Deep, State, called

# of ImageNet's pixels 0..1, by colour
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# about, to which images are enlarged for its weights
SIDE = 96


@dataclass(frozen=True)
class Library:
    """Where networks come from.

    names   -> names of its networks
    build   name -> network with weights drawn at random
    """

    name: str
    names: Callable[[], list[str]]
    build: Callable[[str], nn.Module]

    def empty(self, network: str) -> nn.Module:
        """A network without memory for its weights."""
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of how weights will be drawn
            return self.build(network)


def _names() -> list[str]:
    from torchvision import models  # slow to import

    return models.list_models(module=models)


def _build(network: str) -> nn.Module:
    from torchvision import models

    return getattr(models, network)(weights=None)


TORCHVISION = Library("torchvision", _names, _build)


@dataclass(frozen=True)
class Torchvision(Deep):
    """A network of torchvision with a new last layer, from scratch or from weights learned on
    ImageNet.

    From scratch the first convolution has stride 1, so that small images keep their size.
    Pretrained, the network is as it was; images are enlarged (bilinear) and given ImageNet's mean
    and spread.

    pretrained  bool           torchvision's weights IMAGENET1K_V1, a file in the folder weights of
                               the data folder
    download    bool           whether that file may be downloaded if it is not there; no part of
                               stage keys
    weights     str            or a file of such weights (torch.save or safetensors); a relative
                               path starts in the data folder
    sha256      str            of that file; `prepare` fills it in, so that stage keys hold it; one
                               that is given must be right
    enlarge     int >= 0       times the side of images; 0: 1 from scratch, to about 96 pixels
                               pretrained
    tuning      float >= 0     rate of pretrained weights / rate of the new layer; 0: they stay as
                               they are (the statistics of batch normalisation still follow the
                               pool)
    raises      ValueError     in `prepare` and `fit` if the file is missing, damaged, another than
                               sha256 says, or of another network
                OSError        there, if weights are not here or cannot be
                               downloaded
    """

    pretrained: bool = False
    download: bool = field(default=False, metadata={"in_keys": False})
    weights: str = ""
    sha256: str = ""
    enlarge: int = 0
    tuning: float = 0.1

    recipe: ClassVar[tuple[str, ...]] = (*Deep.recipe, "tuning", "download")
    library: ClassVar[Library] = TORCHVISION
    original: ClassVar[str]  # its name there
    width: ClassVar[int]  # of its features

    def __post_init__(self) -> None:
        super().__post_init__()
        within(called(self), self, enlarge=(0, 64), tuning=WEIGHT)
        object.__setattr__(self, "pretrained", self.pretrained or bool(self.weights))
        if self.sha256 and not self.weights:
            raise ValueError(
                f"{called(self)}: sha256 belongs to weights, but no file is given; got "
                f"{self.sha256!r}"
            )
        if self.download and (self.weights or not self.pretrained):
            raise ValueError(
                f"{called(self)}: download fetches {self.library.name}'s weights (pretrained: "
                "true); got "
                + (f"weights {self.weights!r}" if self.weights else "pretrained false")
            )
        if not self.pretrained and self.tuning != Torchvision.tuning:
            raise ValueError(
                f"{called(self)}: tuning is used by pretrained weights alone; got {self.tuning}"
            )

    @property
    def prior(self) -> str:
        """Data that the first weights were learned from: "imagenet", or "" from scratch."""
        return "imagenet" if self.pretrained else ""

    def body(self, channels: int) -> nn.Module:
        """Everything before the last layer, parameters named as in torchvision."""
        raise NotImplementedError

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        factor = self._factor(height)
        before: list[nn.Module] = (
            [nn.Upsample(scale_factor=factor, mode="bilinear")] if factor > 1 else []
        )
        before += [_Standard()] if self.pretrained else []
        return nn.Sequential(*before, self.body(channels), nn.Linear(self.width, n_classes))

    def _factor(self, height: int) -> int:
        return self.enlarge or (max(1, round(SIDE / height)) if self.pretrained else 1)

    def _at_once(self, height: int) -> int:
        return max(1, 2**27 // (self.width * (self._factor(height) * height) ** 2))

    def _shares(self, network: nn.Sequential) -> list[dict[str, Any]]:
        parts = ((network[:-1], self.tuning if self.pretrained else 1.0), (network[-1], 1.0))
        return [{"params": list(part.parameters()), "share": share} for part, share in parts]

    # -- pretrained weights

    @functools.cached_property
    def _url(self) -> str:
        from torchvision.models import get_model_weights  # slow to import

        return get_model_weights(self.original)["IMAGENET1K_V1"].url

    @property
    def _file(self) -> Path:
        if self.weights:
            return data_folder() / in_home(self.weights, "give the option weights in full")
        return data_folder() / "weights" / Path(self._url).name

    def prepare(self) -> "Torchvision":
        """This model with the sha256 of its file; pretrained weights of torchvision are downloaded
        if they are not here and the option says so."""
        if not self.pretrained:
            return self
        if not self.weights and not self._file.exists():
            if not self.download:
                raise FileNotFoundError(
                    f"{called(self)}: the pretrained weights {self._file.name} are not in "
                    f"{self._file.parent}; put the file there (it is at {self._url}), or the "
                    "option download: true fetches it"
                )
            self._fetch()
        checksum = self._checked()
        return replace(self, sha256=checksum) if self.weights else self

    def _fetch(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                self._url, str(self._file), _hash_in(self._file), progress=False
            )
        # RuntimeError: other content than its name says
        except (OSError, HTTPException, RuntimeError) as error:
            raise OSError(
                f"could not download {self._url}: {' '.join(str(error).split())}; put that file "
                f"into {self._file.parent}, or give {called(self)} a file of its own (weights: "
                "PATH)"
            ) from error

    def _checked(self) -> str:
        """sha256 of the file, which is whole and holds this network."""
        path = self._file
        try:
            checksum = _sha256(path, self.library, self.original, path.stat().st_mtime_ns)
        except OSError as error:
            raise ValueError(
                f"{called(self)}: weights {path} cannot be read: {error.strerror or error} (a "
                f"relative path starts in {data_folder()})"
            ) from error
        expected = self.sha256 if self.weights else _hash_in(path)
        if not checksum.startswith(expected):
            raise ValueError(
                f"{called(self)}: weights {path} have sha256 {checksum}, expected {expected}; the "
                "file changed"
            )
        return checksum

    def _inherit(self, network: nn.Sequential, images: np.ndarray) -> None:
        if self.pretrained:
            self.prepare()
            body = network[-2]
            weights = {
                name: value
                for name, value in _read(self._file, self.library, self.original).items()
                if name in body.state_dict()
            }
            # strict about counters of batches, which old files lack
            body.load_state_dict(weights, strict=False)


class _Standard(nn.Module):
    """Pixels -1..1 as numbers with mean 0 and standard deviation 1 over ImageNet."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        # float64: rounded once, to the numerics
        for name, values in (("mean", MEAN), ("spread", SPREAD)):
            self.register_buffer(
                name, torch.tensor(values, dtype=torch.float64)[:, None, None], persistent=False
            )

    def forward(self, x: Tensor) -> Tensor:
        return (x / 2 + 0.5 - self.mean) / self.spread


def _hash_in(path: Path) -> str:
    """First digits of the sha256 of a file of torchvision, which its name ends in."""
    return path.stem.rpartition("-")[2]


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, library: Library, original: str, changed: int) -> str:
    """sha256 of a file of weights, read through and checked once."""
    _read(path, library, original)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, library: Library, original: str) -> State:
    """Tensors of a network of a library, by its names; ValueError with one sentence unless it has
    all, and no other."""
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, "cpu", weights_only=True)
        )
    except OSError:
        raise
    except Exception as error:  # reading a damaged file raises nearly anything
        raise ValueError(
            f"weights {path} are truncated, altered, or not of torch.save or safetensors"
        ) from error
    named = content if isinstance(content, dict) else {}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    expected = library.empty(original).state_dict()
    for name in {**expected, **tensors}:
        shapes = [
            tuple(part[name].shape) if name in part else "no tensor" for part in (expected, tensors)
        ]
        if shapes[0] != shapes[1] and not name.endswith("num_batches_tracked"):
            raise ValueError(
                f"weights {path} are not those of {library.name}'s {original} for the 1,000 "
                f"classes of ImageNet: {name!r} is {shapes[1]}, expected {shapes[0]}"
            )
    return tensors


@dataclass(frozen=True)
class ResNet(Torchvision):
    """A residual network, as torchvision has it or with a first layer for small images."""

    def body(self, channels: int) -> nn.Module:
        from torchvision import models

        body = getattr(models, self.original)(weights=None)
        if not self.pretrained:
            body.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
            # as its other convolutions
            nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
            body.maxpool = nn.Identity()
        body.fc = nn.Identity()
        return body


@CLASSIFIERS.register("resnet18", version=1, warm=True, features=True)
@dataclass(frozen=True)
class ResNet18(ResNet):
    """The 18-layer residual network of He et al. 2016, from scratch for small images or pretrained
    on ImageNet.

    (From scratch it has a 3 x 3 convolution of stride 1 in place of 7 x 7 of stride 2, and no
    pooling after it, as is usual for CIFAR.)

    The usual recipe for all of CIFAR-100 is optimizer sgd, rate 0.1, decay 5e-4, batch 128, shift
    4, flip, 200 passes (75.6 % of the 100 classes: weiaicunzai/pytorch-cifar100, with falling steps
    where the rate here follows a cosine).
    """

    original: ClassVar[str] = "resnet18"
    width: ClassVar[int] = 512


@CLASSIFIERS.register("resnet50", version=1, warm=True, features=True)
@dataclass(frozen=True)
class ResNet50(ResNet):
    """The 50-layer residual network of He et al. 2016, from scratch for small images or pretrained
    on ImageNet."""

    original: ClassVar[str] = "resnet50"
    width: ClassVar[int] = 2048


@CLASSIFIERS.register("squeezenet", version=1, warm=True, features=True)
@dataclass(frozen=True)
class SqueezeNet(Torchvision):
    """SqueezeNet 1.1 of Iandola et al. 2016, from scratch for small images or pretrained on
    ImageNet; without dropout.

    (From scratch its first convolution has stride 1, pooling stays, and every convolution is
    followed by batch normalisation, without which it hardly learns in hundreds of steps. Its last
    convolution is a linear layer after the mean over pixels.)
    """

    original: ClassVar[str] = "squeezenet1_1"
    width: ClassVar[int] = 512

    def body(self, channels: int) -> nn.Module:
        from torchvision.models import squeezenet

        body = squeezenet.squeezenet1_1(weights=None)
        if not self.pretrained:
            first = nn.Conv2d(channels, 64, 3, padding=1)
            # as its other convolutions
            nn.init.kaiming_uniform_(first.weight)
            body.features[0] = _normalised(first)
            for fire in body.features:
                for name in (
                    ("squeeze", "expand1x1", "expand3x3")
                    if isinstance(fire, squeezenet.Fire)
                    else ()
                ):
                    setattr(fire, name, _normalised(getattr(fire, name)))
        body.classifier = nn.AdaptiveAvgPool2d(1)
        return body


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
