"""Data sheets of devices, so that plans can be made without access to them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A vendor's data: dense peaks in 10^12 operations/s, bandwidth in 10^12 bytes/s, GB.

    Attributes:
        title: of the device.
        reported: its name in the driver.
        bf16, tf32: of tensor cores, without sparsity.
        fp32: of the ordinary units, which run fp32 matrix products by default.
        bandwidth: of its memory; `memory` is its size.
    """

    title: str
    reported: str
    bf16: float
    tf32: float
    fp32: float
    bandwidth: float
    memory: float


# NVIDIA's data sheets of the H100, H200 (both SXM) and A100 (80 GB, SXM); where a sheet states
# peaks with sparsity, half of these. Their double precision rate is half of fp32, as is assumed
# wherever work is counted: no rate of its own is measured. Cards for games have a 64th, so that
# plans for them miss seconds of whitenings and of fair probes with few labels.
SHEETS: Mapping[str, Sheet] = {
    "h100": Sheet(
        title="NVIDIA H100 SXM",
        reported="NVIDIA H100 80GB HBM3",
        bf16=989.4,
        tf32=494.7,
        fp32=66.9,
        bandwidth=3.35,
        memory=80.0,
    ),
    "h200": Sheet(
        title="NVIDIA H200 SXM",
        reported="NVIDIA H200",
        bf16=989.4,
        tf32=494.7,
        fp32=66.9,
        bandwidth=4.8,
        memory=141.0,
    ),
    "a100-80gb": Sheet(
        title="NVIDIA A100 80 GB SXM",
        reported="NVIDIA A100-SXM4-80GB",
        bf16=312.0,
        tf32=156.0,
        fp32=19.5,
        bandwidth=2.039,
        memory=80.0,
    ),
}
