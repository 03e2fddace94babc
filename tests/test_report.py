"""The page of a study: self-contained, all of the answer in it, and shown by a real browser where
one is installed."""

import html
import inspect
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from conftest import FLOAT64, tiny
from matplotlib.figure import Figure
from PIL import Image

from biasstudy import Results, figures, run
from biasstudy.__main__ import main
from biasstudy.report.ledger import LEDGER
from biasstudy.report.page import write_page
from biasstudy.report.summary import Stored, answer, stored


class Page(HTMLParser):
    """Every address in a page, and whether all tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.open, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [
            (tag, value)
            for name, value in attributes
            if name in ("src", "href", "srcset", "action", "data")
        ]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    seeds = [
        tiny(start="biased", bias=bias, n_generations=1, seed=s)
        for bias in (0.3, 0.6, 0.9)
        for s in range(2)
    ]
    results = run(
        [e.to_arm(arm) for e in seeds for arm in ("generated", "real", "none")],
        numerics=FLOAT64,
        scale="smoke",
        where=tmp_path_factory.mktemp("small"),
    )
    return Stored(
        {
            "small": {
                f"bias {b}": Results([o for o in results.outcomes if o.experiment.bias == b])
                for b in (0.3, 0.6, 0.9)
            }
        }
    )


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "figures").mkdir()
    about = {"name": "mine-1", "claim": "A <claim> & more", "mark": "n = 2", "made": "trained here"}
    (folder / "figures" / "mine-1.json").write_text(json.dumps(about))
    (folder / "figures" / "mine-1.png").write_bytes(b"png")
    return write_page(folder, found)


def test_the_page_is_whole_and_loads_nothing(page):
    text = page.read_text()
    parsed = Page(text)
    assert (
        not parsed.open
        and "script" not in parsed.tags
        and "@import" not in text
        and "url(" not in text
    )
    for tag, address in parsed.addresses:
        assert (
            address.startswith("data:")
            if tag in ("img", "link")
            else re.fullmatch(r"figures/[\w.-]+", address)
        ), address
    assert 'name="viewport"' in text and "@media print" in text


def test_the_page_says_question_answer_ledger_cost_and_provenance(page, found):
    text = html.unescape(page.read_text())
    assert answer(found) in text and text.count("<h1>") == 1
    for claim in LEDGER:
        assert claim.claim in text and claim.hypothesis in text and claim.says(found) in text
    for judged in found.judgements.values():
        assert judged.because in text
    assert (
        all(f"<td>{name}</td>" in text for name in found.cost.study)
        and "process hours" in text
        and "commit" in text
    )
    assert "A &lt;claim&gt; &amp; more" in page.read_text(), "what is written is escaped"


def test_the_command_writes_the_page_without_any_figure(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
    assert "make study trains a study" in (tmp_path / "index.html").read_text()


def test_a_browser_shows_it_without_a_request_and_on_a_phone(page):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 375, "height": 700})
        asked, said = [], []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.goto(page.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()] and not said
        assert shown.evaluate("document.documentElement.scrollWidth") <= 375, (
            "no sideways scrolling of the page"
        )
        size = float(
            shown.evaluate(
                "getComputedStyle(document.querySelector('p.answer')).fontSize"
            ).removesuffix("px")
        )
        assert size >= 14
        pictures = shown.evaluate(
            "[...document.images].filter(i => i.alt !== 'A <claim> & more').map(i => "
            "i.naturalWidth)"
        )
        assert len(pictures) >= 3 and min(pictures) > 300
        shown.emulate_media(media="print")
        assert (
            shown.evaluate("getComputedStyle(document.querySelector('.table')).overflowX")
            == "visible"
        )
        assert len(shown.pdf(format="A4")) > 10_000
        browser.close()


def test_a_picture_in_few_colours_keeps_its_few_coloured_points():
    """In a grey figure a palette by frequency drew amplified, reduced and cannot tell alike."""
    found = stored()
    drawn = io.BytesIO()
    figures.effects(found.effects, found.mark)[0].savefig(drawn, dpi=100)
    before = np.asarray(Image.open(drawn).convert("RGB"), int)
    small = figures.packed(drawn.getvalue())
    after = np.asarray(Image.open(io.BytesIO(small)).convert("RGB"), int)
    assert len(small) < len(drawn.getvalue()) / 1.5 and np.abs(after - before).max() <= 16


def test_every_figure_comes_with_its_table():
    """`samples` is a Figure alone until the notebooks that show it take two."""
    alike = {"samples"}
    for name, function in vars(figures).items():
        returned = getattr(function, "__annotations__", {}).get("return")
        if inspect.isfunction(function) and "Figure" in str(returned) and name != "signed":
            assert (returned == tuple[Figure, pd.DataFrame]) != (name in alike), name
