"""Stand-in for CIFAR-20/100: small pictures of 20 shapes, each in five looks, drawn by code.
Nested: a look has one shape."""

from collections.abc import Callable

import numpy as np

from ...core.registry import DATASETS
from ...core.seeds import seed_for
from ..images import Dataset, LabeledImages

H = W = 32
LOOKS = 5  # groups per class
CELLS, UNIT = 64, 25  # side of a tile in cells; cells per unit of a shape
Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


@DATASETS.register("standin20", version=1, stands_for="cifar20")
def standin20() -> Dataset:
    """Twenty shapes, each in five looks, on patterned grounds.

    what      32 x 32 RGB; label: the shape, one of 20; group: its look, five per shape, 100 in all.
              A look is a texture, a palette, a ground and a level of difficulty; images differ in
              place, size, turn, mirroring, colours, noise
    options   none
    size      30,000 images to draw from (300 per group), 6,000 of them instruments; 6,000 test
              images (60 per group)
    licence   none, made by code
    get it    nothing to get; drawn in one or two seconds
    flaws     nothing like photographs (one flat object, four colours); a stand-in where CIFAR
              cannot be had, to try out nested designs; groups are easy to tell inside a class
    """
    groups = tuple(
        f"{list(SHAPES)[g // LOOKS]}: {list(TEXTURES)[t]}" for g, t in enumerate(TEXTURE)
    )
    return Dataset(
        _drawn("train", 300),
        _drawn("test", 60),
        tuple(SHAPES),
        groups,
        "nested",
        "standin20-1",
        n_instruments=6000,
        caption="stand-in data",
    )


# ---- Shapes and textures -------------------------------------------------------------------------


def _disc(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return x * x + y * y < radius * radius


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return (2 * np.abs(x) < width) & (2 * np.abs(y) < height)


def _wedge(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """Triangle with its base on y = 0 and its tip at y = height."""
    return (y > 0) & (2 * np.abs(x) < width * (1 - y / height))


# directions of tips and petals
_FIVE = [(np.cos(a), np.sin(a)) for a in np.radians(90 + 72 * np.arange(5))]

SHAPES: dict[str, Mask] = {  # inside or not, at x to the right and y upwards, both in -1..1
    "disc": lambda x, y: _disc(x, y, 0.85),
    "ring": lambda x, y: _disc(x, y, 0.95) & ~_disc(x, y, 0.5),
    "square": lambda x, y: _box(x, y, 1.5, 1.5),
    "triangle": lambda x, y: _wedge(x, y + 0.75, 2.0, 1.7),
    "cross": lambda x, y: _box(x, y, 0.6, 1.9) | _box(x, y, 1.9, 0.6),
    # behind at most one side of a pentagon
    "star": lambda x, y: np.sum([c * x + s * y > -0.36 for c, s in _FIVE], 0) >= 4,
    "heart": lambda x, y: (
        (1.4 * x * x + 1.4 * (y + 0.1) ** 2 - 0.75) ** 3 < 2.2 * x * x * (y + 0.1) ** 3
    ),
    "moon": lambda x, y: _disc(x + 0.1, y, 0.95) & ~_disc(x - 0.35, y - 0.1, 0.75),
    "arrow": lambda x, y: _box(x + 0.4, y, 1.1, 0.44) | _wedge(y, x - 0.1, 1.6, 0.85),
    "hourglass": lambda x, y: (np.abs(x) < 0.06 + 0.9 * np.abs(y)) & (np.abs(y) < 0.9),
    "house": lambda x, y: (
        _box(x, y + 0.4, 1.3, 1.0) & ~_box(x, y + 0.65, 0.36, 0.6) | _wedge(x, y, 1.9, 0.9)
    ),
    "drop": lambda x, y: _disc(x, y + 0.3, 0.62) | _wedge(x, y + 0.1, 1.22, 1.1),
    "mushroom": lambda x, y: _disc(x, y + 0.1, 1.0) & (y > 0) | _box(x, y + 0.45, 0.4, 1.0),
    "key": lambda x, y: (
        _disc(x + 0.5, y, 0.48) & ~_disc(x + 0.5, y, 0.2)
        | _box(x - 0.45, y, 1.1, 0.26)
        | _box(np.abs(x - 0.63) - 0.22, y + 0.2, 0.24, 0.5)
    ),
    "dumbbell": lambda x, y: _disc(np.abs(x) - 0.6, y, 0.4) | _box(x, y, 1.2, 0.28),
    "flower": lambda x, y: (
        np.any([_disc(x - 0.62 * c, y - 0.62 * s, 0.34) for c, s in _FIVE], 0) & ~_disc(x, y, 0.3)
    ),
    "fish": lambda x, y: _disc(x - 0.2, 1.5 * y, 0.72) | _wedge(y, x + 0.95, 1.3, 0.9),
    "tree": lambda x, y: (
        _wedge(x, y - 0.1, 1.2, 0.9) | _wedge(x, y + 0.5, 1.7, 1.0) | _box(x, y + 0.7, 0.34, 0.6)
    ),
    "cup": lambda x, y: (
        _box(x + 0.2, y, 1.2, 1.5) | _disc(x - 0.45, y, 0.46) & ~_disc(x - 0.45, y, 0.22)
    ),
    "bolt": lambda x, y: (
        (np.abs(x - 0.3 * y + 0.25 * np.sign(y)) < 0.43 - 0.35 * np.abs(y)) & (np.abs(y) < 0.95)
    ),
}

TEXTURES: dict[str, Mask] = {  # second colour or first, at x and y in cells of a tile that repeats
    "plain": lambda x, y: x < 0,
    "striped": lambda x, y: y % 16 < 7,
    "dotted": lambda x, y: _disc(x % 16 - 8, y % 16 - 8, 5),
    "checked": lambda x, y: (x % 16 < 8) ^ (y % 16 < 8),
    "netted": lambda x, y: (x % 16 < 4) | (y % 16 < 4),
    "zigzag": lambda x, y: (y + np.abs(x % 32 - 16)) % 16 < 7,
    "bricked": lambda x, y: (y % 16 < 4) | ((x + y // 16 % 2 * 16) % 32 < 4),
    "scaly": lambda x, y: _disc(x % 16 - 8, y % 16, 8) ^ _disc((x + 8) % 16 - 8, (y + 8) % 16, 8),
    "speckled": lambda x, y: _blotches(1),
    "marbled": lambda x, y: _blotches(3),
}


def _blotches(times: int) -> np.ndarray:
    """Blotches at random places, the same in every call; the more often blurred, the larger."""
    spots = np.random.default_rng(seed_for("standin20", "blotches", times)).integers(
        -99, 100, (CELLS, CELLS)
    )
    for _ in range(times):
        spots = _blurred(spots)
    return np.kron(spots > 0, np.ones((4, 4), bool))


def _blurred(cells: np.ndarray) -> np.ndarray:
    """Sums over 3 x 3 cells, about one pixel; opposite edges meet."""
    return np.sum([np.roll(cells, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], 0)


def _tiles(masks: dict[str, Mask], unit: int = 1, middle: int = 0) -> list[np.ndarray]:
    """How much of each cell lies inside, 0..128, blurred so that pixels may look up one cell;
    (CELLS, CELLS) int16 each."""
    # four points per cell, each way
    at = (np.arange(4 * CELLS) / 4 + 1 / 8 - middle) / unit
    inside = [mask(*np.meshgrid(at, at[::-1] if middle else at)) for mask in masks.values()]
    shares = [mask.reshape(CELLS, 4, CELLS, 4).sum((1, 3)) for mask in inside]
    return [(128 * _blurred(share) // 144).astype(np.int16) for share in shares]


# ---- Looks ---------------------------------------------------------------------------------------

# ink, its second colour, ground, its second colour
PALETTES = np.array(
    [
        list(bytes.fromhex(colors))
        for colors in (
            "c8413b e48377 f3e3cf e2c6a6",  # red on cream
            "2f6db5 72a2d7 f4e9c8 e0cd98",  # blue on sand
            "2e8b57 81c08a fbe3e0 eebfbb",  # green on rose
            "7a4fa3 ad8bce e3efd8 bfd6ad",  # purple on lime
            "e08a1e f3bd6c 2f4a6d 47678f",  # orange on navy
            "f2c531 f9e38a 5a3d6b 7a5a8c",  # yellow on plum
            "f4f1ea d8d4cb 3f6f63 5b9184",  # white on pine
            "e58fb1 f4c0d1 40404f 5e5e70",  # pink on slate
            "3fb5b5 94dbd7 7b3b34 9c5a50",  # teal on brick
            "3b3b3b 606060 bcd9ea 92b9d2",  # black on sky
        )
    ]
).reshape(-1, 4, 3)

# by level of difficulty, 0 the easiest; from level 3 on the ground has the texture of the shape
CONTRAST = (0.95, 0.84, 0.74, 0.66, 0.58)  # of ink to ground
PATTERN = (0.3, 0.33, 0.36, 0.38, 0.4)  # of the second colour of the ground
RADIUS = (12.0, 11.7, 11.3, 11.0, 10.5)  # of the shape, in pixels
NOISE = (8, 10, 12, 14, 16)  # largest change of a pixel, of 255

# of each group, (n_groups,) int: a table drawn once, in which every class meets every level
_RNG = np.random.default_rng(seed_for("standin20", "looks"))
_CHOICES = (LOOKS, len(TEXTURES), len(PALETTES), len(TEXTURES))
LEVEL, TEXTURE, PALETTE, GROUND = (
    _RNG.permuted(np.tile(np.arange(n), (len(SHAPES), 1)), axis=1)[:, :LOOKS].ravel()
    for n in _CHOICES
)
GROUND = np.where(LEVEL >= 3, TEXTURE, GROUND)


# ---- Drawing -------------------------------------------------------------------------------------


def _drawn(part: str, n: int) -> LabeledImages:
    """n images of every group, ordered by group."""
    shapes, textures = _tiles(SHAPES, UNIT, CELLS // 2), _tiles(TEXTURES)
    images = np.empty((len(SHAPES) * LOOKS, n, 3, H, W), np.uint8)
    for g in range(len(images)):
        tiles = (shapes[g // LOOKS], textures[TEXTURE[g]], textures[GROUND[g]])
        images[g] = _pictures(
            tiles, PALETTES[PALETTE[g]], LEVEL[g], n, seed_for("standin20", part, g)
        )
    group = np.repeat(np.arange(len(images)), n)
    return LabeledImages(images.reshape(-1, 3, H, W), group // LOOKS, group)


def _pictures(
    tiles: tuple[np.ndarray, ...], palette: np.ndarray, level: int, n: int, seed: int
) -> np.ndarray:
    """n images of one group, (N, 3, H, W) uint8; fewer images are the first of more.

    tiles    of the shape, its texture and the ground. Pixels are whole numbers all the way, so
             every machine draws the same
    """
    chance = np.random.default_rng([seed, 0]).uniform(-1, 1, (n, 18))
    size, middle = UNIT / RADIUS[level] * (1 + 0.2 * chance[:, 0]), CELLS / 2 + 8 * chance[:, 3:5]
    row, column = _cells(size, 0.5 * chance[:, 1], np.sign(chance[:, 2]), middle)
    cover = _look_up(tiles[0], row.clip(0, CELLS - 1), column.clip(0, CELLS - 1))
    slip = (CELLS * chance[:, 5:7, None, None]).astype(np.int32)
    strength = _look_up(tiles[1], row + slip[:, 0], column + slip[:, 1])
    behind = _look_up(
        tiles[2],
        *_cells(2.4 + 0.4 * chance[:, 7], 3 * chance[:, 8], np.ones(n), CELLS * chance[:, 9:11]),
    )

    ink, ground = palette[:2], palette[2:] * 1.0
    ground[1] = ground[0] + PATTERN[level] * (ground[1] - ground[0])
    ink = ground[0] + CONTRAST[level] * (ink - ground[0])
    tint = 14 * chance[:, 11:17].reshape(n, 2, 1, 3) + 12 * chance[:, 17].reshape(n, 1, 1, 1)
    colors = (np.stack([ink, ground]) + tint).clip(0, 255).round().astype(np.int16)[..., None, None]
    inside = _mixed(colors[:, 0, 0], colors[:, 0, 1], strength)
    picture = _mixed(_mixed(colors[:, 1, 0], colors[:, 1, 1], behind), inside, cover)
    noise = np.frombuffer(np.random.default_rng([seed, 1]).bytes(picture.size), np.int8).reshape(
        picture.shape
    )
    return (picture + (noise * np.int16(NOISE[level]) >> 7)).clip(0, 255).astype(np.uint8)


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    # 255 * 128 just fits int16
    return first + ((second - first) * share[:, None] >> 7)


def _look_up(tile: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    # tiles repeat: modulo CELLS
    return tile.ravel().take((row & CELLS - 1) * CELLS + (column & CELLS - 1))


def _cells(
    size: np.ndarray, turn: np.ndarray, mirror: np.ndarray, middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column (N, H, W) int32 of the cell that each pixel shows: `size` (N,) cells per
    pixel, turned by `turn` (N,) radians, left and right swapped where `mirror` (N,) is -1, cell
    `middle` (N, 2) in the middle of the image."""
    sin, cos = (np.rint(65536 * size * f(turn)).astype(np.int32)[:, None] for f in (np.sin, np.cos))
    start = np.rint(65536 * middle).astype(np.int32)[:, :, None]
    flip = mirror.astype(np.int32)[:, None]
    y, x = np.arange(H, dtype=np.int32) - H // 2, np.arange(W, dtype=np.int32) - W // 2
    row = (start[:, 0] + cos * y)[:, :, None] + (sin * x)[:, None, :]
    column = (start[:, 1] - flip * sin * y)[:, :, None] + (flip * cos * x)[:, None, :]
    # from 1/65536 of a cell
    return row >> 16, column >> 16
