"""Hard ImageNet: photographs of ImageNet whose surroundings give their class away, with masks of
the object. Crossed."""

import contextlib
import hashlib
import io
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.checks import listed, unknown
from ...core.places import data_folder, in_home
from ...core.registry import DATASETS
from ..images import Dataset, LabeledImages
from .cues import GROUPS, STRONG, WEAK, Cues, cues_of

WNIDS = {  # the 15 classes, by their names in ImageNet
    "howler monkey": "n02492660",
    "balance beam": "n02777292",
    "swimming cap": "n02807133",
    "dog sled": "n03218198",
    "horizontal bar": "n03535780",
    "miniskirt": "n03770439",
    "patio": "n03899768",
    "hockey puck": "n04019541",
    "seat belt": "n04162706",
    "ski": "n04228054",
    "snorkel": "n04251144",
    "space bar": "n04264628",
    "sunglasses": "n04356056",
    "volleyball": "n04540053",
    "baseball player": "n09835506",
}
FETCH = "python -m biasstudy fetch hard-imagenet"
PARTS = ("train", "val")
# the authors' ranking of training images, in the folder of masks or its folder meta
RANKS = "paths_by_rank*.pkl"


@DATASETS.register("hard-imagenet", version=1, fetch="hard-imagenet")
def hard_imagenet(
    *,
    classes: str = "",
    size: int = 64,
    instruments: int = 100,
    images: str = "hard-imagenet/images",
    masks: str = "hard-imagenet/masks",
    damaged: str = "stop",
    ranks: str = "auto",
) -> Dataset:
    """Photographs of 15 classes of ImageNet with strong context cues and masks of the object
    (Moayeri et al. 2022).

    what      RGB, the middle square scaled to `size`; label: one of 15 classes ("snorkel"); group:
              strong or weak cue, built by us (see `cues`): whether a fixed classifier, which sees
              the image with the box of the object hidden, has more confidence in the class than the
              median over its instruments
    options   classes      names or wnids, separated by commas; empty: all 15
              size         int 16..512, a multiple of 4: side in pixels; image and mask are cropped
                           alike
              instruments  int, even: training images of each class set aside for the measuring
                           devices and the groups
              images       folder {train,val}/<wnid>/<file>, as ImageNet has it; a relative path
                           starts in the data folder
              masks        folder {train,val}/<wnid>_<file>, as the authors have it; object where a
                           pixel is not black
              damaged      stop, or skip: leave out images that cannot be read, and masks that have
                           no image
              ranks        auto: where the authors' ranking of training images is in the folder of
                           masks, their better and worse half are the groups for the start; never:
                           not even then
    size      about 19,000 images to draw from and 750 test images; images without a mask, or whose
              object lies outside the square, are left out and counted
    start     biased: the share of strong cues in every class is bias + (1 - bias) / 2
    licence   photographs: ImageNet, for non-commercial research; masks: CC0
    get it    python -m biasstudy fetch hard-imagenet (says what to get, from whom; checks the
              layout)
    flaws     groups are a classifier's opinion, not an annotation; people are on many pictures;
              photographs carry the rights and wrongs of the web; models pretrained on ImageNet have
              seen them
    """
    _check_options(size, instruments, damaged, ranks)
    names = class_names(classes)
    folders = {
        "images": data_folder() / in_home(images, "give the option images in full"),
        "masks": data_folder() / in_home(masks, "give the option masks in full"),
    }
    train, test = (_read(folders, part, names, size, damaged == "skip") for part in PARTS)
    checksum = hashlib.sha256((train.checksum + test.checksum).encode()).hexdigest()
    cues = cues_of(train.arrays, test.arrays, instruments, checksum)
    group, ranked = cues.groups(cues.train, train.label), ""
    if ranks == "auto" and (path := next(iter(sorted(folders["masks"].glob(RANKS))), None)):
        group, ranked = ranked_groups(path, train, cues)
        checksum += f" ranked by {hashlib.sha256(path.read_bytes()).hexdigest()}"
    parts = [
        LabeledImages(train.images, train.label, group, mask=train.mask),
        LabeledImages(test.images, test.label, cues.groups(cues.test, test.label), mask=test.mask),
    ]
    boxes = are_boxes(test.mask)
    return Dataset(
        parts[0],
        parts[1],
        names,
        GROUPS,
        "crossed",
        checksum,
        len(cues.set_aside),
        majority=STRONG,
        set_aside=cues.set_aside,
        caption=f"{'box masks' if boxes else 'masks'}, {len(names)} of 15 classes",
        report=tuple(_report(train, test, parts, cues, boxes, ranked, size)),
    )


def _check_options(size: int, instruments: int, damaged: str, ranks: str) -> None:
    if not 16 <= size <= 512 or size % 4:
        raise ValueError(f"size must be a multiple of 4 in 16..512; got {size}")
    if instruments < 20 or instruments % 2:
        raise ValueError(
            "instruments must be an even number of images of each class, at least 20; got "
            f"{instruments}"
        )
    for name, value, known in (
        ("damaged", damaged, ("stop", "skip")),
        ("ranks", ranks, ("auto", "never")),
    ):
        if value not in known:
            raise ValueError(unknown(name, value, known))


def class_names(classes: str) -> tuple[str, ...]:
    """Names of the classes that a text lists, by name or wnid; all 15 for an empty one."""
    by_wnid = {wnid: name for name, wnid in WNIDS.items()}
    asked = (
        [by_wnid.get(part.strip(), part.strip()) for part in classes.split(",")]
        if classes.strip()
        else list(WNIDS)
    )
    for name in asked:
        if name not in WNIDS:
            raise ValueError(unknown("class or wnid", name, WNIDS, "of Hard ImageNet"))
    if len(set(asked)) < max(2, len(asked)):
        raise ValueError(f"classes must be two or more different ones; got {classes!r}")
    return tuple(asked)


# ---- Reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photographs:
    """Images of one part with their masks, and what was left out."""

    images: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    files: tuple[str, ...]  # "<wnid>/<file>"
    checksum: str
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.images, self.mask, self.label


def check_layout(
    folders: dict[str, Path], part: str, names: Iterable[str]
) -> tuple[list[str], dict[str, Path], int]:
    """Files of one part that have image and mask, "<wnid>/<file>" each; the masks by these names;
    images without a mask.

    raises   FileNotFoundError, ValueError   with one sentence for a missing folder, class or mask,
                                             or a mask of no known class
    """
    where = {kind: folder / part for kind, folder in folders.items()}
    for kind, folder in where.items():
        if not folder.is_dir():
            raise FileNotFoundError(
                f"Hard ImageNet: there is no folder {folder} with {kind}; what belongs there: "
                f"{FETCH}"
            )
    known, masks = set(WNIDS.values()), {}
    for path in _files(where["masks"]):
        wnid, _, file = path.name.partition("_")
        if wnid not in known:
            raise ValueError(
                f"Hard ImageNet: {path} is not named <wnid>_<file> with the wnid of one of the 15 "
                f"classes; got wnid {wnid!r}"
            )
        masks[f"{wnid}/{file}"] = path
    if not masks:
        raise FileNotFoundError(
            f"Hard ImageNet: there is no mask at all in {where['masks']}; they come from its "
            f"authors: {FETCH}"
        )
    photographs = []
    for name in names:
        folder = where["images"] / WNIDS[name]
        if not folder.is_dir():
            have = [n for n, wnid in WNIDS.items() if (where["images"] / wnid).is_dir()]
            raise FileNotFoundError(
                f"Hard ImageNet: there is no folder {folder} for the class {name!r}; there: "
                f"{listed(have) or 'none of the 15'} (choose with the option classes)"
            )
        photographs += [f"{folder.name}/{path.name}" for path in _files(folder)]
    class_masks = {
        file: path
        for file, path in masks.items()
        if file.split("/")[0] in {WNIDS[name] for name in names}
    }
    return photographs, class_masks, sum(file not in class_masks for file in photographs)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _read(
    folders: dict[str, Path], part: str, names: tuple[str, ...], size: int, skip: bool
) -> Photographs:
    photographs, masks, without = check_layout(folders, part, names)
    orphans = sorted(set(masks) - set(photographs))
    if orphans and not skip:
        raise ValueError(
            f"Hard ImageNet: {len(orphans)} of {len(masks)} masks in {folders['masks'] / part} "
            f"have no image, first {masks[orphans[0]].name}; get the images, or leave these out "
            "with the option damaged: skip"
        )
    files = [file for file in photographs if file in masks]
    images = np.empty((len(files), 3, size, size), np.uint8)
    mask = np.empty((len(files), size, size), bool)
    digest, bad, good, empty = hashlib.sha256(f"{part} {size}".encode()), [], [], 0
    for i, file in enumerate(files):
        try:
            packed = (folders["images"] / part / file).read_bytes(), masks[file].read_bytes()
            images[i], mask[i], has_object = pair(*packed, size)
        except OSError as error:
            bad.append((file, " ".join(str(error).split())))
            continue
        except ValueError as error:
            raise ValueError(f"Hard ImageNet: {part}/{file}: {error}") from error
        empty += not has_object
        good.append(i)
        digest.update(file.encode() + b"".join(packed))
    if bad and not skip:
        raise ValueError(
            f"Hard ImageNet: {len(bad)} of {len(files)} photographs with masks in {part} cannot be "
            f"read, first {bad[0][0]} ({bad[0][1]}); replace them, or leave them out with the "
            "option damaged: skip"
        )
    keep = np.array([i for i in good if mask[i].any()], np.int64)
    of_class = {WNIDS[name]: k for k, name in enumerate(names)}
    label = np.array([of_class[files[i].split("/")[0]] for i in keep], np.int64)
    for k, name in enumerate(names):
        if not (label == k).any():
            raise ValueError(
                f"Hard ImageNet: the class {name!r} has no image with a mask in {part}; masks come "
                f"from the authors: {FETCH}"
            )
    left_out = {
        "without a mask": without,
        "with an empty mask": empty,
        "with the object outside the square": len(good) - len(keep) - empty,
        "damaged": len(bad),
        "masks without an image": len(orphans),
    }
    return Photographs(
        images[keep], mask[keep], label, tuple(files[i] for i in keep), digest.hexdigest(), left_out
    )


def pair(image: bytes, mask: bytes, size: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """The middle square of an image and of its mask, scaled.

    returns  (3, size, size) uint8; (size, size) bool, where the object touches a pixel, as its
             authors have it; whether the mask marks anything, inside the square or not
    raises   OSError      that says which of the two cannot be read
             ValueError   if their shapes differ
    """
    from PIL import Image

    photo, drawn = _opened("the photograph", image), _opened("the mask", mask)
    (w, h), (v, g) = photo.size, drawn.size
    if abs(w * g - h * v) > max(w, h, v, g):
        raise ValueError(
            f"image and mask must have the same shape; got {w} x {h} and {v} x {g} pixels"
        )
    photo.draft("RGB", (2 * size, 2 * size))  # large JPEGs need not be decoded in full
    marked = _decoded("the mask", drawn, "L").point(lambda level: 255 * (level > 0))
    touched = _square(marked, size, Image.Resampling.BOX) > 0
    pixels = _square(_decoded("the photograph", photo, "RGB"), size, Image.Resampling.BICUBIC)
    return pixels.transpose(2, 0, 1), touched, marked.getbbox() is not None


def _opened(what: str, packed: bytes) -> Any:
    from PIL import Image

    with _blamed_on(what):
        return Image.open(io.BytesIO(packed))


def _decoded(what: str, image: Any, mode: str) -> Any:
    with _blamed_on(what):
        return image.convert(mode)


@contextlib.contextmanager
def _blamed_on(what: str) -> Iterator[None]:
    """Turn what Pillow says of a file into an OSError that names which of two it is."""
    try:
        yield
    except (OSError, SyntaxError) as error:  # SyntaxError: Pillow's word for a broken PNG
        raise OSError(f"{what}: {error}") from error


def _square(image: Any, size: int, how: Any) -> np.ndarray:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return np.asarray(image.resize((size, size), how, box=(left, top, left + side, top + side)))


# ---- Groups and what is said of them -------------------------------------------------------------


class _Plain(pickle.Unpickler):
    """Reads lists, dictionaries, texts and numbers, and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, and only lists of paths are read")


def ranked_groups(path: Path, train: Photographs, cues: Cues) -> tuple[np.ndarray, str]:
    """Groups of training images from the authors' ranking: in each class one half of it is strong,
    the one whose surroundings speak more clearly for the class (the file does not say at which end
    it begins); and a sentence about it.

    raises   ValueError   with one sentence if the file is no mapping of classes to paths that end
                          in <wnid>/<file>
    """
    try:
        with open(path, "rb") as file:
            ranking = _Plain(file).load()
        ranked = ["/".join(str(p).split("/")[-2:]) for paths in ranking.values() for p in paths]
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        TypeError,
        ValueError,
        IndexError,
    ) as error:
        raise ValueError(
            f"Hard ImageNet: {path} is not the authors' ranking, a mapping of classes to lists of "
            f"paths: {error}"
        ) from error
    place = {name: i for i, name in enumerate(ranked)}
    at = np.array([place.get(name, -1) for name in train.files])
    group = cues.groups(cues.train, train.label)
    for k in np.unique(train.label):
        members = np.flatnonzero((train.label == k) & (at >= 0))
        order = members[np.argsort(at[members], kind="stable")]
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        if len(halves[0]):
            first = cues.train[halves[0]].mean() >= cues.train[halves[1]].mean()
            group[halves[0]], group[halves[1]] = (STRONG, WEAK) if first else (WEAK, STRONG)
    return group, (
        f"Training images have the groups of the authors' ranking ({path.name}): its halves in "
        f"each class; {(at < 0).sum()} that it lacks are grouped like test images."
    )


def are_boxes(mask: np.ndarray) -> bool:
    """Whether most masks are filled rectangles: drawn from boxes, not around objects."""
    box = mask.any(1).sum(1) * mask.any(2).sum(1)
    return bool((mask.sum((1, 2)) == box).mean() > 0.5)


def _report(
    train: Photographs,
    test: Photographs,
    parts: list[LabeledImages],
    cues: Cues,
    boxes: bool,
    ranked: str,
    size: int,
) -> Iterable[str]:
    for name, part in (("Training", train), ("Test", test)):
        lost = ", ".join(f"{n} {why}" for why, n in part.left_out.items() if n) or "none"
        yield (
            f"{name}: {len(part.label):,} photographs with masks, {size} x {size} pixels; left "
            f"out: {lost}."
        )
    area = parts[1].mask.mean((1, 2))  # type: ignore[union-attr]
    by_group = [area[parts[1].group == g].mean() for g in (STRONG, WEAK)]
    kind = "Box masks: rectangles, not outlines of objects" if boxes else "Masks"
    yield (
        f"{kind}; they cover {area.mean():.1%} of a test image (strong cue {by_group[0]:.1%}, weak "
        f"cue {by_group[1]:.1%})."
    )
    rest = np.delete(parts[0].group, cues.set_aside)
    yield (
        "Groups: strong cue where a linear classifier of colours and edges outside the object's "
        "box has more confidence in the class than the median over its instruments. It is right "
        f"about {cues.accuracy:.0%} of instruments that it was not fitted to (chance "
        f"{1 / len(cues.threshold):.0%}); strong: {np.mean(rest == STRONG):.0%} of training images "
        f"that are no instruments, {np.mean(parts[1].group == STRONG):.0%} of test images."
    )
    if ranked:
        yield ranked
