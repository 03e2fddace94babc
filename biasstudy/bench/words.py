"""Reports of measurements as aligned text."""

from .bench import Report


def place(report: Report) -> str:
    """The same in words."""
    n, caveat = report["threads"], " (quick: these numbers say nothing)" if report["quick"] else ""
    return f"{report['device']}, {report['precision']}, {n} thread{'s' * (n > 1)}{caveat}"


def models_table(report: Report) -> str:
    """The report as aligned text."""
    environment = report["environment"]
    lines = [
        f"biasstudy {environment.get('biasstudy', '')} bench on {place(report)}",
        f"{environment['processor']}; torch {environment.get('torch', '')}; load of the machine "
        f"{report['load']:.1f}; median (lowest-highest) of {report['repeats']} repeats",
        "",
    ]
    for kind, rate in report["matmul"].items():
        lines.append(
            f"{f'matrix product, {kind}':27} {_said(rate)} GFLOP/s, best size {rate['size']}"
        )
    lines += [f"{'memory copy':27} {_said(report['bandwidth'])} GB/s, read and written", ""]
    if report["models"]:
        lines += _models(report)
    if "loop" in report:
        lines += _loop(report)
    return "\n".join(lines)


def _models(report: Report) -> list[str]:
    rows = [
        f"images/s at {'x'.join(map(str, report['image']))}; fitting: {report['pool']} in the "
        f"pool; sampling, predicting: {report['sample']} at a time",
        f"{'':26} {'batch':>5}  {'fitting':26} {'MFLOP/image':>11} {'of peak':>11} {'MB':>5}  "
        "sampling, predicting",
    ]
    for model in report["models"]:
        flops, share = model["flops_per_image"], model["share"]
        counted = (
            f"{flops / 1e6:11.1f} {share:11.1%}"
            if flops
            else f"{'not counted':>11} {'not counted':>11}"
        )
        rows.append(
            f"{model['kind']:10} {model['name']:15} {model['fit']['batch'] or 'all':>5}  "
            f"{_said(model['fit']['images/s']):26} {counted} {model['memory_mb']:5.0f}  "
            f"{_said(model['sample'])}"
        )
    return [
        *rows,
        "batch all: the whole fit, which has no steps. MFLOP: products and convolutions of an "
        "optimiser step.",
        f"MB: most memory of a process of its own during the fit ({report['memory_mb']:.0f} before "
        "it).",
        "",
    ]


def _loop(report: Report) -> list[str]:
    loop, e = report["loop"], report["loop"]["experiment"]
    rows = [
        f"one experiment: {e['generator']} {e['generator_steps']} steps, {e['classifier']} "
        f"{e['classifier_steps']} steps, filter {e['filter']}, n_real {e['n_real']}, ratio "
        f"{e['ratio']}, T = {e['n_generations']}"
    ]
    rows += [
        f"  {part:12} {s:9.3f} s {s / loop['wall']:7.1%}" for part, s in loop["seconds"].items()
    ]
    return [
        *rows,
        f"  {'wall':12} {loop['wall']:9.3f} s    repeats {_said(loop['spread']['wall'])}",
        f"  {'overhead':12} {loop['overhead']:19.1%}    measure and store, of the wall time",
        f"  {'rerun':12} {loop['rerun']:9.3f} s    repeats {_said(loop['spread']['rerun'])}, "
        "everything stored",
        "instruments are fitted once per data set. store is all that is not a stage: drawing the "
        "real data, keys, files.",
        "Filtering and sampling are one stage, divided in proportion to a repeat of both on the "
        "same candidates.",
        "",
        f"import biasstudy {_said(report['import'])} s",
    ]


def _said(found: Report) -> str:
    median, low, high = (
        f"{v:.0f}" if 100 <= v < 1e6 else f"{v:.3g}"
        for v in (found[k] for k in ("median", "low", "high"))
    )
    return f"{median} ({low}-{high})"
