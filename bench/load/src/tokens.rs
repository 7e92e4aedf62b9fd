//! Login tokens: made from OpenIM's secret, read from a file, or asked of OpenIM's HTTP API.
//!
//! Not here: TLS. An API behind `https://` is refused in words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pinion::backend::token;
use pinion::ids::Platform;
use pinion::shard::clock;

use crate::api::Api;
use crate::openim;
use crate::settings::{Tokens, Users};

/// How long those that we make are good for.
const TTL_S: i64 = 7 * 24 * 3600;

/// The tokens of one thread's connections.
pub enum Purse {
    /// Made when they are needed.
    Secret(String),
    /// By user and platform; platform 0: any.
    Listed(BTreeMap<(String, i32), String>),
}

impl Purse {
    /// Gets the tokens of connections `first` to `first + count`. Blocks: call it before the thread's runtime starts.
    ///
    /// # Errors
    /// In words for the user: which file or which request, and why.
    pub fn open(users: &Users, first: usize, count: usize) -> Result<Self, String> {
        match &users.tokens {
            Tokens::Secret(secret) => Ok(Self::Secret(secret.clone())),
            Tokens::File(path) => read(path).map(Self::Listed),
            Tokens::Api { url, secret, register } => {
                let mut api = Api::connect(url, secret)?;
                let mut listed = BTreeMap::new();
                for connection in first..first + count {
                    let (user, platform) =
                        (openim::user(users, connection), openim::platform(users, connection));
                    if *register && connection % users.per_user.max(1) == 0 {
                        api.register(&user)?;
                    }
                    let token = api.token(&user, platform)?;
                    listed.insert((user, platform), token);
                }
                Ok(Self::Listed(listed))
            }
        }
    }

    /// A user's token.
    ///
    /// # Errors
    /// There is none for this user, or the platform is not one of OpenIM's.
    pub fn token(&self, user: &str, platform: i32) -> Result<String, String> {
        match self {
            Self::Secret(secret) => {
                let known = Platform::new(platform.into())
                    .ok_or_else(|| format!("platform {platform} is not one of OpenIM's (1 to 11)"))?;
                token::issue(secret, user, known, clock::now().unix, TTL_S)
                    .map_err(|fault| format!("no token can be made: {fault:?}"))
            }
            Self::Listed(tokens) => {
                let found =
                    tokens.get(&(user.to_owned(), platform)).or_else(|| tokens.get(&(user.to_owned(), 0)));
                found.cloned().ok_or_else(|| format!("no token for user {user} on platform {platform}"))
            }
        }
    }
}

/// Lines `USER PLATFORM TOKEN` or `USER TOKEN`; empty ones and those with `#` in front are skipped.
fn read(path: &Path) -> Result<BTreeMap<(String, i32), String>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(n, line)| {
            entry(line).ok_or_else(|| format!("{}:{}: expected USER [PLATFORM] TOKEN", path.display(), n + 1))
        })
        .collect()
}

fn entry(line: &str) -> Option<((String, i32), String)> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [user, platform, token] => Some(((user.to_owned(), platform.parse().ok()?), token.to_owned())),
        [user, token] => Some(((user.to_owned(), 0), token.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(tokens: Tokens) -> Users {
        Users { prefix: "u".into(), first: 0, per_user: 1, platform: 1, platforms: 0, tokens }
    }

    #[test]
    fn a_token_made_from_the_secret_is_good() {
        let purse = Purse::open(&users(Tokens::Secret("s3cret".into())), 0, 1).unwrap();
        let token = purse.token("u000001", 7).unwrap();
        let claims = token::verify("s3cret", &token, clock::now().unix).unwrap();
        assert_eq!((&*claims.user, claims.platform), ("u000001", 7));
        assert!(purse.token("u", 12).unwrap_err().contains("platform 12"));
    }

    #[test]
    fn a_file_has_tokens_for_one_platform_or_any() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "# comment\n\na 1 one\na 2 two\nb any\n").unwrap();
        let purse = Purse::open(&users(Tokens::File(file.path().into())), 0, 1).unwrap();
        assert_eq!(purse.token("a", 2).unwrap(), "two");
        assert_eq!(purse.token("b", 9).unwrap(), "any");
        assert!(purse.token("a", 3).unwrap_err().contains("user a on platform 3"));
        fs::write(&file, "a 1 one\nwhat is this line\n").unwrap();
        let why = Purse::open(&users(Tokens::File(file.path().into())), 0, 1).err().unwrap();
        assert!(why.ends_with(":2: expected USER [PLATFORM] TOKEN"), "{why}");
    }
}
