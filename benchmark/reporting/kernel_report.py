"""Kernel timings: a record for a JSON file, and the table and document made from it."""

import os
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch

from benchmark import plugins
from benchmark.compute import Compute
from benchmark.kernel import Measurement
from benchmark.provenance import provenance, short_commit
from benchmark.reporting.table import Cell, Table, number
from benchmark.timing import CLOCKS, Clock, Rates

_FAR = 2.0  # times the floor: kernels above it are listed as far from the floor


def record(
    measurements: Sequence[Measurement],
    *,
    rates: Rates,
    rates_factor: float,
    compute: Compute,
    clock: Clock,
    small: bool,
    twins_apart: bool = False,
    flags: Sequence[str] = (),
) -> dict[str, Any]:
    """Return plain values: the machine, its rates, and all measurements of each kernel.

    Args:
        measurements: of the kernels.
        rates: of the machine.
        rates_factor: by which any of them differed before and after.
        compute: how kernels ran.
        clock: how they were timed.
        small: whether shapes were small ones.
        twins_apart: whether twins ran in processes of their own, where memory is allocated as
            usual.
        flags: of the command, that change what is measured; kernels and `small` apart.
    """
    return {
        "machine": {
            **provenance(compute.device),
            "threads": torch.get_num_threads(),
            "processors": os.cpu_count(),
            "precision": compute.precision,
            "layout": compute.layout,
            "clock": clock.name,
        },
        "small": small,
        "twins_apart": twins_apart,
        "flags": list(flags),
        "operations_per_second": dict(rates.operations),
        "bytes_per_second": rates.copied,
        "rates_factor": rates_factor,
        "kernels": [_kernel(measurement, rates) for measurement in measurements],
    }


def _kernel(measured: Measurement, rates: Rates) -> dict[str, Any]:
    kernel = measured.kernel
    floor = kernel.floor(rates)
    return {
        "name": measured.name,
        "shape": kernel.shape,
        "fast": _timing(measured.fast),
        "plain": _timing(measured.plain),
        "ratio": measured.ratio,
        "predicted": measured.predicted(rates),
        "operations": {rate: n for rate, n in kernel.operations.items() if n},
        "bytes": kernel.num_bytes,
        "floor_seconds": floor.seconds,
        "floor_bound": floor.bound,
        "times_floor": measured.times_floor(rates),
        "deviation": measured.deviation,
        "tolerance": kernel.tolerance,
        "tried": kernel.tried,
    }


def _timing(seconds: Sequence[float]) -> dict[str, Any]:
    return {"median": median(seconds), "seconds": list(seconds)}


def table(recorded: Mapping[str, Any]) -> Table:
    """Return a table with one row for each kernel."""
    return Table(
        name="kernels",
        title="Kernels and their plain twins",
        notes=(
            "Medians, ± half the range over all repetitions. Plain twin: a straightforward "
            "implementation of the same computation. Predicted: the ratio if each took as long as "
            "its operations at these rates, the twin's in its own precision; memory, copies and "
            "calls come on top (–: none, or not counted). Floor: a lower bound, the time of the "
            "operations at the rate of a large matrix product or convolution, or of the bytes at "
            "that of a large copy, whichever is longer. Difference: between the two outputs, "
            "relative to the norm of the twin's; it may be as large as the tolerance."
        ),
        columns=(
            *("kernel", "fast", "plain", "ratio", "predicted", "operations", "bytes", "floor"),
            *("times the floor", "difference", "tolerance"),
        ),
        body=[_line(kernel) for kernel in recorded["kernels"]],
    )


def _line(kernel: Mapping[str, Any]) -> list[Cell]:
    operations = sum(kernel["operations"].values())
    too_much = " (too much)" * (kernel["deviation"] > kernel["tolerance"])
    times_floor = kernel["times_floor"]  # faster than possible: measured beside other processes
    return [
        Cell(kernel["name"]),
        *(
            Cell(f"{_seconds(taken['median'])} ± {_spread(taken):.0%}", value=taken["median"])
            for taken in (kernel["fast"], kernel["plain"])
        ),
        number(kernel["ratio"], "{:.2f}"),
        number(kernel["predicted"], "{:.2f}"),
        Cell(_amount(operations), value=operations),
        Cell(_amount(kernel["bytes"]), value=kernel["bytes"]),
        Cell(f"{_seconds(kernel['floor_seconds'])}, {kernel['floor_bound']}"),
        number(times_floor, "{:.2f}" + " (rates were disturbed)" * (times_floor < 1)),
        number(kernel["deviation"], "{:.1g}" + too_much),
        number(kernel["tolerance"], "{:g}"),
    ]


def machine(recorded: Mapping[str, Any]) -> str:
    """Return one paragraph on where, how and at what rates."""
    place = recorded["machine"]
    rates = ", ".join(
        f"{rate} {_amount(speed)} operations/s"
        for rate, speed in recorded["operations_per_second"].items()
    )
    apart = ""
    if recorded["twins_apart"]:
        apart = " and in processes of their own, which do not keep freed memory"
    elif "--twins-here" in recorded["flags"]:
        apart = " and in the same process, which keeps freed memory"
    return (
        f"{place['device']} of {place['processors']}, torch {place['torch']}, "
        f"backbones in {place['precision']} and {place['layout']}, twins in fp32{apart}; "
        f"{CLOCKS[place['clock']]}. "
        f"Rates: {rates}, copy {_amount(recorded['bytes_per_second'])} bytes/s"
        f"{_steadiness(recorded.get('rates_factor'))}. "
        f"Commit {short_commit(place['commit'])}, {place['finished_at']}."
    )


def _steadiness(factor: float | None) -> str:
    """Say how much the rates changed meanwhile; older records do not tell."""
    return "" if factor is None else f" (before and after alike to a factor of {factor:.2f})"


def document(recorded: Mapping[str, Any]) -> str:
    """Return the whole report in Markdown."""
    kernels = recorded["kernels"]
    timed = [kernel["name"] for kernel in kernels]
    flags = ["--small"] if recorded["small"] else []
    command = " ".join(["python -m benchmark time", *flags, *recorded["flags"]])
    if set(timed) != set(plugins.names("kernels")):
        command += f" --only {','.join(timed)}"
    slow = [kernel["name"] for kernel in kernels if kernel["ratio"] <= 1]
    far = [kernel["name"] for kernel in kernels if kernel["times_floor"] > _FAR]
    parts = [
        "# Kernel timings",
        f"Made by `{command}`. {machine(recorded)}",
        table(recorded).markdown(),
        f"Not faster than the plain twin: {', '.join(slow) or 'none'}. "
        f"Slower than {_FAR:g} times the floor: {', '.join(far) or 'none'}.",
        "## What was tried",
        "Numbers in the following texts, other than those after *Measured*, are of single "
        "experiments during development, on two cores of an AMD EPYC with bf16 instructions unless "
        "another is named; the command does not repeat them.",
        *(_section(kernel) for kernel in kernels),
    ]
    return "\n\n".join(parts) + "\n"


def _section(kernel: Mapping[str, Any]) -> str:
    operations = " + ".join(f"{_amount(n)} ({rate})" for rate, n in kernel["operations"].items())
    known = kernel["predicted"] is not None
    predicted = f" (predicted: {kernel['predicted']:.2f})" if known else ""
    return (
        f"**{kernel['name']}**: {kernel['shape']}. Operations: {operations or 'none'}; bytes: "
        f"{_amount(kernel['bytes'])}. {kernel['tried']} Measured: {kernel['ratio']:.2f} times as "
        f"fast as the twin{predicted}, {kernel['times_floor']:.2f} times the floor."
    )


def _spread(taken: Mapping[str, Any]) -> float:
    """Return half the range, relative to the median."""
    seconds = taken["seconds"]
    return float((max(seconds) - min(seconds)) / 2 / taken["median"])


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _amount(value: int | float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
