//! The table `pinion`: what a script makes operations with, and what it may know of the run.

use std::net::{SocketAddr, ToSocketAddrs as _};

use mlua::{AnyUserData, Lua, MultiValue, Table, UserData, Value, Variadic};

use crate::openim;
use crate::script::{Ending, MARK, MessageKind, Operation};
use crate::settings::Settings;

/// An operation in the hands of a script; it may be returned more than once.
struct Made(Operation);

impl UserData for Made {}

/// Sets the global `pinion`.
pub fn provide(lua: &Lua, settings: &Settings) -> mlua::Result<()> {
    let table = lua.create_table()?;
    table.set("mark", lua.create_string(MARK)?)?;
    table.set("connections", settings.connections)?;
    table.set("threads", settings.threads)?;
    table.set("rate", settings.rate)?;
    table.set("seconds", settings.duration.as_secs_f64())?;
    let per_user = settings.users.per_user.max(1);
    table.set("users", settings.connections.div_ceil(per_user))?;
    let users = settings.users.clone();
    let name = move |_: &Lua, number: usize| Ok(openim::user(&users, number * per_user));
    table.set("user", lua.create_function(name)?)?;
    makers(lua, &table)?;
    lua.globals().set("pinion", table)
}

fn makers(lua: &Lua, table: &Table) -> mlua::Result<()> {
    let fault = |text: String| mlua::Error::RuntimeError(text);
    let make = |name: &str, function: mlua::Function| table.set(name, function);
    make(
        "message",
        lua.create_function(|_, (data, kind): (mlua::LuaString, Option<String>)| {
            let kind = match kind.as_deref() {
                None | Some("text") => MessageKind::Text,
                Some("binary") => MessageKind::Binary,
                Some(other) => {
                    return Err(mlua::Error::RuntimeError(format!(
                        "pinion.message: {other:?} is neither \"text\" nor \"binary\""
                    )));
                }
            };
            Ok(Made(Operation::Message { data: data.as_bytes().to_vec(), kind }))
        })?,
    )?;
    make(
        "request",
        lua.create_function(|_, (identifier, data): (i32, Option<mlua::LuaString>)| {
            let data = data.map(|data| data.as_bytes().to_vec()).unwrap_or_default();
            Ok(Made(Operation::Request { identifier, data }))
        })?,
    )?;
    make(
        "chat",
        lua.create_function(|_, (to, bytes): (String, Option<usize>)| {
            Ok(Made(Operation::Chat { to, bytes: bytes.unwrap_or(100) }))
        })?,
    )?;
    make(
        "push",
        lua.create_function(|_, (users, bytes): (Value, Option<usize>)| {
            Ok(Made(Operation::Push { users: names(&users)?, bytes: bytes.unwrap_or(100) }))
        })?,
    )?;
    make(
        "post",
        lua.create_function(move |_, (url, body): (String, mlua::LuaString)| {
            let (address, path) = post_target(&url).map_err(fault)?;
            Ok(Made(Operation::Post { address, path, body: body.as_bytes().to_vec() }))
        })?,
    )?;
    make(
        "reconnect",
        lua.create_function(move |_, how: Option<String>| {
            let how = match how.as_deref() {
                None | Some("close") => Ending::Close,
                Some("drop") => Ending::Drop,
                Some(other) => {
                    return Err(fault(format!(
                        "pinion.reconnect: {other:?} is neither \"close\" nor \"drop\""
                    )));
                }
            };
            Ok(Made(Operation::Reconnect { how }))
        })?,
    )?;
    make("stall", lua.create_function(|_, milliseconds: u64| Ok(Made(Operation::Stall { milliseconds })))?)?;
    make("idle", lua.create_function(|_, _: Variadic<Value>| Ok(Made(Operation::Idle)))?)
}

/// One name, or a list of them.
fn names(users: &Value) -> mlua::Result<Vec<String>> {
    match users {
        Value::String(name) => Ok(vec![name.to_str()?.to_owned()]),
        Value::Table(list) => list.sequence_values().collect(),
        other => Err(mlua::Error::RuntimeError(format!(
            "pinion.push: users is a {}, and must be a name or a list of names",
            other.type_name()
        ))),
    }
}

/// `http://host:port/path`.
fn post_target(url: &str) -> Result<(SocketAddr, String), String> {
    let wrong = || format!("pinion.post: {url:?}: expected http://HOST:PORT/PATH");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = host.to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or_else(wrong)?;
    Ok((address, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}

/// What a hook returned, as one operation. A string is a message, as in wrk; nothing is [`Operation::Idle`].
pub fn one(value: Value, hook: &str) -> Result<Operation, String> {
    match value {
        Value::Nil => Ok(Operation::Idle),
        Value::String(data) => {
            Ok(Operation::Message { data: data.as_bytes().to_vec(), kind: MessageKind::Text })
        }
        Value::UserData(made) => made_of(&made, hook),
        other => Err(wrong(hook, other.type_name())),
    }
}

/// As [`one`], for hooks that may return several, in a list or side by side.
pub fn all(values: MultiValue, hook: &str) -> Result<Vec<Operation>, String> {
    let mut all = Vec::new();
    for value in values {
        match value {
            Value::Nil => {}
            Value::Table(list) => {
                for value in list.sequence_values::<Value>() {
                    all.push(one(value.map_err(|error| error.to_string())?, hook)?);
                }
            }
            value => all.push(one(value, hook)?),
        }
    }
    Ok(all)
}

fn made_of(made: &AnyUserData, hook: &str) -> Result<Operation, String> {
    made.borrow::<Made>().map(|made| made.0.clone()).map_err(|_| wrong(hook, "foreign userdata"))
}

fn wrong(hook: &str, got: &str) -> String {
    format!(
        "the script's {hook} returned a {got}, and must return a string or what pinion.message, request, chat, push, \
         post, reconnect, stall or idle made"
    )
}
