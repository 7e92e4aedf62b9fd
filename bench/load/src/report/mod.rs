//! What a run came to: as wrk would say it (`text`), as JSON (`json`), as pictures (`svg`), and while it runs
//! (`progress`). Not here: how anything was counted.

pub mod json;
pub mod progress;
pub mod svg;
pub mod text;
mod units;
