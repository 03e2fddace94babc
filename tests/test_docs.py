"""README and docs: what they say can be done is there, the code runs, and the numbers are those of
the results that ship."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import biasstudy
from biasstudy.report import numbers
from biasstudy.report.summary import stored

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBERED = [ROOT / "README.md", ROOT / "docs" / "findings.md"]

# numbers that are choices, not results: levels of bias, shares, ratios, guidance, the margin, 0.02
CHOICES = {"0.0", "0.02", "0.4", "0.5", "0.6", "0.8", "1.5"}
VERSIONS = {"3.11", "3.13", "3.0"}  # of Python, and of a licence


@pytest.fixture(scope="module")
def shipped():
    return stored()


def words_of(path: Path) -> str:
    """The text of a page without blocks of code."""
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.S)


def anchors_of(path: Path) -> set[str]:
    """Names of the headings of a page, as links reach them."""
    headings = re.findall(r"^#+ (.*)$", words_of(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks_of(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.S)


# ---- What is named is there ----------------------------------------------------------------------


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) < 12_288


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_links_and_images_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", words_of(path)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists() and file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors_of(file), target


def test_every_page_is_reached_from_readme():
    text = words_of(ROOT / "README.md")
    assert [p.name for p in TEXTS[1:] if f"](docs/{p.name})" not in text] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_files_and_make_targets_that_are_named_exist(path):
    text = path.read_text()
    for name in re.findall(r"(?:params|notebooks|tests)/[\w/-]+\.(?:yaml|ipynb|py|json)", text):
        assert (ROOT / name).is_file(), name
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^)make (\w+)", text, re.M)) <= targets


def test_commands_and_options_that_are_named_exist():
    named: dict[str, set[str]] = {}
    for path in TEXTS:
        for command, rest in re.findall(r"python -m biasstudy (\w+)([^`\n]*)", path.read_text()):
            options = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest.split("#")[0]))
            named[command] = named.get(command, set()) | options
    assert len(named) >= 10
    for command, options in named.items():
        help_ = subprocess.run(
            [sys.executable, "-m", "biasstudy", command, "--help"], capture_output=True, text=True
        )
        assert help_.returncode == 0, command
        assert {option for option in options if option not in help_.stdout} == set(), command


def test_notebooks_of_the_tables_are_those_there_are():
    there = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for path in (ROOT / "README.md", ROOT / "docs" / "method.md"):
        section = re.search(r"^## Notebooks.*?(?=^## |\Z)", path.read_text(), re.M | re.S)[0]
        rows = re.findall(r"^\| (`.*?) \|", section, re.M)
        assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == there


def test_the_rooms_in_the_table_are_those_there_are():
    text = (ROOT / "docs" / "contributing.md").read_text()
    rows = dict(re.findall(r"^\| `([\w./]+?)/?` \| (.*) \|$", text, re.M))
    package = ROOT / "biasstudy"
    rooms = {
        path.name
        for path in package.iterdir()
        if path.name not in ("__init__.py", "__pycache__", "py.typed")
    }
    assert set(rows) == rooms
    for room in rooms - {"reference"}:
        modules = {
            path.stem
            for path in (package / room).glob("*")
            if not path.name.startswith("__") and path.suffix in (".py", "")
        }
        assert modules <= set(re.findall(r"`(\w+)/?`", rows[room])), room


# ---- Code ----------------------------------------------------------------------------------------


def test_python_of_readme_and_extend_runs_and_prints_what_readme_says(runs, tmp_path, monkeypatch):
    """In order, each page in a namespace of its own, as a reader would type them. Words as they
    stand; numbers may differ a little between processors."""
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    printed = {}
    try:
        for path in (ROOT / "README.md", ROOT / "docs" / "extend.md"):
            namespace, printed[path.name] = {"__name__": "reader"}, []
            for block in blocks_of(path, "python"):
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(block, path.name, "exec"), namespace)
                printed[path.name].append(out.getvalue())
    finally:  # what the pages register must not stay for other tests
        for registry in (
            biasstudy.DATASETS,
            biasstudy.GENERATORS,
            biasstudy.CLASSIFIERS,
            biasstudy.FILTERS,
            biasstudy.METRICS,
        ):
            for name, entry in list(registry._entries.items()):
                if not entry.target.__module__.startswith("biasstudy"):
                    registry._entries.pop(name)
    assert len(printed["README.md"]) == 2 and len(printed["extend.md"]) == 7
    number = r"[+-]?\d+\.\d+"
    for out, said in zip(printed["README.md"], blocks_of(ROOT / "README.md", "text"), strict=True):
        assert re.sub(number, "x", out).split() == re.sub(number, "x", said).split()
        here, there = ([float(x) for x in re.findall(number, text)] for text in (out, said))
        assert here == pytest.approx(there, abs=0.1)
    generations = 3
    table, wide = printed["extend.md"][-2:]
    assert table.count("\n") == 1 + generations
    of_table = [float(x) for x in re.findall(r"\d\.\d+", table)]
    of_figure = re.search(r"^second-worst +(.*)$", wide, re.M)[1].split()
    assert [float(x) for x in of_figure] == pytest.approx(of_table, abs=1e-5)


# ---- Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_numbers_in_the_texts_are_those_of_the_stored_results(path, shipped):
    text = path.read_text()
    assert numbers.rewritten(text, shipped) == text, (
        "run: python -m biasstudy ledger --write README.md docs/findings.md"
    )


def test_the_figure_of_readme_draws_the_stored_results(shipped):
    """Drawn rows are told beside the picture; pixels differ between versions of matplotlib."""
    _, table = numbers.glance(shipped)
    with Image.open(ROOT / "docs" / "answer.png") as picture:
        assert picture.text["table"] == table.round(1).to_csv(index=False), (
            "run: python -m biasstudy ledger --write docs/answer.png"
        )
    assert (table.fit == "fit").any() and "docs/answer.png" in (ROOT / "README.md").read_text()


def results_in(text: str) -> set[str]:
    """Numbers with a point that stand outside marks, code and links, and are no choices."""
    text = re.sub(r"```.*?```", "", numbers.unmarked(text), flags=re.S)
    text = re.sub(r"`[^`]*`|\[arXiv .*?\]|\]?\(https?:[^)]*\)|\]\([^)]*\)", "", text)
    return set(re.findall(r"(?<![\w.])[+-]?\d+\.\d+(?![\w.]*\d)", text)) - CHOICES - VERSIONS


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_no_result_is_typed_by_hand(path):
    assert results_in(path.read_text()) == set()


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_no_line_begins_with_a_value(path):
    """Markdown would take the whole line for HTML."""
    assert re.findall(r"^ {0,3}<!--=.*", path.read_text(), re.M) == []


def test_a_result_typed_by_hand_is_seen():
    typed = "A = +0.054 [+0.035, 0.073], from 0.68; bias 0.6\n<!--= A; s; v -->+0.111<!--/-->\n"
    assert results_in(typed) == {"+0.054", "+0.035", "0.073", "0.68"}
    assert results_in("<!-- answer -->\n0.123\n<!-- end -->\nthen 0.456.") == {"0.456"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no marks at all", "no marks; known blocks: answer, "),
        ("<!-- answer -->\nno end", "<!-- answer --> has no beginning or no end"),
        ("<!-- answer -->\n<!-- short -->\n<!-- end -->", "<!-- answer --> has no beginning"),
        ("<!--= A; colorized_mnist; -->0<!-- end -->", "has no beginning or no end"),
        ("text <!--/-->", "<!--/--> has no beginning"),
        ("<!-- question -->\n<!-- end -->", "unknown block 'question'; known: answer, "),
        ("<!--= B; colorized_mnist; -->0<!--/-->", "unknown value 'B'; known: A, "),
        ("<!--= A; mnist; -->0<!--/-->", "names no stored study; known: cifar20_condition, "),
        ("<!--= A; colorized_mnist; big -->0<!--/-->", "no variant 'big' of colorized_mnist"),
        ("<!--= A; colorized_mnist -->0<!--/-->", "A takes study; variant, got"),
    ],
)
def test_a_wrong_mark_is_named(text, says, shipped):
    with pytest.raises(ValueError) as error:
        numbers.rewritten(text, shipped)
    assert says in str(error.value)


def test_a_value_follows_the_results(shipped):
    key = "A; colorized_mnist_diffusion; generator diffusion, guidance 1.0"
    row = shipped.effects.set_index("study").loc["colorized_mnist_diffusion"]
    says = f"<!--= {key} -->{row.A:+.3f} [{row.A_low:+.3f}, {row.A_high:+.3f}]<!--/-->"
    assert numbers.rewritten(f"so <!--= {key} -->old<!--/-->.", shipped) == f"so {says}."


def test_every_stored_study_has_a_row_and_no_setting_has_two(shipped):
    settings = [setting for row in numbers.ROWS for setting in row.settings]
    assert len(set(settings)) == len(settings)
    assert set(settings) <= set(zip(shipped.effects.study, shipped.effects.variant, strict=True))
    assert {study for study, _ in settings} == set(shipped.parts)
    assert sum(row.short for row in numbers.ROWS) == 7


# ---- To cite -------------------------------------------------------------------------------------


def test_the_paper_cites_what_its_bibliography_holds():
    text = (ROOT / "docs" / "paper.md").read_text()
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(told)
    bibliography = (ROOT / "docs" / told["bibliography"]).read_text()
    cited = set(re.findall(r"@(\w+)[\];]", body))
    assert cited == set(re.findall(r"^@\w+\{(\w+),", bibliography, re.M))
    for title in ("Summary", "Statement of need", "State of the field", "Limitations"):
        assert f"# {title}\n" in body
    assert 750 < len(body.split()) < 1750, "what the journal asks for"


def test_the_citation_names_the_paper_whose_question_it_is():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    needed = {"cff-version", "message", "title", "type", "authors", "version", "license"}
    assert needed <= set(told) and told["title"] in (ROOT / "docs" / "paper.md").read_text()
    (paper,) = told["references"]
    assert "2410.10160" in paper["url"]
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Zhang", "Liang", "Feng", "Liang", "Xu"]
