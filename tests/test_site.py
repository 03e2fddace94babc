"""The site: built once as `make docs` does, without a warning; every page is there, no link leads
nowhere, and nothing is asked of the network."""

import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import browser

import biasstudy
from biasstudy import DATASETS, GENERATORS

ROOT = Path(__file__).parents[1]
LOADED = ("src", "srcset", "poster", "data")  # attributes that a browser loads by itself


class Read(HTMLParser):
    """links   of a page, as they are written; loaded   what it needs; names   of its anchors"""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.names = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.names |= {told[key] for key in ("id", "name") if told.get(key)}
        self.links += [told["href"]] if tag == "a" and told.get("href") else []
        self.loaded += [told["href"]] if tag == "link" and told.get("href") else []
        self.loaded += [told[key] for key in LOADED if told.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site; its pages in the checkout are those of `make docs`."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [*command, "-d", str(folder / "trees"), ".", str(folder / "site")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "site" / "index.html")
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Read(path.read_text()) for path in site.rglob("*.html")}


def test_every_text_notebook_and_public_name_has_a_page(site, pages):
    texts = [f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md")]
    notebooks = [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")]
    names = [f"docs/api/{name}" for name in biasstudy.__all__]
    first = pages[site / "index.html"].links
    for page in (*texts, *notebooks, "docs/api/index"):
        assert f"{page}.html" in first, page
    for page in (*texts, *notebooks, *names):
        assert site / f"{page}.html" in pages, page
    listed = pages[site / "docs" / "api" / "index.html"].links
    assert {f"{name}.html" for name in biasstudy.__all__} <= set(listed)


def test_every_data_set_and_generator_has_a_card(site, pages):
    for stem, registry in (("data-cards", DATASETS), ("model-cards", GENERATORS)):
        names = pages[site / "docs" / "api" / f"{stem}.html"].names
        for entry in registry.values():
            target = f"{entry.target.__module__}.{entry.target.__qualname__}"
            assert target in names, entry.name


def test_links_lead_to_pages_and_anchors_that_are_there(site, pages):
    broken = set()
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            there = file.is_file() and file.is_relative_to(site.resolve())
            if not there or (anchor and file in pages and anchor not in pages[file].names):
                broken.add((str(path.relative_to(site)), link))
    assert broken == set()


def test_no_page_asks_the_network_for_anything(site, pages):
    for path, page in pages.items():
        elsewhere = [x for x in page.loaded if urlsplit(x).scheme not in ("", "data")]
        assert elsewhere == [], path
        assert not any(x.startswith("//") for x in page.loaded), path
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text()), path


def test_formulas_are_drawn_without_a_script(site):
    text = (site / "notebooks" / "hard_imagenet.html").read_text()
    assert text.count("<math") >= 10 and '<math xmlns="http://www.w3.org/1998/Math/MathML"' in text
    assert "\\mathrm" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)


def test_an_argument_has_its_meaning_in_its_page(site):
    text = re.sub(r"<[^>]*>", " ", (site / "docs" / "api" / "run.html").read_text())
    assert "experiments one or many; all are checked before any is trained" in " ".join(
        text.split()
    )


def test_docstrings_become_terms_prose_and_code():
    shown = runpy.run_path(str(ROOT / "docs" / "conf.py"))["shown"]
    lines = [
        "A sentence with `code`, a_b and 2 * 3.",
        "",
        "    x = 1  # code",
        "",
        "images  (N, 3) float   what",
        "                       goes on",
        "options  root   the folder",
        "         size   int: side",
        "returns  one",
    ]
    assert [line for line in shown(lines) if line] == [
        r"A sentence with ``code``, a\_b and 2 \* 3.",
        "::",
        "    x = 1  # code",
        "``images`` ``(N, 3) float``",
        "    what",
        "    goes on",
        "``options``",
        "    ``root``",
        "        the folder",
        "    ``size``",
        "        int: side",
        "``returns``",
        "    one",
    ]


def test_citations_are_printed_and_their_works_listed(site, pages):
    path = site / "docs" / "paper.html"
    article = path.read_text().split("<article")[1].split("</article>")[0]
    text = " ".join(re.sub(r"<[^>]*>", "", article).split())
    assert "@" not in text, "a key is left as it is written"
    assert "Zhang et al. (Zhang et al., 2024) study the question" in text
    assert "fairlearn (Fairlearn contributors, 2026)" in text
    assert "DomainBed (Gulrajani and Lopez-Paz, 2020)" in text
    keys = re.findall(r"^@\w+\{", (ROOT / "docs" / "paper.bib").read_text(), re.M)
    listed = article.split('id="references"')[1].split("</ul>")[0]
    assert listed.count("<li>") == len(keys) and "{" not in listed


def test_the_side_names_pages_and_not_their_parts(site):
    side = (site / "index.html").read_text().split('class="sidebar-tree"')[1].split("</aside>")[0]
    links = re.findall(r'href="([^"]*)"', side)
    assert "docs/paper.html" in links and not [link for link in links if "html#" in link]


def test_a_registry_leads_to_how_to_add_to_it(pages, site):
    for name in ("DATASETS", "GENERATORS", "CLASSIFIERS", "FILTERS", "METRICS"):
        article = (site / "docs" / "api" / f"{name}.html").read_text().split("<article")[1]
        assert 'href="../extend.html"' in article.split("</article>")[0], name


def test_the_table_of_commands_has_those_of_the_texts_beside_it():
    """README names every command that its readers type, a row each."""
    table = (ROOT / "README.md").read_text().split("## Commands")[1].split("\n## ")[0]
    typed = set(re.findall(r"^\| `python -m biasstudy (\w+)", table, re.M))
    assert typed >= {"fetch", "folder", "score", "plan", "run", "sweep", "report", "doctor"}


# what is wider than its box: by how many pixels, and whether that scrolls
BEYOND = """[...document.querySelectorAll('article %s')].map(x => [
    x.scrollWidth - x.clientWidth, getComputedStyle(x).overflowX])"""


def test_tables_are_whole_on_a_screen_and_figures_readable_on_a_phone(site):
    with browser(1280, 900) as page:
        page.open(f"file://{site}/docs/findings.html")
        tables = page.evaluate(BEYOND % ".table-wrapper")
        assert len(tables) > 5 and all(beyond <= 0 for beyond, _ in tables)
    with browser(390, 900) as page:
        page.open(f"file://{site}/index.html")
        figures = page.evaluate(BEYOND % "p:has(> img)")
        assert len(figures) == 2 and all(n > 100 and how == "auto" for n, how in figures)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen_and_search_finds_offline(site, width):
    with browser(width, 900) as page:
        for name in ("index", "docs/method", "docs/api/run", "notebooks/hard_imagenet"):
            page.open(f"file://{site}/{name}.html")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, name
        page.open(f"file://{site}/search.html?q=reserve")
        page.evaluate("new Promise(done => setTimeout(done, 1500))")
        assert page.evaluate("document.querySelectorAll('#search-results li').length") > 3
        assert [x for x in page.requests if not x.startswith(("file:", "data:"))] == []
        errors = [x for x in page.said if "exceptionDetails" in x]
        assert errors == []
