"""How the cost of experiments grows: with images, with generations, and with what the store holds
already."""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.numerics import Numerics
from ..core.places import write_text
from ..experiment import Experiment
from ..loop.run import run
from .bench import REPEATS, Report, begin, median_and_range
from .words import place

# Models without steps, whose every image costs something; pools that do not grow with the
# generations
BASE = Experiment(
    dataset="colorized-mnist-5k",
    generator="mixture",
    generator_options={"clusters": 1},
    classifier="ridge",
    instrument="ridge",
    protocol="latest",
    ratio=0.5,
    n_real=100,
    n_test=20,
    n_generations=1,
)
IMAGES, GENERATIONS, STORED = (20, 200, 2000), (1, 10, 100), (1, 10, 100)


def cost_of_images(numerics: Numerics, sizes: Sequence[int], repeats: int) -> Report:
    """Seconds of an experiment by its images in the start; a batch has half as many."""
    return _growth(sizes, lambda n: _computed(replace(BASE, n_real=n), numerics), repeats)


def cost_of_generations(numerics: Numerics, turns: Sequence[int], repeats: int) -> Report:
    """Seconds of an experiment by its generations."""
    return _growth(turns, lambda t: _computed(replace(BASE, n_generations=t), numerics), repeats)


def cost_beside_stored(numerics: Numerics, stored: Sequence[int], repeats: int) -> Report:
    """Seconds to read one finished experiment again, by the number of experiments that the store
    holds."""
    with tempfile.TemporaryDirectory() as folder:

        def again(n: int) -> float:
            run(
                [replace(BASE, seed=s) for s in range(n)],
                numerics=numerics,
                where=folder,
                progress=False,
            )
            return _timed(BASE, numerics, folder)

        return _growth(stored, again, repeats)


def _computed(e: Experiment, numerics: Numerics) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _timed(e, numerics, folder)


def _timed(e: Experiment, numerics: Numerics, folder: str) -> float:
    started = time.perf_counter()
    run(e, numerics=numerics, where=folder, progress=False)
    return time.perf_counter() - started


def _growth(sizes: Sequence[int], seconds: Any, repeats: int) -> Report:
    """Seconds by size, each size `repeats` times, and how they grow.

    exponent   of seconds ~ size^exponent between the largest two sizes: 1 linear, 0 flat
    per_unit   seconds of one more, between the largest two
    """
    seconds(sizes[0])  # data are read and modules imported
    times = {n: [seconds(n) for _ in range(repeats)] for n in sizes}
    (a, b), (s, r) = sizes[-2:], (np.median(times[n]) for n in sizes[-2:])
    return {
        "seconds": {n: median_and_range(values) for n, values in times.items()},
        "exponent": float(np.log(r / s) / np.log(b / a)),
        "per_unit": float((r - s) / (b - a)),
    }


def scaling(numerics: Numerics, quick: bool = False, path: Path | None = None) -> Report:
    """All three, and what they were measured on; written to a JSON file if there is a path."""
    report, repeats = begin(numerics, quick, path), 1 if quick else REPEATS
    growth = {
        "images in the start": cost_of_images(numerics, (20, 40) if quick else IMAGES, repeats),
        "generations": cost_of_generations(numerics, (1, 2) if quick else GENERATIONS, repeats),
        "experiments in the store, reading one": cost_beside_stored(
            numerics, (1, 2) if quick else STORED, repeats
        ),
    }
    report |= {"repeats": repeats, "experiment": BASE.fields(), "growth": growth}
    if path:
        write_text(path, json.dumps(report, indent=1) + "\n")
    return report


def scaling_sentences(report: Report) -> list[str]:
    """The growth in sentences."""
    lines = [
        f"seconds of an experiment (mixture, ridge) on {place(report)}; load of the machine "
        f"{report['load']:.1f}; median of {report['repeats']}"
    ]
    for name, growth in report["growth"].items():
        seconds = ", ".join(f"{n:,}: {s['median']:.3g}" for n, s in growth["seconds"].items())
        lines.append(
            f"{name:38} {seconds}; exponent {growth['exponent']:.2f}, {growth['per_unit']:.2g} s "
            "for one more"
        )
    return lines
