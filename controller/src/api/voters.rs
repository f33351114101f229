//! Who votes on leases, by an operator's word (rules B5).

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use cluster_bus::{ForceOrder, VOTERS_KEY, VotersOrder};
use cluster_schemas::api::{ForceRequest, Forced, ReplaceRequest};
use cluster_schemas::node::VoterList;
use tracing::{info, warn};

use super::input::Input;
use super::{Api, ApiError, audit};
use crate::voters::{judge_force, judge_replace};
use crate::world::World;

/// The voters. A controller that has read nothing yet sends its client on to the next one (503); one that has read all and found none says so.
fn known(world: &World) -> Result<&VoterList, ApiError> {
    world.voters().ok_or_else(|| match world.is_complete() {
        true => ApiError::conflict("nobody votes yet: no agent has joined this cluster"),
        false => ApiError::unavailable("it is not known yet who votes"),
    })
}

/// `POST /v1/voters/replace`
pub async fn replace(State(api): State<Arc<Api>>, Input(request): Input<ReplaceRequest>) -> Result<Json<VoterList>, ApiError> {
    let current = {
        let world = api.world.read();
        let current = known(&world)?;
        judge_replace(current, &world.electors(Instant::now()), &request.old, &request.new).map_err(ApiError::conflict)?;
        current.clone()
    };
    let kv = &api.stores()?.voters;
    let order = VotersOrder { old: request.old, new: request.new, at: format!("{:.0}", jiff::Timestamp::now()) };
    match kv.get(VOTERS_KEY).await? {
        // One at a time; a later order takes the place of one that was not carried out.
        Some(present) => drop(kv.update(VOTERS_KEY, &order, present.revision).await?),
        None => drop(kv.create(VOTERS_KEY, &order).await?),
    }
    audit::replaced("cluster/voters".to_owned(), Some(&order.old), Some(&order.new));
    info!(old = order.old, new = order.new, "a voter is to be replaced");
    Ok(Json(current))
}

/// `POST /v1/voters/force`
pub async fn force(State(api): State<Arc<Api>>, Input(request): Input<ForceRequest>) -> Result<Json<Forced>, ApiError> {
    let (next, number, before) = {
        let world = api.world.read();
        let current = known(&world)?;
        if request.set.is_some_and(|set| set != current.number) {
            return Err(ApiError::conflict(format!("the voters are set {} now: look again before you force them", current.number)));
        }
        let next = judge_force(current, &world.electors(Instant::now()), &request.dead).map_err(ApiError::conflict)?;
        (next, current.number, current.clone())
    };
    if request.set.is_some() {
        let left: Vec<&str> = next.voters.iter().map(|v| v.node.as_str()).collect();
        warn!(dead = request.dead.join(","), left = left.join(","), number = next.number, "an operator vouches that voters are dead");
        audit::replaced("cluster/voters".to_owned(), Some(&before), Some(&next));
        api.bus.publish_force(&ForceOrder { next: next.clone() }).await;
    } else {
        audit::wrote_nothing();
    }
    Ok(Json(Forced { set: number, next }))
}
