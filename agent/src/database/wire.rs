//! What nodes that have one App say to each other about its database. Records go as they are in the log; everything else is JSON.

use cluster_bus::PAYLOAD_MAX;
use cluster_replica::lineage::{Chain, Position, Start};
use serde::{Deserialize, Serialize};

/// A record in a message begins so; JSON never does.
pub(super) const RECORD: &[u8] = b"CTX1";

/// [`Position`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub epoch: u64,
    pub tx: u64,
    pub checksum: u64,
}

impl From<Position> for Place {
    fn from(at: Position) -> Self {
        Self { epoch: at.epoch, tx: at.tx, checksum: at.checksum }
    }
}

impl From<Place> for Position {
    fn from(at: Place) -> Self {
        Self { epoch: at.epoch, tx: at.tx, checksum: at.checksum }
    }
}

/// [`Start`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub epoch: u64,
    pub base: Place,
    pub node: String,
}

/// The starts of a history.
pub(super) fn begun(chain: &Chain) -> Vec<Begun> {
    chain.starts().iter().map(|s| Begun { epoch: s.epoch, base: s.base.into(), node: s.node.clone() }).collect()
}

/// The history of these starts; none where they are not one.
pub(super) fn chain(begun: &[Begun]) -> Option<Chain> {
    let start = |b: &Begun| Start { epoch: b.epoch, base: b.base.into(), node: b.node.clone() };
    Chain::new(begun.iter().map(start).collect()).ok()
}

/// Said to all, beside records: where the active is, each second and after records that were not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Id of the database.
    pub db: String,
    /// Its last transaction.
    pub place: Place,
}

/// Said by a replica: what it has durably, each second and whenever something came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirm {
    /// Id of the database.
    pub db: String,
    /// The end of its log.
    pub place: Place,
    /// It may be counted for the epoch (rule D4); else it only says that it lives.
    pub counts: bool,
}

/// A question from one node to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    /// Id of the database.
    pub db: String,
    pub ask: Ask,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Ask {
    /// Rule D5: take nothing of lower epochs from now on, and say what is there.
    Seal { epoch: u64 },
    /// What follows this place of this history; `skip` records of it are here already.
    Tail { place: Place, chain: Vec<Begun>, skip: u32 },
    /// The whole database; `of` is the snapshot begun before, `skip` records of it are here already.
    Snapshot { of: Option<Place>, skip: u32 },
}

/// The first message of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Highest epoch that the answering node noted.
    pub noted: u64,
    /// The end of its log; of a snapshot, the state that it holds.
    pub place: Place,
    /// Its history.
    pub chain: Vec<Begun>,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    Sealed,
    /// So many records follow, each a message; `more`: ask again with a higher `skip`.
    Records {
        count: u32,
        more: bool,
    },
    /// Its log does not reach back so far.
    NeedsSnapshot,
    /// Not now, and why.
    Refused {
        why: String,
    },
}

/// JSON of a message. Only types of this file: they can be written.
pub(super) fn json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

/// Reads a message; none where it is not one. What is longer than any of ours is not even looked at.
pub(super) fn read<T: for<'d> Deserialize<'d>>(payload: &[u8]) -> Option<T> {
    if payload.len() > PAYLOAD_MAX { None } else { serde_json::from_slice(payload).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_and_its_numbers_survive_the_way() {
        let at = Position { epoch: 7, tx: 9_007_199_254_740_993, checksum: u64::MAX };
        let chain_here = Chain::new(vec![Start { epoch: 9, base: at, node: "n1".to_owned() }]).expect("a chain");
        let ask = Ask::Tail { place: at.into(), chain: begun(&chain_here), skip: 3 };
        let question = Question { db: "d".to_owned(), ask };
        let bytes = json(&question);
        assert!(!bytes.starts_with(RECORD));
        let back: Question = read(&bytes).expect("a question");
        assert_eq!(back, question);
        let Ask::Tail { place, chain: starts, .. } = back.ask else { panic!("another question") };
        assert_eq!((Position::from(place), chain(&starts)), (at, Some(chain_here)));
        assert_eq!(read::<Question>(b"CTX1"), None);
    }

    #[test]
    fn starts_that_are_no_history_are_refused() {
        let start = |epoch, base| Begun { epoch, base: Place { epoch: base, tx: 5, checksum: 0 }, node: "n1".to_owned() };
        assert!(chain(&[start(3, 2), start(9, 5)]).is_none());
    }
}
