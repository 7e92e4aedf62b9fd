//! `pinion-bench`: a wrk for WebSockets, OpenIM and pushes. See `bench/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::let_underscore_must_use,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "a bench uses the real clock; its figures are floats"
)]

mod api;
mod calls;
mod cli;
mod crew;
mod dial;
mod lua;
mod machine;
mod marks;
mod news;
mod openim;
mod post;
mod processes;
mod push;
mod report;
mod run;
mod script;
mod server;
mod settings;
mod tally;
mod thread;
mod timeline;
mod timer;
mod tokens;
mod websocket;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cli::{Asked, Output};
use report::progress::Progress;
use settings::Settings;
use tally::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was asked for is wrong, or the machine cannot hold it; nothing was measured.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    if run::is_part() {
        return run::part(&lua::script);
    }
    match cli::asked(&cli::command().get_matches()).and_then(|asked| measure(&asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            WRONG.into()
        }
    }
}

fn measure(Asked { settings, output }: &Asked) -> Result<(), String> {
    lua::check(settings)?;
    let report = output.json.as_deref() != Some(Path::new("-"));
    if report {
        print!("{}", report::text::head(settings, output));
    }
    let mut progress = Progress::new(output);
    let outcome = run::run(settings, &lua::script, &mut |second| progress.show(second));
    progress.end();
    let outcome = outcome.map_err(|refusal| refusal.to_string())?;
    if report {
        print!("{}", report::text::body(settings, output, &outcome));
    }
    save(settings, output, &outcome)?;
    lua::done(settings, &outcome)
}

fn save(settings: &Settings, output: &Output, outcome: &Outcome) -> Result<(), String> {
    if let Some(path) = &output.json {
        let text = format!("{:#}\n", report::json::document(settings, outcome));
        if path == Path::new("-") {
            print!("{text}");
        } else {
            fs::write(path, text).map_err(|error| format!("--json: {}: {error}", path.display()))?;
        }
    }
    if let Some(dir) = &output.plot {
        for path in report::svg::write(dir, outcome)? {
            println!("Plot         {}", path.display());
        }
    }
    Ok(())
}
