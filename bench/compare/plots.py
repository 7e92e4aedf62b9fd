"""SVG plots from compare.json and growth.json in the directory named; run by report.py in matplotlib's venv."""

import json
import os
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first)

# The same bytes for the same figures: no dates, no random ids.
matplotlib.rcParams["svg.hashsalt"] = "pinion"
BARS = {
    "compare-cpu": [("handshake_us", "us CPU per handshake"), ("echo_us", "us CPU per echo"),
                    ("fanout_us", "us CPU per frame, fan-out"), ("coalesced_us", "us CPU per frame, 16 waiting")],
    "compare-memory": [("user_bytes", "user bytes per idle connection"),
                       ("kernel_bytes", "kernel bytes per idle connection")],
}
LINES = {
    "growth-memory": [("user_bytes", "user bytes / 1e6", 1e-6), ("kernel_bytes", "kernel bytes / 1e6", 1e-6)],
    "growth-cpu": [("cpu_seconds_per_1000_idle_s", "CPU ms per s and 1 000 connections", 1e3),
                   ("handshake_cpu_us", "CPU us per handshake", 1)],
    "growth-latency": [("push_p50_us", "push p50, us", 1), ("push_p99_us", "push p99, us", 1)],
}


def save(figure, directory, name):
    """One SVG."""
    figure.tight_layout()
    figure.savefig(os.path.join(directory, f"{name}.svg"), metadata={"Date": None})
    plt.close(figure)


def bars(document, directory):
    """Medians as bars, least and largest as whiskers."""
    for name, columns in BARS.items():
        figure, axes = plt.subplots(1, len(columns), figsize=(4.2 * len(columns), 4), squeeze=False)
        for axis, (key, title) in zip(axes[0], columns):
            found = [(server, got[key]) for server, got in document["summary"].items() if got.get(key)]
            middle = [got["median"] for _, got in found]
            below = [got["median"] - got["min"] for _, got in found]
            above = [got["max"] - got["median"] for _, got in found]
            colours = ["#c2452d" if server.startswith("pinion") else "#4a6fa5" for server, _ in found]
            axis.barh([server for server, _ in found], middle, xerr=[below, above], color=colours, ecolor="#333333")
            axis.set_title(title, fontsize=10)
            axis.invert_yaxis()
        save(figure, directory, name)


def lines(growth, directory):
    """Each engine and number of shards over connections."""
    series = sorted({(entry["engine"], entry["shards"]) for entry in growth})
    for name, columns in LINES.items():
        figure, axes = plt.subplots(1, len(columns), figsize=(5 * len(columns), 3.6), squeeze=False)
        for axis, (key, title, factor) in zip(axes[0], columns):
            for engine, shards in series:
                points = [(entry["connections"], entry[key] * factor) for entry in growth
                          if (entry["engine"], entry["shards"]) == (engine, shards) and entry[key] is not None]
                axis.plot(*zip(*points) if points else ([], []), marker="o", label=f"{engine}, {shards} shard(s)")
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("connections")
            axis.set_ylim(bottom=0)
            axis.legend(fontsize=8)
        save(figure, directory, name)


def main():
    """Draws what there is."""
    directory = sys.argv[1]
    for name, draw in (("compare.json", bars), ("growth.json", lines)):
        path = os.path.join(directory, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                draw(json.load(file), directory)


if __name__ == "__main__":
    main()
