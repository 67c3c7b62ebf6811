import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmark import decoded as decoded_module
from benchmark import images as images_module
from benchmark.datasets import _records
from benchmark.datasets._folder import ImageFolder
from benchmark.datasets._records import Arrays
from benchmark.datasets.digits import Digits
from benchmark.images import (
    ShutSplitError,
    final_probe,
    find_dataset,
    load_splits,
    pixel_statistics,
)
from benchmark.spec import LabelledImages, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six training and three test images of random pixels in three classes."""
    stream = np.random.default_rng(0)
    for split, per_class in (("train", 2), ("test", 1)):
        for name in "abc":
            for number in range(per_class):
                file = tmp_path / "mine" / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(stream.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    return tmp_path / "mine"


def load(folder: Path, split: str = "train", **options: bool) -> LabelledImages:
    cache = folder.parent / "cache"
    splits = load_splits(str(folder), size=8, root=None, cache=cache, **options)
    return splits.train if split == "train" else opened(splits)


def opened(splits: images_module.Splits) -> LabelledImages:
    with final_probe():
        return splits.open_test()


def the_only(folder: Path, pattern: str) -> Path:
    (file,) = (folder.parent / "cache").rglob(pattern)
    return file


@pytest.fixture
def decoded_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the name of every image file that is decoded."""
    files: list[str] = []
    read = _records._read

    def noted(path: str, size: int) -> np.ndarray:
        files.append(path)
        return read(path, size)

    monkeypatch.setattr(_records, "_read", noted)
    return files


# Decoding


@pytest.mark.parametrize(("width", "height", "size"), [(48, 32, 16), (20, 40, 10), (8, 12, 16)])
def test_fit_is_resizing_the_shorter_side_and_cropping_the_centre(
    width: int, height: int, size: int
) -> None:
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    expected = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])(image)
    difference = _records.fit(image, size).transpose(1, 2, 0).astype(int) - np.asarray(expected)
    inner = (
        difference if width < 16 else difference[1:-1, 1:-1]
    )  # a crop forgets what was beside it
    assert np.abs(inner).max() <= 1


def test_pixels_of_the_right_size_are_kept(folder: Path) -> None:
    loaded = load(folder)
    files = sorted((folder / "train").rglob("*.png"))
    expected = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files])
    assert torch.equal(loaded.images, torch.from_numpy(expected))
    assert loaded.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (5, 5), (255, 255, 255)).convert(mode).save(file)
    pixels = _records._read(str(file), 4)
    assert pixels.shape == (3, 4, 4) and (pixels == 255).all()


@pytest.mark.parametrize("depth", ["uint16", "<u2", ">u2"])
def test_sixteen_bits_become_eight(depth: str, tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    file = tmp_path / ("x.tif" if depth == ">u2" else "x.png")
    Image.fromarray(levels.astype(depth)).save(file)
    pixels = _records._read(str(file), 16)
    assert pixels.tolist() == [np.arange(256).reshape(16, 16).tolist()] * 3


def test_pixels_of_32_bits_are_refused(tmp_path: Path) -> None:
    Image.new("F", (5, 5), 0.5).save(tmp_path / "x.tif")
    with pytest.raises(UsageError, match=r"x.tif: pixels of 32 bits, expected 8 or 16$"):
        _records._read(str(tmp_path / "x.tif"), 4)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + b"x" * 50, None])
def test_a_broken_image_is_named(folder: Path, content: bytes | None) -> None:
    file = folder / "train" / "b" / "1.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-60] if content is None else content)
    with pytest.raises(UsageError, match=r"train/b/1.png: not a readable image") as raised:
        load(folder)
    assert "\n" not in str(raised.value)
    assert not [*(folder.parent / "cache").rglob("*.npy")]
    file.write_bytes(whole)
    assert len(load(folder).images) == 6


# The cache


def test_the_second_load_decodes_nothing(folder: Path, decoded_files: list[str]) -> None:
    first = load(folder)
    assert len(decoded_files) == 6
    second = load(folder)
    assert len(decoded_files) == 6
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    assert first.fingerprint == second.fingerprint
    content = first.images.numpy().tobytes() + first.labels.numpy().tobytes()
    assert first.fingerprint == hashlib.sha256(content).hexdigest()


def test_sizes_and_splits_are_kept_apart(folder: Path) -> None:
    cache = folder.parent / "cache"
    small = load_splits(str(folder), size=4, root=None, cache=cache).train
    assert small.images.shape == (6, 3, 4, 4)
    assert load(folder).images.shape == (6, 3, 8, 8)
    assert load(folder, "test").images.shape == (3, 3, 8, 8)


def test_a_changed_file_or_list_of_files_is_noticed(folder: Path) -> None:
    before = load(folder)
    file = folder / "train" / "a" / "0.png"
    Image.new("RGB", (8, 8)).save(file)
    changed = load(folder)
    assert changed.images[0].sum() == 0 and changed.fingerprint != before.fingerprint
    file.unlink()
    assert len(load(folder).images) == 5
    for split in ("train", "test"):
        (folder / split / "c").rename(folder / split / "aa")
    assert load(folder).labels.tolist() == [0, 1, 1, 2, 2]


def test_a_new_training_class_renumbers_the_test_labels(folder: Path) -> None:
    assert load(folder, "test").labels.tolist() == [0, 1, 2]
    (folder / "train" / "aa").mkdir()
    assert load(folder, "test").labels.tolist() == [0, 1, 2]
    (folder / "train" / "a" / "1.png").rename(folder / "train" / "aa" / "1.png")
    assert load(folder, "test").labels.tolist() == [0, 2, 3]


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "facts.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage", "one byte"])
def test_a_damaged_cache_is_made_again(
    folder: Path, file: str, damage: str, decoded_files: list[str]
) -> None:
    before = load(folder)
    pixels = before.images.clone()
    cached = the_only(folder, file)
    content = cached.read_bytes()
    cached.unlink()
    damaged = {
        "empty": b"",
        "truncated": content[:-9],
        "garbage": b"{}" * 20,
        "one byte": content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    }
    if damage != "missing":
        cached.write_bytes(damaged[damage])
    after = load(folder)
    assert torch.equal(after.images, pixels) and after.fingerprint == before.fingerprint
    assert len(decoded_files) == 12


def test_an_interrupted_decoding_leaves_nothing_to_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", interrupt)  # the labels come after the images
        with pytest.raises(KeyboardInterrupt):
            load(folder)
    assert [*(folder.parent / "cache").rglob("images.npy")]
    assert not [*(folder.parent / "cache").rglob("facts.json")]
    assert len(load(folder).labels) == 6


def test_nobody_can_write_to_the_cache_through_the_images(folder: Path) -> None:
    loaded = load(folder)
    loaded.images.zero_()
    assert load(folder).images.any()


def test_another_process_that_decodes_the_same_split_does_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = decoded_module._write

    def write_twice(*arguments: object, **options: object) -> None:
        write(*arguments, **options)
        cached = the_only(folder, "images.npy")
        facts = (cached.parent / "facts.json").read_bytes()
        write(*arguments, **options)  # the other one has replaced the images, not yet the facts
        (cached.parent / "facts.json").write_bytes(facts)

    monkeypatch.setattr(decoded_module, "_write", write_twice)
    assert len(load(folder).images) == 6


def test_of_several_processes_one_decodes_and_the_others_wait(folder, decoded_files):
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load, [folder] * 4))
    assert len({images.fingerprint for images in loaded}) == 1
    assert len(decoded_files) == 6


@pytest.mark.parametrize(
    ("num_images", "labels", "message"),
    [
        (3, [0, 1], "decode train images: 3 images, but 2 labels"),
        (2, [0, 2], "decode train images: labels from 0 to 2, expected 0 to 1"),
        (2, [-1, 0], "decode train images: labels from -1 to 0, expected 0 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_told(tmp_path, monkeypatch, num_images, labels, message):
    class Wrong:
        info = None

        def open(self, split, *, root, download):
            pixels = np.zeros((num_images, 8, 8, 3), dtype=np.uint8)
            load = partial(tuple, (pixels, np.array(labels)))
            return Arrays(files=[], classes=["a", "b"], load=load)

    monkeypatch.setattr(images_module, "find_dataset", lambda name: Wrong())
    with pytest.raises(UsageError, match=f"^{message}$"):
        load_splits("wrong", size=8, root=None, cache=tmp_path)


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        (torch.zeros(2, 3, 8, 8), r"\(3, 8, 8\) as torch.float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), r"\(3, 4, 4\) as torch.uint8"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"\(1, 8, 8\) as torch.uint8"),
    ],
)
def test_pixels_that_do_not_fit_are_told(tmp_path, monkeypatch, batch, what):
    monkeypatch.setattr(Arrays, "decode", lambda self, size: (torch.tensor([0, 1]), iter([batch])))

    class Wrong:
        info = None

        def open(self, split, *, root, download):
            return Arrays(files=[], classes=["a", "b"], load=tuple)

    monkeypatch.setattr(images_module, "find_dataset", lambda name: Wrong())
    expected = r"expected \(3, 8, 8\) as torch.uint8"
    with pytest.raises(UsageError, match=f"^decode train images: images of {what}, {expected}$"):
        load_splits("wrong", size=8, root=None, cache=tmp_path)


def test_another_code_of_a_dataset_is_another_cache(folder, decoded_files, monkeypatch):
    load(folder)
    monkeypatch.setattr(decoded_module, "code_of", lambda module: "new")
    load(folder)
    assert len(decoded_files) == 2 * 6


# Names


def test_a_name_is_a_plugin_before_it_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("digits", "birds"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(find_dataset("digits"), Digits)
    assert find_dataset("birds") == find_dataset("./birds") == ImageFolder(tmp_path / "birds")
    assert find_dataset("./digits") == ImageFolder(tmp_path / "digits")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("cifar-100", "did you mean 'cifar100'"), ("no/such", "no/such: expected a folder")],
)
def test_an_unknown_name_is_told(name: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        find_dataset(name)


def test_a_folder_without_splits_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train: expected a folder of images \(No such file"):
        load(tmp_path)
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"train: expected <class>/<image> files, found no image"):
        load(tmp_path)


# Both splits


def open_both(folder: Path) -> images_module.Splits:
    return load_splits(str(folder), size=8, root=None, cache=folder.parent / "cache")


def test_the_test_split_is_not_read_before_it_is_opened(
    folder: Path, decoded_files: list[str]
) -> None:
    splits = open_both(folder)
    assert splits.num_classes == 3
    assert not [file for file in decoded_files if f"{os.sep}test{os.sep}" in file]
    assert len([*(folder.parent / "cache").rglob("images.npy")]) == 1
    with pytest.raises(ShutSplitError, match="the test split is for the final probe alone"):
        splits.open_test()
    assert not [file for file in decoded_files if f"{os.sep}test{os.sep}" in file]
    test = opened(splits)
    assert test.labels.tolist() == [0, 1, 2]
    assert len([file for file in decoded_files if f"{os.sep}test{os.sep}" in file]) == 3
    assert opened(splits).fingerprint == splits.test_fingerprint() == test.fingerprint
    with pytest.raises(ShutSplitError):
        splits.open_test()


def test_a_test_split_that_cannot_do_is_told_at_once(folder: Path) -> None:
    (folder / "test" / "a").rename(folder / "test" / "z")
    with pytest.raises(UsageError, match=r"test: class 'z' is not among those of the training"):
        open_both(folder)
    for file in (folder / "test").rglob("*.png"):
        file.unlink()
    with pytest.raises(UsageError, match=r"test: expected <class>/<image> files, found no image"):
        open_both(folder)


def test_statistics_of_a_folder_are_those_of_its_training_pixels(folder: Path) -> None:
    splits = open_both(folder)
    pixels = splits.train.images.numpy().astype(np.float64) / 255
    assert splits.mean == pytest.approx(pixels.mean((0, 2, 3)))
    assert splits.std == pytest.approx(pixels.std((0, 2, 3)))


def test_a_constant_channel_has_a_deviation_to_divide_by() -> None:
    mean, std = pixel_statistics(torch.full((2, 3, 4, 4), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2, 0.2, 0.2)) and std == pytest.approx((1 / 255,) * 3)


def test_the_first_classes_are_a_dataset_of_their_own(folder: Path) -> None:
    load_first = partial(load_splits, size=8, root=None, cache=folder.parent / "cache")
    whole, first = load_first(str(folder)), load_first(f"{folder}:2")
    assert first.num_classes == 2
    for few, all_ in ((first.train, whole.train), (opened(first), opened(whole))):
        kept = all_.labels < 2
        assert torch.equal(few.images, all_.images[kept])
        assert torch.equal(few.labels, all_.labels[kept])
        assert few.fingerprint not in (all_.fingerprint, first.train.fingerprint[:-2])
    assert (first.mean, first.std) == pixel_statistics(first.train.images)
    assert len(load_first("digits:3").train.labels.unique()) == 3
    for k in (1, 4):
        with pytest.raises(UsageError, match=f":{k}: expected 2 to 3 classes$"):
            load_first(f"{folder}:{k}")


def test_settings_can_be_chosen_without_the_test_split(folder: Path) -> None:
    load_held_out = partial(load_splits, size=8, root=None, cache=folder.parent / "cache")
    for number in range(2, 20):
        copied = (folder / "train" / "a" / "0.png").read_bytes()
        (folder / "train" / "a" / f"{number}.png").write_bytes(copied)
    whole = load_held_out(str(folder)).train
    (folder / "test").rename(folder.parent / "somewhere else")
    assert images_module.sizes_of(f"{folder}:held-out") == (20, 4, 3)
    splits = load_held_out(f"{folder}:held-out")
    again = load_held_out(f"{folder}:held-out")
    assert splits.num_classes == 3 and (splits.mean, splits.std) == pixel_statistics(
        splits.train.images
    )
    with pytest.raises(ShutSplitError):
        splits.open_test()
    held_out = opened(splits)
    assert (len(held_out.labels), len(splits.train.labels)) == (4, 20)
    assert torch.equal(opened(again).images, held_out.images)
    together = torch.cat([splits.train.images, held_out.images]).flatten(1)
    assert sorted(map(tuple, together.tolist())) == sorted(
        map(tuple, whole.images.flatten(1).tolist())
    )
    prints = {part.fingerprint for part in (whole, splits.train, held_out)}
    assert len(prints) == 3
    first = load_held_out(f"{folder}:2:held-out")
    assert first.num_classes == 2 and int(opened(first).labels.max()) <= 1


def test_a_partial_copy_of_a_known_dataset_is_remarked(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = folder.parent / "cache"
    folder.rename(folder.parent / "cifar10")
    with caplog.at_level(logging.WARNING):
        splits = load_splits("cifar10", size=8, root=folder.parent, cache=cache)
    assert "cifar10: 6 training images of 3 classes, expected 50000 of 10" in caplog.text
    assert splits.num_classes == 3
    assert (splits.mean, splits.std) == pixel_statistics(splits.train.images)
    caplog.clear()
    load_splits("digits", size=8, root=None, cache=cache)
    assert not caplog.text


def test_a_listed_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = tmp_path / "CUB_200_2011"
    (root / "images").mkdir(parents=True)
    (root / "images.txt").write_text("1 a/x.png\n2 a/y.png\n")
    (root / "train_test_split.txt").write_text("1 1\n2 0\n")
    (root / "image_class_labels.txt").write_text("1 1\n2 1\n")
    with pytest.raises(UsageError, match=r"images/a/x.png: cannot be read \(No such file"):
        load_splits("cub2011", size=8, root=tmp_path, cache=tmp_path / "cache")
