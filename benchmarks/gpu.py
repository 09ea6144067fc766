"""Everything that is asked of one GPU, in one call.

``python -m benchmarks.gpu [MODALITY...] [--peak TFLOP/s] [--small]``: for the base models with batches that fill a GPU,
steps of versions 1 and 2, as written and compiled, beside the same version 1 model of ``transformers``' classes where
those are installed; model FLOP utilisation against the stated peak; what a sample costs in version 2 and in version 1
at the same number of masks; whether a step waits for the device; and where its time goes. Needs what training needs.
``--small`` tries all of it in seconds, on a CPU too.
"""

import argparse
import importlib.util
import statistics
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.steps import DEVICE, VIEWS, Job, Load, assembled, matrix_rate, ours, timed

PEAKS = {"H100": 989.0, "H200": 989.0, "B200": 2250.0, "A100": 312.0}  # TFLOP/s in dense bfloat16, by their maker
WARM, REPEATS, GIB = 3, 10, 2**30
LOADS = {"speech": Load(16, 240_000), "vision": Load(128, 224), "text": Load(32, 512)}  # version 2: a quarter of it
SMALL_LOADS = {"speech": Load(4, 16_000), "vision": Load(4, 224), "text": Load(4, 32)}
SMALL = {
    "model": {"trunk": {"width": 32, "depth": 2, "heads": 2, "feedforward": 64}},
    "pretrain": {"objective": {"targets": {"layers": 2}}},
}
LOCAL = {"speech": {"local": {"channels": 16}}}


def jobs(name: str, small: bool) -> list[tuple[int, Callable[[], Job]]]:
    """Return the samples of every job and what makes it: memory holds one at a time."""
    load, changes = LOADS[name], None
    if small:
        load, changes = SMALL_LOADS[name], {**SMALL, "model": {**SMALL["model"], **LOCAL.get(name, {})}}
    fewer = Load(load.samples // 4, load.length)
    made: list[tuple[int, Callable[[], Job]]] = []
    if importlib.util.find_spec("transformers"):
        for precision in ("float32", "bfloat16"):
            made.append((load.samples, lambda p=precision: assembled(name, p, load, changes)))
    for version, size in ((1, load), (2, fewer)):
        for compiled in (False, True)[: 1 if small else 2]:
            made.append((size.samples, lambda v=version, s=size, c=compiled: ours(name, v, "bfloat16", s, changes, c)))
    return made


def measure(name: str, peak: float, small: bool) -> dict[str, float]:
    """Print a row for every step of a modality, and return the seconds of a sample by the name of the step."""
    print(f"\n{name}\n| step | samples | ms | samples/s | TFLOP/s | MFU | peak GiB | waits for the device |")
    print("|---|---|---|---|---|---|---|---|")
    seconds = {}
    tables = []
    for samples, make in jobs(name, small):
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        job = make()
        spent = median(job, 1 if small else REPEATS)
        held = torch.cuda.max_memory_allocated() / GIB if DEVICE.type == "cuda" else 0.0
        rate = job.operations / spent / 1e12
        seconds[job.name] = spent / samples
        first = f"| {job.name} | {samples} | {1e3 * spent:.1f} | {samples / spent:.0f} | {rate:.3g} "
        print(first + f"| {rate / peak:.1%} | {held:.1f} | {waits(job)} |", flush=True)
        tables.append((job.name, where_time_goes(job)))
    for title, table in tables:
        print(f"\n{name}, {title}: where the time of a step goes\n{table}", flush=True)
    return seconds


def median(job: Job, repeats: int) -> float:
    """Return the median seconds of a step after a few to warm up."""
    for _ in range(WARM):
        timed(job.step)
    return statistics.median(timed(job.step) for _ in range(repeats))


def waits(job: Job) -> str:
    """Return where the first wait for the device in a step is, or no."""
    if DEVICE.type != "cuda":
        return "no GPU"
    torch.cuda.set_sync_debug_mode("error")
    try:
        job.step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no"


def where_time_goes(job: Job, rows: int = 12) -> str:
    """Return a table of the operations that take most of a step."""
    gpu = DEVICE.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as seen:
        timed(job.step)
    key = "self_device_time_total" if gpu else "self_cpu_time_total"
    spent = sorted(((getattr(event, key), event.count, event.key) for event in seen.key_averages()), reverse=True)
    total = sum(each for each, _, _ in spent) or 1
    lines = [f"| {each / total:.1%} | {each / 1e3:.2f} | {count} | {name[:90]} |" for each, count, name in spent[:rows]]
    return "\n".join(["| share | ms | calls | operation |", "|---|---|---|---|", *lines])


def summarise(name: str, seconds: dict[str, float]) -> None:
    """Print the ratios that matter: against transformers' classes, and of the two versions at equal masks."""
    best = {version: min(s for job, s in seconds.items() if f"version {version}" in job) for version in (1, 2)}
    for job, each in seconds.items():
        if job.startswith("transformers"):
            print(f"{name}: version 1 is {each / best[1]:.2f} × as fast as {job}")
    print(
        f"{name}: {VIEWS} masks of a sample cost {VIEWS * best[1] / best[2]:.2f} × less in version 2 than in version 1"
    )


def stated_peak() -> float | None:
    """Return the peak that the maker states for this device, in TFLOP/s, where it is a known one."""
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else ""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="All that is asked of one GPU.")
    parser.add_argument("modalities", nargs="*", choices=LOADS)
    parser.add_argument("--peak", type=float, help="TFLOP/s of this device in bfloat16")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the script itself")
    asked = parser.parse_args(arguments)
    measured = matrix_rate(torch.bfloat16) / 1e12
    peak = asked.peak or stated_peak() or measured
    torch.set_float32_matmul_precision("high")  # TensorFloat-32, for both sides
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else DEVICE.type
    print(f"{device}, torch {torch.__version__}; matrix products {measured:.3g} TFLOP/s, peak taken as {peak:.4g}")
    for name in asked.modalities or LOADS:
        summarise(name, measure(name, peak, asked.small))


if __name__ == "__main__":
    main()
