"""Fresh networks by name: model plug-ins first, then timm's models, always untrained."""

import ast
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from benchmark import plugins, rng
from benchmark.memory import Chunks
from benchmark.network import Network, Precision
from benchmark.settings import arguments, defaults
from benchmark.source_code import code_of
from benchmark.spec import ImageShape, UsageError
from benchmark.subsampling import subsample_first

# `timm.create_model`'s own arguments, about weights and their source, not the architecture.
_NOT_SETTINGS = {*inspect.signature(timm.create_model).parameters, "num_classes", "in_chans"}


@dataclass(frozen=True, kw_only=True)
class NetworkFactory:
    """Makes networks for one dataset, device and precision: the harness's `spec.NewNetwork`.

    Attributes:
        shape: of the images that the networks will see.
        mean, std: per-channel statistics of the pixels; every network normalises by them.
        precision: of the backbones.
        memory_format: of the backbones' weights and inputs.
        device: where the networks live.
        max_memory: bytes that a stage may take, which networks respect (`benchmark.memory`); None
            means no limit.
    """

    shape: ImageShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: Precision = "fp32"
    memory_format: torch.memory_format = torch.contiguous_format
    device: torch.device | str = "cpu"
    max_memory: int | None = None

    def __call__(
        self, model: str, num_outputs: int, generator: torch.Generator, **settings: Any
    ) -> Network:
        """Return a network of `model` with fresh weights and a head of `num_outputs`.

        The weights depend only on the model, its settings and `generator`: they are always made on
        the CPU, and the global random state is not changed.

        Args:
            model: a model plug-in, or any model of timm.
            num_outputs: of the head.
            generator: on any device; one number is drawn from it.
            **settings: of the model; text is parsed to the annotated type.

        Raises:
            UsageError: no such model, no such setting, or an unsupported image size.
        """
        with rng.seeded(generator):
            backbone, num_features = self._backbone(model, settings)
            network = Network(
                backbone,
                num_features,
                num_outputs,
                mean=self.mean,
                std=self.std,
                precision=self.precision,
            )
        if self.max_memory is not None:
            network.chunks = Chunks(self.max_memory)
        return network.to(self.device).use_memory_format(self.memory_format)

    def _backbone(self, model: str, settings: Mapping[str, Any]) -> tuple[nn.Module, int]:
        """Return a backbone and its number of features."""
        values = model_settings(model, settings)
        if _is_plugin(model):
            backbone = plugins.load("models", model)(self.shape, **values)
            num_features = getattr(backbone, "num_features", None)
            if not isinstance(num_features, int):
                raise UsageError(f"model {model}: its backbone has no num_features")
        else:
            backbone = _from_timm(model, self.shape, values)
            num_features = _count_features(model, backbone, self.shape)
        for module in backbone.modules():
            if hasattr(module, "fused_attn"):  # timm's fused attention has no second derivative
                module.fused_attn = False
        subsample_first(backbone)
        return backbone, num_features


def _is_plugin(model: str) -> bool:
    return model in plugins.names("models")


def is_model(name: str) -> bool:
    """Say whether there is a model of this name, a plug-in or timm's."""
    return _is_plugin(name) or bool(timm.is_model(name))


def model_code(name: str) -> tuple[str, str | None]:
    """Return hashes of the code that makes and runs networks, and of a model's own.

    timm's models have none of their own: its version is in every key anyway.
    """
    return code_of(__name__), plugins.code_of("models", name) if _is_plugin(name) else None


def model_defaults(model: str) -> dict[str, Any]:
    """Return the default settings of a model; those of timm's models are not known."""
    return defaults(plugins.load("models", model)) if _is_plugin(model) else {}


def model_settings(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a model as values, parsing text.

    Raises:
        UsageError: no such model, or no such setting.
    """
    if _is_plugin(model):
        return arguments(model, plugins.load("models", model), given)
    if not timm.is_model(model):
        raise _unknown(model)
    for name in _NOT_SETTINGS.intersection(given):
        raise UsageError(f"{model}.{name}: expected a setting of the architecture, not this one")
    return {name: _literal(value) for name, value in given.items()}


def _from_timm(model: str, shape: ImageShape, settings: Mapping[str, Any]) -> nn.Module:
    """Build a timm model for images of `shape`, without classifier and pretrained weights."""
    values = dict(settings)
    cfg = timm.get_pretrained_cfg(model)
    if cfg is not None and cfg.fixed_input_size:
        values.setdefault("img_size", (shape.h, shape.w))
    try:
        backbone: nn.Module = timm.create_model(
            model, pretrained=False, num_classes=0, in_chans=shape.c, **values
        )
    except Exception as error:  # timm does not validate settings, and can raise anything
        raise _refused(model, shape, error) from error
    return backbone


def _literal(value: Any) -> Any:
    """Parse text as a Python literal if it is one, as timm's settings declare no types."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (SyntaxError, ValueError):
        return value


@torch.no_grad()
def _count_features(model: str, backbone: nn.Module, shape: ImageShape) -> int:
    """Count the features of a blank image, as timm's `num_features` may precede its head."""
    try:
        features = backbone.eval()(torch.zeros(1, shape.c, shape.h, shape.w))
        (_, num_features) = features.shape
    except Exception as error:
        raise _refused(model, shape, error) from error
    backbone.train()
    return int(num_features)


def _refused(model: str, shape: ImageShape, error: Exception) -> UsageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UsageError(f"timm's {model} on {shape} images: {reason}")


def _unknown(model: str) -> UsageError:
    own = plugins.names("models")
    nearest = difflib.get_close_matches(model, {*own, *timm.list_models()}, n=3)
    hint = f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
    return UsageError(f"unknown model {model!r}: {hint}known: {', '.join(own)}, and timm's models")
