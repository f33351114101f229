//! The soft rules of `placement`, which rank nodes and leave none out.
//!
//! - `spreadBy`: each place goes to the value of the label that has fewest places so far among those with a free node. Filled that way
//!   from whatever stays, the counts differ by as little as they can. Nodes without the label count as one value.
//! - `prefer`: among nodes that `spreadBy` ranks equal, the highest sum of weights first; then the other criteria of the mode.
//! - Both look at new places only: nothing that runs moves for them. `spreadBy` also has a say in who stays where too many are.
//! - Neither comes before what keeps things safe and calm: who has not failed, who runs it already, who stands by already.

use std::collections::{BTreeMap, BTreeSet};

use cluster_schemas::App;

use crate::context::Context;
use crate::words;

/// Sum of the weights of the entries of `prefer` that a node with these labels matches.
pub(crate) fn score(app: &App, labels: &BTreeMap<String, String>) -> u32 {
    let matches = |of: &BTreeMap<String, String>| of.iter().all(|(key, value)| labels.get(key) == Some(value));
    app.spec.placement.prefer.iter().filter(|p| matches(&p.labels)).map(|p| u32::from(p.weight)).sum()
}

impl<'a> Context<'_, 'a> {
    /// Sum of the weights of the entries of `prefer` that `node` matches.
    pub(crate) fn score(&self, node: usize) -> u32 {
        score(self.app, &self.world.nodes[node].node.labels)
    }

    /// The node's value of the label that `spreadBy` names.
    fn value(&self, node: usize, key: &str) -> Option<&'a str> {
        self.world.nodes[node].node.labels.get(key).map(String::as_str)
    }

    /// What `withApps` (if `hard`), `spreadBy` and `prefer` have to do with an instance on `node`.
    fn because(&self, node: usize, hard: bool) -> Vec<String> {
        let placement = &self.app.spec.placement;
        let mut because = Vec::new();
        if hard && !self.beside.is_empty() {
            because.push(self.beside_whom());
        }
        if !self.asks.is_zero() {
            because.push(format!("room for {}", self.asks));
        }
        if let Some(key) = &placement.spread_by {
            because.push(format!("spread by {key} (here {})", self.value(node, key).unwrap_or("without it")));
        }
        if !placement.prefer.is_empty() {
            because.push(format!("prefer weight {}", self.score(node)));
        }
        because
    }

    /// `beside App a`, `beside Apps a and b`.
    fn beside_whom(&self) -> String {
        let names = words::list(self.beside.iter().map(|(app, _)| *app));
        format!("beside App{} {names}", words::plural(self.beside.len()))
    }

    /// `criteria` with the rules that come before them, as in `chosen: prefer weight 5, fewest instances`.
    pub(crate) fn chosen(&self, node: usize, criteria: &str) -> String {
        let mut parts = self.because(node, true);
        parts.push(criteria.to_owned());
        let crowded = self.crowded().map(|text| format!("; {text}")).unwrap_or_default();
        format!("chosen: {}{crowded}", parts.join(", "))
    }

    /// `sentence` about an instance, with the rules that are its reason, too.
    pub(crate) fn and_because(&self, sentence: String, node: usize) -> String {
        with_parts(sentence, &self.because(node, true))
    }

    /// `sentence` about a standby, which needs no other App beside it, with the rules that are its reason, too.
    pub(crate) fn standby_because(&self, sentence: String, node: usize) -> String {
        with_parts(sentence, &self.because(node, false))
    }
}

fn with_parts(sentence: String, parts: &[String]) -> String {
    if parts.is_empty() { sentence } else { format!("{sentence}; {}", parts.join(", ")) }
}

/// Up to `count` of `candidates`, each with its tier, its rank and its number. Lower tiers go first whatever `spreadBy` says, lower ranks
/// where it has no preference. `placed` are the nodes that have places already.
pub(crate) fn choose<T: Ord + Copy, R: Ord + Copy>(
    ctx: &Context<'_, '_>,
    candidates: impl Iterator<Item = (T, R, usize)>,
    placed: impl IntoIterator<Item = usize>,
    count: usize,
) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let Some(key) = &ctx.app.spec.placement.spread_by else {
        let mut ranked: Vec<_> = candidates.collect();
        if ranked.len() > count {
            ranked.select_nth_unstable(count - 1);
            ranked.truncate(count);
        }
        return ranked.into_iter().map(|(.., node)| node).collect();
    };
    let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for node in placed {
        *counts.entry(ctx.value(node, key)).or_default() += 1;
    }
    let mut groups: BTreeMap<Option<&str>, BTreeSet<(T, R, usize)>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry(ctx.value(candidate.2, key)).or_default().insert(candidate);
    }
    // The best of each value, in the order in which they get the next place.
    let head = |(tier, rank, node): (T, R, usize), places: usize, value| (tier, places, rank, node, value);
    let mut heads = BTreeSet::new();
    for (value, group) in &mut groups {
        heads.extend(group.pop_first().map(|best| head(best, counts.get(value).copied().unwrap_or(0), *value)));
    }
    let mut chosen = Vec::with_capacity(count.min(ctx.world.nodes.len()));
    while chosen.len() < count
        && let Some((_, places, _, node, value)) = heads.pop_first()
    {
        chosen.push(node);
        heads.extend(groups.get_mut(&value).and_then(BTreeSet::pop_first).map(|best| head(best, places + 1, value)));
    }
    chosen
}
