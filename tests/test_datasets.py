import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, CIFAR100

from benchmark import plugins
from benchmark.datasets import _pack_fashion_mnist
from benchmark.images import find_dataset, pixel_statistics
from benchmark.spec import Dataset, Records, UsageError

NAMES = plugins.names("datasets")
SHIPPED = ["digits", "fashion-mnist"]
OFFICIAL_CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def paint(file: Path, level: int) -> None:
    """Make an image of one grey level, by which a test knows it again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (level, level, level)).save(file)


def decoded(records: Records, size: int = 4) -> tuple[list[int], torch.Tensor]:
    labels, batches = records.decode(size)
    return labels.tolist(), torch.cat(list(batches))


def levels(images: torch.Tensor) -> list[int]:
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def opened(name: str, split: str, root: Path | None, *, download: bool = False) -> Records:
    return find_dataset(name).open(split, root=root, download=download)


# Every plug-in


def test_the_expected_datasets_are_there() -> None:
    assert {
        *("cifar10", "cifar100", "cub2011", "digits"),
        *("fashion-mnist", "stanford-dogs", "tiny-imagenet"),
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_info_is_complete(name: str) -> None:
    dataset = find_dataset(name)
    info = dataset.info
    assert isinstance(dataset, Dataset)
    assert info is not None and info is plugins.load("datasets", name).info
    assert all([info.title, info.licence, info.citation])
    assert info.url.startswith(("https://", "http://"))
    assert 1 < info.num_classes <= info.num_test < info.num_train
    assert all(0.2 < mean < 0.6 for mean in info.mean)
    assert all(0.2 < std < 0.4 for std in info.std)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_folder_below_the_root_is_accepted(name: str, tmp_path: Path) -> None:
    for level, file in enumerate(
        ["train/b/1.png", "train/a/2.jpg", "train/a/1.png", "test/b/9.PNG"]
    ):
        paint(tmp_path / name / file, level)
    paint(tmp_path / name / "train" / "a" / ".hidden.png", 77)
    (tmp_path / name / "train" / "a" / "notes.txt").write_text("not an image")
    train, test = (opened(name, split, tmp_path) for split in ("train", "test"))
    labels, images = decoded(train, size=7)
    assert train.classes == test.classes == ["a", "b"]
    assert images.dtype == torch.uint8 and images.shape == (3, 3, 7, 7)
    assert (labels, levels(images)) == ([0, 0, 1], [2, 1, 0])
    assert decoded(test)[0] == [1]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SHIPPED)))
@pytest.mark.parametrize("has_root", [True, False])
def test_missing_data_is_explained_in_one_line(name: str, has_root: bool, tmp_path: Path) -> None:
    root = tmp_path if has_root else None
    with pytest.raises(UsageError) as raised:
        opened(name, "train", root)
    message = str(raised.value)
    assert "\n" not in message and message.startswith(f"{name}: ")
    assert str(tmp_path) in message if has_root else "needs a data root" in message
    assert f"--data-root DIR with DIR/{name}/" in message or f"DIR/{name}/{{train" in message
    info = find_dataset(name).info
    assert info is not None and ("--download" in message or info.url in message)


# Those that ship with the package


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_datasets_need_no_root_and_are_what_info_says(name: str) -> None:
    info = find_dataset(name).info
    assert info is not None
    pixels = {}
    for split, count in (("train", info.num_train), ("test", info.num_test)):
        records = opened(name, split, None)
        labels, images = decoded(records, size=32)
        assert images.shape == (count, 3, 32, 32) and len(labels) == count
        assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
        counts = np.bincount(labels, minlength=info.num_classes)
        assert len(counts) == info.num_classes == len(records.classes)
        assert counts.min() > 0.9 * count / info.num_classes
        assert all(Path(file).is_file() for file in records.files)
        pixels[split] = images
    assert not {x.numpy().tobytes() for x in pixels["train"]} & {
        x.numpy().tobytes() for x in pixels["test"]
    }
    mean, std = pixel_statistics(pixels["train"])
    assert mean == pytest.approx(info.mean, abs=1e-4)
    assert std == pytest.approx(info.std, abs=1e-4)


def test_fashion_mnist_is_padded_with_zeros_to_32() -> None:
    _, images = decoded(opened("fashion-mnist", "test", None), size=32)
    frame = images.clone()
    frame[:, :, 2:-2, 2:-2] = 0
    assert not frame.any() and images[:, :, 2:-2, 2:-2].amax() == 255


def test_digits_keep_their_grey_levels() -> None:
    from sklearn.datasets import load_digits

    _, images = decoded(opened("digits", "test", None), size=8)
    expected = load_digits().images[1287:] / 16 * 255
    assert np.abs(images[:, 1].numpy() - expected).max() <= 0.5


def test_the_shipped_subset_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pack_fashion_mnist, "_PARTS", {"train": ("train", 5), "test": ("t10k", 3)})
    stream = np.random.default_rng(0)
    made = {}
    for prefix in ("train", "t10k"):
        images = stream.integers(0, 256, (7, 28, 28), dtype=np.uint8)
        labels = stream.integers(0, 10, 7, dtype=np.uint8)
        made[prefix] = images, labels
        header = np.array([0x803, 7, 28, 28], ">i4").tobytes()
        with gzip.open(tmp_path / f"{prefix}-images-idx3-ubyte.gz", "wb") as file:
            file.write(header + images.tobytes())
        with gzip.open(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(np.array([0x801, 7], ">i4").tobytes() + labels.tobytes())
    _pack_fashion_mnist.pack(tmp_path, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        for split, prefix, count in (("train", "train", 5), ("test", "t10k", 3)):
            assert np.array_equal(arrays[f"{split}_images"], made[prefix][0][:count])
            assert np.array_equal(arrays[f"{split}_labels"], made[prefix][1][:count])


# Official layouts, made small


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    folder = tmp_path / "CUB_200_2011"
    names = ["001.Black/x_1.png", "001.Black/x_2.png", "002.Red/y_1.png", "002.Red/y 2.png"]
    for level, name in enumerate(names):
        paint(folder / "images" / name, level)
    write = {
        "images.txt": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "image_class_labels.txt": ["1 1", "2 1", "3 2", "4 2"],
        "train_test_split.txt": ["1 0", "2 1", "3 1", "4 0"],
    }
    for name, lines in write.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_cub_follows_its_lists(cub: Path) -> None:
    train, test = (opened("cub2011", split, cub.parent) for split in ("train", "test"))
    labels_file = cub / "image_class_labels.txt"
    official = [int(line.split()[1]) - 1 for line in labels_file.read_text().splitlines()]
    for records, chosen in ((train, [1, 2]), (test, [0, 3])):
        labels, images = decoded(records)
        assert levels(images) == chosen
        assert labels == [official[image] for image in chosen]
    assert str(cub / "images.txt") in train.files


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("images.txt", "1 ../../secret.png\n2 a/b.png\n3 a/c.png\n4 a/d.png\n", "leads outside"),
        ("images.txt", "1 001.Black/../../../s.png\n2 a/b\n3 a/c\n4 a/d\n", "leads outside"),
        ("images.txt", "1 /etc/passwd\n2 a/b.png\n3 a/c.png\n4 a/d.png\n", "leads outside"),
        ("images.txt", "1\n", "expected lines of"),
        ("train_test_split.txt", "1 0\n", "expected the image ids"),
        ("image_class_labels.txt", "1 1\n", "expected the image ids"),
        ("image_class_labels.txt", "1 2\n2 2\n3 1\n4 1\n", "in the order of class folders"),
        ("image_class_labels.txt", "1 1\n2 2\n3 2\n4 2\n", "in the order of class folders"),
        ("image_class_labels.txt", "1 1\n2 1\n3 b\n4 b\n", "in the order of class folders"),
        ("train_test_split.txt", "1 0\n2 0\n3 0\n4 0\n", "found no image"),
    ],
)
def test_cub_refuses_lists_that_make_no_sense(
    cub: Path, file: str, content: str, complaint: str
) -> None:
    (cub / file).write_text(content)
    with pytest.raises(UsageError, match=complaint) as raised:
        opened("cub2011", "train", cub.parent)
    assert "\n" not in str(raised.value) and str(cub) in str(raised.value)


def test_cub_refuses_a_class_that_is_in_the_test_split_only(cub: Path) -> None:
    (cub / "train_test_split.txt").write_text("1 1\n2 1\n3 0\n4 0\n")
    opened("cub2011", "train", cub.parent)
    with pytest.raises(UsageError, match=r"class '002.Red' is not among those of the training"):
        opened("cub2011", "test", cub.parent)


@pytest.mark.parametrize("whole_folder", [True, False])
def test_listed_files_may_not_be_links_that_lead_outside(cub: Path, whole_folder: bool) -> None:
    paint(cub.parent / "outside" / "x_1.png", 9)
    paint(cub.parent / "outside" / "x_2.png", 9)
    inside = cub / "images" / "001.Black"
    if whole_folder:
        inside.rename(cub / "kept")
        inside.symlink_to(cub.parent / "outside")
    else:
        (inside / "x_1.png").unlink()
        (inside / "x_1.png").symlink_to(cub.parent / "outside" / "x_1.png")
    with pytest.raises(UsageError, match=r"images.txt: '001.Black/x_1.png' leads outside"):
        opened("cub2011", "train", cub.parent)


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    folder = tmp_path / "stanford-dogs"
    lists = {
        "train": ["n02-Chihuahua/n02_7.png", "n02-Chihuahua/n02_5.png", "n09-dhole/n09_1.png"],
        "test": ["n09-dhole/n09_3.png"],
    }
    for split, names in lists.items():
        for level, name in enumerate(names):
            paint(folder / "Images" / name, level)
        cells = np.empty((len(names), 1), dtype=object)
        cells[:, 0] = names
        labels = [[1 + name.startswith("n09")] for name in names]
        savemat(folder / f"{split}_list.mat", {"file_list": cells, "labels": np.array(labels)})
    return folder


def test_stanford_dogs_follow_their_lists(dogs: Path) -> None:
    train, test = (opened("stanford-dogs", split, dogs.parent) for split in ("train", "test"))
    labels, images = decoded(train)
    assert train.classes == test.classes == ["n02-Chihuahua", "n09-dhole"]
    assert (labels, levels(images)) == ([0, 0, 1], [0, 1, 2])
    assert decoded(test)[0] == [1]


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 but not really" * 20])
def test_stanford_dogs_refuse_a_broken_list(dogs: Path, content: bytes) -> None:
    (dogs / "train_list.mat").write_bytes(content)
    with pytest.raises(UsageError, match=r"train_list.mat: expected a MATLAB file") as raised:
        opened("stanford-dogs", "train", dogs.parent)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("folder", ["tiny-imagenet-200", "tiny-imagenet"])
def test_tiny_imagenet_is_tested_on_its_validation_split(folder: str, tmp_path: Path) -> None:
    root = tmp_path / folder
    for level, file in enumerate(["n2/images/n2_0.JPEG", "n1/images/n1_1.JPEG"]):
        paint(root / "train" / file, level)
    for level, name in enumerate(["val_0.JPEG", "val_1.JPEG"]):
        paint(root / "val" / "images" / name, level)
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("val_1.JPEG\tn1\t0\t32\t44\t62\nval_0.JPEG\tn2\t1\t2\t3\t4\n")
    labels, images = decoded(opened("tiny-imagenet", "train", tmp_path))
    assert (labels, levels(images)) == ([0, 1], [1, 0])
    labels, images = decoded(opened("tiny-imagenet", "test", tmp_path))
    assert (labels, levels(images)) == ([0, 1], [1, 0])
    annotations.write_text("../../train/n1/images/n1_1.JPEG\tn1\n")
    with pytest.raises(UsageError, match=r"val_annotations.txt: .* leads outside"):
        opened("tiny-imagenet", "test", tmp_path)
    annotations.write_text("val_1.JPEG\n")
    with pytest.raises(UsageError, match=r"val_annotations.txt: expected lines"):
        opened("tiny-imagenet", "test", tmp_path)


def write_cifar(source: type[CIFAR10], root: Path) -> None:
    """Write files of the official structure, three images each, a pixel value per image."""
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    key = "fine_labels" if source is CIFAR100 else "labels"
    for number, (name, _) in enumerate([*source.train_list, *source.test_list]):
        rows = np.arange(3, dtype=np.uint8)[:, None] + 10 * number
        planes = np.repeat(rows, 3072, axis=1)
        planes[:, :1024] += 100  # the red plane comes first
        (folder / name).write_bytes(pickle.dumps({"data": planes, key: [2, 0, 1]}))
    meta = {source.meta["key"]: ["a", "b", "c"]}
    (folder / source.meta["filename"]).write_bytes(pickle.dumps(meta))


@pytest.mark.parametrize(("name", "source"), OFFICIAL_CIFAR.items())
def test_cifar_reads_the_official_files(
    name: str, source: type[CIFAR10], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(source, tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for split, parts in (("train", source.train_list), ("test", source.test_list)):
        records = opened(name, split, tmp_path)
        labels, images = decoded(records, size=32)
        first = 0 if split == "train" else 10 * len(source.train_list)
        expected = [first + 10 * part + image for part in range(len(parts)) for image in range(3)]
        assert labels == [2, 0, 1] * len(parts)
        assert images[:, 2, 5, 6].tolist() == expected
        assert images[:, 0, 5, 6].tolist() == [100 + value for value in expected]
        assert [Path(file).name for file in records.files] == [file for file, _ in parts]


@pytest.mark.parametrize(("name", "source"), OFFICIAL_CIFAR.items())
def test_cifar_opens_no_pickle_but_the_official_ones(
    name: str, source: type[CIFAR10], tmp_path: Path
) -> None:
    write_cifar(source, tmp_path)
    with pytest.raises(UsageError, match="MD5 differs"):
        opened(name, "train", tmp_path).decode(32)


def test_cifar_is_downloaded_only_when_asked_and_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(self: CIFAR10) -> None:
        calls.append(self.root)
        write_cifar(type(self), Path(self.root))

    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setattr(CIFAR100, "download", download)
    root = tmp_path / "new"
    with pytest.raises(UsageError):
        opened("cifar100", "train", root)
    assert decoded(opened("cifar100", "train", root, download=True))[0] == [2, 0, 1]
    opened("cifar100", "test", root, download=True)
    assert len(calls) == 1


def test_a_failed_download_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: CIFAR10) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", download)
    with pytest.raises(UsageError, match=r"cannot download https://.*no route to host"):
        opened("cifar10", "train", tmp_path, download=True)
