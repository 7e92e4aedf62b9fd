//! Scripts: LuaJIT with wrk's hooks and ours, one state per thread; see `bench/README.md`, "Scripts".
//!
//! Not here: when a hook is called (`thread/`). What always holds: a hook that a script has not costs nothing; an error
//! names file and line, and ends the run.

mod done;
mod operations;
mod wrk;

use std::path::Path;
use std::time::Duration;

use mlua::{FromLuaMulti, Function, IntoLuaMulti, Lua, MultiValue, Table, Value};

use crate::script::{Conn, Hooks, Incoming, MessageKind, Operation, Script};
use crate::settings::{Protocol, Settings};

pub use done::done;

/// One thread's state.
pub struct LuaScript {
    lua: Lua,
    /// By connection: what hooks get as `conn`, theirs to keep things in.
    conns: Table,
    connected: Option<Function>,
    request: Option<Function>,
    delay: Option<Function>,
    message: Option<Function>,
    response: Option<Function>,
    closed: Option<Function>,
}

/// What a thread without a script runs: OpenIM connections are held, raw ones echo a short text.
struct BuiltIn {
    raw: bool,
}

/// The script of a thread, counted from 0 over all processes.
///
/// # Errors
/// The file cannot be read, is no Lua, or its `setup` or `init` fails.
pub fn script(settings: &Settings, thread: usize) -> Result<Box<dyn Script>, String> {
    match &settings.script {
        None => Ok(Box::new(BuiltIn { raw: settings.protocol == Protocol::Raw })),
        Some(path) => Ok(Box::new(LuaScript::load(settings, path, thread)?)),
    }
}

/// Whether a script is worth starting threads for.
///
/// # Errors
/// As [`script`].
pub fn check(settings: &Settings) -> Result<(), String> {
    script(settings, 0).map(drop)
}

impl LuaScript {
    fn load(settings: &Settings, path: &Path, thread: usize) -> Result<Self, String> {
        let lua = open(settings, path)?;
        let fault = |error: mlua::Error| said(&error);
        wrk::set_up(&lua, settings, thread).map_err(fault)?;
        if let Some(init) = hook(&lua, "init")? {
            let mut args = vec![path.display().to_string()];
            args.extend(settings.script_arguments.iter().cloned());
            let table = lua.create_table().map_err(fault)?;
            for (index, arg) in args.into_iter().enumerate() {
                table.set(index, arg).map_err(fault)?; // as wrk: the script's name is args[0]
            }
            init.call::<()>(table).map_err(fault)?;
        }
        Ok(Self {
            conns: lua.create_table().map_err(fault)?,
            connected: hook(&lua, "connected")?,
            request: request(&lua)?,
            delay: hook(&lua, "delay")?,
            message: hook(&lua, "message")?,
            response: hook(&lua, "response")?,
            closed: hook(&lua, "closed")?,
            lua,
        })
    }

    /// What hooks get for a connection: the same table each time.
    fn conn(&self, conn: &Conn<'_>) -> mlua::Result<Table> {
        let table = match self.conns.raw_get(conn.number + 1)? {
            Value::Table(table) => table,
            _ => {
                let table = self.lua.create_table_with_capacity(0, 3)?;
                table.raw_set("number", conn.number)?;
                table.raw_set("user", conn.user)?;
                self.conns.raw_set(conn.number + 1, &table)?;
                table
            }
        };
        table.raw_set("login", conn.login)?;
        Ok(table)
    }

    fn incoming(&self, message: &Incoming<'_>) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(0, 4)?;
        table.raw_set("identifier", message.identifier)?;
        table.raw_set("code", message.code)?;
        table.raw_set("error", message.error)?;
        table.raw_set("data", self.lua.create_string(message.data)?)?;
        Ok(table)
    }
}

/// A state with everything that scripts may use, and the script run once.
fn open(settings: &Settings, path: &Path) -> Result<Lua, String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lua = Lua::new();
    let fault = |error: mlua::Error| said(&error);
    wrk::provide(&lua, settings).map_err(fault)?;
    operations::provide(&lua, settings).map_err(fault)?;
    lua.load(text).set_name(format!("@{}", path.display())).exec().map_err(fault)?;
    Ok(lua)
}

fn hook(lua: &Lua, name: &str) -> Result<Option<Function>, String> {
    match lua.globals().get(name).map_err(|error| said(&error))? {
        Value::Nil => Ok(None),
        Value::Function(function) => Ok(Some(function)),
        other => Err(format!("the script's {name} is a {}, and must be a function", other.type_name())),
    }
}

/// As in wrk, a script that only sets `wrk.body` sends that.
fn request(lua: &Lua) -> Result<Option<Function>, String> {
    let own = hook(lua, "request")?;
    let wrk: Table = lua.globals().get("wrk").map_err(|error| said(&error))?;
    let body: Option<mlua::LuaString> = wrk.get("body").map_err(|error| said(&error))?;
    if own.is_some() || body.is_none() {
        return Ok(own);
    }
    wrk.get("format").map_err(|error| said(&error))
}

/// Puts in front of a complaint about what a hook returned where that hook is.
fn at(hook: Option<&Function>, complaint: String) -> String {
    let Some(info) = hook.map(Function::info) else { return complaint };
    match (info.short_src, info.line_defined) {
        (Some(file), Some(line)) => format!("{file}:{line}: {complaint}"),
        _ => complaint,
    }
}

/// Calls a hook that the engine knows to be there; without it there is nothing to do.
fn call<R: FromLuaMulti + Default>(
    hook: Option<&Function>,
    arguments: impl IntoLuaMulti,
) -> Result<R, String> {
    let Some(function) = hook else { return Ok(R::default()) };
    function.call(arguments).map_err(|error| {
        let why = said(&error);
        // A call in a `return` leaves no line in the stack: then it is the hook's.
        let placed = function.info().short_src.is_some_and(|file| why.starts_with(&file));
        if placed { why } else { at(hook, why) }
    })
}

/// The text of an error: file, line and what was wrong, without the stack.
fn said(error: &mlua::Error) -> String {
    let text = match error {
        mlua::Error::CallbackError { traceback, cause } => {
            // What our own functions complain about has no line: the caller's is in the stack.
            let place = traceback
                .lines()
                .map(str::trim)
                .find_map(|line| line.split_once(": in ").filter(|(place, _)| !place.starts_with('[')));
            let cause = said(cause);
            match place {
                Some((place, _)) if !cause.starts_with(place) => format!("{place}: {cause}"),
                _ => cause,
            }
        }
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

impl Script for LuaScript {
    fn hooks(&self) -> Hooks {
        Hooks {
            connected: self.connected.is_some(),
            request: self.request.is_some(),
            delay: self.delay.is_some(),
            message: self.message.is_some(),
            response: self.response.is_some(),
            closed: self.closed.is_some(),
        }
    }

    fn connected(&mut self, conn: &Conn<'_>) -> Result<Vec<Operation>, String> {
        let conn = self.conn(conn).map_err(|error| said(&error))?;
        let hook = self.connected.as_ref();
        operations::all(call::<MultiValue>(hook, conn)?, "connected").map_err(|why| at(hook, why))
    }

    fn request(&mut self, conn: &Conn<'_>) -> Result<Operation, String> {
        let conn = self.conn(conn).map_err(|error| said(&error))?;
        let hook = self.request.as_ref();
        operations::one(call::<Value>(hook, conn)?, "request").map_err(|why| at(hook, why))
    }

    fn delay(&mut self, conn: &Conn<'_>) -> Result<Duration, String> {
        let conn = self.conn(conn).map_err(|error| said(&error))?;
        let hook = self.delay.as_ref();
        let returned: Value = call(hook, conn)?;
        let milliseconds = returned.as_f64().or_else(|| returned.as_i64().map(|whole| whole as f64));
        milliseconds.and_then(|number| Duration::try_from_secs_f64(number / 1e3).ok()).ok_or_else(|| {
            let returned = milliseconds.map_or_else(|| returned.type_name().to_owned(), |n| n.to_string());
            at(hook, format!("the script's delay returned {returned}, and must return milliseconds"))
        })
    }

    fn message(&mut self, conn: &Conn<'_>, message: &Incoming<'_>) -> Result<Vec<Operation>, String> {
        let arguments = self.conn(conn).and_then(|conn| Ok((conn, self.incoming(message)?)));
        let arguments = arguments.map_err(|error| said(&error))?;
        let hook = self.message.as_ref();
        operations::all(call::<MultiValue>(hook, arguments)?, "message").map_err(|why| at(hook, why))
    }

    fn response(&mut self, conn: &Conn<'_>, message: &Incoming<'_>) -> Result<(), String> {
        let arguments = self.conn(conn).and_then(|conn| {
            let headers = self.lua.create_table_with_capacity(0, 2)?;
            headers.raw_set("identifier", message.identifier)?;
            headers.raw_set("error", message.error)?;
            Ok((message.code, headers, self.lua.create_string(message.data)?, conn))
        });
        call(self.response.as_ref(), arguments.map_err(|error| said(&error))?)
    }

    fn closed(&mut self, conn: &Conn<'_>, code: u16, reason: &str) -> Result<bool, String> {
        let conn = self.conn(conn).map_err(|error| said(&error))?;
        call(self.closed.as_ref(), (conn, code, reason))
    }
}

impl Script for BuiltIn {
    fn hooks(&self) -> Hooks {
        Hooks { request: self.raw, ..Hooks::default() }
    }

    fn request(&mut self, _: &Conn<'_>) -> Result<Operation, String> {
        Ok(Operation::Message { data: b"pinion-bench".to_vec(), kind: MessageKind::Text })
    }

    fn closed(&mut self, _: &Conn<'_>, _: u16, _: &str) -> Result<bool, String> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
