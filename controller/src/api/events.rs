//! What happened.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use cluster_schemas::event::Events;
use schemars::JsonSchema;
use serde::Deserialize;

use super::input::Parameters;
use super::{Api, ApiError};

/// Parameters of `GET /v1/events`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only those about this object, such as `app/database`.
    #[serde(rename = "for")]
    object: Option<String>,
}

/// `GET /v1/events[?for=KIND/NAME]`
pub async fn list(State(api): State<Arc<Api>>, Parameters(query): Parameters<EventsQuery>) -> Result<Json<Events>, ApiError> {
    Ok(Json(Events { items: api.events.list(query.object.as_deref()) }))
}
