"""Executing notebooks by machine: fresh store, smoke scale, volatile metadata scrubbed, pictures
made small."""

import base64
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.places import read_text, write_text
from .figures import COLUMN_DPI, DPI_VARIABLE, packed

# where the kernel can, else it warns that others on this machine could listen
_CHANNELS = {"KernelManager": {"transport_encryption": "auto"}}
MOST_BYTES = 390_000  # of a committed notebook, lest reviews and diffs choke on it
DPI = (144, 112, 88, 72)  # of its pictures: the first with which it is no larger
# what nbval compares; pictures differ between font versions
_COMPARED = ("text/plain", "text/html", "text/markdown")


def refresh(path: Path) -> bool:
    """Execute a notebook in place, in a temporary store; rewritten only if an output that nbval
    compares has changed.

    returns  whether the file was rewritten
    raises   nbclient.CellExecutionError if a cell fails
    """
    import nbformat

    old = read_text(path)
    for dpi in DPI:
        notebook = nbformat.read(path, as_version=4)
        _execute(notebook, dpi)
        scrub(notebook, dpi)
        if _compared(json.loads(old)) == _compared(notebook):
            return False
        new = nbformat.writes(notebook) + "\n"
        if len(new) <= MOST_BYTES:
            break
    write_text(path, new)
    return True


def _execute(notebook: Any, dpi: int) -> None:
    """Run all cells, in a temporary store, with pictures that have so many dots per inch."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as folder:
        ours = {
            "BIASSTUDY_RUNS": f"{folder}/runs",
            "BIASSTUDY_STUDY": f"{folder}/study",
            DPI_VARIABLE: str(dpi),
        }
        kept = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            NotebookClient(
                notebook,
                kernel_name="python3",
                timeout=1200,
                config=Config(_CHANNELS),
                resources={"metadata": {"path": folder}},
            ).execute()
        finally:
            for name, value in kept.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def scrub(notebook: Any, dpi: int) -> None:
    """Remove what changes from run to run and says nothing (times, widget state, versions of the
    kernel), and store pictures with 128 colours: a third of the bytes, and nbval does not compare
    them. They are shown in the width that they have where the notebook is run."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{i:02d}"
        for name in ("execution", "papermill"):
            cell["metadata"].pop(name, None)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                png = base64.b64decode(output["data"]["image/png"])
                output["metadata"] = {"image/png": {"width": _width(png) * COLUMN_DPI // dpi}}
                output["data"]["image/png"] = base64.b64encode(packed(png)).decode() + "\n"


def _width(png: bytes) -> int:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.width


def _compared(notebook: Any) -> list[Any]:
    cells = []
    for cell in notebook["cells"]:
        outputs = []
        for output in cell.get("outputs", []):
            data = {
                kind: "".join(text)
                for kind, text in output.get("data", {}).items()
                if kind in _COMPARED
            }
            outputs.append(
                [
                    output["output_type"],
                    "".join(output.get("text", "")),
                    data,
                    sorted(output.get("data", {})),
                ]
            )
        cells.append(["".join(cell["source"]), outputs, bool(cell.get("execution_count"))])
    return cells
