"""Downloads of the real data sets, by the libraries that know them: mirrors, checksums and progress
are theirs. What may not be downloaded by a program is described."""

from collections import Counter

from ...core.checks import listed, unknown
from ...core.places import data_folder, write_text


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


WATERBIRDS = """Waterbirds (Sagawa, Koh, Hashimoto, Liang 2020): birds of CUB-200-2011
(research, not commercial) cut out and put before places of Places365. Get it from its makers, by
hand:

   https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz   (about 500 MB)

and unpack it into {data}. The copy of the WILDS package (a folder waterbirds_v1.0) will do as well.
"""
_BIRDS, _PLACES = ("landbird", "waterbird"), ("land", "water")
# images of each bird and place, in the order of the makers' groups (as in public code that reads
# their table); 4,795 + 1,199 are the 5,994 training images of CUB-200-2011 and 5,794 its test
# images. They publish no checksums
_WATERBIRDS = {
    "train": [[3498, 184], [56, 1057]],
    "validation": [[467, 466], [133, 133]],
    "test": [[2255, 2255], [642, 642]],
}
# as the makers, and as WILDS, call the folder
_WATERBIRD_FOLDERS = ("waterbird_complete95_forest2water2", "waterbirds_v1.0")


def waterbirds() -> str:
    """What to get, and from whom; then a table with the names of birds and places is made from what
    is here, and counts are checked."""
    from ..metadata import examples, rows_of

    print(WATERBIRDS.format(data=data_folder()))
    here = [data_folder() / name for name in _WATERBIRD_FOLDERS if (data_folder() / name).is_dir()]
    if not here:
        raise FileNotFoundError(
            f"Waterbirds: there is no folder {listed(_WATERBIRD_FOLDERS)} in {data_folder()}"
        )
    root = here[0]
    names = {"image": "img_filename", "label": "y", "group": "place", "split": "split"}
    rows = rows_of(root, "metadata.csv", names)
    columns = list(zip(rows.file, rows.label, rows.group, rows.split, strict=True))
    for split, expected in _WATERBIRDS.items():
        found = Counter((y, place) for _, y, place, part in columns if part == split)
        counts = [[found.pop((str(y), str(place)), 0) for place in (0, 1)] for y in (0, 1)]
        if counts != expected or found:
            raise ValueError(
                f"Waterbirds: {root} has {counts} images of {split} by bird and place; its makers "
                f"count {expected}"
            )
    missing = [file for file in rows.file if not (root / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"Waterbirds: images are not in {root}: {examples(missing, len(columns))}; unpack the "
            "archive again"
        )
    lines = [f"{f},{_BIRDS[int(y)]},{_PLACES[int(p)]},{part}" for f, y, p, part in columns]
    write_text(root / "named.csv", "\n".join(["img_filename,y,place,split", *lines]) + "\n")
    return (
        f"Waterbirds: {len(columns):,} photographs, counts as published; to use them: dataset: "
        f"folder, dataset_options: {{root: {root.name}, metadata: named.csv}}, start: as-found;"
    )


FETCHERS = {
    "mnist": mnist,
    "cifar100": cifar100,
    "hard-imagenet": hard_imagenet,
    "waterbirds": waterbirds,
}


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
