//! From the lease to the epoch (rule D5).

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;

use cluster_bus::DatabaseLink;
use cluster_replica::host::{Host, HostError};
use cluster_replica::lineage::Position;
use cluster_replica::role::{Policy, Promotion, Sealed, StayDown, Step};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::fetch::Fetch;
use super::task::Task;
use super::wall::now_ms;
use super::wire::{Answer, Ask, Kind, Question, chain, json, read};
use super::{Stage, Wish};
use crate::clock;

/// Longest wait for standbys that do not have to answer.
const WAIT: Duration = Duration::from_millis(100);
/// Longest wait for one answer before the node is asked again.
const ANSWER: Duration = Duration::from_millis(300);

/// A promotion under way.
pub(super) struct Promoting {
    epoch: u64,
    adopt: bool,
    machine: Promotion,
    others: BTreeSet<String>,
    answered: BTreeSet<String>,
    asked: JoinSet<(String, Option<Sealed>)>,
    in_flight: BTreeMap<String, Instant>,
    begun: Instant,
    /// When to look again.
    pub until: Option<Instant>,
}

impl Promoting {
    /// The next answer to a seal; pends while nobody was asked.
    pub(super) async fn answered(promoting: &mut Option<Self>) -> (String, Option<Sealed>) {
        match promoting.as_mut().map(|p| &mut p.asked) {
            Some(asked) if !asked.is_empty() => match asked.join_next().await {
                Some(Ok(answer)) => answer,
                _ => (String::new(), None),
            },
            _ => pending().await,
        }
    }

    /// The node answered once and does not give what it has.
    pub(super) fn lost(&mut self, node: &str) {
        self.machine.lost(node);
        self.answered.remove(node);
    }

    /// What was fetched is in our log.
    pub(super) fn fetched(&mut self, host: &Host) {
        self.machine.fetched(host.member().position(), host.member().chain().clone());
    }

    /// An operator accepts the loss.
    pub(super) fn override_loss(&mut self) {
        self.machine.override_loss();
    }
}

impl Task {
    /// Brings the database into `epoch`, step by step with each turn of the loop.
    pub(super) async fn promote_to(&mut self, epoch: u64, adopt: bool, wish: &Wish) {
        match self.stage {
            Stage::Active(now) if now == epoch => self.go_on(epoch),
            // An earlier tenure's: its unit has to stop first, and the worker sees to it.
            Stage::Active(_) => {}
            Stage::Ready(now) if now == epoch => self.begin_with_the_application(epoch),
            Stage::Promoting(now) if now == epoch && self.promoting.as_ref().is_some_and(|p| p.adopt == adopt) => self.promote(epoch).await,
            Stage::Refused(now) if now == epoch && adopt => {}
            _ if self.retry_at.is_none() => {
                self.begin_promotion(epoch, adopt, wish);
                self.promote(epoch).await;
            }
            _ => {}
        }
    }

    fn begin_promotion(&mut self, epoch: u64, adopt: bool, wish: &Wish) {
        (self.fetch, self.promoting, self.retiring) = (None, None, None);
        let Some(host) = &mut self.host else { return };
        match host.resume(epoch, now_ms()) {
            Ok(true) => {
                info!(app = self.setup.name.app, epoch, "following the database again in the epoch that was begun here");
                return self.now_active(epoch);
            }
            Ok(false) => {}
            // The epoch is ours: the application may go on while we cannot follow it.
            Err(HostError::Capture(why)) => {
                self.now_active(epoch);
                return self.host_failed(&HostError::Capture(why));
            }
            Err(error) => return self.close(&error),
        }
        let host_is_new = host.member().chain().starts().is_empty() && host.member().position() == Position::default();
        if adopt && !host_is_new {
            warn!(app = self.setup.name.app, epoch, "the database is at another epoch than the unit that runs");
            self.stage = Stage::Refused(epoch);
            return;
        }
        let own = match host.member_mut().seal(epoch) {
            Ok(own) => own,
            Err(error) => return self.close(&error.into()),
        };
        let max_lag = wish.max_lag;
        let policy = Policy { confirm: usize::try_from(wish.confirm).unwrap_or(usize::MAX), max_lag, wait: WAIT };
        let heard = self.heard.as_ref().map_or(0, |heard| heard.place.tx);
        let me = self.setup.link.node().to_owned();
        info!(app = self.setup.name.app, epoch, from = own.position.epoch, transaction = own.position.tx, "promoting the database");
        self.promoting = Some(Promoting {
            epoch,
            adopt,
            machine: Promotion::new(&me, policy, clock::since_boot(), own, wish.peers.clone(), heard),
            others: wish.peers.clone(),
            answered: BTreeSet::new(),
            asked: JoinSet::new(),
            in_flight: BTreeMap::new(),
            begun: Instant::now(),
            until: None,
        });
        self.stage = Stage::Promoting(epoch);
    }

    async fn promote(&mut self, epoch: u64) {
        if self.fetch.is_some() {
            return;
        }
        let Some(promoting) = &mut self.promoting else { return };
        promoting.until = None;
        let step = promoting.machine.decide(clock::since_boot());
        match step {
            Step::Wait { until, .. } => {
                let left = until.saturating_sub(clock::since_boot());
                promoting.until = Some(Instant::now() + left);
                self.ask_seals();
            }
            Step::Fetch { .. } | Step::Resync { .. } if promoting.adopt => self.refused(epoch, "another node has more of it"),
            Step::Fetch { from, .. } => {
                self.fetch = Fetch::tail(self, &from).await;
                if self.fetch.is_none()
                    && let Some(promoting) = &mut self.promoting
                {
                    promoting.lost(&from);
                }
            }
            Step::Resync { from, common } => {
                self.trouble("Diverged", format!("what this node has after transaction {common} is void, {from} has what counts"));
                self.not_here(epoch);
            }
            Step::Start { base } => self.begin_epoch(epoch, base),
            Step::StayDown(StayDown::Deposed(higher)) => {
                self.trouble("Deposed", StayDown::Deposed(higher).to_string());
                self.not_here(epoch);
            }
            Step::StayDown(why) => {
                let reason = match &why {
                    StayDown::TooFewAnswers { .. } => "TooFewStandbys",
                    StayDown::TooFarBehind { .. } => "TooFarBehind",
                    StayDown::Corrupt(_) | StayDown::Deposed(_) => "Corrupt",
                };
                promoting.until = Some(Instant::now() + ANSWER);
                self.trouble(reason, cluster_telemetry::chain(&why));
                self.ask_seals();
            }
        }
    }

    fn not_here(&mut self, epoch: u64) {
        self.promoting = None;
        self.stage = Stage::Failed(epoch);
    }

    fn refused(&mut self, epoch: u64, why: &str) {
        warn!(app = self.app(), epoch, "the unit has to stop before the database can go on here: {why}");
        self.promoting = None;
        self.stage = Stage::Refused(epoch);
    }

    /// Asks those that did not answer yet.
    fn ask_seals(&mut self) {
        let (link, app, db) = (self.setup.link.clone(), self.setup.name.app.clone(), self.db.to_string());
        let Some(promoting) = &mut self.promoting else { return };
        let now = Instant::now();
        promoting.in_flight.retain(|_, until| *until > now);
        for node in promoting.others.difference(&promoting.answered) {
            if promoting.in_flight.contains_key(node) {
                continue;
            }
            promoting.in_flight.insert(node.clone(), now + ANSWER);
            let question = Question { db: db.clone(), ask: Ask::Seal { epoch: promoting.epoch } };
            promoting.asked.spawn(ask_seal(link.clone(), app.clone(), node.clone(), json(&question)));
        }
    }

    /// Takes an answer to a seal.
    pub(super) fn sealed(&mut self, node: &str, sealed: Option<Sealed>) {
        if let (Some(promoting), Some(sealed)) = (&mut self.promoting, sealed) {
            promoting.answered.insert(node.to_owned());
            promoting.machine.answer(node, sealed);
        }
    }

    fn begin_epoch(&mut self, epoch: u64, base: Position) {
        let took = self.promoting.take().map(|p| p.begun.elapsed()).unwrap_or_default();
        if base == Position::default() {
            info!(app = self.app(), epoch, "nobody has a history of the database, the application makes it");
            self.stage = Stage::Ready(epoch);
            return self.begin_with_the_application(epoch);
        }
        let Some(host) = &mut self.host else { return };
        match host.begin(epoch, now_ms()) {
            Ok(()) => {
                info!(
                    app = self.setup.name.app,
                    epoch,
                    transaction = base.tx,
                    took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                    "database promoted"
                );
                self.now_active(epoch);
            }
            Err(error @ HostError::Role(_)) => {
                self.trouble("NeedsSnapshot", cluster_telemetry::chain(&error));
                self.not_here(epoch);
            }
            // The replica's file is not what it was: it is opened anew.
            Err(error @ HostError::Apply(_)) => self.close(&error),
            Err(error) => {
                self.host_failed(&error);
                // Whatever of the start is in the log is gone on with at the next try.
                self.stage = Stage::Standby;
            }
        }
    }

    /// The application makes its database, or has it from before; the epoch begins once that is there.
    fn begin_with_the_application(&mut self, epoch: u64) {
        if self.retry_at.is_some() {
            return;
        }
        // Looked at without opening it: closing a descriptor would drop SQLite's locks.
        let made = std::fs::metadata(&self.setup.name.path).is_ok_and(|file| file.len() > 0);
        let Some(host) = self.host.as_mut() else { return };
        if !made {
            return self.trouble("DatabaseEmpty", "the application has not made its database yet".to_owned());
        }
        match host.resume(epoch, now_ms()).and_then(|resumed| if resumed { Ok(()) } else { host.begin(epoch, now_ms()) }) {
            Ok(()) => {
                info!(app = self.setup.name.app, epoch, "the application has made its database, it is replicated from now on");
                self.now_active(epoch);
            }
            Err(error) => self.host_failed(&error),
        }
    }
}

async fn ask_seal(link: DatabaseLink, app: String, node: String, question: Vec<u8>) -> (String, Option<Sealed>) {
    let until = Instant::now() + ANSWER;
    let Ok(mut answers) = link.ask(&app, &node, question.into()).await else { return (node, None) };
    let message = tokio::time::timeout_at(until, answers.next()).await.ok().flatten();
    let answer = message.filter(|m| !m.nobody).and_then(|m| read::<Answer>(&m.payload)).filter(|a| a.kind == Kind::Sealed);
    let sealed = answer.and_then(|a| Some(Sealed { epoch: a.noted, position: a.place.into(), chain: chain(&a.chain)? }));
    (node, sealed)
}
