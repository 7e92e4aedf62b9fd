"""From one report of pinion-bench (`--json`, version 1) to the figures of a scenario. Pure functions.

A report has, beside pinion-bench's own fields, `connections_asked`. A figure is None where the run had nothing to
divide by; a run that `fault` finds something wrong with has no figures at all.
"""


def fault(run):
    """What makes a run worthless, or None."""
    if not run.get("server") or not run.get("server_connecting"):
        return "no figures of the server's process"
    if run["open"] < run["connections_asked"]:
        return f"{run['open']} of {run['connections_asked']} connections at the end: {run['errors']}"
    return None


def handshake(run):
    """CPU microseconds of the server per handshake, and handshakes per CPU second of it."""
    cpu = run["server_connecting"]["cpu_seconds"]
    if not run["logins"] or not cpu:
        return None
    return {"cpu_us": cpu / run["logins"] * 1e6, "per_cpu_s": run["logins"] / cpu}


def memory(run):
    """Bytes that all connections of a run cost: the server's own, and the kernel's for its ends of the sockets.

    The kernel's are half of what slabs and socket buffers of the machine grew by: the clients' ends are here as well.
    """
    use = run["server"]
    kernel = use["slab_bytes"] - use["slab_before_bytes"]
    kernel += use["socket_memory_bytes"] - use["socket_memory_before_bytes"]
    return {"user": use["memory_bytes"] - use["memory_before_bytes"], "kernel": kernel / 2}


def fanout(run):
    """CPU per delivery, deliveries per second and per CPU second, size of a frame as it came."""
    deliveries = run["deliveries"]
    cpu = run["server"]["cpu_seconds"]
    if not deliveries or not cpu:
        return None
    return {
        "cpu_us": cpu / deliveries * 1e6,
        "per_s": deliveries / run["seconds"],
        "per_cpu_s": deliveries / cpu,
        "frame_bytes": run["bytes_in"] / max(run["messages_in"], 1),
    }


def echo(run):
    """CPU per echoed message, and messages per second."""
    cpu = run["server"]["cpu_seconds"]
    if not run["answered"] or not cpu:
        return None
    return {"cpu_us": cpu / run["answered"] * 1e6, "per_s": run["answered"] / run["seconds"]}


def latency(run):
    """From when a push was due until the client has read it, microseconds."""
    if not run["deliveries"]:
        return None
    got = run["delivery_ns"]
    return {
        "p50_us": got["p50"] / 1e3,
        "p99_us": got["p99"] / 1e3,
        "max_us": got["max"] / 1e3,
        "late_p99_us": run["lateness_ns"]["p99"] / 1e3,
        "per_s": run["deliveries"] / run["seconds"],
    }
