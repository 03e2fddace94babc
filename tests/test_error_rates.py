"""Error rates of the words: the table that ships keeps its promises, and the code that makes it can
tell a broken one."""

import json

import numpy as np
import pandas as pd
import pytest

from biasstudy.bench import error_rates as rates_of
from biasstudy.bench.error_rates import (
    SCENARIOS,
    SEEDS,
    Asked,
    Scenario,
    broken_promises,
    error_rates,
    moved,
    write_error_rates,
)
from biasstudy.report.shipped import REFERENCE


def test_the_table_that_ships_keeps_every_promise():
    rates = pd.read_csv(REFERENCE / "instrument" / "error-rates.csv")
    n_studies = rates.studies.iloc[0]
    assert n_studies >= 200 and rates.studies.nunique() == 1
    asked = [(scenario.truth, a.says) for scenario in SCENARIOS for a in scenario.asked]
    assert list(zip(rates.truth, rates.says, strict=True)) == asked
    assert [f"n = {n}" for n in SEEDS] == [name for name in rates if name.startswith("n = ")]
    assert broken_promises(rates, n_studies).empty
    power = rates[(rates.truth == "doubles") & (rates.says == "amplified")]
    assert power["n = 6"].item() > 0.75, "a doubled contrast is found with six seeds"


def test_simulated_again_they_are_the_same_within_chance():
    stored = pd.read_csv(REFERENCE / "instrument" / "error-rates.csv")
    chosen = SCENARIOS[4:5]
    assert chosen[0].truth == "doubles"
    again = error_rates(30, (6,), chosen)
    before = stored[stored.truth == "doubles"]["n = 6"].to_numpy()
    spread = np.sqrt(before * (1 - before) / 30 + 1 / 900)
    assert (np.abs(again["n = 6"].to_numpy() - before) < 4 * spread).all()


def test_a_broken_promise_is_told():
    always = Scenario("nothing", moved(0.0), (Asked("something", lambda study: True, 0.05),))
    rates = error_rates(10, (6, 7), (always,))
    assert rates["n = 6"].item() == rates["n = 7"].item() == 1
    assert len(broken_promises(rates, 10)) == 1


def test_what_is_written_names_its_command(tmp_path, monkeypatch):
    always = Scenario("nothing", moved(0.0), (Asked("nothing", lambda study: False, 0.05),))
    monkeypatch.setattr(rates_of, "error_rates", lambda n: error_rates(n, (6,), (always,)))
    *_, said, where = write_error_rates(3, tmp_path)
    assert said == "every promise is kept" and pd.read_csv(where).studies.item() == 3
    about = json.loads((tmp_path / "error-rates.json").read_text())
    assert about["command"] == "python -m biasstudy nulls --only words --words 3"
    with pytest.raises(ValueError, match="words needs at least 2 studies; got 1"):
        write_error_rates(1, tmp_path)
