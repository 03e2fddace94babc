"""One self-contained page from the figures of a study: every figure with its claim, its mark and its files."""

import base64
import html
import json
from pathlib import Path

from .store import environment

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>biasstudy</title><style>
body{{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:52rem;margin:2rem auto;padding:0 1rem}}
h1{{font-size:1.5rem;line-height:1.25}} h2{{font-size:1.1rem;margin-top:2.5rem}}
figure{{margin:1rem 0}} img{{max-width:100%;height:auto}} figcaption{{font-size:.9rem;color:#444}}
.mark{{display:inline-block;font-size:.8rem;border-radius:3px;padding:.1rem .5rem;background:#e8eef5;color:#234}}
.reference{{background:#f5eee0;color:#543}} .answer{{border-left:4px solid #D55E00;padding:.3rem 1rem;background:#fbf6f2}}
footer{{margin-top:3rem;font-size:.8rem;color:#666}} @media print{{body{{margin:0;max-width:none}}}}
</style></head><body>
<h1>When generated images enter training sets, does the bias of future classifiers grow?</h1>
{body}
<footer>biasstudy {version}, commit {commit}, {processor}. Definitions are this study's own; no number is the paper's.</footer>
</body></html>
"""


def write(folder: Path) -> Path:
    """Write folder/index.html from folder/figures/*.json.

    raises   FileNotFoundError   if no figure has been made
    """
    figures = sorted((folder / "figures").glob("*.json"))
    if not figures:
        raise FileNotFoundError(f"no figures in {folder / 'figures'}; run a notebook first, for example: make study")
    sections: dict[str, list[str]] = {}
    told = {path: json.loads(path.read_text()) for path in figures}
    for path, about in sorted(told.items(), key=lambda item: item[1]["made"] != "trained here"):  # own results first
        sections.setdefault(about["name"].split("-")[0], []).append(_figure(path, about))
    body = "".join(f"<h2>{html.escape(name)}</h2>{_answer(folder, name)}{''.join(parts)}" for name, parts in sections.items())
    page = folder / "index.html"
    known = environment()
    page.write_text(_PAGE.format(body=body, version=known.get("biasstudy", ""), commit=known["commit"] or "unknown",
                                 processor=html.escape(known["processor"])))
    return page


def _answer(folder: Path, name: str) -> str:
    path = folder / "figures" / f"{name}.txt"
    text = html.escape(path.read_text().strip()).replace("\n", "<br>") if path.exists() else ""
    return f'<p class="answer">{text}</p>' if text else ""


def _figure(path: Path, about: dict[str, str]) -> str:
    picture = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
    made = "" if about["made"] == "trained here" else " reference"
    files = ", ".join(f'<a href="figures/{path.stem}.{ending}">{ending.upper()}</a>' for ending in ("pdf", "png", "csv"))
    claim = html.escape(about["claim"])
    return (f'<figure><img alt="{claim}" src="data:image/png;base64,{picture}"><figcaption>{claim} '
            f'<span class="mark{made}">{about["made"]}: {html.escape(about["mark"])}</span> {files}</figcaption></figure>')
