"""How fast this device is, how fast it fits and samples every registered model, and what the loop
adds to that.

A report is of one device in the same few minutes, so that rates stand beside the matrix product and
the copy that the device reached then. A measurement is `REPEATS` blocks after a warm-up: their
median, lowest and highest. The clock of a fit is read by its progress function between two
optimiser steps, so that set-up cancels.
"""

import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..core.checks import listed, meant
from ..core.context import Context
from ..core.noise import noise
from ..core.numerics import Numerics
from ..core.places import write_text
from ..core.provenance import environment, peak_memory_mb
from ..core.registry import CLASSIFIERS, GENERATORS, Entry
from ..core.store import Stage, needed_by
from ..data.images import LabeledImages
from ..data.real import real_data
from ..experiment import Experiment, experiment_from
from ..loop.generations import generations
from ..loop.progress import Progress
from ..loop.run import open_store, results_of, run
from ..loop.stages import tensors

REPEATS = 3
# a block of many steps is a multiple of this: `gan` adds its gradient penalty every 16th step
ROUND = 16
N_POOL, N_SAMPLE = 1000, 512
LOOP = "loop"  # how --only names the whole experiment
PARTS = {
    "classifier": "fit",
    "generator": "fit",
    "instrument": "instruments",
    "batch": "sample",
    "grid": "sample",
    "relabelled": "sample",
    "balanced": "sample",
    "served": "sample",
    "filtered": "filter",
    "decisions": "filter",
    "acceptance": "filter",
    "thinning": "filter",
    "bar": "filter",
    "real-shares": "sample",
    "real-noise": "sample",
    "telling": "probe",
    "prediction": "probe",
    "spurious": "probe",
    "feature scale": "quality",
    "features": "quality",
    "quality": "quality",
    "fitness": "quality",
    "confidences": "filter",
}

Report = dict[str, Any]  # JSON
State = dict[str, torch.Tensor]


# ---- The clock -----------------------------------------------------------------------------------


def median_and_range(values: Collection[float]) -> Report:
    """Median, lowest and highest of repeated measurements, and how many they are."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "n": len(values),
    }


def now(device: str) -> float:
    """Seconds on a clock that waits for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(call: Callable[[], Any], device: str, fill: float) -> list[float]:
    """Seconds of one call in each of REPEATS blocks of calls, after two calls that warm up; a block
    fills `fill` seconds."""
    call()
    started = now(device)
    call()
    n = max(1, round(fill / (now(device) - started)))
    seconds = []
    for _ in range(REPEATS):
        started = now(device)
        for _ in range(n):
            call()
        seconds.append((now(device) - started) / n)
    return seconds


# ---- The device ----------------------------------------------------------------------------------


def matmul_peak(numerics: Numerics, fill: float = 0.5, sizes: Collection[int] = ()) -> Report:
    """Best rate of the product of two square matrices: for each kind of number of these numerics
    GFLOP/s and the best size.

    GFLOP/s = 2 n^3 / seconds / 10^9;  the product is taken as such and, on a CPU, as a convolution
                                       of 1 x 1 as well: another
    library computes that one, and either may not know the processor

    fill     seconds of a block
    sizes    n tried; default 256 to 1024 on a CPU, 2048 to 8192 on CUDA
    returns  {"float32": {"median", "low", "high", "n", "size"}, ...}, with bfloat16 as well where
             the precision is bf16
    """
    sizes = sizes or ((2048, 4096, 8192) if numerics.device == "cuda" else (256, 512, 1024))
    kinds = [numerics.dtype] + ([torch.bfloat16] if numerics.precision == "bf16" else [])

    def rate(kind: torch.dtype, n: int) -> Report:
        a, b = (noise((n, n), Context(numerics), "bench", n, i).to(kind) for i in range(2))
        product = torch.empty_like(a)
        image = a.view(1, n, 1, n).to(memory_format=torch.channels_last)
        kernel = b[:, :, None, None]
        ways: list[Callable[[], Any]] = [lambda: torch.mm(a, b, out=product)]
        if numerics.device == "cpu":
            ways.append(lambda: F.conv2d(image, kernel))
        rates = (
            median_and_range([2e-9 * n**3 / s for s in timed(way, numerics.device, fill)])
            for way in ways
        )
        return {**max(rates, key=lambda r: r["high"]), "size": n}

    return {
        str(kind).removeprefix("torch."): max(
            (rate(kind, n) for n in sizes), key=lambda r: r["high"]
        )
        for kind in kinds
    }


def bandwidth(numerics: Numerics, fill: float = 0.5, megabytes: int = 256) -> Report:
    """Rate of copying a tensor much larger than the caches, GB/s; bytes read and bytes written both
    count."""
    a = torch.zeros(megabytes * 2**20, dtype=torch.uint8, device=numerics.device)
    b = torch.ones_like(a)
    return median_and_range(
        [2e-9 * len(a) / s for s in timed(lambda: b.copy_(a), numerics.device, fill)]
    )


# ---- Models --------------------------------------------------------------------------------------


def entries(only: Collection[str] = ()) -> list[Entry]:
    """Generators and classifiers to measure: all, or those named; not `reserve`, nor what goes on
    from a model on disk."""
    models = [
        e
        for r in (GENERATORS, CLASSIFIERS)
        for e in r.values()
        if e.name != "reserve" and "from_disk" not in e.traits
    ]
    known = [entry.name for entry in models] + [LOOP]
    for name in only:
        if name not in known:
            raise ValueError(
                f"bench cannot measure {name!r}{meant(name, known)}; known: {listed(known)}"
            )
    return [entry for entry in models if not only or entry.name in only]


def fit(entry: Entry, options: dict[str, Any], pool: LabeledImages, context: Context) -> State:
    """One fit to all images of the pool, told their classes."""
    model = entry.target(**options)
    if entry.noun == "generator":
        return model.fit(pool, pool.label, None, seed=0, context=context)
    return model.fit(pool, int(pool.label.max()) + 1, seed=0, context=context)


def read_at(
    steps: Collection[int],
    read: Callable[[], float],
    entry: Entry,
    options: dict[str, Any],
    pool: LabeledImages,
    numerics: Numerics,
) -> tuple[list[float], State]:
    """What `read` says after these numbers of optimiser steps of one fit, and the fitted state."""
    seen: list[float] = []
    context = Context(numerics, progress=lambda i, n: seen.append(read()) if i in steps else None)
    state = fit(entry, {**options, "steps": max(steps)}, pool, context)
    assert len(seen) == len(steps), (
        f"{entry.name} has an option steps, but does not report each step"
    )
    return seen, state


def fit_rate(
    entry: Entry,
    options: dict[str, Any],
    pool: LabeledImages,
    numerics: Numerics,
    fill: float = 0.5,
) -> tuple[Report, State]:
    """Images per second that a fit takes in, and a state of few steps to sample from.

    With steps: batch * steps / seconds of blocks inside one fit. Without: images of the pool /
    seconds of the whole fit.

    options  all of the entry's
    fill     seconds of a block
    returns  {"images/s": spread, "batch", "steps" of a block (None without steps)}, state
    """
    device = numerics.device
    if not {"steps", "batch"} <= set(options):
        seconds = timed(lambda: fit(entry, options, pool, Context(numerics)), device, fill)
        rates = [len(pool) / s for s in seconds]
        state = fit(entry, options, pool, Context(numerics))
        return {"images/s": median_and_range(rates), "batch": None, "steps": None}, state
    (before, after), state = read_at((2, 3), lambda: now(device), entry, options, pool, numerics)
    n = max(1, round(fill / (after - before)))
    n = n // ROUND * ROUND or n
    clock, _ = read_at(
        [n * k for k in range(1, REPEATS + 2)], lambda: now(device), entry, options, pool, numerics
    )
    rates = (options["batch"] * n / np.diff(clock)).tolist()
    return {"images/s": median_and_range(rates), "batch": options["batch"], "steps": n}, state


def sample_rate(
    entry: Entry,
    options: dict[str, Any],
    state: State,
    pool: LabeledImages,
    numerics: Numerics,
    fill: float = 0.5,
) -> Report:
    """Images per second that a generator makes when told the classes of the pool, or a classifier
    tells, all in one call."""
    model, context = entry.target(**options), Context(numerics)

    def call() -> Any:
        if entry.noun == "generator":
            return model.sample(state, pool.label, 0, seed=0, context=context)
        return model.predict(state, pool.images, context=context)

    return median_and_range([len(pool) / s for s in timed(call, numerics.device, fill)])


def flops_per_image(
    entry: Entry, options: dict[str, Any], pool: LabeledImages, numerics: Numerics, batch: int = 2
) -> float | None:
    """Floating-point operations of one optimiser step per image of its batch, mean over ROUND
    steps.

    Products of matrices and convolutions, forward and backward, a multiplication and its addition
    counted as two. They are proportional to the batch, so a small one is counted, on the CPU:
    neither a recorded nor a compiled step shows its parts.

    returns  None for an entry without steps: what it does outside products of matrices is not
             counted
    """
    if not {"steps", "batch"} <= set(options):
        return None
    numerics = Numerics(numerics.precision, threads=numerics.threads)
    with Operations() as counted:
        (before, after), _ = read_at(
            (1, 1 + ROUND),
            lambda: counted.flops,
            entry,
            {**options, "batch": batch},
            pool,
            numerics,
        )
    return (after - before) / (ROUND * batch) or None


class Operations(TorchDispatchMode):
    """Counts floating-point operations while inside, by the formulas of torch.

    (torch's own FlopCounterMode watches modules as well, and its hooks forbid the gradient penalty
    of `gan`.)
    """

    flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](
                *args, **(kwargs or {}), out_val=result
            )
        return result


def memory_mb(device: str) -> float:
    """Most memory that this process has used so far. CPU: resident, libraries included. CUDA:
    allocated tensors."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory_mb() or math.nan  # where the system does not say


def model_speed(
    entry: Entry,
    options: dict[str, Any],
    pool: LabeledImages,
    numerics: Numerics,
    fill: float,
    peak: float,
    n_sample: int,
) -> Report:
    """Everything about one entry, in a process of its own (see `apart`), else "memory_mb" is that
    of earlier work as well.

    peak     GFLOP/s, of which "share" is the part that the median fit reaches; None where
             operations are not counted
    """
    numerics.apply()
    rate, state = fit_rate(entry, options, pool, numerics, fill)
    used = memory_mb(numerics.device)
    flops = flops_per_image(entry, options, pool, numerics)
    return {
        "kind": entry.noun,
        "name": entry.name,
        "version": entry.version,
        "options": options,
        "fit": rate,
        "memory_mb": used,
        "flops_per_image": flops,
        "share": flops and flops * rate["images/s"]["median"] / (peak * 1e9),
        "sample": sample_rate(entry, options, state, pool[:n_sample], numerics, fill),
    }


def apart(function: Callable[..., Any], *inputs: Any) -> Any:
    """What a function returns in a fresh process that has imported everything and done nothing."""
    known = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
    # the latter is imported by the first optimiser
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    try:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            return process.submit(function, *inputs).result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a measuring process died, perhaps for want of memory; name the others with --only"
        ) from error


# ---- The loop ------------------------------------------------------------------------------------


def experiment(quick: bool) -> Experiment:
    """The experiment whose time is split: one turn of the loop with a filter, small enough to be
    run REPEATS times."""
    e = Experiment(
        n_real=500,
        generator="gan",
        generator_steps=100,
        classifier="lenet",
        classifier_steps=200,
        instrument_steps=200,
        filter="classifier",
        shortfall="keep",
        n_generations=1,
    )
    short = {
        "n_real": 100,
        "n_test": 20,
        "generator_steps": 4,
        "classifier_steps": 4,
        "instrument_steps": 4,
    }
    return experiment_from({**e.fields(), **short}) if quick else e


def generation_split(e: Experiment, numerics: Numerics) -> Report:
    """Seconds of an experiment in a store of its own, from `run` to the table of metrics, by part.

    fit           its classifiers and generators         instruments the fixed classifiers, fitted
                                                         once per data set
    sample        generated images, sample grid          filter judging and choosing candidates
    probe         classes and groups told of the batches, and predictions for the test images
    quality       features of images and distances between them
    measure       the table of metrics
    store         the rest of the wall time: drawing the real data, keys, writing, reading,
                  gathering; not separated

    Sampling and filtering of candidates are one stage: its seconds are divided in proportion to a
    repeat of both on the same candidates.

    returns  {"seconds": by part, "wall": their sum, "overhead": (wall - stages) / wall, "rerun":
             seconds of running it again with everything stored, "stages" and "computed_again": how
             many}
    """
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        results = run(e, numerics=numerics, where=folder, scale="bench", keep="all", progress=False)
        ran = time.perf_counter()
        assert len(results.table)
        ended = time.perf_counter()
        again = run(e, numerics=numerics, where=folder, scale="bench", keep="all", progress=False)
        rerun = time.perf_counter() - ended
        plan = generations(e, real_data(e), open_store(folder, numerics))
        stages = list(needed_by(results_of(plan)).values())
        seconds = dict.fromkeys(("fit", "instruments", "sample", "filter", "probe", "quality"), 0.0)
        for stage in stages:
            for part, s in parts_of(stage, numerics).items():
                seconds[part] = seconds.get(part, 0.0) + s
    wall, computed = ended - started, sum(seconds.values())
    seconds |= {"measure": ended - ran, "store": ran - started - computed}
    return {
        "seconds": seconds,
        "wall": wall,
        "overhead": (wall - computed) / wall,
        "rerun": rerun,
        "stages": len(stages),
        "computed_again": sum(n for (what, _), n in again.counts.items() if what == "computed"),
    }


def parts_of(stage: Stage, numerics: Numerics) -> dict[str, float]:
    """Seconds of one stage by part; a kind of stage that PARTS does not know is a part of its
    own."""
    seconds = stage.provenance["seconds"]
    if stage.kind.name != "candidates":
        return {PARTS.get(stage.kind.name, stage.kind.name): seconds}
    given, context, device = stage.inputs, Context(numerics), numerics.device
    candidates, told, state = stage.load(), given["told"], tensors(given["state"].load())
    model, label = given["model"].target(**given["options"]), told.label(candidates.told)
    judge = given["judge"].load() if given["judge"] else None
    times = [now(device)]
    model.sample(state, candidates.told, told.n_fresh, seed=given["seed"], context=context)
    times.append(now(device))
    judged = judge(context, candidates.images, label) if judge else None
    given["filter"].target(
        candidates.images, label, judged, np.zeros(len(label)), **given["filter_options"]
    )
    times.append(now(device))
    sample, chosen = np.diff(times) / (times[-1] - times[0]) * seconds
    return {"sample": float(sample), "filter": float(chosen)}


def loop_speed(e: Experiment, numerics: Numerics) -> Report:
    """The split of the repeat with the median wall time, and spreads over the repeats."""
    repeats = sorted(
        (generation_split(e, numerics) for _ in range(REPEATS)), key=lambda r: r["wall"]
    )
    typical = repeats[len(repeats) // 2]
    return {
        "experiment": e.fields(),
        **typical,
        "spread": {
            name: median_and_range([r[name] for r in repeats])
            for name in ("wall", "overhead", "rerun")
        },
    }


def import_seconds(n: int = 5) -> Report:
    """Seconds of `import biasstudy` in a fresh process each."""
    code = "import time; t = time.perf_counter(); import biasstudy; print(time.perf_counter() - t)"
    path = os.pathsep.join(
        [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    return median_and_range(
        [
            float(
                subprocess.run(
                    [sys.executable, "-c", code],
                    env={**os.environ, "PYTHONPATH": path},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(n)
        ]
    )


# ---- The report ----------------------------------------------------------------------------------


def begin(numerics: Numerics, quick: bool, path: Path | None) -> Report:
    """Where something is measured, the beginning of its report; sets the process to the numerics.
    ValueError, before anything is measured, if the folder of its JSON file is not there."""
    if path and not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} for the JSON file {path.name}")
    numerics.apply()
    device = (
        f"cuda ({torch.cuda.get_device_name()})" if numerics.device == "cuda" else numerics.device
    )
    return {
        "quick": quick,
        "device": device,
        "precision": numerics.precision,
        "threads": numerics.threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan,  # Windows
        "environment": dict(environment()),
        "repeats": REPEATS,
    }


def bench(
    numerics: Numerics, only: Collection[str] = (), quick: bool = False, path: Path | None = None
) -> Report:
    """Measure everything, or only what is named.

    only     names of generators and classifiers, or "loop" for the whole experiment and the import
    quick    a few steps of everything, to see that it runs; the numbers say nothing
    path     a JSON file for the report
    raises   ValueError   with one sentence, before anything is measured
    """
    chosen, fill, loop = entries(only), 0.001 if quick else 0.5, not only or LOOP in only
    report = begin(numerics, quick, path)
    pool = real_data(Experiment(n_real=100 if quick else N_POOL)).start.load()
    report |= {
        "pool": len(pool),
        "image": list(pool.images.shape[1:]),
        "sample": 4 if quick else N_SAMPLE,
        "models": [],
    }
    bar = Progress()
    with bar.over([*chosen, "matmul", *([LOOP] if loop else [])]):
        bar.now("matmul, memory")
        report["matmul"] = matmul_peak(numerics, fill, (64, 128) if quick else ())
        report["bandwidth"] = bandwidth(numerics, fill, 4 if quick else 256)
        report["memory_mb"] = apart(memory_mb, numerics.device) if chosen else None
        for entry in chosen:
            bar.now(entry.name)
            # of the arithmetic in which networks run
            peak = [*report["matmul"].values()][-1]["high"]
            options = entry.defaults() | (
                {"batch": 2} if quick and "batch" in entry.defaults() else {}
            )
            report["models"].append(
                apart(model_speed, entry, options, pool, numerics, fill, peak, report["sample"])
            )
        if loop:
            bar.now("a whole experiment")
            report |= {"loop": loop_speed(experiment(quick), numerics), "import": import_seconds()}
    if path:
        write_text(path, json.dumps(report, indent=1) + "\n")
    return report
