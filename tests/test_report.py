"""The page of a study: self-contained, all of the answer in it, and shown by a real browser where
one is installed."""

import html
import inspect
import io
import itertools
import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from browser import browser
from conftest import FLOAT64, tiny
from matplotlib.figure import Figure
from PIL import Image

from biasstudy import Results, figures, run
from biasstudy.__main__ import main
from biasstudy.report.figures._style import STYLE
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


def write_figure(folder, name, picture, made="trained here", scale="smoke"):
    """A figure as notebooks leave it."""
    about = {"claim": f"What {name} shows.", "mark": f"scale {scale} · n = 2", "made": made}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"name": name, **about}))
    (folder / f"{name}.png").write_bytes(picture)


def noise(width, height):
    """A picture of coloured noise: more bytes than most figures."""
    values = np.random.default_rng(0).integers(0, 256, (height // 5, width // 5, 3))
    picture = Image.fromarray(values.astype(np.uint8)).resize((width, height), Image.NEAREST)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


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
    write_figure(folder / "figures", "mine-1", noise(700, 450))
    about = json.loads((folder / "figures" / "mine-1.json").read_text())
    about["claim"] = "A <claim> & more"
    (folder / "figures" / "mine-1.json").write_text(json.dumps(about))
    return write_page(folder, found)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """What `make study` leaves at most: sixteen notebooks with five figures each, one of them at
    another scale than smoke and one drawn from what ships; and all that ships."""
    folder, picture = tmp_path_factory.mktemp("full"), noise(1000, 630)
    for i in range(16):
        for figure in ("1-data", "2-samples", "3-plane", "4-curves", "5-shares"):
            made, scale = (
                "reference" if i == 3 else "trained here",
                "offline" if i == 5 else "smoke",
            )
            write_figure(folder / "figures", f"study{i:02d}-{figure}", picture, made, scale)
        (folder / "figures" / f"study{i:02d}.txt").write_text(f"Answer {i}. " + "It is long. " * 99)
    assert main(["report", str(folder)]) == 0
    return folder / "index.html"


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
            else re.fullmatch(r"figures/[\w.-]+|#[\w-]+", address)
        ), address
    anchors = [address for _, address in parsed.addresses if address.startswith("#")]
    assert len(anchors) >= 6 and all(text.count(f'id="{a[1:]}"') == 1 for a in anchors)
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


def test_a_page_without_any_figure_says_how_to_make_some(tmp_path, found):
    text = write_page(tmp_path, found).read_text()
    assert "None yet: make study trains a study" in text and "<img" in text


def test_own_results_come_first_and_what_ships_is_folded_and_named_so(full):
    text = full.read_text()
    own, shipped = text.split('<section id="shipped">')
    assert own.index("<h2>Contents") < own.index("<h2>Your results") < len(own)
    assert "<h2>Results that ship with the package</h2>" in shipped and "Not made here" in shipped
    headings = re.findall(r'<h3 id="[\w-]+">(\w+)</h3>', own)
    assert headings[0] == "study05", "the largest scale is first"
    assert "study03" in shipped and "study03-" not in own, "drawn again from what ships"
    first = own[own.index("<h3 ") :]
    main, data = (first.index(f"What study05-{name} shows.") for name in ("4-curves", "1-data"))
    assert main < first.index("<details>") < data, "the main figure is seen before unfolding"
    visible = re.sub(r"<details>.*?</details>", "", shipped, flags=re.DOTALL)
    assert "<table" not in visible and "<img" not in visible


def test_the_page_stays_under_5_mb_and_no_figure_is_lost(full):
    text = full.read_text()
    assert len(text) < 5_000_000
    assert text.count('.png">PNG</a>') == 16 * 5
    assert 10 < text.count("<figure>") < 16 * 5, "noise does not fit: the rest are links"


def test_a_browser_shows_the_page_without_a_request(page):
    with browser(1280, 800) as shown:
        shown.open(page.as_uri())
        assert [url for url in shown.requests if not url.startswith("data:")] == [page.as_uri()]
        assert not shown.said
        pictures = shown.evaluate("[...document.images].map(i => i.naturalWidth)")
        assert len(pictures) >= 4 and min(pictures) > 300


def test_a_browser_shows_all_of_a_full_study_in_few_screens(full):
    with browser(1280, 800) as shown:
        shown.open(full.as_uri())
        screens = shown.evaluate("document.documentElement.scrollHeight / innerHeight")
        assert screens < 12
        shown.open(full.as_uri() + "#claims")
        assert shown.evaluate("document.querySelector('#claims').closest('details').open")
        assert (
            abs(shown.evaluate("document.querySelector('#claims').getBoundingClientRect().top")) < 2
        )
        shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        tables = shown.evaluate(
            "[...document.querySelectorAll('.table')].map(t => [t.scrollWidth, t.clientWidth])"
        )
        assert len(tables) >= 3 and all(wide <= seen for wide, seen in tables), "no column is cut"
        assert shown.evaluate("document.documentElement.scrollHeight / innerHeight") > 12
    with browser(1280, 800) as printed:
        printed.open(full.as_uri())
        printed.print_media()
        height = printed.evaluate(
            "document.querySelector('#claims').getBoundingClientRect().height"
        )
        assert height > 200, "paper has no clicks"


def test_a_phone_shows_the_main_figure_with_words_that_can_be_read(full):
    with browser(390, 844) as shown:
        shown.open(full.as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= 390, "not sideways"
        width, frame, seen = shown.evaluate(
            "(i => [i.clientWidth, getComputedStyle(i.parentElement).overflowX, "
            "i.parentElement.clientWidth])(document.querySelector('#own img'))"
        )
        words = STYLE["font.size"] / 72 / figures.WIDTH * width
        assert words >= 12 and frame == "auto" and seen <= 390, "pixels; moved in its frame"
        size = shown.evaluate("getComputedStyle(document.querySelector('p.answer')).fontSize")
        assert float(size.removesuffix("px")) >= 14


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


def test_an_unbiased_start_of_one_seed_says_why_it_has_no_contrast(tmp_path):
    e = tiny(start="unbiased", n_generations=1)
    results = run(
        [e.to_arm(arm) for arm in ("generated", "none")], numerics=FLOAT64, where=tmp_path
    )
    for draw in (figures.grid, figures.forest):
        figure, _ = draw({"unbiased": results})
        said = " ".join(" ".join(text.get_text().split()) for text in figure.axes[0].texts)
        assert said == "one seed: nothing ranks its groups"
        plt.close(figure)


def test_labels_of_narrow_panels_do_not_meet(found):
    results = next(iter(found.parts.values()))
    one = next(iter(results.values()))
    figure, _ = figures.plane(dict.fromkeys("abcde", one))
    figure.canvas.draw()
    boxes = sorted(
        (axis.xaxis.label.get_window_extent() for axis in figure.axes), key=lambda b: b.x0
    )
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    plt.close(figure)
