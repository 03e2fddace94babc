"""biasstudy: when generated images enter training sets, does the bias of future classifiers grow?

    from biasstudy import Experiment, run
    experiments = [Experiment(start="biased", bias=0.6, seed=s) for s in range(2)]
    results = run(e.to_arm(arm) for e in experiments for arm in ARMS)

Words, one meaning each: a *generation* is one turn of the loop; the *generator* and the
*classifier* are the two models trained in it; the *pool* is the training set of a generation, the
*start* the real images in it, the *batch* what one generation adds; *ratio* is the batch over the
start; an *arm* is what the batch is made of (generated images, fresh real images, a bootstrap of
the pool, nothing); a *group* is a subgroup of images, told by the *probe*.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module; loaded when first used, so that the import itself needs neither torch nor
# pandas
_HOME = {
    "Experiment": "experiment",
    "ARMS": "experiment",
    "PROTOCOLS": "experiment",
    "DATASETS": "core.registry",
    "GENERATORS": "core.registry",
    "CLASSIFIERS": "core.registry",
    "FILTERS": "core.registry",
    "METRICS": "core.registry",
    "Numerics": "core.numerics",
    "LabeledImages": "data.images",
    "Dataset": "data.images",
    "run": "loop.run",
    "Results": "loop.results",
    "secondary": "inference.secondary",
    "reference": "report.shipped",
    "reference_parts": "report.shipped",
    "load": "report.tables",
    "score": "report.predictions",
    "score_parts": "report.predictions",
}
_MODULES = {  # public module -> where it lies
    "conjecture": "inference.conjecture",
    "dynamics": "inference.dynamics",
    "experiment": "experiment",
    "explore": "report.explore",
    "figures": "report.figures",
    "inference": "inference",
    "ledger": "report.ledger",
    "metrics": "measures.metrics",
    "notebook": "notebook",
    "summary": "report.summary",
}
__all__ = [*_HOME, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from .core.numerics import Numerics as Numerics
    from .core.registry import CLASSIFIERS as CLASSIFIERS
    from .core.registry import DATASETS as DATASETS
    from .core.registry import FILTERS as FILTERS
    from .core.registry import GENERATORS as GENERATORS
    from .core.registry import METRICS as METRICS
    from .data.images import Dataset as Dataset
    from .data.images import LabeledImages as LabeledImages
    from .experiment import ARMS as ARMS
    from .experiment import PROTOCOLS as PROTOCOLS
    from .experiment import Experiment as Experiment
    from .inference.secondary import secondary as secondary
    from .loop.results import Results as Results
    from .loop.run import run as run
    from .report.predictions import score as score
    from .report.predictions import score_parts as score_parts
    from .report.shipped import reference as reference
    from .report.shipped import reference_parts as reference_parts
    from .report.tables import load as load


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
