"""From raw reports to bench/RESULTS.md, bench/results/compare.json and growth.json, and the plots.

What always holds: every figure of the page is computed here from reports of pinion-bench; what is said by hand stands
in notes.md and is included as it is. A figure that could not be measured is a dash.
"""

import json
import os
import platform
import subprocess
import sys
import time

import figures
from statistics_of import idle_cpu_us, paired_ratios, slope, summary
from subjects import ROOT

HERE = os.path.dirname(os.path.abspath(__file__))
MATPLOTLIB = "3.10.8"
BOUND = "send-loop"
STRETCH_PEER = "uwebsockets"
UNITS = {  # figure: heading, digits
    "user_bytes": ("user bytes per connection", 0),
    "kernel_bytes": ("kernel bytes per connection", 0),
    "idle_cpu_us": ("CPU us/s per 1 000 idle, ping 24 s", 0),
    "handshake_us": ("CPU us per handshake", 1),
    "echo_us": ("CPU us per echo", 2),
    "echo_per_s": ("echoes/s", 0),
    "fanout_us": ("CPU us per frame", 2),
    "fanout_per_s": ("frames/s", 0),
    "coalesced_us": ("CPU us per frame", 2),
    "coalesced_per_s": ("frames/s", 0),
}


def per_round(runs, subject):
    """{figure: {round: value}} of one subject."""
    found = {}
    rounds = {int(name.rsplit(".", 1)[1]) for name in runs
              if f".{subject}." in name and not name.startswith("growth")}
    for number in rounds:
        run = {name.split(".")[0]: value for name, value in runs.items() if name.endswith(f".{subject}.{number}")}
        for figure, value in of_round(run).items():
            found.setdefault(figure, {})[number] = value
    return found


def of_round(run):
    """All figures that the scenarios of one round give."""
    out = {}
    hold, small, ping = run.get("hold"), run.get("hold-small"), run.get("ping")
    if hold and small:
        few, many = figures.memory(small), figures.memory(hold)
        for kind in ("user", "kernel"):
            out[f"{kind}_bytes"] = slope((small["open"], few[kind]), (hold["open"], many[kind]))
    if hold:
        out["handshake_us"] = (figures.handshake(hold) or {}).get("cpu_us")
    if hold and ping:
        out["idle_cpu_us"] = idle_cpu_us(hold["server"]["cpu_seconds"], hold["seconds"],
                                         ping["server"]["cpu_seconds"], ping["seconds"], ping["open"],
                                         ping["settings"]["ping_seconds"])
    for name, of in (("echo", figures.echo), ("fanout", figures.fanout), ("coalesced", figures.fanout)):
        got = of(run[name]) if name in run else None
        if got:
            out[f"{name}_us"], out[f"{name}_per_s"] = got["cpu_us"], got["per_s"]
            if "frame_bytes" in got:
                out[f"{name}_frame_bytes"] = got["frame_bytes"]
    if "latency" in run:
        out.update({f"push_{key}": value for key, value in (figures.latency(run["latency"]) or {}).items()})
    return out


def number(value, digits=0):
    """With thin groups of three."""
    return f"{value:,.{digits}f}".replace(",", " ")


def cell(values, digits):
    """Median (least to largest)."""
    got = summary(list((values or {}).values()))
    if not got:
        return "-"
    return f"{number(got['median'], digits)} ({number(got['min'], digits)} to {number(got['max'], digits)})"


def middle(table, subject, figure):
    """A median, or None."""
    got = summary(list(table.get(subject, {}).get(figure, {}).values()))
    return got and got["median"]


def ratio(table, ours, theirs, figure, over=None):
    """Median of the ratios run by run (`over`: the bound's figure, where it is another one)."""
    got = summary(paired_ratios(table.get(ours, {}).get(figure, {}), table.get(theirs, {}).get(over or figure, {})))
    return got and got["median"]


def table_of(table, names, columns, bound_of=None):
    """Markdown. `bound_of`: the figure whose ratio to the bound's is the last column."""
    heads = [UNITS[column][0] for column in columns] + ([f"of {BOUND}'s {UNITS[bound_of][0]}"] if bound_of else [])
    lines = ["| server | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in names:
        if not any(table[name].get(column) for column in columns):
            continue
        cells = [cell(table[name].get(column), UNITS[column][1]) for column in columns]
        if bound_of:
            got = ratio(table, name, BOUND, bound_of)
            cells.append("-" if got is None else f"{got:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(value, passes, digits=0):
    """A figure and whether it meets its target."""
    return "- | not measured" if value is None else f"{number(value, digits)} | {'pass' if passes else '**missed**'}"


def targets(table, subjects):
    """Point 6's table for every engine."""
    peers = [subject.name for subject in subjects if subject.kind == "peer"]
    best = lambda figure: min((m for p in peers if (m := middle(table, p, figure)) is not None), default=None)
    lines = ["| engine | figure | target | measured | |", "|---|---|---|---|---|"]
    for name in (subject.name for subject in subjects if subject.kind == "pinion"):
        of = lambda figure: middle(table, name, figure)
        user, uws = of("user_bytes"), middle(table, STRETCH_PEER, "user_bytes")
        fan, cpu = ratio(table, name, BOUND, "fanout_per_s"), ratio(table, BOUND, name, "fanout_us")
        together = ratio(table, name, BOUND, "coalesced_per_s", "fanout_per_s")
        cheaper = ratio(table, BOUND, name, "fanout_us", "coalesced_us")
        shake, nchan = of("handshake_us"), middle(table, "nchan", "handshake_us")
        idle, fan_us, push = of("idle_cpu_us"), of("fanout_us"), of("push_p99_us")
        rows = [
            ("user bytes per idle connection", "<= 640", verdict(user, user is not None and user <= 640)),
            ("the same, stretch", f"<= {STRETCH_PEER}: {number(uws) if uws is not None else '-'}",
             verdict(user, None not in (user, uws) and user <= uws)),
            ("fan-out, frames/s of the bound's", ">= 0.90", verdict(fan, (fan or 0) >= 0.9, 2)),
            ("fan-out, frames per CPU second of the bound's", ">= 0.90", verdict(cpu, (cpu or 0) >= 0.9, 2)),
            ("fan-out, CPU us per frame", f"below every peer: {number(best('fanout_us') or 0, 2)}",
             verdict(fan_us, None not in (fan_us, best("fanout_us")) and fan_us < best("fanout_us"), 2)),
            ("coalesced, frames/s of the un-coalesced bound's", ">= 3", verdict(together, (together or 0) >= 3, 2)),
            ("coalesced, frames per CPU second of the same", ">= 3", verdict(cheaper, (cheaper or 0) >= 3, 2)),
            ("CPU us per handshake", f"<= nchan: {number(nchan, 1) if nchan is not None else '-'}",
             verdict(shake, None not in (shake, nchan) and shake <= nchan, 1)),
            ("CPU us/s per 1 000 idle connections", f"below every peer: {number(best('idle_cpu_us') or 0)}",
             verdict(idle, None not in (idle, best("idle_cpu_us")) and idle < best("idle_cpu_us"))),
            ("push p99, us", "stated", "-" if push is None else f"{number(push)} | stated"),
        ]
        lines += [f"| {name} | {figure} | {target} | {result} |" for figure, target, result in rows]
    return "\n".join(lines)


def growth_of(runs):
    """growth.json: one entry per run, for `pinion plan` and the plots."""
    out = []
    for name, run in runs.items():
        kind, subject, shards, connections = (name.split(".") + [""] * 3)[:4]
        if kind != "growth":
            continue
        held, use = figures.memory(run), run["server"]
        pushed = runs.get(f"growth-push.{subject}.{shards}.{connections}")
        latency = figures.latency(pushed) if pushed else None
        out.append({
            "connections": int(connections),
            "shards": int(shards),
            "engine": subject.removeprefix("pinion-"),
            "user_bytes": held["user"],
            "kernel_bytes": held["kernel"],
            "memory_before_bytes": use["memory_before_bytes"],
            "ping_seconds": run["settings"]["ping_seconds"],
            "cpu_seconds_per_1000_idle_s": use["cpu_seconds"] / run["seconds"] / (int(connections) / 1000),
            "handshake_cpu_us": (figures.handshake(run) or {}).get("cpu_us"),
            "push_p50_us": latency and latency["p50_us"],
            "push_p99_us": latency and latency["p99_us"],
            "pushes_per_s": latency and latency["per_s"],
        })
    return sorted(out, key=lambda entry: (entry["engine"], entry["shards"], entry["connections"]))


def machine():
    """What it was measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT,
                            check=False)
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{len(models)} x {models[0] if models else platform.machine()}",
        "kernel": platform.release(),
        "commit": commit.stdout.strip() or "unknown",
    }


def beside_services():
    """What bench/openim.py has measured last."""
    path = os.path.join(ROOT, "bench/results/openim.md")
    if not os.path.exists(path):
        return "## Beside OpenIM's services\n\nNot measured: `bench/openim.py`."
    with open(path, encoding="utf-8") as file:
        return "## Beside OpenIM's services\n\n" + file.read().strip()


def page(table, subjects, runs, failures, host):
    """The Markdown of RESULTS.md."""
    names = [subject.name for subject in subjects if subject.name in table]
    with open(os.path.join(HERE, "notes.md"), encoding="utf-8") as file:
        notes = file.read().strip()
    rounds = max((len(values) for figure in table.values() for values in figure.values()), default=0)
    largest = max((run["connections_asked"] for run in runs.values()), default=0)
    latency_rows = [
        f"| {name} | " + " | ".join(cell(table[name].get(f"push_{key}"), 0)
                                    for key in ("p50_us", "p99_us", "max_us", "late_p99_us", "per_s")) + " |"
        for name in names if table[name].get("push_p99_us")
    ]
    example = next((run for name, run in runs.items() if name.startswith("fanout.")), None)
    frames = ", ".join(f"{name} {number(middle(table, name, 'fanout_frame_bytes'))}" for name in names
                       if middle(table, name, "fanout_frame_bytes"))
    sections = [
        "# Pinion beside its peers\n\nWritten by `bench/compare/run.sh`; not edited by hand. Method and words: "
        "[README.md](README.md), `bench/compare/compare.py`.",
        f"{host['time']}, commit {host['commit']}, {host['cpu']}, Linux {host['kernel']}. Server on CPU 0, load on "
        f"CPU 1. {rounds} interleaved rounds, up to {number(largest)} connections. Cells: median "
        "(least to largest); ratios: median of the ratios within a round. CPU is the server's, in user and kernel.",
        "## Targets\n\n" + targets(table, subjects),
        notes,
        "## Idle connections\n\n" + table_of(table, names, ["user_bytes", "kernel_bytes", "idle_cpu_us"]),
        "## Handshakes\n\nOpenIM's arguments and a token checked locally for Pinion, bare ones for the others.\n\n"
        + table_of(table, names, ["handshake_us"], "handshake_us"),
        "## Echo\n\nPinion has none: the request 1001, answered by its embedded backend.\n\n"
        + table_of(table, names, ["echo_us", "echo_per_s"], "echo_us"),
        "## Fan-out, one frame per connection and round\n\n"
        + table_of(table, names, ["fanout_us", "fanout_per_s"], "fanout_us")
        + (f"\n\nBytes on the wire per frame: {frames}." if frames else ""),
        "## Fan-out, 16 frames waiting per connection\n\n"
        + table_of(table, names, ["coalesced_us", "coalesced_per_s"], "coalesced_us"),
        "## Push latency, gRPC in to client socket\n\nus, from when the push was due.\n\n"
        "| engine | p50 | p99 | max | caller late, p99 | pushes/s |\n|---|---|---|---|---|---|\n"
        + "\n".join(latency_rows),
        "## Growth\n\n![memory](results/growth-memory.svg) ![CPU](results/growth-cpu.svg) "
        "![latency](results/growth-latency.svg)\n\n[growth.json](results/growth.json). Two shards share the load's "
        "CPU: two cores are all this machine has.",
        "![CPU per operation](results/compare-cpu.svg) ![bytes per connection](results/compare-memory.svg)",
        beside_services(),
        "## Versions\n\n" + "\n".join(f"- {subject.name}: {subject.version()}" for subject in subjects),
        "## Commands\n\n    bench/compare/run.sh\n"
        + (f"\nOne run of it:\n\n    {' '.join(example['server_command'])}\n    {' '.join(example['command'])}\n"
           if example else "").replace(ROOT + "/", ""),
    ]
    if failures:
        sections.append("## Left out\n\n" + "\n".join(
            f"- {key}: {why[0].splitlines()[-1] if why[0] else '?'}" for key, why in failures.items()))
    return "\n\n".join(sections).rstrip() + "\n"


def plot(directory):
    """Draws the plots with matplotlib in a venv of its own. Without it the page has its tables all the same."""
    venv = os.path.join(ROOT, "work/bench", f"matplotlib-{MATPLOTLIB}")
    python = os.path.join(venv, "bin/python")
    try:
        if not os.path.exists(os.path.join(venv, "ready")):
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", f"matplotlib=={MATPLOTLIB}"], check=True)
            with open(os.path.join(venv, "ready"), "wb"):
                pass
        subprocess.run([python, os.path.join(HERE, "plots.py"), directory], check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"no plots: {error}")


def write(runs, subjects, failures, where):
    """Writes everything below `where`."""
    results = os.path.join(where, "results")
    os.makedirs(results, exist_ok=True)
    table = {subject.name: per_round(runs, subject.name) for subject in subjects}
    host = machine()
    summaries = {name: {figure: summary(list(values.values())) for figure, values in figures_of.items()}
                 for name, figures_of in table.items()}
    documents = {"compare.json": {"machine": host, "summary": summaries, "rounds": table, "failures": failures},
                 "compare-raw.json": runs, "growth.json": growth_of(runs)}
    for name, document in documents.items():
        if name == "growth.json" and not document:
            continue
        with open(os.path.join(results, name), "w", encoding="utf-8") as file:
            json.dump(document, file, indent=None if name == "compare-raw.json" else 1)
            file.write("\n")
    with open(os.path.join(where, "RESULTS.md"), "w", encoding="utf-8") as file:
        file.write(page(table, subjects, runs, failures, host))
    if where == os.path.join(ROOT, "bench"):
        plot(results)
