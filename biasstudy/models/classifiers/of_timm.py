"""Any classifier of the package timm by its name: timm:convnext_atto."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ...core.places import data_folder
from ...core.registry import CLASSIFIERS
from .imagenet import Library
from .named import Named, classifier_of
from .networks import called


def _names() -> list[str]:
    import timm  # slow to import, and optional

    return sorted({*timm.list_models(), *timm.list_pretrained()})


def _build(network: str) -> nn.Module:
    import timm

    return timm.create_model(network, pretrained=False)


@dataclass(frozen=True)
class OfTimm(Named):
    """A network of timm. Its weights are those of timm's hub, kept as safetensors in the folder
    weights of the data folder.

    raises   ValueError   if the hub has no weights of it, or such that were learned on pixels
                          scaled in another way
    """

    library: ClassVar[Library] = Library("timm", _names, _build)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained and not self.weights:
            usual = self._usual
            if not usual.get("hf_hub_id"):
                raise ValueError(
                    f"{called(self)}: timm's hub has no weights of it; got pretrained true (a file "
                    "of weights can be given: weights: PATH)"
                )
            self.check_scaling(usual["mean"], usual["std"])

    @property
    def _usual(self) -> dict[str, Any]:
        """What timm says of its weights."""
        import timm

        found = timm.get_pretrained_cfg(self.original)
        return found.to_dict() if found else {}

    @property
    def _file(self) -> Path:
        if self.weights:
            return super()._file
        return data_folder() / "weights" / f"{Path(self._usual['hf_hub_id']).name}.safetensors"

    def prepare(self) -> "OfTimm":
        """This model with the name and the sha256 of its file, so that stage keys hold them;
        weights of the hub are downloaded if they are not here and the option says so."""
        if not self.pretrained or self.weights:
            return super().prepare()  # type: ignore[return-value]
        hub, path = self._usual["hf_hub_id"], self._file
        if not path.exists():
            if not self.download:
                raise FileNotFoundError(
                    f"{called(self)}: the pretrained weights {path.name} are not in {path.parent}; "
                    f"put the file model.safetensors of {hub} there under this name, or the option "
                    "download: true fetches it"
                )
            self._from_hub(hub, path)
        return replace(self, download=False, weights=f"weights/{path.name}").prepare()

    def _from_hub(self, hub: str, path: Path) -> None:
        from huggingface_hub import hf_hub_download

        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = hf_hub_download(hub, "model.safetensors", local_dir=path.parent / path.stem)
        except Exception as error:  # the hub's client raises errors of several packages
            reason = " ".join(str(error).split())
            raise OSError(
                f"could not download the weights {hub}: {reason}; put its model.safetensors into "
                f"{path.parent} as {path.name}"
            ) from error
        Path(found).replace(path)


@CLASSIFIERS.family("timm", version=1, warm=True, features=True)
def timm_named(name: str) -> type[Named]:
    """The network NAME of timm as it is, with a new last layer; from scratch or pretrained.

    raises   ValueError   with one sentence if timm is not installed, for a name that it lacks, or a
                          network that is not supported
    """
    if not find_spec("timm"):
        raise ValueError(
            f"the classifier timm:{name} needs the package timm, which is not installed: pip "
            "install timm, or biasstudy with the extra [timm]"
        )
    return classifier_of(OfTimm, name, "timm.list_models()")
