//! Singletons: at most one active instance, standbys beside it, the VIP with the active one.
//!
//! # Rules
//! - The active instance stays where it is while its node is Live, hears a majority, is eligible, and did not give the tenure up.
//! - It moves away from a node on which it `Failed` only if another candidate has not failed: its status remembers that, so an
//!   App that fails everywhere comes to rest.
//! - It moves away when an operator asked for that (a switchover) and whoever shall follow can. Only `failback` moves it back: to a node that
//!   `prefer` ranks higher, once that one stands by.
//! - Candidates in order: not failed; not on a cordoned node; not just being released; the one that the operator named; the one that gave up its own tenure and can take a fresh one; those
//!   that `prefer` ranks first; nodes that already stand by; fewer active Singletons; name.
//! - A move is release, confirmation, activation with a higher epoch: nobody is active in between. Only a Lost or rebooted node,
//!   and one that gave up by itself, is not waited for.
//! - A changed VIP moves the same way, for the old address has to be let go before anybody else may have it.
//! - Standbys: every eligible node up to [`STANDBYS_MAX`], those that are standbys already first,
//!   then as `spreadBy` (which counts the active one, too) and `prefer` have it. Lost ones stay as long as there are
//!   not enough Live ones, but a Lost node is given nothing new.

use std::cmp::Reverse;

use cluster_schemas::Mode;
use cluster_schemas::app::{Standby, ip};
use cluster_schemas::assignment::{ReasonCode, Role, VipAssignment};
use cluster_schemas::failover::Failback;
use cluster_schemas::node::InstanceState;

use crate::claims::Evidence;
use crate::context::{Board, Context, Entries, reason};
use crate::input::{AppNotes, Handover, Shortage};
use crate::prefer::choose;

/// Most standbys that a Singleton has beside its active instance. In clusters of up to five nodes all stand by; in larger ones more
/// would make entries grow with Apps times nodes and take over no sooner.
pub const STANDBYS_MAX: usize = 4;

/// What was decided about the slot.
struct Decision {
    /// Node and epoch.
    active: Option<(usize, u64)>,
    /// The newest epoch, that of `active` if there is one.
    newest: u64,
    /// Nodes waited for.
    waits: Vec<usize>,
    /// Whether the active one is newly given, and the sentence why.
    chosen: Option<(ReasonCode, String)>,
}

/// Plans one Singleton; also tells the newest epoch.
pub(crate) fn plan(ctx: &Context<'_, '_>, board: &Board) -> (Entries, AppNotes, u64) {
    let decision = decide(ctx, board);
    let mut notes = ctx.notes(true);
    if !decision.waits.is_empty() {
        let nodes = ctx.world.names(&decision.waits);
        notes.waits = Some(format!("nobody is active until {nodes} confirmed to have let go"));
    } else if decision.active.is_none() {
        notes.shortage = Some(Shortage { none: true, message: ctx.explain(true) });
    }
    let standbys = standbys(ctx, board, decision.active.map(|(node, _)| node));
    let mut entries = Entries::new();
    if let Some((node, epoch)) = decision.active {
        let why = || match &decision.chosen {
            Some((code, message)) => reason(*code, message.clone()),
            None => reason(ReasonCode::Sticky, "it is active here already".to_owned()),
        };
        let codes = [ReasonCode::Sticky, ReasonCode::Chosen, ReasonCode::TakeOver];
        let why = if decision.chosen.is_some() { why() } else { ctx.keep_reason(node, Role::Active, &codes, why) };
        let mut entry = ctx.entry(Role::Active, why);
        entry.epoch = epoch;
        entry.vip = vip(ctx, node, true, epoch);
        entries.insert(node, entry);
    }
    for node in standbys {
        let why = match decision.active {
            Some((active, _)) => {
                let text = ctx.standby_because(format!("stands by for {}", ctx.world.name(active)), node);
                reason(ReasonCode::Standby, text)
            }
            None if decision.waits.is_empty() => reason(ReasonCode::Standby, "stands by; no node can be active now".to_owned()),
            None => reason(ReasonCode::WaitsForRelease, "stands by; nobody is active until the last one has let go".to_owned()),
        };
        let mut entry = ctx.entry(Role::Standby, why);
        entry.epoch = decision.newest;
        entry.releasing = ctx.on(node).and_then(Evidence::slot_claim);
        entry.vip = vip(ctx, node, false, decision.newest);
        entries.insert(node, entry);
    }
    ctx.withdraw_rest(&mut entries, |node| {
        ctx.why_not(node).unwrap_or_else(|| reason(ReasonCode::Surplus, format!("{STANDBYS_MAX} other nodes stand by")))
    });
    (entries, notes, decision.newest)
}

fn decide(ctx: &Context<'_, '_>, board: &Board) -> Decision {
    let vip_epoch = ctx.app.spec.vip.as_ref().map_or(0, |v| ctx.world.newest_vip_epoch(&v.address));
    // A tenure that is asked to end was there, though its node may be lost before a status told of it.
    let asked = ctx.world.input.handovers.get(ctx.name).map_or(0, |h| h.epoch);
    let newest = ctx.world.newest_epoch(ctx.name, Mode::Singleton).max(vip_epoch).max(asked);
    let holder = holder(ctx, newest);
    if let Some((node, epoch)) = holder
        && keeps(ctx, node, epoch)
        && !hands_over(ctx, node, epoch)
    {
        return Decision { active: Some((node, epoch)), newest, waits: Vec::new(), chosen: None };
    }
    let Some((candidate, candidates)) = best_candidate(ctx, board, holder) else {
        return Decision { active: None, newest, waits: claimants(ctx, None), chosen: None };
    };
    let waits = claimants(ctx, Some(candidate));
    if !waits.is_empty() {
        return Decision { active: None, newest, waits, chosen: None };
    }
    let chosen = why_chosen(ctx, board, candidate, candidates);
    Decision { active: Some((candidate, newest + 1)), newest: newest + 1, waits, chosen: Some(chosen) }
}

/// The node planned as active, if that can still stand; or one that holds the newest epoch though no entry says so, which happens when
/// the store lost its record: it is adopted.
fn holder(ctx: &Context<'_, '_>, newest: u64) -> Option<(usize, u64)> {
    let own = || ctx.evidence.iter().filter(|e| !e.foreign(ctx.app));
    let planned = own().filter_map(|e| e.standing().filter(|a| a.role == Role::Active).map(|a| (e.node, a.epoch)));
    let adopted = own()
        .filter(|e| e.entry.is_none() && e.holds() && e.gave_up() < newest)
        .filter_map(|e| e.observed.map(|o| (e.node, o.epoch)))
        .filter(|(_, epoch)| *epoch == newest && newest > 0);
    planned.max_by_key(|(node, epoch)| (*epoch, Reverse(*node))).or_else(|| adopted.into_iter().next())
}

fn keeps(ctx: &Context<'_, '_>, node: usize, epoch: u64) -> bool {
    let Some(seen) = ctx.on(node) else { return false };
    let stays = ctx.world.nodes[node].may_keep() && ctx.may_run(node) && seen.gave_up() < epoch;
    // An entry without the VIP of the spec, or with another one, is of an earlier spec.
    let vip = seen.entry.is_none_or(|e| e.vip.as_ref().map(VipAssignment::spec) == ctx.app.spec.vip);
    stays && vip && !(failed_in(seen, epoch) && candidates(ctx).any(|other| other != node && !failed(ctx, other)))
}

/// What an operator asked for, if it is still about the newest tenure.
fn handover<'c>(ctx: &'c Context<'_, '_>) -> Option<&'c Handover> {
    let asked = ctx.world.input.handovers.get(ctx.name)?;
    (ctx.world.newest_epoch(ctx.name, Mode::Singleton) <= asked.epoch).then_some(asked)
}

/// Whether the holder of this tenure has to let go for another: an operator asked for it, and whoever shall follow can. Where nobody can,
/// it stays: a wish never takes an App down.
fn hands_over(ctx: &Context<'_, '_>, node: usize, epoch: u64) -> bool {
    // Only what is seen to be held is handed over: a tenure that is only planned might be given away by the very plan that makes it.
    if !ctx.on(node).and_then(|e| e.observed).is_some_and(|o| o.role == Role::Active && o.epoch == epoch) {
        return false;
    }
    let able = |n: usize| n != node && ctx.world.nodes[n].open && ready(ctx, n);
    let Some(asked) = handover(ctx).filter(|h| h.epoch == epoch) else {
        let goes_back = ctx.app.spec.failover.as_ref().is_some_and(|f| f.failback == Failback::Preferred);
        return goes_back && candidates(ctx).filter(|n| able(*n)).any(|n| ctx.score(n) > ctx.score(node));
    };
    candidates(ctx).filter(|n| able(*n)).any(|n| asked.to.as_deref().is_none_or(|to| to == ctx.world.name(n)))
}

/// Whether the node is seen to stand by, and could go on at once: a hot standby runs, a cold one did not fail.
fn ready(ctx: &Context<'_, '_>, node: usize) -> bool {
    let hot = ctx.app.spec.standby == Standby::Hot;
    let seen = ctx.on(node).filter(|e| !e.foreign(ctx.app)).and_then(|e| e.observed);
    seen.is_some_and(|o| o.role == Role::Standby && o.state != InstanceState::Failed && (!hot || o.state == InstanceState::Running))
}

/// Whether the instance failed in the tenure with this epoch, not in one before.
fn failed_in(seen: &Evidence<'_>, epoch: u64) -> bool {
    seen.observed.is_some_and(|o| o.state == InstanceState::Failed && o.epoch == epoch)
}

fn failed(ctx: &Context<'_, '_>, node: usize) -> bool {
    ctx.on(node).and_then(|e| e.observed).is_some_and(|o| o.state == InstanceState::Failed && o.uid == ctx.app.metadata.uid)
}

fn candidates<'c>(ctx: &'c Context<'_, '_>) -> impl Iterator<Item = usize> + 'c {
    ctx.matching.list.iter().copied().filter(|n| ctx.may_start(*n) && ctx.world.nodes[*n].can_hold())
}

fn best_candidate(ctx: &Context<'_, '_>, board: &Board, holder: Option<(usize, u64)>) -> Option<(usize, usize)> {
    let mut count = 0;
    let rank = |node: &usize| {
        let seen = ctx.on(*node);
        let released = ctx.role(*node) == Some(Role::Standby) && seen.is_some_and(|e| e.standing().is_some_and(|a| a.releasing.is_some()));
        let gave_up = holder.is_some_and(|(at, _)| at == *node) && seen.is_some_and(|e| e.entry.is_some_and(|a| e.gave_up() >= a.epoch));
        let stands_by = matches!(ctx.role(*node), Some(Role::Standby | Role::Active));
        let leaves = holder.is_some_and(|(at, epoch)| at == *node && hands_over(ctx, at, epoch));
        let asked = !released && handover(ctx).is_some_and(|h| h.to.as_deref() == Some(ctx.world.name(*node)));
        (
            failed(ctx, *node),
            !ctx.world.nodes[*node].open,
            released || leaves,
            !asked,
            !gave_up,
            Reverse(ctx.score(*node)),
            !stands_by,
            board.active[*node],
            *node,
        )
    };
    let best = candidates(ctx).inspect(|_| count += 1).min_by_key(rank)?;
    Some((best, count))
}

/// Other nodes with an unsettled claim on the slot or its VIP; for the VIP other Apps' claims count on the candidate too, and so does
/// an address of an earlier spec that the candidate still has.
fn claimants(ctx: &Context<'_, '_>, candidate: Option<usize>) -> Vec<usize> {
    let wanted = ctx.app.spec.vip.as_ref().map(|v| v.ip());
    let blocks = |e: &&Evidence<'_>| match Some(e.node) == candidate {
        true => e.vip_claims().any(|c| Some(ip(c.address)) != wanted),
        false => e.slot_claim().is_some(),
    };
    let mut nodes: Vec<usize> = ctx.evidence.iter().filter(blocks).map(|e| e.node).collect();
    if let Some(facts) = ctx.app.spec.vip.as_ref().and_then(|v| ctx.world.vip(&v.address)) {
        nodes.extend(facts.claims.iter().filter(|(app, node)| *app != ctx.name || Some(*node) != candidate).map(|(_, node)| *node));
    }
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn why_chosen(ctx: &Context<'_, '_>, board: &Board, node: usize, candidates: usize) -> (ReasonCode, String) {
    let name = |n: usize| ctx.world.name(n);
    let had = |e: &&Evidence<'_>| e.entry.is_some_and(|a| a.role == Role::Active || a.releasing.is_some());
    if let Some(before) = ctx.evidence.iter().find(had) {
        let what = if before.lost {
            "is lost"
        } else if !before.same_boot {
            "rebooted"
        } else if before.entry.is_some_and(|a| a.role == Role::Active) {
            "gave up its tenure"
        } else {
            "has let go"
        };
        return match before.node == node {
            true => (ReasonCode::TakeOver, ctx.and_because(format!("takes a fresh epoch: {} {what}", name(node)), node)),
            false => (ReasonCode::TakeOver, ctx.and_because(format!("takes over from {}, which {what}", name(before.node)), node)),
        };
    }
    let (active, left_out) = (board.active[node], &ctx.matching.left_out);
    (ReasonCode::Chosen, ctx.chosen(node, &format!("fewest active Singletons ({active}) of {candidates} candidates{left_out}")))
}

/// The VIP as an entry has it. What still has to be let go of comes before what the spec says.
fn vip(ctx: &Context<'_, '_>, node: usize, hold: bool, epoch: u64) -> Option<VipAssignment> {
    let spec = ctx.app.spec.vip.as_ref();
    if !hold
        && let Some(seen) = ctx.on(node)
        && let Some(claim) = seen.vip_claims().next()
    {
        let before = seen.entry.and_then(|e| e.vip.as_ref()).filter(|v| ip(&v.address) == ip(claim.address));
        let interface = before.map(|v| &v.interface).or(spec.map(|v| &v.interface)).cloned().unwrap_or_default();
        return Some(VipAssignment {
            address: claim.address.to_owned(),
            interface,
            hold,
            epoch,
            releasing: Some(claim.epoch),
            ..VipAssignment::default()
        });
    }
    spec.map(|v| VipAssignment {
        address: v.address.clone(),
        interface: v.interface.clone(),
        hold,
        epoch,
        releasing: None,
        ..VipAssignment::default()
    })
}

fn standbys(ctx: &Context<'_, '_>, board: &Board, active: Option<usize>) -> Vec<usize> {
    let places = STANDBYS_MAX + usize::from(active.is_none());
    let free = |n: &usize| Some(*n) != active && ctx.fits(*n);
    let rank = |n: usize, before: bool| {
        let score = if before { 0 } else { ctx.score(n) };
        ((!ctx.world.nodes[n].live, !before), (Reverse(score), board.standbys[n]), n)
    };
    let before = ctx.with_role(Role::Standby).chain(ctx.with_role(Role::Active)).filter(free);
    let mut ranked: Vec<_> = before.map(|n| rank(n, true)).collect();
    // Live ones that stand by already come first: where they fill all places, nobody else needs to be looked at.
    if ranked.iter().filter(|((lost, _), ..)| !lost).count() < places {
        let new = ctx.matching.list.iter().copied();
        let new = new.filter(|n| ctx.world.nodes[*n].live && ctx.world.nodes[*n].open && !ctx.busy.contains(n) && ctx.lacks(*n).is_none());
        let new = new.filter(|n| !matches!(ctx.role(*n), Some(Role::Standby | Role::Active)) && free(n));
        ranked.extend(new.map(|n| rank(n, false)));
    }
    choose(ctx, ranked.into_iter(), active, places)
}
