"""Time kernels against their plain twins and the machine's floor."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context

import torch

from benchmark import plugins
from benchmark.compute import Compute, find_device
from benchmark.convolutions import choose
from benchmark.files import expect_writable, write_text
from benchmark.kernel import Kernel, Measurement, measure
from benchmark.provenance import remember_code
from benchmark.reporting.kernel_report import document, machine, record, table
from benchmark.spec import UsageError
from benchmark.tf32 import choose_tf32
from benchmark.timing import Clock, measure_rates

_DISTURBED = 1.5  # factor between rates before and after, on a machine that does nothing else


def main(arguments: argparse.Namespace) -> int:
    """Print a table of kernels; write the measurements to files if requested.

    Returns:
        1 if any kernel's output differs from its twin's by more than the tolerance, else 0.
    """
    for file in filter(None, (arguments.json, arguments.report)):
        expect_writable(file)
    if arguments.json and arguments.json == arguments.report:
        raise UsageError(f"--json and --report {arguments.json}: expected two files")
    names = arguments.only or tuple(plugins.names("kernels"))
    for name in names:
        plugins.load("kernels", name)  # reports an unknown name before anything is timed
    device = find_device(arguments.device)
    choose_tf32()
    remember_code()
    precision, layout = choose(
        device, arguments.store, precision=arguments.precision, layout=arguments.layout
    )
    compute = Compute(device, precision, layout, threads=torch.get_num_threads())
    clock = Clock(device=device)
    rates = measure_rates(clock)
    # This process keeps freed memory (`benchmark.allocation`), which is one of the optimisations.
    apart = device.type == "cpu" and not (arguments.small or arguments.twins_here)
    measured = [
        _measure(name, compute, small=arguments.small, apart=apart, clock=clock) for name in names
    ]
    after = measure_rates(clock)
    if (factor := rates.factor(after)) > _DISTURBED:
        sys.stderr.write(
            f"The rates before and after differ by a factor of {factor:.2f}: was the machine busy "
            "with anything else? Then these timings say little.\n"
        )
    found = record(
        measured,
        rates=rates.faster(after),
        rates_factor=factor,
        compute=compute,
        clock=clock,
        small=arguments.small,
        twins_apart=apart,
        flags=_flags(arguments),
    )
    if arguments.json:
        write_text(arguments.json, json.dumps(found, indent=1) + "\n")
    if arguments.report:
        write_text(arguments.report, document(found))
    sys.stdout.write(f"{table(found).markdown()}\n\n{machine(found)}\n")
    return int(any(m.deviation > m.kernel.tolerance for m in measured))


def _flags(arguments: argparse.Namespace) -> list[str]:
    """Return the flags that were given and decide where and how kernels run."""
    given = {
        "device": None if arguments.device == "auto" else arguments.device,
        "precision": arguments.precision,
        "layout": arguments.layout,
    }
    flags = [f"--{name} {value}" for name, value in given.items() if value]
    return flags + ["--twins-here"] * arguments.twins_here


def _measure(name: str, compute: Compute, *, small: bool, apart: bool, clock: Clock) -> Measurement:
    """Measure a kernel; its twin has a process of its own if it is to be `apart`."""
    kernel = plugins.load("kernels", name)(compute, small=small)
    with _twin(name, compute) if apart else nullcontext() as plain:
        found = measure(name, kernel, clock=clock, plain=plain)
    sys.stderr.write(f"{name}: {found.ratio:.2f}, differs by {found.deviation:.1g}\n")
    return found


@contextmanager
def _twin(name: str, compute: Compute) -> Iterator[Callable[[], float]]:
    """Yield a timer of a kernel's twin in a process of its own, warmed up."""
    start = (name, compute, torch.get_num_threads())
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_start, initargs=start) as pool:
        timer: Callable[[], float] = lambda: pool.submit(_time_twin).result()  # noqa: E731
        timer()
        yield timer


_kernel: Kernel


def _start(name: str, compute: Compute, threads: int) -> None:
    """Prepare the process of a twin."""
    global _kernel
    torch.set_num_threads(threads)
    _kernel = plugins.load("kernels", name)(compute, small=False)


def _time_twin() -> float:
    return Clock(device=torch.device("cpu")).seconds(_kernel.plain)
