//! Recovery: what is the matter with the store, and the operator's signature (rule C3).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use cluster_bus::{MARK_KEY, RECOVERY_KEY, RecoveryRecord, StoreMark};
use cluster_schemas::api::{RecoverRequest, Recovered, RecoveryView};
use tracing::warn;

use super::input::Input;
use super::{Api, ApiError, audit};
use crate::recovery::view;

fn look(api: &Api) -> Result<RecoveryView, ApiError> {
    let view = view(&api.world.read(), Instant::now());
    view.ok_or_else(|| ApiError::unavailable("no controller has led in this store yet, or the caches are not complete"))
}

/// `GET /v1/recovery`
pub async fn show(State(api): State<Arc<Api>>) -> Result<Json<RecoveryView>, ApiError> {
    look(&api).map(Json)
}

/// `POST /v1/recovery`
pub async fn sign(State(api): State<Arc<Api>>, Input(request): Input<RecoverRequest>) -> Result<Json<Recovered>, ApiError> {
    let seen = look(&api)?;
    let stores = api.stores()?;
    let present = stores.recoveries.get(RECOVERY_KEY).await?;
    // Asked again by a client whose first answer was lost: it is signed already.
    if let Some(done) = present.as_ref().map(|p| &p.value).filter(|r| !seen.needed && r.incarnation == request.incarnation) {
        return Ok(Json(Recovered { incarnation: done.incarnation.clone(), recovers: done.recovers.clone() }));
    }
    let signed = judge(&seen, &request)?;
    let mut record =
        RecoveryRecord { incarnation: request.incarnation.clone(), recovers: signed.recovers.clone(), term: highest_term(&seen) };
    if let Some(before) = present.as_ref().map(|p| &p.value).filter(|before| before.incarnation == request.incarnation) {
        // A node that was off may still hold what was signed earlier.
        record.recovers.extend(before.recovers.iter().cloned());
        record.term = record.term.max(before.term);
    }
    record.recovers = record.recovers.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let before = present.as_ref().map(|p| p.value.clone());
    match present {
        Some(present) => stores.recoveries.update(RECOVERY_KEY, &record, present.revision).await?,
        None => stores.recoveries.create(RECOVERY_KEY, &record).await?,
    };
    // The mark comes last: only with it the leader plans.
    let mark = StoreMark { incarnation: request.incarnation.clone() };
    match stores.marks.get(MARK_KEY).await? {
        Some(present) if present.value == mark => {}
        Some(present) => drop(stores.marks.update(MARK_KEY, &mark, present.revision).await?),
        None => drop(stores.marks.create(MARK_KEY, &mark).await?),
    }
    audit::replaced("cluster/recovery".to_owned(), before.as_ref(), Some(&record));
    warn!(incarnation = request.incarnation, recovers = ?record.recovers, stops = ?seen.missing, "an operator signed this store");
    Ok(Json(signed))
}

/// Whether the signature may be given, and what it says.
fn judge(seen: &RecoveryView, request: &RecoverRequest) -> Result<Recovered, ApiError> {
    let incarnation = seen.incarnation.clone().unwrap_or_default();
    if incarnation != request.incarnation {
        return Err(ApiError::conflict(format!("the store is {incarnation} now, not {}: look again before you sign", request.incarnation)));
    }
    if !seen.needed {
        return Err(ApiError::conflict("there is nothing to sign: the nodes follow this store"));
    }
    let unknown: Vec<&str> = seen.nodes.iter().filter(|n| n.alive && n.holds.is_some() && !n.known).map(|n| n.node.as_str()).collect();
    if !unknown.is_empty() {
        return Err(ApiError::unavailable(format!(
            "what runs on {} is not known yet; agents tell it again within ten seconds",
            unknown.join(", ")
        )));
    }
    let unsaid: Vec<&str> = seen.missing.iter().filter(|app| !request.stop.contains(app)).map(String::as_str).collect();
    if !unsaid.is_empty() {
        return Err(ApiError::conflict(format!(
            "nodes run Apps that the store does not have: {}; apply them again first, or name those that shall be stopped",
            unsaid.join(", ")
        )));
    }
    let recovers: BTreeSet<String> = seen
        .nodes
        .iter()
        .filter_map(|n| n.holds.as_ref())
        .map(|order| order.incarnation.clone())
        .filter(|held| *held != incarnation)
        .collect();
    Ok(Recovered { incarnation, recovers: recovers.into_iter().collect() })
}

/// The highest term of this store that any node holds.
fn highest_term(seen: &RecoveryView) -> u64 {
    let ours = seen.nodes.iter().filter_map(|n| n.holds.as_ref()).filter(|order| Some(&order.incarnation) == seen.incarnation.as_ref());
    ours.map(|order| order.term).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::api::RecoveryNode;
    use cluster_schemas::assignment::Order;

    fn node(name: &str, incarnation: &str, known: bool) -> RecoveryNode {
        let holds = Order { incarnation: incarnation.to_owned(), term: 3, generation: 9 };
        RecoveryNode { node: name.to_owned(), alive: true, registered: true, holds: Some(holds), refuses: true, known, apps: Vec::new() }
    }

    fn lost() -> RecoveryView {
        RecoveryView {
            incarnation: Some("new".to_owned()),
            needed: true,
            nodes: vec![node("n1", "old", true), node("n2", "older", true)],
            apps: vec!["api".to_owned()],
            missing: vec!["cache".to_owned()],
            ..RecoveryView::default()
        }
    }

    fn request(stop: &[&str]) -> RecoverRequest {
        RecoverRequest { incarnation: "new".to_owned(), stop: stop.iter().map(|s| (*s).to_owned()).collect() }
    }

    #[test]
    fn a_signature_names_what_it_stops_and_the_stores_that_it_follows() {
        let signed = judge(&lost(), &request(&["cache", "gone-anyway"])).expect("a good request");
        assert_eq!(signed.recovers, ["old", "older"]);
        assert!(format!("{:?}", judge(&lost(), &request(&[]))).contains("cache"));
    }

    #[test]
    fn nothing_is_signed_unseen() {
        let other = RecoverRequest { incarnation: "another".to_owned(), ..request(&["cache"]) };
        assert!(format!("{:?}", judge(&lost(), &other)).contains("look again"));
        assert!(judge(&RecoveryView { needed: false, ..lost() }, &request(&["cache"])).is_err());
        let unknown = RecoveryView { nodes: vec![node("n1", "old", true), node("n2", "old", false)], ..lost() };
        assert!(format!("{:?}", judge(&unknown, &request(&["cache"]))).contains("what runs on n2"));
    }
}
