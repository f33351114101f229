//! Other machines that claim an address: asked for before the first activation, and listened for as long as an address is held.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::held::Held;
use crate::drivers::neighbours::{Announcer, Claim, Listener, own_macs};
use crate::drivers::{Conflict, Mac};

/// When the questions of a probe go out: more than one, since one may be lost.
const QUESTIONS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(130), Duration::from_millis(260)];
/// How long answers are waited for, from the first question on. RFC 5227 waits for seconds, with the same reasoning for machines that boot;
/// those that matter here are up.
const ANSWERS: Duration = Duration::from_millis(400);
/// Per address, claims are reported and answered at most so often; the last one of a row always is. RFC 5227 bids those who never give
/// up an address wait for 10 s; but while the other one's word stands, clients reach the wrong machine.
const DEFENCE_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before sockets that broke are made again.
const RETRY: Duration = Duration::from_secs(1);

/// Who on the link of this interface has the address, or is about to take it.
pub(super) async fn probe(ip: IpAddr, index: u32) -> io::Result<Option<Mac>> {
    let Some(announcer) = Announcer::open(index)? else { return Ok(None) };
    let Some(listener) = Listener::for_one(ip)? else { return Ok(None) };
    let own = own_macs()?;
    let begin = Instant::now();
    let ask = async {
        for at in QUESTIONS {
            sleep_until(begin + at).await;
            announcer.probe(ip)?;
        }
        std::future::pending::<io::Result<Mac>>().await
    };
    let hear = async {
        loop {
            let (claim, by) = listener.next().await?;
            if claim.address == ip && by == index && !own.contains(&claim.mac) {
                return Ok(claim.mac);
            }
        }
    };
    let either = async {
        tokio::select! {
            failed = ask => failed,
            heard = hear => heard,
        }
    };
    timeout_at(begin + ANSWERS, either).await.ok().transpose()
}

/// Listens for claims to what is held. Runs for ever; the caller aborts it.
pub(super) async fn watch(held: Arc<Held>, events: broadcast::Sender<Conflict>) {
    let mut changes = held.changes();
    let mut claims = BTreeMap::new();
    let mut told = false;
    loop {
        changes.mark_unchanged();
        let places = held.places();
        claims.retain(|ip, _: &mut Seen| places.contains_key(ip));
        match listen(&held, &events, &mut changes, &places, &mut claims).await {
            Ok(()) => told = false,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "cannot listen for conflicts of addresses, trying again");
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// What was heard of an address lately.
struct Seen {
    /// When it was last reported.
    reported: Instant,
    /// A claim that came since.
    pending: Option<Mac>,
}

/// Until what is held changes.
async fn listen(
    held: &Arc<Held>,
    events: &broadcast::Sender<Conflict>,
    changes: &mut tokio::sync::watch::Receiver<()>,
    places: &BTreeMap<IpAddr, u32>,
    claims: &mut BTreeMap<IpAddr, Seen>,
) -> io::Result<()> {
    let v4 = places.keys().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }).collect::<BTreeSet<_>>();
    let v6 = places.keys().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }).collect::<BTreeSet<_>>();
    let (v4, v6) = (Listener::ipv4(&v4, false)?, Listener::ipv6(&v6, false)?);
    loop {
        let due = claims.values().filter(|seen| seen.pending.is_some()).map(|seen| seen.reported + DEFENCE_INTERVAL).min();
        tokio::select! {
            changed = changes.changed() => if changed.is_ok() { return Ok(()) } else { std::future::pending().await },
            heard = next(v4.as_ref()) => take(heard?, held, events, places, claims).await,
            heard = next(v6.as_ref()) => take(heard?, held, events, places, claims).await,
            () = until(due) => {
                let now = Instant::now();
                let ready = |seen: &Seen| seen.pending.filter(|_| now >= seen.reported + DEFENCE_INTERVAL);
                let all: Vec<_> = claims.iter().filter_map(|(ip, seen)| Some((*ip, ready(seen)?))).collect();
                for (ip, mac) in all {
                    if let Some(index) = places.get(&ip) {
                        report(ip, *index, mac, held, events, claims).await;
                    }
                }
            }
        }
    }
}

async fn next(listener: Option<&Listener>) -> io::Result<(Claim, u32)> {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn take(
    (claim, by): (Claim, u32),
    held: &Arc<Held>,
    events: &broadcast::Sender<Conflict>,
    places: &BTreeMap<IpAddr, u32>,
    claims: &mut BTreeMap<IpAddr, Seen>,
) {
    // Who only asks is answered by the kernel, and yields.
    if claim.wanted_only || places.get(&claim.address) != Some(&by) {
        return;
    }
    if let Some(seen) = claims.get_mut(&claim.address)
        && seen.reported.elapsed() < DEFENCE_INTERVAL
    {
        seen.pending = Some(claim.mac);
        return;
    }
    report(claim.address, by, claim.mac, held, events, claims).await;
}

async fn report(
    ip: IpAddr,
    index: u32,
    mac: Mac,
    held: &Arc<Held>,
    events: &broadcast::Sender<Conflict>,
    claims: &mut BTreeMap<IpAddr, Seen>,
) {
    claims.insert(ip, Seen { reported: Instant::now(), pending: None });
    // Ours by another way; or already gone from here, as when another node takes it over.
    if own_macs().is_ok_and(|own| own.contains(&mac)) || !held.is_here(ip, index).await {
        return;
    }
    held.defend(ip, index);
    let interface = held.kernel.link_by_index(index).await.ok().flatten().map_or_else(String::new, |link| link.name);
    let conflict = Conflict { address: ip, interface, mac };
    tracing::warn!("{conflict}; announcing it again");
    // Without a receiver the log has it.
    let _heard = events.send(conflict);
}
