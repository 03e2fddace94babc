"""How many sampling steps are enough, and speed beside the pipeline of diffusers."""

import dataclasses
import json

import pandas as pd
import pytest
from conftest import FLOAT64, tiny

from biasstudy.__main__ import main
from biasstudy.bench import sampling
from biasstudy.bench.sampling import against_diffusers, fewest, quality_of_steps

SMALL = tiny(
    generator="diffusion",
    generator_steps=2,
    generator_batch=4,
    n_real=100,
    ratio=0.5,
    instrument="lenet",
    instrument_steps=5,
    generator_options={"channels": 8, "patch": 4},
)


def table(*kid, se=0.1):
    return pd.DataFrame({"steps": [2**i for i in range(len(kid))], "kid": kid, "kid_se": se})


def test_the_fewest_steps_from_which_on_all_are_near_the_last():
    assert fewest(table(3.0, 1.15, 0.9, 1.0)) == 2
    assert fewest(table(1.0, 1.3, 0.9, 1.0)) == 4, "near by chance, then far: not enough"
    assert fewest(table(1.0, 1.0)) == 1 and fewest(table(5.0, 1.0)) == 2
    assert fewest(table(3.0, 1.15, 0.9, 1.0, se=0.04)) == 4, "better is no worse"


def test_quality_of_steps_measures_what_each_number_of_steps_makes(runs):
    found = quality_of_steps(SMALL, (1, 3, 10, 3), n=40, numerics=FLOAT64)
    assert found.steps.tolist() == [1, 3, 10, 3] and found.evaluations.tolist() == [1, 3, 10, 3]
    assert found.kid[1] == found.kid[3] != found.kid[2], "equal noise, equal steps: equal images"
    assert (found.kid_se > 0).all() and found.kid.notna().all()


@pytest.mark.parametrize(
    ("changes", "n", "sentence"),
    [
        (
            {
                "generator": "mixture",
                "generator_steps": 0,
                "generator_batch": 0,
                "generator_options": {},
            },
            10,
            "sampling steps belong to generator 'diffusion'; got 'mixture'",
        ),
        ({}, 51, "a batch has 50 images; 51 were asked for"),
    ],
)
def test_what_cannot_be_measured_is_said_first(changes, n, sentence, runs):
    from dataclasses import replace

    with pytest.raises(ValueError, match=sentence):
        quality_of_steps(replace(SMALL, **changes), (1, 2), n)


def test_speed_beside_the_pipeline_of_diffusers():
    found = against_diffusers(FLOAT64, steps=1, n=2, side=16, channels=8, fill=0.01)
    assert found["ratio"] == found["ours"]["median"] / found["diffusers"]["median"] > 0


def test_a_compiled_sampler_is_measured_beside_the_pipeline_as_it_is_and_compiled(monkeypatch):
    seconds = {
        ("_our_seconds", True): 1.0,
        ("_their_seconds", False): 3.0,
        ("_their_seconds", True): 2.0,
    }
    monkeypatch.setattr(
        sampling, "apart", lambda measure, by, *sizes: [seconds[measure.__name__, by.compile]] * 3
    )
    found = against_diffusers(dataclasses.replace(FLOAT64, compile=True), n=8)
    assert (found["ours"]["median"], found["ratio"], found["ratio, both compiled"]) == (8, 3, 2)


def test_the_command_writes_table_figure_and_provenance(tmp_path, runs, capsys):
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps({k: v for k, v in SMALL.fields().items()}))
    asked = [
        "sampling",
        str(file),
        "-p",
        "n_test",
        "100",
        "--steps",
        "1",
        "2",
        "--seconds",
        "0.01",
        "--images",
    ]
    assert main([*asked, "20", "--folder", str(tmp_path / "out")]) == 0
    assert "fewest steps within 2 standard errors of 2, or better" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "sampling.csv",
        "sampling.json",
        "sampling.png",
    }
    about = json.loads((tmp_path / "out" / "sampling.json").read_text())
    assert (
        f"{file.as_posix()} -p n_test 100 --images 20 --steps 1 2" in about["command"]
        and about["side"] == 28
    )
    assert main([*asked, "2000"]) == 2 and "a batch has 50 images" in capsys.readouterr().err
