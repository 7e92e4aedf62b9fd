//! Checks that the tables of a hub agree with each other (architecture.md section 9, property 4). For the simulator
//! and tests; production never needs it.

use super::{Hub, Kind};
use crate::ids::ConnId;
use crate::session::disconnect::Disconnect;
use crate::session::outbox::VerdictRef;
use crate::session::{Phase, Session};
use crate::wire::envelope::Variant;

impl Hub {
    /// Returns the first disagreement found.
    ///
    /// # Errors
    /// A sentence that names the tables and the numbers.
    pub fn audit(&self) -> Result<(), String> {
        let sessions = || self.registry.sessions.iter().map(|(_, session)| session);
        let sum = |value: &dyn Fn(&Session) -> usize| sessions().map(value).sum::<usize>();
        expect("outbox bytes", sum(&|s| s.outbox_bytes()), self.registry.outbox_bytes)?;
        expect("inbound bytes", sum(&|s| s.inbound_bytes()), self.registry.inbound_bytes)?;
        self.audit_backlogs()?;
        for variant in Variant::all() {
            let registered = sum(&|s| (s.is_registered() && s.variant == variant).into());
            expect(&format!("{variant:?}"), registered, self.registry.registered_as(variant))?;
        }
        self.registry.audit()?;
        self.verdicts.audit()?;
        self.held.audit()?;
        if let Some(claims) = &self.claims {
            let sessions = self.registry.sessions.iter().map(|(id, session)| (ConnId(id), session));
            claims.audit(&sessions.collect::<Vec<_>>())?;
        }
        let waited_for = |verdict: &VerdictRef| self.verdicts.is_open(*verdict);
        let open = |s: &Session| {
            let tags = s.outbox.iter().flat_map(|outbox| outbox.tags());
            tags.filter_map(|tag| tag.verdict).filter(waited_for).count()
        };
        expect("open verdicts", sum(&open), self.verdicts.devices())?;
        expect("held", self.verdicts.held(), self.held.len())?;
        for kind in [Kind::Unregister, Kind::Kick, Kind::Register] {
            let queued = sum(&|s| s.queued.get(kind as usize).is_some_and(|queued| *queued).into());
            expect(&format!("{kind:?} queue"), queued, self.queues.len(kind))?;
        }
        for (id, session) in self.registry.sessions.iter() {
            let fail = |what: &str| Err(format!("session {}.{}: {what}", id.index, id.generation));
            if (session.phase < Phase::Closed) != session.timer.is_armed() {
                return fail("its timer does not match its phase");
            }
            if session.phase == Phase::Closed && session.outbox.is_some() {
                return fail("closed with a full outbox");
            }
            if session.outbox.as_ref().is_some_and(|outbox| outbox.is_empty()) {
                return fail("holds an empty outbox");
            }
            if session.reason.is_some() != (session.phase >= Phase::Closing) {
                return fail("its reason does not match its phase");
            }
            if let Some(user) = self.registry.user_of(session)
                && !self.registry.connections(user).any(|(conn, _)| conn.0 == id)
            {
                return fail("not in the list of its user");
            }
        }
        Ok(())
    }

    /// Each outbox stands once in the list of its size, and nobody else does.
    fn audit_backlogs(&self) -> Result<(), String> {
        let sessions = &self.registry.sessions;
        let mut listed = 0;
        for class in self.backlogs.classes() {
            for index in self.backlogs.listed(sessions, class).take(sessions.len() + 1) {
                listed += 1;
                let bytes = sessions.at(index).map_or(0, Session::outbox_bytes);
                if self.backlogs.class(bytes) != Some(class) {
                    return Err(format!("outbox of {bytes} bytes in list {class}"));
                }
            }
        }
        let large = |s: &Session| self.backlogs.class(s.outbox_bytes()).is_some();
        expect("listed outboxes", sessions.iter().filter(|(_, s)| large(s)).count(), listed)
    }

    /// Each session with why it ends, if it does, and the bytes that wait for it (once closed: that were thrown away).
    pub fn backlogs(&self) -> Vec<(ConnId, Option<Disconnect>, usize)> {
        let bytes = |s: &Session| s.outbox_bytes().max(s.ledger.bytes_unsent as usize);
        self.registry.sessions.iter().map(|(id, s)| (ConnId(id), s.reason, bytes(s))).collect()
    }

    /// Every registered connection with its user, in the order of the slab.
    pub fn roster(&self) -> Vec<(ConnId, Box<str>)> {
        let entry = |(id, session)| Some((ConnId(id), self.registry.user_of(session)?.into()));
        self.registry.sessions.iter().filter_map(entry).collect()
    }

    /// Bytes that the limits allow this hub to hold for its clients (property 5).
    pub fn queued_bytes_bound(&self) -> usize {
        // Each session may end with one more frame than its limit: the kick or the close frame.
        let last_frames = self.registry.sessions.len() * crate::limits::MESSAGE_BYTES_MAX;
        self.config.shard_outbox_bytes_max + last_frames
    }

    /// Bytes that wait in outboxes.
    pub fn queued_bytes(&self) -> usize {
        self.registry.outbox_bytes
    }
}

fn expect(what: &str, found: usize, counted: usize) -> Result<(), String> {
    if found == counted {
        Ok(())
    } else {
        Err(format!("{what}: the tables hold {found}, the counter says {counted}"))
    }
}
