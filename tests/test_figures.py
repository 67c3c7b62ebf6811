import io
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure as Canvas
from PIL import Image

from benchmark import artifacts, plugins
from benchmark.cli import main
from benchmark.figures._tiles import tiles
from benchmark.figures._tradeoff import compared
from benchmark.figures.distilled_images import distilled_images
from benchmark.figures.image_bases import contrast
from benchmark.methods.ours import Ours
from benchmark.reporting import pictures, style
from benchmark.reporting.figure import Figure
from benchmark.reporting.stored_sets import MissingSetError, StoredSets, spread
from benchmark.reporting.style import COLUMN, looks
from benchmark.rows import write

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
    *("accuracy-bytes-fair-all", "accuracy-bytes-fair-10"),
    *("accuracy-seconds-fair-all", "accuracy-seconds-fair-10"),
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
    assert {picture.figure.name for picture in drawn} == NAMES
    for plugin in plugins.names("figures"):
        assert any(name.startswith(plugin) for name in NAMES)
    for picture in drawn:
        with Image.open(picture.file) as image:
            assert image.width == 660
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
        assert "currentColor" in svg and style.INK not in svg
        seen |= ids


TRADEOFFS = {"accuracy-bytes-paper-all", "accuracy-seconds-paper-all"}


def test_nothing_is_drawn_of_no_rows_and_of_rows_without_sets(new_row, store):
    assert pictures.figures([], StoredSets(store)) == []
    lone = pictures.figures([new_row(distilled=None)], StoredSets(store))
    assert {figure.name for figure in lone} == TRADEOFFS
    assert all(figure.render().png for figure in lone)


def test_one_row_of_a_set_is_enough(new_row, store):
    row = new_row(label="random", distilled="a0", num_images=4, losses={})
    names = {figure.name for figure in pictures.figures([row], StoredSets(store))}
    assert names == {*TRADEOFFS, "distilled-images"}


def test_real_images_are_not_shown(new_row, store):
    real = new_row(
        label="random", distilled="a0", num_images=4, losses={}, storage={"pixels": [48, 48]}
    )
    made = new_row(label="krr-st", distilled="a0", num_images=4, losses={})
    (figure,) = distilled_images([real, made], StoredSets(store))
    assert "krr-st" in figure.alt and "random" not in figure.alt
    assert distilled_images([real], StoredSets(store)) == []


def test_a_figure_without_its_sets_is_left_out_or_kept_from_the_run_itself(grid, drawn, tmp_path):
    folder, before = drawn[0].file.parents[1], contents(drawn)
    for roots in ((), (tmp_path,)):
        of_sets = [figure for figure in pictures.figures(grid, StoredSets(*roots)) if figure.sets]
        kept, left_out = pictures.write(folder, of_sets)
        assert contents(drawn) == before and left_out == {}
        assert [picture.file for picture in kept] == [p.file for p in drawn if p.figure.sets]
    others = [replace(row, distilled=row.distilled and row.distilled + "0") for row in grid]
    of_others = [figure for figure in pictures.figures(others, StoredSets(tmp_path)) if figure.sets]
    kept, left_out = pictures.write(folder, of_others)
    assert kept == [] and set(left_out) == {figure.title for figure in of_others}
    assert left_out["Distilled images, N = 100"] == f"distilled set a00: not in {tmp_path}"
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "figures" / "distilled-images.png").write_bytes(b"no picture")
    _, left_out = pictures.write(copy, of_sets)
    assert list(left_out) == ["Distilled images, N = 100"]


def test_pictures_beside_the_rows_are_copied_if_they_show_the_same_sets(grid, drawn, tmp_path):
    beside, before = drawn[0].file.parents[1], contents(drawn)
    of_sets = [figure for figure in pictures.figures(grid, StoredSets()) if figure.sets]
    copied, left_out = pictures.write(tmp_path, of_sets, beside=[tmp_path / "none", beside])
    assert left_out == {} and len(copied) == 4
    for picture in copied:
        assert picture.file.parent == tmp_path / "figures" and picture.svg is None
        assert picture.file.read_bytes() == before[beside / "figures" / picture.file.name]
    others = [replace(row, distilled=row.distilled and row.distilled + "0") for row in grid]
    of_others = [figure for figure in pictures.figures(others, StoredSets()) if figure.sets]
    assert pictures.write(tmp_path / "new", of_others, beside=[beside])[0] == []


def test_sets_may_be_in_several_stores(store, tmp_path):
    halves = [tmp_path / name for name in ("one", "other")]
    for half, keys in zip(halves, (("a0", "b0"), ("a1", "b1")), strict=True):
        for key in keys:
            shutil.copytree(store / "distilled" / key, half / "distilled" / key)
    (halves[1] / "distilled" / "a0").mkdir()
    (halves[1] / "distilled" / "a0" / "distilled.safetensors").write_bytes(b"damaged")
    whole, both = StoredSets(store), StoredSets(halves[1], halves[0])
    for key in KEYS.values():
        assert torch.equal(both.read(key).images(9), whole.read(key).images(9))
        assert both.history(key) == whole.history(key)
    with pytest.raises(MissingSetError, match=f"not in {halves[0]}, {halves[1]}$"):
        StoredSets(*halves).read("ff")


def test_a_merged_report_finds_sets_in_every_store_and_pictures_beside_its_rows(
    grid, store, drawn, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    beside = drawn[0].file.parents[1]
    write(beside / "rows.jsonl", [row for row in grid if row.labels_per_class is None])
    report = ("report", "--format", "markdown", "--output")
    stores = ["--store", "nowhere", str(store)]
    for name, words in (("one", []), ("other", stores)):
        assert main([*report, name, "--rows", str(beside / "rows.jsonl"), *words]) == 0
        assert {file.stem for file in (tmp_path / name / "figures").iterdir()} == {
            figure for figure in NAMES if not figure.endswith("-10")
        }
        assert "could not be drawn" not in (tmp_path / name / "report.md").read_text()
    assert "Cross-architecture" in capsys.readouterr().out


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
    sets = StoredSets(*([store] if store else []))
    (figure,) = (f for f in pictures.figures(grid, sets) if f.name == name)
    with rc_context({**style.STYLE}):
        return figure.draw().axes


def test_convergence_shows_every_seed_and_their_mean(grid, store):
    (frame,) = lines_of(grid, store, "convergence")
    assert frame.get_title(loc="left") or frame.get_title()
    curves = [line.get_ydata() for line in frame.lines]
    assert [list(line.get_xdata()) for line in frame.lines] == [STEPS] * 3
    assert np.allclose(curves[2], (np.array(curves[0]) + np.array(curves[1])) / 2)
    assert np.allclose(curves[0], LOSSES)


def test_errors_are_means_over_seeds_beside_every_seed(grid, store):
    (frame,) = lines_of(grid, store, "approximation")
    assert [label.get_text() for label in frame.get_xticklabels()] == list(VIEWS)
    means, *seeds, level = frame.lines
    assert list(means.get_ydata()) == [0.5, 0.75]
    assert [list(line.get_ydata()) for line in seeds] == [[0.5, 0.5], [0.25, 1.25]]
    assert list(level.get_ydata()) == [1.0, 1.0]


def test_accuracy_stands_at_its_mean_cost_with_its_interval(grid):
    found = compared(grid, lambda row: row.num_bytes)
    assert list(found) == [("fair", None), ("fair", 10)]
    for panels in found.values():
        assert [panel.title for panel in panels] == ["convnet", "mean of 2 students, N = 100"]
        for panel in panels:
            places = {point.label: (point.cost, point.accuracy.mean) for point in panel.points}
            assert places == {
                "untrained": (None, 50.5),
                "random": (1000.0, 50.5),
                "ours": (4000.0, 60.5),
                "teacher": (None, 50.5),
            }
    # t(0.975, 1) s / sqrt(2) of the values 60 and 61
    half_width = found["fair", None][0].points[2].accuracy.half_width
    assert half_width == pytest.approx(12.7062 * 0.7071068 / 2**0.5, 1e-4)


def test_methods_that_lack_a_student_stay_out_of_the_mean_over_students(grid):
    rows = [row for row in grid if (row.label, row.student) != ("random", "vit")]
    for one, every in compared(rows, lambda row: row.num_bytes).values():
        assert (len(one.points), len(every.points)) == (4, 3)


def test_a_number_at_another_budget_does_not_complete_the_mean_over_students(grid):
    budget = max(row.N for row in grid if row.label == "random")
    rows = [
        replace(row, N=budget + 1) if (row.label, row.student) == ("random", "vit") else row
        for row in grid
    ]
    for _, every in compared(rows, lambda row: row.num_bytes).values():
        assert "random" not in {point.label for point in every.points}


def test_panels_without_any_cost_are_left_out(grid):
    rows = [row for row in grid if row.labels_per_class is None or row.num_bytes is None]
    found = compared(rows, lambda row: row.num_bytes)
    assert {protocol: len(panels) for protocol, panels in found.items()} == {("fair", None): 2}
    rows = [row for row in grid if row.num_bytes is None]
    assert compared(rows, lambda row: row.num_bytes) == {}


def test_marks_stand_at_their_cost_however_many_meet_there(grid, crowd):
    """Marks are open, bars thin: nothing needs to be moved to be seen."""
    alike = [replace(row, num_bytes=row.num_bytes and 1000) for row in crowd]
    for rows, name, cost in (
        (grid, "accuracy-bytes-fair-all", lambda row: row.num_bytes),
        (alike, "accuracy-bytes-paper-all", lambda row: row.num_bytes),
        (crowd, "accuracy-bytes-paper-all", lambda row: row.num_bytes),
        (crowd, "accuracy-seconds-paper-all", lambda row: row.num_bytes and row.distill_seconds),
    ):
        first, *_ = lines_of(rows, None, name)
        assert first.containers
        for bar in first.containers:
            mine = [
                row
                for row in rows
                if (row.label, row.student, row.labels_per_class)
                == (bar.get_label(), "convnet", None)
            ]
            budgets = {row.N for row in mine}
            expected = sorted(np.mean([cost(row) for row in mine if row.N == N]) for N in budgets)
            marks = bar.lines[0]
            assert list(marks.get_xdata()) == pytest.approx(expected, rel=1e-12)
            assert marks.get_markerfacecolor() == "none"


METHODS = ("random", "dsa", "idm", "datm", "krr-st", "pca", "ours")


@pytest.fixture(scope="module")
def crowd(new_row):
    """Make rows of six methods and three controls at five budgets of nearly equal bytes."""
    return [
        new_row(
            label=label,
            N=N if label in METHODS else None,
            student="teacher" if label == "teacher" else student,
            seed=seed,
            value=(value := 30.0 + 3 * place + 5 * np.log10(N) + seed),
            draws=[value],
            num_bytes=int(12_800 * N * (1 + place / 50)) if label in METHODS else None,
            distill_seconds=0.001 * 10.0**place * N,
            distilled=None,
        )
        for place, label in enumerate(("untrained", *METHODS, "teacher"))
        for N in ((10, 20, 50, 100, 200) if label in METHODS else (10,))
        for student in ("convnet", "vit")
        for seed in (0, 1, 2)
        if label != "teacher" or student == "convnet"
    ]


def texts(canvas):
    """Return what is written on a figure, as its words and boxes in inches."""
    canvas.draw_without_rendering()
    inside = []
    for frame in canvas.axes:
        for axis in (frame.xaxis, frame.yaxis) if frame.axison else ():
            low, high = sorted(axis.get_view_interval())
            inside += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
            inside.append(axis.label)
        inside += [frame._left_title, *frame.texts]
    inside += [text for legend in canvas.legends for text in legend.get_texts()]
    seen = [text for text in inside if text.get_visible() and text.get_text()]
    return [
        (text, text.get_window_extent().transformed(canvas.dpi_scale_trans.inverted()))
        for text in seen
    ]


def test_all_words_can_be_read_in_a_column(grid, crowd, store):
    found = [f for rows in (grid, crowd) for f in pictures.figures(rows, StoredSets(store))]
    assert len(found) == len(NAMES) + len(TRADEOFFS)
    for figure in found:
        with rc_context({**style.STYLE}):
            canvas = figure.draw()
            words = texts(canvas)
        width, height = canvas.get_size_inches()
        assert width == COLUMN and height < 5 and words
        for text, box in words:
            assert text.get_fontsize() >= 7
            assert box.x0 >= -0.01 and box.x1 <= width + 0.01, (figure.name, text)
            assert box.y0 >= -0.01 and box.y1 <= height + 0.01, (figure.name, text)
        for (one, box), (other, its) in combinations(words, 2):
            assert not box.overlaps(its), (figure.name, one, other)
        for legend in canvas.legends:
            box = legend.get_window_extent()
            assert not any(box.overlaps(frame.get_tightbbox()) for frame in canvas.axes)


def test_marks_of_a_crowd_stand_on_the_axis_in_order_of_their_budgets(crowd):
    frame, _ = lines_of(crowd, None, "accuracy-bytes-paper-all")
    low, high = frame.get_xlim()
    assert len(frame.containers) == len(METHODS)
    for bar in frame.containers:
        places = list(bar.lines[0].get_xdata())
        assert len(places) == 5 and low < places[0] and places[-1] < high
        assert places == sorted(places)


def test_round_numbers_stand_on_every_logarithmic_axis():
    stream, frame = np.random.default_rng(0), Canvas().add_subplot()
    for _ in range(60):
        low, decades = 10 ** stream.uniform(-6, 9), stream.uniform(0.23, 12)
        style.logarithmic(frame, "x", (low, low * 10**decades), unit="B")
        ticks = frame.get_xticks()
        assert 2 <= len(ticks) <= 6
        assert low <= min(ticks) and max(ticks) <= low * 10**decades
        first_digits = {f"{tick:.6e}"[:3] for tick in ticks}
        assert first_digits <= {"1.0", "1.5", "2.0", "3.0", "4.0", "5.0", "6.0", "8.0"}


def test_looks_differ_without_colour():
    every = looks(
        ["untrained", "random", "random-labels", "random-bytes", *METHODS, "full", "teacher"]
    )
    assert looks(["ours"])["ours"] == every["ours"]
    others = looks([f"mine {number}" for number in range(12)])
    found = [*every.values(), *others.values()]
    found.remove(every["random"])
    assert len({(look.marker, look.line) for look in found}) == len(found) == 23


def test_a_method_looks_the_same_in_every_figure_of_a_report(grid, store):
    new = {"random": "mine", "ours": "yours"}
    rows = [
        replace(row, label=new.get(row.label, row.label), method=new.get(row.method, row.method))
        for row in grid
    ]
    frame, *_ = lines_of(rows, store, "accuracy-bytes-fair-all")
    colours = {bar.get_label(): bar.lines[0].get_color() for bar in frame.containers}
    (alone,) = lines_of(rows, store, "convergence")
    assert alone.get_title(loc="left") == "yours"
    (errors,) = lines_of(rows, store, "approximation")
    assert alone.lines[-1].get_color() == errors.lines[0].get_color() == colours["yours"]
    assert colours["mine"] != colours["yours"]


ODD = {
    "no bytes": {"num_bytes": 0},
    "no time": {"distill_seconds": 0.0},
    "nothing stored": {"num_bytes": None, "num_numbers": None, "storage": {}},
    "no images": {"num_images": 0},
    "no set": {"distilled": None},
    "another set": {"distilled": "../../etc/passwd"},
    "no budget": {"N": None},
    "no student but the teacher": {"student": "teacher"},
    "equal": {"value": 0.0, "draws": [0.0]},
    "a variant": {"label": "ours: a variant"},
    "a long name": {"label": "m" * 300, "method": "m" * 300, "student": "s" * 300},
    "any script": {"label": "方法\n\u2028<b>", "method": "方法\n\u2028<b>"},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("alone", [True, False])
def test_odd_rows_are_drawn_or_left_out(odd, alone, grid, store):
    mine = [row for row in grid if row.label == "ours"]
    rows = [replace(row, **ODD[odd]) for row in (mine[:1] if alone else mine)]
    rows += [] if alone else [row for row in grid if row.label == "random"]
    for figure in pictures.figures(rows, StoredSets(store)):
        assert figure.title and figure.alt
        try:
            with rc_context({**style.STYLE}):
                canvas = figure.draw()
        except MissingSetError as error:
            assert figure.sets and len(str(error).splitlines()) == 1
        else:
            assert canvas.get_size_inches()[0] == COLUMN and canvas.axes
            if odd in ("a long name", "any script") and "seconds" not in figure.name:
                assert figure.render().png


@pytest.mark.parametrize(
    ("tensors", "history"),
    [
        ({"images": torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "targets": torch.zeros(0, 5)}, {}),
        ({"images": torch.zeros(4, 2, 8, 8, dtype=torch.uint8), "targets": torch.zeros(4, 5)}, {}),
        ({"nothing": torch.zeros(1)}, {"outer steps": []}),
        ({"image_bases": torch.zeros(3)}, {"outer steps": 1, "approximation networks": [1]}),
        ({"image_bases": torch.zeros(0, 3, 4, 4)}, {"outer steps": [{"outer_loss": "much"}]}),
        (
            {"image_bases": torch.zeros(2, 5, 4, 4)},
            {"outer steps": [{"outer_loss": 1.0}], "approximation networks": [{"step": 1.0}]},
        ),
    ],
)
def test_odd_sets_are_told_in_one_line(tensors, history, grid, tmp_path):
    header = {"method": "random", "settings": {}, "shape": [3, 8, 8], "history": history}
    for key in KEYS.values():
        artifacts.write(tmp_path / "distilled" / key / "distilled.safetensors", tensors, header)
    of_sets = [figure for figure in pictures.figures(grid, StoredSets(tmp_path)) if figure.sets]
    drawn, left_out = pictures.write(tmp_path, of_sets)
    assert drawn == [] and len(left_out) == 4
    assert all(len(reason.splitlines()) == 1 and "set" in reason for reason in left_out.values())


def test_a_single_step_is_seen_and_many_are_thinned(grid, tmp_path):
    rows = [row for row in grid if row.label == "ours"]
    for number, expected in ((1, [1.0]), (1000, [1.0 + 10 * place + 4.5 for place in range(100)])):
        points = [{"step": step, "outer_loss": 1.0 + step} for step in range(number)]
        header = {"method": "ours", "settings": {}, "history": {"outer steps": points}}
        for key in ("b0", "b1"):
            file = tmp_path / "distilled" / key / "distilled.safetensors"
            artifacts.write(file, {"x": torch.zeros(1)}, header)
        (frame,) = lines_of(rows, tmp_path, "convergence")
        mean = frame.lines[-1]
        assert mean.get_ydata() == pytest.approx(expected)
        assert mean.get_xdata() == pytest.approx([value - 1.0 for value in expected])
        assert (mean.get_marker() == "o") == (number == 1)


def test_names_are_text_whatever_signs_they_hold():
    def draw():
        canvas = Canvas(figsize=(COLUMN, 1))
        canvas.text(0.5, 0.5, r"$\frac{$ _<&>")
        return canvas

    before = {name: value for name, value in rcParams.items() if name != "backend"}
    figure = Figure(name="odd", title="", alt="a] b\n[c", draw=draw)
    rendered = figure.render()
    assert ElementTree.fromstring(rendered.svg) is not None
    with Image.open(io.BytesIO(rendered.png)) as image:
        assert image.size == (660, 200)
    assert {name: rcParams[name] for name in before} == before
    with rc_context({"figure.dpi": 33, "font.size": 30}):
        assert figure.render() == rendered


def test_markdown_names_the_file_and_its_alternative_text(tmp_path):
    figure = Figure(name="odd", title="Odd", notes="Note.", alt="a] b\n[c", draw=Canvas)
    picture = pictures.Picture(figure=figure, file=tmp_path / "figures" / "odd.png")
    assert picture.markdown() == "### Odd\n\n![a\\] b \\[c](figures/odd.png)\n\nNote."


def test_a_figure_s_words_are_text_in_markdown(tmp_path):
    figure = Figure(
        name="odd", title="<i>\n# a", notes="on <img src=x>\nof `N`", alt="<b>", draw=Canvas
    )
    picture = pictures.Picture(figure=figure, file=tmp_path / "figures" / "odd.png")
    assert picture.markdown().split("\n\n") == [
        "### \\<i> # a",
        "![\\<b>](figures/odd.png)",
        "on \\<img src=x> of `N`",
    ]
