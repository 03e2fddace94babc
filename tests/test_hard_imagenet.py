"""Hard ImageNet, its stand-in, and groups made of context cues: reading, bad input, draws."""

import hashlib
import pickle

import numpy as np
import pytest
from conftest import tiny
from PIL import Image

from biasstudy import DATASETS
from biasstudy.__main__ import main
from biasstudy.data.datasets.cues import GROUPS, STRONG, WEAK, cues_of, surroundings
from biasstudy.data.datasets.hard_imagenet import WNIDS, are_boxes, class_names, pair
from biasstudy.data.real import _source, real_data

NAMES = ("snorkel", "volleyball")
OPTIONS = {"classes": ", ".join(NAMES), "size": 16, "instruments": 20}
N = {"train": 50, "val": 20}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of small JPEGs, 24 x 20 pixels, whose ground is the colour of their class in
    three images of four; masks."""
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path))
    _source.cache_clear()
    rng, root = np.random.default_rng(0), tmp_path / "hard-imagenet"
    for part, n in N.items():
        (root / "masks" / part).mkdir(parents=True)
        for k, name in enumerate(NAMES):
            (root / "images" / part / WNIDS[name]).mkdir(parents=True)
            for i in range(n):
                ground = k if i % 4 else 1 - k
                image = rng.integers(-30, 31, (20, 24, 3)) + (
                    (40, 60, 200) if ground == 0 else (200, 150, 60)
                )
                mask = np.zeros((20, 24), np.uint8)
                y, x = rng.integers(4, 10, 2)
                mask[y : y + 6, x : x + 5] = 255
                mask[y, x] = 0  # no rectangle
                image[mask > 0] = 240 if k == 0 else 20
                file = f"{WNIDS[name]}_{i:02}.JPEG"
                Image.fromarray(image.astype(np.uint8)).save(
                    root / "images" / part / WNIDS[name] / file, "JPEG", quality=95
                )
                Image.fromarray(mask).save(root / "masks" / part / f"{WNIDS[name]}_{file}", "PNG")
    yield root
    _source.cache_clear()


def load(**options):
    return DATASETS["hard-imagenet"].target(**{**OPTIONS, **options})


def image_of(folder, part="train", name="snorkel", i=3):
    return folder / "images" / part / WNIDS[name] / f"{WNIDS[name]}_{i:02}.JPEG"


def mask_of(folder, part="train", name="snorkel", i=3):
    return folder / "masks" / part / f"{WNIDS[name]}_{WNIDS[name]}_{i:02}.JPEG"


# ---- Reading -------------------------------------------------------------------------------------


def test_fifteen_classes_each_once():
    assert len(WNIDS) == len(set(WNIDS.values())) == 15
    assert class_names("") == tuple(WNIDS) and class_names("n04251144, volleyball") == NAMES


def test_images_masks_and_groups_are_read(folder):
    source = load()
    assert (
        source.classes == NAMES
        and source.groups == GROUPS
        and source.design == "crossed"
        and source.majority == STRONG
    )
    assert (
        len(source.train) == 100
        and len(source.test) == 40
        and source.train.images.shape[1:] == (3, 16, 16)
    )
    assert source.caption == "masks, 2 of 15 classes" and "left out: none" in source.report[0]
    assert (source.train.mask.sum((1, 2)) > 5).all()
    dark = source.train.images.mean(1) < 90
    inside = np.array([d[m].mean() for d, m in zip(dark, source.train.mask, strict=True)])
    assert (inside[source.train.label == 1] > 0.5).all() and (
        inside[source.train.label == 0] < 0.2
    ).all()
    blue = source.train.images[:, 2].astype(int) > source.train.images[:, 0]
    around = np.array([b[~m].mean() for b, m in zip(blue, source.train.mask, strict=True)])
    agrees = (around > 0.5) == (source.train.label == 0)
    assert (source.train.group[~agrees] == WEAK).all(), "a ground of the other class is a weak cue"
    assert load().checksum == source.checksum != load(size=20).checksum


def test_a_subset_and_folders_elsewhere(folder, tmp_path):
    moved = tmp_path / "elsewhere"
    (folder / "images").rename(moved)
    source = load(images=str(moved), classes="volleyball, snorkel")
    assert source.classes == ("volleyball", "snorkel") and len(source.train) == 100


def test_image_and_mask_are_cropped_alike():
    rng, names = np.random.default_rng(0), ("image.png", "mask.png")
    image, mask = np.zeros((40, 64, 3), np.uint8), np.zeros((40, 64), np.uint8)
    for _ in range(5):
        y, x = rng.integers(0, 32), rng.integers(12, 44)
        image[y : y + 8, x : x + 8], mask[y : y + 8, x : x + 8] = 255, 255
    packed = [_png(array) for array in (image, mask)]
    small, touched, has_object = pair(*packed, 40)
    assert small.shape == (3, 40, 40) and (touched == (small[0] > 0)).all(), names
    half, touched, _ = pair(*packed, 20)
    assert has_object and touched[half[0] > 60].all() and touched.mean() < 1
    larger = _png(np.kron(mask, np.ones((2, 2), np.uint8)))
    assert (pair(packed[0], larger, 20)[1] == touched).all(), (
        "a mask of the same shape and another size"
    )
    with pytest.raises(
        ValueError, match="image and mask must have the same shape; got 64 x 40 and 40 x 64 pixels"
    ):
        pair(packed[0], _png(mask.T.copy()), 20)


def _png(array):
    import io

    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def test_what_is_left_out_is_counted(folder):
    mask_of(folder).unlink()
    mask_of(folder, i=4).unlink()
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(mask_of(folder, i=5), "PNG")
    source = load()
    assert (
        len(source.train) == 97
        and "left out: 2 without a mask, 1 with an empty mask." in source.report[0]
    )
    edge = np.zeros((20, 24), np.uint8)
    edge[:, 0] = 255
    Image.fromarray(edge).save(mask_of(folder, i=6), "PNG")
    said = load().report[0]
    assert "1 with an empty mask, 1 with the object outside the square." in said


def test_box_masks_are_called_so(folder):
    for path in (folder / "masks").rglob("*.JPEG"):
        mask = np.asarray(Image.open(path)).copy()
        y, x = np.argwhere(mask).min(0)
        mask[y, x] = 255
        Image.fromarray(mask).save(path, "PNG")
    source = load()
    assert source.caption == "box masks, 2 of 15 classes" and any(
        "Box masks" in line for line in source.report
    )
    ring = np.ones((4, 5, 5), bool)
    ring[:, 2, 2] = False
    assert not are_boxes(ring) and are_boxes(~np.zeros((4, 5, 5), bool))


# ---- The authors' ranking ------------------------------------------------------------------------


@pytest.mark.parametrize("strong_first", [True, False])
def test_the_authors_ranking_makes_the_groups_of_the_start(folder, strong_first):
    plain = load()
    ranking = {}
    for name in NAMES:
        wnid = WNIDS[name]
        # image 0 is not ranked
        order = sorted(range(1, N["train"]), key=lambda i: bool(i % 4) != strong_first)
        ranking[wnid] = [f"/far/away/train/{wnid}/{wnid}_{i:02}.JPEG" for i in order]
    (folder / "masks" / "paths_by_rank2.pkl").write_bytes(pickle.dumps(ranking))
    source = load()
    assert (
        source.checksum != plain.checksum
        and (load(ranks="never").train.group == plain.train.group).all()
    )
    assert (source.test.group == plain.test.group).all()
    assert "2 that it lacks are grouped like test images" in source.report[-1]
    other_ground = source.train.group.reshape(2, 50)[:, 4::4]
    assert (other_ground == WEAK).all() and (source.train.group == STRONG).mean() == pytest.approx(
        0.5, abs=0.03
    )


def test_a_ranking_that_could_run_code_is_refused(folder):
    (folder / "masks" / "paths_by_rank2.pkl").write_bytes(pickle.dumps({"a": hashlib.sha256}))
    with pytest.raises(
        ValueError,
        match=r"is not the authors' ranking, .*: it holds _hashlib.openssl_sha256, and only lists",
    ):
        load()


# ---- Bad input -----------------------------------------------------------------------------------


def refused(sentence, error=ValueError, **options):
    with pytest.raises(error, match=sentence) as caught:
        load(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"classes": "snorkel, n00000001"},
            "unknown class or wnid 'n00000001' of Hard ImageNet; known: howler monkey, ",
        ),
        ({"classes": "snorkel"}, "classes must be two or more different ones; got 'snorkel'"),
        ({"classes": "snorkel, n04251144"}, "classes must be two or more different ones"),
        ({"size": 18}, r"size must be a multiple of 4 in 16..512; got 18"),
        (
            {"instruments": 21},
            "instruments must be an even number of images of each class, at least 20; got 21",
        ),
        (
            {"instruments": 60},
            "60 images of each class are set aside as instruments, but one class has 50",
        ),
        ({"damaged": "ignore"}, "unknown damaged 'ignore'; known: stop, skip"),
        ({"ranks": "yes"}, "unknown ranks 'yes'; known: auto, never"),
    ],
)
def test_bad_options(folder, options, sentence):
    refused(sentence, **options)


def test_a_wrong_folder(folder, capsys):
    refused(
        "there is no folder .*nowhere.train with images; what belongs there: python -m biasstudy "
        "fetch hard-imagenet",
        FileNotFoundError,
        images="nowhere",
    )
    refused(
        "no folder .*n04356056 for the class 'sunglasses'; there: snorkel, volleyball",
        FileNotFoundError,
        classes="sunglasses, snorkel",
    )


def test_masks_that_do_not_fit(folder):
    image_of(folder).unlink()
    refused(
        "1 of 100 masks in .*train have no image, first n04251144_n04251144_03.JPEG; get the "
        "images, or leave"
    )
    assert len(load(damaged="skip").train) == 99
    stray = folder / "masks" / "val" / "n00000001_x.JPEG"
    stray.write_bytes(b"")
    refused(
        "is not named <wnid>_<file> with the wnid of one of the 15 classes; got wnid 'n00000001'",
        damaged="skip",
    )
    stray.unlink()
    for path in (folder / "masks" / "val").iterdir():
        path.unlink()
    refused(
        "there is no mask at all in .*val; they come from its authors",
        FileNotFoundError,
        damaged="skip",
    )


def test_damaged_images_are_named_and_counted(folder):
    for i in (3, 7):
        path = image_of(folder, i=i)
        path.write_bytes(path.read_bytes()[:200])
    mask_of(folder, "train", "volleyball").write_bytes(b"no picture")
    refused(
        r"3 of 100 photographs with masks in train cannot be read, first "
        r"n04251144/n04251144_03.JPEG \(the photograph: .+\); replace them"
    )
    source = load(damaged="skip")
    assert len(source.train) == 97 and "left out: 3 damaged." in source.report[0]
    for i in (3, 7):
        image_of(folder, i=i).unlink()
        mask_of(folder, i=i).unlink()
    mask_of(folder, "train", "volleyball").write_bytes(b"no picture")
    refused(r"1 of 98 photographs with masks in train cannot be read, first .+ \(the mask: .+\)")


def test_an_image_and_a_mask_of_other_shapes(folder):
    Image.fromarray(np.full((24, 20), 255, np.uint8)).save(mask_of(folder), "PNG")
    refused(
        "train/n04251144/n04251144_03.JPEG: image and mask must have the same shape; got 24 x 20 "
        "and 20 x 24 pixels"
    )


def test_fetch_says_what_to_get_and_checks_the_layout(folder, capsys):
    mask_of(folder).unlink()
    assert main(["fetch", "hard-imagenet"]) == 0
    said = capsys.readouterr().out
    assert (
        all(wnid in said for wnid in WNIDS.values())
        and "image-net.org" in said
        and "mmoayeri" in said
    )
    assert (
        "2 of 15 classes (snorkel, volleyball): train 100 photographs, 99 masks (1 without a mask"
        in said
    )
    (folder / "images").rename(folder / "pictures")
    assert main(["fetch", "hard-imagenet"]) == 2
    out, error = capsys.readouterr()
    assert (
        "from https://image-net.org" in out
        and "there is no folder" in error
        and error.count("\n") == 1
    )


# ---- Cues, and what is drawn ---------------------------------------------------------------------


def test_the_cue_classifier_never_sees_the_object():
    rng = np.random.default_rng(0)
    images, mask = (
        rng.integers(0, 256, (5, 3, 16, 16)).astype(np.uint8),
        np.zeros((5, 16, 16), bool),
    )
    mask[:, 4:9, 3] = mask[:, 6, 3:12] = True
    changed = images.copy()
    changed[:, :, 4:9, 3:12] = rng.integers(0, 256, (5, 3, 5, 9))
    assert (surroundings(images, mask) == surroundings(changed, mask)).all(), (
        "nothing inside the box counts"
    )
    changed[:, :, 0, 0] ^= 255
    assert (surroundings(images, mask) != surroundings(changed, mask)).any(1).all()
    assert np.isfinite(surroundings(images, np.ones_like(mask))).all()


def test_half_of_the_instruments_of_each_class_have_a_strong_cue():
    source = DATASETS["standin-hard"].target()
    aside = source.set_aside
    assert len(np.unique(aside)) == len(aside) == source.n_instruments == 800
    assert (source.train[aside].counts(4, 2) == 100).all()


def test_the_groups_of_the_standin_are_the_grounds_that_were_drawn():
    from biasstudy.data.datasets.standin_hard import N_INSTRUMENTS, _drawn

    train, test = (_drawn(part, n, 0.5) for part, n in (("train", 300), ("test", 120)))
    cues = cues_of(train[:3], test[:3], N_INSTRUMENTS, "x")
    assert cues.accuracy == pytest.approx(0.5, abs=0.1), (
        "right where the ground agrees, wrong elsewhere"
    )
    for (_, _, label, agrees), strength in ((train, cues.train), (test, cues.test)):
        assert ((cues.groups(strength, label) == STRONG) == agrees).mean() > 0.95
    with pytest.raises(ValueError, match=r"agreement must be in \(0, 1\); got 1.5"):
        DATASETS["standin-hard"].target(agreement=1.5)


def test_standin_masks_are_exact():
    source = DATASETS["standin-hard"].target()
    image, mask = source.train.images[:200].astype(int), source.train.mask[:200]
    level = np.array(
        [[x[:, m].mean(1), x[:, ~m].mean(1)] for x, m in zip(image, mask, strict=True)]
    )
    spread = np.array([np.ptp(x[:, m], axis=1).max() for x, m in zip(image, mask, strict=True)])
    assert (spread <= 33).all(), "one colour and noise inside the mask"
    assert (np.abs(level[:, 0] - level[:, 1]).max(1) > 30).mean() > 0.95


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0])
def test_a_biased_start_has_the_share_of_strong_cues_that_bias_sets(bias):
    e = tiny(dataset="standin-hard", start="biased", bias=bias, n_real=80, n_test=16, ratio=0.5)
    real = real_data(e.to_arm("real"))
    assert (real.counts[:, STRONG] == round(20 * (bias + (1 - bias) / 2))).all() and (
        real.counts.sum(1) == 20
    ).all()
    assert (real.favoured == [1, -1]).all()
    source = real.dataset
    taken = [real.start.load(), *(real.reserve(t).load() for t in range(e.n_generations))]
    units = np.concatenate([part.unit for part in taken])
    assert len(np.unique(units)) == len(units) and not np.isin(units, source.set_aside).any(), (
        "instruments are nobody else's"
    )
    for part in real.instruments.values():
        images = part.load()
        assert np.isin(images.unit, source.set_aside).all() and np.ptp(images.counts(4, 2)) == 0
    assert real.test.load().mask.shape == (16, 32, 32)


def test_instruments_set_aside_are_not_free_for_the_start():
    with pytest.raises(
        ValueError, match=r"class 'ring', group 'strong cue' has 3.., 100 of them instruments"
    ):
        real_data(tiny(dataset="standin-hard", n_real=1700, n_test=16))
