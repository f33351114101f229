//! Which App a request is made by, and which one it is about.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use cluster_schemas::Assignment;
use cluster_schemas::app::unit_name;
use cluster_schemas::name::check_name;
use serde::Deserialize;

use super::peer::Peer;
use super::{Local, LocalError};
use crate::drivers::hook_text;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A process of this App: of its unit, or of one of its hooks.
    App(String),
    /// A process of no App, whose user may ask for all: root, or the agent's own user.
    Operator,
}

/// Who asks, and about which App.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who asks.
    pub who: Who,
    /// The App that is meant: the one of the query's `app`, else the caller's own.
    pub target: String,
    /// The process.
    pub pid: i32,
}

impl Caller {
    /// Whether the caller's own App is meant, or the caller may ask for all.
    #[must_use]
    pub fn is_at_home(&self) -> bool {
        match &self.who {
            Who::App(app) => *app == self.target,
            Who::Operator => true,
        }
    }

    /// The caller as a refusal names it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.who {
            Who::App(app) => format!("App {app:?}"),
            Who::Operator => "the operator".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct About {
    app: Option<String>,
}

/// The App whose unit, or unit of a hook, has this name.
#[must_use]
pub fn app_of<'a>(assignment: &'a Assignment, unit: &str) -> Option<&'a str> {
    let found = assignment
        .apps
        .iter()
        .find(|(app, entry)| unit_name(app, entry.run.unit.as_ref()) == unit || unit.starts_with(&hook_text::prefix(app)));
    found.map(|(app, _)| app.as_str())
}

pub(super) fn caller(local: &Local, peer: &Peer, asked: Option<String>) -> Result<Caller, LocalError> {
    if let Some(app) = &asked {
        check_name(app).map_err(|error| LocalError::bad_request(format!("app={app}: {error}")))?;
    }
    let own = {
        let assignment = local.assignment.borrow();
        peer.unit.as_deref().and_then(|unit| app_of(assignment.as_deref()?, unit).map(ToOwned::to_owned))
    };
    let pid = peer.pid;
    match (own, asked) {
        (Some(own), asked) => Ok(Caller { target: asked.unwrap_or_else(|| own.clone()), who: Who::App(own), pid }),
        (None, Some(app)) if peer.uid == 0 || peer.uid == local.uid => Ok(Caller { who: Who::Operator, target: app, pid }),
        (None, None) if peer.uid == 0 || peer.uid == local.uid => {
            Err(LocalError::bad_request("this process is of no App: name the one that is meant, as ?app=NAME"))
        }
        (None, _) => {
            let unit = peer.unit.as_deref().map_or_else(|| "in no systemd service".to_owned(), |unit| format!("in unit {unit}"));
            Err(LocalError::forbidden(format!(
                "process {pid} runs {unit}, which is of no App of this node; only root may ask from outside"
            )))
        }
    }
}

impl FromRequestParts<Arc<Local>> for Caller {
    type Rejection = LocalError;

    async fn from_request_parts(parts: &mut Parts, local: &Arc<Local>) -> Result<Self, LocalError> {
        let Query(about) = Query::<About>::from_request_parts(parts, local)
            .await
            .map_err(|error| LocalError::bad_request(format!("the query cannot be read: {error}")))?;
        let peer = parts.extensions.get::<Peer>().ok_or_else(|| LocalError::forbidden("this connection has no known other end"))?;
        caller(local, peer, about.app)
    }
}
