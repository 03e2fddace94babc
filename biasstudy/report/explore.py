"""Stored results, one setting at a time: what there is, what one says, and menus to choose it by.

found = summary.stored()
settings = explore.settings(found, dataset="colorized-mnist", bias=0.6)
results = explore.results(found, settings.iloc[0])
explore.panel(found)  # the same by menus, in JupyterLab
"""

from typing import Any

import pandas as pd

from ..core.checks import unknown
from ..core.places import in_jupyterlab
from ..inference.contrasts import CONTRASTS, all_contrasts
from ..inference.gate import FIT, gate, wanted
from ..measures.fitness import CRITERIA
from . import figures
from .summary import Stored

FIELDS = ("dataset", "generator", "protocol", "bias")  # what a setting is chosen by, in this order
ONLY_THERE = "Menus are shown in JupyterLab; below is the first setting of the table."


def settings(found: Stored, **chosen: Any) -> pd.DataFrame:
    """Settings with these values; those of fit generators come first, of these the ones with a bias
    to amplify.

    chosen   values of FIELDS
    returns  rows of `summary.table_of_effects`
    raises   ValueError   for a field that is not among FIELDS, or a value that no setting has
                          beside the others
    """
    table = found.effects
    for field, value in chosen.items():
        if field not in FIELDS:
            raise ValueError(unknown("field", field, FIELDS))
        known = sorted(table[field].unique())
        if value not in known:
            raise ValueError(unknown(field, value, map(str, known)))
        table = table[table[field] == value]
    first = table.assign(unfit=table.fit != FIT, idle=~table.has_bias.astype(bool))
    in_order = first.sort_values(["unfit", "idle", *FIELDS, "setting"], kind="stable")
    return in_order.drop(columns=["unfit", "idle"]).reset_index(drop=True)


def results(found: Stored, setting: Any) -> Any:
    """Results of one row of `settings`."""
    return found.parts[setting.study][setting.variant]


def contrasts(results: Any) -> pd.DataFrame:
    """The contrasts of one setting whose arms were run, in its last generation.

    returns  contrast, of (the arms), mean, low, high (95 % interval), p (two-sided, uncorrected),
             n (seeds)
    """
    rows = [
        (key, " - ".join(CONTRASTS[key]), e.mean, e.low, e.high, e.p, e.n)
        for key, e in all_contrasts(results).items()
    ]
    return pd.DataFrame(rows, columns=["contrast", "of", "mean", "low", "high", "p", "n"])


def fitness(results: Any) -> pd.DataFrame:
    """Whether the generators of one setting deserve a verdict.

    returns  criterion, bound ("at least 0.90"), a column for each generation that generates, as
             "generation 0": mean over seeds, nan where not measured; no row where nothing is
             generated
    """
    judged = gate(results)
    rows = [
        {
            "criterion": name,
            "bound": wanted(name).removeprefix("of "),
            **{f"generation {t}": values[name] for t, values in enumerate(judged.values)},
        }
        for name in CRITERIA
        if judged
    ]
    return pd.DataFrame(rows, columns=None if rows else ["criterion", "bound"])


def panel(found: Stored) -> Any:
    """Menus for FIELDS and the setting; under them its verdict, contrasts, fitness and curves.

    returns  a widget in JupyterLab; elsewhere, where nobody could use it, ONLY_THERE
    """
    return Panel(found).widget if in_jupyterlab() else ONLY_THERE


class Panel:
    """Menus that offer only what is stored beside what the menus above them say.

    menus    field or "setting" -> Dropdown
    setting  the row of `settings` that is shown
    widget   all of it
    """

    def __init__(self, found: Stored) -> None:
        from ipywidgets import Dropdown, Output, VBox

        self._found, self._shown, self._busy = found, Output(), False
        self.menus = {
            name: Dropdown(description=name, layout={"width": "max-content"})
            for name in (*FIELDS, "setting")
        }
        self.widget = VBox([*self.menus.values(), self._shown])
        for menu in self.menus.values():
            menu.observe(self._refill, "value")
        self._refill()

    def _refill(self, change: Any = None) -> None:
        """Offer what there is, from the first menu down, and show the setting."""
        if self._busy:  # a menu that is being filled
            return
        self._busy = True
        table = settings(self._found)
        for name, menu in self.menus.items():
            before, first, offered = menu.value, table[name].iloc[0], table[name].unique()
            menu.options = offered.tolist() if name == "setting" else sorted(offered.tolist())
            menu.value = before if before in menu.options else first
            table = table[table[name] == menu.value]
        self._busy = False
        self.setting = table.iloc[0]
        self._show()

    def _show(self) -> None:
        from IPython.display import display
        from matplotlib import pyplot

        of_setting = results(self._found, self.setting)
        self._shown.clear_output(wait=True)
        with self._shown:
            print(f"{self.setting.verdict}, {self.setting.status}, {self.setting.fitness}")
            display(contrasts(of_setting).round(4), fitness(of_setting).round(3))
            for draw in (figures.curves, figures.cell_accuracy, figures.shares):
                figure, _ = draw(of_setting)
                display(figure)
                pyplot.close(figure)
