//! The hook `done(summary, latency, requests)`, called once when all is counted, in a state of its own.

use mlua::{Lua, MetaMethod, Table, UserData, UserDataFields, UserDataMethods};

use super::{hook, open, said};
use crate::settings::Settings;
use crate::tally::{Errors, Latencies, Outcome};

/// wrk's statistics object. Latencies in microseconds, as wrk has them.
struct Statistics(Latencies);

impl Statistics {
    const NS: f64 = 1e3;
}

impl UserData for Statistics {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("min", |_, this| Ok(this.0.0.min() as f64 / Self::NS));
        fields.add_field_method_get("max", |_, this| Ok(this.0.0.max() as f64 / Self::NS));
        fields.add_field_method_get("mean", |_, this| Ok(this.0.0.mean() / Self::NS));
        fields.add_field_method_get("stdev", |_, this| Ok(this.0.0.stdev() / Self::NS));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("percentile", |_, this, percentile: f64| {
            Ok(this.0.0.value_at_percentile(percentile) as f64 / Self::NS)
        });
        methods.add_meta_method(MetaMethod::Len, |_, this, ()| Ok(this.0.0.iter_recorded().count()));
        // As wrk's latency(i): the i-th recorded value and how often it came.
        methods.add_meta_method(MetaMethod::Call, |_, this, index: usize| {
            let value = this.0.0.iter_recorded().nth(index.saturating_sub(1));
            Ok(value
                .map(|value| (value.value_iterated_to() as f64 / Self::NS, value.count_at_value()))
                .unzip())
        });
    }
}

/// Calls it, if the script has one.
///
/// # Errors
/// What the script did wrong.
pub fn done(settings: &Settings, outcome: &Outcome) -> Result<(), String> {
    let Some(path) = &settings.script else { return Ok(()) };
    let lua = open(settings, path)?;
    let Some(done) = hook(&lua, "done")? else { return Ok(()) };
    let summary = summary(&lua, outcome).map_err(|error| said(&error))?;
    let latency = Statistics(outcome.tally.latency.clone());
    // wrk's third argument is requests per second and thread; ours is the rate of each second.
    let mut rates = Latencies::default();
    outcome.timeline.iter().for_each(|second| rates.record(second.answered * 1_000));
    done.call::<()>((summary, latency, Statistics(rates))).map_err(|error| said(&error))
}

fn summary(lua: &Lua, outcome: &Outcome) -> mlua::Result<Table> {
    let tally = &outcome.tally;
    let summary = lua.create_table()?;
    summary.set("duration", outcome.seconds * 1e6)?;
    summary.set("requests", tally.answered)?;
    summary.set("bytes", tally.bytes_in)?;
    summary.set("errors", errors(lua, &tally.errors)?)?;
    summary.set("logins", tally.logins)?;
    summary.set("connections", outcome.open)?;
    summary.set("deliveries", tally.deliveries)?;
    summary.set("delivery", Statistics(tally.delivery.clone()))?;
    summary.set("messages", tally.messages_in)?;
    summary.set("kicked", tally.kicked)?;
    if let Some(server) = &outcome.server {
        summary.set("server_cpu_seconds", server.cpu_seconds)?;
    }
    Ok(summary)
}

fn errors(lua: &Lua, errors: &Errors) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("connect", errors.connect)?;
    table.set("read", errors.read)?;
    table.set("write", errors.write)?;
    table.set("timeout", errors.timeout)?;
    table.set("status", errors.handshake.values().sum::<u64>() + errors.answer.values().sum::<u64>())?;
    table.set("closed", errors.closed.values().sum::<u64>())?;
    table.set("protocol", errors.protocol)?;
    Ok(table)
}
