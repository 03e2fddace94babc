"""The data set `folder`: dialects of tables, folders without one, what is refused, how photographs
are read, and that CIFAR-100 as PNG files gives the results of `cifar20`."""

import csv
import hashlib
import io
import json
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import test_cifar
from conftest import FLOAT64, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from biasstudy import DATASETS, run
from biasstudy.__main__ import main
from biasstudy.data import photographs
from biasstudy.data.datasets import cifar
from biasstudy.data.datasets import examples as examples_module
from biasstudy.data.datasets import folder as folder_module
from biasstudy.data.datasets.colorized_mnist import digits_5k
from biasstudy.data.datasets.examples import thickness
from biasstudy.data.photographs import photograph
from biasstudy.data.real import _source, real_data

SIDE = 8


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A data folder of its own: checksums and pixels are kept there."""
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path / "data"))
    _source.cache_clear()
    yield tmp_path / "data"
    _source.cache_clear()


def picture(i: int, side: int = 12) -> Image.Image:
    """The i-th of many different pictures."""
    pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def save(path: Path, i: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(i).save(path)


def birds(n: int = 12) -> list[dict[str, str]]:
    """n images of every class, place and split 0 or 2, in a mixed order."""
    cells = [(y, p, s) for y in ("land", "water") for p in "ab" for s in "02" for _ in range(n)]
    order = np.random.default_rng(0).permutation(len(cells))
    return [
        {"file": f"{i:03}.png", "y": y, "place": p, "split": s}
        for i, (y, p, s) in enumerate(cells[j] for j in order)
    ]


def write(root: Path, rows: list[dict[str, str]], names: dict[str, str] | None = None) -> Path:
    """A folder with images and a metadata.csv; names: column here -> column there."""
    names = names or {"file": "img_filename"}
    for i, row in enumerate(rows):
        save(root / row["file"], i)
    table([{names.get(k, k): v for k, v in row.items()} for row in rows], root / "metadata.csv")
    return root


def table(rows: list[dict[str, str]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def load(root: Path, **options):
    """The data set as an experiment would load it."""
    entry = DATASETS["folder"]
    return entry.target(**entry.resolve({"root": str(root), "size": SIDE, **options}))


def cells_of(part, source) -> Counter:
    return Counter(
        (source.classes[k], source.groups[g]) for k, g in zip(part.label, part.group, strict=True)
    )


# ---- Dialects ------------------------------------------------------------------------------------

NAMES = {
    "SubpopBench": {"file": "filename", "place": "a"},
    "WILDS": {"file": "img_filename"},
    "Hugging Face image folder": {"file": "file_name", "y": "label", "place": "group"},
}


@pytest.mark.parametrize("dialect", list(NAMES))
def test_a_dialect_is_known_by_its_columns(tmp_path, dialect):
    rows = birds()
    source = load(write(tmp_path / "birds", rows, NAMES[dialect]))
    assert dialect in source.report[0] and source.design == "crossed"
    assert source.classes == ("land", "water") and source.groups == ("a", "b")
    for part, split in ((source.train, "0"), (source.test, "2")):
        of_part = [row for row in rows if row["split"] == split]
        assert cells_of(part, source) == Counter((row["y"], row["place"]) for row in of_part)
        expected = [
            photograph((tmp_path / "birds" / r["file"]).read_bytes(), SIDE) for r in of_part
        ]
        assert (part.images == np.stack(expected)).all(), "in the order of the table"


def test_a_table_of_ones_own_has_its_columns_named_and_groups_are_crossed(tmp_path):
    rows = [{**row, "sex": "fm"[i % 2]} for i, row in enumerate(birds())]
    root = write(tmp_path / "own", rows, {"file": "photo"})
    for group in (["place", "sex"], "place, sex"):
        source = load(root, image="photo", label="y", group=group)
        assert source.groups == ("a, f", "a, m", "b, f", "b, m")
        expected = Counter((r["y"], f"{r['place']}, {r['sex']}") for r in rows if r["split"] == "0")
        assert cells_of(source.train, source) == expected


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "semicolons", "parquet", "of each split"])
def test_other_kinds_of_tables_say_the_same(tmp_path, kind):
    rows = birds()
    root = write(tmp_path / "birds", rows)
    as_csv = load(root)
    made = [
        {"img_filename": r["file"], "y": r["y"], "place": r["place"], "split": int(r["split"])}
        for r in rows
    ]
    (root / "metadata.csv").unlink()
    options = {}
    if kind == "jsonl":
        (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, made)))
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        import pandas as pd

        pd.DataFrame(made).to_parquet(root / "metadata.parquet")
    elif kind == "of each split":
        for word, split in (("train", 0), ("test", 2)):
            part = [
                {k: v for k, v in row.items() if k != "split"}
                for row in made
                if row["split"] == split
            ]
            for row in part:
                (root / word).mkdir(exist_ok=True)
                shutil.move(root / row["img_filename"], root / word)
            table(part, root / word / "metadata.csv")
    else:
        comma = "\t" if kind == "tsv" else ";"
        name = "birds.tsv" if kind == "tsv" else "metadata.csv"
        lines = [comma.join(made[0]), *(comma.join(map(str, row.values())) for row in made)]
        (root / name).write_text("\n".join(lines))
        options = {"metadata": name}
    source = load(root, **options)
    if kind == "of each split":  # sorted by folder: test first
        assert cells_of(source.train, source) == cells_of(as_csv.train, as_csv)
    else:
        assert source.checksum == as_csv.checksum


@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("groups", [True, False])
def test_without_a_table_folders_tell(tmp_path, splits, groups):
    rows = birds()
    for i, row in enumerate(rows):
        word = {"0": "Train", "2": "test"}[row["split"]] if splits else ""
        save(tmp_path / "f" / word / row["y"] / (row["place"] if groups else "") / row["file"], i)
    (tmp_path / "f" / "notes.txt").write_text("not an image")
    source = load(tmp_path / "f")
    assert source.classes == ("land", "water")
    assert source.groups == (("a", "b") if groups else ("all",))
    assert source.design == ("crossed" if groups else "grouped")
    assert "1 other files" in source.report[0]
    n = 12 if groups else 24
    n_train = n if splits else 2 * n - n // 2
    assert set(cells_of(source.train, source).values()) == {n_train}


def test_numbers_are_sorted_as_numbers_and_lose_their_point(tmp_path):
    rows = birds()
    for i, row in enumerate(rows):
        row["y"] = f"{[10, 9][row['y'] == 'land']}.0" if i % 2 else str([10, 9][row["y"] == "land"])
    source = load(write(tmp_path / "n", rows))
    assert source.classes == ("9", "10")


def test_names_are_in_the_order_in_which_people_count(tmp_path):
    rows = [{**r, "y": {"land": "cat 10", "water": "cat 9"}[r["y"]]} for r in birds()]
    assert load(write(tmp_path / "n", rows)).classes == ("cat 9", "cat 10")


@pytest.mark.parametrize(
    ("cells", "design"),
    [
        ([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")], "crossed"),
        ([("a", "x"), ("a", "y"), ("b", "x")], "crossed"),
        ([("a", "x"), ("a", "y"), ("b", "z")], "nested"),
        ([("a", "x"), ("b", "x"), ("c", "y")], "grouped"),
    ],
)
def test_the_design_is_found(tmp_path, cells, design):
    rows = [
        {"file": f"{y}{g}{s}{i}.png", "y": y, "place": g, "split": s}
        for y, g in cells
        for s in "02"
        for i in range(4)
    ]
    source = load(write(tmp_path / "d", rows))
    assert source.design == design
    assert any(line.startswith(design.capitalize()) for line in source.report)


# ---- Splits --------------------------------------------------------------------------------------


def with_validation(n=12):
    rows = birds(n)
    more = [{**row, "file": f"v{row['file']}", "split": "1"} for row in rows if row["split"] == "2"]
    return rows + more


@pytest.mark.parametrize("validation", folder_module.VALIDATION)
def test_images_of_the_split_val_are_what_the_option_says(tmp_path, validation):
    source = load(write(tmp_path / "v", with_validation()), validation=validation)
    n = {"leave-out": 48, "train": 96, "instruments": 96}[validation]
    assert (len(source.train), len(source.test)) == (n, 48)
    if validation == "instruments":
        assert len(source.set_aside) == source.n_instruments == 48


def test_without_a_test_split_val_is_the_test_set(tmp_path):
    rows = [{**row, "split": {"0": "train", "2": "valid"}[row["split"]]} for row in birds()]
    source = load(write(tmp_path / "v", rows))
    assert len(source.test) == 48 and "those of val are" in " ".join(source.report)


def test_a_split_that_is_not_given_is_stratified_and_equal_files_stay_together(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "split"} for row in birds(20)]
    root = write(tmp_path / "s", rows)
    for i in range(0, 40, 2):
        shutil.copy(root / rows[i]["file"], root / f"copy{i}.png")
        rows.append({**rows[i], "file": f"copy{i}.png"})
    table(
        [{"img_filename" if k == "file" else k: v for k, v in r.items()} for r in rows],
        root / "metadata.csv",
    )
    source = load(root)
    seen = [{image.tobytes() for image in part.images} for part in (source.train, source.test)]
    assert not seen[0] & seen[1] and len(source.train) + len(source.test) == 180
    share = len(source.test) / 180
    assert 0.25 <= share < 0.32 and source.checksum == load(root).checksum


# ---- Photographs ---------------------------------------------------------------------------------


def packed(image: Image.Image, kind: str = "PNG", **keywords) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **keywords)
    return out.getvalue()


def test_a_photograph_of_that_size_stays_bit_by_bit():
    for image in (picture(0, 32), picture(1, 32).convert("L"), picture(2, 32).quantize(200)):
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        assert (photograph(packed(image), 32) == expected).all()


def test_the_middle_square_is_taken_and_shrunk_with_antialiasing():
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, 16:80:2] = 255  # every other column of the middle
    stripes[:, :16, 0] = stripes[:, 80:, 0] = 255  # red outside the middle
    shrunk = photograph(packed(Image.fromarray(stripes)), 8)
    assert (shrunk[0] == shrunk[1]).all() and abs(shrunk.astype(int) - 127).max() <= 12
    assert abs(shrunk[:, :, 1:-1].astype(int) - 127).max() <= 1


def test_orientation_of_the_camera_is_undone():
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    image.paste((255, 255, 255), (0, 0, 30, 10))  # bright above
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    for kind in ("JPEG", "PNG"):
        seen = photograph(packed(turned, kind, exif=exif), 8).astype(int)
        plain = photograph(packed(image, kind), 8).astype(int)
        assert abs(seen - plain).max() <= 8 and seen[:, 0].mean() > 200 > 50 > seen[:, -1].mean()


def test_depths_and_transparency():
    deep = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    levels = photograph(packed(Image.fromarray(deep)), 16)
    assert (levels == np.arange(256).reshape(16, 16)).all(), "16 bits"
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    seen = photograph(packed(clear), 8)
    assert seen[:, 0, 0].tolist() == [10, 20, 30] and (seen[:, 1:] == 255).all()
    indexed = Image.new("P", (8, 8), 1)
    indexed.putpalette([0, 0, 0, 9, 9, 9])
    assert (photograph(packed(indexed), 8) == 9).all()
    assert (photograph(packed(indexed, transparency=1), 8) == 255).all()
    assert photograph(packed(picture(0, 16).convert("CMYK"), "TIFF"), 8).shape == (3, 8, 8)
    with pytest.raises(ValueError, match="fractions"):
        photograph(packed(Image.new("F", (8, 8)), "TIFF"), 8)


def test_the_command_makes_an_example_wherever_one_stands(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(folder_module, "make", lambda name, place: write(place, birds()))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["folder", "digits-by-thickness"]) == 0
    assert "root: 'digits-by-thickness'" in capsys.readouterr().out.splitlines()[-1]
    assert (data / "digits-by-thickness" / "metadata.csv").is_file()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_files_are_read_once_and_what_changed_is_seen(tmp_path, monkeypatch):
    root = write(tmp_path / "b", birds())
    first, reads = load(root), Counter()
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: (reads.update([p.suffix]), read_bytes(p))[1])
    assert load(root).checksum == first.checksum and reads[".png"] == 0
    save(root / "000.png", 1000)
    again = load(root)
    assert again.checksum != first.checksum and reads[".png"] == 1 + 96
    assert (again.train.images != first.train.images).any((1, 2, 3)).sum() <= 1


def test_a_folder_that_moved_has_the_same_keys_and_other_pixels_have_others(tmp_path):
    root = write(tmp_path / "here", birds(30))
    shutil.copytree(root, tmp_path / "there")
    save(tmp_path / "other" / "x.png", 0)
    shutil.copytree(root, tmp_path / "other", dirs_exist_ok=True)
    save(tmp_path / "other" / "000.png", 1000)

    def ids(name, **options):
        options = {"root": str(tmp_path / name), "size": SIDE, **options}
        real = real_data(tiny(dataset="folder", dataset_options=options, n_real=40))
        return real.start.id, real.test.id, real.instruments["measuring"].id

    assert ids("here") == ids("there") == ids("here", damaged="skip", metadata="metadata.csv")
    for one, other in zip(ids("here"), ids("other"), strict=True):
        assert one != other
    assert ids("here")[0] != ids("here", n_instruments=16)[0]
    assert ids("here")[0] != ids("here", size=16)[0]


def test_a_record_of_files_that_changed_is_not_replaced_in_silence(tmp_path, caplog):
    root = write(tmp_path / "b", birds(30))
    e = tiny(dataset="folder", dataset_options={"root": str(root), "size": SIDE}, n_real=40,
             n_test=40, ratio=0.25, n_generations=1)  # fmt: skip

    def again():
        caplog.clear()
        run(e, numerics=FLOAT64, where=tmp_path / "runs")
        (path,) = (tmp_path / "runs" / "experiments").glob("*.json")
        told = [r.getMessage() for r in caplog.records if "was of other data" in r.getMessage()]
        return json.loads(path.read_text()), told

    first, told = again()
    assert not told and again() == (first, [])
    save(root / "000.png", 1000)
    changed, told = again()
    assert told == [
        f"the files of b changed: the record of {e.id} was of other data and is replaced"
    ]
    one, other = ({*re.findall(r"[0-9a-f]{32,}", str(r["stages"]))} for r in (first, changed))
    assert changed["data"] != first["data"] and one and not one & other


@pytest.mark.parametrize(
    ("sides", "options", "says", "size"),
    [
        ([12], {}, "64 x 64 pixels, enlarged from 12 x 12: give size 12; ", 12),
        ([12], {"size": 12}, "12 x 12 pixels; ", 12),
        ([12], {"size": 8}, "8 x 8 pixels; ", 8),
        ([12, 20], {"size": 16}, "enlarged from 12 x 12 and more: 48 of 96 images are smaller", 16),
        ([12, 70], {}, "64 x 64 pixels, enlarged from 12 x 12 and more: 48 of 96", 64),
        ([6], {"size": 8}, "8 x 8 pixels, enlarged from 6 x 6 and more: 96 of 96", 8),
    ],
)
def test_what_is_enlarged_is_said_and_the_printed_options_have_the_size(
    tmp_path, capsys, sides, options, says, size
):
    root = write(tmp_path / "b", birds())
    for i in range(96):
        side = sides[i % len(sides)]
        picture(i, side + 3).crop((0, 0, side + 3 * (i % 3), side)).save(root / f"{i:03}.png")
    for _ in range(2):  # read, and found again
        source = load(root, **{"size": 64, **options})
        assert says in " ".join(source.report)
    given = [word for name, value in options.items() for word in ("-p", name, str(value))]
    assert main(["folder", str(root), *given]) == 0
    out = capsys.readouterr().out
    assert says in out and f"dataset_options: {{size: {size}, " in out


# ---- What is refused -----------------------------------------------------------------------------


def column(name, value, some=slice(None)):
    """Sets a column of some rows."""

    def change(root, rows):
        for row in rows[some]:
            row[name] = value(row) if callable(value) else value

    return change


def text(content, name="metadata.csv"):
    def change(root, rows):
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return "written"

    return change


def file(content, name="000.png"):
    def change(root, rows):
        (root / name).write_bytes(content)

    return change


def first_lines(change):
    def altered(root, rows):
        text_of = "\n".join(
            ["img_filename,y,place,split", *(",".join(row.values()) for row in rows)]
        )
        return text(change(text_of))(root, rows)

    return altered


def only(condition):
    def change(root, rows):
        rows[:] = [row for row in rows if condition(row)]

    return change


def copied(root, rows):
    """A test image is a training image."""
    train, test = (next(r["file"] for r in rows if r["split"] == s) for s in "02")
    shutil.copy(root / train, root / test)


def nothing(root, rows):
    pass


def no_table(root, rows):
    (root / "metadata.csv").unlink(missing_ok=True)
    return "written"


def in_folders(*places):
    def change(root, rows):
        shutil.rmtree(root)
        for i, place in enumerate(places):
            if place.endswith(".png"):
                save(root / place, i)
            else:
                (root / place).parent.mkdir(parents=True)
                (root / place).write_text("none")
        return "written"

    return change


def empty(root, rows):
    shutil.rmtree(root)
    root.mkdir()
    return "written"


BAD = {
    "no root": (nothing, {"root": ""}, "say where the images are"),
    "no such folder": (nothing, {"root": "/nowhere/at/all"}, "no folder /nowhere/at/all"),
    "a folder that is gone": (in_folders(), {}, "no folder"),
    "an empty folder": (empty, {}, "there are no images in ROOT: it is empty"),
    "an empty folder with columns named": (empty, {"label": "y"}, "no images in ROOT: it is empty"),
    "a folder without images": (in_folders("a/notes.txt"), {},
                                "no images in ROOT: none of its 1 files ends in .jpg, .jpeg"),
    "a root that is a file": (nothing, {"root": "FILE"}, "000.png is a file, not a folder; name "),
    "a root that is packed": (nothing, {"root": "ZIP"}, "is a file, not a folder; unpack it, and"),
    "a class in two spellings": (column("y", "LAND ", slice(0, 5)), {}, "one class is written in "),
    "a group in two spellings": (column("place", "A", slice(0, 1)), {}, "one group is written in "),
    "groups that are measurements": (column("place", lambda r: f"0.{r['file'][:3]}"), {},
                                     "96 different values in 96 rows, so it seems to be cont"),
    "groups that are names": (column("place", lambda r: r["file"]), {}, "seems to name images"),
    "no such table": (nothing, {"metadata": "metdata.csv"}, "did you mean metadata.csv?"),
    "a table of another kind": (nothing, {"metadata": "000.png"}, "a table is .csv, .tsv"),
    "two tables": (lambda r, rows: text("{}", "metadata.jsonl")(r, rows) and None, {},
                   "has metadata.csv, metadata.jsonl; keep one"),
    "an empty table": (text(""), {}, "is empty"),
    "a header alone": (text("img_filename,y,place,split\n"), {}, "no rows under its header"),
    "not UTF-8": (text("img_filename,y,place\nä.png,a,b".encode("latin-1")), {}, "not UTF-8"),
    "a column twice": (first_lines(lambda t: t.replace("place", "y", 1)), {}, "'y' stands twice"),
    "a column without a name": (first_lines(lambda t: t.replace("place", "", 1)), {}, "has none"),
    "a row too long": (first_lines(lambda t: t.replace("0\n", "0,7\n", 1)), {},
                       "other numbers of values in rows 1 of 96 (first"),
    "an open quote": (first_lines(lambda t: t.replace("land", '"land', 1)), {}, "no table"),
    "no column of images": (first_lines(lambda t: t.replace("img_filename", "photo", 1)), {},
                            "say which, with the option image; its columns: photo, y"),
    "no column of labels": (first_lines(lambda t: t.replace(",y,", ",kind,", 1)), {},
                            "is the label, with the option label; its columns: img_filename, kind"),
    "no column of groups": (first_lines(lambda t: t.replace("place", "where", 1)), {},
                            "is the group, with the option group"),
    "a column that is not there": (nothing, {"group": "plaec"}, "(did you mean place?)"),
    "a group that is not there": (nothing, {"group": ["place", "sex"]}, "no column 'sex'"),
    "two columns of labels": (nothing, {"label": "y, place"}, "label is one column"),
    "label and group in one": (nothing, {"group": "y"}, "named for label and group"),
    "an empty label": (column("y", "", slice(3, 5)), {}, "is empty in rows 2 of 96 (first 5, 6)"),
    "an empty group": (column("place", "", slice(0, 1)), {}, "is empty in rows 1 of 96 (first 2)"),
    "an empty name": (column("file", "", slice(0, 1)), {}, "is empty in rows 1 of 96"),
    "a file twice": (column("file", "001.png", slice(0, 1)), {},
                     "more than once: 1 of 95 (first '001.png')"),
    "a word that is no split": (column("split", "trian", slice(0, 2)), {},
                                "is no split for 2 of 96 images (first 'trian')"),
    "no training images": (column("split", "2"), {}, "of the split train; there: test 96"),
    "no test images": (column("split", "train"), {}, "of the split test; there: train 96"),
    "one class": (column("y", "bird"), {}, "are of class 'bird'"),
    "classes that are names": (column("y", lambda row: row["file"]), {}, "96 classes for 96"),
    "label and group say the same": (column("place", lambda row: row["y"] + "!"), {},
                                     "label and group say the same"),
    "a cell without test images": (
        only(lambda r: (r["y"], r["place"], r["split"]) != ("land", "a", "2")), {},
        "alone: 1 of 4 (first 'land, a: 12 train, 0 test')"),
    "a cell without training images": (
        only(lambda r: (r["y"], r["place"], r["split"]) != ("land", "a", "0")), {},
        "alone: 1 of 4 (first 'land, a: 0 train, 12 test')"),
    "a file that is not there": (column("file", "x.png", slice(0, 1)), {},
                                 "not there: 1 of 96 (first 'x.png'); names are relative to"),
    "no file is there": (column("file", lambda r: "d/" + r["file"]), {}, "not there: 96 of 96"),
    "a truncated image": (file(packed(picture(0))[:60]), {},
                          "cannot be read: 1 of 96 (first '000.png')"),
    "an empty file": (file(b""), {}, "cannot be read: 1 of 96"),
    "text in place of an image": (file(b"<html>"), {}, "'000.png'): it is no image of a known"),
    "pixels without a range": (file(packed(Image.new("F", (8, 8)), "TIFF")), {}, "fractions"),
    "a copy across splits": (copied, {}, "byte for byte, images of another split: 1 of 96"),
    "too many instruments": (nothing, {"n_instruments": 48}, "at most 44 fits"),
    "instruments named twice": (nothing, {"n_instruments": 8, "validation": "instruments"},
                                "of the split val are instruments; leave out n_instruments 8"),
    "two tables of a split": (lambda r, rows: [no_table(r, rows), *(
        text("file_name,label\n", f"train/{name}")(r / "", rows) for name in (
            "metadata.csv", "metadata.jsonl") if not (r / "train").mkdir(exist_ok=True))] and
        "written", {}, "has metadata.csv, metadata.jsonl; keep one, or say which"),
    "a comma in one of several groups": (
        lambda r, rows: [row.update(sex="f, m" if row is rows[1] else "f") for row in rows] and 0,
        {"group": ["place", "sex"]}, "one stands in rows 1 of 96 (first 3)"),
    "a size too large": (nothing, {"size": 4096}, "size must be in [8, 512]; got 4096"),
    "a size that is no number": (nothing, {"size": "64"}, "must be a whole number; got str"),
    "a word that is no option": (nothing, {"sise": 64}, "did you mean size?"),
    "groups that are no texts": (nothing, {"group": [1, 2]}, "must be text; got int 1"),
    "another validation": (nothing, {"validation": "use"}, "validation must be one of leave-out"),
    "instruments without val": (lambda r, rows: rows.append(
        {**rows[0], "file": "v.png", "split": "1"}) or save(r / "v.png", 500),
        {"validation": "instruments"}, "the split val is short of them in 4 of 4"),
    "columns without a table": (no_table, {"label": "y"}, "the options label name columns"),
    "another table alone": (lambda r, rows: text("a,b", "birds.csv")(r, rows) and no_table(r, rows),
                            {}, "name one with the option metadata: birds.csv"),
    "images in no folder": (no_table, {}, "in split/class/ or split/class/group/"),
    "splits beside classes": (in_folders("train/a/1.png", "test/a/2.png", "b/3.png"), {},
                              "splits are test, train, and not b"),
    "other depths": (in_folders("train/a/1.png", "train/a/2.png", "test/b/x/3.png"), {},
                     "otherwise 1 of 3 (first 'test/b/x/3.png')"),
    "JSON that is none": (lambda r, rows: no_table(r, rows) and
                          text('{"file_name": "a"}\n{', "metadata.jsonl")(r, rows), {},
                          "line 2 of"),
    "JSON without names": (lambda r, rows: no_table(r, rows) and
                           text("[1]", "metadata.jsonl")(r, rows), {}, "line 1 of"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_folder_or_table_is_one_sentence(tmp_path, case):
    change, options, says = BAD[case]
    options = dict(options)
    root, rows = write(tmp_path / "bad", birds()), birds()
    if change(root, rows) != "written":
        table(
            [{"img_filename" if k == "file" else k: v for k, v in r.items()} for r in rows],
            root / "metadata.csv",
        )
    if options.get("root") == "ZIP":
        shutil.make_archive(str(tmp_path / "bad"), "zip", root)
    files = {"FILE": root / "000.png", "ZIP": tmp_path / "bad.zip"}
    if options.get("root") in files:
        options = {"root": str(files[options["root"]])}
    with pytest.raises((ValueError, OSError)) as error:
        load(options.pop("root", root), **options)
    sentence = str(error.value)
    assert (
        says.replace("ROOT", str(root)) in sentence and "\n" not in sentence and len(sentence) < 500
    ), sentence


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("y", {"land": 3, "LAND": 45, "water": 48}),
        ("y", {"land": 3, "Land": 5, "water": 48, "WATER": 40}),
        ("place", {"a": 40, "b": 50, "B": 6}),
        ("place", {"b": 90, "\u00e4": 4, "a\u0308": 2}),  # one letter, and two that make it
    ],
)
def test_spellings_of_one_name_are_told_with_their_counts(tmp_path, name, spellings):
    rows = birds()
    words = [word for word, n in spellings.items() for _ in range(n)]
    for row, word in zip(rows, words, strict=True):
        row[name] = word
    what = {"y": "class", "place": "group"}[name]
    with pytest.raises(ValueError, match=rf"one {what} is written in several ways: ") as error:
        load(write(tmp_path / "b", rows))
    told = dict(re.findall(r"'([^']*)' \((\d+) images\)", str(error.value)))
    assert len(told) == 2 and all(spellings[word] == int(n) for word, n in told.items())
    assert ("and likewise 1 more" in str(error.value)) == (len(spellings) == 4)


def test_folders_whose_names_differ_in_space_are_one_class_written_twice(tmp_path):
    for i, place in enumerate(["tree/1.png", "tree /2.png", "bush/3.png"]):
        save(tmp_path / "f" / place, i)
    with pytest.raises(ValueError, match=r"'tree' \(1 images\) and 'tree ' \(1 images\); write it"):
        load(tmp_path / "f")


def test_there_are_forty_kinds_and_more():
    assert len(BAD) >= 40


@pytest.mark.parametrize(
    "case",
    ["a cell without test images", "a cell without training images", "a file that is not there",
     "a truncated image", "text in place of an image", "a copy across splits"],
)  # fmt: skip
def test_what_is_damaged_can_be_left_out_and_is_said(tmp_path, case):
    change, options, _ = BAD[case]
    root, rows = write(tmp_path / "bad", birds()), birds()
    change(root, rows)
    table(
        [{"img_filename" if k == "file" else k: v for k, v in r.items()} for r in rows],
        root / "metadata.csv",
    )
    for _ in range(2):  # read, and found again
        source = load(root, **options, damaged="skip")
        assert any(line.startswith("Left out: ") for line in source.report)
        n = 72 if "cell" in case else 95
        assert len(source.train) + len(source.test) == n


def test_parquet_without_its_package_says_what_to_do(tmp_path, monkeypatch):
    import pandas as pd

    def missing(path):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", missing)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"pip install pyarrow\); or write the table as"):
        load(tmp_path / "p")


def test_a_word_of_the_system_is_not_kept(tmp_path, monkeypatch):
    """Too many open files: next time the photograph may be well."""
    root, read = write(tmp_path / "b", birds()), photographs.photograph

    def fails(packed, size):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(photographs, "photograph", fails)
    with pytest.raises(ValueError, match=r"cannot be read: 96 of 96 .*Too many open files"):
        load(root)
    monkeypatch.setattr(photographs, "photograph", read)
    assert len(load(root).train) == 48


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"start": "biased", "bias": 0.5}, "class 'water' has none of group 'a'; use start 'as-f"),
        ({"start": "as-found", "favoured": {"land": "a"}, "dataset_options": {"n_instruments": 40}},
         "n_instruments is 40, but .* at most a third of each class and group, 36 in all"),
        ({"dataset_options": {"n_instruments": 9}}, "are too few to divide: none is left for"),
    ],
)  # fmt: skip
def test_what_a_folder_cannot_give_is_refused_before_training(tmp_path, fields, says):
    rows = [row for row in birds(36) if (row["y"], row["place"]) != ("water", "a")]
    options = {"root": str(write(tmp_path / "b", rows)), "size": SIDE}
    options |= fields.pop("dataset_options", {})
    sizes = {"n_real": 30, "n_test": 30, "ratio": 0.1, "n_generations": 1}
    with pytest.raises(ValueError, match=says) as error:
        real_data(tiny(dataset="folder", dataset_options=options, **sizes, **fields))
    assert "\n" not in str(error.value)


def test_so_many_instruments_as_asked_stand_beside_a_start_as_found(tmp_path):
    rows = [row for i, row in enumerate(birds(36)) if row["place"] == "a" or i % 3]
    options = {"root": str(write(tmp_path / "b", rows)), "size": SIDE, "n_instruments": 36}
    sizes = {"n_real": 75, "n_test": 60, "ratio": 0.1, "n_generations": 1, "start": "as-found"}
    real = real_data(tiny(dataset="folder", dataset_options=options, **sizes))
    assert sum(len(part.load()) for part in real.instruments.values()) == 36


def refused(root, **fields):
    """The sentence with which a run of this folder is refused."""
    options = {"root": str(root), "size": SIDE}
    sizes = {"n_real": 30, "n_test": 30, "ratio": 0.1, "n_generations": 1}
    with pytest.raises(ValueError) as error:
        real_data(tiny(dataset="folder", dataset_options=options, **{**sizes, **fields}))
    return str(error.value)


def test_what_has_no_contrast_is_said_by_the_command_and_refused_alike(tmp_path, capsys):
    """Equal groups, one group, and a group for each class."""
    equal = write(tmp_path / "equal", birds(36))
    one = write(tmp_path / "one", [{**row, "place": "a"} for row in birds(36)])
    grouped = [
        {**row, "y": row["y"] + "12"[i % 2], "place": row["y"]} for i, row in enumerate(birds(36))
    ]
    grouped = write(tmp_path / "grouped", grouped)
    for root, fields, said, says in (
        (
            equal,
            {"start": "as-found"},
            "A run with start: as-found",
            "all groups of a class are eq",
        ),
        (
            equal,
            {"start": "as-found", "n_real": 10**5},
            "A run with",
            "all groups of a class are eq",
        ),
        (grouped, {"start": "as-found"}, "A run with start: as-found", "every class has one group"),
        (one, {"start": "as-found"}, "A run would", "all images are of one group, 'a'"),
        (one, {}, "A run would", "no contrast between groups to measure"),
    ):
        sentence = refused(root, **fields)
        assert says in sentence and "; at most" not in sentence
        assert ("use start: unbiased" in sentence) == (root != one)
        assert main(["folder", str(root), "-p", "size", "8"]) == 0
        lines = [
            line for line in capsys.readouterr().out.splitlines() if "would be refused" in line
        ]
        assert len(lines) == 1 and lines[0].startswith(said)
        assert sentence.removeprefix("folder: ") in lines[0]
    real = tiny(dataset="folder", dataset_options={"root": str(equal), "size": SIDE}, n_real=40,
                n_test=40, ratio=0.1, n_generations=1, start="as-found",
                favoured={"land": "a"})  # fmt: skip
    assert (real_data(real).favoured > 0).sum() == 1
    assert main(["folder", str(equal), "-p", "validation", "train"]) == 0


def test_a_start_that_is_too_large_is_refused_with_that_alone(tmp_path):
    rows = [row for i, row in enumerate(birds(36)) if row["place"] == "a" or i % 3]
    sentence = refused(write(tmp_path / "b", rows), start="as-found", n_real=10**5, n_test=20)
    assert re.fullmatch(r"not enough real images: class .*; at most n_real \d+ fits", sentence)


# ---- Any table -----------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "cat 2", "cat 10", "7", "ä"])
ROW = st.tuples(WORDS, WORDS, st.sampled_from(["train", "0", "Test", "2", "val"]))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    for i in range(40):
        save(root / f"{i}.png", i)
    return root


@given(st.lists(ROW, min_size=1, max_size=40))
@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_table_is_taken_as_it_says_or_refused_in_one_sentence(many, rows):
    table(
        [{"file_name": f"{i}.png", "label": y, "group": g, "split": s}
         for i, (y, g, s) in enumerate(rows)],
        many / "metadata.csv",
    )  # fmt: skip
    try:
        source = load(many)
    except ValueError as error:
        assert str(error).startswith("folder: ") and "\n" not in str(error)
        return
    train = [(y, g) for y, g, s in rows if s in ("train", "0")]
    test = [(y, g) for y, g, s in rows if s in ("Test", "2")]
    test = test or [(y, g) for y, g, s in rows if s == "val"]
    assert cells_of(source.train, source) == Counter(train)
    assert cells_of(source.test, source) == Counter(test)
    assert set(source.classes) == {y for y, _ in train}
    groups_of = Counter(y for y, _ in set(train))
    classes_of = Counter(g for _, g in set(train))
    alone = set(groups_of.values()) == {1}, set(classes_of.values()) == {1}
    expected = {(True, False): "grouped", (False, True): "nested", (False, False): "crossed"}
    assert source.design == expected[alone]


# ---- CIFAR-100 as PNG files ----------------------------------------------------------------------


def test_cifar_as_png_files_gives_the_same_results_to_the_last_bit(tmp_path, data, monkeypatch):
    files = test_cifar.content()
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(cifar, "_FILES", sums)
    (data / "cifar-100-python").mkdir(parents=True)
    rows = []
    for name, content in files.items():
        (data / "cifar-100-python" / name).write_bytes(content)
        if name == "meta":
            continue
        record = pickle.loads(content)
        for i, pixels in enumerate(record["data"].reshape(-1, 3, 32, 32)):
            path = tmp_path / "png" / name / f"{i:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.transpose(1, 2, 0)).save(path, compress_level=1)
            label, group = record["coarse_labels"][i], record["fine_labels"][i]
            rows.append({"filename": f"{name}/{i:05}.png", "y": label, "a": group,
                         "split": {"train": 0, "test": 2}[name]})  # fmt: skip
    table(rows, tmp_path / "png" / "metadata.csv")
    # instruments and test images are drawn by the checksum
    monkeypatch.setattr(folder_module, "_checksum", lambda found: cifar._checksum(32))

    sizes = {"n_real": 700, "n_test": 200, "start": "biased", "bias": 0.75, "n_generations": 1}
    folder = {"root": str(tmp_path / "png"), "size": 32, "n_instruments": 2000}
    tables = []
    for name, options in (("cifar20", {"n_instruments": 2000}), ("folder", folder)):
        e = tiny(dataset=name, dataset_options=options, **sizes)
        results = run([e.to_arm(arm) for arm in ("generated", "real")], where=tmp_path / name)
        names = {*results.outcomes[0].classes} if name == "cifar20" else set()
        own = results.table.drop(columns=["experiment", "pair", "dataset", "label", "group"])
        tables.append((own.reset_index(drop=True), results, names))
    (one, results, _), (other, again, _) = tables
    assert len(one) > 500 and one.equals(other)
    for a, b in zip(results.outcomes, again.outcomes, strict=True):
        assert all((x == y).all() for x, y in zip(a.predicted, b.predicted, strict=True))


# ---- The example ---------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 4, 6, 8])
def test_the_thickness_of_a_bar_is_its_width(width):
    bar = np.zeros((28, 28), np.uint8)
    bar[4:24, 10 : 10 + width] = 200
    assert thickness(bar) == thickness(bar.T) == width
    assert np.isnan(thickness(np.zeros((28, 28), np.uint8)))


def test_the_example_is_made_when_it_is_first_asked_for(data):
    source = load("digits-by-thickness", size=28)
    table_of = (data / "digits-by-thickness" / "metadata.csv").read_text().splitlines()[1:]
    groups = Counter(line.rsplit(",", 1)[1] for line in table_of)
    assert groups == {"thin": 1250, "thick": 3750}
    assert [path.name for path in data.iterdir() if path.name.startswith("partial")] == []
    digits = {image.tobytes(): y for image, y in zip(*digits_5k(), strict=True)}
    for part in (source.train, source.test):
        assert [digits[image[0].tobytes()] for image in part.images] == part.label.tolist()
        thin = np.array([thickness(image[0]) for image in part.images])
        cut = [thin[part.group == g] for g in (0, 1)]
        assert source.groups == ("thick", "thin") and cut[1].max() <= cut[0].min() + 1e-6


def test_all_digits_are_grouped_likewise_once_they_were_fetched(data, monkeypatch):
    with pytest.raises(FileNotFoundError, match="python -m biasstudy fetch mnist"):
        load("mnist-by-thickness", size=28)
    assert not list(data.glob("*")), "nothing stays of an example that could not be made"
    images, label = digits_5k()
    # 100 training and 60 test images of each class
    order = np.argsort(label, kind="stable").reshape(10, -1)
    parts = tuple(
        (images[i], label[i]) for i in (order[:, :100].ravel(), order[:, 100:160].ravel())
    )
    monkeypatch.setattr(examples_module, "mnist", lambda: parts)
    source = load("mnist-by-thickness", size=28)
    for part, (made, of_class) in zip((source.train, source.test), parts, strict=True):
        assert (part.images[:, 0] == made).all() and (part.label == of_class).all()
    thin = source.groups.index("thin")
    n_thin = np.count_nonzero(source.train.group == thin) + np.count_nonzero(
        source.test.group == thin
    )
    assert n_thin == 400, "a quarter of training and test images together"


# ---- The command ---------------------------------------------------------------------------------


def test_the_command_says_what_a_run_would_see(tmp_path, capsys, monkeypatch):
    write(tmp_path / "birds", birds())
    monkeypatch.chdir(tmp_path)
    assert main(["folder", "birds", "-p", "size", "8"]) == 0
    out = capsys.readouterr().out
    assert "WILDS" in out and "Crossed" in out and "48 images to draw from" in out
    assert re.search(r"land +a +12 +12", out)
    assert f"dataset_options: {{size: 8, root: '{tmp_path / 'birds'}'}}" in out
    assert main(["folder", "birds", "-p", "root", "other"]) == 2
    assert "the folder is named once; got birds and -p root other" in capsys.readouterr().err
    assert main(["folder", "nothing"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert photographs.kept().is_dir(), "what was found out is kept"
