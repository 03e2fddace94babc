"""Command line: python -m biasstudy fetch | run | sweep | nulls | bench | sampling | notebooks |
ledger | report | doctor."""

import argparse
import io
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .core.places import read_text, replacing, write_bytes, write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; user errors are one sentence on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m biasstudy", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    fetch = commands.add_parser(
        "fetch", help="download a data set into BIASSTUDY_DATA (checksum, progress, mirrors)"
    )
    fetch.add_argument(
        "name", help="mnist, cifar100, or hard-imagenet (says what to get, and checks it)"
    )
    fetch.set_defaults(call=_fetch)

    changes = argparse.ArgumentParser(add_help=False)
    changes.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="change one parameter (YAML value)",
    )
    keeping = argparse.ArgumentParser(add_help=False)
    keeping.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this first: your own data sets, generators, metrics",
    )
    keeping.add_argument(
        "--keep",
        choices=("results", "all"),
        default="results",
        help="all: keep weights and batches as well",
    )
    keeping.add_argument(
        "--save", metavar="NAME", help="also write the results as reference results of this name"
    )
    keeping.add_argument(
        "--pictures", action="store_true", help="with --save: keep images of the first seed, too"
    )

    run = commands.add_parser(
        "run", parents=[changes, keeping], help="run the experiments of a parameter file"
    )
    run.add_argument(
        "file",
        type=Path,
        help="YAML: fields of Experiment, n_seeds, arms, scale, device, precision, threads",
    )
    run.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes, one thread each; the arms of a seed stay together",
    )
    run.set_defaults(call=_run)

    sweep = commands.add_parser(
        "sweep",
        parents=[changes, keeping],
        help="run hundreds of experiments: a grid over a parameter file",
    )
    sweep.add_argument(
        "file", type=Path, help="YAML: base (a parameter file), grid (axis: list of values)"
    )
    sweep.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be run and what it would cost, and stop",
    )
    sweep.add_argument("--workers", type=int, help="processes; default: one for each core or GPU")
    sweep.add_argument("--per-gpu", type=int, default=1, help="processes that share a GPU")
    sweep.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a running Dask cluster: tcp://... or tls://..."
    )
    sweep.add_argument(
        "--tls",
        type=Path,
        nargs=3,
        default=(),
        metavar=("CA", "CERT", "KEY"),
        help="files for tls://...",
    )
    sweep.add_argument(
        "--slurm",
        type=Path,
        metavar="FILE",
        help="start workers as Slurm jobs; YAML for dask_jobqueue",
    )
    sweep.set_defaults(call=_sweep)

    nulls = commands.add_parser(
        "nulls", help="prove the instrument where nothing may be found; 400 studies: half an hour"
    )
    nulls.add_argument("--studies", type=int, default=40, help="A/A studies of six seeds")
    nulls.add_argument(
        "--seeds", type=int, default=20, help="seeds of the experiments in which nothing happens"
    )
    nulls.add_argument(
        "--drift", type=int, default=40, help="seeds of the bootstrap under each protocol"
    )
    nulls.add_argument(
        "--folder",
        type=Path,
        help="where tables and figure go; default: BIASSTUDY_STUDY, else study/",
    )
    nulls.set_defaults(call=_nulls)

    bench = commands.add_parser(
        "bench", help="how fast this device fits and samples every model, and what the loop adds"
    )
    bench.add_argument("--device", default="auto", help="cpu, cuda or auto")
    bench.add_argument("--precision", default="float32", help="float64, float32, bf16 or auto")
    bench.add_argument("--threads", type=int, default=1)
    what = bench.add_mutually_exclusive_group()
    what.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="these models; loop: an experiment, the import",
    )
    what.add_argument(
        "--peer", action="store_true", help="instead: models of FairFeedbackLoops' sizes, two ways"
    )
    what.add_argument(
        "--scaling",
        action="store_true",
        help="instead: cost by images, generations and stored results",
    )
    bench.add_argument(
        "--quick", action="store_true", help="a few steps of everything, to see that it runs"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    bench.set_defaults(call=_bench)

    sampling = commands.add_parser(
        "sampling",
        parents=[changes],
        help="KID of a diffusion model against sampling steps; speed beside diffusers",
    )
    sampling.add_argument(
        "file", type=Path, help="parameter file of a study with generator diffusion"
    )
    sampling.add_argument("--images", type=int, default=500, help="made with each number of steps")
    sampling.add_argument(
        "--steps",
        type=int,
        nargs="+",
        default=[1, 2, 3, 5, 10, 20, 50, 100, 1000],
        metavar="N",
        help="of the solver, rising; the last is the measure for the others",
    )
    sampling.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="of each of the repeated blocks in which speed is timed",
    )
    sampling.add_argument(
        "--folder",
        type=Path,
        help="where table and figure go; default: BIASSTUDY_STUDY, else study/",
    )
    sampling.set_defaults(call=_sampling)

    notebooks = commands.add_parser(
        "notebooks", help="execute notebooks in place at smoke scale and scrub them"
    )
    notebooks.add_argument("files", nargs="+", type=Path)
    notebooks.set_defaults(call=_notebooks)

    ledger = commands.add_parser(
        "ledger", help="claims, hypotheses and what the stored results say"
    )
    ledger.add_argument(
        "--write",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="renew what stands between marks in these texts: README.md docs/findings.md",
    )
    ledger.set_defaults(call=_ledger)

    report = commands.add_parser(
        "report", help="write study/index.html from all stored results and the figures made"
    )
    report.add_argument(
        "folder", nargs="?", type=Path, help="default: BIASSTUDY_STUDY, else study/"
    )
    report.set_defaults(call=_report)

    doctor = commands.add_parser(
        "doctor", help="what is installed, where things are, what takes space"
    )
    doctor.add_argument(
        "--prune",
        action="store_true",
        help="delete unfinished writes, checkpoints and scratch values",
    )
    doctor.set_defaults(call=_doctor)

    asked = parser.parse_args(arguments)
    try:
        return asked.call(asked)
    except (ValueError, OSError, ImportError) as error:
        print(f"biasstudy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("biasstudy: stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _fetch(asked: argparse.Namespace) -> int:
    from .data.datasets.fetch import fetch

    fetch(asked.name)
    return 0


def _run(asked: argparse.Namespace) -> int:
    from .inference.verdicts import sentences
    from .report.shipped import REFERENCE, save_study
    from .study import read_parameters, study_from

    _import(asked.modules)
    study = study_from({**read_parameters(asked.file), **changes_of(asked)})
    print(study.table().to_string())
    if asked.workers > 1:
        _in_processes(study, asked)
    results = study.run(keep=asked.keep)
    largest = max((o.sizes for o in results.outcomes), key=lambda sizes: sizes["reserve"])
    print("images per class:", ", ".join(f"{name} {n}" for name, n in largest.items()))
    print("\n".join(sentences(study.split(results))))
    if asked.save:
        save_study(
            results, REFERENCE, asked.save, command_of(asked), study.split(results), asked.pictures
        )
        _save_figures(asked.save, REFERENCE)
    return 0


def _in_processes(study: Any, asked: argparse.Namespace) -> None:
    """Run all experiments of a study in processes; a failed one is an error here."""
    from .campaign.engine import Local
    from .campaign.farm import run_by
    from .loop.progress import Line

    line = Line()
    try:
        failed = run_by(Local(asked.workers), study, asked.modules, asked.keep, say=line).failed
    finally:
        line.end()
    if failed:
        raise ChildProcessError(
            f"{len(failed)} of {len(study.experiments)} experiments failed; the first with: "
            f"{next(iter(failed.values()))[-1]}"
        )


def _sweep(asked: argparse.Namespace) -> int:
    from .campaign import sweep
    from .campaign.farm import run_by, sweep_text
    from .core.numerics import Numerics
    from .core.places import runs_folder
    from .inference.verdicts import sentences
    from .loop.progress import Line
    from .loop.results import Results
    from .report import tables
    from .report.shipped import REFERENCE, save_study

    _import(asked.modules)
    line, elsewhere = Line(), bool(asked.scheduler or asked.slurm)
    grid = sweep.read(asked.file, changes_of(asked), elsewhere)
    numerics = (Numerics.elsewhere if elsewhere else Numerics)(**grid.study.numerics)
    _check_engine(asked, numerics.device)
    plan = sweep.plan_of(grid.study, runs_folder(), numerics, line)
    costs, source = plan.costs(numerics, runs_folder())
    line.end()
    engine = _engine(asked, numerics)
    workers = max(1, engine.slots)
    print(sweep.run_table(grid.study, plan).to_string())
    print(sweep.cost_table(grid, plan, costs, source, workers).to_string(), flush=True)
    if asked.dry_run:
        engine.close()
        return 0
    try:
        report = run_by(
            engine,
            grid.study,
            asked.modules,
            asked.keep,
            numerics=numerics,
            plan=plan,
            costs=costs,
            say=line,
        )
    finally:
        line.end()
    print(sweep_text(report, plan, workers))
    if report.failed:
        return 1
    results = Results(
        [
            tables.read_outcome(e, numerics, grid.study.scale, runs_folder())
            for e in grid.study.experiments
        ]
    )
    parts = grid.study.split(results)
    print("\n".join(sentences(parts)))
    if asked.save:
        wall = (
            {
                "wall_seconds": round(report.seconds),
                "workers": workers,
                "stages_computed": report.computed,
                "stages_each_by_itself": sum(len(job.rests_on) for job in plan.jobs.values()),
            }
            if report.finished
            else {}
        )
        save_study(results, REFERENCE, asked.save, command_of(asked), parts, asked.pictures, wall)
    return 0


def _check_engine(asked: argparse.Namespace, device: str) -> None:
    """ValueError with one sentence, before anything is planned, if options exclude each other."""
    if sum(map(bool, (asked.workers, asked.scheduler, asked.slurm))) > 1:
        raise ValueError("choose one of --workers, --scheduler and --slurm")
    if asked.tls and not asked.scheduler:
        raise ValueError("--tls belongs to --scheduler tls://...")
    if asked.per_gpu != 1 and (asked.scheduler or asked.slurm or device != "cuda"):
        raise ValueError(
            f"--per-gpu is for GPUs of this machine; got {asked.per_gpu} with device {device!r}"
        )


def _engine(asked: argparse.Namespace, numerics: Any) -> Any:
    """What runs the experiments of a sweep."""
    if asked.scheduler or asked.slurm:
        from .campaign.cluster import Cluster, Slurm
        from .study import read_parameters

        engine = (
            Slurm(read_parameters(asked.slurm))
            if asked.slurm
            else Cluster(asked.scheduler, asked.tls)
        )
        print(f"dashboard: {engine.dashboard}")
        return engine
    from .campaign.engine import local

    return local(asked.workers, numerics, asked.per_gpu)


FIGURES = {  # what README shows of reference results: names in `figures`
    "colorized_mnist": ("curves", "shares"),
    "colorized_mnist_start": ("grid",),
    "colorized_mnist_transfer": ("transfer",),
    "colorized_mnist_protocol": ("forest",),
    "colorized_mnist_generator": ("plane",),
    "cifar20_condition": ("grid", "decomposition"),
}


def _save_figures(study: str, folder: Path) -> None:
    """Figures that README shows, drawn from stored results, in few colours: a third of the size."""
    from .report import figures
    from .report.shipped import reference, reference_parts

    for name in FIGURES.get(study, ()):
        shown = (
            reference(study, folder)
            if name in ("curves", "shares")
            else reference_parts(study, folder)
        )
        drawn = io.BytesIO()
        getattr(figures, name)(shown)[0].savefig(drawn)
        write_bytes(folder / f"{study}-{name}.png", figures.packed(drawn.getvalue()))


def command_of(asked: argparse.Namespace) -> str:
    """The command as provenance has it: with its parameter file and what -p changed."""
    return shlex.join(
        [
            "python",
            "-m",
            "biasstudy",
            asked.command,
            asked.file.as_posix(),
            *(word for change in asked.p for word in ("-p", *change)),
        ]
    )


def changes_of(asked: argparse.Namespace) -> dict[str, Any]:
    """Parameters that -p changes."""
    import yaml

    return {name: yaml.safe_load(text) for name, text in asked.p}


def _import(modules: Sequence[str]) -> None:
    """Import the user's own modules, which may lie in the current folder."""
    import importlib

    sys.path.insert(0, os.getcwd())
    for module in modules:
        importlib.import_module(module)


def _nulls(asked: argparse.Namespace) -> int:
    import json
    import time

    from .bench import nulls
    from .core.places import home
    from .core.provenance import environment

    if min(asked.studies, asked.seeds, asked.drift) < 2:
        raise ValueError(
            "nulls needs at least 2 of each; got "
            f"studies {asked.studies}, seeds {asked.seeds}, drift {asked.drift}"
        )
    folder, started = asked.folder or home("BIASSTUDY_STUDY", "study") / "instrument", time.time()
    tables = nulls.all_nulls(asked.studies, asked.seeds, asked.drift)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_text(folder / f"nulls-{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    with replacing(folder / "nulls.png") as file:
        nulls.null_figure(tables).savefig(file)
    said = nulls.null_sentences(tables)
    command = (
        f"python -m biasstudy nulls --studies {asked.studies} --seeds {asked.seeds} --drift "
        f"{asked.drift}"
    )
    about = {
        "command": command,
        "said": said,
        "seconds": round(time.time() - started),
        **environment(),
    }
    write_text(folder / "nulls.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
    print("\n".join([*said, str(folder)]))
    return 0


def _bench(asked: argparse.Namespace) -> int:
    from .bench import peers, scaling
    from .bench.bench import bench
    from .bench.words import table
    from .core.numerics import Numerics

    numerics = Numerics(asked.precision, asked.device, asked.threads)
    if asked.peer:
        print("\n".join(peers.peer_sentences(peers.bench_peer(numerics, asked.quick, asked.json))))
    elif asked.scaling:
        print(
            "\n".join(scaling.scaling_sentences(scaling.scaling(numerics, asked.quick, asked.json)))
        )
    else:
        print(table(bench(numerics, asked.only, asked.quick, asked.json)))
    return 0


def _sampling(asked: argparse.Namespace) -> int:
    from .bench.sampling import write
    from .core.numerics import Numerics
    from .core.places import home
    from .study import read_parameters, study_from

    study = study_from({**read_parameters(asked.file), **changes_of(asked)})
    command = (
        command_of(asked) + f" --images {asked.images} --steps {' '.join(map(str, asked.steps))}"
    )
    folder = asked.folder or home("BIASSTUDY_STUDY", "study") / "instrument"
    said = write(
        study.base,
        asked.steps,
        asked.images,
        asked.seconds,
        Numerics(**study.numerics),
        folder,
        command,
    )
    print("\n".join(said))
    return 0


def _notebooks(asked: argparse.Namespace) -> int:
    from .report.notebooks import refresh

    for path in asked.files:
        print(
            f"{path}: "
            + (
                "rewritten"
                if refresh(path)
                else "text unchanged, left alone; clear outputs to renew pictures"
            )
        )
    return 0


def _ledger(asked: argparse.Namespace) -> int:
    from .report.ledger import table
    from .report.numbers import rewritten
    from .report.summary import answer, stored

    found = stored()
    for path in asked.write:
        write_text(path, rewritten(read_text(path), found))
    print(answer(found))
    print(
        "\n".join(
            f"\n{row.claim}\n  {row.hypothesis}\n  {row.result}"
            for row in table(found).itertuples()
        )
    )
    return 0


def _report(asked: argparse.Namespace) -> int:
    from .core.places import home
    from .report.page import write_page

    print(write_page(asked.folder or home("BIASSTUDY_STUDY", "study")))
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    from .core.places import data_folder, runs_folder
    from .core.provenance import environment
    from .core.store import prune_all

    for name, value in environment().items():
        print(f"{name:12} {value}")
    import torch

    print(f"{'cuda':12} {torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none'}")
    for name, folder in (("runs", runs_folder()), ("data", data_folder())):
        size = (
            sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            if folder.is_dir()
            else 0
        )
        print(
            f"{name:12} {folder} ({size / 1e6:.1f} MB)"
            if folder.is_dir()
            else f"{name:12} {folder} (not there)"
        )
    scratch = prune_all(runs_folder(), delete=asked.prune)
    print(
        f"{'scratch':12} {scratch / 1e6:.1f} MB "
        f"{'deleted' if asked.prune else 'could be freed with: doctor --prune'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
