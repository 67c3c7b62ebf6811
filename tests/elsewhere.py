"""A device that is not there: its tensors say that they are elsewhere, and live on the CPU.

What a GPU asks of code, and no number shows, can be tried without one: that no operation is given
tensors of two devices or a generator of another, and where the host waits for the device. Numbers
are those of the CPU, to the bit.
"""

import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import benchmark
from benchmark import rng
from tests.tape import INDEXING, tells_the_host

if torch.cuda.is_available():
    # a registered device takes the place of the real one in `torch.accelerator`
    pytest.skip("there is a real device to try", allow_module_level=True)


class _Module(backend_registration._DummyBackendModule):
    """To all that asks for whatever accelerator there is, there is none."""

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend("elsewhere", backend_module=_Module())
aten = torch.ops.aten
CPU, DEVICE = torch.device("cpu"), torch.device("elsewhere:0")


class ElsewhereTensor(Tensor):
    """Says that it is elsewhere; `here` is a tensor on the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "ElsewhereTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of `Elsewhere`")


class ElsewhereGenerator(torch.Generator):
    """Draws elsewhere what one on the CPU draws here."""

    @property
    def device(self) -> torch.device:
        return DEVICE


class Elsewhere:
    """Lets `DEVICE` be used in the block; `waits` counts in what of ours the host waited for it."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self._patches = pytest.MonkeyPatch()
        self._modes = (_Functions(self), _Dispatch(self))

    def __enter__(self) -> "Elsewhere":
        self._patches.setattr(rng, "generator", _generator)
        # under which no view is made of a tensor of our kind
        self._patches.setattr(torch, "inference_mode", torch.no_grad)
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)
        self._patches.undo()

    def wait(self) -> None:
        """Count a wait for the innermost function of `benchmark` that is being run."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            code = frame.f_code
            if _is_ours(code.co_filename) and code.co_name[0] != "<":  # of a comprehension
                self.waits[f"{Path(code.co_filename).stem}.{code.co_name}"] += 1
                return
            frame = frame.f_back


@cache
def _is_ours(file: str) -> bool:
    return Path(benchmark.__file__).parent in Path(file).parents


def _generator(*names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    kind = ElsewhereGenerator if torch.device(device) == DEVICE else torch.Generator
    return kind().manual_seed(rng.seed(*names))


class _Functions(TorchFunctionMode):
    """What goes by none of the operators that a dispatch mode sees."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self.elsewhere = elsewhere

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (generator := kwargs.get("generator")) is not None:
            filled = kwargs.get("out", args[0])
            device = filled.device if isinstance(filled, Tensor) else kwargs.get("device", CPU)
            if torch.device(device) != generator.device:
                raise RuntimeError(f"{func} on {device}: generator on {generator.device}")
        if func == Tensor.data.__set__ and isinstance(args[0], ElsewhereTensor):
            args[0].here = args[1].here
        if func in (torch.tensor, torch.as_tensor) and (device := kwargs.pop("device", None)):
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and isinstance(args[0], ElsewhereTensor):
            return func(args[0].here, *args[1:], **kwargs).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], ElsewhereTensor):
            self.elsewhere.wait()
            return args[0].here.tolist()
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    def __init__(self, elsewhere: Elsewhere) -> None:
        super().__init__()
        self.elsewhere = elsewhere

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        source = DEVICE if any(isinstance(x, ElsewhereTensor) for x in given) else CPU
        target = torch.device(kwargs.get("device") or source)
        operator = func.overloadpacket
        if operator is aten.copy_:
            target, source = args[0].device, args[1].device
        elif operator is not aten._to_copy:
            self._expect_one_device(func, given, source)
        # also to send something there, for which a GPU first finishes what it has to do
        moved = given and source != target
        if moved or (source == DEVICE and tells_the_host(operator, given)):
            self.elsewhere.wait()
        if "device" in kwargs:
            kwargs["device"] = CPU
        outputs = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        known = {id(_here(x)): x for x in given}  # what an operation in place returns
        return tree_map(lambda x: known.get(id(x), _there(x, target)), outputs)

    def _expect_one_device(self, func: Any, given: list[Tensor], device: torch.device) -> None:
        """Scalars may be of the CPU, and so may be indices."""
        if func.overloadpacket in INDEXING:
            given = given[:1]
        if any(x.device != device and x.ndim for x in given):
            raise RuntimeError(f"{func}: tensors of {', '.join(str(x.device) for x in given)}")


def _here(x: Any) -> Any:
    return x.here if isinstance(x, ElsewhereTensor) else x


def _there(x: Any, device: torch.device) -> Any:
    return ElsewhereTensor(x) if isinstance(x, Tensor) and device == DEVICE else x
