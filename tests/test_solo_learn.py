"""Checkpoints of solo-learn as teachers: files of the layout that it writes, made here."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from benchmark import solo_learn
from benchmark.compute import Compute
from benchmark.experiment import Experiment
from benchmark.network_factory import NetworkFactory
from benchmark.pretrain_teacher import probe_teacher
from benchmark.solo_learn import read_solo_learn
from benchmark.spec import ImageShape, LabelledImages, UsageError
from benchmark.store import Store
from benchmark.teacher import load_teacher, save_teacher

SHAPE = ImageShape(3, 32, 32)
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # of solo-learn, for CIFAR-100


def backbone(make=resnet18):
    """Return torchvision's network as solo-learn changes it for CIFAR, its weights not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = make()
        network.fc = nn.Identity()
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
        network.maxpool = nn.Identity()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(std=0.1)
                norm.weight.data.uniform_(0.5, 1.5)
    return network.eval()


def layout(network, *, num_classes=100, prefix="backbone."):
    """Return what Lightning writes of such a module in the middle of training."""
    parts = nn.ModuleDict(
        {
            "classifier": nn.Linear(512, num_classes),
            "projector": nn.Sequential(
                *(nn.Linear(512, 8), nn.BatchNorm1d(8), nn.ReLU()),
                *(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)),
            ),
        }
    )
    state = {prefix + name: value for name, value in network.state_dict().items()}
    groups = {"backbone": network, **parts}
    optimizer = torch.optim.SGD(
        [{"name": name, "params": list(part.parameters())} for name, part in groups.items()],
        lr=0.3,
        momentum=0.9,
    )
    optimizer.zero_grad()
    parts["classifier"](parts["projector"][0].weight).sum().backward()
    optimizer.step()
    return {
        "epoch": 999,
        "global_step": 195_000,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": OrderedDict({**state, **parts.state_dict()}),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1000}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None}},
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {"method": "barlow_twins", "optimizer": {"name": "lars", "lr": 0.3}},
        "hparams_name": "cfg",
        "lr_schedulers": [{"last_epoch": 1000, "_last_lr": [0.0], "base_lrs": [0.3]}],
    }


def saved(tmp_path: Path, content, name="barlow_twins-cifar100-ep=999.ckpt") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


new_network = NetworkFactory(shape=SHAPE, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("prefix", ["backbone.", "encoder."])
def test_representations_are_those_of_the_network_that_was_saved(tmp_path, prefix):
    network = backbone()
    teacher = read_solo_learn(saved(tmp_path, layout(network, prefix=prefix)), new_network, SHAPE)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        expected = network((images - mean) / std)
    assert (teacher.header.d, teacher.header.kind) == (512, "solo-learn")
    assert teacher.header.steps == 195_000
    torch.testing.assert_close(teacher(images), expected, rtol=1e-4, atol=1e-5)


def test_it_is_probed_and_kept_like_any_other_teacher(tmp_path):
    teacher = read_solo_learn(saved(tmp_path, layout(backbone())), new_network, SHAPE)
    stream = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 2
    images = (
        torch.randint(0, 128, (60, 3, 32, 32), generator=stream) + 100 * labels[:, None, None, None]
    )
    source = LabelledImages(images=images.to(torch.uint8), labels=labels, fingerprint="x")
    probed = probe_teacher(teacher, source)
    assert probed.header.held_out["all_labels"] > 60  # bright or dark: chance is 50
    save_teacher(tmp_path / "kept.safetensors", probed)
    again = load_teacher(tmp_path / "kept.safetensors", new_network, SHAPE)
    assert again.header == replace(probed.header, mean=MEAN, std=STD)
    pixels = source.images[:4] / 255
    assert torch.equal(again(pixels), teacher(pixels))


def test_a_run_takes_it_by_its_file_says_what_it_is_and_reads_it_once(
    toy_suite, tmp_path, caplog, monkeypatch
):
    file = saved(tmp_path, layout(backbone()))
    suite = replace(toy_suite, teacher=str(file), size=32)

    def new_experiment():
        compute = Compute(device=torch.device("cpu"), precision="fp32")
        return Experiment(suite, store=Store(tmp_path), compute=compute)

    first = new_experiment()
    assert not first.teacher_origin.exists  # to find this out, nothing is made
    assert not list((tmp_path / "teachers").rglob("*.safetensors"))
    assert first.representations("identity").shape == (60, 512)
    (said,) = caplog.messages
    assert f"{file}: solo-learn's resnet18, d = 512, 195000 steps, pretrained on cifar100; " in said
    assert "held out: {'all_labels': " in said
    assert first.teacher_name == "solo-learn of cifar100"
    monkeypatch.setattr(solo_learn, "read_solo_learn", None)
    second = new_experiment()
    assert second.teacher_origin.exists
    assert second.teacher_origin.key == first.teacher_origin.key
    assert second.teacher.header == first.teacher.header


def without(content, name):
    state = {key: value for key, value in content["state_dict"].items() if name not in key}
    return {**content, "state_dict": state}


class Stranger:
    """Would be run by unpickling."""


def flat(content):
    """Return a checkpoint whose classifier is one number."""
    content["state_dict"]["classifier.weight"] = torch.tensor(1.0)
    return content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda: [1, 2], "not a checkpoint of solo-learn, it has no state_dict"),
        (lambda: {"state_dict": {7: torch.ones(1)}}, "it has no state_dict"),
        (lambda: flat(layout(backbone())), "its classifier has 0 outputs, expected"),
        (lambda: {"state_dict": {}}, "nothing in it is backbone"),
        (lambda: {"hyper_parameters": Stranger()}, "holds more than weights and plain values"),
        (lambda: without(layout(backbone()), "layer4"), "weight layer4.0.bn1.bias is absent, but"),
        (
            lambda: without(layout(backbone()), "classifier"),
            "its classifier has 0 outputs, expected",
        ),
        (lambda: layout(backbone(), num_classes=200), "its classifier has 200 outputs, expected"),
        (lambda: layout(backbone(resnet50)), "expected solo-learn's ResNet-18 for 32x32, .* 3x3"),
        (lambda: layout(resnet18()), r"first of which are conv1.weight \(64, 3, 7, 7\)"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, complaint):
    file = saved(tmp_path, content(), "given.ckpt")
    with pytest.raises(UsageError, match=rf"given\.ckpt: .*{complaint}") as caught:
        read_solo_learn(file, new_network, SHAPE)
    assert "\n" not in str(caught.value)


def test_what_a_refusal_advises_works(tmp_path):
    checkpoint = {**layout(backbone()), "hyper_parameters": Stranger()}
    with pytest.raises(UsageError, match=r"save {'state_dict': checkpoint\['state_dict'\]} alone"):
        read_solo_learn(saved(tmp_path, checkpoint), new_network, SHAPE)
    file = saved(tmp_path, {"state_dict": checkpoint["state_dict"]})
    assert read_solo_learn(file, new_network, SHAPE).header.source == "cifar100"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not whole", None])
def test_what_is_no_whole_file_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "t.ckpt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"t\.ckpt: (damaged|no such file|holds more)"):
        read_solo_learn(file, new_network, SHAPE)


def test_damaged_bytes_are_refused_in_one_line(tmp_path):
    """In the format before zip files too, where nearly any error may come of them."""
    file = tmp_path / "t.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}}, file, _use_new_zipfile_serialization=False)
    whole = file.read_bytes()
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(UsageError, match=r"t\.ckpt: "):
            read_solo_learn(file, new_network, SHAPE)


def test_images_of_another_size_are_refused(tmp_path):
    with pytest.raises(UsageError, match="takes 3x32x32 images, not 3x64x64"):
        read_solo_learn(
            saved(tmp_path, layout(backbone())),
            NetworkFactory(shape=ImageShape(3, 64, 64), mean=(0.5,) * 3, std=(0.25,) * 3),
            ImageShape(3, 64, 64),
        )


def test_weights_whose_features_overflow_are_refused_in_one_line(toy_suite, tmp_path):
    content = layout(backbone())
    content["state_dict"]["backbone.bn1.weight"].fill_(1e38)
    file = saved(tmp_path, content)
    suite = replace(toy_suite, teacher=str(file), size=32)
    compute = Compute(device=torch.device("cpu"), precision="fp32")
    experiment = Experiment(suite, store=Store(tmp_path), compute=compute)
    with pytest.raises(UsageError, match=r"ckpt: the teacher's features .* not finite"):
        experiment.representations("identity")


def test_the_number_of_the_last_epoch_is_one_less_than_there_were(tmp_path):
    teacher = read_solo_learn(saved(tmp_path, layout(backbone())), new_network, SHAPE)
    assert teacher.header.settings["epochs"] == 1000
