//! VIPs of pools and rings: a slot of its own, held by one healthy member.
//!
//! The holder stays while it is a member, its node is Live and hears a majority, it did not give the tenure up, and its instance runs.
//! Where that fails and another member is healthy, the VIP moves as every exclusive thing does: release, confirmation, hold.

use cluster_schemas::app::ip;
use cluster_schemas::assignment::{Role, VipAssignment};
use cluster_schemas::node::InstanceState;

use crate::context::{Context, Entries};
use crate::input::AppNotes;

/// Fills in the VIP of every entry; tells the newest epoch of the slot.
pub(crate) fn plan(ctx: &Context<'_, '_>, entries: &mut Entries, notes: &mut AppNotes) -> Option<(String, u64)> {
    if ctx.app.spec.vip.is_none() && !ctx.evidence.iter().any(|e| e.has_vip) {
        return None;
    }
    let members: Vec<usize> = entries.iter().filter(|(_, e)| e.role == Role::Member).map(|(node, _)| *node).collect();
    let Some(spec) = ctx.app.spec.vip.as_ref() else {
        // A VIP that the spec does not name any more still has to be let go.
        for node in members {
            mark(ctx, entries, node, None);
        }
        return None;
    };
    let mut newest = ctx.world.newest_vip_epoch(&spec.address);
    let mut holder = holder(ctx, &members);
    if holder.is_none()
        && let Some(candidate) = best_candidate(ctx, &members, spec.ip())
    {
        let waits = claimants(ctx, candidate, &spec.address);
        if waits.is_empty() {
            newest += 1;
            holder = Some((candidate, newest));
        } else if notes.waits.is_none() {
            let names = ctx.world.names(&waits);
            notes.waits = Some(format!("nobody holds VIP {} until {names} confirmed to have let go", ip(&spec.address)));
        }
    }
    for node in members {
        let plain = |hold, epoch| VipAssignment {
            address: spec.address.clone(),
            interface: spec.interface.clone(),
            hold,
            epoch,
            releasing: None,
            ..VipAssignment::default()
        };
        match holder {
            Some((at, epoch)) if at == node => {
                if let Some(entry) = entries.get_mut(&node) {
                    entry.vip = Some(plain(true, epoch));
                }
            }
            _ => mark(ctx, entries, node, Some(plain(false, newest))),
        }
    }
    Some((format!("vip/{}", ip(&spec.address)), newest))
}

/// Sets the VIP of a member that does not hold it: what it still has to let go of, else `plain`.
fn mark(ctx: &Context<'_, '_>, entries: &mut Entries, node: usize, plain: Option<VipAssignment>) {
    let Some(entry) = entries.get_mut(&node) else { return };
    let seen = ctx.on(node);
    entry.vip = match seen.and_then(|e| e.vip_claims().next()) {
        None => plain,
        Some(claim) => {
            let before = seen.and_then(|e| e.entry).and_then(|e| e.vip.as_ref()).filter(|v| ip(&v.address) == ip(claim.address));
            let interface = before.map(|v| &v.interface).or(plain.as_ref().map(|v| &v.interface)).cloned().unwrap_or_default();
            let known = plain.filter(|v| ip(&v.address) == ip(claim.address)).map_or(0, |v| v.epoch);
            let epoch = known.max(claim.epoch).max(before.map_or(0, |v| v.epoch));
            Some(VipAssignment {
                address: claim.address.to_owned(),
                interface,
                hold: false,
                epoch,
                releasing: Some(claim.epoch),
                ..VipAssignment::default()
            })
        }
    };
}

fn holder(ctx: &Context<'_, '_>, members: &[usize]) -> Option<(usize, u64)> {
    let holders = members.iter().filter_map(|node| {
        let seen = ctx.on(*node).filter(|e| !e.foreign(ctx.app))?;
        let vip = seen.standing()?.vip.as_ref().filter(|v| v.hold)?;
        let spec = ctx.app.spec.vip.as_ref().is_some_and(|s| vip.spec() == *s);
        let stays = spec && ctx.world.nodes[*node].may_keep() && seen.vip_gave_up(&vip.address) < vip.epoch;
        stays.then_some((*node, vip.epoch))
    });
    let (node, epoch) = holders.max_by_key(|(node, epoch)| (*epoch, std::cmp::Reverse(*node)))?;
    let moves = !serves(ctx, node) && members.iter().any(|other| *other != node && can_take(ctx, *other));
    (!moves).then_some((node, epoch))
}

/// Whether the instance of the holder serves. Its health includes the VIP, so that says nothing before the VIP is there.
fn serves(ctx: &Context<'_, '_>, node: usize) -> bool {
    ctx.on(node).and_then(|e| e.observed).is_some_and(|o| {
        let present = o.vip.as_ref().is_some_and(|v| v.present);
        o.state == InstanceState::Running && (o.healthy || !present)
    })
}

fn can_take(ctx: &Context<'_, '_>, node: usize) -> bool {
    ctx.world.nodes[node].can_hold() && ctx.healthy(node)
}

fn best_candidate(ctx: &Context<'_, '_>, members: &[usize], wanted: &str) -> Option<usize> {
    let held = |node: usize| ctx.on(node).and_then(|e| e.standing()).and_then(|e| e.vip.as_ref());
    let gave_up = |node: usize| held(node).is_some_and(|v| v.hold && ctx.on(node).is_some_and(|e| e.vip_gave_up(&v.address) >= v.epoch));
    members
        .iter()
        .copied()
        // A node that still has the address of an earlier spec lets go of that first.
        .filter(|n| !ctx.on(*n).is_some_and(|e| e.vip_claims().any(|c| ip(c.address) != wanted)))
        .filter(|n| can_take(ctx, *n) || gave_up(*n) && ctx.world.nodes[*n].can_hold() && serves(ctx, *n))
        .min_by_key(|n| (!ctx.world.nodes[*n].open, held(*n).is_some_and(|v| v.releasing.is_some()), !gave_up(*n), *n))
}

/// Nodes with an unsettled claim on the address, the candidate's own for this App left out.
fn claimants(ctx: &Context<'_, '_>, candidate: usize, address: &str) -> Vec<usize> {
    let facts = ctx.world.vip(address);
    let claims = facts.into_iter().flat_map(|f| &f.claims);
    let mut nodes: Vec<usize> = claims.filter(|(app, node)| *app != ctx.name || *node != candidate).map(|(_, node)| *node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
