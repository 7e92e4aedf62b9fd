//! A plan as people and programs read it.

use serde_json::{Value, json};

#[cfg(test)]
use super::slopes::ENGINES;
use super::slopes::{self, COMMON, Slope};
use super::sum::{Ask, Item, Plan, Worth, total};

/// For people.
pub(super) fn plain(ask: &Ask, plan: &Plan) -> String {
    let mut lines = vec![format!(
        "{} connections on {}, {} engine; per host {} connections, {}, {}, {}",
        ask.connections,
        some(ask.nodes, "host", "hosts"),
        ask.engine.name,
        plan.connections,
        some(plan.processes, "process", "processes"),
        some(plan.shards, "shard", "shards"),
        some(plan.rpcs, "rpc thread", "rpc threads")
    )];
    let mut section = |title: String, items: &[Item], unit: fn(f64) -> String| {
        lines.push(String::new());
        lines.push(title);
        for item in items {
            lines.push(format!(
                "  {:<42} {:>10}  {}{}",
                item.name,
                unit(item.amount),
                item.from,
                note(item.worth)
            ));
        }
    };
    section(format!("memory per host: {}", size(total(&plan.memory))), &plan.memory, size);
    section(
        format!("on top of it at most, when everything waits: {}", size(total(&plan.bounds))),
        &plan.bounds,
        size,
    );
    section(format!("work per host: {:.2} cores", total(&plan.work)), &plan.work, |cores| {
        format!("{cores:.2}")
    });
    lines.push(String::new());
    lines.push(format!(
        "kernel (scripts/tune.sh {} sets these and more); LimitNOFILE={} per process",
        plan.profile, plan.files_per_process
    ));
    for sysctl in &plan.sysctls {
        lines.push(format!("  {:<32} {:<28} {}", sysctl.key, sysctl.value, sysctl.from));
    }
    lines.push(String::new());
    if plan.memory.iter().any(|item| item.worth == Worth::Extrapolated) {
        lines.push(format!(
            "extrapolated: measured up to {} connections of a process; beyond that the slope is assumed to go on",
            slopes::CONNECTIONS_MEASURED_MAX
        ));
    }
    lines.push(format!("measured: {}", slopes::MEASURED));
    lines.join("\n") + "\n"
}

/// For programs.
pub(super) fn json(ask: &Ask, plan: &Plan) -> String {
    let items = |items: &[Item], unit: &str| -> Vec<Value> {
        let item = |item: &Item| {
            let worth = word(item.worth);
            json!({"name": item.name, unit: item.amount, "from": item.from, "worth": worth})
        };
        items.iter().map(item).collect()
    };
    let sysctls: Vec<Value> = plan
        .sysctls
        .iter()
        .map(|sysctl| json!({"key": sysctl.key, "value": sysctl.value, "from": sysctl.from}))
        .collect();
    let object = json!({
        "asked": {
            "connections": ask.connections, "nodes": ask.nodes, "engine": ask.engine.name,
            "heartbeat_seconds": ask.heartbeat_seconds, "logins_per_second": ask.logins,
            "pushes_per_second": ask.pushes, "fan_out": ask.fan_out, "stalled": ask.stalled,
        },
        "per_host": {
            "connections": plan.connections, "processes": plan.processes, "shards": plan.shards,
            "rpc_threads": plan.rpcs,
            "memory_bytes": total(&plan.memory), "memory": items(&plan.memory, "bytes"),
            "bound_bytes": total(&plan.bounds), "bounds": items(&plan.bounds, "bytes"),
            "cores": total(&plan.work), "work": items(&plan.work, "cores"),
            "files_per_process": plan.files_per_process, "sysctls": sysctls, "profile": plan.profile,
        },
        "slopes": all_slopes(ask).map(|slope| {
            json!({"name": slope.name, "value": slope.value, "unit": slope.unit, "command": slope.command})
        }).collect::<Vec<_>>(),
        "measured": slopes::MEASURED,
        "measured_connections_max": slopes::CONNECTIONS_MEASURED_MAX,
    });
    format!("{object}\n")
}

/// What the plan was computed with.
fn all_slopes(ask: &Ask) -> impl Iterator<Item = Slope> {
    [ask.engine.user_bytes].into_iter().chain(COMMON)
}

/// The table of slopes, for the page.
#[cfg(test)]
pub(super) fn slopes() -> String {
    let row = |slope: &Slope, of: &str| {
        format!("| {}{of} | {} {} | `{}` |\n", slope.name, slope.value, slope.unit, slope.command)
    };
    let mut text = "| figure | value | measured with |\n|---|---|---|\n".to_owned();
    for engine in &ENGINES {
        text += &row(&engine.user_bytes, &format!(", {}", engine.name));
    }
    for slope in &COMMON {
        text += &row(slope, "");
    }
    format!("{text}\nMeasured on {}.\n", slopes::MEASURED)
}

/// `1 shard`, `2 shards`.
pub(super) fn some(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn size(bytes: f64) -> String {
    let (mut rest, mut unit) = (bytes, 0);
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    while rest >= 1024.0 && unit + 1 < units.len() {
        rest /= 1024.0;
        unit += 1;
    }
    format!("{rest:.1} {}", units[unit])
}

fn word(worth: Worth) -> &'static str {
    match worth {
        Worth::Measured => "measured",
        Worth::Extrapolated => "extrapolated",
        Worth::Bound => "bound",
    }
}

fn note(worth: Worth) -> &'static str {
    match worth {
        Worth::Measured | Worth::Bound => "",
        Worth::Extrapolated => "  (extrapolated)",
    }
}
