//! Leadership of the controllers (rules C1 to C3): one record, replaced by compare-and-set at acquisition only; liveness is a beat on core
//! NATS, so that an idle cluster writes nothing.
//!
//! Two controllers may believe that they lead. Only the one whose record is the latest can write (rule C2), so that costs a little
//! work, never a wrong assignment.
//!
//! Tasks and channels: one task owns the state; it publishes [`Leadership`] over a `watch` and takes word of a refused write over a
//! bounded `mpsc`. Both stay behind [`LeadershipHandle`].

use std::time::{Duration, Instant};

use cluster_bus::{Beat, Bucket, Bus, Kv, KvError, LEADER_KEY, LeaderRecord, Revised};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::world::SharedWorld;

/// The leader beats this often.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A contender that hears no beat for this long, by its own clock, replaces the record.
pub const BEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the owner looks whether the time has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Wait after an attempt that could not reach the store.
const RETRY: Duration = Duration::from_millis(500);

/// Whether this controller leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Another leads, or nobody.
    #[default]
    Following,
    /// This one leads, as far as it knows.
    Leading(Lead),
}

/// One leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// Identity of the store.
    pub incarnation: String,
    /// Number of the leadership.
    pub term: u64,
    /// Revision of the leader record: every write is conditional on it.
    pub revision: u64,
}

/// What the rest of the controller has of leadership.
#[derive(Debug, Clone)]
pub struct LeadershipHandle {
    state: watch::Receiver<Leadership>,
    deposed: mpsc::Sender<u64>,
}

impl LeadershipHandle {
    /// The state now.
    #[must_use]
    pub fn current(&self) -> Leadership {
        self.state.borrow().clone()
    }

    /// Waits until the state changes. False when the owner is gone.
    pub async fn changed(&mut self) -> bool {
        self.state.changed().await.is_ok()
    }

    /// A write of leadership `term` was refused by the store: another leads.
    pub fn deposed(&self, term: u64) {
        // A full queue says the same already.
        let _told = self.deposed.try_send(term);
    }
}

struct Owner {
    bus: Bus,
    kv: Kv<LeaderRecord>,
    world: SharedWorld,
    name: String,
    instance: String,
    /// How many voters there should be.
    voters: usize,
    state: watch::Sender<Leadership>,
    deposed: mpsc::Receiver<u64>,
    /// A record whose leader was not heard yet, and since when it is known.
    unheard: Option<(u64, Instant)>,
}

/// Starts to contend for leadership in a task of its own. `voters`: how many nodes should vote on leases, for the leader's beat.
#[must_use]
pub fn start(bus: Bus, world: SharedWorld, name: String, instance: String, voters: usize) -> LeadershipHandle {
    let (state, receiver) = watch::channel(Leadership::Following);
    let (deposed_tx, deposed) = mpsc::channel(4);
    tokio::spawn(async move {
        let kv = bus.open(Bucket::Assignments).await;
        Owner { bus, kv, world, name, instance, voters, state, deposed, unheard: None }.run().await;
    });
    LeadershipHandle { state: receiver, deposed: deposed_tx }
}

/// The leader that was heard last, by now.
struct Heard {
    incarnation: String,
    term: u64,
    /// For too long.
    silent: bool,
}

/// Whether the leader of the record that is `present` had its time to beat. When several contenders find the same leader silent, all but
/// the first find the record of one that has only just begun: it is not the silent one.
fn had_its_time(unheard: &mut Option<(u64, Instant)>, present: &Revised<LeaderRecord>, heard: Option<&Heard>, now: Instant) -> bool {
    if let Some(heard) = heard.filter(|h| h.incarnation == present.value.incarnation && h.term >= present.value.term) {
        // It may have beaten while the record was on its way.
        return heard.silent;
    }
    match unheard {
        Some((revision, since)) if *revision == present.revision => now.saturating_duration_since(*since) >= BEAT_TIMEOUT,
        _ => {
            *unheard = Some((present.revision, now));
            false
        }
    }
}

impl Owner {
    async fn run(mut self) {
        let started = Instant::now();
        // A cluster that never had a leader need not wait for beats that cannot come.
        let mut in_a_hurry = true;
        loop {
            let silent = self.silence(started);
            if !(silent >= BEAT_TIMEOUT || in_a_hurry) {
                tokio::time::sleep(LOOK_INTERVAL).await;
                continue;
            }
            if !self.bus.is_connected() {
                tokio::time::sleep(LOOK_INTERVAL).await;
                continue;
            }
            match self.acquire(in_a_hurry).await {
                Ok(Some(lead)) => {
                    info!(term = lead.term, revision = lead.revision, "leading");
                    self.lead(lead).await;
                    in_a_hurry = false;
                }
                Ok(None) => {
                    in_a_hurry = false;
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
                Err(KvError::Conflict { .. }) => {
                    // Somebody else was faster; their beat is on its way.
                    debug!("another controller took the leadership");
                    in_a_hurry = false;
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    debug!("cannot take the leadership yet: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn silence(&self, started: Instant) -> Duration {
        let world = self.world.read();
        // Who was deaf cannot tell that others were silent.
        let since = started.max(world.listening_since);
        let heard = world.leader.as_ref().filter(|(_, b)| b.instance != self.instance).map_or(since, |(at, _)| (*at).max(since));
        Instant::now().saturating_duration_since(heard)
    }

    /// Replaces the record. With `only_first`, only where none exists.
    async fn acquire(&mut self, only_first: bool) -> Result<Option<Lead>, KvError> {
        let present: Option<Revised<LeaderRecord>> = self.kv.get(LEADER_KEY).await?;
        if let Some(present) = &present {
            let now = Instant::now();
            let heard = self.world.read().leader.as_ref().map(|(at, beat)| Heard {
                incarnation: beat.incarnation.clone(),
                term: beat.term,
                // Its own beats say nothing about others.
                silent: beat.instance == self.instance || now.saturating_duration_since(*at) >= BEAT_TIMEOUT,
            });
            let had_its_time = had_its_time(&mut self.unheard, present, heard.as_ref(), now);
            if only_first || !had_its_time {
                return Ok(None);
            }
        }
        let highest = self.world.read().highest_term();
        let record = LeaderRecord {
            incarnation: present.as_ref().map_or_else(|| uuid::Uuid::new_v4().to_string(), |p| p.value.incarnation.clone()),
            term: 1 + highest.max(present.as_ref().map_or(0, |p| p.value.term)),
            leader: self.name.clone(),
            instance: self.instance.clone(),
        };
        let revision = match &present {
            Some(present) => self.kv.update(LEADER_KEY, &record, present.revision).await?,
            None => self.kv.create(LEADER_KEY, &record).await?,
        };
        Ok(Some(Lead { incarnation: record.incarnation, term: record.term, revision }))
    }

    /// Leads until a write is refused or a higher term is heard.
    async fn lead(&mut self, lead: Lead) {
        let term = lead.term;
        while self.deposed.try_recv().is_ok() {}
        self.state.send_replace(Leadership::Leading(lead.clone()));
        let mut ticks = tokio::time::interval(BEAT_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let (beat, newer) = self.next_beat(&lead);
                    if let Some((newer, by)) = newer {
                        warn!(term, newer, by, "another controller leads, following");
                        break;
                    }
                    self.bus.publish_beat(&beat).await;
                }
                refused = self.deposed.recv() => match refused {
                    Some(of) if of == term => {
                        warn!(term, "another controller leads, by the store or by what agents go by; following");
                        break;
                    }
                    Some(_) => {}
                    None => break,
                },
            }
        }
        self.state.send_replace(Leadership::Following);
    }

    fn next_beat(&self, lead: &Lead) -> (Beat, Option<(u64, String)>) {
        let world = self.world.read();
        let newer = world
            .leader
            .as_ref()
            .filter(|(_, b)| b.incarnation == lead.incarnation && b.term > lead.term)
            .map(|(_, b)| (b.term, b.leader.clone()));
        let assignments = world
            .assignments
            .iter()
            .flatten()
            .filter(|(_, a)| a.value.order.incarnation == lead.incarnation)
            .map(|(node, a)| (node.clone(), (a.value.order.term, a.value.order.generation)))
            .collect();
        let beat = Beat {
            incarnation: lead.incarnation.clone(),
            term: lead.term,
            leader: self.name.clone(),
            instance: self.instance.clone(),
            assignments,
            voters: world.wanted_voters(Instant::now(), self.voters),
        };
        (beat, newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_has_just_begun_is_not_the_silent_one() {
        let now = Instant::now();
        let record = |term, revision| {
            let value = LeaderRecord { incarnation: "i".to_owned(), term, leader: "n1".to_owned(), instance: "x".to_owned() };
            Revised { value, revision }
        };
        let heard = |incarnation: &str, term, silent| Heard { incarnation: incarnation.to_owned(), term, silent };
        let (beats, heard, other) = (heard("i", 4, false), heard("i", 4, true), heard("j", 9, true));
        let mut unheard = None;
        assert!(had_its_time(&mut unheard, &record(4, 40), Some(&heard), now), "the one that was heard, and is silent");
        assert!(!had_its_time(&mut unheard, &record(4, 40), Some(&beats), now), "its beat came while the record was read");
        assert!(!had_its_time(&mut unheard, &record(5, 50), Some(&heard), now), "its successor");
        assert!(!had_its_time(&mut unheard, &record(5, 50), Some(&heard), now + BEAT_TIMEOUT / 2));
        assert!(!had_its_time(&mut unheard, &record(6, 60), Some(&heard), now + BEAT_TIMEOUT), "the successor's successor");
        assert!(had_its_time(&mut unheard, &record(6, 60), Some(&heard), now + BEAT_TIMEOUT * 2), "it never beat");
        // A contender that never heard anybody counts from its first look, and a beat of another store says nothing.
        let mut unheard = None;
        assert!(!had_its_time(&mut unheard, &record(4, 40), Some(&other), now));
        assert!(had_its_time(&mut unheard, &record(4, 40), None, now + BEAT_TIMEOUT));
    }
}
