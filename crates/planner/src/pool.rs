//! Pools: Spread and Replicas. They belong to the available class: nothing is stopped because it cannot be seen.
//!
//! # Rules (S1: never fewer than asked for by our own doing, more only while part of the cluster cannot be seen)
//! - Spread: a member on every eligible Live node; a Lost one stays a member as long as it is eligible.
//! - Replicas: the planned count on eligible Live nodes is N, or as many as fit. Members stay where they are; new ones go to the
//!   nodes that `spreadBy` and `prefer` rank first, with the fewest instances, then by name. What runs though no entry says so, because the store lost it, is kept first.
//! - Every other member - on a node that is not eligible any more, on a Lost node, or beyond N - is removed once the members that
//!   stay are enough without it: one that is healthy only as far as the healthy ones left are N (or as many as fit); one that is not
//!   healthy at once, for nothing is lost by it; one on a Lost node once N members on Live nodes are healthy. So a replacement runs
//!   before what it replaces goes, and a Lost node that returns before its replacement runs finds itself still a member.
//! - Where more than N are eligible, those stay that are healthy, then those on nodes with fewer instances, then by name.

use std::cmp::Reverse;

use cluster_schemas::assignment::{ReasonCode, Role};

use crate::context::{Board, Context, Entries, reason};
use crate::input::{AppNotes, Shortage};
use crate::prefer::choose;
use crate::words;

/// Plans one Spread App.
pub(crate) fn spread(ctx: &Context<'_, '_>) -> (Entries, AppNotes) {
    let mut notes = ctx.notes(false);
    let mut entries = Entries::new();
    for node in ctx.matching.list.iter().copied() {
        let member = ctx.role(node) == Some(Role::Member);
        if ctx.may_start(node) || member && ctx.may_run(node) {
            let text = ctx.and_because("runs on every eligible node".to_owned(), node);
            let why = reason(ReasonCode::EveryEligibleNode, text);
            entries.insert(node, ctx.entry(Role::Member, why));
        }
    }
    if entries.keys().all(|n| !ctx.world.nodes[*n].live) {
        notes.shortage = Some(Shortage { none: true, message: ctx.explain(false) });
    }
    ctx.withdraw_rest(&mut entries, |node| not_eligible(ctx, node));
    (entries, notes)
}

/// Plans one Replicas App.
pub(crate) fn replicas(ctx: &Context<'_, '_>, board: &Board) -> (Entries, AppNotes) {
    let wanted = ctx.app.spec.replicas.unwrap_or(1) as usize;
    let live = |node: usize| ctx.world.nodes[node].live;
    let mut notes = ctx.notes(false);

    let staying = ctx.with_role(Role::Member).filter(|n| live(*n) && ctx.may_run(*n));
    let staying = choose(ctx, staying.map(|n| (!ctx.healthy(n), board.instances[n], n)), [], wanted);
    let new = choose_new(ctx, board, &staying, wanted - staying.len());
    let healthy = staying.iter().chain(&new).filter(|n| ctx.healthy(**n)).count();
    let placed = staying.len() + new.len();

    let mut entries = Entries::new();
    for node in &new {
        let load = board.instances[*node];
        let (eligible, left_out) = (notes.eligible, &ctx.matching.left_out);
        let text = format!("fewest instances ({load}) of {eligible} eligible node{}{left_out}", words::plural(eligible));
        let text = ctx.chosen(*node, &text);
        entries.insert(*node, ctx.entry(Role::Member, reason(ReasonCode::Chosen, text)));
    }
    let stay = |entries: &mut Entries, node: usize| {
        let why = ctx.keep_reason(node, Role::Member, &[ReasonCode::Chosen, ReasonCode::Sticky], || {
            reason(ReasonCode::Sticky, "it runs here already".to_owned())
        });
        entries.insert(node, ctx.entry(Role::Member, why));
    };
    for node in &staying {
        stay(&mut entries, *node);
    }

    // The rest, in the order in which they go.
    let mut rest: Vec<usize> = ctx.with_role(Role::Member).filter(|n| live(*n) && !entries.contains_key(n)).collect();
    rest.sort_by_key(|n| (ctx.healthy(*n), Reverse(board.instances[*n]), Reverse(*n)));
    let needed = wanted.min(placed);
    let mut left = healthy + rest.iter().filter(|n| ctx.healthy(**n)).count();
    for node in rest {
        if !ctx.healthy(node) {
            continue;
        }
        if left > needed {
            left -= 1;
        } else {
            stay(&mut entries, node);
        }
    }
    for node in ctx.with_role(Role::Member).filter(|n| !live(*n)) {
        if healthy < wanted {
            stay(&mut entries, node);
        }
    }
    if placed < wanted {
        let message = match placed {
            0 => ctx.explain(false),
            _ => format!("{placed} of {wanted} replicas fit; {}", ctx.explain(false)),
        };
        notes.shortage = Some(Shortage { none: placed == 0, message });
    }
    ctx.withdraw_rest(&mut entries, |node| {
        ctx.why_not(node).unwrap_or_else(|| reason(ReasonCode::Surplus, format!("{wanted} other nodes run it")))
    });
    (entries, notes)
}

/// Up to `count` nodes for new members: where it runs though no entry says so, then as `spreadBy` and `prefer` have it, then fewest instances, then name. A node that was told to
/// stop it comes back into question once it has: until then nobody can tell whether what is seen there still serves.
fn choose_new(ctx: &Context<'_, '_>, board: &Board, staying: &[usize], count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let free = |n: &usize| ctx.may_start(*n) && !ctx.stopping(*n) && ctx.role(*n) != Some(Role::Member);
    let runs = |n: usize| ctx.on(n).is_some_and(|e| e.entry.is_none());
    let free = ctx.matching.list.iter().copied().filter(free);
    choose(ctx, free.map(|n| (!runs(n), (Reverse(ctx.score(n)), board.instances[n]), n)), staying.iter().copied(), count)
}

fn not_eligible(ctx: &Context<'_, '_>, node: usize) -> cluster_schemas::assignment::Reason {
    ctx.why_not(node).unwrap_or_else(|| reason(ReasonCode::NotEligible, "this node is not eligible".to_owned()))
}
