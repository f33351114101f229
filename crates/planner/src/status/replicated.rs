//! The condition `Replicated` of an App with a database.

use cluster_schemas::assignment::Role;
use cluster_schemas::database::DatabaseObserved;
use cluster_schemas::status::Condition;

use super::{Part, condition};

/// Standbys that are behind and named in a sentence.
const NAMED: usize = 3;

fn database<'a>(part: &Part<'a>) -> Option<&'a DatabaseObserved> {
    part.observed.and_then(|observed| observed.database.as_ref())
}

/// True while the active captures what its application commits and every live standby follows it.
pub(super) fn replicated(parts: &[Part<'_>]) -> Condition {
    let not = |reason: &str, message: String| condition("Replicated", false, reason, message);
    let active = parts.iter().find(|part| part.entry.role == Role::Active);
    let Some((active, leads)) = active.and_then(|part| Some((part, database(part)?))) else {
        // Without an active nothing is captured; a promotion that is held back says why.
        let held = parts.iter().filter_map(|part| Some((part, database(part)?))).find(|(_, database)| !database.reason.is_empty());
        return match held {
            Some((part, database)) => not(&database.reason, format!("{}: {}", part.node, database.message)),
            None => not("NoActiveInstance", "no node is active".to_owned()),
        };
    };
    if !leads.follows {
        let reason = if leads.reason.is_empty() { "NotFollowing" } else { &leads.reason };
        let message = if leads.message.is_empty() { "the database is not followed yet" } else { &leads.message };
        return not(reason, format!("{}: {message}", active.node));
    }
    let standbys: Vec<&Part<'_>> = parts.iter().filter(|part| part.live && part.entry.role == Role::Standby).collect();
    if standbys.is_empty() {
        let message =
            format!("{} has the only copy at transaction {}: no other node that can run the App is alive", active.node, leads.transaction);
        return not("NoStandby", message);
    }
    let (follow, behind): (Vec<_>, Vec<_>) =
        standbys.into_iter().partition(|part| database(part).is_some_and(|database| database.follows && database.epoch == leads.epoch));
    let names = |parts: &[&Part<'_>]| parts.iter().map(|part| part.node).collect::<Vec<_>>().join(", ");
    if let Some(first) = behind.first() {
        let why = |part: &&Part<'_>| {
            let told = database(part).map(|database| database.message.as_str()).filter(|message| !message.is_empty());
            format!("{}: {}", part.node, told.unwrap_or("does not follow yet"))
        };
        let reason = database(first).map(|database| database.reason.as_str()).filter(|reason| !reason.is_empty());
        let all = behind.len() + follow.len();
        let named = behind.iter().take(NAMED).map(why).collect::<Vec<_>>().join("; ");
        return not(reason.unwrap_or("ReplicationBehind"), format!("{} of {all} standbys follow {}: {named}", follow.len(), active.node));
    }
    let verb = if follow.len() == 1 { "follows" } else { "follow" };
    let message = format!("{} {verb} {} in epoch {}, at about transaction {}", names(&follow), active.node, leads.epoch, leads.transaction);
    condition("Replicated", true, "Replicated", message)
}
