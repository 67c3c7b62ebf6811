"""A teacher from a checkpoint of solo-learn, instead of pretraining one.

The checkpoint is Lightning's. Its ``state_dict`` has the weights of torchvision's ResNet as
``backbone.*`` (``encoder.*`` in old versions), besides projector and online classifier. For CIFAR,
solo-learn (solo/methods/base.py) gives the ResNet a 3x3 stem of stride 1 and padding 2, and no
max-pooling. The file does not record the method or the dataset; the size of the classifier tells
CIFAR-10 from CIFAR-100.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.spec import ImageShape, NewNetwork, UsageError
from benchmark.teacher import BACKBONE, Teacher, TeacherHeader, assemble

SUFFIXES = (".ckpt", ".pth", ".pt")

_PREFIXES = ("backbone.", "encoder.")
_SHAPE, D = (3, 32, 32), 512
MODEL, SETTINGS = "resnet18", {"stem_padding": 2}
# solo/data/pretrain_dataloader.py: its pixel statistics, here by the number of classes
_PIXELS = {
    10: ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    100: ("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def read_solo_learn(file: Path, new_network: NewNetwork, shape: ImageShape) -> Teacher:
    """Return the teacher in a checkpoint of solo-learn, loading only weights and plain values.

    It is a ResNet-18 (d = 512) that normalises pixels as in solo-learn, and its representations are
    not standardised. Its header has no held-out accuracy and no seconds.

    Args:
        file: the checkpoint.
        new_network: makes the backbone that the weights are loaded into.
        shape: of the images to represent.

    Raises:
        UsageError: the file is damaged, holds more than weights and plain values, is not such a
            checkpoint, or has another backbone, dataset or image shape.
    """
    checkpoint = _load(file)
    entries = checkpoint["state_dict"].items()
    state = {name: value for name, value in entries if isinstance(value, Tensor)}
    weights = _backbone(file, state)
    source, mean, std = _PIXELS[_num_classes(file, state)]
    header = TeacherHeader(
        kind="solo-learn",
        settings={"standardise": False, "storage": "fp32", "epochs": _epochs(checkpoint)},
        seed=0,
        model=MODEL,
        model_settings=SETTINGS,
        image_shape=_SHAPE,
        d=D,
        mean=mean,
        std=std,
        source=source,
        fingerprint="",
        precision="fp32",
        steps=_count(checkpoint, "global_step"),
        seconds=0.0,
        held_out={},
        provenance={"file": file.name},
    )
    tensors = {
        BACKBONE + name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    return assemble(file, tensors, header, new_network, shape)


def _load(file: Path) -> Mapping[str, Any]:
    if not file.exists():
        raise UsageError(f"{file}: no such file")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{file}: holds more than weights and plain values, and nothing else is read from "
            "untrusted files: save {'state_dict': checkpoint['state_dict']} alone"
        ) from error
    except Exception as error:  # a damaged file can raise anything
        raise UsageError(f"{file}: damaged, or not a file of torch.save") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UsageError(f"{file}: not a checkpoint of solo-learn, it has no state_dict")
    found: Mapping[str, Any] = checkpoint
    return found


def _backbone(file: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the backbone under torchvision's names.

    Raises:
        UsageError: there are none, or they are not of solo-learn's ResNet-18 for small images.
    """
    for prefix in _PREFIXES:
        weights = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        if weights:
            break
    else:
        raise UsageError(f"{file}: not a checkpoint of solo-learn, nothing in it is backbone.*")
    stem = weights.get("conv1.weight", torch.empty(0)).shape
    if tuple(stem[2:]) != (3, 3) or "layer1.0.conv3.weight" in weights:
        found = ", ".join(f"{name} {tuple(w.shape)}" for name, w in list(weights.items())[:2])
        raise UsageError(
            f"{file}: expected solo-learn's ResNet-18 for 32x32, with a 3x3 stem; its backbone "
            f"has {len(weights)} weights, the first of which are {found}"
        )
    return weights


def _num_classes(file: Path, state: Mapping[str, Tensor]) -> int:
    """Return the number of classes of the online classifier.

    Raises:
        UsageError: it is that of neither CIFAR-10 nor CIFAR-100.
    """
    (classes, *_) = *state.get("classifier.weight", torch.empty(0)).shape, 0
    if classes not in _PIXELS:
        raise UsageError(
            f"{file}: its classifier has {classes} outputs, expected "
            f"{' or '.join(map(str, _PIXELS))}, as only CIFAR's pixel statistics are known"
        )
    return classes


def _epochs(checkpoint: Mapping[str, Any]) -> int:
    """Return the number of epochs; Lightning stores the index of the last one."""
    return _count(checkpoint, "epoch") + 1 if "epoch" in checkpoint else 0


def _count(checkpoint: Mapping[str, Any], name: str) -> int:
    value = checkpoint.get(name)
    return value if isinstance(value, int) else 0
