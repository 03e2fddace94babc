"""Filters: which generated images may enter the training set. One decorated function each.

    @FILTERS.register("name", version=1, judge="own")
    def name(images, label, judged, chance, *, option=0.0) -> accepted: ...

images    (N, C, H, W) uint8   candidates, in the order in which the generator made them
label     (N,) int             class that the generator was told
judged    what the judge says about each candidate; the trait `judge` names who that is
          "own"      this generation's first classifier: probabilities (N, n_classes)
          "first"    generation 0's first classifier: probabilities (N, n_classes)
          "expert"   a classifier fitted to instruments, which measures nothing: probabilities (N,
                     n_classes)
          "rates"    the acceptance rate of the candidate's class and probed group in the paired run
                     through the filter that the trait `imitates` names: (N,) float
          "start"    the rate that gives the candidate's group its share in the start: (N,) float
          "ranks"    places of the candidate among a trial batch told its class, by the confidence
                     of this generation's first classifier in that class: shares that are less
                     confident, and no more confident, (N, 2) float
          "clip"     similarity of the candidate and the prompt of its told class, beyond the bar of
                     the class: (N,) float
          no judge   None
chance    (N,) float           uniform in [0, 1); that of a candidate depends on the seed and its
                               number alone
accepted  (N,) bool

The loop draws candidates until every told condition has its quota, at most 5 times as many, or as
the trait `tries` says. Every option has a default; the trait `within` says between which numbers it
lies, `among` which words it may be. The trait `prepare`, a function of options and names of
classes, returns the options of a filter that has found its files, with what they hold and the names
written into them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.registry import FILTERS
from ..models.pretrained import identified, located, prompts_for, require

NO_TEXTS: list = []


@FILTERS.register("none", version=1)
def none(images: np.ndarray, label: np.ndarray, judged: None, chance: np.ndarray) -> np.ndarray:
    """Keep every image."""
    return np.ones(len(images), bool)


def _recognised(label: np.ndarray, probability: np.ndarray, confidence: float) -> np.ndarray:
    """Whether the told class is the most probable one, and at least this probable."""
    return (probability.argmax(1) == label) & (
        probability[np.arange(len(label)), label] >= confidence
    )


@FILTERS.register("classifier", version=1, judge="own", within={"confidence": (0, 1)})
def classifier(
    images: np.ndarray,
    label: np.ndarray,
    judged: np.ndarray,
    chance: np.ndarray,
    *,
    confidence: float = 0.0,
) -> np.ndarray:
    """Keep what the classifier of the same generation recognises as the told class: the two models
    work together.

    confidence  float in [0, 1]   least probability of the told class
    """
    return _recognised(label, judged, confidence)


@FILTERS.register("frozen", version=1, judge="first", within={"confidence": (0, 1)})
def frozen(
    images: np.ndarray,
    label: np.ndarray,
    judged: np.ndarray,
    chance: np.ndarray,
    *,
    confidence: float = 0.0,
) -> np.ndarray:
    """Keep what generation 0's classifier recognises: it saw real data only and learns nothing new.

    confidence  float in [0, 1]   least probability of the told class
    """
    return _recognised(label, judged, confidence)


@FILTERS.register("expert", version=1, judge="expert", within={"confidence": (0, 1)})
def expert(
    images: np.ndarray,
    label: np.ndarray,
    judged: np.ndarray,
    chance: np.ndarray,
    *,
    confidence: float = 0.0,
) -> np.ndarray:
    """Keep what a classifier of real images outside the start recognises: new real information;
    compare with `frozen`.

    confidence  float in [0, 1]   least probability of the told class
    """
    return _recognised(label, judged, confidence)


@FILTERS.register(
    "random-cell", version=1, judge="rates", imitates="classifier", within={"confidence": (0, 1)}
)
def random_cell(
    images: np.ndarray,
    label: np.ndarray,
    judged: np.ndarray,
    chance: np.ndarray,
    *,
    confidence: float = 0.0,
) -> np.ndarray:
    """Keep at random, at the rates at which the paired run accepts each class and group: its shares
    without its selection.

    confidence  float in [0, 1]   option of the paired run's filter `classifier`
    """
    return chance < judged


@FILTERS.register("rebalance", version=1, judge="start", tries=20.0)
def rebalance(
    images: np.ndarray, label: np.ndarray, judged: np.ndarray, chance: np.ndarray
) -> np.ndarray:
    """Keep at random, at rates that give the groups of each class their shares in the start: see
    `decomposition.thinning`.

    As an arm it undoes the drift of shares; as a filter it is a mitigation that needs to know the
    groups.
    """
    return chance < judged


@FILTERS.register(
    "rank",
    version=1,
    judge="ranks",
    among={"keep": ("top", "random", "bottom")},
    within={"share": (0.1, 1)},
    tries=20.0,
)
def rank(
    images: np.ndarray,
    label: np.ndarray,
    judged: np.ndarray,
    chance: np.ndarray,
    *,
    keep: str = "top",
    share: float = 0.5,
) -> np.ndarray:
    """Keep the share of each told class that this generation's classifier is most, or least, sure
    of, or as large a share at random: equal budgets, other images.

    Ranks are those among a trial batch, which is what the generator makes without a filter; of
    candidates with equal confidence chance keeps as many as the share leaves room for.

    keep    text                 top, random or bottom
    share   float in [0.1, 1]    of the candidates of each class
    """
    place = judged[:, 0] + chance * (judged[:, 1] - judged[:, 0])
    if keep == "random":
        return chance < share
    return place >= 1 - share if keep == "top" else place < share


def prepare_clip(options: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Options of `clip` with its prompts written out and its model named by content; what has done
    its work is cleared."""
    require("clip", "transformers")
    if (options["threshold"] > 0) == (options["share"] > 0):
        raise ValueError(
            "clip needs a threshold or a share above 0, the other one 0; got threshold "
            f"{options['threshold']} and share {options['share']}"
        )
    folder = located("clip", options["model"], options["revision"], options["download"], [""])
    texts = prompts_for("clip", options["prompts"], options["template"], classes)
    return {
        **options,
        "prompts": texts,
        "checksum": identified("clip", folder, [""], options["checksum"]),
        "template": "",
        "download": False,
    }


@FILTERS.register(
    "clip",
    version=1,
    judge="clip",
    prepare=prepare_clip,
    within={"threshold": (0, 1), "share": (0, 1)},
)
def clip(
    images: np.ndarray,
    label: np.ndarray,
    judged: np.ndarray,
    chance: np.ndarray,
    *,
    model: str = "openai/clip-vit-base-patch32",
    revision: str = "",
    checksum: str = "",
    download: bool = False,
    template: str = "a photo of a {class}",
    prompts: list = NO_TEXTS,
    threshold: float = 0.0,
    share: float = 0.5,
) -> np.ndarray:
    """Keep images that CLIP finds similar to the prompt of their told class: new information, from
    the web.

    model      a folder, or an id whose files are in the hub's cache; revision, checksum, download
               as of `stable-diffusion`
    template   prompt, {class} standing for the name of the class
    prompts    list of texts       instead of the template: one per class
    threshold  float in [0, 1]     least cosine similarity; with share 0
    share      float in [0, 1]     of each class as large a share, the most similar ones: the bar of
                                   a class is set on a trial batch, which is sampled for that alone;
                                   with threshold 0
    source     Radford et al. 2021 (CLIP); Schuhmann et al. 2022 (filtering by it)
    """
    return judged >= threshold


def acceptance_rates(
    label: np.ndarray, group: np.ndarray, accepted: np.ndarray, n_classes: int, n_groups: int
) -> np.ndarray:
    """Share of candidates accepted in each class and probed group; (n_classes, n_groups + 1), the
    last column: group unclear.

    A cell without a candidate takes the rate of its class; a class without one, 1.
    """
    shape = (n_classes, n_groups + 1)
    at = (label, np.where(group < 0, n_groups, group))
    asked, kept = np.zeros(shape), np.zeros(shape)
    np.add.at(asked, at, 1)
    np.add.at(kept, at, accepted)
    of_class = np.divide(kept.sum(1), asked.sum(1), out=np.ones(n_classes), where=asked.sum(1) > 0)
    return np.divide(
        kept, asked, out=np.repeat(of_class[:, None], shape[1], axis=1), where=asked > 0
    )
