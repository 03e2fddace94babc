"""Command line: python -m biasstudy start | list | fetch | folder | score | plan | run | sweep |
nulls | bench | sampling | notebooks | ledger | report | doctor.

Only arguments, dispatch and errors are here; what a command does is in its room."""

import argparse
import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .core.checks import listed, meant
from .core.places import read_text, write_bytes, write_text
from .core.registry import import_own

BROKEN_PIPE = 141  # what a shell reports of a command whose output nobody reads any more


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; user errors are one sentence on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale may lack letters that a name has
            stream.reconfigure(errors="backslashreplace")
    asked = _parser().parse_args(arguments)
    try:
        import_own(getattr(asked, "modules", ()))
        code = asked.call(asked)
        sys.stdout.flush()
        return code
    except BrokenPipeError as error:
        if not _output_is_closed():
            return _refuse(error)
        return BROKEN_PIPE
    except (ValueError, OSError, ImportError) as error:
        return _refuse(error)
    except MemoryError as error:
        from .core.store import NotEnoughMemory

        if isinstance(error, NotEnoughMemory):
            return _refuse(error)
        return _refuse("not enough memory; lower n_real, ratio, n_test or a batch size")
    except KeyboardInterrupt:
        print("biasstudy: stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _refuse(error: Any) -> int:
    print(f"biasstudy: {error}", file=sys.stderr)
    return 2


def _output_is_closed() -> bool:
    """Whether the reader of the output has gone, as after `| head`; then the rest goes nowhere."""
    try:
        print(flush=True)  # the failed write is forgotten, another one tells
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


# ---- Arguments -----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser that says what a misspelt command, value or option was meant to be."""

    def error(self, message: str) -> NoReturn:
        if choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += meant(choice[1], re.findall(r"[\w-]+", choice[2]))
        elif option := re.search(r"unrecognized arguments: (-[^\s=]+)", message):
            message += self._of_option(option[1])
        super().error(message)

    def _of_option(self, given: str) -> str:
        """Of which commands it is an option, or what it was meant to be."""
        known = {command: parser.options for command, parser in self._commands().items()}
        having = [command for command, options in known.items() if given in options]
        if having:
            return f" ({given} is an option of {listed(having)})"
        return meant(
            given, {name for options in [self.options, *known.values()] for name in options}
        )

    def _commands(self) -> dict[str, "_Parser"]:
        choices = [a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return choices[0] if choices else {}  # type: ignore[return-value]

    @property
    def options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]


def _parser() -> argparse.ArgumentParser:
    """The parser of all commands; `call` of what it parses is the function that runs one."""
    parser = _Parser(prog="python -m biasstudy", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "start", help="lay out notebooks and parameter files in a folder, overwriting nothing"
    )
    start.add_argument("folder", type=Path)
    start.set_defaults(call=_start)
    listing = commands.add_parser(
        "list",
        parents=[_importing()],
        help="what can be named: data sets, models, protocols, arms, metrics, fields",
    )
    listing.add_argument(
        "kind",
        nargs="*",
        help="data sets, generators, classifiers, filters, protocols, arms, metrics or fields; "
        "default: all",
    )
    listing.set_defaults(call=_list)
    fetch = commands.add_parser(
        "fetch", help="download a data set into BIASSTUDY_DATA (checksum, progress, mirrors)"
    )
    fetch.add_argument(
        "name", help="mnist, cifar100; hard-imagenet, waterbirds (say what to get, and check it)"
    )
    fetch.set_defaults(call=_fetch)
    _add_score(commands)
    folder = commands.add_parser(
        "folder",
        help="what a run would see in a folder of photographs of your own",
        description="The table or folders, classes, groups, splits and counts as the data set "
        "`folder` finds them, and what fits. Nothing is trained.",
    )
    folder.add_argument("path", type=Path, metavar="PATH")
    folder.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="an option of the data set: metadata, image, label, group, split, size (YAML value); "
        "all: python -m biasstudy list data sets, docs/extend.md",
    )
    folder.set_defaults(call=_folder)
    _add_plan(commands)
    _add_run(commands)
    _add_sweep(commands)
    _add_nulls(commands)
    _add_bench(commands)
    _add_sampling(commands)

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
        help="renew what stands between marks in these texts, and the figure of README: README.md "
        "docs/findings.md docs/method.md docs/answer.png",
    )
    ledger.set_defaults(call=_ledger)

    report = commands.add_parser(
        "report",
        parents=[_importing()],
        help="write study/index.html from all stored results and the figures made",
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
    return parser


def _changes() -> argparse.ArgumentParser:
    """-p, which several commands take."""
    changes = argparse.ArgumentParser(add_help=False)
    changes.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="change one parameter (YAML value)",
    )
    return changes


def _importing() -> "_Parser":
    """--import, of all commands that know things by their names."""
    importing = _Parser(add_help=False)
    importing.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this first: your own data sets, generators, metrics; looked for in the "
        "working directory and where Python looks",
    )
    return importing


def _keeping() -> argparse.ArgumentParser:
    """What `run` and `sweep` are both told."""
    keeping = argparse.ArgumentParser(add_help=False)
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
    keeping.add_argument(
        "--no-confidences",
        action="store_true",
        help="with --save: without probabilities of predictions, most of a large file",
    )
    return keeping


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        parents=[_importing()],
        help="the answer, with figures, for predictions of any loop",
        description="Columns generation, arm, seed, image, label, group, predicted; if there are: "
        "replicate, unit, confidence, favoured, bias, variant, label_name, group_name. See "
        "docs/score.md.",
    )
    score.add_argument("files", nargs="+", type=Path, help="CSV or Parquet, one table together")
    score.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=THEIRS",
        help="how the files call a column, such as arm=method",
    )
    score.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="ARM=THEIRS",
        help="how the files call an arm, such as none=baseline",
    )
    score.add_argument(
        "--favoured",
        metavar="GROUPS",
        help="groups that the start favours: red, or by class 0=red,1=green; default: the column "
        "favoured, else groups are ranked by generation 0 of the other seeds",
    )
    score.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where figures, tables and a page go"
    )
    score.add_argument("--name", default="", help="of the data; default: that of the first file")
    score.add_argument(
        "--detect",
        type=float,
        metavar="CHANGE",
        help="how many seeds would show a change so far above the margin, in accuracy",
    )
    score.set_defaults(call=_score)


def _add_plan(commands: Any) -> None:
    plan = commands.add_parser(
        "plan",
        parents=[_changes(), _importing()],
        help="before running: how many seeds, test images and classifiers show a change",
        description="Power of the words `amplified` and `within the margin` for designs of a "
        "study, and what each costs, from the variances of an earlier study. Nothing is trained, "
        "but for a short probe where no stored stage tells what the study costs.",
    )
    plan.add_argument("file", type=Path, help="parameter file of the study")
    plan.add_argument(
        "--detect",
        type=float,
        required=True,
        metavar="CHANGE",
        help="how far above the margin the true A is, in accuracy, such as 0.01",
    )
    plan.add_argument(
        "--margin",
        default="",
        metavar="MARGIN",
        help="quarter (of M(none)) or a number in accuracy; default: the file's",
    )
    plan.add_argument(
        "--pilot",
        default="",
        metavar="STUDY",
        help="whose variances: a study that ships, or a parameter file whose results are stored, "
        "of any seeds; default: the nearest setting of all these",
    )
    plan.set_defaults(call=_plan)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        parents=[_changes(), _importing(), _keeping()],
        help="run the experiments of a parameter file",
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


def _add_sweep(commands: Any) -> None:
    sweep = commands.add_parser(
        "sweep",
        parents=[_changes(), _importing(), _keeping()],
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


def _add_nulls(commands: Any) -> None:
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
    nulls.add_argument(
        "--words", type=int, default=40, help="simulated studies for every word, truth and n"
    )
    nulls.add_argument(
        "--only",
        choices=("experiments", "words"),
        help="null experiments through the loop, or simulated studies for the words; default: both",
    )
    nulls.set_defaults(call=_nulls)


def _add_bench(commands: Any) -> None:
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
    what.add_argument(
        "--generators",
        nargs="+",
        default=[],
        metavar="DATA",
        help="instead: fitness of every generator against core seconds, on digits, cifar20 or "
        "hard-imagenet; table, figure and pictures are written",
    )
    what.add_argument(
        "--likeness",
        default="",
        metavar="DATA",
        help="instead: how like a diffusion model, fitted here, the local score is",
    )
    bench.add_argument(
        "--models", nargs="+", default=[], metavar="NAME", help="with --generators: these alone"
    )
    bench.add_argument(
        "--folder", type=Path, help="with --generators and --likeness; default: study/instrument"
    )
    bench.add_argument(
        "--quick", action="store_true", help="a few steps of everything, to see that it runs"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    bench.set_defaults(call=_bench)


def _add_sampling(commands: Any) -> None:
    sampling = commands.add_parser(
        "sampling",
        parents=[_changes()],
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


# ---- Dispatch ------------------------------------------------------------------------------------


def _start(asked: argparse.Namespace) -> int:
    from .report.start import start

    for line in start(asked.folder):
        print(line)
    return 0


def _list(asked: argparse.Namespace) -> int:
    from .catalogue import listing

    kinds = re.sub(r"\bdata[ -]sets?\b", "data-sets", " ".join(asked.kind)).split()
    print(listing(kind.replace("data-sets", "data sets") for kind in kinds))
    return 0


def _fetch(asked: argparse.Namespace) -> int:
    from .data.datasets.fetch import fetch

    fetch(asked.name)
    return 0


def _score(asked: argparse.Namespace) -> int:
    from .campaign.score import Scored, run_score

    columns, arms = (_pairs(option, getattr(asked, option)) for option in ("column", "arm"))
    told = Scored(asked.files, columns, arms, asked.favoured, asked.out, asked.name, asked.detect)
    for line in run_score(told):
        print(line, flush=True)
    return 0


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, several times."""
    pairs: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (name and sign and value) or name in pairs:
            raise ValueError(f"--{option} takes NAME=VALUE, each name once; got {text}")
        pairs[name] = value
    return pairs


def _folder(asked: argparse.Namespace) -> int:
    from .data.datasets.folder import seen
    from .parameters import parse_changes

    print("\n".join(seen(asked.path, parse_changes(asked.p))))
    return 0


def _plan(asked: argparse.Namespace) -> int:
    from .campaign.plan import plan_lines
    from .parameters import parse_changes, read
    from .study import study_from

    given = read(asked.file, parse_changes(asked.p))
    study = study_from(given.parameters)
    for line in given.notes:
        print(line)
    for line in plan_lines(study, asked.detect, asked.margin, asked.pilot):
        print(line, flush=True)
    return 0


def _run(asked: argparse.Namespace) -> int:
    from .campaign.commands import run_study

    run_study(_told(asked), asked.workers)
    return 0


def _sweep(asked: argparse.Namespace) -> int:
    from .campaign.commands import Machines, run_sweep

    machines = Machines(asked.workers, asked.per_gpu, asked.scheduler or "", asked.tls, asked.slurm)
    return 0 if run_sweep(_told(asked), machines, asked.dry_run) else 1


def _told(asked: argparse.Namespace) -> Any:
    """What `run` and `sweep` are both told."""
    from .campaign.commands import Asked
    from .parameters import parse_changes

    return Asked(
        asked.file,
        _command_of(asked),
        parse_changes(asked.p),
        asked.modules,
        asked.keep,
        asked.save if asked.save is not None else "",
        asked.pictures,
        not asked.no_confidences,
    )


def _command_of(asked: argparse.Namespace) -> str:
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


def _instrument(asked: argparse.Namespace) -> Path:
    """Folder of what the instrument was proved with; told before anything is computed if it cannot
    be one."""
    from .core.places import check_folder, home

    return check_folder(asked.folder or home("BIASSTUDY_STUDY", "study") / "instrument")


def _nulls(asked: argparse.Namespace) -> int:
    from .bench import error_rates, nulls

    folder = _instrument(asked)
    if asked.only != "words":
        print("\n".join(nulls.write_nulls(asked.studies, asked.seeds, asked.drift, folder)))
    if asked.only != "experiments":
        print("\n".join(error_rates.write_error_rates(asked.words, folder)))
    return 0


def _bench(asked: argparse.Namespace) -> int:
    from .bench import generators, likeness, peers, scaling
    from .bench.bench import bench
    from .bench.words import models_table
    from .core.numerics import Numerics

    numerics = Numerics(asked.precision, asked.device, asked.threads)

    def told(text: str) -> None:
        print(text, flush=True)

    if asked.peer:
        print("\n".join(peers.peer_sentences(peers.bench_peer(numerics, asked.quick, asked.json))))
    elif asked.generators:
        folder = _instrument(asked)
        table = generators.write(asked.generators, asked.models, folder, numerics, told)
        print(f"{int(table.fit.sum())} of {len(table)} are fit; written to {folder}")
    elif asked.likeness:
        folder = _instrument(asked)
        print("\n".join(likeness.write(asked.likeness, folder, numerics, told, asked.quick)))
    elif asked.scaling:
        print(
            "\n".join(scaling.scaling_sentences(scaling.scaling(numerics, asked.quick, asked.json)))
        )
    else:
        print(models_table(bench(numerics, asked.only, asked.quick, asked.json)))
    return 0


def _sampling(asked: argparse.Namespace) -> int:
    from .bench.sampling import write
    from .core.numerics import Numerics
    from .parameters import parse_changes, read
    from .study import study_from

    folder = _instrument(asked)
    given = read(asked.file, parse_changes(asked.p))
    study = study_from(given.parameters)
    for line in given.notes:
        print(line)
    command = (
        _command_of(asked) + f" --images {asked.images} --steps {' '.join(map(str, asked.steps))}"
    )
    sentences = write(
        study.base,
        asked.steps,
        asked.images,
        asked.seconds,
        Numerics(**study.numerics),
        folder,
        command,
    )
    print("\n".join(sentences))
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
    from .report.numbers import picture, rewritten
    from .report.summary import answer, stored

    results = stored()
    for path in asked.write:
        if path.suffix == ".png":
            write_bytes(path, picture(results))
        else:
            write_text(path, rewritten(read_text(path), results))
    print(answer(results))
    print(
        "\n".join(
            f"\n{row.claim}\n  {row.hypothesis}\n  {row.result}"
            for row in table(results).itertuples()
        )
    )
    return 0


def _report(asked: argparse.Namespace) -> int:
    from .core.places import check_folder, home
    from .report.page import write_page

    print(write_page(check_folder(asked.folder or home("BIASSTUDY_STUDY", "study"))))
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    from .campaign.doctor import checkup

    for line in checkup(asked.prune):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
