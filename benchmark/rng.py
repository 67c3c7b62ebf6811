"""Named seeds: a random stream is identified by a name, not by a place in the program."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor


def seed(*names: str | int) -> int:
    """Return a 63-bit seed that depends only on `names`.

    ``seed("krr-st", "cifar100", 0, "outer")`` stays the same whatever else a run does, so adding a
    method or a student never changes another's numbers.
    """
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator on `device`, seeded by `names`."""
    return torch.Generator(device).manual_seed(seed(*names))


def part(n: int, share: int, *names: str) -> Bool[Tensor, " n"]:
    """Return a mask of a random `share`-th of n items, always the same for equal names."""
    order = torch.randperm(n, generator=generator(*names))
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[order[: n // share]] = True
    return chosen


@contextmanager
def global_stream(like: torch.Generator) -> Iterator[None]:
    """Seed torch's global stream for layers that take no generator, such as dropout.

    Its seed follows from that of `like`, but its numbers are others; none is drawn from `like`.
    Afterwards the stream of the CPU, and of the device of `like`, is restored.
    """
    devices = [like.device] if like.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed("global stream", like.initial_seed()))
        yield


@contextmanager
def seeded(stream: torch.Generator) -> Iterator[None]:
    """Seed code that takes no generator, such as torch's initialisers, with a draw from `stream`.

    Within the block the global CPU stream is used, whatever the device; afterwards it is restored.
    """
    drawn = torch.randint(2**63 - 1, (), generator=stream, device=stream.device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(drawn))
        yield
