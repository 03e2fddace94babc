"""The site: `make docs`, or python -m sphinx -c docs . build/site. README, docs/ and the executed
notebooks as they are; a page for every public name and two of cards, from docstrings."""

import re
import shutil
import textwrap
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

import biasstudy
from biasstudy import CLASSIFIERS, DATASETS, FILTERS, GENERATORS, METRICS
from biasstudy.catalogue import first_sentence

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "api"  # written here, ignored by git

project, author, copyright = "biasstudy", "The biasstudy authors", "The biasstudy authors"
version = release = biasstudy.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "docs/api/*.rst", "notebooks/*.ipynb"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # else every page asks the network for them
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_title_to_header = True
html_math_renderer = "mathml"  # the default asks the network for a script

html_theme = "furo"
html_title = "biasstudy"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse of files
smartquotes = False
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

TEXTS = ("findings", "method", "score", "extend", "install", "scale", "speed", "peers")
PROJECT = ("contributing", "changelog", "paper")
REGISTRIES = {
    "DATASETS": DATASETS,
    "GENERATORS": GENERATORS,
    "CLASSIFIERS": CLASSIFIERS,
    "FILTERS": FILTERS,
    "METRICS": METRICS,
}
# a card a thing: title, registry, field of an experiment, what stands before the first card
CARDS = {
    "data-cards": ("Data cards", DATASETS, "dataset", "Every data set: what it holds, flaws too."),
    "model-cards": ("Model cards", GENERATORS, "generator", "Every generator: what it computes."),
}


# ---- Pages that are written ----------------------------------------------------------------------


def write_pages(app):
    """A page for every public name, one that lists them, and the cards."""
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir()
    rows = []
    for name in sorted(biasstudy.__all__, key=str.lower):
        (PAGES / f"{name}.rst").write_text(headed(name) + body_of(name))
        says = "" if name in REGISTRIES else first_sentence(getattr(biasstudy, name))
        rows.append(f":doc:`{name}`\n    {inline(says)}\n")
    (PAGES / "index.rst").write_text(
        headed("Reference")
        + "Every public name of ``biasstudy``, in alphabetical order.\n\n"
        + "\n".join(rows)
        + contents("", biasstudy.__all__)
    )
    for stem, (title, registry, field, before) in CARDS.items():
        cards = [card(entry, field) for entry in registry.values()]
        (PAGES / f"{stem}.rst").write_text(f"{headed(title)}{before}\n\n" + "\n\n".join(cards))


def body_of(name):
    """What autodoc is to show of a public name."""
    target = getattr(biasstudy, name)
    if name in REGISTRIES:
        named = {entry: first_sentence(e.target) for entry, e in target.items()}
        how = "a new one is decorated with it: :doc:`/docs/extend`"
        return f"The registry of what is a *{target.noun}*; {how}.\n\n" + (
            "\n".join(f"``{entry}``\n    {inline(says)}\n" for entry, says in named.items())
        )
    if name in biasstudy._MODULES:
        members = [  # a package has what it takes from its modules; what is public itself, a page
            name
            for name, member in vars(target).items()
            if not name.startswith("_")
            and getattr(biasstudy, name, None) is not member
            and callable(member)
            and getattr(member, "__module__", "").startswith(target.__name__)
        ]
        return (
            f".. automodule:: {target.__name__}\n    :imported-members:\n"
            f"    :members: {', '.join(members)}\n"
        )
    if not callable(target):
        return f"A constant: ``{target!r}``\n"
    kind = "class" if isinstance(target, type) else "function"
    members = "    :members:\n" if kind == "class" else ""
    return f".. auto{kind}:: {target.__module__}.{target.__qualname__}\n{members}"


def card(entry, field):
    """What a registered thing says of itself; its signature has the options with their defaults."""
    target = entry.target
    kind = "class" if isinstance(target, type) else "function"
    return (
        f"{headed(entry.name, '-')}``{field}: {entry.name}``, version {entry.version}\n\n"
        f".. auto{kind}:: {target.__module__}.{target.__qualname__}\n"
    )


def headed(title, line="="):
    return f"{title}\n{line * len(title)}\n\n"


def contents(caption, pages):
    """A list of pages for the side of the site."""
    lines = [
        ".. toctree::",
        "    :hidden:",
        "    :titlesonly:",
        *([f"    :caption: {caption}"] if caption else []),
        "",
    ]
    return "\n" + "\n".join([*lines, *(f"    {page}" for page in pages)]) + "\n"


def with_contents(app, page, source):
    """README is the first page, so it names the others."""
    if page == root_doc:
        stems = sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
        parts = {
            "Texts": [f"docs/{stem}" for stem in TEXTS],
            "Notebooks": [f"{stem} <notebooks/{stem}>" for stem in stems],
            "Reference": ["docs/api/index", *(f"docs/api/{stem}" for stem in CARDS)],
            "Project": [f"{stem} <docs/{stem}>" for stem in PROJECT],
        }
        trees = "".join(contents(caption, pages) for caption, pages in parts.items())
        source[0] += f"\n```{{eval-rst}}\n{trees}```\n"


# ---- The paper's citations -----------------------------------------------------------------------

ENTRY = re.compile(r"^@\w+\{(\w+),\n(.*?)\n\}", re.M | re.S)
FIELD = re.compile(r"(\w+)\s*=\s*\{(.*)\}")


def with_citations(app, page, source):
    """The paper's `[@key]` as journals print them, and its references listed."""
    if page == "docs/paper":
        works = works_of((ROOT / "docs" / "paper.bib").read_text())
        # journals want its parts as titles; here the page has one
        text = re.sub(r"^#", "##", source[0], flags=re.M)
        source[0] = cited(text, works) + listed(works)


def works_of(bibliography):
    """Key -> fields of each entry of a BibTeX file."""
    return {key: dict(FIELD.findall(told)) for key, told in ENTRY.findall(bibliography)}


def cited(text, works):
    """The text with "(Wyllie et al., 2024)" for `[@wyllie2024]`; a KeyError if there is no such
    work."""

    def link(key):
        return f"[{short(works[key]['author'])}, {works[key]['year']}]({works[key]['url']})"

    def group(found):
        return "(" + "; ".join(map(link, re.findall(r"@(\w+)", found[0]))) + ")"

    return re.sub(r"\[@\w+(?:; @\w+)*\]", group, text)


def listed(works):
    """The works by author, an item each."""
    items = [
        f"- {plain(work['author']).replace(' and others', ' et al.')} ({work['year']}). "
        f"*{plain(work['title'])}*. <{work['url']}>"
        for work in works.values()
    ]
    return "\n" + "\n".join(sorted(items)) + "\n"


def short(authors):
    """Family names as a citation has them: of one, of two, or of the first."""
    if authors.startswith("{"):  # an organisation
        return plain(authors)
    names = [name.split(",")[0] for name in authors.split(" and ")]
    several = len(names) > 2 or "others" in names
    return f"{names[0]} et al." if several else " and ".join(names)


def plain(text):
    """BibTeX without its braces."""
    return re.sub(r"[{}]", "", text)


# ---- Docstrings: plain text with columns ---------------------------------------------------------

COLUMNS = re.compile(r"(\S(?:.*?\S)?) {2,}(\S.*)")


def columns_shown(app, what, name, target, options, lines):
    """The docstring as reStructuredText."""
    lines[:] = shown(lines)


def shown(lines):
    """Prose as it stands; a row of columns as terms and their meaning, in which may be rows again;
    what is set in from its first line on, as code."""
    made, rest = [], list(lines)
    while rest:
        line, inner = rest.pop(0), []
        while line and rest and rest[0].startswith(" "):
            inner.append(rest.pop(0))
        if line.startswith(" "):
            made += ["", "::", "", *set_in(textwrap.dedent("\n".join([line, *inner]))), ""]
        elif COLUMNS.fullmatch(line):
            terms, meaning = row_of(line, inner)
            term = " ".join(f"``{term}``" for term in terms)
            made += ["", term, *set_in("\n".join(shown(meaning)).strip()), ""]
        else:
            made += [inline(line), *(inline(x.strip()) for x in inner)]
    return made


def row_of(line, inner):
    """Terms of a row, all its columns but the last; and the lines of its meaning."""
    terms, meaning = [], [line, *inner]
    while (row := COLUMNS.fullmatch(meaning[0])) and all(x.startswith(" ") for x in meaning[1:]):
        terms.append(row[1])
        meaning = [row[2], *set_back(meaning[1:], row.start(2))]
    return terms, meaning


def set_in(text):
    return textwrap.indent(text, "    ").splitlines()


def set_back(lines, column):
    """Lines that go on in a column, from there; those that begin before it are plain text."""
    return [x[column:] if not x[:column].strip() else x.strip() for x in lines]


def inline(text):
    """Code in backticks stays code; all else means nothing to reStructuredText."""
    parts = re.split(r"`([^`]+)`", text)
    return "".join(
        f"``{part}``" if i % 2 else re.sub(r"([*_|\\`])", r"\\\1", part)
        for i, part in enumerate(parts)
    )


# ---- Formulas ------------------------------------------------------------------------------------


def formula(display):
    """What writes a formula as MathML, which browsers draw by themselves."""

    def write(writer, node):
        writer.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return write


def first_page(app, error):
    """README is also where the site is entered, whatever it is opened with."""
    if error is None:
        index = Path(app.outdir) / "index.html"
        shutil.copy(index.with_name(f"{root_doc}.html"), index)
        print(index)


def setup(app):
    app.connect("builder-inited", write_pages)
    app.connect("source-read", with_contents)
    app.connect("source-read", with_citations)
    app.connect("autodoc-process-docstring", columns_shown)
    app.connect("build-finished", first_page)
    app.add_html_math_renderer("mathml", (formula("inline"), None), (formula("block"), None))
