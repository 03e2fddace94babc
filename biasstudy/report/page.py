"""One self-contained page: first the results that notebooks made in this folder, each with its
answer and its main figure; then, folded and named so, the results that ship: the answer with n,
figures and tables across studies, the ledger, what it cost.

Nothing is loaded from elsewhere, no script runs. The page stays small: pictures are embedded in few
colours, and once EMBEDDED bytes of own ones are in it, the others are links to their files."""

import base64
import html
import io
import json
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ..core.places import read_text, write_text
from ..core.provenance import environment
from ..inference.conjecture import HYPOTHESES
from . import figures
from .ledger import LEDGER
from .predictions import NOTE
from .summary import Stored, answer, stored

_PAGE = read_text(Path(__file__).with_name("page.html"))

OPEN = 3  # own studies whose answer and main figure are seen before anything is unfolded
EMBEDDED = 3_500_000  # bytes of own pictures in the page
SHOWN_WIDTH = 1100  # pixels of a picture in the page, at most
MAIN = ("effects", "curves")  # the figure of a study that is seen first, by how its name ends
OWN = (figures.TRAINED, NOTE)  # how figures of one's own were made
SMALL = "smoke"  # scale that is for trying out

_COLUMNS = {
    "setting": "setting",
    "n": "n",
    "M_none": "M(none)",
    "A": "A",
    "A_low": "from",
    "A_high": "to",
    "R": "R",
    "detectable": "detectable",
    "fit": "generator",
    "verdict": "verdict",
    "status": "status",
    "study": "study",
}


def write_page(folder: Path, stored_results: Stored | None = None) -> Path:
    """Write folder/index.html from folder/figures/*.json where notebooks were run, and from stored
    results.

    stored_results  results to sum up; default: all that ships with the package
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored_results = stored_results or stored()
    own, redrawn, broken = _studies(folder)
    pictures = _Pictures(folder)
    first = list(_own(own, broken, pictures))
    shipped = list(_shipped(stored_results, redrawn, pictures))
    body = "".join(
        [
            _contents(own, [(part.id, part.title) for part in shipped]),
            *first,
            '<section id="shipped"><h2>Results that ship with the package</h2>'
            '<p class="small">Not made here. Each part opens with a click.</p>'
            f'<p class="answer">{html.escape(answer(stored_results))}</p>',
            *(_folded(part.id, part.title, part.body) for part in shipped),
            "</section>",
        ]
    )
    return _written(folder, body)


def write_scored(folder: Path, name: str, contrasts: pd.DataFrame) -> Path:
    """Write folder/index.html of predictions made elsewhere: answer and figures of that name from
    folder/figures, then every number about the change."""
    own, _, broken = _studies(folder)
    pictures = _Pictures(folder)
    body = "".join(
        [
            "<h2>Your predictions</h2>",
            *(study.inside(pictures) for study in own if study.name == name),
            *_left_out(broken),
            "<h2>Every number about the change</h2>",
            _html_table(contrasts.assign(p=contrasts.p.map("{:.2g}".format)).fillna("")),
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


@dataclass(frozen=True)
class _Part:
    """What opens with a click: the anchor, the title, the HTML inside."""

    id: str
    title: str
    body: str


def _contents(own: list["_Study"], shipped: list[tuple[str, str]]) -> str:
    """Links to everything; a browser unfolds what a link leads to."""
    made = "".join(f'<li><a href="#{s.id}">{html.escape(s.title)}</a></li>' for s in own)
    others = "".join(f'<li><a href="#{id}">{html.escape(title)}</a></li>' for id, title in shipped)
    return (
        '<nav><h2>Contents</h2><ul><li><a href="#own">Your results</a>'
        f'{f"<ul>{made}</ul>" if made else ""}</li><li><a href="#shipped">Results that ship with '
        f"the package</a><ul>{others}</ul></li></ul></nav>"
    )


def _folded(id: str, title: str, body: str) -> str:
    """The anchor is inside: a link to it unfolds the part."""
    return f'<details><summary>{html.escape(title)}</summary><div id="{id}">{body}</div></details>'


def _shipped(
    stored_results: Stored, redrawn: list["_Study"], pictures: "_Pictures"
) -> Iterable[_Part]:
    sections = {
        "across": ("Across data sets", _across(stored_results)),
        "dynamics": ("Dynamics", _dynamics(stored_results)),
        "claims": ("Claims of the paper's abstract, in our words", _claims(stored_results)),
        "cost": ("Where these results come from, and what they cost", _cost(stored_results)),
    }
    for id, (title, parts) in sections.items():
        if body := "".join(parts):
            yield _Part(id, title, body)
    for study in redrawn:
        yield _Part(study.id, f"Drawn again by the notebook {study.title}", study.inside(pictures))


# ---- Sections from stored results ----------------------------------------------------------------


def _across(stored_results: Stored) -> Iterable[str]:
    yield _html_table(
        stored_results.data_sets.rename(columns={**_COLUMNS, "cannot_tell": "cannot tell"})
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
    )
    yield _embedded(
        figures.ways(stored_results.effects, stored_results.parts, stored_results.mark)[0],
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
        '<p class="small">A: generated minus none, with its interval (from, to). R: generated '
        "minus real. T: generations. n: seeds. M(none): the contrast with nothing added; a quarter "
        "of it is the margin of the verdict, or 0.02 where the start has no bias. detectable: "
        "smallest change found with 80 % power. Verdicts after Holm's correction in a study.</p>"
    )
    settings = stored_results.effects
    if settings.status.nunique() == 1:  # the answer says it of all
        settings = settings.drop(columns="status")
    columns = [name for name in _COLUMNS if name in settings]
    yield _html_table(settings[columns].rename(columns=_COLUMNS), "settings")


def _dynamics(stored_results: Stored) -> Iterable[str]:
    if not stored_results.judgements:
        return
    yield "<p>Three hypotheses, all ours:</p><dl>"
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
        f"<p>{len(stored_results.outcomes)} experiments, {hours:.1f} process hours; each stage is "
        "counted once in a study.</p>"
    )
    yield _html_table(stored_results.cost)


def _breakable(text: str) -> str:
    """A cell's text, which may be broken after the underscores of long names."""
    return html.escape(text).replace("_", "_<wbr>")


def _html_table(table: pd.DataFrame, css_class: str = "plain") -> str:
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
        + "".join(f"<td{' class=n' * number}>{_breakable(text)}</td>" for text, number in row)
        + "</tr>"
        for row in cells
    )
    head, body = f"<thead><tr>{head}</tr></thead>", f"<tbody>{body}</tbody>"
    return f'<div class="table"><table class="{css_class}">{head}{body}</table></div>'


def _embedded(figure: Figure, claim: str) -> str:
    """A figure in the page, in few colours: a third of the size."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150)
    return _picture(figures.packed(drawn.getvalue()), claim, html.escape(claim))


def _picture(png: bytes, claim: str, caption: str) -> str:
    """A phone shows it as wide as its words can be read, to be moved sideways in its frame."""
    return (
        f'<figure><div class="wide"><img alt="{html.escape(claim)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


# ---- What notebooks drew in the folder -----------------------------------------------------------


@dataclass
class _Study:
    """Figures of one notebook in one folder.

    place    folder of the files
    name     of the notebook, as its figures have it
    about    what is told of each figure, by the path of its record, the main one first
    """

    place: Path
    name: str
    title: str
    id: str
    about: dict[Path, dict[str, str]]

    @property
    def is_small(self) -> bool:
        return any(f"scale {SMALL}" in record["mark"] for record in self.about.values())

    @property
    def answer(self) -> str:
        path = self.place / f"{self.name}.txt"
        text = html.escape(read_text(path).strip()).replace("\n", "<br>") if path.exists() else ""
        return f'<p class="answer">{text}</p>' if text else ""

    def inside(self, pictures: "_Pictures") -> str:
        """All of it."""
        return self.answer + "".join(self.drawn(pictures))

    def drawn(self, pictures: "_Pictures") -> list[str]:
        """Each figure with its claim, its mark and its files."""
        return [pictures.figure(path, record) for path, record in self.about.items()]


def _studies(folder: Path) -> tuple[list[_Study], list[_Study], list[str]]:
    """Studies that were trained here, those beyond scale smoke first; those that notebooks drew
    from results that ship; and the records that are not whole."""
    paths = sorted((folder / "figures").rglob("*.json"))
    paths = [path for path in paths if not path.name.endswith("-answer.json")]  # no figures
    found: dict[tuple[bool, Path, str], _Study] = {}
    broken = []
    for path in paths:
        record = _about(path)
        if not record:
            broken.append(path.relative_to(folder / "figures").as_posix())
            continue
        # a name has no hyphen: the study, then which of its figures
        name, trained = record["name"].split("-")[0], record["made"] in OWN
        inside = f": {path.parent.name}" if path.parent != folder / "figures" else ""
        study = found.setdefault(
            (trained, path.parent, name),
            _Study(path.parent, name, name + inside, f"study-{len(found) + 1}", {}),
        )
        study.about[path] = record
    for study in found.values():
        study.about = dict(sorted(study.about.items(), key=lambda item: _rank(item[0])))
    own = [study for (trained, *_), study in found.items() if trained]
    redrawn = [study for (trained, *_), study in found.items() if not trained]
    own.sort(key=lambda study: study.is_small)
    return own, redrawn, broken


def _rank(path: Path) -> int:
    """The main figure of a study comes first."""
    ending = path.stem.rsplit("-", 1)[-1]
    return MAIN.index(ending) if ending in MAIN else len(MAIN)


def _own(own: list[_Study], broken: list[str], pictures: "_Pictures") -> Iterable[str]:
    """The first studies with their answer and main figure, all else folded; records that are not
    whole are named."""
    yield '<section id="own"><h2>Your results</h2>'
    if not own:
        yield (
            "<p>None yet: make study trains a study and draws it, and any notebook that is run "
            "draws its own. Then python -m biasstudy report writes this page again.</p>"
        )
    else:
        yield (
            '<p class="small">Trained on this machine, or scored, by what is named below'
            f"{'; the largest scale comes first' * any(not study.is_small for study in own)}.</p>"
        )
    for study in own[:OPEN]:
        main, *others = study.drawn(pictures)
        yield f'<h3 id="{study.id}">{html.escape(study.title)}</h3>{study.answer}{main}'
        if others:
            yield _folded(f"{study.id}-more", _count(len(others), "more figure"), "".join(others))
    for study in own[OPEN:]:
        title = f"{study.title} ({_count(len(study.about), 'figure')})"
        yield _folded(study.id, title, study.inside(pictures))
    yield from _left_out(broken)
    yield "</section>"


def _left_out(broken: list[str]) -> Iterable[str]:
    """What is said of records that are not whole."""
    if broken:
        yield (
            f"<p>Not whole, and left out: {html.escape(', '.join(broken))} in figures. Run their "
            "notebooks again.</p>"
        )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n > 1)}"


def _about(path: Path) -> dict[str, str]:
    """What is told of a figure; empty unless all of it is there, and the picture, too."""
    try:
        record = json.loads(read_text(path))
        Image.open(path.with_suffix(".png")).close()
    except (ValueError, OSError):  # not JSON, or not text; no picture
        return {}
    needed = ("name", "claim", "mark", "made")
    if not isinstance(record, dict) or not all(isinstance(record.get(n), str) for n in needed):
        return {}
    return record


class _Pictures:
    """Figures of a folder with their captions, embedded as long as the page has room.

    folder   of the page, which links to their files
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.room = EMBEDDED

    def figure(self, path: Path, about: dict[str, str]) -> str:
        """The figure, or a link to it.

        path   of its record
        """
        caption = self._caption(path, about)
        if self.room:
            png = figures.packed(path.with_suffix(".png").read_bytes(), SHOWN_WIDTH, smallest=False)
            self.room = max(0, self.room - len(png) * 4 // 3)
        return _picture(png, about["claim"], caption) if self.room else f"<p>{caption}</p>"

    def _caption(self, path: Path, about: dict[str, str]) -> str:
        place = urllib.parse.quote(path.with_suffix("").relative_to(self.folder).as_posix())
        css_class = "" if about["made"] in OWN else " reference"
        told = (
            about["mark"]
            if about["made"] in about["mark"]
            else ": ".join((about["made"], about["mark"]))
        )
        files = ", ".join(
            f'<a href="{place}.{ending}">{ending.upper()}</a>'
            for ending in ("pdf", "png", "csv")
            if path.with_suffix(f".{ending}").exists()
        )
        return (
            f'{html.escape(about["claim"])} <span class="mark{css_class}">'
            f"{html.escape(told)}</span> {files}"
        )
