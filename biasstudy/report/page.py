"""One self-contained page: the question, the answer with n, figures and tables across studies, the
ledger, what it cost; then every figure of the own study with its claim, its mark and its files.
Nothing is loaded from elsewhere, no script runs."""

import base64
import html
import io
import json
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..core.places import read_text, write_text
from ..core.provenance import environment
from ..inference.conjecture import HYPOTHESES
from . import figures
from .ledger import LEDGER
from .summary import Stored, answer, stored

_PAGE = read_text(Path(__file__).with_name("page.html"))

_COLUMNS = {
    "dataset": "data",
    "study": "study",
    "start": "start",
    "bias": "bias",
    "generator": "generator",
    "condition": "told",
    "classifier": "classifier",
    "protocol": "protocol",
    "filter": "filter",
    "ratio": "ratio",
    "generation": "T",
    "n": "n",
    "M_none": "M(none)",
    "A": "A",
    "A_low": "from",
    "A_high": "to",
    "R": "R",
    "detectable": "detectable",
    "fit": "generator",
    "status": "status",
    "verdict": "verdict",
}


def write_page(folder: Path, stored_results: Stored | None = None) -> Path:
    """Write folder/index.html from stored results, and from folder/figures/*.json where a study was
    made there.

    stored_results  results to sum up; default: all that ships with the package
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored_results = stored_results or stored()
    body = "".join(
        [
            f'<p class="answer">{html.escape(answer(stored_results))}</p>',
            *_across(stored_results),
            *_dynamics(stored_results),
            *_claims(stored_results),
            *_cost(stored_results),
            *_own(folder),
        ]
    )
    return _written(folder, body)


def write_scored(folder: Path, contrasts: pd.DataFrame) -> Path:
    """Write folder/index.html of predictions made elsewhere: answer and figures from
    folder/figures, then every number about the change."""
    body = "".join(
        [
            *_own(folder),
            "<h2>Every number about the change</h2>",
            _html_table(contrasts.astype(object).where(contrasts.notna(), "")),
            '<p class="small">Mean, 95 % interval and two-sided p-value, uncorrected, for new '
            "seeds and new test images.</p>",
        ]
    )
    return _written(folder, body)


def _written(folder: Path, body: str) -> Path:
    page = folder / "index.html"
    known = environment()
    write_text(
        page,
        _PAGE.format(
            body=body,
            version=known.get("biasstudy", ""),
            commit=known["commit"] or "unknown",
            processor=html.escape(known["processor"]),
        ),
    )
    return page


# ---- Sections from stored results ----------------------------------------------------------------


def _across(stored_results: Stored) -> Iterable[str]:
    yield "<h2>Across data sets</h2>"
    yield _html_table(
        stored_results.data_sets.rename(
            columns={"cannot_tell": "cannot tell", "A_low": "from", "A_high": "to"}
        )
    )
    yield (
        '<p class="small">Settings with a bias to amplify, by verdict. A: mean over the settings '
        "of a data set, seed by seed and photograph by photograph, with its 95 % interval.</p>"
    )
    yield _embedded(
        figures.effects(stored_results.effects, stored_results.mark)[0],
        "A, the change of the accuracy contrast that adding generated images makes in the last "
        "generation, with its "
        "95 % interval for new seeds and new test images, in every setting.",
        wide=True,
    )
    yield _embedded(
        figures.ways(stored_results.parts, stored_results.mark)[0],
        "The way of every setting through the plane of accuracy and contrast, generated minus "
        "retraining alone.",
    )
    yield _embedded(
        figures.dose(stored_results.effects, stored_results.parts, stored_results.mark)[0],
        "A against the ratio and against the share of fresh real images, where settings differ in "
        "nothing else; "
        "points of one value stand side by side.",
    )
    yield (
        '<p class="small">A: generated minus none. R: generated minus real. T: generations. n: '
        "seeds. M(none): the contrast with nothing added; a quarter of it is the margin of "
        "the verdict, or 0.02 where the start has no bias. "
        "detectable: smallest change found with 80 % power. "
        "Verdicts after Holm's correction within a study.</p>"
    )
    # given, not measured
    chosen = {name: stored_results.effects[name].map("{:g}".format) for name in ("bias", "ratio")}
    yield _html_table(
        stored_results.effects.assign(**chosen)[list(_COLUMNS)].rename(columns=_COLUMNS)
    )


def _dynamics(stored_results: Stored) -> Iterable[str]:
    if not stored_results.judgements:
        return
    yield "<h2>Dynamics</h2><p>Three hypotheses, all ours:</p><dl>"
    yield "".join(
        f"<div><dt><b>{name}</b></dt><dd>{html.escape(says)}</dd></div>"
        for name, says in HYPOTHESES.items()
    )
    yield (
        "</dl><p class='small'>What refutes a hypothesis was defined after the first look at "
        "these results: exploratory "
        "until new data confirm it.</p>"
    )
    yield _embedded(
        figures.levels(stored_results.judgements, stored_results.mark)[0],
        "Change at each assigned level of bias, with 95 % intervals: of the classifiers' "
        "contrast, and of the shares "
        "that the first generator makes.",
    )
    yield (
        "<ul>"
        + "".join(
            f"<li>{html.escape(', '.join(key))}: <b>{j.word}</b>. {html.escape(j.because)}."
            f"{' Refuted: ' + ', '.join(j.refuted) + '.' if j.refuted else ''}</li>"
            for key, j in stored_results.judgements.items()
        )
        + "</ul>"
    )


def _claims(stored_results: Stored) -> Iterable[str]:
    yield "<h2>Claims of the paper's abstract, in our words</h2>"
    for claim in LEDGER:
        yield (
            f"<h3>{html.escape(claim.claim)}</h3><dl>"
            f"<div><dt>our hypothesis</dt><dd>{html.escape(claim.hypothesis)}</dd></div>"
            f"<div><dt>notebooks</dt><dd>{', '.join(claim.notebooks) or 'none'}</dd></div>"
            f"<div><dt>result</dt><dd>{html.escape(claim.says(stored_results))}</dd></div></dl>"
        )


def _cost(stored_results: Stored) -> Iterable[str]:
    hours = stored_results.cost.process_hours.sum()
    yield (
        "<h2>Where the results come from, and what they cost</h2>"
        f"<p>{len(stored_results.outcomes)} experiments, {hours:.1f} process hours; each stage is "
        "counted once in a study.</p>"
    )
    yield _html_table(stored_results.cost)


def _html_table(table: pd.DataFrame) -> str:
    """A table of a page; numbers with three digits."""
    cells = [
        [
            (f"{x:.3f}" if abs(x) < 10 else f"{x:.0f}", True)
            if isinstance(x, float)
            else (str(x), isinstance(x, int))
            for x in row
        ]
        for row in table.astype(object).itertuples(index=False)
    ]
    head = "".join(f"<th>{html.escape(str(name).replace('_', ' '))}</th>" for name in table)
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' * number}>{html.escape(text)}</td>" for text, number in row)
        + "</tr>"
        for row in cells
    )
    head, body = f"<thead><tr>{head}</tr></thead>", f"<tbody>{body}</tbody>"
    return f'<div class="table"><table>{head}{body}</table></div>'


def _embedded(figure: Figure, claim: str, wide: bool = False) -> str:
    """A figure in the page, in few colours: a third of the size; a wide one is scrolled on a phone,
    not shrunk."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150)
    shown = _picture(figures.packed(drawn.getvalue()), claim, html.escape(claim))
    if wide:
        shown = shown.replace("<img", '<div class="table wide"><img', 1).replace(
            "<figcaption>", "</div><figcaption>", 1
        )
    return shown


def _picture(png: bytes, claim: str, caption: str) -> str:
    return (
        f'<figure><img alt="{html.escape(claim)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


# ---- The own study -------------------------------------------------------------------------------


def _own(folder: Path) -> Iterable[str]:
    """Figures that notebooks wrote into the folder and those inside, own results first; those that
    are not whole are named."""
    paths = sorted((folder / "figures").rglob("*.json"))
    paths = [path for path in paths if not path.name.endswith("-answer.json")]  # no figures
    about = {path: _about(path) for path in paths}
    whole = {path: record for path, record in about.items() if record}
    if not whole:
        yield (
            "<h2>Notebooks</h2><p>No notebook has written figures here yet; make study trains a "
            "study and draws them.</p>"
        )
    sections: dict[tuple[Path, str], list[str]] = {}
    for path, record in sorted(whole.items(), key=lambda item: item[1]["made"] != "trained here"):
        # a name has no hyphen: the study, then which of its figures
        key = path.parent, record["name"].split("-")[0]
        sections.setdefault(key, []).append(_figure(path, record, folder))
    for (place, name), parts in sections.items():
        inside = f": {place.name}" if place != folder / "figures" else ""
        yield f"<h2>{html.escape(name + inside)}</h2>{_answer(place, name)}{''.join(parts)}"
    broken = [
        path.relative_to(folder / "figures").as_posix() for path in paths if path not in whole
    ]
    if broken:
        yield (
            f"<p>Not whole, and left out: {html.escape(', '.join(broken))} in figures. Run their "
            "notebooks again.</p>"
        )


def _about(path: Path) -> dict[str, str]:
    """What is told of a figure; empty unless all of it is there, and the picture, too."""
    try:
        record = json.loads(read_text(path))
    except ValueError:  # not JSON, or not text
        return {}
    needed = ("name", "claim", "mark", "made")
    if not isinstance(record, dict) or not all(isinstance(record.get(n), str) for n in needed):
        return {}
    return record if path.with_suffix(".png").is_file() else {}


def _answer(folder: Path, name: str) -> str:
    path = folder / f"{name}.txt"
    text = html.escape(read_text(path).strip()).replace("\n", "<br>") if path.exists() else ""
    return f'<p class="answer">{text}</p>' if text else ""


def _figure(path: Path, about: dict[str, str], folder: Path) -> str:
    place = urllib.parse.quote(path.with_suffix("").relative_to(folder).as_posix())
    css_class = "" if about["made"] == "trained here" else " reference"
    files = ", ".join(
        f'<a href="{place}.{ending}">{ending.upper()}</a>'
        for ending in ("pdf", "png", "csv")
        if path.with_suffix(f".{ending}").exists()
    )
    caption = (
        f'{html.escape(about["claim"])} <span class="mark{css_class}">{about["made"]}: '
        f"{html.escape(about['mark'])}</span> "
        f"{files}"
    )
    return _picture(path.with_suffix(".png").read_bytes(), about["claim"], caption)
