//! What happened.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use cluster_schemas::event::Events;
use serde::Deserialize;

use super::{Api, ApiError};

/// Parameters of `GET /v1/events`.
#[derive(Debug, Deserialize)]
pub struct EventsQuery {
    /// Only those about this object, such as `app/database`.
    #[serde(rename = "for")]
    object: Option<String>,
}

/// `GET /v1/events[?for=KIND/NAME]`
pub async fn list(State(api): State<Arc<Api>>, query: Result<Query<EventsQuery>, QueryRejection>) -> Result<Json<Events>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    Ok(Json(Events { items: api.events.list(query.object.as_deref()) }))
}
