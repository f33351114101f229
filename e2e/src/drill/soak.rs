//! Faults drawn at random, for as long as asked, against one lab.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use super::kind::{KINDS, Kind};
use super::stage::{Drill, Outcome, Played, only_blind};
use crate::error::{LabError, Result};
use crate::lab::{Lab, UpOptions};
use crate::tour::{all_nodes_ready, shortened};
use crate::wait::wait_until;

/// Nodes of the lab: the drills' Apps name them.
const NODES: u8 = 5;
const READY: Duration = Duration::from_secs(60);
/// Of so many faults one may not be judged since the witness was kept from looking; more, and the machine is no place for this.
const BLIND: u32 = 10;

/// What to play.
#[derive(Debug, Clone)]
pub struct Soak {
    /// Name of the lab.
    pub name: String,
    /// How long; the fault that is being played is played to its end. Every kind is played once at least.
    pub time: Duration,
    /// What the draw begins with.
    pub seed: u64,
    /// Only these kinds; all when empty.
    pub only: Vec<Kind>,
}

/// What was played of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    played: u32,
    wrong: u32,
    blind: u32,
    stayed: u32,
    again: u32,
    moved: u32,
    slowest: Duration,
    unit: Duration,
    vip: Duration,
}

impl Soak {
    /// Plays, writing a line on each fault and a table at the end.
    ///
    /// # Errors
    /// [`LabError`] when something was not as it should be after a fault; the table was written before.
    pub fn run(&self, out: &mut impl Write) -> Result<()> {
        let lab = Lab::up_scoped(&UpOptions::new(NODES).named(&self.name))?;
        wait_until("Ready nodes", READY, || all_nodes_ready(&lab))?;
        let mut rows = BTreeMap::new();
        let outcome = self.play(&lab, &mut rows, out);
        let told = write_table(out, self.seed, &rows);
        if outcome.is_err() {
            let _closed = writeln!(out, "{}", shortened(&lab.diagnose()));
        }
        outcome.and(told.map_err(|source| LabError::Io { action: "write the table".to_owned(), source }))
    }

    fn play(&self, lab: &Lab, rows: &mut BTreeMap<Kind, Row>, out: &mut impl Write) -> Result<()> {
        let mut drill = Drill::start(lab)?;
        let kinds = if self.only.is_empty() { KINDS.to_vec() } else { self.only.clone() };
        let (began, mut deck) = (Instant::now(), Deck::new(kinds.clone(), self.seed));
        let (mut played, mut wrong, mut blind) = (0_usize, 0_u32, 0_u32);
        while played < kinds.len() || began.elapsed() < self.time {
            let kind = deck.draw();
            played += 1;
            let text = match drill.play(kind) {
                Ok(done) => {
                    rows.entry(kind).or_default().add(&done);
                    done.to_string()
                }
                // It says nothing about the fault, for or against; the table counts it apart.
                Err(error) if only_blind(&error) => {
                    rows.entry(kind).or_default().blind += 1;
                    blind += 1;
                    format!("BLIND {}", error.chain())
                }
                Err(error) => {
                    let row = rows.entry(kind).or_default();
                    (row.played, row.wrong) = (row.played + 1, row.wrong + 1);
                    wrong += 1;
                    format!("WRONG {}", error.chain())
                }
            };
            let _closed = writeln!(out, "{played:>4}  {text}");
            // What does not come to rest again says nothing about further faults.
            if text.starts_with("WRONG") || text.starts_with("BLIND") {
                drill.recover()?;
            }
        }
        match (wrong, u32::try_from(played).unwrap_or(u32::MAX) / BLIND) {
            (0, most) if blind <= most => Ok(()),
            (0, _) => {
                Err(LabError::Invalid(format!("the witness was kept from looking in {blind} of {played} faults: the machine is too busy")))
            }
            _ => Err(LabError::Invalid(format!("{wrong} of {played} faults had consequences that must not be"))),
        }
    }
}

impl Row {
    fn add(&mut self, played: &Played) {
        self.played += 1;
        match played.outcome {
            Outcome::Stayed => self.stayed += 1,
            Outcome::Again => self.again += 1,
            Outcome::Moved { after, .. } => {
                self.moved += 1;
                self.slowest = self.slowest.max(after);
            }
        }
        self.unit = self.unit.max(played.bounded.unit);
        self.vip = self.vip.max(played.bounded.vip);
    }
}

fn write_table(out: &mut impl Write, seed: u64, rows: &BTreeMap<Kind, Row>) -> std::io::Result<()> {
    let row = |out: &mut dyn Write, cells: [String; 9]| {
        let [kind, numbers @ ..] = cells;
        writeln!(out, "{kind:<20}{}", numbers.map(|cell| format!("{cell:>14}")).concat())
    };
    let head = ["kind", "played", "wrong", "not seen", "stayed", "new tenure", "moved", "slowest, ms", "overlap, ms"];
    row(out, head.map(str::to_owned))?;
    for (kind, r) in rows {
        let overlap = format!("{:.1} / {:.1}", r.unit.as_secs_f64() * 1e3, r.vip.as_secs_f64() * 1e3);
        let slowest = if r.moved > 0 { r.slowest.as_millis().to_string() } else { "-".to_owned() };
        let counts = [r.played, r.wrong, r.blind, r.stayed, r.again, r.moved].map(|count| count.to_string());
        let [played, wrong, blind, stayed, again, moved] = counts;
        row(out, [kind.to_string(), played, wrong, blind, stayed, again, moved, slowest, overlap])?;
    }
    let all: u32 = rows.values().map(|r| r.played).sum();
    writeln!(out, "{all} faults judged, seed {seed}; overlaps (unit / address) only where they are bounded, not excluded")
}

/// Kinds in random order, each once before any comes again: after n rounds there are n of each.
#[derive(Debug)]
struct Deck {
    kinds: Vec<Kind>,
    next: usize,
    dice: u64,
}

impl Deck {
    fn new(kinds: Vec<Kind>, seed: u64) -> Self {
        // Any state but zero will do for this generator.
        Self { next: kinds.len(), kinds, dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn below(&mut self, n: usize) -> usize {
        // Xorshift: https://doi.org/10.18637/jss.v008.i14
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        usize::try_from(self.dice % n as u64).unwrap_or(0)
    }

    fn draw(&mut self) -> Kind {
        if self.next >= self.kinds.len() {
            for place in (1..self.kinds.len()).rev() {
                let other = self.below(place + 1);
                self.kinds.swap(place, other);
            }
            self.next = 0;
        }
        self.next += 1;
        self.kinds.get(self.next - 1).copied().unwrap_or(Kind::Crash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deck_gives_each_kind_once_a_round_and_the_same_by_the_same_seed() {
        let draw = |seed: u64| {
            let mut deck = Deck::new(KINDS.to_vec(), seed);
            (0..KINDS.len() * 2).map(|_| deck.draw()).collect::<Vec<_>>()
        };
        let (one, two) = (draw(1), draw(2));
        assert_eq!(one, draw(1));
        assert_ne!(one, two);
        for round in one.chunks(KINDS.len()) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, KINDS);
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_kind_played() {
        let mut rows = BTreeMap::new();
        rows.insert(Kind::Crash, Row { played: 2, moved: 2, slowest: Duration::from_millis(640), ..Row::default() });
        let mut out = Vec::new();
        write_table(&mut out, 7, &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("crash") && text.contains("640") && text.contains("2 faults judged, seed 7"), "{text}");
    }
}
