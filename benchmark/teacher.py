"""A frozen network that gives representations, and its file.

The file is a safetensors file (`benchmark.artifacts`) with the backbone's weights and, if
representations are standardised, their mean and standard deviation; its header records how it was
made. Nothing in it is ever unpickled.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from benchmark import artifacts, views
from benchmark.network import Network, Precision
from benchmark.progress import bar
from benchmark.settings import as_tuples
from benchmark.spec import ImageShape, NewNetwork, Represent, UsageError

BACKBONE = "backbone."  # prefix of the names of its weights
_MEAN, _STD = "representation.mean", "representation.std"
BATCH = 1024  # images in a forward pass, enough to saturate a device


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherHeader:
    """What a teacher is and how it was made.

    Attributes:
        kind, settings: the plug-in that pretrained it, and all its fields.
        seed: of the generator that it was pretrained with.
        model, model_settings: its backbone.
        image_shape: channels, height and width of its input images.
        d: length of a representation.
        mean, std: per-channel pixel statistics for normalisation.
        source, fingerprint: name and hash of the dataset that it was pretrained on.
        precision: of the backbone in pretraining.
        steps, seconds: length of pretraining.
        held_out: accuracies in percent on a held-out tenth of the source, see `pretrain_teacher`.
        provenance: see `benchmark.provenance`.
    """

    kind: str
    settings: dict[str, Any]
    seed: int
    model: str
    model_settings: dict[str, Any]
    image_shape: tuple[int, int, int]
    d: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    fingerprint: str
    precision: Precision
    steps: int
    seconds: float
    held_out: dict[str, float]
    provenance: dict[str, str]


class Teacher:
    """Represents images: the harness's `spec.Represent`.

    Attributes:
        header: what it is and how it was made.
        network: frozen, in evaluation mode; its head is not used.
        statistics: mean and standard deviation for standardising representations, or None.
    """

    def __init__(
        self,
        network: Network,
        header: TeacherHeader,
        statistics: tuple[Float[Tensor, " d"], Float[Tensor, " d"]] | None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.header = header
        self.statistics = statistics

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return representations of images in [0, 1]."""
        representations = self.network.features(images)
        if self.statistics is None:
            return representations
        mean, std = self.statistics
        return (representations - mean) / std


@torch.no_grad()
def represent_all(
    represent: Represent, images: UInt8[Tensor, "n c h w"], view: str = "identity"
) -> Float[Tensor, "n d"]:
    """Return representations of all images under a predefined view, in chunks."""
    made = []
    with bar(total=len(images), description=f"represent images, view {view}") as progress:
        for chunk in images.split(BATCH):
            made.append(represent(views.apply(view, chunk.float() / 255)))
            progress.update(len(chunk))
    return torch.cat(made)


def save_teacher(file: Path, teacher: Teacher) -> None:
    """Write a teacher to a file, with weights in the precision of the setting `storage`."""
    half = teacher.header.settings["storage"] == "fp16"
    tensors = {
        BACKBONE + name: tensor.half() if half and tensor.is_floating_point() else tensor
        for name, tensor in teacher.network.backbone.state_dict().items()
    }
    if teacher.statistics is not None:
        tensors[_MEAN], tensors[_STD] = teacher.statistics
    artifacts.write(file, tensors, asdict(teacher.header))


def load_teacher(file: Path, new_network: NewNetwork, shape: ImageShape) -> Teacher:
    """Return the teacher in a file, as a network that `new_network` makes.

    Device and precision are those of `new_network`; the pixel statistics are the teacher's own.

    Args:
        file: written by `save_teacher`.
        new_network: makes the backbone that the weights are loaded into.
        shape: of the images to represent.

    Raises:
        UsageError: the file is damaged or not a teacher file, its weights do not fit its model, or
            the teacher takes images of another shape.
    """
    tensors, content = artifacts.read(file)
    return assemble(file, tensors, _header(file, content), new_network, shape)


def assemble(
    file: Path,
    tensors: Mapping[str, Tensor],
    header: TeacherHeader,
    new_network: NewNetwork,
    shape: ImageShape,
) -> Teacher:
    """Return the teacher that a file's tensors and header describe, see `load_teacher`.

    Raises:
        UsageError: they do not match each other, or this image shape; the message names `file`.
    """
    expect_shape(file, header.image_shape, shape)
    try:
        network = new_network(header.model, 1, torch.Generator(), **header.model_settings)
    except Exception as error:  # of settings that a model does not expect; it can be anything
        raise UsageError(
            f"{file}: header says model = {header.model!r} and model_settings = "
            f"{header.model_settings}: {' '.join(str(error).split())}"
        ) from error
    _load_backbone(file, network, header, tensors)
    statistics = None
    if header.settings["standardise"]:
        mean, std = (_vector(file, tensors, name, header.d) for name in (_MEAN, _STD))
        statistics = mean.to(network.mean), std.to(network.mean)
    return Teacher(network, header, statistics)


def expect_shape(file: Path, taken: tuple[int, int, int], shape: ImageShape) -> None:
    """Raise a UsageError if the teacher of a file takes images of another shape."""
    if taken != astuple(shape):
        takes, given = ("x".join(map(str, sizes)) for sizes in (taken, astuple(shape)))
        raise UsageError(f"{file}: this teacher takes {takes} images, not {given}")


def teacher_identity(file: Path) -> dict[str, Any]:
    """Return everything in a teacher file that representations depend on, weights as a hash."""
    header = _header(file, artifacts.read_header(file))
    return {
        "weights": artifacts.fingerprint(file),
        "model": header.model,
        "model_settings": header.model_settings,
        "image_shape": header.image_shape,
        "mean": header.mean,
        "std": header.std,
        "standardise": header.settings["standardise"],
    }


def shipped_teachers() -> dict[str, Path]:
    """Return the teacher files that are part of this package, by name."""
    assets = Path(__file__).parent / "assets"
    return {file.stem: file for file in sorted(assets.glob("*.safetensors"))}


def _load_backbone(
    file: Path, network: Network, header: TeacherHeader, tensors: Mapping[str, Tensor]
) -> None:
    """Copy stored weights and pixel statistics into a network, which must match exactly."""
    weights = {
        name.removeprefix(BACKBONE): tensor
        for name, tensor in tensors.items()
        if name.startswith(BACKBONE)
    }
    own = network.backbone.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        stored, expected = (_shape_of(state.get(name)) for state in (weights, own))
        if stored != expected:
            raise UsageError(
                f"{file}: weight {name} is {stored}, but {expected} in its model {header.model}"
            )
    num_channels = network.mean.numel()
    if header.d != network.num_features or not len(header.mean) == len(header.std) == num_channels:
        raise UsageError(
            f"{file}: header says d = {header.d} and pixel mean {header.mean}, std {header.std}, "
            f"which does not fit its model {header.model}"
        )
    network.backbone.load_state_dict(weights)
    network.mean.copy_(torch.tensor(header.mean).view_as(network.mean))
    network.std.copy_(torch.tensor(header.std).view_as(network.std))


def _shape_of(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else "x".join(map(str, tensor.shape)) or "one number"


def _vector(
    file: Path, tensors: Mapping[str, Tensor], name: str, length: int
) -> Float[Tensor, " d"]:
    if name not in tensors or tensors[name].shape != (length,):
        raise UsageError(f"{file}: {name} is {_shape_of(tensors.get(name))}, expected {length}")
    return tensors[name]


def _header(file: Path, content: Mapping[str, Any]) -> TeacherHeader:
    """Read a header, and validate what loading needs."""
    names = [field.name for field in fields(TeacherHeader)]
    missing = [name for name in names if name not in content]
    if missing:
        raise UsageError(f"{file}: not a teacher file, its header lacks {', '.join(missing)}")
    values = {name: as_tuples(content[name]) for name in names}
    for name, expected in _EXPECTED.items():
        if not isinstance(values[name], expected):
            raise UsageError(
                f"{file}: header says {name} = {values[name]!r}, expected {expected.__name__}"
            )
    for name in ("mean", "std", "held_out"):
        found = values[name]
        numbers = found.values() if isinstance(found, dict) else found
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise UsageError(f"{file}: header says {name} = {found!r}, expected numbers")
    if not all(number > 0 for number in values["std"]):
        raise UsageError(f"{file}: header says std = {values['std']!r}, expected numbers above 0")
    for name in ("standardise", "storage"):
        if name not in values["settings"]:
            raise UsageError(f"{file}: not a teacher file, its settings lack {name}")
    return TeacherHeader(**values)


_EXPECTED = {
    "kind": str,
    "source": str,
    "seconds": float,
    "held_out": dict,
    "settings": dict,
    "model": str,
    "model_settings": dict,
    "image_shape": tuple,
    "d": int,
    "mean": tuple,
    "std": tuple,
}
