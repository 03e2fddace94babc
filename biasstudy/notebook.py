"""The two lines that every notebook begins with: its parameters checked, and a study made of them.

    study = notebook.study(globals())
    results = study.run()

What counts is what the variables hold when `study` is called. A name that is no parameter, which
papermill only warns of, stops the run here, before any training.
"""

import ast
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .core.checks import listed, meant, shown, unknown
from .core.places import check_folder, home, read_text
from .core.registry import DATASETS
from .core.seeds import digest
from .parameters import NOTEBOOK, made_void, void_notes
from .study import DEFAULTS, Study, study_from

PARAMETERS = frozenset(DEFAULTS)
_PAPERMILL = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
# without these two arms there is no A, which figures and answers are about
_NEEDED = ("generated", "none")


def study(namespace: Mapping[str, Any]) -> Study:
    """The study that the variables of this notebook ask for; call it as study(globals()).

    Every variable with the name of a parameter counts. In IPython the cells that were executed also
    say which names were meant as parameters, so that a misspelt one is refused.

    raises   ValueError   with one sentence if a parameter is unknown, wrong or ambiguous, or the
                          data cannot give what is asked
    """
    try:
        return _checked(namespace)
    except (ValueError, FileNotFoundError) as error:
        # a notebook shows what this returns; the sentence is all that helps there
        sentence = str(error)
        error._render_traceback_ = lambda: [sentence]  # type: ignore[union-attr]
        raise


def _checked(namespace: Mapping[str, Any]) -> Study:
    global _latest
    quiet()
    asked, notes = read(namespace)
    if asked.source == "run":
        _check_arms(asked)
        from .data.real import all_real_data

        all_real_data(asked.experiments)  # refuses missing data, too
    cells = [_read(source) for source in namespace.get("In", [])]
    # nbval and other tools may not keep what they executed: then no cell is seen
    declared = {name for cell in cells for name in cell.own}
    if declared and "variants" not in declared and len(asked.variants) > 1:
        raise ValueError(
            "this notebook does not declare variants, so its figures show one setting; got "
            f"{len(asked.variants)} variants"
        )
    folder = check_folder(_folder_of(asked))
    if folder != figures_folder():
        notes.append(f"figures, tables and the answer go to {folder}")
    for note in notes:
        print(note)
    _latest = asked
    return asked


def read(namespace: Mapping[str, Any]) -> tuple[Study, list[str]]:
    """The study that the variables ask for, before anything is looked at but them; and sentences
    about what differs from the notebook's own cell.

    raises   ValueError   as `study`
    """
    cells = [_read(source) for source in namespace.get("In", [])]
    _check_cells(cells, namespace)
    given = {name: namespace[name] for name in PARAMETERS if name in namespace}
    own = _own_values(cells)
    _check_notebook(cells, own.get("name", ""))
    notes: list[str] = []
    told = [i for i, cell in enumerate(cells) if cell.injected][-1:]
    if told:
        upper = {name: given[name] for name in cells[told[0]].parameters if name in given}
        void = made_void(own, upper)
        void -= {name for cell in cells[told[0] + 1 :] for name in cell.assigned}
        notes += void_notes(own, upper)
        given = {name: value for name, value in given.items() if name not in void}
    usual = DEFAULTS | own
    settings = {
        name: given[name]
        for name in DEFAULTS
        if own and name in given and name != "name" and given[name] != usual[name]
    }
    if settings:
        changed = listed(f"{name} {shown(value)}" for name, value in settings.items())
        notes.append(f"not as the cell of this notebook says: {changed}")
    asked = study_from(given)
    name = own.get("name", namespace.get("name", ""))
    return replace(asked, notebook=str(name), settings=settings), notes


def _own_values(cells: list["_Cell"]) -> dict[str, Any]:
    """What the author's cells say of each parameter first; of a cell that was executed again, in
    its last words."""
    values: dict[str, Any] = {}
    for i, cell in enumerate(cells):
        if not _is_executed_again(cell, cells[i + 1 :]):
            for name in cell.own - set(values):
                if _is_literal(cell.assigned[name]):
                    values[name] = ast.literal_eval(cell.assigned[name])
    return values


def _check_notebook(cells: list["_Cell"], name: str) -> None:
    """ValueError if papermill was given a file of another notebook."""
    for cell in cells:
        value = cell.assigned.get(NOTEBOOK) if cell.injected else None
        if value is not None and _is_literal(value) and ast.literal_eval(value) != name:
            raise ValueError(
                f"these parameters are for the notebook {shown(ast.literal_eval(value))}; this one "
                f"is {shown(name)}"
            )


def _check_arms(asked: Study) -> None:
    """ValueError if the figures of a notebook would have nothing to compare."""
    missing = [arm for arm in _NEEDED if arm not in asked.arms]
    if missing:
        raise ValueError(
            f"a notebook compares the arms {' and '.join(_NEEDED)}; arms lack {listed(missing)} "
            f"(python -m biasstudy run takes any): got {shown(list(asked.arms))}"
        )
    for name, base in asked.variants.items():
        if len(asked.variants) > 1 and not base.n_batch:
            raise ValueError(
                f"the variant {name!r} has ratio 0 and generates nothing, as the arm none of the "
                "others; leave it out"
            )


# ---- Which names were meant as parameters --------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    """What an executed cell does to names outside functions.

    assigned    name -> the value assigned last
    bound       names that loops, imports, definitions and the like set
    statements  those of its statements that assign parameters, as Python writes them
    injected    papermill wrote it
    plain       it does nothing but assign, so it was meant as parameters
    """

    assigned: dict[str, ast.expr]
    bound: frozenset[str]
    statements: frozenset[str]
    injected: bool
    plain: bool

    @property
    def parameters(self) -> set[str]:
        return set(self.assigned) & PARAMETERS

    @property
    def own(self) -> set[str]:
        """Parameters that the author of the notebook wrote."""
        return set() if self.injected else self.parameters


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)


def _read(source: str) -> _Cell:
    """A cell as IPython keeps it: magic commands are calls that have their text as an argument."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):  # then it was not executed either
        body = []
    statements = list(_unwrapped(body))
    assigned: dict[str, ast.expr] = {}
    bound: set[str] = set()
    for node in _outside_functions(statements):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                assigned |= dict.fromkeys(_names(target), node.value)
        elif isinstance(node, ast.AugAssign):
            assigned |= {
                name: ast.BinOp(node.target, node.op, node.value) for name in _names(node.target)
            }
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
            if node.value is not None:
                assigned |= dict.fromkeys(_names(node.target), node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, _NAMED):
            bound |= {node.name} if node.name else set()
        elif isinstance(node, ast.For | ast.AsyncFor):
            bound |= set(_names(node.target))
        elif isinstance(node, ast.withitem) and node.optional_vars:
            bound |= set(_names(node.optional_vars))
    plain = not any(
        isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        for node in _outside_functions(statements)
    )
    return _Cell(
        assigned,
        frozenset(bound),
        frozenset(ast.unparse(node) for node in statements if _assigns_parameter(node)),
        source.lstrip().startswith("# Parameters"),
        plain,
    )


def _unwrapped(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements; of a magic command those in its text, such as in a cell under %%time."""
    for node in body:
        call = node.value if isinstance(node, ast.Expr) else None
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).startswith("get_ipython()")):
            yield node
            continue
        for argument in call.args[-1:]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                try:
                    inner = ast.parse(argument.value).body
                except (SyntaxError, ValueError):  # options of the command, or another language
                    continue
                yield from (inside for inside in _unwrapped(inner) if not _is_name(inside))


def _assigns_parameter(statement: ast.stmt) -> bool:
    return any(
        isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in PARAMETERS
        for node in _outside_functions([statement])
    )


def _is_name(node: ast.stmt) -> bool:
    """Whether it is only a word, such as `inline`."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Name)


def _outside_functions(nodes: Any) -> Iterator[ast.AST]:
    """Every node that runs with the cell itself."""
    for node in nodes:
        yield node
        if not isinstance(node, _FUNCTIONS):
            yield from _outside_functions(ast.iter_child_nodes(node))


def _names(target: ast.expr) -> Iterator[str]:
    """Names that an assignment target sets; not those whose items or attributes it sets."""
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _names(part)
    elif isinstance(target, ast.Starred):
        yield from _names(target.value)


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return False
    return True


def _check_cells(cells: list[_Cell], namespace: Mapping[str, Any]) -> None:
    """ValueError with one sentence if a variable may not be what the reader of the cells sees.

    cells   in the order in which they were executed; the last one calls `study`
    """
    again = [i for i, cell in enumerate(cells) if _is_executed_again(cell, cells[i + 1 :])]
    for name in sorted(PARAMETERS & set(namespace)):
        setting = [i for i, cell in enumerate(cells) if name in cell.assigned or name in cell.bound]
        if not setting:
            continue  # set by what no cell shows, such as %run
        last = cells[setting[-1]]
        if setting[-1] in again:
            raise ValueError(
                f"{name} is left from a cell that was executed again without it; assign it beside "
                "the other parameters, or restart the kernel"
            )
        if name not in last.assigned and setting[-1] != len(cells) - 1:
            raise ValueError(
                f"{name} is a parameter, but a loop, import or definition in a cell set it to "
                f"{shown(namespace[name])}; execute the parameters again, and name that variable "
                "otherwise"
            )
        _check_injected(name, cells, setting)
    injected = [i for i, cell in enumerate(cells) if cell.injected][-1:]
    for i, cell in enumerate(cells):
        if i in injected or (cell.parameters and i not in again and not cell.injected):
            for name, value in cell.assigned.items():
                _check_known(name, value, cell)


def _is_executed_again(cell: _Cell, later: list[_Cell]) -> bool:
    """Whether one of the later cells is this one, changed: half of the parameters are assigned
    in the same words."""
    return bool(cell.parameters) and any(
        2 * len(cell.statements & candidate.statements) >= len(cell.statements)
        for candidate in later
    )


def _check_injected(name: str, cells: list[_Cell], setting: list[int]) -> None:
    """ValueError if what papermill was told stands above the cell that says the same parameter."""
    first = min(i for i, cell in enumerate(cells) if cell.parameters)
    if cells[first].injected and first in setting and setting[-1] != first:
        raise ValueError(
            f"papermill's value of {name} stands before the cell that assigns it and has no "
            "effect; give that cell the tag 'parameters'"
        )


def _check_known(name: str, value: ast.expr, cell: _Cell) -> None:
    """ValueError if a name is no parameter but was meant as one: beside parameters, in a cell that
    only assigns values, or much like one."""
    if name in PARAMETERS or name in _PAPERMILL or name.startswith("_"):
        return
    if name == NOTEBOOK and cell.injected:
        return
    near = meant(name, PARAMETERS)
    computed = any(isinstance(node, ast.Call | ast.Await) for node in ast.walk(value))
    if cell.injected or near or (cell.plain and not computed):
        raise ValueError(unknown("parameter", name, sorted(PARAMETERS)))


# ---- Around the study ----------------------------------------------------------------------------


def quiet() -> None:
    """Figures in the style of the study; no warnings that name paths of this machine."""
    from .report.figures import use_style

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    # diffusers asks tqdm for a bar that is never drawn
    warnings.filterwarnings("ignore", message="IProgress not found")
    use_style()
    _show_figures()
    import pandas as pd

    pd.set_option("display.max_colwidth", 160)  # words of a judgement


def _show_figures() -> None:
    """In an IPython kernel figures appear in the notebook, whatever MPLBACKEND says; elsewhere, and
    where a cell chose a backend, nothing is changed."""
    shell = _kernel()
    if shell is None:
        return
    import matplotlib

    wanted = os.environ.get("MPLBACKEND", "")
    if "inline" not in wanted and matplotlib.get_backend().lower() == wanted.lower():
        shell.enable_matplotlib("inline")
    if "inline" in matplotlib.get_backend():
        from matplotlib_inline.config import InlineBackend

        from .report.figures import COLUMN_DPI, DPI_VARIABLE

        dpi = int(os.environ.get(DPI_VARIABLE, COLUMN_DPI))
        how: dict[str, Any] = {"bbox_inches": "tight", "dpi": dpi}
        InlineBackend.instance(parent=shell).print_figure_kwargs = how


def _kernel() -> Any:
    """The shell of the IPython kernel that this is executed in, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def figures_folder() -> Path:
    """Where figures of all notebooks go: BIASSTUDY_STUDY, else study/ of the enclosing checkout,
    else the user's cache."""
    return home("BIASSTUDY_STUDY", "study") / "figures"


# asked for last in this kernel: cells that write ask for the folder alone
_latest: Study | None = None


def output_folder() -> Path:
    """Where figures, tables and the answer of the study go that was asked for last: in the folder
    of all figures if it is as the notebook's cell says, else in one named after what differs."""
    return _folder_of(_latest) if _latest else figures_folder()


def _folder_of(asked: Study) -> Path:
    """The folder of one study; never one where another study of the same name has figures, as after
    the cell itself was edited."""
    name = _folder_name(asked.settings) if asked.settings else ""
    folder = figures_folder() / name
    if any(_is_of_another(path, asked) for path in folder.glob(f"{asked.name}-*.json")):
        folder = figures_folder() / "-".join(filter(None, (name, asked.id)))
    return folder


def _folder_name(settings: Mapping[str, Any]) -> str:
    """Up to three settings in words, `ratio-0.1`; else the scale and a hash of them all."""
    words = [f"{name}-{value}" for name, value in sorted(settings.items())]
    name = "+".join(words)
    if len(words) <= 3 and len(name) <= 80 and re.fullmatch(r"[A-Za-z0-9_.+-]+", name):
        return name
    scale = re.sub(r"[^A-Za-z0-9]+", "-", str(settings.get("scale", "changed")))[:40]
    return f"{scale}-{digest(dict(settings), 8)}"


def _is_of_another(path: Path, asked: Study) -> bool:
    """Whether a figure was made by another study of the same name; not of one drawn from results
    that ship, and not if it is not whole."""
    try:
        record = json.loads(read_text(path))
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("study", "") not in ("", asked.id)


def answer(results: Any, name: str, study: Study | None = None) -> str:
    """The answer in words, a line per variant if a study is given; also written beside the figures
    as name.txt, and with its numbers as name-answer.json, see `report.answers`."""
    from .report.answers import write_answers

    folder = output_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return write_answers(study.split(results) if study else {"": results}, name, folder)


def tell(*texts: str) -> None:
    """Sentences as text that a browser wraps between words; outside an IPython kernel they are
    printed.

    texts   a paragraph each, a list where it has several lines
    """
    plain = "\n".join(texts)
    if _kernel() is None:
        print(plain)
        return
    from IPython.display import display

    paragraphs = [_markdown(text.splitlines()) for text in texts]
    display({"text/plain": plain, "text/markdown": "\n\n".join(paragraphs)}, raw=True)


def _markdown(lines: list[str]) -> str:
    """Lines as Markdown in which every character stands for itself."""
    within = [re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", line.strip()) for line in lines]
    # signs and numbers that would begin a list or a title
    plain = [re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line) for line in within]
    return "\n".join(f"- {line}" for line in plain) if len(plain) > 1 else "".join(plain)


def check(results: Any) -> None:
    """Bookkeeping of every experiment: its generations, the images of its start and of its batches,
    and that all arms of a seed share generation 0.

    raises   AssertionError   with one sentence about the first experiment that fails
    """
    first: dict[str, Any] = {}
    for o in results.outcomes:
        e, name = o.experiment, f"experiment {o.experiment.id} (arm {o.experiment.arm})"
        expected = {
            "generations": (len(o.predicted), e.n_generations + 1),
            "images in the start": (int(o.counts.sum()), e.n_real),
            "batches": (len(o.batches), e.n_generations if e.n_batch else 0),
        }
        for what, (seen, asked) in expected.items():
            if seen != asked:
                raise AssertionError(f"{name} has {seen} {what}; expected {asked}")
        asked = e.n_batch - e.n_fresh
        for t, batch in enumerate(o.batches):
            n = len(batch["label"])
            if n > asked or (n < asked and e.shortfall != "keep"):
                raise AssertionError(f"batch {t} of {name} has {n} images; expected {asked}")
        if not (first.setdefault(e.pair, o.predicted[0]) == o.predicted[0]).all():
            raise AssertionError(f"{name} does not share generation 0 with the arms of its seed")


def data_note(dataset: str, name: str) -> str:
    """Whether the images are real, for the first output; of a stand-in also the two commands that
    lead to real ones.

    name   of the notebook
    """
    real = DATASETS[dataset].traits.get("stands_for")
    if not real:
        return f"{dataset}: real images."
    return (
        f"{dataset} is a procedural STAND-IN, not photographs. With {real}:\n"
        f"  python -m biasstudy fetch {DATASETS[real].traits['fetch']}\n"
        f"  papermill notebooks/{name}.ipynb out.ipynb -p dataset {real}"
    )
