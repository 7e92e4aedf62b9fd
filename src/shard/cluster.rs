//! News for the node's router on their way to rpc thread 0, in order and none lost: what the thread does not take is
//! kept here, the rest in the hub, which then lets nobody in who would make more (`limits::CLUSTER_NEWS_MAX`). Nobody
//! waits: the loop tries again in its next turn, at the latest with its tick.

use super::mailbox::{RpcAddress, RpcMail};
use crate::hub::cluster::ClusterNews;
use crate::limits::LANE_BATCH_MAX;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ClusterPost {
    /// `None`: nobody is told.
    rpc: Option<RpcAddress>,
    /// The rpc thread did not take it.
    kept: Option<Box<ClusterNews>>,
}

impl ClusterPost {
    pub(super) fn new(rpc: Option<RpcAddress>) -> Self {
        Self { rpc, kept: None }
    }

    /// Posts the news that `source` gives, while there is room. Returns whether the budget ended it.
    pub(super) fn pass(&mut self, mut source: impl FnMut() -> Option<ClusterNews>) -> bool {
        let Some(rpc) = &self.rpc else { return false };
        for _ in 0..LANE_BATCH_MAX {
            let Some(news) = self.kept.take().or_else(|| source().map(Box::new)) else {
                return false;
            };
            if let Err(RpcMail::Cluster(news)) = rpc.post(RpcMail::Cluster(news)) {
                self.kept = Some(news);
                return false;
            }
        }
        true
    }

    /// Nothing is kept here.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CLUSTER_LANE_MAX;
    use crate::shard::mailbox::{RpcInbox, rpc_mailbox};

    fn posted(inbox: &RpcInbox) -> Vec<u64> {
        let mails = std::iter::from_fn(|| inbox.next());
        let numbers = mails.map(|mail| match mail {
            RpcMail::Cluster(news) => match *news {
                ClusterNews::Gone(number) => number,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
        numbers.collect()
    }

    #[test]
    fn what_the_lane_does_not_take_is_kept_and_goes_first() {
        let (rpc, inbox) = rpc_mailbox(1).unwrap();
        let mut post = ClusterPost::new(Some(rpc));
        let room = CLUSTER_LANE_MAX as u64;
        let mut news = (0..room + 3).map(ClusterNews::Gone);
        while post.pass(|| news.next()) {}
        assert!(!post.is_empty(), "one was taken and came back");
        assert!(!post.pass(|| panic!("nothing is taken while one is kept")));
        assert_eq!(posted(&inbox), (0..room).collect::<Vec<_>>());
        assert!(!post.pass(|| news.next()));
        assert!(post.is_empty());
        assert_eq!(posted(&inbox), [room, room + 1, room + 2]);
    }

    #[test]
    fn a_budget_ends_a_batch() {
        let (rpc, inbox) = rpc_mailbox(1).unwrap();
        let mut post = ClusterPost::new(Some(rpc));
        let mut news = (0..=LANE_BATCH_MAX as u64).map(ClusterNews::Gone);
        assert!(post.pass(|| news.next()));
        assert_eq!(posted(&inbox).len(), LANE_BATCH_MAX);
        assert!(!post.pass(|| news.next()));
        assert_eq!(posted(&inbox), [LANE_BATCH_MAX as u64]);
        drop(inbox);
        let mut last = Some(ClusterNews::Gone(1));
        assert!(!post.pass(|| last.take()), "a thread that has ended takes nothing");
        assert!(!post.is_empty() && last.is_none());
    }
}
