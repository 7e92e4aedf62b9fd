//! The table `wrk` and the hook `setup`, as wrk has them.

use mlua::{Lua, Table, Value, Variadic};

use super::hook;
use crate::settings::Settings;

/// Sets the global `wrk`.
pub fn provide(lua: &Lua, settings: &Settings) -> mlua::Result<()> {
    let table = lua.create_table()?;
    let headers = lua.create_table()?;
    for (name, value) in &settings.headers {
        headers.set(name.as_str(), value.as_str())?;
    }
    table.set("scheme", "ws")?;
    table.set("method", "GET")?;
    table.set("headers", headers)?;
    if let Some(target) = settings.targets.first() {
        table.set("host", target.host.rsplit_once(':').map_or(target.host.as_str(), |(host, _)| host))?;
        table.set("port", target.address.port())?;
        table.set("path", target.path.as_str())?;
    }
    // Of HTTP's method, path, headers and body a WebSocket message is the last.
    table.set(
        "format",
        lua.create_function(|lua, parts: Variadic<Value>| match parts.get(3) {
            Some(Value::String(body)) => Ok(body.clone()),
            _ => lua
                .globals()
                .get::<Table>("wrk")?
                .get::<Option<mlua::LuaString>>("body")?
                .map_or_else(|| lua.create_string(""), Ok),
        })?,
    )?;
    lua.globals().set("wrk", table)
}

/// Calls the script's `setup` for this thread. As wrk calls it once per thread in one state, what it counts must go on
/// from thread to thread: it is called for those before this one too, whose `thread:set` leads nowhere.
pub fn set_up(lua: &Lua, settings: &Settings, thread: usize) -> mlua::Result<()> {
    let Some(setup) = hook(lua, "setup").map_err(mlua::Error::RuntimeError)? else {
        return lua.globals().get::<Table>("wrk")?.set("thread", this_thread(lua, settings, true)?);
    };
    for index in 0..=thread {
        let table = this_thread(lua, settings, index == thread)?;
        setup.call::<()>(&table)?;
        lua.globals().get::<Table>("wrk")?.set("thread", table)?;
    }
    Ok(())
}

/// What `setup` gets: `addr`, `set`, `get` and `stop`.
fn this_thread(lua: &Lua, settings: &Settings, ours: bool) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    if let Some(target) = settings.targets.first() {
        table.set("addr", target.address.to_string())?;
    }
    table.set(
        "set",
        lua.create_function(
            move |lua, (_, name, value): (Table, String, Value)| {
                if ours { lua.globals().set(name, value) } else { Ok(()) }
            },
        )?,
    )?;
    table.set(
        "get",
        lua.create_function(|lua, (_, name): (Table, String)| lua.globals().get::<Value>(name))?,
    )?;
    table.set(
        "stop",
        lua.create_function(|_, _: Variadic<Value>| {
            Err::<(), _>(mlua::Error::RuntimeError("thread:stop: a run ends by its duration (-d)".to_owned()))
        })?,
    )?;
    Ok(table)
}
