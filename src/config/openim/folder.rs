//! OpenIM's configuration folder to texts of our settings: reads the files, finds out whose layout it is, translates.
//! What it yields is judged like every other text; what does not count here becomes a note.
//!
//! What always holds: nothing that a stronger source gave is set, and nothing of it is judged.

use std::path::Path;

use super::super::fault::{Fault, Origin};
use super::super::settings::{Visibility, setting};
use super::super::sources::Given;
use super::files::{File, Value, Values};
use super::keys::{Key, Meaning};
use super::ports;
use crate::limits::{NOTE_KEYS_MAX, OPENIM_INDEX_MAX};
use crate::wire::compat::Compat;

/// What surrounds the folder.
pub(in crate::config) struct Surroundings<'a> {
    /// The variables of this process.
    pub(in crate::config) env: &'a [(String, String)],
    /// Whether it runs in a pod of Kubernetes.
    pub(in crate::config) in_pod: bool,
}

/// A folder in translation.
pub(in crate::config) struct Translation<'a> {
    /// What stronger sources say.
    stronger: &'a Given,
    /// What the folder says, where they say nothing.
    pub(in crate::config) texts: Given,
    /// What does not count, one line each.
    pub(in crate::config) notes: Vec<String>,
    /// What cannot be.
    pub(in crate::config) faults: Vec<Fault>,
    /// `openim.index`.
    pub(super) index: u16,
}

impl Translation<'_> {
    /// Whether nobody has set it yet.
    pub(super) fn is_open(&self, key: &str) -> bool {
        !self.stronger.contains_key(key) && !self.texts.contains_key(key)
    }

    /// Sets it if nobody has.
    pub(super) fn set(&mut self, key: &str, text: String, origin: &Origin) {
        if let Some(setting) = setting(key)
            && self.is_open(key)
        {
            self.texts.insert(setting.key, (text, origin.clone()));
        }
    }

    /// What is in force for it, unless that is the default.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.stronger.get(key).or_else(|| self.texts.get(key)).map(|(text, _)| text.as_str())
    }
}

/// Reads and translates a folder. `asked` is where it was named; `stronger` is what flags, environment and our own file
/// say.
pub(in crate::config) fn read<'a>(
    folder: &Path,
    asked: &Origin,
    stronger: &'a Given,
    around: &Surroundings<'_>,
) -> Translation<'a> {
    let index = stronger.get("openim.index").and_then(|(text, _)| text.parse().ok()).unwrap_or(0);
    let mut out = Translation {
        stronger,
        texts: Given::new(),
        notes: Vec::new(),
        faults: Vec::new(),
        // A larger one is refused by the table.
        index: index.min(OPENIM_INDEX_MAX),
    };
    let files = match files_of(folder, asked) {
        Ok(files) => files,
        Err(fault) => {
            out.faults.push(*fault);
            return out;
        }
    };
    let mut values = Values::default();
    for file in files {
        if let Err(fault) = values.read(folder, *file) {
            out.faults.push(*fault);
        }
    }
    if !out.faults.is_empty() {
        return out;
    }
    let idle = values.override_by(around.env);
    if !idle.is_empty() {
        out.notes.push(format!("{} override nothing: OpenIM's files have no such keys", some_of(&idle)));
    }
    out.set("backend", "openim".to_owned(), &Origin::Folder(folder.display().to_string()));
    let Some(layout) = layout(&values, asked, folder, &mut out) else {
        return out;
    };
    kind(&values, layout, around, &mut out);
    for file in files {
        translate(&values, *file, &mut out);
    }
    ports::listeners(&values, layout, &mut out);
    out
}

/// The files of the folder's layout.
fn files_of(folder: &Path, asked: &Origin) -> Result<&'static [File], Box<Fault>> {
    let fault = |expected: String| {
        Box::new(Fault {
            key: "openim.config_dir".to_owned(),
            value: Some(folder.display().to_string()),
            origin: asked.clone(),
            expected,
            example: "/etc/openim".to_owned(),
        })
    };
    std::fs::read_dir(folder).map_err(|e| fault(format!("cannot be read as a directory: {e}")))?;
    let has = |file: &File| folder.join(file.name()).exists();
    let names = || File::SPLIT.map(File::name).join(", ");
    match (has(&File::Gateway), has(&File::Whole)) {
        (true, true) => Err(fault(format!(
            "it has both {} and {}, so it is no folder of one OpenIM; remove that of the other version",
            File::Gateway.name(),
            File::Whole.name()
        ))),
        (false, true) => Ok(&[File::Whole]),
        _ => {
            let missing: Vec<_> = File::SPLIT.iter().filter(|file| !has(file)).map(|f| f.name()).collect();
            if missing.is_empty() {
                return Ok(&File::SPLIT);
            }
            let expected = format!(
                "{} not found in it; expected {}, or OpenIM 3.5's config.yaml",
                missing.join(", "),
                names()
            );
            Err(fault(expected))
        }
    }
}

/// Whose layout it is, and sets `compat` accordingly.
fn layout(values: &Values, asked: &Origin, folder: &Path, out: &mut Translation<'_>) -> Option<Compat> {
    let first = |file: File, prefix: &str| {
        values.of(file).find(|value| value.key.to_lowercase().starts_with(prefix)).map(|v| v.origin.clone())
    };
    let whole = values.of(File::Whole).next().map(|value| value.origin.clone());
    let older = first(File::Share, "rpcregistername");
    let newer = first(File::Discovery, "rpcservice");
    let stated = out.stronger.get("compat").and_then(|(text, origin)| {
        let (_, compat) = Compat::NAMES.iter().find(|(name, _)| name == text)?;
        Some((*compat, origin.clone()))
    });
    let fault = |expected: String, origin: &Origin| Fault {
        key: "compat".to_owned(),
        value: stated.as_ref().map(|(compat, _)| name_of(*compat).to_owned()),
        origin: origin.clone(),
        expected,
        example: "main".to_owned(),
    };
    let (compat, from) = match (whole, older, newer) {
        (Some(from), ..) => (Compat::V35, from),
        (None, Some(older), Some(newer)) => {
            let both = format!(
                "{older} is of patch16 and older, {newer} is of main: these are files of two versions"
            );
            out.faults.push(fault(both, asked));
            return None;
        }
        (None, Some(from), None) => (Compat::Patch16, from),
        (None, None, Some(from)) => (Compat::Main, from),
        (None, None, None) => {
            let Some((compat, _)) = stated else {
                let expected = format!(
                    "neither rpcRegisterName in share.yml nor rpcService in discovery.yml is in {}, so nobody knows \
                     whose files these are; set compat",
                    folder.display()
                );
                out.faults.push(fault(expected, asked));
                return None;
            };
            return Some(compat);
        }
    };
    match &stated {
        Some((stated, origin)) if *stated != compat => {
            let expected =
                format!("{from} is of {}; leave compat out, or name the other folder", name_of(compat));
            out.faults.push(fault(expected, origin));
            None
        }
        _ => {
            out.set("compat", name_of(compat).to_owned(), &from);
            Some(compat)
        }
    }
}

fn name_of(compat: Compat) -> &'static str {
    Compat::NAMES.iter().find(|(_, c)| *c == compat).map(|(name, _)| *name).unwrap_or_default()
}

/// How services are found. OpenIM says `k8s` up to patch.16 and `kubernetes` later (trap 34); main looks whether it is
/// in a pod and then does not ask its file (spec 11.1).
fn kind(values: &Values, layout: Compat, around: &Surroundings<'_>, out: &mut Translation<'_>) {
    let (file, key) =
        if layout == Compat::V35 { (File::Whole, "envs.discovery") } else { (File::Discovery, "enable") };
    let Some(value) = values.get(file, key) else {
        return;
    };
    let written = if value.text == "k8s" { "kubernetes" } else { value.text.as_str() };
    let probed = layout == Compat::Main && around.in_pod && written != "kubernetes";
    if probed && out.is_open("discovery.kind") {
        out.notes.push(format!(
            "{} is {written}, but this is a pod, where OpenIM main takes kubernetes; discovery.kind says otherwise",
            value.origin
        ));
    }
    let kind = if probed { "kubernetes" } else { written };
    out.set("discovery.kind", kind.to_owned(), &value.origin);
}

/// All keys of a file.
fn translate(values: &Values, file: File, out: &mut Translation<'_>) {
    let mut unknown = Vec::new();
    let mut unused: Vec<(&str, Vec<String>)> = Vec::new();
    for value in values.of(file) {
        let Some(known) = Key::find(file, &value.key) else {
            unknown.push(value.key.clone());
            continue;
        };
        match known.meaning {
            Meaning::Setting(key) => out.set(key, value.text.clone(), &value.origin),
            Meaning::Converted(key, _) if !out.is_open(key) => {}
            Meaning::Converted(key, convert) => match convert(&value.text) {
                Ok(Some(text)) => out.set(key, text, &value.origin),
                Ok(None) => {}
                Err(expected) => out.faults.push(refused(value, key, expected)),
            },
            Meaning::Combined => {}
            Meaning::Fixed(good, _) if value.text == good.to_string() => {}
            Meaning::Fixed(_, why) | Meaning::Unused(why) => {
                match unused.iter_mut().find(|(reason, _)| *reason == why) {
                    Some((_, keys)) => keys.push(value.key.clone()),
                    None => unused.push((why, vec![value.key.clone()])),
                }
            }
        }
    }
    let name = file.name();
    let notes = unused.iter().map(|(why, keys)| format!("{name}: {} not used: {why}", some_of(keys)));
    out.notes.extend(notes);
    if !unknown.is_empty() {
        let note =
            format!("{name}: {} not known; taken for keys of OpenIM's other services", some_of(&unknown));
        out.notes.push(note);
    }
}

fn refused(value: &Value, key: &str, expected: &str) -> Fault {
    let public = setting(key).is_none_or(|s| s.visibility == Visibility::Public);
    Fault {
        key: value.key.clone(),
        value: public.then(|| value.text.clone()),
        origin: value.origin.clone(),
        expected: expected.to_owned(),
        example: String::new(),
    }
}

/// The first names of a list, and how many there are besides.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(NOTE_KEYS_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NOTE_KEYS_MAX) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}
