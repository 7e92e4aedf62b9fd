//! `pinion gateway`: configuration, limits, logging, then the node; prints the banner and runs until a signal.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{EXIT_FAILED, args, banner, fail, load, output};
use crate::config::machine::{raise_open_files, refuse_huge_pages};
use crate::config::{Loaded, Sources};
use crate::node::{Failure, Logging, Node, PlantedStall};

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let mut loaded = match load(matches) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if matches.get_flag(args::PRINT_CONFIG) {
        output::print(&loaded.print());
        return ExitCode::SUCCESS;
    }
    loaded.config.planted = args::planted(matches);
    let stall = matches.get_one::<(u16, u64)>(args::PLANT_STALL);
    let stall = stall.map(|&(shard, milliseconds)| PlantedStall { shard, milliseconds });
    match serve(&loaded, args::sources(matches), stall) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(EXIT_FAILED, &why),
    }
}

fn serve(loaded: &Loaded, sources: Sources, stall: Option<PlantedStall>) -> Result<(), String> {
    let files = raise_open_files().map_err(|e| format!("cannot raise the open-file limit: {e}"))?;
    let logging = Logging::start(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if !loaded.config.shards.huge_pages
        && let Err(error) = refuse_huge_pages()
    {
        tracing::warn!(%error, "memory may come in huge pages");
    }
    let mut node = Node::start(&loaded.config, sources, &logging)?;
    // Before "ready": whoever waits for that may send the signal at once.
    if let Some(stall) = stall {
        node.plant(stall)?;
    }
    output::print(&banner::text(loaded, node.facts(), files));
    let ended = node.run();
    match &ended {
        Ok(()) => tracing::info!("drained; end"),
        Err(Failure::Said(why)) => tracing::error!("{why}"),
        Err(Failure::Stalled(shard)) => tracing::error!(shard = shard.0, "aborting"),
    }
    // Writes what is queued, within a bound.
    drop(logging);
    match ended {
        Ok(()) => Ok(()),
        Err(Failure::Said(why)) => Err(why),
        // Not an exit: what the stuck thread holds is not to be torn down around it, and a core dump shows it.
        Err(Failure::Stalled(_)) => std::process::abort(),
    }
}
