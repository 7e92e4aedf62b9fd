//! What one simulated world is like, drawn from its seed: sizes, limits, policy and how often things go wrong.

use std::ops::Range;

use pinion::hub::login_policy::LoginPolicy;
use pinion::hub::{HubConfig, SpreadPlan};
use pinion::ids::ShardId;
use pinion::limits;
use pinion::time::{Mono, Now, UnixMs};

/// How often something happens, in thousandths.
pub type PerMille = u32;

/// The parameters of a world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: u16,
    pub clients: usize,
    pub users: usize,
    pub policy: LoginPolicy,
    /// Outbox limits so small that clients are often closed as slow.
    pub tight: bool,
    pub connections_max: u32,
    pub control_lane_max: usize,
    pub push_lane_max: usize,
    pub hand_over_lane_max: usize,
    pub start: Now,
    pub run_ms: u64,
    /// From the drain to its deadline.
    pub drain_ms: u64,
    pub hangs: PerMille,
    pub errors: PerMille,
    pub bad_tokens: PerMille,
    pub stalls: PerMille,
    pub resets: PerMille,
    pub jumps: PerMille,
    /// Late completions of connections that are gone.
    pub late: PerMille,
    /// Turns that come late.
    pub slow_turns: PerMille,
    /// Clients that vanish without a word: nothing arrives from them any more, and they read nothing.
    pub half_open: PerMille,
    /// Calls asked in this span of the world's milliseconds are answered, with an error, after their deadline.
    pub outage: Option<(u64, u64)>,
    /// Between two thoughts of a client.
    pub think_ms: Range<u64>,
    /// A client that was kicked comes back as soon as any other.
    pub eager: bool,
}

impl Plan {
    /// Draws a plan. The generator goes on to drive the world.
    pub fn draw(seed: u64) -> (Self, fastrand::Rng) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let policy = [0, 1, 1, 1, 4, 5][rng.usize(0..6)];
        let small = rng.u8(0..4) == 0;
        let lane = |rng: &mut fastrand::Rng, max: usize| if small { rng.usize(1..6) } else { max };
        let sometimes = |rng: &mut fastrand::Rng, odds: u32, most: u32| {
            if rng.u32(0..100) < odds { rng.u32(1..=most) } else { 0 }
        };
        let mono = [0, 250, 1_000_000, 3_456_789][rng.usize(0..4)];
        let plan = Self {
            seed,
            shards: rng.u16(1..=4),
            clients: rng.usize(2..=10),
            users: rng.usize(1..=4),
            policy: LoginPolicy::from_number(policy).expect("one of the four"),
            tight: rng.u8(0..4) == 0,
            connections_max: if rng.u8(0..6) == 0 { rng.u32(1..4) } else { 64 },
            control_lane_max: lane(&mut rng, limits::CONTROL_LANE_MAX),
            push_lane_max: lane(&mut rng, limits::PUSH_LANE_MAX),
            hand_over_lane_max: lane(&mut rng, limits::HAND_OVER_LANE_MAX),
            start: Now { mono: Mono(mono), unix: UnixMs(1_700_000_000_000 + rng.i64(0..1_000_000)) },
            run_ms: rng.u64(2_000..30_000),
            drain_ms: [0, 400, 1_500, 6_000][rng.usize(0..4)],
            hangs: sometimes(&mut rng, 40, 150),
            errors: sometimes(&mut rng, 40, 200),
            bad_tokens: sometimes(&mut rng, 40, 300),
            stalls: sometimes(&mut rng, 50, 60),
            resets: sometimes(&mut rng, 70, 40),
            jumps: sometimes(&mut rng, 25, 12),
            late: sometimes(&mut rng, 60, 600),
            slow_turns: sometimes(&mut rng, 50, 80),
            half_open: 0,
            outage: None,
            think_ms: 20..600,
            eager: false,
        };
        (plan, rng)
    }

    /// Draws a world of churn (incident 1): few accounts with many logins each, at full speed, in lanes that overflow,
    /// with half-open peers and an upstream that goes away.
    pub fn churn(seed: u64) -> (Self, fastrand::Rng) {
        let (plan, mut rng) = Self::draw(seed);
        // Long enough for the read deadline to end half-open connections, and quiet, or it would take too long.
        let long = rng.u8(0..20) == 0;
        let run_ms = if long { rng.u64(36_000..40_000) } else { rng.u64(700..5_000) };
        let small = rng.bool();
        let lane = |rng: &mut fastrand::Rng, max: usize| if small { rng.usize(1..5) } else { max };
        let outage = rng.u64(0..run_ms);
        let plan = Self {
            clients: if long { 6 } else { rng.usize(10..=24) },
            users: rng.usize(1..=4),
            connections_max: if rng.u8(0..6) == 0 { rng.u32(3..9) } else { 96 },
            control_lane_max: lane(&mut rng, limits::CONTROL_LANE_MAX),
            push_lane_max: lane(&mut rng, limits::PUSH_LANE_MAX),
            hand_over_lane_max: lane(&mut rng, limits::HAND_OVER_LANE_MAX),
            run_ms,
            bad_tokens: rng.u32(0..60),
            resets: rng.u32(50..300),
            half_open: rng.u32(1..60),
            outage: rng.bool().then(|| (outage, outage + rng.u64(100..2_000))),
            think_ms: if long { 300..1_500 } else { 5..60 },
            eager: true,
            ..plan
        };
        (plan, rng)
    }

    /// Every third world spreads its logins, some by so much that login deadlines come near. Not drawn: the generator
    /// goes on to drive the world, and the seeds of planted faults keep their meaning.
    fn spread(&self, shard: u16) -> SpreadPlan {
        let (above_per_second, ms_max) = match self.seed % 9 {
            0 => (1, 5_000),
            3 => (1, 500),
            6 => (2, 20_000),
            _ => (limits::LOGINS_UNSPREAD_MAX, limits::SPREAD_MS),
        };
        SpreadPlan { above_per_second, ms_max, seed: self.seed.rotate_left(8) ^ u64::from(shard) }
    }

    /// What a hub of this world is told.
    pub fn hub_config(&self, shard: u16) -> HubConfig {
        let (bytes, frames, shard_bytes) = if self.tight {
            (6_000, 6, if self.seed.is_multiple_of(2) { 7_000 } else { 12_000 })
        } else {
            let defaults = (limits::OUTBOX_BYTES_MAX, limits::OUTBOX_FRAMES_MAX);
            (defaults.0, defaults.1, limits::SHARD_OUTBOX_BYTES_MAX)
        };
        HubConfig {
            login_policy: self.policy,
            outbox_bytes_max: bytes,
            outbox_frames_max: frames,
            shard_outbox_bytes_max: shard_bytes,
            user_connections_max: if self.seed % 5 == 1 { 2 } else { limits::USER_CONNECTIONS_MAX },
            spread: self.spread(shard),
            hash_seed: self.seed ^ 0x5eed,
            ..HubConfig::for_shard(ShardId(shard), self.connections_max)
        }
    }
}
