"""Stage keys of every parameter file: whatever moves inside the package, stored results are found
again.

`keys.json` holds, per file, hashes of the experiments' ids and of the ids of all stages of the
first seed. A change that is meant (another version of an entry, another parameter file): python
tests/test_keys.py writes them anew.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest

from biasstudy import DATASETS, Numerics
from biasstudy.campaign import sweep
from biasstudy.core.seeds import digest
from biasstudy.core.store import needed_by
from biasstudy.data.real import real_data
from biasstudy.loop.generations import generations
from biasstudy.loop.run import open_store, results_of
from biasstudy.parameters import read, read_parameters
from biasstudy.study import study_from

ROOT = Path(__file__).parents[1]
KEYS = Path(__file__).parent / "keys.json"
FILES = sorted((ROOT / "params").rglob("*.yaml"))
HERE = {"device": "cpu", "precision": "float32"}  # whatever the file would use


def study_of(path):
    if "grid" in read_parameters(path):
        return sweep.read(path, HERE).study
    return study_from(read(path, HERE).parameters)


def keys_of(study) -> dict:
    """Hashes of the experiments' ids, and of the ids of all stages of the first seed."""
    ids = set()
    with tempfile.TemporaryDirectory() as folder:
        for e in study.experiments:
            if e.seed == study.base.seed:
                store = open_store(folder, Numerics.elsewhere(**study.numerics))
                ids |= set(needed_by(results_of(generations(e, real_data(e), store))))
                store.close()
    return {
        "experiments": digest([e.id for e in study.experiments]),
        "n": len(study.experiments),
        "keys": digest(sorted(ids)),
        "stages": len(ids),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_keys_stay(path):
    name, known = path.relative_to(ROOT / "params").as_posix(), json.loads(KEYS.read_text())
    study = study_of(path)
    if name not in known:
        assert path.stem == "paper", "every other file can be planned with the real data at hand"
        pytest.skip("it needs files that are not here")
    made_of_mnist = study.base.dataset_options.get("root") == "mnist-by-thickness"
    fetched = DATASETS[study.base.dataset].traits.get("fetch") or made_of_mnist
    if fetched and not os.environ.get("BIASSTUDY_DATA"):
        pytest.skip("set BIASSTUDY_DATA to a folder with the real data sets")
    assert keys_of(study) == known[name]


if __name__ == "__main__":
    found = {}
    for path in FILES:
        try:
            found[path.relative_to(ROOT / "params").as_posix()] = keys_of(study_of(path))
        except (ValueError, OSError) as error:
            print(path, error)
    KEYS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
