//! What a simulation reached.

use std::collections::BTreeMap;
use std::fmt;

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// A node is cut off.
    CutOff,
    /// The network is in two halves.
    Split,
    /// A tenth of the messages is lost, and as many doubled.
    Lossy,
    /// An agent (with its voter) is killed and starts again.
    AgentKilled,
    /// The same in the midst of writing a record.
    TornRecord,
    /// An agent is restarted as planned, after a long renewal.
    AgentRestarted,
    /// An agent stands still; its guard does not.
    AgentPaused,
    /// A machine loses power and boots.
    PowerLost,
    /// A slot is moved as planned.
    Moved,
    /// The guard fences before the deadline.
    FencedEarly,
    /// A voter is added or removed.
    VotersChanged,
    /// The driver of a change dies and another goes on.
    DriverKilled,
}

/// In what a blow found a node's slots, or the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// Candidate, not asking.
    Idle,
    /// Asking.
    Attempt,
    /// Holding.
    Holding,
    /// Told to stop, still renewing.
    Stopping,
    /// Lost, not yet stopped.
    Ended,
    /// Telling the voters of an end.
    Releasing,
    /// Its voter waits out a restart.
    VoterWaiting,
    /// The voters are being changed.
    Changing,
}

/// All columns of the table.
pub const FOUND: [Found; 8] =
    [Found::Idle, Found::Attempt, Found::Holding, Found::Stopping, Found::Ended, Found::Releasing, Found::VoterWaiting, Found::Changing];

/// Counts of one or more simulations.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Events handled.
    pub events: u64,
    /// Slots acquired.
    pub acquired: u64,
    /// Of these, after more than one node asked for the same free slot.
    pub contested: u64,
    /// Tenures lost to the deadline or a fence.
    pub lost: u64,
    /// Tenures released.
    pub released: u64,
    /// Tenures adopted by a restarted agent.
    pub adopted: u64,
    /// Changes of voters completed.
    pub changes: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Simulated time, in nanoseconds.
    pub simulated: u64,
    /// In fair times: the longest from a holder's power loss to the next acquisition, in nanoseconds.
    pub longest_takeover: u64,
    /// Blow by state.
    pub table: BTreeMap<(Blow, Found), u64>,
}

impl Stats {
    /// Adds another simulation's counts.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.acquired += other.acquired;
        self.contested += other.contested;
        self.lost += other.lost;
        self.released += other.released;
        self.adopted += other.adopted;
        self.changes += other.changes;
        self.delivered += other.delivered;
        self.simulated += other.simulated;
        self.longest_takeover = self.longest_takeover.max(other.longest_takeover);
        for (cell, count) in &other.table {
            *self.table.entry(*cell).or_default() += count;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} events, {} messages, {} s simulated; {} acquired ({} contested), {} lost, {} released, {} adopted, {} voter changes",
            self.events,
            self.delivered,
            self.simulated / 1_000_000_000,
            self.acquired,
            self.contested,
            self.lost,
            self.released,
            self.adopted,
            self.changes
        )?;
        writeln!(f, "longest take-over in fair times: {} ms", self.longest_takeover / 1_000_000)?;
        write!(f, "{:<15}", "fault \\ state")?;
        FOUND.iter().try_for_each(|found| write!(f, "{:>13}", format!("{found:?}")))?;
        let blows: std::collections::BTreeSet<Blow> = self.table.keys().map(|(blow, _)| *blow).collect();
        for blow in blows {
            write!(f, "\n{:<15}", format!("{blow:?}"))?;
            for found in FOUND {
                write!(f, "{:>13}", self.table.get(&(blow, found)).copied().unwrap_or(0))?;
            }
        }
        Ok(())
    }
}
