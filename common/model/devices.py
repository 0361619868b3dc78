"""Device and precision of the frozen base model, and the memory that this process took."""

import resource
import sys

import torch

from confide.common.errors import InputError


def choose_devices(names: str) -> list[torch.device]:
    """Return the devices for a setting of one name, or of several GPUs separated by commas.

    Raises:
        InputError: a device that this machine does not have, that stands there twice, or that is no GPU among several.
    """
    devices = [choose_device(name.strip()) for name in names.split(",")]
    numbered = all(each.type == "cuda" and each.index is not None for each in devices)
    if len(devices) > 1 and not (numbered and len(set(devices)) == len(devices)):
        raise InputError(f"device = {names!r}: several must be different GPUs with their numbers, 'cuda:0,cuda:1'")
    return devices


def choose_device(name: str) -> torch.device:
    """Return the device for a setting of "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"device = {name!r} must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"device = {name!r} is not on this machine; use 'auto' or 'cpu'") from None
    return device


def base_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the precision for "float32", "bfloat16" or "auto", which is bfloat16 if the hardware multiplies it faster.

    On a CPU that means AMX tiles: with AVX-512 alone, bfloat16 measured 0.6 times the speed of float32
    (docs/decisions.md). All that is trained, clipped, noised or averaged is float32 everywhere.
    """
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def peak_memory_mb() -> float:
    """Return the most memory that this process had so far, in MB, without a GPU's."""
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def gpu_peak_mb() -> float:
    """Return the most memory that tensors of this process took on one GPU, in MB; 0 if it used none."""
    return max(map(torch.cuda.max_memory_allocated, _gpus()), default=0) / 2**20


def forget_gpu_peak() -> None:
    """Let `gpu_peak_mb` begin anew, with what the GPUs hold now."""
    for number in _gpus():
        torch.cuda.reset_peak_memory_stats(number)


def _gpus() -> range:
    """Return the numbers of the GPUs that this process can have used."""
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)  # type: ignore[no-untyped-call]


def peak_memory() -> str:
    """Return `peak_memory_mb` in words, with `gpu_peak_mb` if a GPU was used."""
    own, on_gpu = peak_memory_mb(), gpu_peak_mb()
    return f"{own:,.0f} MB and {on_gpu:,.0f} MB on the GPU" if on_gpu else f"{own:,.0f} MB"
