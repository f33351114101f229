//! In which order Apps are planned, and which of them look at where others run.
//!
//! - `withApps`: an App is planned after those that it has to run beside. Of Apps that name each other in a circle the first by name
//!   leads: each follows only those before it, so that a pair which asks for one another ends up on the same nodes.
//! - Singletons, with all that they run beside, come first (a fail-over waits for nobody), then the rest.
//! - `awayFromApps` works both ways: of two Apps kept apart, the one planned later gives way, whichever of them asked. As far as
//!   `withApps` allows, the Apps that others keep away from come before those others; a circle is cut at its first name.
//! - Otherwise the name decides.

use std::collections::{BTreeMap, BTreeSet};

use cluster_schemas::{App, Mode};

/// The order in which Apps are planned, and what they have to know of each other.
#[derive(Debug, Default)]
pub(crate) struct PlanningOrder<'a> {
    pub apps: Vec<&'a str>,
    /// For each App those it has to be kept apart from.
    pub apart: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// For each App those it has to run beside; they are planned before it, or do not exist.
    pub beside: BTreeMap<&'a str, Vec<&'a str>>,
    /// Apps that another one looks at.
    pub watched: BTreeSet<&'a str>,
}

pub(crate) fn planning_order(apps: &BTreeMap<String, App>) -> PlanningOrder<'_> {
    let mut order = PlanningOrder { beside: beside(apps), ..PlanningOrder::default() };
    for (name, app) in apps {
        for other in app.spec.placement.away_from_apps.iter().filter(|o| *o != name) {
            if let Some((other, _)) = apps.get_key_value(other) {
                order.apart.entry(name).or_default().insert(other);
                order.apart.entry(other).or_default().insert(name);
            }
        }
    }
    order.watched = order.apart.keys().chain(order.beside.values().flatten()).copied().collect();
    let mut first = BTreeSet::new();
    let mut found: Vec<&str> = apps.iter().filter(|(_, app)| app.spec.mode == Mode::Singleton).map(|(name, _)| name.as_str()).collect();
    while let Some(name) = found.pop() {
        if let Some((name, _)) = apps.get_key_value(name).filter(|(name, _)| first.insert(name.as_str())) {
            found.extend(order.beside.get(name.as_str()).into_iter().flatten());
        }
    }
    let (first, rest): (Vec<_>, Vec<_>) = apps.iter().partition(|(name, _)| first.contains(name.as_str()));
    for group in [first, rest] {
        order.apps.extend(sorted_by_edges(&group, &order.beside));
    }
    order
}

/// What each App has to run beside, without what closes a circle.
fn beside(apps: &BTreeMap<String, App>) -> BTreeMap<&str, Vec<&str>> {
    let asked = |app: &App| !app.spec.placement.with_apps.is_empty();
    if !apps.values().any(asked) {
        return BTreeMap::new();
    }
    let numbers: BTreeMap<&str, usize> = apps.keys().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
    let known = |app: &App| app.spec.placement.with_apps.iter().filter_map(|o| numbers.get(o.as_str()).copied()).collect();
    let circles = circles(&apps.values().map(known).collect::<Vec<_>>());
    let follows = |number: usize, other: &str| {
        numbers.get(other).is_none_or(|other| *other != number && (circles[*other] != circles[number] || *other < number))
    };
    let mut beside = BTreeMap::new();
    for (number, (name, app)) in apps.iter().enumerate().filter(|(_, (_, app))| asked(app)) {
        let others = app.spec.placement.with_apps.iter().map(String::as_str).filter(|other| follows(number, other)).collect();
        beside.insert(name.as_str(), others);
    }
    beside
}

/// The circle that each App is in, as a number: those that can be reached from each other have the same one.
fn circles(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut left = Vec::with_capacity(edges.len());
    let mut seen = vec![false; edges.len()];
    for root in 0..edges.len() {
        let mut path: Vec<(usize, usize)> = Vec::new();
        if !std::mem::replace(&mut seen[root], true) {
            path.push((root, 0));
        }
        while let Some((at, next)) = path.last_mut() {
            if let Some(to) = edges[*at].get(*next) {
                *next += 1;
                if !std::mem::replace(&mut seen[*to], true) {
                    path.push((*to, 0));
                }
            } else {
                left.push(*at);
                path.pop();
            }
        }
    }
    let mut back = vec![Vec::new(); edges.len()];
    for (from, to) in edges.iter().enumerate().flat_map(|(from, to)| to.iter().map(move |to| (from, *to))) {
        back[to].push(from);
    }
    // Against the edges, beginning with what was left last: what is reached then, and was not before, is one circle.
    let mut circle = vec![None; edges.len()];
    for root in left.into_iter().rev() {
        let mut open = vec![root];
        while let Some(at) = open.pop() {
            if circle[at].is_none() {
                circle[at] = Some(root);
                open.extend(&back[at]);
            }
        }
    }
    circle.into_iter().enumerate().map(|(at, circle)| circle.unwrap_or(at)).collect()
}

/// By the edges of `beside` without fail, by those of `awayFromApps` as far as they make no circle, then by name.
fn sorted_by_edges<'a>(group: &[(&'a String, &'a App)], beside: &BTreeMap<&'a str, Vec<&'a str>>) -> Vec<&'a str> {
    let names: BTreeSet<&'a str> = group.iter().map(|(name, _)| name.as_str()).collect();
    let mut must: BTreeMap<&'a str, BTreeSet<&'a str>> = BTreeMap::new();
    let mut should: BTreeMap<&'a str, BTreeSet<&'a str>> = BTreeMap::new();
    let mut followers: BTreeMap<&'a str, Vec<&'a str>> = BTreeMap::new();
    for (name, app) in group {
        let away = app.spec.placement.away_from_apps.iter().map(|other| (other.as_str(), false));
        let with = beside.get(name.as_str()).into_iter().flatten().map(|other| (*other, true));
        for (other, hard) in away.chain(with).filter(|(other, _)| other != name && names.contains(other)) {
            if hard { &mut must } else { &mut should }.entry(name).or_default().insert(other);
            followers.entry(other).or_default().push(name);
        }
    }
    // Those that nothing hard waits for, and of them those that nothing waits for at all.
    let mut able: BTreeSet<&'a str> = names.iter().filter(|n| !must.contains_key(*n)).copied().collect();
    let mut ready: BTreeSet<&'a str> = able.iter().filter(|n| !should.contains_key(*n)).copied().collect();
    let mut left = names;
    let mut order = Vec::with_capacity(left.len());
    while let Some(next) = ready.pop_first().or_else(|| able.first().copied()) {
        able.remove(next);
        left.remove(next);
        order.push(next);
        for follower in followers.get(next).into_iter().flatten() {
            for waits in [&mut must, &mut should] {
                if let Some(pending) = waits.get_mut(follower) {
                    pending.remove(next);
                    if pending.is_empty() {
                        waits.remove(follower);
                    }
                }
            }
            if !must.contains_key(follower) && left.contains(follower) {
                able.insert(follower);
                if !should.contains_key(follower) {
                    ready.insert(follower);
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::app::Placement;
    use cluster_schemas::{AppSpec, Metadata};

    fn order(apps: &[(&str, Mode, &[&str])]) -> String {
        let names = |of: &[&str], with: bool| of.iter().filter(|a| a.starts_with('+') == with).map(|a| a.replace('+', "")).collect();
        let mut all = BTreeMap::new();
        for (name, mode, others) in apps {
            let placement = Placement { away_from_apps: names(others, false), with_apps: names(others, true), ..Placement::default() };
            let spec = AppSpec { mode: *mode, placement, ..AppSpec::default() };
            let metadata = Metadata { name: (*name).to_owned(), ..Metadata::default() };
            let app = App { api_version: String::new(), kind: String::new(), metadata, spec };
            all.insert((*name).to_owned(), app);
        }
        planning_order(&all).apps.join(" ")
    }

    #[test]
    fn singletons_first_then_edges_then_names() {
        use Mode::{Replicas, Singleton, Spread};
        assert_eq!(order(&[("a", Spread, &[]), ("b", Singleton, &[]), ("c", Replicas, &[])]), "b a c");
        assert_eq!(order(&[("a", Replicas, &["c"]), ("b", Replicas, &[]), ("c", Replicas, &[])]), "b c a");
        assert_eq!(order(&[("a", Singleton, &["z"]), ("z", Replicas, &[])]), "a z");
        // A circle is cut at its first name, and what hangs on it follows.
        assert_eq!(order(&[("a", Spread, &["b"]), ("b", Spread, &["a"]), ("c", Spread, &["b", "c"])]), "a b c");
    }

    /// `+` marks an App to run beside.
    #[test]
    fn what_is_run_beside_comes_before_whatever_else() {
        use Mode::{Replicas, Singleton, Spread};
        assert_eq!(order(&[("a", Spread, &["+c"]), ("b", Spread, &[]), ("c", Replicas, &[])]), "b c a");
        // A Singleton takes what it needs along; one that does not exist is no matter here.
        assert_eq!(order(&[("a", Spread, &[]), ("b", Spread, &["+none"]), ("c", Spread, &["+b"]), ("d", Singleton, &["+c"])]), "b c d a");
        // It stands though `awayFromApps` makes a circle with it.
        assert_eq!(order(&[("a", Spread, &["+b"]), ("b", Spread, &["c"]), ("c", Spread, &["a"])]), "b a c");
        // In a circle each follows those before it; what hangs on a circle is not in it.
        assert_eq!(order(&[("a", Spread, &["+b"]), ("b", Spread, &["+c"]), ("c", Spread, &["+b"])]), "b a c");
        assert_eq!(order(&[("a", Spread, &["+c"]), ("b", Spread, &["+a"]), ("c", Spread, &["+b"])]), "a b c");
        assert_eq!(order(&[("a", Singleton, &["+b"]), ("b", Spread, &["+a"])]), "a b");
    }
}
