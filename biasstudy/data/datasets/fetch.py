"""Downloads of the real data sets, by the libraries that know them: mirrors, checksums and progress
are theirs. What may not be downloaded by a program is described."""

from ...core.checks import unknown
from ...core.places import data_folder


def mnist() -> str:
    """The four MNIST files, through torchvision (its mirror list, its md5 sums), then checked
    against our sha256 sums."""
    from torchvision.datasets import MNIST

    from .colorized_mnist import check_files

    MNIST(str(data_folder()), train=True, download=True)
    check_files(data_folder() / "MNIST" / "raw")
    return "MNIST: 60,000 + 10,000 digits"


def cifar100() -> str:
    """The files of CIFAR-100, through torchvision (its archive, its md5 sums), then checked one by
    one."""
    from torchvision.datasets import CIFAR100

    from .cifar import check_files

    CIFAR100(str(data_folder()), train=True, download=True)
    check_files(data_folder() / "cifar-100-python")
    return "CIFAR-100: 50,000 + 10,000 photographs"


HARD_IMAGENET = """Hard ImageNet is in two parts; get them by hand:

1. Photographs: ImageNet (ILSVRC 2012), train and val, from https://image-net.org (an account
   there; for non-commercial research), of these classes:
{classes}
   Put each class into {images}/train/<wnid>/ and its validation images into {images}/val/<wnid>/.
2. Masks and ranking: from the authors of Hard ImageNet (Moayeri, Singla, Feizi 2022; CC0), from
   https://mmoayeri.github.io/HardImageNet or
   https://umd.box.com/s/ca7qlcfsqlfqul9rzgtuqhb2c6pm62qd (hardImageNet.zip). Put its folders train
   and val (files <wnid>_<file of the photograph>) and paths_by_rank*.pkl into {masks}/.

A subset of the classes is enough: name them with
dataset_options: {{classes: "snorkel, volleyball"}}. Where the folders lie elsewhere, name them
with dataset_options: {{images: PATH, masks: PATH}}.
"""


def hard_imagenet() -> str:
    """What to get, and from whom; then the layout of what is here is checked."""
    from . import hard_imagenet as data_set

    folders = {kind: data_folder() / "hard-imagenet" / kind for kind in ("images", "masks")}
    classes = "\n".join(f"   {wnid} {name}" for name, wnid in data_set.WNIDS.items())
    print(HARD_IMAGENET.format(classes=classes, **folders))
    here = [
        name
        for name, wnid in data_set.WNIDS.items()
        if (folders["images"] / "train" / wnid).is_dir()
    ]
    summaries = []
    for part in data_set.PARTS:
        files, masks, without = data_set.check_layout(folders, part, here or data_set.WNIDS)
        summaries.append(
            f"{part} {len(files):,} photographs, {len(masks):,} masks ({without} without a mask, "
            f"{len(set(masks) - set(files))} masks without a photograph)"
        )
    return f"Hard ImageNet: {len(here)} of 15 classes ({', '.join(here)}): {'; '.join(summaries)}"


FETCHERS = {"mnist": mnist, "cifar100": cifar100, "hard-imagenet": hard_imagenet}


def fetch(name: str) -> None:
    """Download a data set into the data folder and check it.

    raises   ValueError   for an unknown name; OSError with one sentence if no mirror answers
    """
    if name not in FETCHERS:
        raise ValueError(unknown("data set", name, FETCHERS))
    try:
        print(f"{FETCHERS[name]()} in {data_folder()}")
    except RuntimeError as error:  # torchvision's word for: every mirror failed, or a checksum did
        reason = " ".join(str(error).split()).rstrip(".")
        raise OSError(
            f"could not download {name}: {reason}; put its files into {data_folder()} by hand"
        ) from error
