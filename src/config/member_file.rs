//! The file with the members, as whoever follows it sees it: the nodes of a static cluster, `pinion dispatch`, and
//! `pinion proxy`.
//!
//! Looking is the follower's business, at his pace and on his thread. What always holds: whatever the file says is told
//! once, good or bad; what is bad is told with its path and its lines.

use std::path::PathBuf;

use super::text_file;
use crate::cluster::members::{MemberList, Scheme};
use crate::limits::MEMBERS_FILE_BYTES;

/// See the module's documentation.
#[derive(Debug)]
pub struct MemberFile {
    path: PathBuf,
    /// How it places, if it does not say.
    scheme: Option<Scheme>,
    /// What was read last, or why nothing was; `None`: it was not looked at.
    said: Option<Result<String, String>>,
}

impl MemberFile {
    /// Nothing is read yet. `scheme` is how the list places if it does not say; it must not say another one.
    pub fn new(path: PathBuf, scheme: Option<Scheme>) -> Self {
        Self { path, scheme, said: None }
    }

    /// Reads it. `None`: it says what it said last. May wait for the disk.
    pub fn look(&mut self) -> Option<Result<MemberList, String>> {
        let read = self.text();
        if self.said.as_ref() == Some(&read) {
            return None;
        }
        let list = read.clone().and_then(|text| self.parse(&text));
        self.said = Some(read);
        Some(list)
    }

    /// What it says is told again at the next look.
    pub fn forget(&mut self) {
        self.said = None;
    }

    /// Reads it, whatever it said before.
    ///
    /// # Errors
    /// It cannot be read, or lines are wrong.
    pub fn read(&self) -> Result<MemberList, String> {
        self.text().and_then(|text| self.parse(&text))
    }

    fn text(&self) -> Result<String, String> {
        text_file::read(&self.path, MEMBERS_FILE_BYTES)
    }

    fn parse(&self, text: &str) -> Result<MemberList, String> {
        // A line of its own before the first one: the lines keep their numbers but for this one.
        let given = self.scheme.map(|scheme| format!("placement {}\n", scheme.name()));
        let above = usize::from(given.is_some());
        let list = MemberList::parse(&(given.unwrap_or_default() + text)).map_err(|mut faults| {
            faults.iter_mut().for_each(|fault| fault.line = fault.line.saturating_sub(above));
            text_file::told(&self.path, &faults)
        })?;
        match self.scheme.filter(|scheme| *scheme != list.scheme) {
            None => Ok(list),
            Some(scheme) => Err(format!(
                "{}: says `placement {}`, --placement says {}; take one of them out",
                self.path.display(),
                list.scheme.name(),
                scheme.name()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_told_once_good_or_bad() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members");
        let mut file = MemberFile::new(path.clone(), None);
        assert!(file.look().unwrap().unwrap_err().contains("No such file"));
        assert_eq!(file.look(), None);
        std::fs::write(&path, "a\n").unwrap();
        assert_eq!(file.look().unwrap().unwrap().members.len(), 1);
        assert_eq!(file.look(), None);
        std::fs::write(&path, "a\nb weight=0\na\n").unwrap();
        let why = file.look().unwrap().unwrap_err();
        let lines: Vec<&str> = why.lines().collect();
        let [second, third] = lines[..] else { panic!("{why}") };
        assert!(second.starts_with(&format!("{}: line 2: weight=0", path.display())), "{why}");
        assert!(third.contains("members: line 3: a is listed already"), "{why}");
        assert_eq!(file.look(), None);
        file.forget();
        assert!(file.look().unwrap().is_err(), "once more");
        std::fs::write(&path, "a\n").unwrap();
        assert!(file.look().unwrap().is_ok(), "as before the fault, and that is news");
    }

    #[test]
    fn it_has_a_largest_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members");
        let most = usize::try_from(MEMBERS_FILE_BYTES).unwrap();
        let mut file = MemberFile::new(path.clone(), None);
        std::fs::write(&path, format!("a{}", " ".repeat(most - 1))).unwrap();
        assert!(file.look().unwrap().is_ok());
        std::fs::write(&path, format!("a{}", " ".repeat(most))).unwrap();
        assert!(file.look().unwrap().unwrap_err().contains("bytes, at most"));
    }

    #[test]
    fn the_placement_has_one_source_and_lines_keep_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members");
        let said = |text: &str, scheme| {
            std::fs::write(&path, text).unwrap();
            MemberFile::new(path.clone(), scheme).look().unwrap()
        };
        let ring = Some(Scheme::OpenImRing);
        assert_eq!(said("a:88\n", ring).unwrap().scheme, Scheme::OpenImRing);
        assert!(
            said("a\nb weight=0\n", Some(Scheme::Rendezvous)).unwrap_err().contains(": line 2: weight=0")
        );
        let why = said("placement rendezvous\na\n", ring).unwrap_err();
        assert!(why.contains("--placement says openim-ring"), "{why}");
    }
}
