"""Results that ship with the package: written as one file a study, read as if they had been run
here.

A study whose experiments another study holds, from the same stages, names those of them that are
its own: they are kept once.
"""

import io
import json
import lzma
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import meant
from ..core.places import replacing, write_bytes
from ..experiment import stored_experiment
from ..inference.plans import Plan, plan_from
from ..loop.results import Outcome, Results, confidence_of, entries_of, steps_of, table_of

REFERENCE = Path(__file__).parents[1] / "reference"  # results that ship with the package
# columns that tables of studies that ship do not have
NOT_SHIPPED = ("numerics", "prior", "label", "group")
PICTURES = 6  # of each class that figures show


def _shown(grid: np.ndarray, n_classes: int) -> np.ndarray:
    """The pictures of each class that figures show; grids lie class after class."""
    return (
        grid.reshape(n_classes, -1, *grid.shape[1:])[:, :PICTURES].reshape(-1, *grid.shape[1:])
        if len(grid)
        else grid
    )


def save_study(
    results: Results,
    folder: Path,
    study: str,
    command: str,
    parts: Mapping[str, Results] | None = None,
    pictures: bool = False,
    measured: Mapping[str, Any] | None = None,
    confidences: bool = True,
) -> None:
    """Write <study>.npz.xz (predictions, shares, pictures), <study>.json.xz (provenance, plan) and,
    to be read without the package, <study>.csv.xz: the rows of the table that are of no single
    class or group. Where another study in the folder holds all of it, <study>.json.xz alone, which
    names the other and the experiments.

    command      that makes these results, from a parameter file of the repository
    parts        results of each variant, by its name; default: all are one
    pictures     whether those of the first seed are kept
    measured     of the run that made them, into the provenance: wall time, workers and the like
    confidences  whether the probabilities of predictions are kept, most of a large file; without
                 them nothing is told of calibration
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = [o.experiment.id for o in results.outcomes]
    about = {
        "study": study,
        "command": command,
        "variants": [
            {
                "name": name,
                "outcomes": [ids.index(o.experiment.id) for o in variant_results.outcomes],
            }
            for name, variant_results in (parts or {"": results}).items()
        ],
        **({"plan": results.plan.record()} if results.plan else {}),
        **(measured or {}),
    }
    if not confidences:
        results = Results([replace(o, confidence=None) for o in results.outcomes])
    if whole := _holder(results, folder, study, pictures, confidences):
        _write_about(folder, study, {**about, "part of": whole, "experiments": ids})
        for ending in ("npz", "csv"):  # what an earlier save left; nothing names it now
            (folder / f"{study}.{ending}.xz").unlink(missing_ok=True)
        return
    plain = table_of(results.outcomes, whole=True).drop(columns=list(NOT_SHIPPED))
    with replacing(folder / f"{study}.csv.xz") as file:
        plain.to_csv(file, index=False, float_format="%.6g", compression="xz", encoding="utf-8")
    arrays: dict[str, np.ndarray] = {}
    records = []
    for i, o in enumerate(results.outcomes):
        # pictures of one seed are enough, and the test images are those of all
        with_grids = pictures and o.experiment.seed == results.outcomes[0].experiment.seed
        of_outcome = _arrays(o, with_grids) | (_test_arrays(o) if i == 0 else {})
        arrays |= {f"{i}/{name}": value for name, value in of_outcome.items()}
        told = ("classes", "groups", "design", "paired", "caption", "levels", "draws")
        records.append(
            {
                **o.record,
                **{name: getattr(o, name) for name in told},
                "n_batches": len(o.batches),
                "n_grids": len(o.grids) if with_grids else 0,
                "confidences": o.confidence is not None,
            }
        )
    write_bytes(folder / f"{study}.npz.xz", _packed(arrays))
    _write_about(folder, study, {**about, "outcomes": records})


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays named <outcome>/<name> as one file. Alike ones are stacked and the whole is
    compressed at once, a third of a compressed npz: <k>/<name> holds those of one name, type and
    shape, <k>/outcomes whose they are."""
    alike: dict[tuple[str, str, tuple[int, ...]], dict[int, np.ndarray]] = {}
    for name, value in arrays.items():
        i, _, of_outcome = name.partition("/")
        alike.setdefault((of_outcome, value.dtype.str, value.shape), {})[int(i)] = value
    stacks: dict[str, np.ndarray] = {}
    # those of one kind beside each other, whatever their generation
    in_order = sorted(alike, key=lambda key: (key[0].split("/")[::-1], *key[1:]))
    for k, key in enumerate(in_order):
        stacks[f"{k}/{key[0]}"] = np.stack(list(alike[key].values()))
        stacks[f"{k}/outcomes"] = np.array(list(alike[key]), np.int32)
    buffer = io.BytesIO()
    np.savez(buffer, **stacks)  # type: ignore[arg-type]
    return lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def _unpacked(packed: bytes, n_outcomes: int) -> list[dict[str, np.ndarray]]:
    """Arrays of each outcome by name, from what `_packed` made."""
    by_outcome: list[dict[str, np.ndarray]] = [{} for _ in range(n_outcomes)]
    with np.load(io.BytesIO(lzma.decompress(packed))) as file:
        keys = set(file.files)
        for key in file.files:
            k, _, name = key.partition("/")
            if f"{k}/outcomes" not in keys:  # written before alike arrays were stacked
                by_outcome[int(k)][name] = file[key]
            elif name != "outcomes":
                for i, value in zip(file[f"{k}/outcomes"], file[key], strict=True):
                    by_outcome[i][name] = value
    return by_outcome


def _arrays(o: Outcome, with_grids: bool) -> dict[str, np.ndarray]:
    """What is kept of an outcome, in the smallest types that hold it; see `_outcome`."""
    arrays: dict[str, np.ndarray] = {
        "predicted": _small(o.predicted),
        "occurs": o.occurs,
        "favoured": o.favoured,
        "counts": o.in_start(),
        "pools": o.in_pools().astype(np.int32),
    }
    if o.confidence is not None:
        arrays["confidence"] = steps_of(o.confidence)
    if o.origins is not None:
        arrays["origins"] = o.origins.astype(np.int32)
    if o.confusion is not None:
        arrays["confusion"] = o.confusion
    for t, batch in enumerate(o.batches):
        arrays |= {f"batch{t}/{name}": _small(value) for name, value in batch.items()}
    for t, quality in enumerate(o.quality):
        arrays |= {f"quality{t}/{name}": value for name, value in quality.items()}
    for t, fitness in enumerate(o.fitness):
        arrays |= {f"fitness{t}/{name}": value for name, value in fitness.items()}
    for name, value in o.spurious.items():
        arrays[f"spurious/{name}"] = steps_of(value) if name == "confidence" else value
    for t, grid in enumerate(o.grids if with_grids else ()):
        arrays[f"grid{t}"] = _shown(grid, len(o.classes))
    return arrays


def _small(values: np.ndarray) -> np.ndarray:
    """Numbers of classes and groups, or whether they are accepted, in int8 if that holds them."""
    numbers = values.astype(np.int16)
    return numbers.astype(np.int8) if numbers.max(initial=0) < 128 else numbers


def _test_arrays(o: Outcome) -> dict[str, np.ndarray]:
    """Label, group and unit of the test images."""
    return {name: getattr(o, name).astype(np.int32) for name in ("label", "group", "unit")}


def _holder(
    results: Results, folder: Path, study: str, pictures: bool, confidences: bool
) -> str | None:
    """The study in the folder that holds all these results, and pictures and confidences if they
    are asked for; None if there is none."""
    stages = {o.experiment.id: o.stages for o in results.outcomes}
    for candidate in studies(folder):
        about = _about(folder, candidate)
        if candidate == study or "part of" in about:
            continue
        records = {record["experiment"]: record for record in about["outcomes"]}
        held = all(id in records and records[id]["stages"] == stages[id] for id in stages)
        with_pictures = any(records[id]["n_grids"] for id in stages if held)
        # in references written before there was a choice they are
        with_confidences = all(records[id].get("confidences", True) for id in stages if held)
        if held and pictures <= with_pictures and confidences <= with_confidences:
            return candidate
    return None


def studies(folder: Path | None = None) -> list[str]:
    """Names of the studies whose results ship with the package."""
    return sorted(
        path.name.removesuffix(".json.xz") for path in (folder or REFERENCE).glob("*.json.xz")
    )


def _about(folder: Path, study: str) -> dict[str, Any]:
    if study not in (known := studies(folder)):
        raise FileNotFoundError(
            f"no reference results {study!r} ship with the package{meant(study, known)}; known: "
            f"{', '.join(known) or 'none'}"
        )
    return json.loads(lzma.decompress((folder / f"{study}.json.xz").read_bytes()))


def _write_about(folder: Path, study: str, about: dict[str, Any]) -> None:
    packed = lzma.compress(json.dumps(about, sort_keys=True).encode(), preset=9)
    write_bytes(folder / f"{study}.json.xz", packed)


def is_part(study: str, folder: Path | None = None) -> bool:
    """Whether another stored study holds the results of this one."""
    return "part of" in _about(folder or REFERENCE, study)


def fields_of(study: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """Fields of the experiments that a stored study holds itself, as they were stored; none if
    another study holds them."""
    return [record["fields"] for record in _about(folder or REFERENCE, study).get("outcomes", [])]


def recipe(study: str, folder: Path | None = None) -> str:
    """The command that makes the results of a stored study again."""
    return _about(folder or REFERENCE, study)["command"]


def reference(study: str, folder: Path | None = None) -> Results:
    """Results that ship with the package; FileNotFoundError lists the known ones."""
    folder = folder or REFERENCE
    about = _about(folder, study)
    return _noted(_outcomes(about, folder), plan_from(about["plan"]) if "plan" in about else None)


def _outcomes(about: dict[str, Any], folder: Path) -> list[Outcome]:
    if "part of" in about:
        whole = _outcomes(_about(folder, about["part of"]), folder)
        held = {o.experiment.id: o for o in whole}
        return [held[id] for id in about["experiments"]]
    packed = (folder / f"{about['study']}.npz.xz").read_bytes()
    by_outcome = _unpacked(packed, len(about["outcomes"]))
    test = {name: by_outcome[0][name] for name in ("label", "group", "unit")}
    return [
        _outcome(record, arrays, test)
        for record, arrays in zip(about["outcomes"], by_outcome, strict=True)
    ]


def _noted(outcomes: list[Outcome], plan: Plan | None) -> Results:
    """Stored outcomes with their plan, and a note of their machine, cost and commit, and of the
    entries whose versions have changed since."""
    cost = outcomes[0].cost
    older = {
        f"{name} v{version}"
        for o in outcomes
        for name, version in o.made_with.items()
        if entries_of(o.experiment).get(name) != version
    }
    return Results(
        outcomes,
        note=f"reference, {cost['processor']}, {seconds(outcomes) / 60:.0f} process minutes, "
        f"commit {cost['commits'][0]}{', made with ' + ', '.join(sorted(older)) if older else ''}",
        plan=plan,
    )


def reference_parts(study: str, folder: Path | None = None) -> dict[str, Results]:
    """Results of each variant of a study that ships with the package, by the name of the
    variant."""
    stored = reference(study, folder)
    return {
        variant["name"]: Results(
            [stored.outcomes[i] for i in variant["outcomes"]], note=stored.note, plan=stored.plan
        )
        for variant in _about(folder or REFERENCE, study)["variants"]
    }


def seconds(outcomes: list[Outcome]) -> float:
    """Time spent in the stages of these experiments, each stage counted once."""
    return sum({stage: s for o in outcomes for stage, s in o.cost["seconds"].items()}.values())


def _outcome(
    record: dict[str, Any], outcome_arrays: dict[str, np.ndarray], test: dict[str, np.ndarray]
) -> Outcome:
    """An outcome from what `_arrays` and `_test_arrays` kept."""

    def parts(kind: str) -> list[dict[str, np.ndarray]]:
        arrays_by_batch = [
            {
                name.split("/")[1]: value
                for name, value in outcome_arrays.items()
                if name.startswith(f"{kind}{t}/")
            }
            for t in range(record["n_batches"])
        ]
        return arrays_by_batch if any(arrays_by_batch) else []

    spurious = {
        name.split("/")[1]: value
        for name, value in outcome_arrays.items()
        if name.startswith("spurious/")
    }
    if spurious:
        spurious["confidence"] = confidence_of(spurious["confidence"])
    batches = [{k: v.astype(np.int64) for k, v in batch.items()} for batch in parts("batch")]
    return Outcome(
        experiment=stored_experiment(record["fields"]),
        numerics=record["numerics"],
        scale=record["scale"],
        classes=tuple(record["classes"]),
        groups=tuple(record["groups"]),
        design=record["design"],
        occurs=outcome_arrays["occurs"],
        favoured=outcome_arrays["favoured"],
        counts=outcome_arrays["counts"],
        pools=outcome_arrays["pools"].astype(np.int64),
        origins=outcome_arrays["origins"].astype(np.int64) if "origins" in outcome_arrays else None,
        sizes=record["sizes"],
        paired=record["paired"],
        label=test["label"],
        group=test["group"],
        unit=test["unit"],
        predicted=outcome_arrays["predicted"].astype(np.int16),  # as the loop keeps them
        confidence=(
            confidence_of(outcome_arrays["confidence"]) if "confidence" in outcome_arrays else None
        ),
        batches=batches,
        quality=parts("quality"),
        fitness=parts("fitness"),
        spurious=spurious,
        caption=record.get("caption", ""),
        levels=tuple(record.get("levels", ())),
        draws=record.get("draws", "shared"),
        grids=[outcome_arrays[f"grid{t}"] for t in range(record["n_grids"])],
        confusion=outcome_arrays.get("confusion"),
        stages=record["stages"],
        cost=record["cost"],
        made_with=record["entries"],
    )


FIGURES = {  # what docs/findings.md shows of reference results: names in `figures`
    "colorized_mnist": ("curves", "shares"),
    "colorized_mnist_long": ("grid",),
    "colorized_mnist_transfer": ("transfer",),
    "colorized_mnist_generator": ("plane",),
}


def save_figures(study: str, folder: Path) -> None:
    """Figures that docs/findings.md shows, drawn from stored results, in few colours: a third of
    the size."""
    from . import figures

    for name in FIGURES.get(study, ()):
        shown = (
            reference(study, folder)
            if name in ("curves", "shares")
            else reference_parts(study, folder)
        )
        drawn = io.BytesIO()
        getattr(figures, name)(shown)[0].savefig(drawn)
        write_bytes(folder / f"{study}-{name}.png", figures.packed(drawn.getvalue()))
