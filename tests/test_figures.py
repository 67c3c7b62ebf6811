import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure as Canvas
from PIL import Image

from benchmark import artifacts, pictures, plugins
from benchmark.figures import _style
from benchmark.figures._figure import Figure
from benchmark.figures._style import PAGE, looks
from benchmark.figures._tiles import tiles
from benchmark.figures._tradeoff import compared
from benchmark.figures.image_bases import contrast
from benchmark.methods.ours import Ours
from benchmark.stored_sets import MissingSetError, StoredSets, spread

STEPS = [0, 5, 10, 15]
LOSSES = [4.0, 3.0, 2.0, 1.0]
VIEWS = ("rot90", "rot180")
KEYS = {("random", 0): "a0", ("random", 1): "a1", ("ours", 0): "b0", ("ours", 1): "b1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Make a store of the sets of two methods and two seeds: four images of 8x8 pixels."""
    root = tmp_path_factory.mktemp("store")
    stream = torch.Generator().manual_seed(0)
    for (label, seed), key in KEYS.items():
        header = {"method": label, "settings": {}, "seed": seed, "shape": [3, 8, 8], "history": {}}
        if label == "random":
            images = torch.randint(256, (4, 3, 8, 8), generator=stream).to(torch.uint8)
            tensors = {"images": images, "targets": torch.rand(4, 5, generator=stream)}
        else:
            header["settings"] = {"augmentations": list(VIEWS), "approximation": False}
            tensors = {
                "image_bases": torch.randn(3, 3, 4, 4, generator=stream),
                "image_mean": torch.rand(3, 4, 4, generator=stream),
                "image_coefficients": torch.randn(4, 3, generator=stream),
                "target_bases": torch.randn(2, 5, generator=stream),
                "target_mean": torch.rand(5, generator=stream),
                "target_coefficients": torch.randn(3, 4, 2, generator=stream),
            }
            header["history"] = {
                "outer steps": [
                    {"step": step, "outer_loss": loss + seed}
                    for step, loss in zip(STEPS, LOSSES, strict=True)
                ],
                "approximation networks": [
                    {"step": 0, "relative_error_rot90": 0.5, "relative_error_rot180": 0.25 + seed}
                ],
            }
        artifacts.write(root / "distilled" / key / "distilled.safetensors", tensors, header)
    return root


@pytest.fixture(scope="module")
def grid(new_row):
    """Make rows of two methods and two controls, two students, two seeds, two numbers of labels."""

    def row(label, student, seed, amount):
        learnt = label == "ours"
        losses = {
            "outer_loss": [4.0, 1.0],
            **{f"relative_error_{view}": [1.0, 0.3] for view in VIEWS},
        }
        nothing = label in ("untrained", "teacher")
        return new_row(
            label=label,
            student="teacher" if label == "teacher" else student,
            seed=seed,
            labels_per_class=amount,
            probe="fair",
            N=None if nothing else 100,
            value=50.0 + 10 * learnt + seed,
            draws=[50.0 + 10 * learnt + seed],
            distilled=KEYS.get((label, seed)),
            storage={"bases": [96, 384]} if learnt else {},
            num_images=None if nothing else 4,
            num_bytes=None if nothing else 4000 if learnt else 1000,
            losses=losses if learnt else {},
        )

    return [
        row(label, student, seed, amount)
        for label in ("untrained", "random", "ours", "teacher")
        for student in ("convnet", "vit")
        for seed in (0, 1)
        for amount in (None, 10)
        if label != "teacher" or student == "convnet"
    ]


NAMES = {
    "accuracy-bytes",
    "accuracy-seconds",
    "approximation",
    "convergence",
    "distilled-images",
    "image-bases",
}


@pytest.fixture(scope="module")
def drawn(grid, store, tmp_path_factory):
    """Draw every figure once."""
    folder = tmp_path_factory.mktemp("report")
    written, left_out = pictures.write(folder, pictures.figures(grid, StoredSets(store)))
    assert left_out == {}
    return written


def test_every_figure_becomes_a_small_picture(drawn):
    assert {picture.figure.name for picture in drawn} == NAMES == set(plugins.names("figures"))
    for picture in drawn:
        with Image.open(picture.file) as image:
            assert image.width in (680, 1400)
            assert "Software" not in image.info and "Creation Time" not in image.info
    assert sum(picture.file.stat().st_size for picture in drawn) < 1_500_000


def test_equal_figures_are_equal_files(grid, store, drawn):
    before = {picture.figure.name: picture for picture in drawn}
    for figure in pictures.figures(grid, StoredSets(store)):
        if figure.sets:
            again, picture = figure.render(), before[figure.name]
            assert again.png == picture.file.read_bytes() and again.svg == picture.svg


def test_plots_are_elements_of_a_page_with_ids_of_their_own(drawn):
    seen = set()
    for picture in drawn:
        svg = picture.svg
        root = ElementTree.fromstring(svg)
        ids = {element.get("id") for element in root.iter() if element.get("id")}
        assert ids and not ids & seen
        referred = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', svg)
        assert {a or b for a, b in referred} <= ids
        assert "currentColor" in svg and _style.INK not in svg
        seen |= ids


def test_nothing_is_drawn_of_no_rows_and_of_rows_without_sets(new_row, store):
    assert pictures.figures([], StoredSets(store)) == []
    lone = pictures.figures([new_row(distilled=None)], StoredSets(store))
    assert {figure.name for figure in lone} == {"accuracy-bytes", "accuracy-seconds"}
    assert all(figure.render().png for figure in lone)


def test_one_row_of_a_set_is_enough(new_row, store):
    row = new_row(label="random", distilled="a0", num_images=4, losses={})
    names = {figure.name for figure in pictures.figures([row], StoredSets(store))}
    assert names == {"accuracy-bytes", "accuracy-seconds", "distilled-images"}


def test_a_figure_without_its_sets_is_left_out_or_kept_from_the_run_itself(grid, drawn, tmp_path):
    folder, before = drawn[0].file.parents[1], contents(drawn)
    for root in (None, tmp_path):
        of_sets = [figure for figure in pictures.figures(grid, StoredSets(root)) if figure.sets]
        kept, left_out = pictures.write(folder, of_sets)
        assert contents(drawn) == before and left_out == {}
        assert [picture.file for picture in kept] == [p.file for p in drawn if p.figure.sets]
    others = [replace(row, distilled=row.distilled and row.distilled + "0") for row in grid]
    of_others = [figure for figure in pictures.figures(others, StoredSets(tmp_path)) if figure.sets]
    kept, left_out = pictures.write(folder, of_others)
    assert kept == [] and set(left_out) == {figure.title for figure in of_others}
    assert left_out["Distilled images, N = 100"] == f"distilled set a00: not in {tmp_path}"
    (drawn[0].file.parent / "distilled-images.png").write_bytes(b"no picture")
    _, left_out = pictures.write(folder, of_sets)
    assert list(left_out) == ["Distilled images, N = 100"]


def contents(drawn):
    return {picture.file: picture.file.read_bytes() for picture in drawn}


@pytest.mark.parametrize("key", [None, "", "../a0", "a0/..", "no hex", "ff"])
def test_a_key_reaches_nothing_but_its_set(key, store):
    with pytest.raises(MissingSetError, match=r"^distilled set .*: not in "):
        StoredSets(store).read(key)


def test_a_damaged_or_foreign_set_is_told_in_one_line(store, tmp_path):
    sets = StoredSets(tmp_path)
    for key, header in {
        "01": {"method": "nobody", "settings": {}, "shape": [3, 8, 8]},
        "02": {"method": "random", "settings": {"steps": 1}, "shape": [3, 8, 8]},
        "03": {"method": "random", "settings": {}},
        "04": {"method": "random", "settings": [], "shape": [3, 8]},
    }.items():
        file = tmp_path / "distilled" / key / "distilled.safetensors"
        artifacts.write(file, {"images": torch.zeros(1)}, header)
        with pytest.raises(MissingSetError, match=f"^distilled set {key}: cannot be decoded") as e:
            sets.read(key)
        assert len(str(e.value).splitlines()) == 1
        with pytest.raises(MissingSetError, match="has no history"):
            sets.history(key)
    file.write_bytes(b"nothing")
    with pytest.raises(MissingSetError, match="not a whole safetensors file"):
        sets.read("04")


def test_images_are_those_that_a_student_sees(store):
    sets = StoredSets(store)
    tensors, _ = artifacts.read(store / "distilled" / "a1" / "distilled.safetensors")
    assert torch.equal(sets.read("a1").images(9), tensors["images"] / 255)
    assert torch.equal(sets.read("a1").images(2), tensors["images"][[0, 2]] / 255)
    stored = sets.read("b0")
    assert stored.method == Ours(augmentations=VIEWS, approximation=False)
    small = stored.tensors["image_mean"] + torch.einsum(
        "mu,uchw->mchw", stored.tensors["image_coefficients"], stored.tensors["image_bases"]
    )
    whole = torch.nn.functional.interpolate(small, size=(8, 8), mode="bilinear")
    assert torch.allclose(stored.images(9), whole.clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize(("total", "most"), [(0, 3), (2, 3), (3, 3), (7, 3), (852, 18)])
def test_positions_are_spread_evenly(total, most):
    chosen = spread(total, most).tolist()
    assert len(chosen) == min(total, most)
    assert sorted(set(chosen)) == chosen and all(0 <= position < total for position in chosen)
    gaps = {b - a for a, b in pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_tiles_hold_every_image_in_its_place():
    images = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    whole = tiles(images, columns=3)
    assert whole.shape == (2 * 13 - 1, 3 * 13 - 1, 4)
    for place, image in enumerate(images):
        top, left = 13 * (place // 3), 13 * (place % 3)
        tile = whole[top : top + 12, left : left + 12]
        expected = np.rint(255 * image[0].numpy())
        assert all(np.array_equal(tile[..., channel], expected) for channel in range(3))
        assert (tile[..., 3] == 255).all()
    assert (whole[12] == 0).all() and (whole[13:, 26:] == 0).all() and (whole[:, 12] == 0).all()


def test_contrast_keeps_zero_grey_and_reaches_an_end():
    bases = torch.tensor([[[[0.0, 2.0, -1.0]]], [[[0.0, -0.1, 0.0]]], [[[0.0, 0.0, 0.0]]]])
    expected = torch.tensor([[[[0.5, 1.0, 0.25]]], [[[0.5, 0.0, 0.5]]], [[[0.5, 0.5, 0.5]]]])
    assert torch.equal(contrast(bases), expected)


def lines_of(grid, store, name):
    (figure,) = (f for f in pictures.figures(grid, StoredSets(store)) if f.name == name)
    return figure.draw().axes


def test_convergence_shows_every_seed_and_their_mean(grid, store):
    (frame,) = lines_of(grid, store, "convergence")
    assert frame.get_title(loc="left") or frame.get_title()
    curves = [line.get_ydata() for line in frame.lines]
    assert [list(line.get_xdata()) for line in frame.lines] == [STEPS] * 3
    assert np.allclose(curves[2], (np.array(curves[0]) + np.array(curves[1])) / 2)
    assert np.allclose(curves[0], LOSSES)


def test_bars_are_means_over_seeds(grid, store):
    (frame,) = lines_of(grid, store, "approximation")
    assert [label.get_text() for label in frame.get_xticklabels()] == list(VIEWS)
    assert [bar.get_height() for bar in frame.patches] == [0.5, 0.75]


def test_accuracy_stands_at_its_mean_cost_with_its_interval(grid):
    one, few, every, every_few = compared(grid, lambda row: row.num_bytes)
    assert [panel.title for panel in (one, every_few)] == [
        "convnet: fair probe, all labels",
        "mean of 2 students: fair probe, 10 labels a class",
    ]
    for panel in (one, few, every, every_few):
        places = {point.label: (point.cost, point.accuracy.mean) for point in panel.points}
        assert places == {
            "untrained": (None, 50.5),
            "random": (1000.0, 50.5),
            "ours": (4000.0, 60.5),
            "teacher": (None, 50.5),
        }
    # t(0.975, 1) s / sqrt(2) of the values 60 and 61
    assert one.points[2].accuracy.half_width == pytest.approx(12.7062 * 0.7071068 / 2**0.5, 1e-4)


def test_methods_that_lack_a_student_stay_out_of_the_mean_over_students(grid):
    rows = [row for row in grid if (row.label, row.student) != ("random", "vit")]
    panels = compared(rows, lambda row: row.num_bytes)
    assert [len(panel.points) for panel in panels] == [4, 4, 3, 3]


def test_panels_without_any_cost_are_left_out(grid):
    rows = [row for row in grid if row.labels_per_class is None or row.num_bytes is None]
    titles = [panel.title for panel in compared(rows, lambda row: row.num_bytes)]
    assert titles == [
        "convnet: fair probe, all labels",
        "mean of 2 students: fair probe, all labels",
    ]
    rows = [row for row in grid if row.num_bytes is None]
    assert compared(rows, lambda row: row.num_bytes) == []


def test_marks_stand_near_their_cost_and_not_on_each_other(grid):
    rows = [replace(row, num_bytes=row.num_bytes and 1000) for row in grid]
    for found in (grid, rows):
        frame, *_ = lines_of(found, None, "accuracy-bytes")
        places = sorted(bar.lines[0].get_xdata()[0] for bar in frame.containers)
        low, high = np.log(frame.get_xlim())
        shown = (np.log(places) - low) / (high - low)
        assert shown[1] - shown[0] > 0.01
        costs = sorted({row.num_bytes for row in found if row.num_bytes})
        exact = (np.log([costs[0], costs[-1]]) - low) / (high - low)
        assert np.abs(shown - exact).max() < 0.02


def test_looks_are_the_same_in_every_figure_and_never_twice_alike():
    every = looks(["untrained", "random", "dsa", "idm", "datm", "krr-st", "pca", "ours", "full"])
    assert looks(["ours"])["ours"] == every["ours"]
    assert len({(look.colour, look.marker, look.line) for look in every.values()}) == len(every)
    new = looks(["mine", "ours", "yours"])
    assert new["mine"] != new["yours"] and new["mine"] not in every.values()


def test_names_are_text_whatever_signs_they_hold():
    def draw():
        canvas = Canvas(figsize=(PAGE, 1))
        canvas.text(0.5, 0.5, r"$\frac{$ _<&>")
        return canvas

    before = {name: value for name, value in rcParams.items() if name != "backend"}
    figure = Figure(name="odd", title="", alt="a] b\n[c", draw=draw)
    rendered = figure.render()
    assert ElementTree.fromstring(rendered.svg) is not None
    with Image.open(io.BytesIO(rendered.png)) as image:
        assert image.size == (1400, 200)
    assert {name: rcParams[name] for name in before} == before
    with rc_context({"figure.dpi": 33, "font.size": 30}):
        assert figure.render() == rendered


def test_markdown_names_the_file_and_its_alternative_text(tmp_path):
    figure = Figure(name="odd", title="Odd", notes="Note.", alt="a] b\n[c", draw=Canvas)
    picture = pictures.Picture(figure=figure, file=tmp_path / "figures" / "odd.png")
    assert picture.markdown() == "### Odd\n\n![a\\] b \\[c](figures/odd.png)\n\nNote."
