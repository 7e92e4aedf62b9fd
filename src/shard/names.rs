//! How users appear in the log (`log.users`).

use sha1::{Digest, Sha1};

use crate::config::UserNames;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Plain or hashed.
    pub kind: UserNames,
    /// What names are hashed with: drawn at start, so hashes of two runs cannot be compared.
    pub key: [u64; 2],
}

impl Names {
    /// A user id as the log may show it.
    pub fn name(&self, user: &str) -> String {
        match self.kind {
            UserNames::Plain => user.to_owned(),
            UserNames::Hashed => {
                let [a, b] = self.key;
                let mut hash = Sha1::new();
                hash.update(a.to_be_bytes());
                hash.update(b.to_be_bytes());
                hash.update(user);
                let sum = hash.finalize();
                sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_names_tell_users_apart_and_do_not_show_them() {
        let names = |kind, key| Names { kind, key };
        let hashed = names(UserNames::Hashed, [1, 2]);
        assert_eq!(names(UserNames::Plain, [1, 2]).name("alice"), "alice");
        assert_eq!(hashed.name("alice"), hashed.name("alice"));
        assert_eq!(hashed.name("alice").len(), 16);
        assert_ne!(hashed.name("alice"), hashed.name("bob"));
        assert_ne!(hashed.name("alice"), names(UserNames::Hashed, [1, 3]).name("alice"));
        assert!(!hashed.name("alice").contains("alice"));
    }
}
