"""What a user gets wrong is answered with one sentence and an exit code, before any training."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from biasstudy.__main__ import main
from biasstudy.study import study_from

ROOT = Path(__file__).parents[1]
SMALL = {
    "n_real": 100,
    "n_test": 20,
    "classifier": "ridge",
    "generator": "mixture",
    "instrument": "ridge",
    "n_generations": 1,
    "arms": ["generated", "none"],
    "precision": "float64",
}


def write(tmp_path, **parameters) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **parameters}))
    return str(path)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"raito": 0.5}, "unknown parameter 'raito' (did you mean ratio?); known: bias,"),
        ({"generator": "mixtrue"}, "unknown generator 'mixtrue' (did you mean mixture?); known"),
        (
            {"generator_options": {"cluster": 2}},
            "unknown option 'cluster' of generator 'mixture' (did you mean clusters?); known",
        ),
        (
            {"arms": ["generated", "resmaple"]},
            "unknown arm 'resmaple' in arms (did you mean resample?); known",
        ),
        ({"device": "gpu"}, "unknown device 'gpu' (did you mean cpu?); known: cpu, cuda, auto"),
        ({"arms": "[0,1]"}, "arms must be a list; got str '[0,1]'"),
        (
            {"arms": ["real", "fresh"]},
            "unknown arm 'fresh' in arms; known: generated, real, resample, none",
        ),
        ({"n_seeds": 0}, "n_seeds must be at least 1"),
        (
            {"source": "web"},
            "source must be 'run', 'reference:NAME' or, for all that ships, 'reference'; got 'web'",
        ),
        (
            {"source": "reference:nothing"},
            "no reference results 'nothing' ship with the package; known: ",
        ),
        ({"device": "cuda"}, "torch finds no CUDA device here"),
        ({"ratio": "1e-3"}, "in YAML write 1.0e-3"),
        ({"n_real": 3500}, "not enough real images"),
        ({"dataset": "colorized-mnist"}, "get it with: python -m biasstudy fetch mnist"),
        (
            {"generator": "reserve"},
            "generator 'reserve' is a control; the arm 'generated' needs a generator",
        ),
    ],
)
def test_run_answers_with_one_sentence(parameters, sentence, tmp_path, runs, monkeypatch, capsys):
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path / "empty"))
    from biasstudy.data.real import _source

    _source.cache_clear()
    import torch

    if torch.cuda.is_available() and parameters.get("device") == "cuda":
        pytest.skip("this machine has a CUDA device")
    assert main(["run", write(tmp_path, **parameters)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and "Traceback" not in error
    assert not list(runs.glob("stages/*/*")), "nothing was trained"


def test_a_disk_without_space_is_refused_before_training(tmp_path, runs, monkeypatch, capsys):
    import shutil

    full = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert main(["run", write(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert (
        f"cannot write results to {runs}: 3 MB are free and about 60 MB are needed" in error
        and error.count("\n") == 1
    )
    assert not list(runs.glob("stages/*/*")), "nothing was trained"


def test_run_takes_a_file_and_changes(tmp_path, runs, capsys):
    assert main(["run", write(tmp_path), "-p", "ratio", "0.2", "-p", "seed", "3"]) == 0
    out = capsys.readouterr().out
    assert (
        "0.2" in out
        and "3 to 3" in out
        and "nothing ranks the groups" in out
        and "images per class" in out
    )
    assert main(["run", write(tmp_path), "-p", "ratio", "half"]) == 2
    assert main(["run", str(tmp_path / "missing.yaml")]) == 2
    (tmp_path / "broken.yaml").write_text("a: [1")
    assert main(["run", str(tmp_path / "broken.yaml")]) == 2
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert main(["run", str(tmp_path / "list.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 4


def test_doctor_says_where_things_are_and_prunes(tmp_path, runs, capsys):
    main(["run", write(tmp_path), "--keep", "all"])
    before = len(list(runs.glob("stages/*/*/arrays.safetensors")))
    assert (
        main(["doctor"]) == 0 and "could be freed with: doctor --prune" in capsys.readouterr().out
    )
    assert main(["doctor", "--prune"]) == 0
    assert len(list(runs.glob("stages/*/*/arrays.safetensors"))) < before
    capsys.readouterr()
    assert main(["run", write(tmp_path)]) == 0


def test_a_reference_at_another_setting_lists_what_there_is():
    study = study_from({**SMALL, "source": "reference:colorized_mnist", "ratio": 0.123})
    with pytest.raises(ValueError, match="they were made at: colorized-mnist-5k"):
        study.run()


MISSPELT = [  # arguments, what was meant
    (["rnu", "a.yaml"], "run"),
    (["run", "a.yaml", "--wrokers", "2"], "--workers"),
    (["run", "a.yaml", "--keep", "result"], "results"),
    (["nulls", "--only", "word"], "words"),
]


@pytest.mark.parametrize(("arguments", "meant"), MISSPELT)
def test_a_misspelt_command_option_or_value_is_told_what_it_may_mean(arguments, meant, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert f"(did you mean {meant}?)" in capsys.readouterr().err.splitlines()[-1]


PAPERMILL = [  # arguments, the sentence in the output
    (["-p", "raito", "0.5"], "unknown parameter 'raito' (did you mean ratio?); known:"),
    (["-p", "ratio", "-1"], "ratio must be at least 0; got -1"),
    (["-p", "seed", "0.5"], "seed must be a whole number; got float 0.5"),
    (["-y", "ratio: 1e-3"], "in YAML write 1.0e-3"),
    (
        ["-p", "dataset", "colored-mnist"],
        "unknown data set 'colored-mnist' (did you mean colorized-mnist?)",
    ),
    (["-p", "protocol", "replace"], "protocol 'replace' needs ratio 1"),
    (["-p", "n_real", "3900"], "not enough real images"),
    (["-p", "arms", "[real]"], "arms must be a list; got str '[real]'"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), PAPERMILL, ids=[" ".join(a) for a, _ in PAPERMILL]
)
def test_papermill_stops_with_the_sentence(arguments, sentence, tmp_path, runs):
    """Through plain papermill, which by itself only warns of an unknown parameter."""
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        str(ROOT / "notebooks" / "colorized_mnist.ipynb"),
        str(tmp_path / "out.ipynb"),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert sentence in last
    assert not list(runs.glob("stages/*/*")), "nothing was trained"


@pytest.mark.parametrize(
    ("variants", "names"),
    [
        (
            [
                {"generator_options": {"clusters": 2, "rounds": 3}},
                {"generator_options": {"clusters": 4, "rounds": 3}},
            ],
            ["clusters 2", "clusters 4"],
        ),
        (
            [
                {"generator_options": {"clusters": 2}},
                {"generator_options": {"clusters": 2, "rounds": 3}},
            ],
            ["", "rounds 3"],
        ),
        ([{"generator_options": {"clusters": 2}}, {"ratio": 1.0}], ["clusters 2", "ratio 1.0"]),
        ([{"ratio": 1.0, "generator_options": {"clusters": 2}}], ["ratio 1.0, clusters 2"]),
    ],
)
def test_variants_are_named_by_what_differs(variants, names):
    assert list(study_from({**SMALL, "variants": variants}).variants) == names


@pytest.mark.parametrize(
    ("variants", "sentence"),
    [
        ([{}], "a variant is a mapping of fields to values"),
        ([{"ratio": 1.0}, 3], "a variant is a mapping .*; got 3"),
        ([{"ratio": 1.0}, {"ratio": 1.0}], "the variant 'ratio 1.0' is given twice"),
        ([{"ratio": 1.0}, {"raito": 1.0}], "unknown parameter 'raito'"),
    ],
)
def test_variants_are_checked(variants, sentence):
    with pytest.raises(ValueError, match=sentence):
        study_from({**SMALL, "variants": variants})
