//! One thread of clients: logs in alone and in bursts, sends, reads the reply, leaves, dies while its login waits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::client::{Answer, Connection, Knock, Leave, Reply};
use crate::harness::Gateway;

/// Accounts of the churn.
pub const ACCOUNTS: usize = 100;
/// Logins of one account at once, at most: this is what makes kicks pile up.
const BURST_MAX: usize = 12;
/// Connections that one thread keeps open.
const OPEN_MAX: usize = 60;
const PLATFORMS: [i64; 5] = [1, 1, 2, 5, 7];

/// What a thread saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub logins: u64,
    pub refused: u64,
    pub busy: u64,
    pub gone: u64,
    /// Logins left alone before their answer.
    pub left: u64,
    pub hung_logins: u64,
    pub hung_replies: u64,
    pub replies: u64,
    pub kicks: u64,
    pub pushes: u64,
    pub longest_login: Duration,
    pub longest_reply: Duration,
}

impl Seen {
    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        self.logins += other.logins;
        self.refused += other.refused;
        self.busy += other.busy;
        self.gone += other.gone;
        self.left += other.left;
        self.hung_logins += other.hung_logins;
        self.hung_replies += other.hung_replies;
        self.replies += other.replies;
        self.kicks += other.kicks;
        self.pushes += other.pushes;
        self.longest_login = self.longest_login.max(other.longest_login);
        self.longest_reply = self.longest_reply.max(other.longest_reply);
    }
}

/// See the module's documentation.
pub struct Crowd<'a> {
    gateway: &'a Gateway,
    address: SocketAddr,
    rng: fastrand::Rng,
    /// How long it waits for an answer. `Patience::Short` crowds go instead, and that is no finding.
    patience: Patience,
    open: Vec<Connection>,
    /// The last token of an account, used again now and then.
    tokens: Vec<Option<(i64, String)>>,
    seen: Seen,
}

/// How long a crowd waits for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as the gateway's deadline allows, and a little more.
    Long(Duration),
    /// Users who try again at once.
    Short,
}

impl<'a> Crowd<'a> {
    /// A crowd of its own seed.
    pub fn new(gateway: &'a Gateway, seed: u64, patience: Patience) -> Self {
        Self {
            gateway,
            address: gateway.websocket,
            rng: fastrand::Rng::with_seed(seed),
            patience,
            open: Vec::new(),
            tokens: vec![None; ACCOUNTS],
            seen: Seen::default(),
        }
    }

    /// Churns until told to stop; gives what it saw and the connections that it still holds.
    pub fn run(mut self, stop: &AtomicBool) -> (Seen, Vec<Connection>) {
        while !stop.load(Ordering::Relaxed) {
            match self.rng.u8(0..10) {
                0 | 1 => self.log_in(1),
                2 | 3 => {
                    let logins = self.rng.usize(2..=BURST_MAX);
                    self.log_in(logins);
                }
                4..8 => self.send(),
                8 => self.leave(),
                _ => self.knock_and_go(),
            }
            while self.open.len() > OPEN_MAX {
                self.leave();
            }
        }
        (self.seen, self.open)
    }

    fn wait(&self) -> Duration {
        match self.patience {
            Patience::Long(wait) => wait,
            Patience::Short => Duration::from_millis(200),
        }
    }

    fn knock(&mut self, account: usize) -> Option<Knock> {
        let user = format!("churn{account}");
        let again = self.rng.u8(0..8) == 0;
        let (platform, token) = match self.tokens[account].take().filter(|_| again) {
            Some(known) => known,
            None => {
                let platform = PLATFORMS[self.rng.usize(0..PLATFORMS.len())];
                (platform, self.gateway.token(&user, platform))
            }
        };
        let knock = Knock::new(self.address, &user, (platform, &token), self.wait());
        self.tokens[account] = Some((platform, token));
        knock.inspect_err(|_| self.seen.gone += 1).ok()
    }

    /// So many logins of one account, all on their way before the first answer is read.
    fn log_in(&mut self, logins: usize) {
        let account = self.rng.usize(0..ACCOUNTS);
        let knocks: Vec<Knock> = (0..logins).filter_map(|_| self.knock(account)).collect();
        self.read_answers(knocks);
    }

    /// One login of each of these accounts, at once.
    pub fn log_in_all(&mut self, accounts: std::ops::Range<usize>) {
        let knocks: Vec<Knock> = accounts.filter_map(|account| self.knock(account)).collect();
        self.read_answers(knocks);
    }

    /// Its connections end here.
    pub fn into_seen(self) -> Seen {
        self.seen
    }

    fn read_answers(&mut self, knocks: Vec<Knock>) {
        for knock in knocks {
            let (answer, took) = knock.answer(self.wait());
            if !matches!(answer, Answer::Gone | Answer::Hung) || self.patience != Patience::Short {
                self.seen.longest_login = self.seen.longest_login.max(took);
            }
            match answer {
                Answer::In(connection) => {
                    self.seen.logins += 1;
                    self.open.push(*connection);
                }
                Answer::Refused => self.seen.refused += 1,
                Answer::Busy => self.seen.busy += 1,
                Answer::Gone => self.seen.gone += 1,
                Answer::Hung if self.patience == Patience::Short => self.seen.left += 1,
                Answer::Hung => self.seen.hung_logins += 1,
            }
        }
    }

    fn send(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let index = self.rng.usize(0..self.open.len());
        let to = format!("churn{}", self.rng.usize(0..ACCOUNTS));
        match self.open[index].send_msg(&to) {
            Reply::Came(took) => {
                self.seen.replies += 1;
                self.seen.longest_reply = self.seen.longest_reply.max(took);
            }
            Reply::Gone => self.let_go(index, Leave::EndOfStream),
            Reply::Hung => {
                self.seen.hung_replies += u64::from(self.patience != Patience::Short);
                self.let_go(index, Leave::Reset);
            }
        }
    }

    fn leave(&mut self) {
        if !self.open.is_empty() {
            let index = self.rng.usize(0..self.open.len());
            let how = [Leave::CloseFrame, Leave::EndOfStream, Leave::Reset][self.rng.usize(0..3)];
            self.let_go(index, how);
        }
    }

    fn let_go(&mut self, index: usize, how: Leave) {
        let connection = self.open.swap_remove(index);
        self.seen.kicks += u64::from(connection.kicked);
        self.seen.pushes += connection.pushes;
        connection.leave(how);
    }

    /// Dies while its login waits.
    fn knock_and_go(&mut self) {
        let account = self.rng.usize(0..ACCOUNTS);
        let knocks: Vec<_> = (0..3).filter_map(|_| self.knock(account)).collect();
        self.seen.left += knocks.len() as u64;
    }
}
