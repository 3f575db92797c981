"""The results as pictures, if matplotlib is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.subjects import LABELS


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what was measured into the folder; gives the files."""
    try:
        import matplotlib

        matplotlib.use("svg")
    except ImportError:
        return []
    made = []
    if "throughput" in results:
        made.append(_throughput(results["throughput"], folder / "throughput.svg"))
    if "lengths" in results:
        made.append(_lengths(results["lengths"], folder / "lengths.svg"))
    return made


def _throughput(result: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    loads = [name for name in result if name.endswith("-8")]
    figure, axes = pyplot.subplots(1, len(loads), figsize=(5 * len(loads), 2.6), squeeze=False)
    for axis, load in zip(axes[0], loads, strict=True):
        names = list(reversed(result[load]))
        rates = [result[load][name]["per_s"] for name in names]
        colors = ["#c2410c" if name == "recollect" else "#a8a29e" for name in names]
        bars = axis.barh([LABELS[name] for name in names], rates, color=colors)
        axis.bar_label(bars, [f"{rate:.0f}" for rate in rates], padding=3)
        axis.set_title(f"{load.removesuffix('-8')}, turns per second")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    return _save(figure, path)


def _lengths(result: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3))
    for endpoint, one in result.items():
        axis.plot([f"{int(nth):,}" for nth in one], [cost["ms_ratio"] for cost in one.values()], "o-", label=endpoint)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("turn of the session")
    axis.set_title("Time of a turn, relative to the first")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path)
    return path
