"""The two lines that every notebook begins with: its parameters checked, and a study made of them.

    study = notebook.study(globals())
    results = study.run()

papermill only warns of a parameter that the notebook does not declare; here it stops the run,
before any training.
"""

import ast
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from .core.places import home, write_text
from .core.registry import DATASETS
from .experiment import Experiment
from .study import SETTINGS, Study, study_from

_PAPERMILL = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}


def study(namespace: Mapping[str, Any]) -> Study:
    """The study that the parameters cell of this notebook asks for; call it as study(globals()).

    raises   ValueError   with one sentence if a parameter is unknown or wrong, or the data cannot
             give what is asked
    """
    quiet()
    names = {f.name for f in fields(Experiment)} | set(SETTINGS)
    declared, own = _declared(namespace.get("In", []))
    for name in declared:
        if name not in names:
            raise ValueError(f"unknown parameter {name!r}; known: {', '.join(sorted(names))}")
    found = study_from({name: namespace[name] for name in namespace if name in (declared or names)})
    found = replace(found, notebook=own or namespace.get("name", ""))
    if found.source == "run":
        from .data.real import real_data

        for e in found.experiments:
            real_data(e)  # refuses missing data and sizes that cannot be met
    return found


def _declared(cells: list[str]) -> tuple[list[str], str]:
    """Names assigned in the parameters cell, and in the cell that papermill put after it, as last
    executed; and what the parameters cell says for `name`."""
    last: dict[str, list[str]] = {}
    own = ""
    for cell in cells:
        try:
            body = ast.parse(cell).body
        except SyntaxError:  # a cell with a magic command is no parameters cell
            continue
        names = [
            name
            for node in body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for name in _targets(node)
        ]
        if cell.lstrip().startswith("# Parameters"):
            last["injected"] = [name for name in names if name not in _PAPERMILL]
        elif {"dataset", "ratio"} <= set(names):
            last["declared"] = names
            own = next(
                (
                    str(node.value.value)
                    for node in body
                    if isinstance(node, ast.Assign | ast.AnnAssign)
                    and "name" in _targets(node)
                    and isinstance(node.value, ast.Constant)
                ),
                "",
            )
    return sorted({name for names in last.values() for name in names}), own


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [t.id for t in targets if isinstance(t, ast.Name)]


def quiet() -> None:
    """Figures in the style of the study; no warnings that name paths of this machine."""
    from .report.figures import use_style

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    # diffusers asks tqdm for a bar that is never drawn
    warnings.filterwarnings("ignore", message="IProgress not found")
    use_style()
    import pandas as pd

    pd.set_option("display.max_colwidth", 160)  # words of a judgement


def output_folder() -> Path:
    """Where figures go: BIASSTUDY_STUDY, else study/ of the enclosing checkout, else the user's
    cache."""
    return home("BIASSTUDY_STUDY", "study") / "figures"


def answer(results: Any, name: str, study: Study | None = None) -> str:
    """The answer in words, a line per variant if a study is given; also written beside the figures
    as name.txt."""
    from .inference.verdicts import sentences

    text = "\n".join(sentences(study.split(results) if study else {"": results}))
    folder = output_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.txt", text + "\n")
    return text


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
