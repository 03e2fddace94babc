"""Photographs in files of any kind: their checksums and their pixels, each found out once.

Both are kept in the data folder, in `folders`: checksums by size and time of a file, pixels by the
checksums of all files and the side that they are scaled to.
"""

import concurrent.futures
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.places import data_folder, read_text, replacing, watched, write_text
from ..core.seeds import digest

VERSION = 1  # of what is made of a file
CHUNK = 500  # files that one thread reads at a time


def kept() -> Path:
    """Folder of checksums and pixels."""
    return data_folder() / "folders"


def checksums(root: Path, files: Sequence[str]) -> list[str]:
    """The first 32 digits of the sha256 of each file; "" of one that is not there.

    A file whose size and time are those of last time is not read again.
    """
    path = kept() / f"{digest(str(root.resolve()), 16)}.json"
    known: dict[str, list[Any]] = {}
    if path.is_file():
        with contextlib.suppress(ValueError):  # not whole: all is found out again
            known = json.loads(read_text(path))
    now: dict[str, list[Any]] = {}

    def checksum(file: str) -> str:
        place = root / file
        try:
            seen = place.stat()
            if not place.is_file():
                return ""
            old = known.get(file, [])
            if old[:2] == [seen.st_size, seen.st_mtime_ns]:
                now[file] = old
            else:
                found = hashlib.sha256(place.read_bytes()).hexdigest()[:32]
                now[file] = [seen.st_size, seen.st_mtime_ns, found]
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return ""
        return now[file][2]

    found = _in_threads(checksum, files, "checksums")
    # another table of this folder may name other files
    together = known | now
    if together != known:
        _keep(lambda: write_text(path, json.dumps(together)))
    return found


@dataclass(frozen=True)
class Pixels:
    """Photographs as they were read.

    images  (N, 3, size, size) uint8, which may lie in a file; those that cannot be read are black
    side    (N,) int: pixels of the middle square before it was scaled; 0 of one that cannot be read
    bad     position -> why it cannot be read
    """

    images: np.ndarray
    side: np.ndarray
    bad: dict[int, str]


def pixels(root: Path, files: Sequence[str], sums: Sequence[str], size: int) -> Pixels:
    """The middle square of each photograph, scaled to size x size pixels.

    sums     of the files, by `checksums`
    """
    name = digest([VERSION, size, list(sums)], 32)
    path, beside = kept() / f"{name}.npy", kept() / f"{name}.json"
    if path.is_file() and beside.is_file():
        told = json.loads(read_text(beside))
        if "side" in told:  # else an earlier release kept it: all is read again
            bad = {int(i): why for i, why in told["bad"].items()}
            return Pixels(np.load(path, mmap_mode="r"), np.array(told["side"], np.int64), bad)
    images = np.zeros((len(files), 3, size, size), np.uint8)
    side = np.zeros(len(files), np.int64)
    bad, passing = {}, []

    def read(i: int) -> None:
        try:
            packed = (root / files[i]).read_bytes()
            images[i] = photograph(packed, size)
            side[i] = side_of(packed)
        except Exception as error:  # Pillow answers a damaged file with nearly anything
            bad[i] = " ".join(str(error).split()) or type(error).__name__
            # the system's word, such as too many open files, says nothing of the photograph
            if isinstance(error, MemoryError) or getattr(error, "errno", None):
                passing.append(i)

    _in_threads(read, range(len(files)), "photographs")
    bad = dict(sorted(bad.items()))
    if not passing:  # what may be well next time is found out again
        record = json.dumps({"side": side.tolist(), "bad": bad})
        _keep(lambda: write_text(beside, record))
        _keep(lambda: _save(path, images))
    return Pixels(images, side, bad)


def _save(path: Path, images: np.ndarray) -> None:
    with replacing(path) as partial, open(partial, "wb") as file:
        np.save(file, images)


def _keep(write: Callable[[], None]) -> None:
    """Write what only saves time; where it cannot be written it is found out again next time."""
    with contextlib.suppress(OSError):
        kept().mkdir(parents=True, exist_ok=True)
        write()


def _in_threads(work: Callable[[Any], Any], items: Sequence[Any], what: str) -> list[Any]:
    """The work done on every item, in order. (Pillow decodes and scales without Python's lock.)"""
    from tqdm.auto import tqdm

    def part(low: int) -> list[Any]:
        return [work(item) for item in items[low : low + CHUNK]]

    found: list[Any] = []
    shown = watched() and len(items) > 2 * CHUNK
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(items), desc=what, leave=False, disable=not shown) as bar,
    ):
        for done in pool.map(part, range(0, len(items), CHUNK)):
            found += done
            bar.update(len(done))
    return found


def photograph(packed: bytes, size: int) -> np.ndarray:
    """The middle square of one photograph, as a camera meant it to stand, scaled with antialiasing.

    Transparent pixels become white; grey levels of 16 bits become 8; of several frames the first
    counts. A photograph of that very size stays as it is, bit by bit.

    packed   content of a file that Pillow reads
    returns  (3, size, size) uint8, RGB
    raises   nearly anything, of a damaged file; ValueError if pixels are numbers without a range
    """
    from PIL import Image, ImageOps

    with _opened(packed) as image:
        image.draft("RGB", (2 * size, 2 * size))  # large JPEGs need not be decoded in full
        upright = ImageOps.exif_transpose(image)
    rgb = _rgb(upright)
    width, height = rgb.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    scaled = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(scaled).transpose(2, 0, 1)


def side_of(packed: bytes) -> int:
    """Pixels of the side of the middle square of a photograph, as it is in the file."""
    with _opened(packed) as image:
        return min(image.size)


def _opened(packed: bytes) -> Any:
    """The file as Pillow opens it; ValueError if it is of no kind that Pillow knows."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(packed))
    except UnidentifiedImageError as error:  # it would name the bytes by their address
        what = "it is empty" if not packed else "it is no image of a known kind, or damaged"
        raise ValueError(what) from error


def _rgb(image: Any) -> Any:
    """An image of any mode in RGB."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are fractions, of which nobody says the range")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.size and (levels.min() < 0 or levels.max() > 65535):
            raise ValueError(
                f"its pixels are {levels.min()} to {levels.max()}, more than 16 bits hold"
            )
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        ground = Image.new("RGBA", solid.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, solid).convert("RGB")
    return image.convert("RGB")
