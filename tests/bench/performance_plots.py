"""The plots of docs/performance.md: dots on a logarithmic axis, each with its number beside it.

Dots and not bars, since a bar's length means nothing on such an axis. bulkhead is told from floors and peers by colour
and by shape, in colours that all kinds of eyes can tell apart.
"""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from performance_results import duration

BLUE, GREY, ORANGE, INK, RULE = "#0072B2", "#8a8a8a", "#D55E00", "#222222", "#e3e3e3"

plt.rcParams.update({
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.hashsalt": "bulkhead",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": "#bbbbbb",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": "#666666",
    "ytick.color": INK,
    "figure.facecolor": "white",
})


def look(who, floors):
    """Colour, marker, fill."""
    if who == "bulkhead":
        return BLUE, "D", BLUE
    if who.startswith("bulkhead"):
        return BLUE, "D", "white"
    if who in floors:
        return GREY, "o", "white"
    return ORANGE, "o", ORANGE


def dots(axes, order, found, floors, text, tails=False):
    """One line for each of `order`, the first on top."""
    for y, who in enumerate(reversed(order)):
        axes.axhline(y, color=RULE, linewidth=0.8, zorder=0)
        each = found.get(who)
        if each is None:
            continue
        colour, marker, fill = look(who, floors)
        if tails and each.get("p99"):
            axes.plot([each["value"], each["p99"]], [y, y], color=colour, linewidth=1.4, alpha=0.55, zorder=1)
            axes.plot([each["p99"]], [y], marker="|", color=colour, markersize=6, zorder=1)
        axes.plot([each["value"]], [y], marker=marker, color=colour, markerfacecolor=fill, markersize=6.5, zorder=2)
        # In a column of its own: beside the dot it would lie on the line.
        axes.annotate(text(each["value"]), (1, y), xycoords=axes.get_yaxis_transform(), va="center", ha="right",
                      fontsize=8.5, color=colour if who.startswith("bulkhead") else INK,
                      fontweight="bold" if who == "bulkhead" else "normal",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2}, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value).replace(".00", "").replace(".0", "")))
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_yticks(range(len(order)), list(reversed(order)))
    axes.tick_params(axis="both", length=0)
    for label in axes.get_yticklabels():
        if label.get_text() == "bulkhead":
            label.set_fontweight("bold")
            label.set_color(BLUE)
        elif label.get_text() in floors:
            label.set_color("#777777")
            label.set_fontstyle("italic")


def limit(all_axes, room):
    """The same scale for all of them, with room on the right for the column of numbers."""
    low = min(axes.get_xlim()[0] for axes in all_axes)
    high = max(axes.get_xlim()[1] for axes in all_axes)
    for axes in all_axes:
        axes.set_xlim(low, high * (high / low) ** room)


def finish(figure, file, note):
    figure.text(0.01, 0.012, note, fontsize=7.5, color="#666666", ha="left", va="bottom")
    figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else {})
    plt.close(figure)


def panels(results, works, floors, file, titles, text, note, tails=False):
    found = [{r["who"]: r for r in results.of(work)} for work in works]
    everyone = {who for each in found for who in each}
    order = sorted(everyone, key=lambda who: found[1][who]["value"] if who in found[1] else 0)
    figure, all_axes = plt.subplots(1, len(works), sharey=True, figsize=(10, 0.8 + 0.3 * len(order)))
    for axes, title, values in zip(all_axes, titles, found):
        dots(axes, order, values, floors, text, tails)
        axes.set_title(title, fontsize=9.5, loc="left")
    for group in [all_axes] if tails else [[axes] for axes in all_axes]:
        limit(group, 0.3)
    figure.tight_layout(rect=(0, 0.045, 1, 1), w_pad=1.5)
    finish(figure, file, note)


KEY = "Blue: bulkhead; orange: peers; hollow grey: floors, which protect from nothing"


def latency(results, works, floors, file):
    panels(results, works, floors, file, [f"16-byte call, {work.split(', ')[1]}" for work in works], duration,
           f"Dot: median; line: to p99. Logarithmic. {KEY}.", tails=True)


def payload(results, works, floors, file):
    panels(results, works, floors, file, [f"{work} there and back" for work in works], duration,
           f"Median. Logarithmic. {KEY}.")


def single(results, work, floors, text, title, file, larger_is_better=False):
    found = {r["who"]: r for r in results.of(work)}
    order = sorted(found, key=lambda who: found[who]["value"], reverse=larger_is_better)
    figure, axes = plt.subplots(figsize=(7.5, 0.8 + 0.3 * len(order)))
    dots(axes, order, found, floors, text)
    axes.set_title(title, fontsize=9.5, loc="left")
    limit([axes], 0.14)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    finish(figure, file, f"{'Right' if larger_is_better else 'Left'} is better. Logarithmic. {KEY}.")


def bytes_text(count):
    return f"{count // 1024} KiB" if count >= 1024 else f"{count} B"


def sizes(found, threshold, file):
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    for key, name, colour, marker, fill in (("floor", "spinning and copying", GREY, "o", "white"),
                                            ("message", "in the message", BLUE, "D", BLUE),
                                            ("blob", "by blob", BLUE, "D", "white")):
        points = [(each["size"], each[key]) for each in found if each.get(key)]
        axes.plot(*zip(*points), color=colour, marker=marker, markerfacecolor=fill, linewidth=1.4, markersize=6, label=name)
    axes.axvline(threshold, color=RULE, linewidth=3, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([each["size"] for each in found])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(int(value))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value).replace(".00", "").replace(".0", "")))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title("call with an argument of so many bytes", fontsize=9.5, loc="left")
    axes.legend(frameon=False, fontsize=8.5)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    finish(figure, file, "Median. Both axes logarithmic. Grey: where blobs begin by default; hollow grey: a floor, which "
                         "protects from nothing.")
