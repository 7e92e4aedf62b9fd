"""Figures of several runs: median, spread, slopes, ratios within a run. Pure functions; tests in test_compare.py."""

from statistics import median


def summary(values):
    """Median, least and largest of what is there (None is a run without that figure); None if nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"median": median(known), "min": min(known), "max": max(known), "runs": len(known)}


def slope(small, large):
    """Growth of a figure per connection between two runs, each (connections, figure).

    What a server allocates once is in both, and so in neither.
    """
    (few, low), (many, high) = small, large
    if many <= few:
        raise ValueError(f"a slope needs two sizes: {few} and {many} connections")
    return (high - low) / (many - few)


def least_squares(points):
    """Slope and intercept of the straight line through (x, y) points."""
    if len({x for x, _ in points}) < 2:
        raise ValueError("a line needs two different x")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    width = sum((x - mean_x) ** 2 for x, _ in points)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return rise / width, mean_y - rise / width * mean_x


def paired_ratios(ours, theirs):
    """Ratio run by run, so that what disturbs one run disturbs both sides: {run: figure} each."""
    return [
        ours[run] / theirs[run]
        for run in sorted(ours.keys() & theirs.keys())
        if ours[run] is not None and theirs[run]
    ]


def idle_cpu_us(quiet_cpu_s, quiet_s, pinged_cpu_s, pinged_s, connections, ping_s, real_ping_s=24.0):
    """CPU microseconds per second and 1 000 idle connections, each pinging every `real_ping_s`.

    Measured with a shorter interval: what pings cost is scaled to the real interval, what is spent without any ping
    (`quiet`, the same number of connections) is not.
    """
    base = quiet_cpu_s / quiet_s
    per_ping = max(pinged_cpu_s - base * pinged_s, 0.0) / (connections / ping_s * pinged_s)
    return (base + per_ping * connections / real_ping_s) * 1e6 / (connections / 1000)
