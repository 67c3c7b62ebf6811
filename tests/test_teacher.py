"""Making a teacher, its file, and its representations."""

import json
import pickle
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from benchmark.held_out import held_out_tenth
from benchmark.loop import CheckpointedLoop
from benchmark.network import Network
from benchmark.pretrain_teacher import (
    TeacherPlan,
    pretrain_teacher,
)
from benchmark.spec import ImageShape, LabelledImages, UsageError
from benchmark.teacher import load_teacher, represent_all, save_teacher, teacher_identity

SHAPE = ImageShape(3, 8, 8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new_network(model, num_outputs, generator, *, width=6, mean=0.3):
    assert model == "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(99, (), generator=generator)))
        backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, width),
        )
        return Network(backbone, width, num_outputs, mean=(mean,) * 3, std=(0.2, 0.25, 0.3))


@dataclass(frozen=True, kw_only=True)
class Spy:
    """Does what a kind of teacher does to the network, at once, and remembers what it was shown."""

    supervision: ClassVar = "none"
    seen: ClassVar[dict] = {}

    model: str = "tiny"
    standardise: bool = False
    storage: str = "fp32"
    sizes: tuple[int, ...] = (1, 2)

    def pretrain(self, network, *, images, labels, probe, generator, checkpoint):
        self.seen.update(images=images, labels=labels, training=network.training)
        network.features(images.float() / 255)  # moves the running statistics of batch norm
        accuracy = probe()
        assert network.training, "the probe leaves the network as it was"
        self.seen["probe"] = accuracy
        checkpoint.charge(100.0)
        return 7


class Labelled(Spy):
    supervision: ClassVar = "labels"


@pytest.fixture
def source():
    labels = torch.arange(120) % 3
    images = torch.randint(0, 120, (120, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    images += (50 * labels[:, None, None, None]).to(torch.uint8)
    return LabelledImages(images, labels, "0123abcd")


def make(source, recipe=None, **settings):
    plan = TeacherPlan(
        source="toy", kind="spy", recipe=recipe or Spy(**settings), model_settings={"width": 6}
    )
    loop = CheckpointedLoop(None, description="teacher")
    return pretrain_teacher(plan, source, new_network, generator=generator(3), checkpoint=loop)


def test_a_kind_without_labels_sees_all_images_and_no_label(source):
    make(source)
    assert torch.equal(Spy.seen["images"], source.images)
    assert Spy.seen["labels"] is None and Spy.seen["training"]


def test_a_kind_with_labels_never_sees_the_held_out_tenth(source):
    make(source, recipe=Labelled())
    kept = ~held_out_tenth(source)
    assert torch.equal(Spy.seen["images"], source.images[kept])
    assert torch.equal(Spy.seen["labels"], source.labels[kept])


def test_the_header_says_how_it_was_made(source):
    header = make(source).header
    assert (header.source, header.fingerprint) == ("toy", "0123abcd")
    assert (header.kind, header.model, header.model_settings) == ("spy", "tiny", {"width": 6})
    assert (header.steps, header.seed, header.d) == (7, 3, 6)
    assert 100 <= header.seconds < 101
    assert header.settings["sizes"] == (1, 2)
    assert header.image_shape == (3, 8, 8)
    assert header.held_out.keys() == {"all_labels", "10_labels_per_class"}
    assert header.provenance["torch"] == str(torch.__version__)


@pytest.mark.parametrize("storage", ["fp32", "fp16"])
@pytest.mark.parametrize("standardise", [False, True])
def test_a_reloaded_teacher_gives_the_same_representations(source, tmp_path, storage, standardise):
    teacher = make(source, storage=storage, standardise=standardise)
    save_teacher(tmp_path / "teacher.safetensors", teacher)
    loaded = load_teacher(tmp_path / "teacher.safetensors", new_network, SHAPE)
    assert loaded.header == teacher.header
    assert loaded.network.num_features == 6
    before, after = (represent_all(each, source.images) for each in (teacher, loaded))
    assert torch.equal(before, after)
    with safe_open(tmp_path / "teacher.safetensors", framework="pt") as file:
        stored = file.get_tensor("backbone.0.weight").dtype
    assert stored == {"fp32": torch.float32, "fp16": torch.float16}[storage]


def test_a_teacher_brings_its_own_pixel_statistics(source, tmp_path):
    teacher = make(source)
    save_teacher(tmp_path / "teacher.safetensors", teacher)

    def other_dataset(*args, **settings):
        return new_network(*args, **settings, mean=0.9)

    loaded = load_teacher(tmp_path / "teacher.safetensors", other_dataset, SHAPE)
    assert torch.equal(represent_all(loaded, source.images), represent_all(teacher, source.images))


def test_standardised_representations_have_mean_0_and_deviation_1(source):
    representations = represent_all(make(source, standardise=True), source.images)
    torch.testing.assert_close(representations.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(representations.std(0, correction=0), torch.ones(6))


def test_a_dimension_that_never_varies_stays_finite(source):
    dead = replace(source, images=source.images[:1].expand(120, -1, -1, -1).contiguous())
    representations = represent_all(make(dead, standardise=True), dead.images)
    torch.testing.assert_close(representations, torch.zeros(120, 6), atol=1e-4, rtol=0)


def test_all_images_are_represented_alone_and_under_a_view(source):
    teacher = make(source, standardise=True)
    together = represent_all(teacher, source.images, "rot90")
    one_by_one = [
        teacher(torch.rot90(image.float() / 255, 1, (1, 2))[None]) for image in source.images[:5]
    ]
    torch.testing.assert_close(together[:5], torch.cat(one_by_one))


def test_a_teacher_is_frozen_but_differentiable_in_its_images(source):
    teacher = make(source)
    images = (source.images[:2].float() / 255).requires_grad_()
    teacher(images).sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


def stored(source, tmp_path):
    file = tmp_path / "teacher.safetensors"
    save_teacher(file, make(source, standardise=True))
    with safe_open(file, framework="pt") as stream:
        header = json.loads(stream.metadata()["header"])
        return file, {name: stream.get_tensor(name) for name in stream.keys()}, header  # noqa: SIM118


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 99, "format 99, expected 1"),
        ("seed", None, "its header lacks seed"),
        ("d", "6", "header says d = '6', expected int"),
        ("d", 7, "header says d = 7"),
        ("mean", [0.1], "does not fit its model"),
        ("kind", 5, "header says kind = 5, expected str"),
        ("held_out", 5, "header says held_out = 5, expected dict"),
        ("seconds", "long", "header says seconds = 'long', expected float"),
        ("std", ["a", 1.0, 2.0], "expected numbers"),
        ("held_out", {"all_labels": "high"}, "expected numbers"),
        ("mean", [0.1, float("nan"), 0.3], "expected numbers"),
        ("std", [0.1, 0.0, 0.3], r"says std = \(0\.1, 0\.0, 0\.3\), expected numbers above 0"),
        ("model_settings", {"width": 1.5}, r"model_settings = \{'width': 1\.5\}: "),
        ("model_settings", {"model": "x"}, "multiple values"),
        ("settings", {}, "its settings lack standardise"),
        ("model_settings", {"width": 5}, "weight 4.bias is 6, but 5 in its model tiny"),
        ("image_shape", [3, 4, 8], "this teacher takes 3x4x8 images, not 3x8x8"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(source, tmp_path, key, value, message):
    file, tensors, header = stored(source, tmp_path)
    header[key] = value
    if value is None:
        del header[key]
    save_file(tensors, file, metadata={"header": json.dumps(header)})
    with pytest.raises(UsageError, match=message) as error:
        load_teacher(file, new_network, SHAPE)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["backbone.0.weight", "representation.std"])
def test_a_file_without_all_its_tensors_is_refused(source, tmp_path, name):
    file, tensors, header = stored(source, tmp_path)
    del tensors[name]
    save_file(tensors, file, metadata={"header": json.dumps(header)})
    with pytest.raises(UsageError, match=f"{name.removeprefix('backbone.')} is absent"):
        load_teacher(file, new_network, SHAPE)


def test_no_file_is_ever_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    file = tmp_path / "teacher.safetensors"
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UsageError, match="safetensors"):
        load_teacher(file, new_network, SHAPE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [0.1, 0.2, 0.3]),
        ("std", [0.1, 0.2, 0.3]),
        ("model_settings", {"width": 6, "stem_stride": 1}),
        ("model", "other"),
        ("settings", {"standardise": False, "storage": "fp32"}),
    ],
)
def test_a_teacher_is_more_than_its_weights(source, tmp_path, key, value):
    file, tensors, header = stored(source, tmp_path)
    before = teacher_identity(file)
    save_file(tensors, file, metadata={"header": json.dumps({**header, "seconds": 7.0})})
    assert teacher_identity(file) == before
    save_file(tensors, file, metadata={"header": json.dumps({**header, key: value})})
    assert teacher_identity(file) != before
    tensors["backbone.0.weight"] += 1
    save_file(tensors, file, metadata={"header": json.dumps(header)})
    assert teacher_identity(file) != before
