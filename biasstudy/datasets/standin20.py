"""Stand-in for CIFAR-20/100: small pictures of 20 shapes in five looks each, drawn by code. Nested: a look belongs to a shape."""

from collections.abc import Callable

import numpy as np

from ..data import LabeledImages, Source
from ..experiment import DATASETS, seed_for

H = W = 32
N_TRAIN, N_TEST = 300, 60  # images per group
LOOKS = 5                  # groups per class
CELLS, UNIT = 64, 25       # side of a tile in cells; cells per unit of a shape

Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


@DATASETS.register("standin20", version=1)
def standin20() -> Source:
    """Twenty shapes, each in five looks, on patterned grounds.

    what      32 x 32 RGB; label: the shape, one of 20; group: its look, one of five per shape, 100 in all: a pattern, a
              palette, the pattern of the ground and a level of difficulty (contrast to the ground, size, camouflage,
              noise); every image differs in position, size, rotation, mirroring, colours and noise
    options   none
    size      30,000 images to draw from (300 per group), 6,000 of them instruments; 6,000 test images (60 per group)
    licence   none needed, made by code
    get it    nothing to get; drawn in about two seconds
    flaws     nothing like photographs: one object, four colours, no depth; a stand-in where CIFAR cannot be had, so that
              nested designs can be run and tested; what holds here may not hold there
    """
    drawn = [_drawn(part, n) for part, n in (("train", N_TRAIN), ("test", N_TEST))]
    groups = tuple(f"{shape}: {texture}" for shape, row in zip(SHAPES, _LOOK["texture"], strict=True)
                   for texture in np.array(list(TEXTURES))[row])
    return Source(drawn[0], drawn[1], tuple(SHAPES), groups, "nested", "standin20-1", n_instruments=6000)


# ---- Shapes and textures ---------------------------------------------------------------------------------------------

def _disc(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return x * x + y * y < radius * radius


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return (2 * np.abs(x) < width) & (2 * np.abs(y) < height)


def _wedge(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """Triangle with its base on y = 0 and its tip at y = height."""
    return (y > 0) & (2 * np.abs(x) < width * (1 - y / height))


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five-pointed: inside all but at most one of the five sides of a pentagon."""
    sides = np.radians(90 + 36 + 72 * np.arange(5))
    return sum((np.cos(a) * x + np.sin(a) * y < 0.36).astype(int) for a in sides) >= 4


def _flower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    petals = np.radians(90 + 72 * np.arange(5))
    return np.any([_disc(x - 0.57 * np.cos(a), y - 0.57 * np.sin(a), 0.36) for a in petals], 0) & ~_disc(x, y, 0.2)


# inside or not, at x to the right and y upwards, both in -1..1
SHAPES: dict[str, Mask] = {
    "disc": lambda x, y: _disc(x, y, 0.85),
    "ring": lambda x, y: _disc(x, y, 0.95) & ~_disc(x, y, 0.5),
    "square": lambda x, y: _box(x, y, 1.5, 1.5),
    "triangle": lambda x, y: _wedge(x, y + 0.75, 2.0, 1.7),
    "cross": lambda x, y: _box(x, y, 0.6, 1.9) | _box(x, y, 1.9, 0.6),
    "star": _star,
    "heart": lambda x, y: (1.4 * x * x + 1.4 * (y + 0.1) ** 2 - 0.75) ** 3 < 2.2 * x * x * (y + 0.1) ** 3,
    "moon": lambda x, y: _disc(x + 0.1, y, 0.95) & ~_disc(x - 0.35, y - 0.1, 0.75),
    "arrow": lambda x, y: _box(x + 0.4, y, 1.1, 0.44) | _wedge(y, x - 0.1, 1.6, 0.85),
    "hourglass": lambda x, y: (np.abs(x) < 0.12 + 0.75 * np.abs(y)) & (np.abs(y) < 0.9),
    "house": lambda x, y: _box(x, y + 0.4, 1.3, 1.0) & ~_box(x, y + 0.65, 0.36, 0.6) | _wedge(x, y, 1.9, 0.9),
    "drop": lambda x, y: _disc(x, y + 0.3, 0.62) | _wedge(x, y + 0.1, 1.22, 1.1),
    "mushroom": lambda x, y: _disc(x, y + 0.05, 0.92) & (y > 0) | _box(x, y + 0.45, 0.5, 1.0),
    "key": lambda x, y: _disc(x + 0.5, y, 0.48) & ~_disc(x + 0.5, y, 0.2) | _box(x - 0.45, y, 1.1, 0.26)
    | _box(x - 0.85, y + 0.2, 0.24, 0.5) | _box(x - 0.42, y + 0.2, 0.24, 0.5),
    "dumbbell": lambda x, y: _disc(np.abs(x) - 0.6, y, 0.4) | _box(x, y, 1.2, 0.28),
    "flower": _flower,
    "fish": lambda x, y: _disc(x - 0.2, 1.5 * y, 0.72) | _wedge(y, x + 0.95, 1.3, 0.9),
    "tree": lambda x, y: _wedge(x, y - 0.1, 1.2, 0.9) | _wedge(x, y + 0.5, 1.7, 1.0) | _box(x, y + 0.7, 0.34, 0.6),
    "cup": lambda x, y: _box(x + 0.2, y, 1.2, 1.5) | _disc(x - 0.45, y, 0.46) & ~_disc(x - 0.45, y, 0.22),
    "bolt": lambda x, y: (np.abs(x - 0.3 * y + 0.25 * np.sign(y)) < 0.1 + 0.35 * (0.95 - np.abs(y))) & (np.abs(y) < 0.95),
}

# second colour or first, at cell x, y of a tile that repeats every 64 cells, about 24 pixels
TEXTURES: dict[str, Mask] = {
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


def _blotches(smooth: int) -> np.ndarray:
    """Fixed random blotches, larger the more often smoothed; (4 CELLS, 4 CELLS) bool."""
    spots = np.random.default_rng(seed_for("standin20", "blotches", smooth)).integers(-99, 100, (CELLS, CELLS))
    for _ in range(smooth):
        spots = _blurred(spots)
    return np.kron(spots > 0, np.ones((4, 4), bool))


def _blurred(cells: np.ndarray) -> np.ndarray:
    """Sum over 3 x 3 cells; a tile repeats, so its edges meet."""
    return sum(np.roll(cells, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1))  # type: ignore[return-value]


def _tile(mask: np.ndarray) -> np.ndarray:
    """Share of each cell that lies inside, blurred to the width of a pixel; (CELLS * CELLS,) int16, 0..128."""
    share = mask.reshape(CELLS, 4, CELLS, 4).sum((1, 3))
    return (128 * _blurred(share) // 144).astype(np.int16).ravel()


def _tiles(masks: dict[str, Mask]) -> list[np.ndarray]:
    row, column = np.mgrid[:4 * CELLS, :4 * CELLS] / 4 + 1 / 8
    if masks is SHAPES:
        row, column = (CELLS / 2 - row) / UNIT, (column - CELLS / 2) / UNIT
    return [_tile(mask(column, row)) for mask in masks.values()]


# ---- Looks -----------------------------------------------------------------------------------------------------------

# ink and its second colour, ground and its second colour
PALETTES = np.array([[[int(color[i: i + 2], 16) for i in (0, 2, 4)] for color in row.split()] for row in (
    "c8413b e48474 f3e3cf e2c6a6",   # red on cream
    "2f6db5 72a2d7 f4e9c8 e0cd98",   # blue on sand
    "2e8b57 81c08a fbe3e0 eebfbb",   # green on rose
    "7a4fa3 ad8bce e3efd8 bfd6ad",   # purple on lime
    "e08a1e f3bd6a 2f4a6d 47678f",   # orange on navy
    "f2c531 fae38a 5a3d6b 7a5a8c",   # yellow on plum
    "f4f1ea d6d2c9 3f6f63 5b9184",   # white on pine
    "e58fb1 f4c0d3 40404f 5e5e70",   # pink on slate
    "3fb5b5 94dbd7 7b3b34 9c5a50",   # teal on brick
    "3b3b3b 606060 bcd9ea 92b9d2",   # black on sky
)]).reshape(-1, 4, 3)


def _looks() -> dict[str, np.ndarray]:
    """What each group looks like; arrays (classes, LOOKS) int. Every class has every level of difficulty once."""
    rng = np.random.default_rng(seed_for("standin20", "looks"))

    def rows(n: int) -> np.ndarray:
        return rng.permuted(np.tile(np.arange(n), (len(SHAPES), 1)), axis=1)[:, :LOOKS]

    look = {"level": rows(LOOKS), "texture": rows(len(TEXTURES)), "palette": rows(len(PALETTES)), "ground": rows(len(TEXTURES))}
    look["ground"] = np.where(look["level"] >= 3, look["texture"], look["ground"])  # camouflage
    return look


_LOOK = _looks()

# per level of difficulty, 0 the easiest
CONTRAST = (1.0, 0.88, 0.76, 0.65, 0.56)   # of the ink to the ground
RADIUS = (12.0, 11.7, 11.3, 11.0, 10.5)   # of the shape, in pixels
PATTERN = (0.3, 0.33, 0.36, 0.38, 0.4)      # strength of the pattern of the ground
NOISE = (8, 10, 12, 14, 16)              # largest change of a pixel, of 255


# ---- Drawing ---------------------------------------------------------------------------------------------------------

def _drawn(part: str, n: int) -> LabeledImages:
    """n images of every group, by group."""
    shapes, textures = _tiles(SHAPES), _tiles(TEXTURES)
    images = np.empty((len(SHAPES) * LOOKS, n, 3, H, W), np.uint8)
    for g in range(len(images)):
        k, j = divmod(g, LOOKS)
        of = {name: int(table[k, j]) for name, table in _LOOK.items()}
        images[g] = _pictures(shapes[k], textures[of["texture"]], textures[of["ground"]], PALETTES[of["palette"]],
                              of["level"], n, seed_for("standin20", part, g))
    group = np.repeat(np.arange(len(images)), n)
    return LabeledImages(images.reshape(-1, 3, H, W), group // LOOKS, group)


def _pictures(shape: np.ndarray, texture: np.ndarray, ground: np.ndarray, palette: np.ndarray, level: int, n: int,
              seed: int) -> np.ndarray:
    """n images of one group; (N, 3, H, W) uint8. The first ones are the same for every n.

    Pixels are whole numbers throughout (positions in 1/65536 of a cell), so every machine draws the same ones.
    """
    chance = np.random.default_rng(seed)
    luck = np.random.default_rng(chance.integers(2**63)).uniform(-1, 1, (n, 20))
    size, turn = UNIT / RADIUS[level] * (1 + 0.2 * luck[:, 0]), 0.5 * luck[:, 1]    # cells per pixel, radians
    row, column = _positions(size, turn, np.sign(luck[:, 2]), CELLS / 2 + 10 * luck[:, 3:5])
    slip = (CELLS * luck[:, 5:7, None, None]).astype(np.int32)
    strength = texture.take(_at(row + slip[:, 0], column + slip[:, 1]))
    cover = shape.take(_at(row.clip(0, CELLS - 1), column.clip(0, CELLS - 1)))
    row, column = _positions(2.4 + 0.4 * luck[:, 7], 3 * luck[:, 8], np.ones(n), CELLS * luck[:, 9:11])
    behind = ground.take(_at(row, column))

    color = np.repeat(palette[None].astype(float), n, 0)
    color[:, 3] = color[:, 2] + PATTERN[level] * (color[:, 3] - color[:, 2])
    color[:, :2] = color[:, 2:3] + CONTRAST[level] * (color[:, :2] - color[:, 2:3])
    color[:, :2] += 14 * luck[:, None, 11:14]
    color[:, 2:] += 14 * luck[:, None, 14:17]
    color += 12 * luck[:, 17, None, None]
    c = color.clip(0, 255).round().astype(np.int16)[..., None, None]
    inside = c[:, 0] + ((c[:, 1] - c[:, 0]) * strength[:, None] >> 7)
    picture = c[:, 2] + ((c[:, 3] - c[:, 2]) * behind[:, None] >> 7)
    picture += (inside - picture) * cover[:, None] >> 7
    noise = np.frombuffer(chance.bytes(picture.size), np.int8).reshape(picture.shape)
    picture += noise * np.int16(NOISE[level]) >> 7
    return picture.clip(0, 255).astype(np.uint8)


def _at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Index of a cell in a tile that repeats for ever."""
    return (row & CELLS - 1) * CELLS + (column & CELLS - 1)


def _positions(size: np.ndarray, turn: np.ndarray, mirror: np.ndarray, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the cell that each pixel shows; two arrays (N, H, W) int32.

    size     (N,)     cells per pixel
    turn     (N,)     radians
    mirror   (N,)     -1 swaps left and right
    center   (N, 2)   cell in the middle of the image
    """
    across, along = (np.rint(65536 * size * f(turn)).astype(np.int32)[:, None] for f in (np.sin, np.cos))
    start = np.rint(65536 * center).astype(np.int32)[:, :, None]
    y, x = np.arange(H, dtype=np.int32) - H // 2, np.arange(W, dtype=np.int32) - W // 2
    flip = mirror.astype(np.int32)[:, None]
    row = (start[:, 0] + along * y)[:, :, None] + (across * x)[:, None, :]
    column = (start[:, 1] - flip * across * y)[:, :, None] + (flip * along * x)[:, None, :]
    return row >> 16, column >> 16
