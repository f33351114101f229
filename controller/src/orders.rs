//! The order of assignments beyond one plan: pure. The planner knows what it wrote; here is what operators signed and agents hold.

use std::collections::BTreeMap;

use cluster_planner::Plan;
use cluster_schemas::Assignment;

use crate::leadership::Lead;
use crate::world::World;

/// Puts what an operator signed into the assignments. A changed one is a newer one.
pub fn carry_signature(result: &mut Plan, lead: &Lead, written: &BTreeMap<String, Assignment>, recovers: &[String]) {
    for (node, assignment) in &mut result.assignments {
        assignment.recovers = recovers.to_vec();
        let before = written.get(node).filter(|w| w.order == assignment.order && w.recovers != assignment.recovers);
        if let Some(before) = before {
            assignment.order.term = lead.term;
            assignment.order.generation = before.order.generation + 1;
        }
    }
}

/// Makes each assignment newer than what its node holds: one that was forgotten and joined again holds what the store no longer has.
pub fn rise_above_held(result: &mut Plan, lead: &Lead, written: &BTreeMap<String, Assignment>, world: &World) {
    for (node, assignment) in &mut result.assignments {
        let held = world.heartbeats.get(node).and_then(|(_, heartbeat)| heartbeat.assignment.as_ref());
        let Some(held) = held.filter(|held| held.incarnation == lead.incarnation) else { continue };
        let stands = written.get(node).is_some_and(|w| w.order == assignment.order);
        let behind =
            if stands { held.newer_than(&assignment.order) == Some(true) } else { assignment.order.newer_than(held) != Some(true) };
        if behind {
            assignment.order.term = lead.term;
            assignment.order.generation = held.generation + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::SharedWorld;
    use cluster_schemas::assignment::Order;
    use std::time::Instant;

    fn assignment(generation: u64) -> Assignment {
        let order = Order { incarnation: "i".to_owned(), term: 1, generation };
        Assignment { node: "n1".to_owned(), order, ..Assignment::default() }
    }

    fn plan_for(generation: u64) -> Plan {
        Plan { assignments: [("n1".to_owned(), assignment(generation))].into(), ..Plan::default() }
    }

    #[test]
    fn what_is_written_is_newer_than_what_the_node_holds() {
        let lead = Lead { incarnation: "i".to_owned(), term: 1, revision: 1 };
        let world = |incarnation: &str, generation| {
            let world = SharedWorld::new(Instant::now());
            let held = Order { incarnation: incarnation.to_owned(), term: 1, generation };
            let heartbeat = cluster_schemas::Heartbeat {
                node: "n1".to_owned(),
                boot_id: String::new(),
                instance: String::new(),
                sequence: 1,
                assignment: Some(held),
                status_revision: 0,
                term: 1,
                load_percent: 0,
                not_ready: Vec::new(),
            };
            world.change(|w| w.heartbeats.insert("n1".to_owned(), (Instant::now(), heartbeat)).is_none());
            world
        };
        // What is planned, whether it is what is stored, what the node holds, what is written.
        for (generation, stands, held, expected) in
            [(1, false, 12, 13), (12, false, 12, 13), (13, false, 12, 13), (5, true, 5, 5), (5, true, 4, 5), (5, true, 9, 10)]
        {
            let mut written = BTreeMap::new();
            if stands {
                written.insert("n1".to_owned(), assignment(generation));
            }
            let mut result = plan_for(generation);
            rise_above_held(&mut result, &lead, &written, &world("i", held).read());
            assert_eq!(result.assignments["n1"].order.generation, expected, "{generation} {stands} {held}");
        }
        let mut result = plan_for(1);
        rise_above_held(&mut result, &lead, &BTreeMap::new(), &world("another", 12).read());
        assert_eq!(result.assignments["n1"].order.generation, 1, "orders of two stores cannot be compared");
    }

    #[test]
    fn a_signature_makes_a_newer_assignment_once() {
        let lead = Lead { incarnation: "i".to_owned(), term: 3, revision: 1 };
        let (mut written, signed) = (BTreeMap::from([("n1".to_owned(), assignment(5))]), ["old".to_owned()]);
        let mut result = plan_for(5);
        carry_signature(&mut result, &lead, &written, &signed);
        let first = result.assignments["n1"].clone();
        assert_eq!((first.order.term, first.order.generation, first.recovers.as_slice()), (3, 6, &signed[..]));
        written.insert("n1".to_owned(), first.clone());
        let mut result =
            Plan { assignments: [("n1".to_owned(), Assignment { recovers: Vec::new(), ..first.clone() })].into(), ..Plan::default() };
        carry_signature(&mut result, &lead, &written, &signed);
        assert_eq!(result.assignments["n1"], first);
    }
}
